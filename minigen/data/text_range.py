"""A range of a text in files: all of it, the part to train on, or the part to validate on.

    files --scan--> TextRange --hold_out--> a TextRange to train on, a TextRange to validate on

Where only a part of a long text is to be read, it is read in stripes that are spread evenly over
it, because the beginning alone may differ from the rest.
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

STRIPE = 1 << 20  # characters in a stripe


class CorpusFiles(Protocol):
    """The files of a corpus. If `val` is empty, a part of `train` is held out for validation."""

    @property
    def train(self) -> Sequence[Path]: ...
    @property
    def val(self) -> Sequence[Path]: ...
    @property
    def separator(self) -> str | None: ...  # between documents; None: a file is a document


@dataclass(frozen=True)
class TextRange:
    """The characters `start` to `stop` of all documents of some files, joined in order.

    Separators and the newlines around them belong to no document, and are not counted anywhere.
    """

    files: tuple[Path, ...]
    separator: str | None
    sha256: str  # of all documents, not only of those from `start` to `stop`
    stamps: tuple[tuple[int, int], ...]  # size and time of each file, to notice a change
    start: int
    stop: int
    stripe_interval: int = 1  # n: of each n stripes of STRIPE characters only the first is read

    @property
    def spans(self) -> Iterator[tuple[int, int]]:
        """The characters that are read, as (start, stop) pairs in order."""
        if self.stripe_interval == 1:
            yield self.start, self.stop
        else:
            for start in range(self.start, self.stop, self.stripe_interval * STRIPE):
                yield start, min(start + STRIPE, self.stop)

    @property
    def n_chars(self) -> int:
        """The number of characters that are read."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def key(self) -> tuple[int, ...]:
        """The part of the cache's key for stripes: (), or the interval if there is one."""
        return (self.stripe_interval,) if self.stripe_interval > 1 else ()

    def parts(self) -> Iterator[DocumentPart]:
        """Read the documents in parts. A document that the start of a span cuts begins there.

        Raises UserError if a file cannot be read or is not text.
        """
        position, spans = 0, self.spans
        start, stop = next(spans)
        for is_first, text in read_documents(self.files, self.separator):
            while start < position + len(text):
                if inside := text[max(0, start - position) : stop - position]:
                    yield DocumentPart(is_first or position <= start, inside)
                if stop > position + len(text):
                    break  # the span continues in the next part
                if (span := next(spans, None)) is None:
                    return
                start, stop = span
            position += len(text)

    def check_unchanged(self) -> None:
        """Raise UserError if a file was changed after it was scanned."""
        check_unchanged(self.files, self.stamps)


def check_unchanged(files: Sequence[Path], stamps: Sequence[tuple[int, int]]) -> None:
    """Raise UserError if the stamp of a file is another than before."""
    for path, old_stamp, new_stamp in zip(files, stamps, file_stamps(files), strict=True):
        if old_stamp != new_stamp:
            raise UserError(f"{path} changed while it was read; start again")


def file_stamps(files: Iterable[Path]) -> tuple[tuple[int, int], ...]:
    """Return the size of each file in bytes and the time of its last change in ns."""
    stamps = []
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise unreadable(path, error) from None
        stamps.append((status.st_size, status.st_mtime_ns))
    return tuple(stamps)


def progress(task: str, total: int, unit: str, n_done: int = 0) -> tqdm[Any]:
    """Return a progress bar that appears after a second, if stderr is a terminal."""
    return progress_bar(
        desc=task, total=total, initial=n_done, unit=unit, unit_scale=True, delay=1, leave=False
    )


def scan(files: Sequence[Path], separator: str | None) -> TextRange:
    """Read all files once: check that they are text, count characters, and hash the documents.

    Raises UserError if a file cannot be read or is not text, or if all files are empty.
    """
    stamps = file_stamps(files)
    digest, n_chars = hashlib.sha256(), 0
    with progress("reading", sum(size for size, _ in stamps), "B") as bar:
        for part in read_documents(files, separator):
            text_bytes = part.text.encode("utf-8")
            # 0xFF is in no UTF-8, so the digest also depends on where documents begin.
            digest.update(b"\xff" * part.is_first + text_bytes)
            n_chars += len(part.text)
            bar.update(len(text_bytes))
    if n_chars == 0:
        names = ", ".join(map(str, files[:3])) + (" ..." if len(files) > 3 else "")
        raise UserError(f"no text in {names}; give a file that is not empty")
    return TextRange(tuple(files), separator, digest.hexdigest(), stamps, 0, n_chars)


def hold_out(text: TextRange, fraction: float) -> tuple[TextRange, TextRange]:
    """Split a text into a part to train on and its last `fraction`, to validate on.

    Why is a part held out? A model can learn its training text by heart. Only the loss on text that
    it has never seen tells whether it has learnt the language. Why the end? Neighbouring passages
    are alike, and a passage held out from the middle has training text on both sides. There is only
    one cut (test_the_last_tenth_of_the_characters_is_held_out). It may fall within a document; then
    the validation text begins with the rest of that document
    (test_held_out_text_of_several_files_begins_within_one).

    Raises UserError if `fraction` is not between 0 and 1, or if one of the parts would be empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction is {fraction}; give a number between 0 and 1, such as 0.1")
    cut = int((1 - fraction) * text.stop)
    if not 0 < cut < text.stop:
        raise UserError(
            f"{text.files[0]}: {text.stop} characters are too few to hold some out; give more"
        )
    return replace(text, stop=cut), replace(text, start=cut)
