"""Read pairs of a prompt and its answer from JSON Lines, an example a line.

    {"prompt": "2 + 3 =", "completion": " 5"}
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}

A `prompt` and its `completion` are read as they are, with nothing between them: the spaces and
newlines that a model is to see or to write are in the file. So sample.py with the same --prompt
asks the model as it was trained. `messages` are written as text by a template (template.py).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigen.data.json_lines import (
    FIELDS,
    WrongRow,
    first_row,
    is_json_lines,
    read_json_lines,
    string,
)
from minigen.data.template import ANSWERS, ROLES, Part, Template, render
from minigen.data.text import DocumentPart, read_text
from minigen.data.text_range import check_unchanged, file_stamps, progress
from minigen.errors import UserError

# Fields that change which text a model is to write. To ignore them would teach something else.
NOT_READ = ("tools", "tool_calls", "functions", "function_call", "weight", "reasoning_content")


def are_pairs(files: Sequence[Path]) -> bool:
    """Return whether the files hold pairs, by the fields of the first line of each.

    Raises UserError if some of them hold pairs and others text, or if a file would hold pairs under
    another name.
    """
    for path in files:
        _refuse_json(path)
    first = {path: first_row(read_text(path)) if is_json_lines(path) else {} for path in files}
    pairs = [
        path
        for path, row in first.items()
        if row.keys() & {"messages", "prompt", "completion"} and not row.keys() & {*FIELDS}
    ]
    if pairs and (others := [path for path in files if path not in pairs]):
        raise UserError(
            f"{pairs[0]} holds pairs of a prompt and an answer, and {others[0]} text; give one "
            "kind of them"
        )
    return bool(pairs)


def _refuse_json(path: Path) -> None:
    """Raise UserError for a .json file with pairs, whose quotes and braces a model would learn."""
    if path.suffix.lower() != ".json":
        return
    text = next(iter(read_text(path)), "").lstrip()
    try:
        first = json.JSONDecoder().raw_decode(text.removeprefix("[").lstrip())[0]
    except (ValueError, RecursionError):
        return
    if isinstance(first, dict) and first.keys() & {"messages", "prompt", "completion"}:
        way = "write each item of its list in a line of a" if text[:1] == "[" else "rename it to"
        raise UserError(f"{path} holds pairs of a prompt and an answer; {way} .jsonl file")


def parts_of(row: Mapping[str, Any], template: Template = render) -> list[Part]:
    """Return the parts of the example in a row. Raises `WrongRow` if it holds none.

    Args:
        template: writes messages as text.
    """
    if field := next((name for name in FIELDS if name in row), None):
        raise WrongRow(f"has a field {field} in a file of pairs")
    if field := _not_read(row):
        raise WrongRow(f"has a field {field}, which minigen cannot teach")
    if "messages" in row:
        if "completion" in row:
            raise WrongRow("has messages and a completion, where one of them is read")
        messages = _messages_of(row["messages"])
        try:
            return template(messages)
        except UserError as error:  # a chat template may refuse an order of roles
            raise WrongRow(f"has messages that cannot be written: {error}") from None
    for name in ("prompt", "completion"):
        if name not in row:
            raise WrongRow(f"has no field {name}")
    prompt, completion = _string(row, "prompt"), _string(row, "completion")
    if not completion:
        raise WrongRow("has an empty completion")
    return [Part(prompt, False), Part(completion, True)]


def _messages_of(messages: Any) -> list[dict[str, str]]:
    """Return checked messages. Raises `WrongRow`."""
    if not isinstance(messages, list):
        raise WrongRow("has messages that are no list")
    checked = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise WrongRow(f"has a message {number} that is no JSON object")
        for name in ("role", "content"):
            if name not in message:
                raise WrongRow(f"has no {name} in message {number}")
        if field := _not_read(message):
            raise WrongRow(f"has {field} in message {number}, which minigen cannot teach")
        if (role := message["role"]) not in ROLES:
            raise WrongRow(f"has a role in message {number} that is none of {', '.join(ROLES)}")
        if not (content := _string(message, "content")) and role == ANSWERS:
            raise WrongRow(f"has an empty answer in message {number}")
        checked.append({"role": role, "content": content})
    if not any(message["role"] == ANSWERS for message in checked):
        raise WrongRow(f"has no message of the {ANSWERS}")
    if checked[-1]["role"] != ANSWERS:
        raise WrongRow(f"ends with a message of the {checked[-1]['role']}, not of the {ANSWERS}")
    return checked


def _not_read(row: Mapping[str, Any]) -> str | None:
    """Return a field of NOT_READ that is given; None if there is none."""
    return next((name for name in NOT_READ if row.get(name) not in (None, "", [])), None)


def _string(row: Mapping[str, Any], field: str) -> str:
    """Return the text of a field. Raises `WrongRow` if it is none, or has a NUL."""
    text = string(row, field)
    if "\0" in text:
        raise WrongRow(f"has a field {field} with a NUL character")
    return text


@dataclass(frozen=True)
class PairRange:
    """The examples number `start` to `stop` of some files, in order."""

    files: tuple[Path, ...]
    sha256: str  # of all examples, not only of those from `start` to `stop`
    stamps: tuple[tuple[int, int], ...]  # size and time of each file, to notice a change
    start: int
    stop: int
    n_chars: int  # of the examples, about
    template: Template = render

    def examples(self) -> Iterator[list[Part]]:
        """Read the parts of each example. Raises UserError if a file cannot be read."""
        return itertools.islice(_read_pairs(self.files, self.template), self.start, self.stop)

    def parts(self) -> Iterator[DocumentPart]:
        """Yield the text of each part as a document, to train a tokenizer on."""
        for example in self.examples():
            texts = [part.text for part in example if part.text and not part.is_special]
            yield from (DocumentPart(True, text) for text in texts)

    def check_unchanged(self) -> None:
        """Raise UserError if a file was changed after it was scanned."""
        check_unchanged(self.files, self.stamps)


def scan_pairs(files: Sequence[Path], template: Template = render) -> PairRange:
    """Read all files once: check each line, and count and hash the examples.

    Args:
        template: writes messages as text.

    Raises UserError if a file cannot be read, if a line holds no pair, or if there is none at all.
    """
    stamps = file_stamps(files)
    digest, n_examples, n_chars = hashlib.sha256(), 0, 0
    with progress("reading", sum(size for size, _ in stamps), "B") as bar:
        for example in _read_pairs(files, template):
            for part in example:
                text_bytes = part.text.encode("utf-8")
                # Bytes from 0xF8 on are in no UTF-8, so the digest depends on where a part begins.
                kind = 0xFF - part.is_answer - 2 * part.is_special
                digest.update(bytes([kind]) + text_bytes)
                n_chars += len(part.text)
                bar.update(len(text_bytes))
            n_examples += 1
    if n_examples == 0:
        raise UserError(f"no pairs in {files[0]}; give a file that is not empty")
    sha256 = digest.hexdigest()
    return PairRange(tuple(files), sha256, stamps, 0, n_examples, n_chars, template)


def hold_out_pairs(pairs: PairRange, fraction: float) -> tuple[PairRange, PairRange]:
    """Split examples into those to train on and the last `fraction`, at least 1, to validate on.

    Raises UserError if there is only one.
    """
    n_held_out = max(1, int(fraction * pairs.stop))
    cut = pairs.stop - n_held_out
    if cut == 0:
        raise UserError(f"{pairs.files[0]}: 1 pair is too few to hold some out; give more")
    n_chars = pairs.n_chars * cut // pairs.stop
    return (
        replace(pairs, stop=cut, n_chars=n_chars),
        replace(pairs, start=cut, n_chars=pairs.n_chars - n_chars),
    )


def _read_pairs(files: Sequence[Path], template: Template) -> Iterator[list[Part]]:
    """Read the examples of files. Raises UserError for a line that holds none."""
    for path in files:
        yield from read_json_lines(path, read_text(path), lambda row: parts_of(row, template))


def has_messages(files: Sequence[Path]) -> bool:
    """Return whether the first line of one of the files has messages."""
    return any("messages" in first_row(read_text(path)) for path in files)
