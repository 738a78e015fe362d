"""Text to documents: read a file, and split it wherever a separator stands.

    files --read_text--> text, in chunks --split_documents--> documents, in parts

`naive_documents` is the idea, for a text in memory. The rest of this file does the same for a text
of any length, of which it holds only a few MB at a time: a document comes in parts, the first of
which says that a document begins.
"""

from __future__ import annotations

import codecs
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from minigen.errors import UserError
from minigen.system.text_file import (
    CONTROL_BYTES,
    find_container,
    find_utf16,
    guess_encoding,
    not_utf8,
    unreadable,
)

READ = 1 << 20  # bytes of a file to read at once


def naive_documents(text: str, separator: str) -> list[str]:
    r"""Split a text at each separator; drop the newlines around documents, and empty documents.

    >>> naive_documents("one\n\ntwo\n\n\nthree\n", "\n\n")
    ['one', 'two', 'three']
    """
    documents = [document.strip("\n") for document in text.split(separator)]
    return [document for document in documents if document]


# ---- the same for a text that is larger than memory ----


class DocumentPart(NamedTuple):
    """A part of a document, never empty; `begins` is true for the document's first."""

    begins: bool
    text: str


def split_documents(chunks: Iterable[str], separator: str) -> Iterator[DocumentPart]:
    r"""Split a text that comes in chunks at each `separator`.

    Newlines around a document are dropped (of those after it, the last READ), then documents
    without a character.

    >>> [part.text for part in split_documents(["one\n\ntwo\n", "\n\nthree\n"], "\n\n")]
    ['one', 'two', 'three']
    """
    begins, rest = True, ""
    for chunk in itertools.chain(chunks, [None]):
        *ended, rest = [rest, ""] if chunk is None else (rest + chunk).split(separator)
        for text in ended:
            text = text.rstrip("\n")
            if text := (text.lstrip("\n") if begins else text):
                yield DocumentPart(begins, text)
            begins = True
        # Two ends of a chunk wait for the next: the beginning of a separator, and newlines that
        # may be the document's last. Endless newlines must not fill the memory.
        sure = len(rest[: max(0, len(rest) - len(separator) + 1)].rstrip("\n"))
        sure = max(sure, len(rest) - READ - len(separator))
        if text := (rest[:sure].lstrip("\n") if begins else rest[:sure]):
            yield DocumentPart(begins, text)
            begins = False
        rest = rest[sure:]


def read_documents(files: Iterable[Path], separator: str | None) -> Iterator[DocumentPart]:
    """Read the documents of some files, in parts; without a separator, a file is a document."""
    for path in files:
        if separator is not None:
            yield from split_documents(read_text(path), separator)
        else:
            for i, text in enumerate(read_text(path)):
                yield DocumentPart(i == 0, text)


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
