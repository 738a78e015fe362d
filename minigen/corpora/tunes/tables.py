"""The tables of tunes: moods, dances, forms, names, and how a melody moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Mood:
    """How a tune of a mood goes."""

    mode: str  # major or minor
    pace: str  # how many notes a bar has: slow, flowing or busy
    motion: str  # within a bar. steps: no move above a third; leaps: one of a fourth or more
    direction: str  # rising: no group of a bar begins below its first; falling: none above it


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
    """How a dance goes at a pace. Bars are ABC with n for each note; blanks part its groups.

    The unit is such that most groups are letters only. Then each is a token, and tells much about
    the next one.
    """

    unit: str  # L:, of which a note's length is a multiple
    bars: tuple[str, ...]  # no two paces of a dance have bars of as many notes
    approach: tuple[str, ...]  # how a cadence begins
    goal: str  # the long note on which it ends
    per_minute: int  # beats


@dataclass(frozen=True)
class Dance:
    """The metre of a dance, and its styles."""

    metre: str
    styles: Mapping[str, Style]  # by pace


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
    """Return the style of the dance in the mood."""
    return DANCES[conditions["dance"]].styles[MOODS[conditions["mood"]].pace]


KEYS = {"major": ("C", "G", "D", "A", "F"), "minor": ("Am", "Em", "Bm", "Dm")}
FORMS = ("AA", "ABA", "AABA", "AAAB", "ABAB", "AABB")  # a letter a phrase
REPEATED = "AABB"  # the form that is written with repeat signs
PHRASE = 4  # bars

# Whose tune it is, and what that one is like.
NATURES = (
    "Merry", "Old", "Young", "Jolly", "Lonely", "Lucky", "Sleepy", "Bold", "Gentle", "Crooked",
    "Dusty", "Humble", "Clever", "Hungry", "Restless", "Grey",
)  # fmt: skip
OWNERS = (
    "Miller", "Baker", "Sailor", "Piper", "Fox", "Badger", "Robin", "Heron", "Weaver", "Smith",
    "Shepherd", "Fiddler", "Ferryman", "Widow", "Drummer", "Tinker",
)  # fmt: skip

# Notes are numbers on the staff: C is 0, the C above it 7. A tin whistle plays them all.
LETTERS = "CDEFGABcdefgab"
LOWEST, HIGHEST = LETTERS.index("D"), LETTERS.index("a")
# Where a bar may begin, so that there is room for what the mood asks for.
FIRST_NOTES = {
    ("rising", "free"): (1, 7),
    ("rising", "leaps"): (1, 5),
    ("falling", "steps"): (6, 12),
    ("falling", "leaps"): (8, 12),
    ("free", "steps"): (3, 10),
    ("free", "free"): (3, 10),
}
# How far it is to the first note of the next beat, with weights.
NEAR = {0: 1, 1: 3, 2: 3}
WIDER = {**NEAR, 3: 2, 4: 1}
LEAP = {3: 3, 4: 2, 5: 1}
# How a beat goes on from its first note, by the number of its notes.
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
