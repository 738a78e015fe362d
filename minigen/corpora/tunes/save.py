"""Tunes as files: ABC notation for other programs, sound, and piano rolls."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from minigen.corpora.task import save_text
from minigen.corpora.tunes import notation
from minigen.corpora.tunes.first_line import read_first_line
from minigen.corpora.tunes.notation import Score
from minigen.corpora.tunes.piano_roll import piano_roll
from minigen.corpora.tunes.sound import wav
from minigen.corpora.tunes.tables import style
from minigen.errors import UserError


def save(texts: Sequence[str], path: Path) -> None:
    """Write tunes as the ending of `path` says: .txt, .abc, .wav to hear, .png to see.

    Of several, the files are numbered: tune-1.wav, tune-2.wav and so on. A text without separators
    may hold several, too. What cannot be read in a tune is left out of .wav and .png, and named on
    standard error. Raises UserError for another ending, and, after all others are written, for
    texts that are no tunes.
    """
    if path.suffix.lower() == ".txt":
        return save_text(texts, path)
    faults, left_out = [], Counter[str]()
    texts = split_tunes(texts)
    for number, text in enumerate(texts, 1):
        where = path if len(texts) == 1 else path.with_stem(f"{path.stem}-{number}")
        music = abc(text)
        try:
            score = notation.parse(music, left_out)
        except UserError as error:
            faults.append(f"tune {number} cannot be read: {error}")
            continue
        if path.suffix.lower() == ".abc":
            save_text([music], where)
        else:
            save_score(score, where)
    if left_out and path.suffix.lower() != ".abc":
        most = ", ".join(f"{what!r} {n} x" for what, n in left_out.most_common(5))
        others = f" and {len(left_out) - 5} other signs" if len(left_out) > 5 else ""
        print(f"left out, as minigen cannot play it: {most}{others}", file=sys.stderr)
    if faults:
        mostly = 2 * len(faults) > len(texts) > 1
        advice = "train longer" if mostly else "another --seed makes another"
        few = "; ".join(faults[:3])
        said = (
            few if len(faults) <= 3 else f"{len(faults)} of {len(texts)} are no tunes: {few}; ..."
        )
        raise UserError(f"{said}; {advice}")


def split_tunes(texts: Sequence[str]) -> list[str]:
    """Return the tunes of texts: one that has no first line may hold several, each from its X:."""
    found: list[str] = []
    for text in texts:
        _, *tunes = re.split(r"^(?=X:)", text, flags=re.MULTILINE)
        found += [text] if text.startswith("tune:") or len(tunes) < 2 else tunes
    return found


def abc(text: str) -> str:
    """Return the tune of a document for other programs: without first line, but with a tempo."""
    line, _, tune = text.strip("\n").partition("\n")
    conditions, complaints = read_first_line(line)
    if complaints:
        return tune if line.startswith("tune:") else text[max(0, text.find("X:")) :].strip("\n")
    beat = "3/8" if conditions["dance"] == "jig" else "1/4"
    tempo = f"Q:{beat}={style(conditions).per_minute}\n"
    return re.sub(r"^K:", f"{tempo}K:", tune, count=1, flags=re.MULTILINE)


def save_score(score: Score, path: Path) -> None:
    """Write music as the ending of `path` says: .wav to hear, .png to see.

    Raises UserError for another ending, and if the file cannot be written.
    """
    makers: dict[str, Callable[[Score], bytes]] = {".wav": wav, ".png": piano_roll}
    ending = path.suffix.lower()
    if ending not in makers:
        raise UserError(f"cannot save a tune as {path}; give a name that ends in .wav or .png")
    content = makers[ending](score)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
