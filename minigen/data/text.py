"""Files to documents: read text in chunks, cut it at a separator, hold a part of it out.

    files --read_text--> text, in chunks --split_documents--> pieces of documents
    files --scan--> Text --hold_out--> a Text to train on, a Text to validate on

No function here holds more than a few MB of a text, however long the text or a document is. So a
document comes in pieces, the first of which says that a document begins.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from minigen.errors import UserError
from minigen.system.streams import progress_bar
from minigen.system.text_file import (
    CONTROL_BYTES,
    find_container,
    find_utf16,
    guess_encoding,
    not_utf8,
    unreadable,
)

READ = 1 << 20  # bytes of a file to read at once
STRIPE = 1 << 20  # characters that are read in a row of a text that is read in part


class Source(Protocol):
    """The files of a corpus. `val` is empty where a part of `train` is to be held out."""

    @property
    def train(self) -> Sequence[Path]: ...
    @property
    def val(self) -> Sequence[Path]: ...
    @property
    def separator(self) -> str | None: ...  # between documents; None: a file is a document


def read_text(path: Path) -> Iterator[str]:
    r"""Read a file in chunks: strict UTF-8, no byte order mark, "\n" at the ends of lines.

    Raises UserError if it cannot be read, is not UTF-8, or holds bytes that no text holds.
    """
    # Both keep the end of a chunk for the next: half a character, and "\r" without "\n".
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    n_read, n_control, is_ascii = 0, 0, True
    try:
        with path.open("rb") as file:
            data = b"any"
            while data:
                data = file.read(READ)
                if n_read == 0 and (found := find_utf16(data)):
                    raise not_utf8(path, found[1], found[0])
                if n_read == 0 and (known := find_container(data)):
                    raise UserError(f"{path} is {known[0]}, not text; {known[1]}, or leave it out")
                n_read += len(data)
                n_control += len(data) - len(data.translate(None, CONTROL_BYTES))
                if b"\0" in data or n_control > n_read / 2:
                    raise UserError(f"{path} is binary, not text; give UTF-8 text, or leave it out")
                if text := decoder.decode(data, final=not data):
                    is_ascii &= text.isascii()
                    yield text
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        # The decoder was given error.object, whose last byte is the last that was read.
        place = n_read - len(error.object) + error.start
        bad = f"byte {place} ({error.object[error.start]:#04x}) fits no character"
        # A text with characters beyond ASCII before that byte is damaged UTF-8, no other encoding.
        encoding = guess_encoding(error.object, error.start) if is_ascii else None
        raise not_utf8(path, bad, encoding) from None


class Piece(NamedTuple):
    """A part of a document, never empty; `begins` is true for the document's first."""

    begins: bool
    text: str


def split_documents(chunks: Iterable[str], separator: str) -> Iterator[Piece]:
    r"""Split a text that comes in chunks at each `separator`.

    Newlines around a document are dropped (of those after it, the last READ), then documents
    without a character.

    >>> [piece.text for piece in split_documents(["one\n\ntwo\n", "\n\nthree\n"], "\n\n")]
    ['one', 'two', 'three']
    """
    begins, rest = True, ""
    for chunk in itertools.chain(chunks, [None]):
        *ended, rest = [rest, ""] if chunk is None else (rest + chunk).split(separator)
        for text in ended:
            text = text.rstrip("\n")
            if text := (text.lstrip("\n") if begins else text):
                yield Piece(begins, text)
            begins = True
        # Two ends of a chunk wait for the next: the beginning of a separator, and newlines that
        # may be the document's last. Endless newlines must not fill the memory.
        sure = len(rest[: max(0, len(rest) - len(separator) + 1)].rstrip("\n"))
        sure = max(sure, len(rest) - READ - len(separator))
        if text := (rest[:sure].lstrip("\n") if begins else rest[:sure]):
            yield Piece(begins, text)
            begins = False
        rest = rest[sure:]


def read_documents(files: Iterable[Path], separator: str | None) -> Iterator[Piece]:
    """Read the documents of some files, in pieces; without a separator, a file is a document."""
    for path in files:
        if separator is not None:
            yield from split_documents(read_text(path), separator)
        else:
            for i, text in enumerate(read_text(path)):
                yield Piece(i == 0, text)


@dataclass(frozen=True)
class Text:
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
        """The characters that are read, as (start, stop) pairs in order."""
        if self.every == 1:
            yield self.start, self.stop
        else:
            for start in range(self.start, self.stop, self.every * STRIPE):
                yield start, min(start + STRIPE, self.stop)

    @property
    def n_chars(self) -> int:
        """The number of characters that are read."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def key(self) -> tuple[int, ...]:
        """The part of this text's name in the cache that tells a text read in stripes."""
        return (self.every,) if self.every > 1 else ()

    def pieces(self) -> Iterator[Piece]:
        """Read the documents in pieces of a few MB; a document cut by a span's start begins there.

        Raises UserError if a file cannot be read or is no text.
        """
        position, spans = 0, self.spans
        start, stop = next(spans)
        for begins, text in read_documents(self.files, self.separator):
            while start < position + len(text):
                if part := text[max(0, start - position) : stop - position]:
                    yield Piece(begins or position <= start, part)
                if stop > position + len(text):
                    break  # the span continues in the next piece
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


def scan(files: Sequence[Path], separator: str | None) -> Text:
    """Read all files once: to see that they are text, count characters, and hash the documents.

    Raises UserError if a file cannot be read or is no text, or if there is no character in any.
    """
    stamps = file_stamps(files)
    digest, n_chars = hashlib.sha256(), 0
    with progress("reading", sum(size for size, _ in stamps), "B") as bar:
        for piece in read_documents(files, separator):
            content = piece.text.encode("utf-8")
            # 0xFF is in no UTF-8, so the digest also tells where the documents begin.
            digest.update(b"\xff" * piece.begins + content)
            n_chars += len(piece.text)
            bar.update(len(content))
    if n_chars == 0:
        named = ", ".join(map(str, files[:3])) + (" ..." if len(files) > 3 else "")
        raise UserError(f"no text in {named}; give a file that is not empty")
    return Text(tuple(files), separator, digest.hexdigest(), stamps, 0, n_chars)


def hold_out(text: Text, fraction: float) -> tuple[Text, Text]:
    """Cut off the last `fraction` of the characters for validation."""
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction is {fraction}; give a number between 0 and 1, such as 0.1")
    cut = int((1 - fraction) * text.stop)
    if not 0 < cut < text.stop:
        raise UserError(
            f"{text.files[0]}: {text.stop} characters are too few to hold some out; give more"
        )
    return replace(text, stop=cut), replace(text, start=cut)
