"""ABC notation: pitches, lengths, bars and repeats follow the standard; errors name signs."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest

from minigen.corpora.tunes.abc_notation import chord_pitches, key_signature, parse
from minigen.errors import UserError

HEADER = "X:1\nT:Test\nM:4/4\nL:1/8\nK:C\n"


def pitches(body: str, header: str = HEADER) -> list[int]:
    """Return the MIDI numbers of the notes of a tune."""
    tune = parse(header + body)
    return [n.pitch for part in tune.parts for bar in part.bars for n in bar.notes]


def lengths(body: str) -> list[Fraction]:
    """Return the lengths of the notes of a tune, in eighths."""
    tune = parse(HEADER + body)
    return [8 * n.length for part in tune.parts for bar in part.bars for n in bar.notes]


def test_letters_and_octave_marks_are_pitches() -> None:
    """C is middle C, c an octave higher; a comma lowers a letter by an octave, and ' raises it."""
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
def test_key_signatures_follow_the_circle_of_fifths(key: str, sharps: str, flats: str) -> None:
    """A key has the sharps and flats that the circle of fifths gives it."""
    assert key_signature(key) == {x: (x in sharps) - (x in flats) for x in "ABCDEFG"}


def test_an_accidental_lasts_until_its_bar_ends() -> None:
    """An accidental changes its letter in all octaves up to the bar line; = undoes the key."""
    assert pitches("^F F f =F F | F") == [66, 66, 78, 65, 65, 65]
    assert pitches("F =F F | F", HEADER.replace("K:C", "K:G")) == [66, 65, 65, 66]
    assert pitches("__B ^^C") == [69, 62]


def test_lengths_are_multiples_of_the_unit() -> None:
    """A number multiplies the unit length, and each slash halves it."""
    assert lengths("C C2 C/ C// C3/2 C/4 z4") == [
        1, 2, Fraction(1, 2), Fraction(1, 4), Fraction(3, 2), Fraction(1, 4), 4
    ]  # fmt: skip


def test_a_broken_rhythm_moves_half_a_note() -> None:
    """A>B makes A half as long again and B half as long; A<B does the reverse."""
    assert lengths("A>B c2<d2") == [Fraction(3, 2), Fraction(1, 2), 1, 3]


def test_a_tune_is_parts_of_bars_with_chords() -> None:
    """Labels and repeat signs separate parts; a chord sounds until the next chord of its bar."""
    tune = parse(HEADER + 'P:A\n|:"C"C4 "G"G4|"Am"A8:|\nP:B\n"F"F8|"C"c8|]\n\nX:2\n')
    assert [(part.name, len(part.bars), part.n_times) for part in tune.parts] == [
        ("A", 2, 2),
        ("B", 2, 1),
    ]
    bar = tune.parts[0].bars[0]
    assert bar.chords == ((Fraction(0), "C"), (Fraction(1, 2), "G"))
    assert [bar.chord_at(Fraction(n, 4)) for n in range(4)] == ["C", "C", "G", "G"]
    assert bar.length == tune.metre == 1


def test_a_repeated_part_is_played_twice() -> None:
    """`played` yields the bars of A, A and B for a tune with |: A :| B."""
    tune = parse(HEADER + 'P:A\n|:"C"C4 "G"G4|"Am"A8:|\nP:B\n"F"F8|"C"c8|]\n')
    order = [part.name + str(bar.chords[0][1]) for part, bar in tune.played()]
    assert order == ["AC", "AAm", "AC", "AAm", "BF", "BC"]


def test_repeat_signs_need_no_labels() -> None:
    """Repeat signs separate parts without P:, and :: ends one repeat and begins the next."""
    assert [part.n_times for part in parse(HEADER + "C8:|:D8:|E8|:F8:|").parts] == [2, 2, 1, 2]
    assert [part.n_times for part in parse(HEADER + "C8::D8:|").parts] == [2, 2]


@pytest.mark.parametrize(
    ("metre", "beat"),
    [("3/4", "1/4"), ("4/4", "1/4"), ("C", "1/4"), ("6/8", "3/8"), ("9/8", "3/8")],
)
def test_a_beat_is_a_quarter_or_in_compound_metres_three_eighths(metre: str, beat: str) -> None:
    """The beat of 6/8 and 9/8 has three eighths, that of other metres is a quarter note."""
    assert parse(HEADER.replace("4/4", metre) + "C").beat == Fraction(beat)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no line begins with X:"),
        ("X:1\nT:Test\n", "has no K: before line 3"),
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
def test_an_error_names_the_sign_that_cannot_be_read(text: str, complaint: str) -> None:
    """A text that is no ABC notation raises a `UserError` with the sign or the missing header."""
    with pytest.raises(UserError, match=complaint):
        parse(text)


def test_chords_are_triads() -> None:
    """A chord has a root, a third and a fifth; m makes the third minor; others raise an error."""
    assert chord_pitches("C") == (0, 4, 7)
    assert chord_pitches("F#m") == (6, 9, 13)
    with pytest.raises(UserError, match="cannot read the chord 'H'"):
        chord_pitches("H")


@pytest.mark.parametrize("note", ["A" + "9" * 5000, "A/" + "9" * 5000, "A" + "/" * 5000])
def test_a_length_of_many_digits_is_an_error_or_left_out(note: str) -> None:
    """A note whose length has thousands of signs is refused, or its signs are counted."""
    tune = f"X:1\nT:x\nM:2/4\nL:1/8\nK:C\nC {note} D"
    with pytest.raises(UserError, match=r"^cannot read '[9/]+' in line 6$"):
        parse(tune)
    left_out = Counter[str]()
    score = parse(tune, left_out)
    assert [n.pitch for n in score.parts[0].bars[0].notes if n.pitch in (60, 62)] == [60, 62]
    assert left_out.total() > 800
