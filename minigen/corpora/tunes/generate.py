"""The grammar of tunes, which writes and reads tunes, and the corpus that it writes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.corpora import splits
from minigen.corpora.dice import Dice
from minigen.corpora.tunes.first_line import first_lines, read_first_line
from minigen.corpora.tunes.harmony import CADENCES, OPENINGS, Key, chord_tones
from minigen.corpora.tunes.tables import (
    BARS_PER_PHRASE,
    DANCES,
    FIGURES,
    FIRST_NOTES,
    FORM_WITH_REPEATS,
    HIGHEST,
    LEAP,
    LETTERS,
    LOWEST,
    MOODS,
    NATURES,
    NEAR,
    OWNERS,
    WIDER,
    style,
)

VERSION = 1  # of the text format: the same version and seed give the same bytes
SPLITS = ("train", "val", "held_out")

# ---- the grammar ---------------------------------------------------------------------------------

# The grammar is a coroutine. At each place of the text it yields its options, which are texts with
# weights, and receives the chosen one. If dice choose, the grammar writes a text (`draw_text`). If
# an existing text chooses, the grammar reads that text (`read_bits` in check.py). No option is the
# beginning of another option, so a text can be written in one way only
# (test_no_option_begins_another_so_a_text_has_one_derivation).
Options = Mapping[str, int]
Choices = Generator[Options, str, Any]


def document(held_out: bool = False) -> Choices:
    """Choose a tune."""
    line = yield first_lines(held_out)
    conditions, _ = read_first_line(line.rstrip("\n"))
    yield from header(conditions)
    yield from body(conditions)


def header(conditions: Mapping[str, str]) -> Choices:
    """Choose the lines from X: to K:, with the title."""
    dance = conditions["dance"]
    yield {"X:1\n": 1}
    yield {f"T:The {nature} ": 1 for nature in NATURES}
    yield {f"{owner}'s {dance.capitalize()}\n": 1 for owner in OWNERS}
    yield {f"M:{DANCES[dance].metre}\nL:{style(conditions).unit}\nK:{conditions['key']}\n": 1}


@dataclass(frozen=True)
class Melody:
    """The state of a melody, on which its next bar depends."""

    note: int | None  # the last note; None: the tune begins
    chord: str  # the last chord


def body(conditions: Mapping[str, str]) -> Choices:
    """Choose the phrases of a tune."""
    form = conditions["form"]
    has_repeats = form == FORM_WITH_REPEATS
    letters = sorted(set(form)) if has_repeats else form
    cadences = [*["open"] * (len(letters) - 1), "full"]
    cadences[half_cadence(len(letters))] = "half"
    beginnings: dict[str, tuple[str, Melody]] = {}  # by letter: the bars before the cadence
    melody = Melody(None, "")
    for letter, kind in zip(letters, cadences, strict=True):
        yield {f"P:{letter}\n" + "|:" * has_repeats: 1}
        if letter in beginnings:
            text, melody = beginnings[letter]
            yield {text: 1}
        else:
            text = ""
            for n in range(BARS_PER_PHRASE - 1):
                bar, melody = yield from plain_bar(conditions, melody, "" if n else letter)
                text += bar
            beginnings[letter] = text, melody
        melody = yield from cadence(conditions, melody, kind)
        if has_repeats:
            yield {":|\n" if kind == "half" else ":|": 1}
        else:
            yield {"|]" if kind == "full" else "|\n": 1}


def half_cadence(n_phrases: int) -> int:
    """Return the index of the last phrase of the first half, which ends on the dominant."""
    return (n_phrases + 1) // 2 - 1


def plain_bar(conditions: Mapping[str, str], before: Melody, opens: str) -> Choices:
    """Choose a bar that is no cadence. Return its text, and the melody after it.

    Args:
        before: the melody before the bar.
        opens: the letter of the phrase if the bar is the first of its phrase, else "".
    """
    key, mood = Key(conditions["key"]), MOODS[conditions["mood"]]
    if opens:
        chord = key.chord(OPENINGS[key.mode][opens])
    else:
        assert before.note is not None
        chord = key.next_chord(before.chord, before.note)
    text = yield {f'"{chord}" ': 1}
    tones = chord_tones(chord)
    low, high = FIRST_NOTES[mood.direction, mood.motion]
    first: int | None = None
    last, rhythm = before.note, ""
    rhythms = style(conditions).bars
    while rhythm not in rhythms:
        if first is None:
            allowed, intervals = tuple(n for n in tones if low <= n <= high), WIDER
        else:
            rising, falling = mood.direction == "rising", mood.direction == "falling"
            allowed = tuple(
                n for n in tones if not (rising and n < first) and not (falling and n > first)
            )
            # One leap is enough: the second group of the bar begins with it.
            leaps = mood.motion == "leaps" and " " not in rhythm
            intervals = LEAP if leaps else NEAR if mood.motion == "steps" else WIDER
        first_notes = notes_within(last, allowed, intervals)
        group = yield groups(next_shapes(rhythms, rhythm), first_notes, mood.motion)
        text += group
        notes, shape = read_group(group)
        first, last = notes[0] if first is None else first, notes[-1]
        rhythm = f"{rhythm} {shape}".lstrip()
    bar_line = yield {"|": 1}
    return text + bar_line, Melody(last, chord)


def cadence(conditions: Mapping[str, str], before: Melody, kind: str) -> Choices:
    """Choose the last bar of a phrase, which has two chords. Return the melody after it.

    Args:
        before: the melody before the bar.
        kind: open, half or full; a key of CADENCES.
    """
    key, mood = Key(conditions["key"]), MOODS[conditions["mood"]]
    rhythms, goal_shape = style(conditions).approach, style(conditions).goal
    pairs = [pair.split() for pair in CADENCES[key.mode][kind]]
    chord = (yield _weights(f'"{key.chord(approach)}" ' for approach, _ in pairs)).strip('" ')
    intervals = NEAR if mood.motion == "steps" else WIDER
    last, rhythm = before.note, ""
    while rhythm not in rhythms:
        first_notes = notes_within(last, chord_tones(chord), intervals)
        group = yield groups(next_shapes(rhythms, rhythm), first_notes, mood.motion)
        notes, shape = read_group(group)
        last, rhythm = notes[-1], f"{rhythm} {shape}".lstrip()
    goals = [key.chord(goal) for approach, goal in pairs if key.chord(approach) == chord]
    chord = (yield _weights(f'"{goal}" ' for goal in goals)).strip('" ')
    tones, intervals = chord_tones(chord), NEAR
    if kind == "full":  # the tonic nearest to the last note
        tones, intervals = tuple(n for n in tones if n % 7 == key.tonic), {}
    group = yield groups(((goal_shape, 1),), notes_within(last, tones, intervals), mood.motion)
    return Melody(read_group(group)[0][-1], chord)


Weighted = tuple[tuple[Any, int], ...]  # pairs (option, weight): hashable, as `cache` needs


def _weights(texts: Iterable[str]) -> dict[str, int]:
    """Return the number of times that each text occurs, in the order of the texts."""
    weights: dict[str, int] = {}
    for text in texts:
        weights[text] = weights.get(text, 0) + 1
    return weights


@functools.cache
def next_shapes(rhythms: tuple[str, ...], beginning: str) -> Weighted:
    """Return the shapes of the next group of a bar that begins with the rhythm `beginning`.

    The weight of a shape is the number of `rhythms` in which it comes next.
    """
    start = f"{beginning} " if beginning else ""
    rest = [rhythm[len(start) :] for rhythm in rhythms if rhythm.startswith(start)]
    return tuple(_weights(shape.partition(" ")[0] for shape in rest).items())


def notes_within(
    last: int | None, allowed: tuple[int, ...], intervals: Mapping[int, int]
) -> Weighted:
    """Return the allowed notes that are one of the intervals away from `last`, with their weights.

    If there are none, the allowed notes nearest to `last` are returned.

    Args:
        last: the note before; None at the beginning of a tune.
        intervals: the weight of each interval, in steps of the scale.
    """
    if last is None:
        return tuple((note, 1) for note in allowed)
    distances = {note: abs(note - last) for note in allowed}
    within = tuple((note, intervals[d]) for note, d in distances.items() if d in intervals)
    smallest = min(distances.values())
    return within or tuple((note, 1) for note, d in distances.items() if d == smallest)


@functools.cache
def groups(shapes: Weighted, first_notes: Weighted, motion: str) -> dict[str, int]:
    """Return all texts of a group of notes: a shape, a first note, and a figure from that note.

    Figures that would leave the range are left out. The factor 12 // (number of figures) makes up
    for different numbers of figures: the probability of a shape is in proportion to its weight,
    except near the ends of the range.
    """
    options: dict[str, int] = {}
    for shape, n_rhythms in shapes:
        figures = FIGURES[motion][shape.count("n")]
        for note, weight in first_notes:
            for figure in figures:
                notes = [note + interval for interval in figure]
                if min(notes) >= LOWEST and max(notes) <= HIGHEST:
                    text = shape
                    for n in notes:
                        text = text.replace("n", LETTERS[n], 1)
                    options[f"{text} "] = n_rhythms * weight * 12 // len(figures)
    return options


def read_group(text: str) -> tuple[list[int], str]:
    """Return the notes and the shape of a group of notes.

    >>> read_group("B>A ")
    ([6, 5], 'n>n')
    """
    notes = [LETTERS.index(letter) for letter in re.findall("[A-Ga-g]", text)]
    return notes, re.sub("[A-Ga-g]", "n", text.strip())


# ---- writing tunes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tune:
    """A tune of the grammar."""

    text: str
    bits: float  # -log2 of the exact probability of the text in its split
    conditions: dict[str, str]  # of the first line


def draw_text(choices: Choices, dice: Dice) -> str:
    """Draw a text: let the dice choose one option at each place."""
    text, options = "", next(choices)
    with contextlib.suppress(StopIteration):
        while True:
            choice = dice.choose_weighted(options)
            text += choice
            options = choices.send(choice)
    return text


def tune(rng: random.Random, held_out: bool = False) -> Tune:
    """Draw a tune with a first line of the training text; if `held_out`, with a held-out one."""
    dice = Dice(rng)
    text = draw_text(document(held_out), dice)
    return Tune(text, dice.bits, read_first_line(text.partition("\n")[0])[0])


def documents(seed: int, split: str = "train") -> Iterator[Tune]:
    """Yield tunes without end; the k-th depends only on (seed, split, k), on every machine.

    Args:
        split: train, val or held_out. The first lines of held_out are never in train and val.
    """
    for k in itertools.count():
        yield tune(random.Random(f"{seed}/{split}/{k}"), split == "held_out")


def write(
    folder: Path,
    train_bytes: int = 5_000_000,
    val_bytes: int = 150_000,
    held_out_bytes: int = 350_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write train.txt, val.txt, held_out.txt and facts.json with `splits.write`."""
    return splits.write(
        Path(folder),
        "tunes",
        {split: documents(seed, split) for split in SPLITS},
        dict(zip(SPLITS, (train_bytes, val_bytes, held_out_bytes), strict=True)),
        {"version": VERSION, "seed": seed},
    )
