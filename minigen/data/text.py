"""Text to documents: read files, and split their text wherever a separator stands.

    files --read_text--> text, in chunks --split_documents--> documents, in parts

A document is a text that stands by itself: a tale, a name, a book. Why keep documents apart?
END_OF_TEXT will stand before each, so a model learns where a text ends. Without it, a model would
be taught to continue a document with the next one, which it cannot predict.

`naive_documents` is the idea, for a text in memory. The rest of this file does the same for a text
of any length, of which only a few MB are in memory at a time: a document comes in parts.
"""

from __future__ import annotations

import codecs
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from minigen.data.json_lines import is_json_lines, read_json_lines, text_of
from minigen.data.parquet import is_parquet, read_parquet
from minigen.errors import UserError
from minigen.system.text_file import (
    CONTROL_BYTES,
    find_container,
    find_utf16,
    guess_encoding,
    not_utf8,
    opened,
)

READ = 1 << 20  # bytes of a file to read at once


def naive_documents(text: str, separator: str) -> list[str]:
    r"""Split a text at each separator; remove the newlines around documents, and empty documents.

    >>> naive_documents("one\n\ntwo\n\n\nthree\n", "\n\n")
    ['one', 'two', 'three']
    """
    documents = [document.strip("\n") for document in text.split(separator)]
    return [document for document in documents if document]


# ---- the same for a text that is larger than memory ----


class DocumentPart(NamedTuple):
    """A part of a document, never empty."""

    is_first: bool  # of its document
    text: str


def split_documents(chunks: Iterable[str], separator: str) -> Iterator[DocumentPart]:
    r"""Split a text that comes in chunks at each `separator`, as `naive_documents` does.

    Of the newlines after a document, at most the last READ are removed. That bounds the memory
    (test_endless_newlines_do_not_wait_in_memory).

    >>> [part.text for part in split_documents(["one\n\ntwo\n", "\n\nthree\n"], "\n\n")]
    ['one', 'two', 'three']
    """
    is_first, rest = True, ""
    for chunk in itertools.chain(chunks, [None]):
        *ended, rest = [rest, ""] if chunk is None else (rest + chunk).split(separator)
        for text in ended:
            text = text.rstrip("\n")
            if text := (text.lstrip("\n") if is_first else text):
                yield DocumentPart(is_first, text)
            is_first = True
        # The end of a chunk waits for the next chunk where it may be the beginning of a separator,
        # or newlines after the document. Endless newlines must not fill the memory.
        n_sure = len(rest[: max(0, len(rest) - len(separator) + 1)].rstrip("\n"))
        n_sure = max(n_sure, len(rest) - READ - len(separator))
        if text := (rest[:n_sure].lstrip("\n") if is_first else rest[:n_sure]):
            yield DocumentPart(is_first, text)
            is_first = False
        rest = rest[n_sure:]


def has_rows(path: Path) -> bool:
    """Return whether a file has a document in each row, whatever the separator."""
    return is_json_lines(path) or is_parquet(path)


def read_documents(files: Iterable[Path], separator: str | None) -> Iterator[DocumentPart]:
    """Read the documents of files, in parts. Without a separator, each file is one document.

    Of JSON Lines and of a table in Parquet, each row is a document, whatever the separator.
    """
    for path in files:
        if is_json_lines(path):
            for text in read_json_lines(path, read_text(path), text_of):
                yield DocumentPart(True, text)
        elif is_parquet(path):
            for text in read_parquet(path):
                yield DocumentPart(True, text)
        elif separator is not None:
            yield from split_documents(read_text(path), separator)
        else:
            for number, text in enumerate(read_text(path)):
                yield DocumentPart(number == 0, text)


def read_text(path: Path) -> Iterator[str]:
    r"""Read a UTF-8 file in chunks, without its byte order mark, and with "\n" as each line's end.

    Raises UserError if the file cannot be read, is not UTF-8, or has bytes that occur in no text.
    """
    # Both decoders keep the end of a chunk for the next: half a character, and "\r" without "\n".
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    n_read, n_control, is_ascii = 0, 0, True
    try:
        with opened(path) as file:
            data = b"any"
            while data:
                data = file.read(READ)
                if n_read == 0 and (utf16 := find_utf16(data)):
                    raise not_utf8(path, utf16[1], utf16[0])
                if n_read == 0 and (container := find_container(data)):
                    raise UserError(
                        f"{path} is {container[0]}, not text; {container[1]}, or leave it out"
                    )
                n_read += len(data)
                n_control += len(data) - len(data.translate(None, CONTROL_BYTES))
                if b"\0" in data or n_control > n_read / 2:
                    raise UserError(f"{path} is binary, not text; give UTF-8 text, or leave it out")
                if text := decoder.decode(data, final=not data):
                    is_ascii &= text.isascii()
                    yield text
    except UnicodeDecodeError as error:
        # error.object are the bytes that the decoder was given: its last byte is the last one read.
        place = n_read - len(error.object) + error.start
        bad = f"byte {place} ({error.object[error.start]:#04x}) fits no character"
        # If the text before that byte has characters beyond ASCII, it is UTF-8 and damaged there.
        encoding = guess_encoding(error.object, error.start) if is_ascii else None
        raise not_utf8(path, bad, encoding) from None
