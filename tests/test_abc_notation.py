"""ABC notation: what the standard says of pitches, lengths, bars and repeats; what is named."""

from __future__ import annotations

from fractions import Fraction

import pytest

from minigen.corpora.tunes import notation
from minigen.corpora.tunes.notation import key_signature, parse
from minigen.errors import UserError

HEADER = "X:1\nT:Test\nM:4/4\nL:1/8\nK:C\n"


def pitches(body: str, header: str = HEADER) -> list[int]:
    tune = parse(header + body)
    return [n.pitch for part in tune.parts for bar in part.bars for n in bar.notes]


def lengths(body: str) -> list[Fraction]:
    tune = parse(HEADER + body)
    return [8 * n.length for part in tune.parts for bar in part.bars for n in bar.notes]


def test_letters_and_octave_marks_are_pitches() -> None:
    assert pitches("C, C c c' c''") == [48, 60, 72, 84, 96]
    assert pitches("CDEFGAB") == [60, 62, 64, 65, 67, 69, 71]


@pytest.mark.parametrize(
    ("key", "sharps", "flats"),
    [
        ("C", "", ""), ("G", "F", ""), ("D", "FC", ""), ("A", "FCG", ""), ("F", "", "B"),
        ("Am", "", ""), ("Em", "F", ""), ("Bm", "FC", ""), ("Dm", "", "B"), ("Gm", "", "BE"),
        ("F#", "FCGDAE", ""), ("Cb", "", "BEADGCF"), ("E minor", "F", ""),
    ],
)  # fmt: skip
def test_key_signatures(key: str, sharps: str, flats: str) -> None:
    """Those of the circle of fifths, as any book has them."""
    expected = {x: (x in sharps) - (x in flats) for x in "ABCDEFG"}
    assert key_signature(key) == expected


def test_an_accidental_lasts_until_its_bar_ends() -> None:
    assert pitches("^F F f =F F | F") == [66, 66, 78, 65, 65, 65]
    assert pitches("F =F F | F", HEADER.replace("K:C", "K:G")) == [66, 65, 65, 66]
    assert pitches("__B ^^C") == [69, 62]


def test_lengths_are_multiples_of_the_unit() -> None:
    assert lengths("C C2 C/ C// C3/2 C/4 z4") == [
        1, 2, Fraction(1, 2), Fraction(1, 4), Fraction(3, 2), Fraction(1, 4), 4
    ]  # fmt: skip
    assert lengths("A>B c2<d2") == [Fraction(3, 2), Fraction(1, 2), 1, 3]


def test_bars_chords_and_parts() -> None:
    tune = parse(HEADER + 'P:A\n|:"C"C4 "G"G4|"Am"A8:|\nP:B\n"F"F8|"C"c8|]\n\nX:2\n')
    assert [(part.name, len(part.bars), part.times) for part in tune.parts] == [
        ("A", 2, 2),
        ("B", 2, 1),
    ]
    bar = tune.parts[0].bars[0]
    assert bar.chords == ((Fraction(0), "C"), (Fraction(1, 2), "G"))
    assert [bar.chord_at(Fraction(n, 4)) for n in range(4)] == ["C", "C", "G", "G"]
    assert bar.length == tune.metre == 1
    order = [part.name + str(bar.chords[0][1]) for part, bar in tune.played()]
    assert order == ["AC", "AAm", "AC", "AAm", "BF", "BC"]


def test_repeats_without_labels() -> None:
    assert [part.times for part in parse(HEADER + "C8:|:D8:|E8|:F8:|").parts] == [2, 2, 1, 2]
    assert [part.times for part in parse(HEADER + "C8::D8:|").parts] == [2, 2]


def test_beats() -> None:
    for metre, beat in {"3/4": "1/4", "4/4": "1/4", "C": "1/4", "6/8": "3/8", "9/8": "3/8"}.items():
        assert parse(HEADER.replace("4/4", metre) + "C").beat == Fraction(beat)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no line begins with X:"),
        ("X:1\nT:Test\n", "has no K: by line 3"),
        (HEADER.replace("M:4/4\n", "") + "C", "the header has no M:"),
        (HEADER.replace("4/4", "3/0") + "C", "cannot read M:3/0"),
        (HEADER.replace("1/8", "x") + "C", "cannot read L:x"),
        (HEADER.replace("K:C", "K:H") + "C", "cannot read the key K:H"),
        (HEADER, "no notes"),
        (HEADER + "C ? D", r"cannot read '\? D' in line 6"),
        (HEADER + '"C', "cannot read '\"C' in line 6"),
        (HEADER + "> C", "'>' in line 6 follows no note"),
        (HEADER + '"H"C', "cannot read the chord 'H'"),
        (HEADER + '"C" | C', "the chord C stands in a bar without notes"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        parse(text)


def test_chords_are_triads() -> None:
    assert notation.chord_pitches("C") == (0, 4, 7)
    assert notation.chord_pitches("F#m") == (6, 9, 13)
    with pytest.raises(UserError, match="cannot read the chord 'H'"):
        notation.chord_pitches("H")
