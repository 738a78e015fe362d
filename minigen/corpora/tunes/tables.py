"""The tables of tunes: moods, dances, forms, titles, and the steps of a melody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Mood:
    """The features that the mood of a tune decides on."""

    mode: str  # major or minor
    pace: str  # slow, flowing or busy: bars have few, more or many notes
    # Within a bar. steps: no interval larger than a third; leaps: at least one fourth or larger.
    motion: str
    # Within a bar. rising: no group of notes begins lower than the first; falling: none higher.
    direction: str


MOODS = {
    "cheerful": Mood("major", "flowing", "free", "rising"),
    "calm": Mood("major", "slow", "steps", "falling"),
    "proud": Mood("major", "slow", "leaps", "rising"),
    "lively": Mood("major", "busy", "free", "free"),
    "sad": Mood("minor", "slow", "steps", "falling"),
    "brave": Mood("minor", "slow", "leaps", "rising"),
    "dreamy": Mood("minor", "flowing", "steps", "free"),
    "wild": Mood("minor", "busy", "leaps", "falling"),
}


@dataclass(frozen=True)
class Style:
    """The rhythms of a dance at a pace: ABC notation with n for each note.

    A blank separates groups of notes. The unit is chosen so that most groups are letters without
    numbers. Then one token is a whole group, from which a model can predict much of the next group.
    """

    unit: str  # L: in ABC notation; the length of a note is a multiple of the unit
    # The rhythms of a bar. Bars of two paces of one dance differ in their number of notes, so that
    # the bars show the mood (test_the_number_of_notes_in_a_bar_tells_the_pace).
    bars: tuple[str, ...]
    approach: tuple[str, ...]  # the rhythms of the first part of a cadence
    goal: str  # the long last note of a cadence
    beats_per_minute: int


@dataclass(frozen=True)
class Dance:
    """The metre of a dance, and its style at each pace."""

    metre: str
    styles: Mapping[str, Style]  # the keys are paces


DANCES = {
    "waltz": Dance(
        "3/4",
        {
            "slow": Style("1/4", ("nn n", "n nn", "n2 n"), ("n",), "n2", 104),
            "flowing": Style("1/8", ("nn nn n2", "nn n2 nn", "n2 nn nn"), ("n2", "nn"), "n4", 132),
            "busy": Style("1/8", ("nn nn nn",), ("nn",), "n4", 152),
        },
    ),
    "march": Dance(
        "4/4",
        {
            "slow": Style("1/4", ("n2 nn", "n2 n2"), ("nn", "n2"), "n2", 88),
            "flowing": Style("1/8", ("n2 nn n2 nn", "n2 n2 nn nn"), ("n2 n2", "n2 nn"), "n4", 104),
            "busy": Style("1/8", ("n2 nn nn nn",), ("n2 nn",), "n4", 126),
        },
    ),
    "reel": Dance(
        "4/4",
        {
            "slow": Style("1/4", ("nn nn", "nn n2"), ("nn",), "n2", 100),
            "flowing": Style("1/8", ("nn n2 nn n2", "nn nn n2 n2"), ("nn n2",), "n4", 132),
            "busy": Style("1/8", ("nn nn nn nn", "nn nn nn n2"), ("nn nn", "nn n2"), "n4", 168),
        },
    ),
    "jig": Dance(
        "6/8",
        {
            "slow": Style("1/8", ("n3 n3", "n2n n3", "n3 n2n"), ("n3", "n2n"), "n3", 66),
            "flowing": Style("1/8", ("nnn n3", "n3 nnn", "n2n n2n"), ("n2n", "nnn"), "n3", 88),
            "busy": Style("1/8", ("nnn nnn", "n2n nnn", "nnn n2n"), ("n2n", "nnn"), "n3", 112),
        },
    ),
}


def style(conditions: Mapping[str, str]) -> Style:
    """Return the style of a dance in a mood."""
    return DANCES[conditions["dance"]].styles[MOODS[conditions["mood"]].pace]


KEYS = {"major": ("C", "G", "D", "A", "F"), "minor": ("Am", "Em", "Bm", "Dm")}
FORMS = ("AA", "ABA", "AABA", "AAAB", "ABAB", "AABB")  # one letter for each phrase
FORM_WITH_REPEATS = "AABB"  # the form that is written with repeat signs
BARS_PER_PHRASE = 4

# The words of titles such as "The Humble Baker's Waltz".
NATURES = (
    "Merry", "Old", "Young", "Jolly", "Lonely", "Lucky", "Sleepy", "Bold", "Gentle", "Crooked",
    "Dusty", "Humble", "Clever", "Hungry", "Restless", "Grey",
)  # fmt: skip
OWNERS = (
    "Miller", "Baker", "Sailor", "Piper", "Fox", "Badger", "Robin", "Heron", "Weaver", "Smith",
    "Shepherd", "Fiddler", "Ferryman", "Widow", "Drummer", "Tinker",
)  # fmt: skip

# The grammar counts notes in steps of the scale: C is 0, D is 1, and the C an octave higher is 7.
# All notes from LOWEST to HIGHEST can be played on a tin whistle.
LETTERS = "CDEFGABcdefgab"
LOWEST, HIGHEST = LETTERS.index("D"), LETTERS.index("a")
# The lowest and highest first note of a bar, by direction and motion, so that the range has room
# for the rest of the bar.
FIRST_NOTES = {
    ("rising", "free"): (1, 7),
    ("rising", "leaps"): (1, 5),
    ("falling", "steps"): (6, 12),
    ("falling", "leaps"): (8, 12),
    ("free", "steps"): (3, 10),
    ("free", "free"): (3, 10),
}
# Intervals from the last note of a beat to the first note of the next one, with weights.
NEAR = {0: 1, 1: 3, 2: 3}
WIDER = {**NEAR, 3: 2, 4: 1}
LEAP = {3: 3, 4: 2, 5: 1}
# Figures: the notes of a beat, relative to its first note, by motion and number of notes.
FIGURES = {
    "steps": {
        1: ((0,),),
        2: ((0, 1), (0, -1)),
        3: ((0, 1, 2), (0, -1, -2), (0, 1, 0), (0, -1, 0)),
    },
    "free": {
        1: ((0,),),
        2: ((0, 1), (0, -1), (0, 2), (0, -2)),
        3: ((0, 1, 2), (0, -1, -2), (0, 1, 0), (0, -1, 0), (0, 2, 1), (0, -2, -1)),
    },
}
FIGURES["leaps"] = FIGURES["free"]
