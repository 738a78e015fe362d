"""ABC notation (the standard v2.1): tunes as other programs write them.

    X:1                     a number             The body: letters are notes, C to B and an octave
    T:The Fox's Waltz       the title            higher c to b, then a length in units of L. Words
    M:3/4                   the metre            in quotes are chords, | parts bars, |: and :| mean
    L:1/8                   length of a note     that what stands between them is played twice, and
    K:G                     the key, always last  P: names what follows.
    P:A
    |:"G"B2 d2 gf |"D"e2 d4 :|

Of the standard this reads what one voice needs: accidentals, octaves, rests, lengths, chord
symbols, bar lines, repeats and parts. What it cannot read, it names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from minigen.errors import UserError

HEADERS = ("X", "T", "M", "L", "K")
LETTERS = "CDEFGAB"
SEMITONES = dict(zip(LETTERS, (0, 2, 4, 5, 7, 9, 11), strict=True))
FIFTHS = "FCGDAEB"  # the order in which key signatures take sharps; flats come from its end
ACCIDENTALS = {"": None, "=": 0, "^": 1, "^^": 2, "_": -1, "__": -2}  # None: as the key says
CHORD = re.compile(r"([A-G])([#b]?)(m?)7?")
MIDDLE_C = 60  # MIDI's number; a semitone is 1

TOKEN = re.compile(
    r"""(?P<space>[\s`]+)
    | "(?P<chord>[^"\n]*)"
    | (?P<bar> \|\] | \[\| | \|\| | :: | :\|:? | \|: | \| )
    | (?P<broken>[<>])
    | (?P<accidental> \^{1,2} | _{1,2} | = )? (?P<letter>[A-Ga-gz]) (?P<octave>[,']*)
      (?P<times>\d*) (?P<parts>/\d+|/*)
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Note:
    """A note, or a rest; times are fractions of a whole note."""

    start: Fraction  # from the beginning of its bar
    length: Fraction
    step: int | None  # its place on the staff: 0 is middle C, 1 is D; None: a rest
    pitch: int = 0  # MIDI's number
    accidental: str = ""  # one that is written before it
    apart: bool = True  # a blank, a chord or a bar line stands before it; else it is in a group


@dataclass(frozen=True)
class Bar:
    notes: tuple[Note, ...]
    chords: tuple[tuple[Fraction, str], ...]  # where in the bar each begins, and its name

    @property
    def length(self) -> Fraction:
        return sum((note.length for note in self.notes), Fraction(0))

    def chord_at(self, time: Fraction) -> str | None:
        """The chord that sounds at a time of the bar, if one was named by then."""
        return next((name for start, name in reversed(self.chords) if start <= time), None)


@dataclass(frozen=True)
class Part:
    """What stands between two labels or repeat signs."""

    name: str
    bars: tuple[Bar, ...]
    times: int = 1  # that it is played


@dataclass(frozen=True)
class Score:
    """The music of a tune."""

    headers: dict[str, str]
    parts: tuple[Part, ...]

    @property
    def metre(self) -> Fraction:
        """What a bar holds."""
        return _metre(self.headers["M"])

    @property
    def beat(self) -> Fraction:
        """A quarter note; in 6/8 and its like three eighths."""
        above, _, below = self.headers["M"].partition("/")
        compound = below == "8" and int(above) % 3 == 0
        return Fraction(3, 8) if compound else Fraction(1, 4)

    def played(self) -> Iterator[tuple[Part, Bar]]:
        """The bars in the order in which they sound, repeats and all, each with its part."""
        for part in self.parts:
            for _ in range(part.times):
                for bar in part.bars:
                    yield part, bar


DEFAULTS = {"T": "", "M": "4/4", "L": "1/8"}  # of a header that lacks them
# Marks of a standard tune that change no note's pitch: what one sign of them all is.
MARK = re.compile(
    r"![^!\n]*! | \(\d | \{[^}\n]*\} | \[[A-Za-z]:[^\]\n]*\] | \"[^\"\n]*\" | .", re.VERBOSE
)


def parse(text: str, left_out: Counter[str] | None = None) -> Score:
    """Return the first tune of a text; text before its X: does not count, nor do comments.

    Args:
        left_out: counts what cannot be read, each such sign, and the tune is read without it. A
            header's lines may be missing then. None: all must be read.

    Raises UserError that says what cannot be read, and in which line.

    >>> tune = parse('X:1\\nT:Home\\nM:2/4\\nL:1/8\\nK:D\\n"D"FA d2 |]')
    >>> [note.pitch for note in tune.parts[0].bars[0].notes]
    [66, 69, 74]
    """
    lines = [line.partition("%")[0].rstrip() for line in text.splitlines()]
    first = next((n for n, line in enumerate(lines) if line.startswith("X:")), None)
    if first is None:
        raise UserError("no line begins with X: as a tune in ABC notation does")
    headers: dict[str, str] = {}
    n = first
    while "K" not in headers:
        if n == len(lines) or not re.match(r"[A-Z]:", lines[n]):
            raise UserError(f"the header has no K: by line {n + 1}; K: must be its last line")
        headers.setdefault(lines[n][0], lines[n][2:].strip())
        n += 1
    if left_out is not None:
        headers = _readable({**DEFAULTS, **headers}, left_out)
    for name in HEADERS:
        if name not in headers:
            raise UserError(f"the header has no {name}:")
    _metre(headers["M"])
    unit, signature = _fraction(headers["L"], "L"), key_signature(headers["K"])
    body = _Body(unit, signature, left_out)
    for number, line in enumerate(lines[n:], n + 1):
        if not line:
            break  # an empty line ends a tune
        if line.startswith("P:"):
            body.begin(line[2:].strip())
        elif not re.match(r"[A-Za-z]:", line):
            body.add(line, number)
    body.end_bar()
    body.begin("")
    if not body.parts:
        raise UserError("the tune has no notes")
    return Score(headers, tuple(body.parts))


def _readable(headers: dict[str, str], left_out: Counter[str]) -> dict[str, str]:
    """The headers with a usual value for each that cannot be read."""
    tries: dict[str, tuple[Callable[[str], Any], str]] = {
        "M": (_metre, DEFAULTS["M"]),
        "L": (lambda unit: _fraction(unit, "L"), DEFAULTS["L"]),
        "K": (key_signature, "C"),
    }
    for name, (parse, usual) in tries.items():
        try:
            parse(headers[name])
        except UserError:
            left_out[f"{name}:{headers[name]}"] += 1
            # Of a mode such as Dmix, the letter is a better guess than C.
            near = re.match(r"[A-G][#b]?m?(?![a-z])|[A-G][#b]?", headers[name])
            headers[name] = near[0] if name == "K" and near else usual
    return headers


class _Body:
    """The music so far: finished parts, the bars of this part, and what this bar holds."""

    def __init__(
        self, unit: Fraction, signature: dict[str, int], left_out: Counter[str] | None = None
    ) -> None:
        self.left_out = left_out
        self.unit, self.signature = unit, signature
        self.parts: list[Part] = []
        self.name, self.bars = "", list[Bar]()
        self.notes, self.chords = list[Note](), list[tuple[Fraction, str]]()
        self.time = Fraction(0)
        self.altered: dict[str, int] = {}  # by accidentals, until the bar ends
        self.next_times = Fraction(1)  # what the next note's length is to be multiplied by

    def add(self, line: str, number: int) -> None:
        at = 0
        while at < len(line):
            found = TOKEN.match(line, at)
            if self.left_out is not None and not (found and self.playable(found)):
                sign = MARK.match(line, at) if not found or found["chord"] is not None else found
                assert sign
                self.left_out[sign[0]] += 1
                at = sign.end()
                continue
            if not found:
                raise UserError(f"cannot read {line[at:][:12]!r} in line {number}")
            apart = at == 0 or line[at - 1] in ' "|:]'
            at = found.end()
            if found["chord"] is not None:
                chord_pitches(found["chord"])
                self.chords.append((self.time, found["chord"]))
            elif found["bar"]:
                self.end_bar()
                if found["bar"].startswith(":"):
                    self.begin(self.name, times=2)
                elif found["bar"] == "|:":
                    self.begin(self.name)
            elif found["broken"]:
                if not self.notes:
                    raise UserError(f"{found['broken']!r} in line {number} follows no note")
                self.break_rhythm(found["broken"])
            elif found["letter"]:
                self.add_note(found, apart)

    def playable(self, found: re.Match[str]) -> bool:
        """Whether a chord, a broken rhythm or a note can be read."""
        if found["chord"] is not None:
            return CHORD.fullmatch(found["chord"]) is not None
        if found["letter"]:  # eight octaves, and a length of seconds
            times = found["times"]
            return len(found["octave"]) <= 3 and len(times) <= 2 and int(times or 1) > 0
        return bool(self.notes) or not found["broken"]

    def add_note(self, found: re.Match[str], apart: bool) -> None:
        parts = found["parts"]
        below = int(parts[1:] or 2) if parts.strip("/") else 2 ** len(parts)
        length = self.unit * Fraction(int(found["times"] or 1), below or 1) * self.next_times
        self.next_times = Fraction(1)
        letter = found["letter"].upper()
        if letter == "Z":
            self.notes.append(Note(self.time, length, None))
        else:
            octave = found["letter"].islower() + found["octave"].count("'")
            octave -= found["octave"].count(",")
            alteration = ACCIDENTALS[found["accidental"] or ""]
            if alteration is None:
                alteration = self.altered.get(letter, self.signature[letter])
            else:
                self.altered[letter] = alteration
            pitch = MIDDLE_C + 12 * octave + SEMITONES[letter] + alteration
            step = 7 * octave + LETTERS.index(letter)
            accidental = found["accidental"] or ""
            self.notes.append(Note(self.time, length, step, pitch, accidental, apart))
        self.time += length

    def break_rhythm(self, sign: str) -> None:
        """Lengthen the note before > by half, and halve the next one; < is the other way round."""
        longer, shorter = Fraction(3, 2), Fraction(1, 2)
        times, self.next_times = (longer, shorter) if sign == ">" else (shorter, longer)
        note = self.notes[-1]
        self.notes[-1] = replace(note, length=note.length * times)
        self.time = note.start + note.length * times

    def end_bar(self) -> None:
        if self.notes:
            self.bars.append(Bar(tuple(self.notes), tuple(self.chords)))
        elif self.chords and self.left_out is not None:
            self.left_out.update(f'"{name}"' for _, name in self.chords)
        elif self.chords:
            raise UserError(f"the chord {self.chords[0][1]} stands in a bar without notes")
        self.notes, self.chords, self.altered, self.time = [], [], {}, Fraction(0)

    def begin(self, name: str, times: int = 1) -> None:
        """A new part; the one before it was to be played so many times."""
        if self.bars:
            self.parts.append(Part(self.name, tuple(self.bars), times))
        self.name, self.bars = name, []


def key_signature(key: str) -> dict[str, int]:
    """By how many semitones a key raises each letter.

    >>> key_signature("Bm")["F"], key_signature("F")["B"]
    (1, -1)
    """
    found = re.fullmatch(r"([A-G])([#b]?) ?(m|min|minor|maj|major)?", key)
    if not found:
        raise UserError(f"cannot read the key K:{key}; it is such as G, Bb or F#m")
    minor = (found[3] or "maj") in ("m", "min", "minor")
    n_sharps = FIFTHS.index(found[1]) - 1 + 7 * {"": 0, "#": 1, "b": -1}[found[2]] - 3 * minor
    return {
        letter: (n_sharps - place + 6) // 7 for place, letter in enumerate(FIFTHS)
    }  # each seven sharps raise all letters once


def chord_pitches(name: str) -> tuple[int, ...]:
    """The semitones above C of a chord's root, third and fifth; raises UserError for others.

    >>> chord_pitches("Am"), chord_pitches("Bb")
    ((9, 12, 16), (10, 14, 17))
    """
    found = CHORD.fullmatch(name)
    if not found:
        raise UserError(f"cannot read the chord {name!r}; it is such as G, Bb or F#m")
    root = SEMITONES[found[1]] + {"": 0, "#": 1, "b": -1}[found[2]]
    return root, root + (3 if found[3] else 4), root + 7


def _metre(text: str) -> Fraction:
    return _fraction({"C": "4/4", "C|": "2/2"}.get(text, text), "M")


def _fraction(text: str, header: str) -> Fraction:
    if not re.fullmatch(r"[1-9]\d{0,2}/[1-9]\d{0,2}", text):
        raise UserError(f"cannot read {header}:{text}; it is such as {header}:3/4")
    return Fraction(text)
