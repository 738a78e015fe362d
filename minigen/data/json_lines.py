"""Read a JSON Lines file, one document a line: {"text": "Once upon a time"}."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from minigen.errors import UserError

ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
FIELDS = ("text", "content")  # the first that a line has
MAX_LINE = 1 << 27  # characters; a longer line would fill the memory

Item = TypeVar("Item")


def is_json_lines(path: Path) -> bool:
    """Return whether a file holds a JSON object in each line, by its name."""
    return path.name.lower().endswith(ENDINGS)


def read_json_lines(
    path: Path, chunks: Iterable[str], read: Callable[[dict[str, Any]], Item]
) -> Iterator[Item]:
    r"""Yield the content of each line that is not blank; an empty text is no document.

    Args:
        path: the file, for messages.
        chunks: its content, with "\n" at the end of each line.
        read: returns the content of a row, such as `text_of`.

    Raises `UserError`, with the number of the line, for a line that is not a JSON object, or that
    `read` raises `WrongRow` for. Such a line must not be read as text: a model would learn its
    quotes and braces.
    """
    for number, line in enumerate(_lines(chunks), start=1):
        try:
            if line.strip() and (item := read(_row(line))):
                yield item
        except WrongRow as reason:
            raise UserError(f"{path}, line {number} {reason}; mend or remove it") from None


class WrongRow(Exception):
    """A row of a file that is not as it must be, with the reason."""


def text_of(row: Mapping[str, Any]) -> str:
    """Return the text of a row, without the newlines around it. Raises `WrongRow`."""
    return string(row, text_field(row)).strip("\n")


def text_field(names: Collection[str]) -> str:
    """Return which of the fields of a row holds its text. Raises `WrongRow` if none does."""
    if {"prompt", "completion"} <= {*names} or "messages" in names:
        raise WrongRow("has a prompt and an answer, where a text is read")
    field = next((name for name in FIELDS if name in names), None)
    if field is None:
        raise WrongRow(f"has no field {' or '.join(FIELDS)}")
    return field


def string(row: Mapping[str, Any], field: str) -> str:
    """Return the text of a field, with one kind of line end. Raises `WrongRow` if it is none."""
    if not isinstance(row[field], str):
        raise WrongRow(f"has a field {field} that is no string")
    text = str(row[field])
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise WrongRow("has half of a surrogate pair")
    return one_line_end(text)


def one_line_end(text: str) -> str:
    r"""Return a text with "\n" at the end of each line."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def first_row(chunks: Iterable[str]) -> dict[str, Any]:
    """Return the first row of a file; {} if it is damaged, or if there is none."""
    try:
        return next((_row(line) for line in _lines(chunks) if line.strip()), {})
    except WrongRow:
        return {}


def _row(line: str) -> dict[str, Any]:
    """Return the JSON object of a line. Raises `WrongRow`."""
    if len(line) > MAX_LINE:
        raise WrongRow(f"has more than {MAX_LINE:,} characters")
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise WrongRow("is not JSON") from None
    if not isinstance(row, dict):
        raise WrongRow("is not a JSON object")
    return row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises `WrongRow` for a field that it has twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise WrongRow("has a field twice")
    return fields


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    """Split a text that comes in chunks into its lines; a line that is far too long comes early."""
    rest = ""
    for chunk in chunks:
        *ended, rest = (rest + chunk).split("\n")
        yield from ended
        if len(rest) > MAX_LINE:
            break
    yield rest
