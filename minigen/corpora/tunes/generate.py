"""Tunes by chance: the grammar, which writes and reads; tunes drawn from it; and the corpus."""

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
from minigen.corpora.tunes.first_line import every_first_line, read_first_line
from minigen.corpora.tunes.harmony import CADENCES, OPENINGS, Key, chord_tones
from minigen.corpora.tunes.tables import (
    DANCES,
    FIGURES,
    FIRST_NOTES,
    HIGHEST,
    LEAP,
    LETTERS,
    LOWEST,
    MOODS,
    NATURES,
    NEAR,
    OWNERS,
    PHRASE,
    REPEATED,
    WIDER,
    style,
)

VERSION = 1  # of the text format: the same version and seed give the same bytes
SPLITS = ("train", "val", "held_out")

# ---- the grammar ---------------------------------------------------------------------------------

# The grammar is a coroutine. It yields its options at a place, texts with weights, and is sent the
# one that is chosen. None of the options begins another, so a text can be read in one way only. If
# dice choose, the grammar writes a text; if a text chooses, the grammar reads it.
Options = Mapping[str, int]
Choices = Generator[Options, str, Any]


def document(held_out: bool = False) -> Choices:
    """Choose a tune."""
    line = yield every_first_line(held_out)
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
    """The state of a melody: its last note (None: it begins) and chord."""

    note: int | None
    chord: str


def body(conditions: Mapping[str, str]) -> Choices:
    """Choose the phrases."""
    form = conditions["form"]
    repeated = form == REPEATED
    letters = sorted(set(form)) if repeated else form
    kinds = [*["open"] * (len(letters) - 1), "home"]
    kinds[half_way(len(letters))] = "half"
    begun: dict[str, tuple[str, Melody]] = {}  # by letter: the bars before the cadence
    melody = Melody(None, "")
    for letter, kind in zip(letters, kinds, strict=True):
        yield {f"P:{letter}\n" + "|:" * repeated: 1}
        if letter in begun:
            text, melody = begun[letter]
            yield {text: 1}
        else:
            text = ""
            for n in range(PHRASE - 1):
                bar, melody = yield from free_bar(conditions, melody, "" if n else letter)
                text += bar
            begun[letter] = text, melody
        melody = yield from cadence(conditions, melody, kind)
        if repeated:
            yield {":|\n" if kind == "half" else ":|": 1}
        else:
            yield {"|]" if kind == "home" else "|\n": 1}


def half_way(n_phrases: int) -> int:
    """Return the phrase that ends on the dominant: the last of the first half, from 0."""
    return (n_phrases + 1) // 2 - 1


def free_bar(conditions: Mapping[str, str], before: Melody, opens: str) -> Choices:
    """Choose a bar that is no cadence; `opens` is the letter of the phrase that it opens, or "".

    Returns the bar's text, and the melody after it.
    """
    key, mood = Key(conditions["key"]), MOODS[conditions["mood"]]
    if opens:
        chord = key.chord(OPENINGS[key.mode][opens])
    else:
        assert before.note is not None
        chord = key.follower(before.chord, before.note)
    text = yield {f'"{chord}" ': 1}
    tones = chord_tones(chord)
    low, high = FIRST_NOTES[mood.direction, mood.motion]
    first: int | None = None
    last, beats = before.note, ""
    rhythms = style(conditions).bars
    while beats not in rhythms:
        if first is None:
            allowed, reach = tuple(n for n in tones if low <= n <= high), WIDER
        else:
            rising, falling = mood.direction == "rising", mood.direction == "falling"
            allowed = tuple(
                n for n in tones if not (rising and n < first) and not (falling and n > first)
            )
            leaps = mood.motion == "leaps" and " " not in beats
            reach = LEAP if leaps else NEAR if mood.motion == "steps" else WIDER
        group = yield groups(next_beats(rhythms, beats), starts(last, allowed, reach), mood.motion)
        text += group
        notes, shape = read_group(group)
        first, last = notes[0] if first is None else first, notes[-1]
        beats = f"{beats} {shape}".lstrip()
    bar_line = yield {"|": 1}
    return text + bar_line, Melody(last, chord)


