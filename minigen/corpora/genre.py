"""Genres: tales, pictures and tunes, which a model is asked to write and a program judges.

Each document of a synthetic corpus begins with a *first line*, which states its *conditions*: the
hero of a tale, the things of a picture, the mood of a tune. A trained model gets a first line as
its prompt and writes the rest of the document. The genre of the corpus knows the words of first
lines, and judges a document by a program:

- It is *well-formed* if its format is right.
- It *follows its prompt* if the rest of the text fulfils the conditions of the first line.
- It is *valid* if it is well-formed, follows its prompt, and the grammar can write exactly it.
"""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from minigen.corpora.splits import Document
from minigen.errors import UserError

SYNTHETIC = ("tales", "pictures", "tunes")  # corpora that a grammar writes; each has a genre
WRITTEN = (*SYNTHETIC, "tasks")  # all corpora that minigen writes; `tasks` are pairs
# The beginning of each document. `prompt` tries the genres in this order; tales are last, because a
# tale may continue any words.
BEGINNINGS = {"pictures": "picture:", "tunes": "tune:", "tales": "hero:"}
ABC = re.compile(r"^X:.*\n(?:[A-Za-z]:.*\n|%.*\n)*K:", re.MULTILINE)  # the header of ABC notation


@dataclass(frozen=True)
class Verdict:
    """The judgement of a document by the `check` of its genre.

    well_formed: the format is right, whatever the first line says.
    follows_prompt: the rest of the text fulfils the conditions of the first line.
    valid: the text is well-formed, follows its prompt, and the grammar can write it.
    complaints: why the text is not valid; empty exactly if it is valid.
    bits: -log2 p(text) under the grammar; None if the text is not valid.
    conditions: the value of each field of the first line, as far as the line can be read.
    """

    well_formed: bool
    follows_prompt: bool
    valid: bool
    complaints: list[str]
    bits: float | None
    conditions: dict[str, str]


