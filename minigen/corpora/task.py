"""Tasks: corpora whose documents begin with a line of conditions, which a model learns to keep.

A tale, a picture and a tune each say in their first line what they are to be like. The task of a
corpus knows the words that such a line can have, and checks a document against it. So a trained
model can be asked for a text, and its answer can be judged by a program.
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

SYNTHETIC = ("tales", "pictures", "tunes")  # corpora that a grammar writes; each has a task
# How the documents of each begin, in the order in which a prompt is tried: a tale takes any words.
BEGINNINGS = {"pictures": "picture:", "tunes": "tune:", "tales": "hero:"}
ABC = re.compile(r"^X:.*\n(?:[A-Za-z]:.*\n|%.*\n)*K:", re.MULTILINE)  # a tune's header


@dataclass(frozen=True)
class Verdict:
    """The result of `check`.

    well_formed: the text has the form of a document of its task, whatever its first line asks for.
    obeys: the text is as its first line says.
    valid: the corpus itself could have written the text, to the letter.
    complaints: why not, in plain words; empty exactly if the text is valid.
    bits: -log2 p(text), if the text is valid.
    conditions: the values of the first line's fields, as far as the line could be read.
    """

    well_formed: bool
    follows_prompt: bool
    valid: bool
    complaints: list[str]
    bits: float | None
    conditions: dict[str, str]


class Task(Protocol):
    """The package of a corpus: how to write its documents, ask for one, and check one."""

    VERSION: int  # of the text format: the same version and seed give the same bytes
    SPLITS: tuple[str, ...]  # files of the corpus
    NOUN: str  # for one document
    ENDINGS: tuple[str, ...]  # of the files that `save` writes
    WHOLE: bool  # a terminal shows a document when it is whole, and no part of it before

    @property
    def FIELDS(self) -> Mapping[str, tuple[str, ...]]:
        """The fields of the first line, in its order, and the words that each can have."""

    def documents(self, seed: int, split: str = "train") -> Iterator[Document]:
        """Yield documents without end; the k-th is a function of (seed, split, k)."""

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the corpus as `splits.write` does; return the facts."""

    def prompt(self, text: str, rng: random.Random) -> str:
        """Return the beginning of a first line, for words as a person types them.

        The end of the line is left to the model where the words do not say it; any other gap is
        drawn. Raises UserError for words that no first line has.
        """

    def condition(self, given: Mapping[str, str], rng: random.Random) -> str:
        """Return a first line, its end included, with values of some fields; draw the others.

        Raises UserError if no first line says that.
        """

    def check(self, text: str) -> Verdict:
        """Read a text as a document; blank lines before and after it do not count."""

    def show(self, text: str) -> str:
        """Return a document for a terminal with colours."""

    def save(self, texts: Sequence[str], path: Path) -> None:
        """Write documents as one file or several, of the kind that the ending of `path` says.

        Raises UserError for a text that cannot be saved, after all others are.
        """


def get(corpus: str) -> Task:
    """Return the task of a corpus."""
    # The one import by name: the packages import this file for `Verdict`, and a run needs one of
    # them or none.
    return cast(Task, importlib.import_module(f"minigen.corpora.{corpus}"))


def detect(text: str) -> Task | None:
    """Return the task that a text belongs to by its beginning; None for any other text."""
    found = [corpus for corpus, words in BEGINNINGS.items() if text.startswith(words)]
    return get(found[0]) if found else None


def for_saving(text: str) -> Task | None:
    """Return the task whose `save` can write a text: also for ABC notation without a first line."""
    return detect(text) or (get("tunes") if ABC.search(text) else None)


def synthetic(data: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the synthetic corpora in the entries of a --data."""
    names = {name.strip() for given in data for name in given.split(",")}
    return tuple(name for name in SYNTHETIC if name in names)


def trained_on(state: Mapping[str, Any]) -> list[Task]:
    """Return the tasks that the model of a checkpoint with this `state` was trained on."""
    names = synthetic(state.get("config", {}).get("data", ()))
    return [get(corpus) for corpus in BEGINNINGS if corpus in names]


def prompt(tasks: Sequence[Task], text: str, rng: random.Random) -> str:
    """Return the prompt that typed words are for a model that was trained on these tasks.

    A text that begins as documents do is a prompt as it is, and so is any text without tasks.
    Raises UserError if the words are those of no task.
    """
    if not text.strip() or detect(text) or not tasks:
        return text
    refused = []
    for one in tasks:
        try:
            return one.prompt(text, rng)
        except UserError as error:
            refused.append(str(error))
    raise UserError("; or ".join(refused))


def condition(tasks: Sequence[Task], pairs: str, rng: random.Random) -> str:
    """Return the first line for conditions such as "mood=sad,dance=waltz"; draw other fields.

    Raises UserError if the conditions fit none of the tasks, or more than one.
    """
    given: dict[str, str] = {}
    for pair in pairs.split(","):
        field, equals, value = (word.strip() for word in pair.partition("="))
        if not equals:
            raise UserError(f"{pair!r} is no condition; it is such as mood=sad,dance=waltz")
        given[field] = value
    lines, refused = dict[str, str](), list[str]()
    for one in tasks:
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
    """Return the first `n` lines of a document with their ends; the first has the conditions."""
    return "".join(text.splitlines(keepends=True)[:n])


def parse_fields(
    noun: str, fields: Mapping[str, Sequence[str]], given: Mapping[str, str]
) -> dict[str, str]:
    """Return the given conditions in the task's own spelling.

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


def save_text(texts: Sequence[str], path: Path, joint: str = "\n\n") -> None:
    """Write texts with `joint` between them. Raises UserError if they cannot be written."""
    try:
        path.write_text(joint.join(texts) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another place") from None
