"""Tell text files from other files, and guess the encoding of a text that is not UTF-8.

The error messages name the encoding or the format, and the command that converts the file.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from minigen.errors import UserError
from minigen.system.shell import quoted

CONTROL_BYTES = bytes({*range(32), 127} - set(b"\t\n\f\r\x1b"))

# Encodings older than UTF-8, by iconv's names (CP932 is the Shift JIS of Windows). Each has a
# pattern of its usual characters, and the least percentage of a text's characters beyond ASCII that
# must match it. The first encoding that fits is named. A percentage is needed because the bytes of
# one language often decode in the encodings of other languages too, but to rare characters: for
# example, an accented letter and the letter after it become a single Chinese character.
LEGACY = {
    "CP932": (re.compile("[\u3040-\u30ff]+"), 20),
    "EUC-JP": (re.compile("[\u3040-\u30ff]+"), 20),
    "CP949": (re.compile("[\uac00-\ud7a3]{2,}"), 70),
    "GB18030": (re.compile("[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef\u2010-\u2026]{2,}"), 80),
    "BIG5": (re.compile("[\u4e00-\u9fff\u3000-\u303f\ufe30-\uffef\u2010-\u2026]{2,}"), 80),
    "CP1251": (re.compile("[\u0400-\u045f]{2,}"), 70),
    "CP1252": (re.compile("[\xa0-\xff\u2013-\u2026\u0152\u0153\u20ac]+"), 95),
}


# The first bytes of files that contain a text but are not plain text, and how to extract it.
CONTAINERS = {
    b"%PDF-": ("a PDF", "pdftotext makes a text of it"),
    b"PK\x03\x04": (
        "an archive, as .zip, .docx and .epub are",
        "unpack it or save it as plain text",
    ),
    b"BZh91AY": ("compressed by bzip2", "unpack it with bunzip2"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it with unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it with unzstd"),
    b"\xd0\xcf\x11\xe0": ("a document of an office program", "save it as plain text"),
}
GZIP = b"\x1f\x8b"  # the first bytes of a file that gzip has packed
MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\\rtf|<\?xml|<!doctype|<html)", re.IGNORECASE)
READ_SIZE = 1 << 20  # bytes


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file to read its bytes, and unpack them on the way if gzip has packed the file.

    Raises `UserError` if the file cannot be read, also while it is open, or is damaged.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.peek(len(GZIP)).startswith(GZIP)
            with gzip.GzipFile(fileobj=file) if is_packed else file as content:
                yield content
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise UserError(f"{path} is damaged: gzip cannot unpack it; get it again") from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path | str, error: OSError) -> UserError:
    """Return the error to raise for a file that cannot be read."""
    return UserError(f"cannot read {path}: {error.strerror}; make it readable, or leave it out")


def is_binary(data: bytes) -> bool:
    """Return whether a file is not text: a zero byte, mostly control bytes, or a known container.

    Args:
        data: the first bytes of the file.
    """
    n_control = len(data) - len(data.translate(None, CONTROL_BYTES))
    has_controls = b"\0" in data or n_control > len(data) / 2
    return find_utf16(data) is None and (has_controls or find_container(data) is not None)


def find_container(data: bytes) -> tuple[str, str] | None:
    """Return the format of a file that contains a text, such as a PDF, and how to extract the text.

    None if the file is no known container.

    Args:
        data: the first bytes of the file.
    """
    return next((entry for mark, entry in CONTAINERS.items() if data.startswith(mark)), None)


def find_utf16(data: bytes) -> tuple[str, str] | None:
    """Return the kind of UTF-16 that a file begins in, and the evidence; None if it is not UTF-16.

    Without a byte-order mark, UTF-16 shows in Latin text: every second byte is zero, and the other
    bytes are letters.

    Args:
        data: the first bytes of the file.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16", "it begins with UTF-16's mark"
    for name, zeros, others in (
        ("UTF-16LE", data[1::2], data[::2]),
        ("UTF-16BE", data[::2], data[1::2]),
    ):
        n_control = len(others) - len(others.translate(None, CONTROL_BYTES))
        if 2 * zeros.count(0) > len(zeros) > 3 and 50 * n_control < len(others):
            return name, "every other byte is zero"
    return None


def count_documents(files: Iterable[Path], mark: str) -> int:
    """Return the number of documents that `mark` separates in the files; 0 if it is in no file.

    The end of a file ends a document, too. A document that holds only newlines does not count.

    Args:
        mark: in ASCII, without newlines.

    Raises `UserError` if a file cannot be read.
    """
    n_marks = n_documents = 0
    for path in files:
        # The end of the unfinished document: enough to find a `mark` that two reads cut in two, and
        # one byte more if the document has text, so that it counts.
        rest = b""
        with opened(path) as file:
            data = file.read(READ_SIZE).removeprefix(codecs.BOM_UTF8)
            while data:
                *ended, rest = (rest + data).split(mark.encode())
                n_marks += len(ended)
                n_documents += sum(1 for text in ended if text.strip(b"\r\n"))
                n_settled = max(0, len(rest) - len(mark))
                rest = rest[:n_settled].strip(b"\r\n")[:1] + rest[n_settled:]
                data = file.read(READ_SIZE)
        n_documents += bool(rest.strip(b"\r\n"))
    return n_documents if n_marks else 0


def not_utf8(path: Path, complaint: str, encoding: str | None) -> UserError:
    """Return the error to raise for a file that is not UTF-8.

    Args:
        complaint: the evidence, such as the first invalid byte.
        encoding: the guessed encoding, which the message names with the command that converts the
            file; None: no guess.
    """
    advice = "convert it to UTF-8, or leave it out"
    if encoding is not None:
        converted = str(path.with_name(f"{path.stem}-utf8{path.suffix}"))
        command = f"iconv -f {encoding} -t UTF-8 {quoted(str(path))} > {quoted(converted)}"
        advice = f"it may be {encoding}; then {command} makes a file to give instead"
    return UserError(f"{path} is not UTF-8: {complaint}; {advice}")


def guess_encoding(data: bytes, bad: int) -> str | None:
    """Return the probable encoding of a text that is not UTF-8; None without evidence for one.

    A text with UTF-8 characters beyond ASCII before the first invalid byte is damaged UTF-8, so
    nothing is guessed.

    Args:
        data: a section of the text; it begins with a whole character, and may end inside one.
        bad: the index in `data` of the first byte that is not UTF-8.
    """
    if not data[:bad].isascii():
        return None
    # Begin with the line of that byte: in no encoding does a newline byte belong to a character.
    rest = data[data.rfind(b"\n", 0, bad) + 1 :]
    for encoding, (usual, least) in LEGACY.items():
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            text = decoder.decode(rest)
        except UnicodeDecodeError:
            continue
        n_foreign = sum(not character.isascii() for character in text)
        if n_foreign and 100 * len("".join(usual.findall(text))) >= least * n_foreign:
            return encoding
    return None
