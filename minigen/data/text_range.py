"""A range of the text of some files: all of it, the part to train on, or the part to validate on.

    files --scan--> TextRange --hold_out--> a TextRange to train on, a TextRange to validate on

A text that is too long to be read whole is read in stripes, which are spread evenly over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from minigen.data.text import DocumentPart, read_documents
from minigen.errors import UserError
from minigen.system.streams import progress_bar
from minigen.system.text_file import unreadable

STRIPE = 1 << 20  # characters that are read in a row of a text that is read in stripes


class Source(Protocol):
    """The files of a corpus. `val` is empty where a part of `train` is to be held out."""

    @property
    def train(self) -> Sequence[Path]: ...
    @property
    def val(self) -> Sequence[Path]: ...
    @property
    def separator(self) -> str | None: ...  # between documents; None: a file is a document


@dataclass(frozen=True)
class TextRange:
    """The characters `start` to `stop` of the documents of some files, the files joined in order.

    Separators and the newlines around them belong to no document, and are not counted anywhere.
    """

    files: tuple[Path, ...]
    separator: str | None
    sha256: str  # of all documents, not only of those from `start` to `stop`
    stamps: tuple[tuple[int, int], ...]  # of the files: as long as these stay, so does the text
    start: int
    stop: int
    every: int = 1  # n: of each n stripes of STRIPE characters only the first is read

    @property
    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield the characters that are read, as (start, stop) pairs in order."""
        if self.every == 1:
            yield self.start, self.stop
        else:
            for start in range(self.start, self.stop, self.every * STRIPE):
                yield start, min(start + STRIPE, self.stop)

    @property
    def n_chars(self) -> int:
        """Return the number of characters that are read."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def key(self) -> tuple[int, ...]:
        """Return the part of the cache key that differs if only stripes of the text are read."""
        return (self.every,) if self.every > 1 else ()

    def parts(self) -> Iterator[DocumentPart]:
        """Read the documents in parts of a few MB; a document cut by a span's start begins there.

        Raises UserError if a file cannot be read or is no text.
        """
        position, spans = 0, self.spans
        start, stop = next(spans)
        for begins, text in read_documents(self.files, self.separator):
            while start < position + len(text):
                if inside := text[max(0, start - position) : stop - position]:
                    yield DocumentPart(begins or position <= start, inside)
                if stop > position + len(text):
                    break  # the span continues in the next part
                if (span := next(spans, None)) is None:
                    return
                start, stop = span
            position += len(text)

    def check_unchanged(self) -> None:
        """Raise UserError if a file was changed after it was scanned."""
        for path, was, now in zip(self.files, self.stamps, file_stamps(self.files), strict=True):
            if was != now:
                raise UserError(f"{path} changed while it was read; start again")


def file_stamps(files: Iterable[Path]) -> tuple[tuple[int, int], ...]:
    """Return the size of each file in bytes and the time of its last change in ns."""
    stamps = []
    for path in files:
        try:
            found = path.stat()
        except OSError as error:
            raise unreadable(path, error) from None
        stamps.append((found.st_size, found.st_mtime_ns))
    return tuple(stamps)


def progress(what: str, total: int, unit: str, n_done: int = 0) -> tqdm[Any]:
    """Return a bar that shows itself after a second, and not where stderr is no terminal."""
    return progress_bar(
        desc=what, total=total, initial=n_done, unit=unit, unit_scale=True, delay=1, leave=False
    )


def scan(files: Sequence[Path], separator: str | None) -> TextRange:
    """Read all files once: to see that they are text, count characters, and hash the documents.

    Raises UserError if a file cannot be read or is no text, or if there is no character in any.
    """
    stamps = file_stamps(files)
    digest, n_chars = hashlib.sha256(), 0
    with progress("reading", sum(size for size, _ in stamps), "B") as bar:
        for part in read_documents(files, separator):
            content = part.text.encode("utf-8")
            # 0xFF is in no UTF-8, so the digest also depends on where documents begin.
            digest.update(b"\xff" * part.begins + content)
            n_chars += len(part.text)
            bar.update(len(content))
    if n_chars == 0:
        named = ", ".join(map(str, files[:3])) + (" ..." if len(files) > 3 else "")
        raise UserError(f"no text in {named}; give a file that is not empty")
    return TextRange(tuple(files), separator, digest.hexdigest(), stamps, 0, n_chars)


def hold_out(text: TextRange, fraction: float) -> tuple[TextRange, TextRange]:
    """Cut off the last `fraction` of the characters for validation."""
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction is {fraction}; give a number between 0 and 1, such as 0.1")
    cut = int((1 - fraction) * text.stop)
    if not 0 < cut < text.stop:
        raise UserError(
            f"{text.files[0]}: {text.stop} characters are too few to hold some out; give more"
        )
    return replace(text, stop=cut), replace(text, start=cut)
