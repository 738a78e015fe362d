"""Harmony: the chords of a key, which chord follows another, and the notes of a chord."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from minigen.corpora.tunes import notation
from minigen.corpora.tunes.tables import HIGHEST, LETTERS, LOWEST

# Chords by their degree, in capitals if they are major ones. The harmony follows the melody: after
# a chord comes the first of these that has the melody's last note, or else the first of all. So a
# phrase that is told again brings its chords along.
FOLLOWERS = {
    "major": {"I": "IV V vi", "ii": "V IV", "IV": "V I ii", "V": "I vi", "vi": "ii IV V"},
    "minor": {
        "i": "iv VII VI",
        "III": "VI VII iv",
        "iv": "VII i",
        "v": "i VI",
        "VI": "VII iv III",
        "VII": "III i",
    },
}
HOME = {"major": "I", "minor": "i"}
OPENINGS = {  # the first chord of a phrase, by its letter
    "major": {"A": "I", "B": "IV"},
    "minor": {"A": "i", "B": "VI"},
}
DOMINANTS = {"major": ("V",), "minor": ("v", "VII")}
# The two chords of a phrase's last bar, by where it leads.
CADENCES = {
    "major": {
        "open": ("I IV", "IV I", "V I", "V vi", "ii vi"),
        "half": ("I V", "ii V", "IV V", "vi V"),
        "home": ("V I", "V I", "IV I"),
    },
    "minor": {
        "open": ("i iv", "iv i", "VII i", "v VI", "VII III"),
        "half": ("i v", "iv v", "iv VII", "VI VII"),
        "home": ("v i", "VII i", "iv i"),
    },
}
DEGREES = ("i", "ii", "iii", "iv", "v", "vi", "vii")


@dataclass(frozen=True)
class Key:
    """A key by its name, such as G or Em."""

    name: str

    @property
    def mode(self) -> str:
        """Return major or minor."""
        return "minor" if self.name.endswith("m") else "major"

    @property
    def tonic(self) -> int:
        """Return the place of the tonic among LETTERS."""
        return LETTERS.index(self.name[0])

    def chord(self, numeral: str) -> str:
        """Return the name of a chord: in G, IV is C and vi is Em."""
        place = (self.tonic + DEGREES.index(numeral.lower())) % 7
        letter = notation.LETTERS[place]
        sign = {1: "#", 0: "", -1: "b"}[notation.key_signature(self.name)[letter]]
        return letter + sign + ("m" if numeral.islower() else "")

    def follower(self, chord: str, note: int) -> str:
        """Return the chord after a chord and the last note that was played to it."""
        numerals = FOLLOWERS[self.mode][self.numerals[chord]].split()
        names = [self.chord(numeral) for numeral in numerals]
        return next((name for name in names if note in chord_tones(name)), names[0])

    @functools.cached_property
    def numerals(self) -> dict[str, str]:
        """Return the numeral of each chord that a tune in this key may have, by its name."""
        return {self.chord(numeral): numeral for numeral in FOLLOWERS[self.mode]}


def chord_tones(chord: str) -> tuple[int, ...]:
    """Return the notes in range of a chord: every other letter from its root, three of them.

    All chords here are made of notes of the key, so the letters are enough.
    """
    root = LETTERS.index(chord[0])
    return tuple(n for n in range(LOWEST, HIGHEST + 1) if (n - root) % 7 in (0, 2, 4))
