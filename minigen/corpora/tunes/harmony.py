"""Harmony: the chords of a key, the order of chords, and the notes of a chord."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from minigen.corpora.tunes import abc_notation
from minigen.corpora.tunes.tables import HIGHEST, LETTERS, LOWEST

# For each chord, the chords that can follow it, as Roman numerals: capitals are major chords. The
# melody decides: the next chord is the first chord of the list that has the last note of the
# melody, or the first chord if none has it. So the last chord and the last note decide on the next
# chord, and a model that has learnt the lists can predict it.
NEXT_CHORDS = {
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
TONIC = {"major": "I", "minor": "i"}  # the chord of the tonic
OPENINGS = {  # the first chord of a phrase, by its letter
    "major": {"A": "I", "B": "IV"},
    "minor": {"A": "i", "B": "VI"},
}
DOMINANTS = {"major": ("V",), "minor": ("v", "VII")}
# The pairs of chords in the last bar of a phrase. A half cadence ends on the dominant, and a full
# cadence on the tonic. An open cadence leads to the next phrase.
CADENCES = {
    "major": {
        "open": ("I IV", "IV I", "V I", "V vi", "ii vi"),
        "half": ("I V", "ii V", "IV V", "vi V"),
        "full": ("V I", "V I", "IV I"),
    },
    "minor": {
        "open": ("i iv", "iv i", "VII i", "v VI", "VII III"),
        "half": ("i v", "iv v", "iv VII", "VI VII"),
        "full": ("v i", "VII i", "iv i"),
    },
}
DEGREES = ("i", "ii", "iii", "iv", "v", "vi", "vii")


@dataclass(frozen=True)
class Key:
    """A key, with a name such as G or Em."""

    name: str

    @property
    def mode(self) -> str:
        """The mode of the key, major or minor."""
        return "minor" if self.name.endswith("m") else "major"

    @property
    def tonic(self) -> int:
        """The index of the tonic in LETTERS."""
        return LETTERS.index(self.name[0])

    def chord(self, numeral: str) -> str:
        """Return the name of the chord with a Roman numeral: in G, IV is C and vi is Em."""
        letter = abc_notation.LETTERS[(self.tonic + DEGREES.index(numeral.lower())) % 7]
        accidental = {1: "#", 0: "", -1: "b"}[abc_notation.key_signature(self.name)[letter]]
        return letter + accidental + ("m" if numeral.islower() else "")

    def next_chord(self, chord: str, note: int) -> str:
        """Return the chord that follows `chord` if the last note of the melody is `note`."""
        numerals = NEXT_CHORDS[self.mode][self.numerals[chord]].split()
        names = [self.chord(numeral) for numeral in numerals]
        return next((name for name in names if note in chord_tones(name)), names[0])

    @functools.cached_property
    def numerals(self) -> dict[str, str]:
        """The Roman numeral of each chord that a tune in this key can have, by the chord's name."""
        return {self.chord(numeral): numeral for numeral in NEXT_CHORDS[self.mode]}


def chord_tones(chord: str) -> tuple[int, ...]:
    """Return all notes of a triad within the range, as steps of the scale: root, third and fifth.

    The chords of the grammar have only notes of the key, so sharps and flats need no attention
    (test_chord_tones_sound_as_the_chord_does).
    """
    root = LETTERS.index(chord[0])
    return tuple(n for n in range(LOWEST, HIGHEST + 1) if (n - root) % 7 in (0, 2, 4))
