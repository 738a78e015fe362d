"""Is a file text, and if it is not UTF-8, what may it be? One line says how to convert it."""

from __future__ import annotations

import codecs
import re
import shlex
from pathlib import Path

from minigen.errors import UserError

CONTROL_BYTES = bytes({*range(32), 127} - set(b"\t\n\f\r\x1b"))

# Encodings from before UTF-8 as iconv names them; CP932 is the Shift JIS of Windows. Of the
# characters beyond ASCII that a text in such an encoding has, so many of 100 look like this; the
# first encoding that fits is named. The bytes of one language decode in the encodings of others
# too, but to characters that those seldom have: an accented letter and the letter after it make a
# Chinese character, which then stands alone.
LEGACY = {
    "CP932": (re.compile("[\u3040-\u30ff]+"), 20),
    "EUC-JP": (re.compile("[\u3040-\u30ff]+"), 20),
    "CP949": (re.compile("[\uac00-\ud7a3]{2,}"), 70),
    "GB18030": (re.compile("[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef\u2010-\u2026]{2,}"), 80),
    "BIG5": (re.compile("[\u4e00-\u9fff\u3000-\u303f\ufe30-\uffef\u2010-\u2026]{2,}"), 80),
    "CP1251": (re.compile("[\u0400-\u045f]{2,}"), 70),
    "CP1252": (re.compile("[\xa0-\xff\u2013-\u2026\u0152\u0153\u20ac]+"), 95),
}


def unreadable(path: Path | str, error: OSError) -> UserError:
    return UserError(f"cannot read {path}: {error.strerror}; mend that or leave it out")


def is_binary(data: bytes) -> bool:
    """Whether the first bytes of a file are no text: one is zero, or most are control signs."""
    n_control = len(data) - len(data.translate(None, CONTROL_BYTES))
    return not is_utf16(data) and (b"\0" in data or n_control > len(data) / 2)


def is_utf16(data: bytes) -> bool:
    """Whether a file begins with the mark of UTF-16, in which every other byte may be zero."""
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def not_utf8(path: Path, complaint: str, encoding: str | None) -> UserError:
    """The line to say, with the command that converts the file where its encoding is guessed."""
    advice = "convert it to UTF-8, or leave it out"
    if encoding is not None:
        old, new = str(path), str(path.with_name(f"{path.stem}-utf8{path.suffix}"))
        command = f"iconv -f {encoding} -t UTF-8 {shlex.quote(old)} > {shlex.quote(new)}"
        advice = f"it may be {encoding}; then {command} makes a file to give instead"
    return UserError(f"{path} is not UTF-8: {complaint}; {advice}")


def likely(data: bytes, bad: int) -> str | None:
    """The encoding that a text may have; None if nothing speaks for one.

    Args:
        data: a part of it that begins with a character, though it may end in mid-character.
        bad: where it stops being UTF-8. A text that is UTF-8 up to there, and not only ASCII, is
            one that was damaged.
    """
    if not data[:bad].isascii():
        return None
    # The line of that byte and those after it: no encoding has a newline as a part of a character.
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
