"""What a model can be asked for: a medium is a corpus whose documents say first what they are like.

A tale, a picture and a tune each begin with a line of conditions. The medium knows the words that
such a line has, and how to check a document against it. Which medium a text is can be seen from its
beginning.
"""

from __future__ import annotations

import argparse
import importlib
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import minigen
from minigen import corpora
from minigen.errors import UserError

# Of the documents of each; in the order in which a prompt is tried, as a tale takes any words.
BEGINNINGS = {"pictures": "picture:", "tunes": "tune:", "tales": "hero:"}
ABC = re.compile(r"^X:.*\n(?:[A-Za-z]:.*\n|%.*\n)*K:", re.MULTILINE)  # how a tune's header goes


@dataclass(frozen=True)
class Verdict:
    """What `check` found out about a text.

    well_formed: it has the form of a document of its medium, whatever its first line asks for.
    obeys: it is as its first line says.
    valid: the corpus itself could have written it, to the letter.
    complaints: why not, in plain words; empty exactly if the text is valid.
    bits: -log2 p(text), if it is valid.
    conditions: what the first line says, as far as it could be read.
    """

    well_formed: bool
    obeys: bool
    valid: bool
    complaints: list[str]
    bits: float | None
    conditions: dict[str, str]


class Medium(Protocol):
    """The module of such a corpus."""

    NOUN: str  # what one of its documents is called
    ENDINGS: tuple[str, ...]  # of the files that `save` writes
    WHOLE: bool  # a terminal shows a document when it is whole, and no part of it before

    @property
    def FIELDS(self) -> Mapping[str, tuple[str, ...]]:
        """What the first line says, in its order, and the words that it has for each."""

    def prompt(self, text: str, rng: random.Random) -> str:
        """The beginning of a first line, for words as a person types them.

        What stands at the end of the line and was not said is left to the model, the rest drawn.
        Raises UserError for words that no first line has.
        """

    def condition(self, given: Mapping[str, str], rng: random.Random) -> str:
        """A first line, its end included, with values of some fields; the others are drawn.

        Raises UserError if no first line says that.
        """

    def check(self, text: str) -> Verdict:
        """Read a text as a document; blank lines before and after it do not count."""

    def show(self, text: str) -> str:
        """A document for a terminal with colours."""

    def save(self, texts: Sequence[str], path: Path) -> None:
        """Write documents as a file, or as many, of the kind that the ending of `path` says.

        Raises UserError for what cannot be written, after all that can be.
        """


def named(corpus: str) -> Medium:
    """The medium of a corpus."""
    # Not at the top of the file: they import this one, and a run needs one of them or none.
    return cast(Medium, importlib.import_module(f"minigen.corpora.{corpus}"))


def of(text: str) -> Medium | None:
    """The medium that a text is; None for a text of any other kind."""
    found = [corpus for corpus, words in BEGINNINGS.items() if text.startswith(words)]
    return named(found[0]) if found else None


def written_as(text: str) -> Medium | None:
    """The medium as whose documents a text can be saved: also ABC notation without a first line."""
    return of(text) or (named("tunes") if ABC.search(text) else None)


def trained(state: Mapping[str, Any]) -> list[Medium]:
    """The media that the model of a checkpoint with this `state` was trained on."""
    names = corpora.written(state.get("config", {}).get("data", ()))
    return [named(corpus) for corpus in BEGINNINGS if corpus in names]


def prompt(media: Sequence[Medium], text: str, rng: random.Random) -> str:
    """What a model that was trained on these media is to go on from, for words that were typed.

    What begins as documents do is taken to the letter, and so is all without any medium. Raises
    UserError if the words are those of no medium.
    """
    if not text.strip() or of(text) or not media:
        return text
    refused = []
    for one in media:
        try:
            return one.prompt(text, rng)
        except UserError as error:
            refused.append(str(error))
    raise UserError("; or ".join(refused))


def condition(media: Sequence[Medium], pairs: str, rng: random.Random) -> str:
    """The same for conditions such as "mood=sad,dance=waltz"; other fields are drawn.

    Raises UserError if that asks for nothing that is one of these media, or for more than one.
    """
    given: dict[str, str] = {}
    for pair in pairs.split(","):
        field, equals, value = (word.strip() for word in pair.partition("="))
        if not equals:
            raise UserError(f"{pair!r} is no condition; it is such as mood=sad,dance=waltz")
        given[field] = value
    lines, refused = dict[str, str](), list[str]()
    for one in media:
        try:
            lines[one.NOUN] = one.condition(given, rng)
        except UserError as error:
            refused.append(str(error))
    if len(lines) == 1:
        return next(iter(lines.values()))
    if lines:
        raise UserError(f"{pairs} may be a {' or a '.join(lines)}; say more of it")
    raise UserError("; or ".join(refused) or "the model has read no tales, pictures or tunes")


def first_lines(text: str, n: int = 1) -> str:
    """So many lines of a document, their ends included; the first says what it is to be like."""
    return "".join(text.splitlines(keepends=True)[:n])


def known(
    noun: str, fields: Mapping[str, Sequence[str]], given: Mapping[str, str]
) -> dict[str, str]:
    """The given conditions in the medium's own spelling.

    Raises UserError for a field that a document of this kind lacks, or a value that it cannot have.
    """
    spelled = {}
    for field, value in given.items():
        if field not in fields:
            raise UserError(f"a {noun} has no {field!r}; it has {', '.join(fields)}")
        matching = [word for word in fields[field] if word.lower() == value.lower()]
        if not matching:
            raise UserError(f"{field} is {value!r}; give one of {', '.join(fields[field])}")
        spelled[field] = matching[0]
    return spelled


def draw(options: Sequence[str], rng: random.Random) -> str:
    """One of them, each as probable; random() gives the same numbers on every Python."""
    return options[int(rng.random() * len(options))]


def save_text(texts: Sequence[str], path: Path, joint: str = "\n\n") -> None:
    """Write texts with `joint` between them. Raises UserError if they cannot be written."""
    try:
        path.write_text(joint.join(texts) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another place") from None


def flags(noun: str) -> argparse.ArgumentParser:
    """Those of the command that each of these corpora is."""
    parser = argparse.ArgumentParser(
        prog=f"python -m minigen.corpora.{noun}s", description=f"Print {noun}s, or check some."
    )
    parser.add_argument("--version", action="version", version=f"minigen {minigen.__version__}")
    parser.add_argument("--seed", type=int, default=0, help=f"which {noun}s")
    parser.add_argument("--count", type=int, default=3, help=f"how many {noun}s")
    parser.add_argument(
        "--check", metavar="FILE", help=f"check a file's {noun}s; - is standard input"
    )
    return parser


def check_file(path: str, noun: str, check: Callable[[str], Verdict]) -> list[str]:
    """Print what is wrong with each document of a file; returns the well-formed ones.

    Args:
        path: a file with blank lines or rules between documents; - is standard input.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    lines = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
    texts = [text for text in re.split(r"\n(?:-*\n)+", lines.strip("\n")) if text]
    verdicts = [check(text) for text in texts]
    for number, verdict in enumerate(verdicts, 1):
        for complaint in verdict.complaints:
            print(f"{noun} {number}: {complaint}")
    print(
        f"{len(verdicts)} {noun}s, {sum(v.well_formed for v in verdicts)} well-formed, "
        f"{sum(v.obeys for v in verdicts)} obey their first line, "
        f"{sum(v.valid for v in verdicts)} valid"
    )
    return [text for text, one in zip(texts, verdicts, strict=True) if one.well_formed]