class Writer(Protocol):
    """The package of a corpus that a program writes: it writes documents, and checks texts."""

    VERSION: int  # of the text format: the same version and seed give the same bytes
    SPLITS: tuple[str, ...]  # the names of the text files, without their ending
    NOUN: str  # the noun for one document
    ENDINGS: tuple[str, ...]  # of the names of the files that `save` can write

    def documents(self, seed: int, split: str = "train") -> Iterator[Document]:
        """Yield documents without end; the k-th depends on seed, split and k only."""

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the files of the corpus with `splits.write`; return the facts."""

    def check(self, text: str) -> Verdict:
        """Judge a text as a document; blank lines before and after it do not count."""

    def show(self, text: str) -> str:
        """Return the text that shows a document in a terminal with colours."""

    def save(self, texts: Sequence[str], path: Path) -> None:
        """Write documents as one file or several, in the format that the ending of `path` names.

        Raises `UserError` for a text that cannot be saved, after the other texts are saved.
        """


class Genre(Writer, Protocol):
    """The package of a synthetic corpus: it also makes prompts, which are first lines."""

    SHOWN_WHEN_COMPLETE: bool  # a terminal shows a document only once it is complete

    @property
    def FIELDS(self) -> Mapping[str, tuple[str, ...]]:
        """The fields of the first line, in its order, and the words that each can have."""

    def prompt(self, text: str, rng: random.Random) -> str:
        """Return the beginning of a first line for words that a person typed.

        If the words are the beginning of a first line, the model completes the line. Fields that
        are missing between the words are drawn. Raises `UserError` for words that no first line
        has.
        """

    def condition(self, conditions: Mapping[str, str], rng: random.Random) -> str:
        """Return a first line with its newline that states the conditions; draw the other fields.

        Raises `UserError` if no first line can state the conditions.
        """


def writer(corpus: str) -> Writer:
    """Return the package of a synthetic corpus, or of the questions, `tasks`."""
    # The package is imported at the call, by its name: the packages themselves import this module,
    # and a run needs only the packages of its own corpora.
    return cast(Writer, importlib.import_module(f"minigen.corpora.{corpus}"))


def get(corpus: str) -> Genre:
    """Return the genre of a corpus."""
    return cast(Genre, writer(corpus))


def detect(text: str) -> Genre | None:
    """Return the genre whose documents begin like a text; None if there is no such genre."""
    corpora = [corpus for corpus, beginning in BEGINNINGS.items() if text.startswith(beginning)]
    return get(corpora[0]) if corpora else None


def detect_for_saving(text: str) -> Genre | None:
    """Return the genre whose `save` can write a text; ABC notation needs no first line for that."""
    return detect(text) or (get("tunes") if ABC.search(text) else None)


def synthetic_names(data: Sequence[str], among: Sequence[str] = SYNTHETIC) -> tuple[str, ...]:
    """Return the names of the synthetic corpora in --data; or of those `among` which to look."""
    names = {name.strip() for item in data for name in item.split(",")}
    return tuple(name for name in among if name in names)


def genres_of_model(state: Mapping[str, Any]) -> list[Genre]:
    """Return the genres that a model was trained on.

    Args:
        state: of the model's checkpoint; its configuration names the corpora.
    """
    names = synthetic_names(state.get("config", {}).get("data", ()))
    return [get(corpus) for corpus in BEGINNINGS if corpus in names]


def prompt(genres: Sequence[Genre], text: str, rng: random.Random) -> str:
    """Return the prompt for typed words and a model that was trained on these genres.

    A text that begins like a document is a prompt already, and so is any text if there are no
    genres. Else the prompt is that of the first genre that has a first line with these words.

    Raises `UserError` if no genre has a first line with these words.
    """
    if not text.strip() or detect(text) or not genres:
        return text
    errors = []
    for each in genres:
        try:
            return each.prompt(text, rng)
        except UserError as error:
            errors.append(str(error))
    raise UserError("; or ".join(errors))


def condition(genres: Sequence[Genre], pairs: str, rng: random.Random) -> str:
    """Return a first line for conditions such as "mood=sad,dance=waltz"; draw the other fields.

    Raises `UserError` if the conditions fit none of the genres, or more than one.
    """
    conditions: dict[str, str] = {}
    for pair in pairs.split(","):
        field, equals, value = (word.strip() for word in pair.partition("="))
        if not equals:
            raise UserError(f"{pair!r} is no condition; give one such as mood=sad,dance=waltz")
        conditions[field] = value
    lines, errors = dict[str, str](), list[str]()
    for each in genres:
        try:
            lines[each.NOUN] = each.condition(conditions, rng)
        except UserError as error:
            errors.append(str(error))
    if len(lines) == 1:
        return next(iter(lines.values()))
    if lines:
        raise UserError(
            f"{pairs} may be a {' or a '.join(lines)}; add a condition that only one of them has"
        )
    raise UserError(
        "; or ".join(errors)
        or "the model was not trained on tales, pictures or tunes; give it any --prompt"
    )


def first_lines(text: str, n: int = 1) -> str:
    """Return the first `n` lines of a document with their newlines."""
    return "".join(text.splitlines(keepends=True)[:n])


def parse_fields(
    noun: str, fields: Mapping[str, Sequence[str]], conditions: Mapping[str, str]
) -> dict[str, str]:
    """Return conditions in the spelling of the genre: "RED" becomes "red".

    Args:
        noun: the noun for a document of the genre, for errors.
        fields: the words that each field can have.
        conditions: values of some of the fields.

    Raises `UserError` for a field that is not in `fields`, or a value that the field cannot have.
    """
    spelled = {}
    for field, value in conditions.items():
        if field not in fields:
            raise UserError(f"a {noun} has no {field!r}; it has {', '.join(fields)}")
        matching = [word for word in fields[field] if word.lower() == value.lower()]
        if not matching:
            raise UserError(f"{field} is {value!r}; give one of {', '.join(fields[field])}")
        spelled[field] = matching[0]
    return spelled


def save_text(texts: Sequence[str], path: Path, separator: str = "\n\n") -> None:
    """Write texts as one file, with `separator` between two texts.

    Raises `UserError` if the file cannot be written.
    """
    try:
        path.write_text(separator.join(texts) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another place") from None
