"""A parser of ABC notation (the standard v2.1), in which tunes are written as text.

    X:1                     a number             The body: letters are notes, C to B and an octave
    T:The Fox's Waltz       the title            higher c to b, each with a length in units of L:.
    M:3/4                   the metre            Names in quotes are chords, | separates bars, and
    L:1/8                   the unit length      the music between |: and :| is played twice. P:
    K:G                     the key, always last gives the next part a name.
    P:A
    |:"G"B2 d2 gf |"D"e2 d4 :|

The parser reads the part of the standard that one voice needs: accidentals, octaves, rests,
lengths, chord symbols, bar lines, repeats and parts. An error names the sign that the parser cannot
read.
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
FIFTHS = "FCGDAEB"  # the order of sharps in key signatures; flats have the reverse order
ACCIDENTALS = {"=": 0, "^": 1, "^^": 2, "_": -1, "__": -2}  # in semitones
CHORD = re.compile(r"([A-G])([#b]?)(m?)7?")
MIDDLE_C = 60  # as a MIDI note number, of which a semitone is 1

TOKEN = re.compile(
    r"""(?P<space>[\s`]+)
    | "(?P<chord>[^"\n]*)"
    | (?P<bar> \|\] | \[\| | \|\| | :: | :\|:? | \|: | \| )
    | (?P<broken>[<>])
    | (?P<accidental> \^{1,2} | _{1,2} | = )? (?P<letter>[A-Ga-gz]) (?P<octave>[,']*)
      (?P<multiplier>\d{0,3}) (?P<divisor>/\d{1,3}|/{0,6})
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Note:
    """A note, or a rest; times are fractions of a whole note."""

    start: Fraction  # from the beginning of its bar
    length: Fraction
    step: int | None  # steps of the scale above middle C: C is 0, D is 1; None: a rest
    pitch: int = 0  # a MIDI note number
    accidental: str = ""  # the sign before the note
    # True if a blank, a chord or a bar line stands before the note. Notes without one between them
    # form a group, which printed music joins with a beam.
    begins_group: bool = True


@dataclass(frozen=True)
class Bar:
    """A bar; times are fractions of a whole note."""

    notes: tuple[Note, ...]
    chords: tuple[tuple[Fraction, str], ...]  # (start in the bar, name)

    @property
    def length(self) -> Fraction:
        return sum((note.length for note in self.notes), Fraction(0))

    def chord_at(self, time: Fraction) -> str | None:
        """Return the chord that sounds at a time of the bar; None before the first chord."""
        return next((name for start, name in reversed(self.chords) if start <= time), None)


@dataclass(frozen=True)
class Part:
    """The bars between two labels or repeat signs."""

    name: str
    bars: tuple[Bar, ...]
    n_times: int = 1  # how many times the part is played


@dataclass(frozen=True)
class Score:
    """The music of a tune."""

    headers: dict[str, str]
    parts: tuple[Part, ...]

    @property
    def metre(self) -> Fraction:
        """The length of a bar, in whole notes."""
        return _metre(self.headers["M"])

    @property
    def beat(self) -> Fraction:
        """The length of a beat: a quarter note, but three eighths in 6/8, 9/8 and 12/8."""
        numerator, _, denominator = self.headers["M"].partition("/")
        is_compound = denominator == "8" and int(numerator) % 3 == 0
        return Fraction(3, 8) if is_compound else Fraction(1, 4)

    def played(self) -> Iterator[tuple[Part, Bar]]:
        """Yield each bar with its part in the order of playing: a repeated bar comes twice."""
        for part in self.parts:
            for _ in range(part.n_times):
                for bar in part.bars:
                    yield part, bar


DEFAULTS = {"T": "", "M": "4/4", "L": "1/8"}  # for tunes without these headers
# A sign that the parser does not read, and leaves out as one piece: a decoration, a tuplet, grace
# notes, an inline field, an annotation, or any other character.
UNREAD = re.compile(
    r"![^!\n]*! | \(\d | \{[^}\n]*\} | \[[A-Za-z]:[^\]\n]*\] | \"[^\"\n]*\" | .", re.VERBOSE
)


def parse(text: str, left_out: Counter[str] | None = None) -> Score:
    """Parse the first tune of a text. The text before its X: is ignored, and so are comments.

    Args:
        left_out: None: a sign that the parser cannot read, or a missing header, raises `UserError`.
            A counter: it counts the signs that are left out, and missing headers get a usual value.

    Raises `UserError` that names the sign and its line, if the tune cannot be read.

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
            raise UserError(f"the header has no K: before line {n + 1}; K: must be its last line")
        headers.setdefault(lines[n][0], lines[n][2:].strip())
        n += 1
    if left_out is not None:
        headers = _replace_unreadable({**DEFAULTS, **headers}, left_out)
    for name in HEADERS:
        if name not in headers:
            raise UserError(f"the header has no {name}:")
    _metre(headers["M"])
    unit, signature = _fraction(headers["L"], "L"), key_signature(headers["K"])
    body = _BodyParser(unit, signature, left_out)
    for number, line in enumerate(lines[n:], n + 1):
        if not line:
            break  # an empty line ends a tune
        if line.startswith("P:"):
            body.begin_part(line[2:].strip())
        elif not re.match(r"[A-Za-z]:", line):
            body.add(line, number)
    body.end_bar()
    body.begin_part("")
    if not body.parts:
        raise UserError("the tune has no notes")
    return Score(headers, tuple(body.parts))


def _replace_unreadable(headers: dict[str, str], left_out: Counter[str]) -> dict[str, str]:
    """Replace each header that cannot be read by a usual value, and count it in `left_out`."""
    parsers: dict[str, tuple[Callable[[str], Any], str]] = {
        "M": (_metre, DEFAULTS["M"]),
        "L": (lambda unit: _fraction(unit, "L"), DEFAULTS["L"]),
        "K": (key_signature, "C"),
    }
    for name, (parser, usual) in parsers.items():
        try:
            parser(headers[name])
        except UserError:
            left_out[f"{name}:{headers[name]}"] += 1
            # For a key that is neither major nor minor, such as Dmix, D is a better guess than C.
            tonic = re.match(r"[A-G][#b]?m?(?![a-z])|[A-G][#b]?", headers[name])
            headers[name] = tonic[0] if name == "K" and tonic else usual
    return headers


class _BodyParser:
    """A parser of the lines after the header, with the state of the current part and bar."""

    def __init__(
        self, unit: Fraction, signature: dict[str, int], left_out: Counter[str] | None = None
    ) -> None:
        self.left_out = left_out
        self.unit, self.signature = unit, signature
        self.parts: list[Part] = []  # the finished parts
        self.name, self.bars = "", list[Bar]()  # of the current part
        self.notes, self.chords = list[Note](), list[tuple[Fraction, str]]()  # of the current bar
        self.time = Fraction(0)  # from the beginning of the current bar
        self.alterations: dict[str, int] = {}  # by letter: accidentals last until the bar ends
        self.next_factor = Fraction(1)  # multiplies the length of the next note

    def add(self, line: str, number: int) -> None:
        """Parse a line of music. Raises `UserError` for a sign that it cannot read."""
        at = 0
        while at < len(line):
            token = TOKEN.match(line, at)
            if self.left_out is not None and not (token and self.is_playable(token)):
                is_note = token and token["chord"] is None
                sign = token if is_note else UNREAD.match(line, at)
                assert sign
                self.left_out[sign[0]] += 1
                at = sign.end()
                continue
            if not token:
                raise UserError(f"cannot read {line[at:][:12]!r} in line {number}")
            begins_group = at == 0 or line[at - 1] in ' "|:]'
            at = token.end()
            if token["chord"] is not None:
                chord_pitches(token["chord"])  # raises `UserError` if it is no chord
                self.chords.append((self.time, token["chord"]))
            elif token["bar"]:
                self.end_bar()
                if token["bar"].startswith(":"):
                    self.begin_part(self.name, n_times=2)
                elif token["bar"] == "|:":
                    self.begin_part(self.name)
            elif token["broken"]:
                if not self.notes:
                    raise UserError(f"{token['broken']!r} in line {number} follows no note")
                self.break_rhythm(token["broken"])
            elif token["letter"]:
                self.add_note(token, begins_group)

    def is_playable(self, token: re.Match[str]) -> bool:
        """Return whether minigen can play a chord, a broken rhythm or a note."""
        if token["chord"] is not None:
            return CHORD.fullmatch(token["chord"]) is not None
        if token["letter"]:  # limits: three octave marks, and a length of two digits
            multiplier = token["multiplier"]
            is_short = len(multiplier) <= 2 and int(multiplier or 1) > 0
            return len(token["octave"]) <= 3 and is_short
        return bool(self.notes) or not token["broken"]

    def add_note(self, token: re.Match[str], begins_group: bool) -> None:
        """Add a note or a rest at the current time of the bar."""
        multiplier, slashes = int(token["multiplier"] or 1), token["divisor"]
        divisor = int(slashes[1:] or 2) if slashes.strip("/") else 2 ** len(slashes)
        length = self.unit * Fraction(multiplier, divisor or 1) * self.next_factor
        self.next_factor = Fraction(1)
        letter = token["letter"].upper()
        if letter == "Z":
            self.notes.append(Note(self.time, length, None))
        else:
            octave = token["letter"].islower() + token["octave"].count("'")
            octave -= token["octave"].count(",")
            accidental = token["accidental"] or ""
            if accidental:
                self.alterations[letter] = ACCIDENTALS[accidental]
            alteration = self.alterations.get(letter, self.signature[letter])
            pitch = MIDDLE_C + 12 * octave + SEMITONES[letter] + alteration
            step = 7 * octave + LETTERS.index(letter)
            self.notes.append(Note(self.time, length, step, pitch, accidental, begins_group))
        self.time += length

    def break_rhythm(self, sign: str) -> None:
        """Apply a broken rhythm: A>B lengthens A by half and halves B; A<B does the reverse."""
        longer, shorter = Fraction(3, 2), Fraction(1, 2)
        factor, self.next_factor = (longer, shorter) if sign == ">" else (shorter, longer)
        note = self.notes[-1]
        self.notes[-1] = replace(note, length=note.length * factor)
        self.time = note.start + note.length * factor

    def end_bar(self) -> None:
        """Add the current bar to the current part, unless it is empty."""
        if self.notes:
            self.bars.append(Bar(tuple(self.notes), tuple(self.chords)))
        elif self.chords and self.left_out is not None:
            self.left_out.update(f'"{name}"' for _, name in self.chords)
        elif self.chords:
            raise UserError(f"the chord {self.chords[0][1]} stands in a bar without notes")
        self.notes, self.chords, self.alterations, self.time = [], [], {}, Fraction(0)

    def begin_part(self, name: str, n_times: int = 1) -> None:
        """End the current part, which is played `n_times`, and begin one with this name."""
        if self.bars:
            self.parts.append(Part(self.name, tuple(self.bars), n_times))
        self.name, self.bars = name, []


def key_signature(key: str) -> dict[str, int]:
    """Return the number of semitones by which a key raises each letter.

    Raises `UserError` for a text that is no major or minor key.

    >>> key_signature("Bm")["F"], key_signature("F")["B"]
    (1, -1)
    """
    match = re.fullmatch(r"([A-G])([#b]?) ?(m|min|minor|maj|major)?", key)
    if not match:
        raise UserError(f"cannot read the key K:{key}; give one such as G, Bb or F#m")
    letter, accidental, mode = match.groups()
    is_minor = mode in ("m", "min", "minor")
    # Each fifth up adds a sharp: F major has -1 (a flat), C major 0, G major 1. A minor key has
    # three sharps fewer than the major key of the same letter.
    n_sharps = FIFTHS.index(letter) - 1 + 7 * {"": 0, "#": 1, "b": -1}[accidental] - 3 * is_minor
    # Sharps raise the letters in the order of FIFTHS, and each seventh sharp the same letter again.
    return {letter: (n_sharps - place + 6) // 7 for place, letter in enumerate(FIFTHS)}


def chord_pitches(name: str) -> tuple[int, ...]:
    """Return the root, third and fifth of a chord, in semitones above C.

    Raises `UserError` for a text that is no major or minor chord.

    >>> chord_pitches("Am"), chord_pitches("Bb")
    ((9, 12, 16), (10, 14, 17))
    """
    match = CHORD.fullmatch(name)
    if not match:
        raise UserError(f"cannot read the chord {name!r}; give one such as G, Bb or F#m")
    letter, accidental, minor = match.groups()
    root = SEMITONES[letter] + {"": 0, "#": 1, "b": -1}[accidental]
    return root, root + (3 if minor else 4), root + 7


def _metre(text: str) -> Fraction:
    return _fraction({"C": "4/4", "C|": "2/2"}.get(text, text), "M")


def _fraction(text: str, header: str) -> Fraction:
    if not re.fullmatch(r"[1-9]\d{0,2}/[1-9]\d{0,2}", text):
        raise UserError(f"cannot read {header}:{text}; give a fraction such as {header}:3/4")
    return Fraction(text)
