"""Tunes as files: ABC notation for other programs, sound, and piano rolls."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from minigen.corpora.genre import save_text
from minigen.corpora.tunes import abc_notation
from minigen.corpora.tunes.abc_notation import Score
from minigen.corpora.tunes.first_line import read_first_line
from minigen.corpora.tunes.piano_roll import piano_roll
from minigen.corpora.tunes.sound import wav
from minigen.corpora.tunes.tables import style
from minigen.errors import UserError


def save(texts: Sequence[str], path: Path) -> None:
    """Save tunes; the ending of `path` is .txt, .abc, .wav (to hear) or .png (a piano roll).

    Several tunes become numbered files: tune-1.wav, tune-2.wav and so on. Signs that minigen cannot
    play are left out of .wav and .png, and reported on standard error.

    Raises `UserError` for another ending, and, after all tunes are saved, for texts that are no
    tunes.
    """
    if path.suffix.lower() == ".txt":
        return save_text(texts, path)
    faults, left_out = [], Counter[str]()
    tunes = split_tunes(texts)
    for number, text in enumerate(tunes, 1):
        file = path if len(tunes) == 1 else path.with_stem(f"{path.stem}-{number}")
        music = to_abc(text)
        try:
            score = abc_notation.parse(music, left_out)
        except UserError as error:
            faults.append(f"tune {number} cannot be read: {error}")
            continue
        if path.suffix.lower() == ".abc":
            save_text([music], file)
        else:
            save_score(score, file)
    if left_out and path.suffix.lower() != ".abc":
        most_common = ", ".join(f"{sign!r} {n} x" for sign, n in left_out.most_common(5))
        others = f" and {len(left_out) - 5} other signs" if len(left_out) > 5 else ""
        print(f"left out, as minigen cannot play it: {most_common}{others}", file=sys.stderr)
    if faults:
        advice = "train longer" if 2 * len(faults) > len(tunes) > 1 else "try another --seed"
        summary = "; ".join(faults[:3])
        if len(faults) > 3:
            summary = f"{len(faults)} of {len(tunes)} are no tunes: {summary}; ..."
        raise UserError(f"{summary}; {advice}")


def split_tunes(texts: Sequence[str]) -> list[str]:
    """Return the tunes in texts. A text without a first line can have several, each with its X:."""
    tunes: list[str] = []
    for text in texts:
        _, *parts = re.split(r"^(?=X:)", text, flags=re.MULTILINE)
        tunes += [text] if text.startswith("tune:") or len(parts) < 2 else parts
    return tunes


def to_abc(text: str) -> str:
    """Return the ABC notation of a tune for other programs: no first line, but a tempo (Q:)."""
    line, _, music = text.strip("\n").partition("\n")
    conditions, complaints = read_first_line(line)
    if complaints:
        return music if line.startswith("tune:") else text[max(0, text.find("X:")) :].strip("\n")
    beat = "3/8" if conditions["dance"] == "jig" else "1/4"
    tempo = f"Q:{beat}={style(conditions).beats_per_minute}\n"
    return re.sub(r"^K:", f"{tempo}K:", music, count=1, flags=re.MULTILINE)


def save_score(score: Score, path: Path) -> None:
    """Save music; the ending of `path` is .wav (to hear) or .png (a piano roll).

    Raises `UserError` for another ending, and if the file cannot be written.
    """
    encoders: dict[str, Callable[[Score], bytes]] = {".wav": wav, ".png": piano_roll}
    ending = path.suffix.lower()
    if ending not in encoders:
        raise UserError(f"cannot save a tune as {path}; give a name that ends in .wav or .png")
    data = encoders[ending](score)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another place") from None
