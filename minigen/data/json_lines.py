"""Read the documents of a JSON Lines file, one a line: {"text": "Once upon a time"}."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from minigen.errors import UserError

ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
FIELDS = ("text", "content")  # the first that a line has
MAX_LINE = 1 << 27  # characters; a longer line would fill the memory


def is_json_lines(path: Path) -> bool:
    """Return whether a file holds a JSON object in each line, by its name."""
    return path.name.lower().endswith(ENDINGS)


def read_json_lines(path: Path, chunks: Iterable[str]) -> Iterator[str]:
    r"""Yield the text of each line that is not blank; an empty text is no document.

    Args:
        path: the file, for messages.
        chunks: its content, with "\n" at the end of each line.

    Raises `UserError`, with the number of the line, for a line that is not a JSON object with a
    text. Such a line must not be read as text: a model would learn its quotes and braces.
    """
    for number, line in enumerate(_lines(chunks), start=1):
        try:
            if line.strip() and (text := _text(line)):
                yield text
        except _NoText as reason:
            raise UserError(f"{path}, line {number} {reason}; mend or remove it") from None


class _NoText(Exception):
    """Why a line has no text."""


def _text(line: str) -> str:
    """Return the text of a line, without the newlines around it. Raises `_NoText`."""
    if len(line) > MAX_LINE:
        raise _NoText(f"has more than {MAX_LINE:,} characters")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise _NoText("is not JSON") from None
    if not isinstance(row, dict):
        raise _NoText("is not a JSON object")
    field = next((name for name in FIELDS if name in row), None)
    if field is None:
        raise _NoText(why_no_field(row))
    if not isinstance(row[field], str):
        raise _NoText(f"has a field {field} that is no string")
    text = str(row[field])
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _NoText("has half of a surrogate pair")
    return as_document(text)


def why_no_field(names: Collection[str]) -> str:
    """Return why a row that has fields of these names has no text."""
    if {"prompt", "completion"} <= {*names} or "messages" in names:
        return "has a prompt and an answer, and minigen trains on running text"
    return f"has no field {' or '.join(FIELDS)}"


def as_document(text: str) -> str:
    r"""Return a text with "\n" at the end of each line, and without newlines around it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    """Split a text that comes in chunks into its lines; a line that is far too long comes early."""
    rest = ""
    for chunk in chunks:
        *ended, rest = (rest + chunk).split("\n")
        yield from ended
        if len(rest) > MAX_LINE:
            break
    yield rest
