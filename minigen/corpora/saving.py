"""Samples as a file: a text, or of a corpus's documents also pictures, sound and sheet music."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen import corpora
from minigen.corpora import task
from minigen.corpora.task import Task
from minigen.errors import UserError


def check_path(path: Path, tasks: Sequence[Task]) -> None:
    """Refuse a file that samples cannot be saved as, before any sample is written.

    Args:
        tasks: those that the model was trained on; empty: other texts, which may turn out to be
            tunes or pictures, too.
    """
    able = tasks or [task.get(name) for name in task.BEGINNINGS]
    endings = sorted({".txt"}.union(*(each.ENDINGS for each in able)))
    if path.suffix.lower() not in endings:
        raise UserError(f"cannot save as {path}; give a name that ends in {', '.join(endings)}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"there is no folder {path.absolute().parent} for --save; make it first")


def save(texts: Sequence[str], path: Path, separator: str = "\n\n") -> None:
    """Write the texts as the file that the ending of `path` says, as text with `separator` between.

    Raises `UserError` for texts of two kinds, or of one that has no such file.
    """
    kinds = {task.for_saving(text) for text in texts} - {None}
    if path.suffix.lower() == ".txt":
        task.save_text(texts, path, separator)
    elif len(kinds) > 1:
        raise UserError(f"these are not all of one kind; save them as {path.with_suffix('.txt')}")
    elif (kind := kinds.pop() if kinds else None) and path.suffix.lower() in kind.ENDINGS:
        kind.save(texts, path)
    else:
        noun = kind.NOUN if kind else "text that is no picture, and no tune from X: to K: and notes"
        raise UserError(f"a {noun} is not saved as {path}; take {path.with_suffix('.txt')}")


def separator_of(state: Mapping[str, Any]) -> str | None:
    """Return the separator of a model's training text, with newlines around it if it has a line.

    None where files were documents, or for tales, pictures and tunes: these have no separator.

    Args:
        state: of the model's checkpoint.
    """
    separator = corpora.separates(state.get("config", {}).get("separator"))
    if separator is None:
        return None
    return f"\n{inner}\n" if (inner := separator.strip("\n")) else separator