def cadence(conditions: Mapping[str, str], before: Melody, kind: str) -> Choices:
    """Choose a phrase's last bar, from one chord to another; return the melody after it."""
    key, mood = Key(conditions["key"]), MOODS[conditions["mood"]]
    rhythms, goal_shape = style(conditions).approach, style(conditions).goal
    pairs = [pair.split() for pair in CADENCES[key.mode][kind]]
    chord = (yield _weights(f'"{key.chord(approach)}" ' for approach, _ in pairs)).strip('" ')
    reach = NEAR if mood.motion == "steps" else WIDER
    last, beats = before.note, ""
    while beats not in rhythms:
        beginnings = starts(last, chord_tones(chord), reach)
        group = yield groups(next_beats(rhythms, beats), beginnings, mood.motion)
        notes, shape = read_group(group)
        last, beats = notes[-1], f"{beats} {shape}".lstrip()
    goals = [key.chord(goal) for approach, goal in pairs if key.chord(approach) == chord]
    chord = (yield _weights(f'"{goal}" ' for goal in goals)).strip('" ')
    tones, reach = chord_tones(chord), NEAR
    if kind == "home":  # the nearest tonic
        tones, reach = tuple(n for n in tones if n % 7 == key.tonic), {}
    group = yield groups(((goal_shape, 1),), starts(last, tones, reach), mood.motion)
    return Melody(read_group(group)[0][-1], chord)


Weighted = tuple[tuple[Any, int], ...]  # things with weights; unlike a dict, a key of a cache


def _weights(texts: Iterable[str]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for text in texts:
        weights[text] = weights.get(text, 0) + 1
    return weights


@functools.cache
def next_beats(rhythms: tuple[str, ...], beats: str) -> Weighted:
    """Return the shapes of the beat after the first beats of a bar, weighed by rhythms."""
    start = f"{beats} " if beats else ""
    rest = [rhythm[len(start) :] for rhythm in rhythms if rhythm.startswith(start)]
    return tuple(_weights(shape.partition(" ")[0] for shape in rest).items())


def starts(last: int | None, allowed: tuple[int, ...], reach: Mapping[int, int]) -> Weighted:
    """Return the notes that a beat may begin with: the allowed ones in reach, or else the nearest.

    Args:
        last: the note before; None at the beginning of a tune.
        reach: weights of distances.
    """
    if last is None:
        return tuple((note, 1) for note in allowed)
    distances = {note: abs(note - last) for note in allowed}
    near = tuple((note, reach[d]) for note, d in distances.items() if d in reach)
    least = min(distances.values())
    return near or tuple((note, 1) for note, d in distances.items() if d == least)


@functools.cache
def groups(shapes: Weighted, beginnings: Weighted, motion: str) -> dict[str, int]:
    """Return the texts that a beat may be: a shape, a first note, and a figure from there.

    A shape is as probable as its weight, apart from figures that would leave the range: where a
    beat has fewer figures, each weighs more.
    """
    options: dict[str, int] = {}
    for shape, n_rhythms in shapes:
        figures = FIGURES[motion][shape.count("n")]
        for note, weight in beginnings:
            for figure in figures:
                notes = [note + move for move in figure]
                if min(notes) >= LOWEST and max(notes) <= HIGHEST:
                    text = shape
                    for n in notes:
                        text = text.replace("n", LETTERS[n], 1)
                    options[f"{text} "] = n_rhythms * weight * 12 // len(figures)
    return options


def read_group(text: str) -> tuple[list[int], str]:
    """Return the notes and the shape of a beat.

    >>> read_group("B>A ")
    ([6, 5], 'n>n')
    """
    notes = [LETTERS.index(letter) for letter in re.findall("[A-Ga-g]", text)]
    return notes, re.sub("[A-Ga-g]", "n", text.strip())


# ---- writing tunes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tune:
    """`bits` is -log2 of the tune's exact probability; `conditions` are those of its first line."""

    text: str
    bits: float
    conditions: dict[str, str]


def draw_text(choices: Choices, dice: Dice) -> str:
    """Return a text of the grammar, or of a part of it, by the dice."""
    text, options = "", next(choices)
    with contextlib.suppress(StopIteration):
        while True:
            choice = dice.weigh(options)
            text += choice
            options = choices.send(choice)
    return text


def tune(rng: random.Random, held_out: bool = False) -> Tune:
    """Draw a tune with a first line that training may see, or, `held_out`, one that it must not."""
    dice = Dice(rng)
    text = draw_text(document(held_out), dice)
    return Tune(text, dice.bits, read_first_line(text.partition("\n")[0])[0])


def documents(seed: int, split: str = "train") -> Iterator[Tune]:
    """Yield tunes without end; the k-th is a function of (seed, split, k), on every machine.

    The split "held_out" has the conditions that no other has.
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
    """Write train.txt, val.txt, held_out.txt and facts.json, as `splits.write` does."""
    return splits.write(
        Path(folder),
        "tunes",
        {split: documents(seed, split) for split in SPLITS},
        dict(zip(SPLITS, (train_bytes, val_bytes, held_out_bytes), strict=True)),
        {"version": VERSION, "seed": seed},
    )
