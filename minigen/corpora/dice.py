"""Random draws whose probability is kept, as an exact fraction."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draw from options, and multiply up the probabilities of all that was drawn.

    >>> dice = Dice(random.Random(0))
    >>> dice.choose("abcdefgh"), dice.weigh({"rain": 1, "sun": 3})
    ('g', 'sun')
    >>> dice.probability, round(dice.bits, 3)
    (Fraction(3, 32), 3.415)
    """

    def __init__(self, rng: random.Random) -> None:
        # random() is the one method whose numbers Python promises to keep for ever.
        self.random = rng.random
        self.favourable = self.possible = 1

    @property
    def probability(self) -> Fraction:
        """The probability of all draws so far."""
        return Fraction(self.favourable, self.possible)

    @property
    def bits(self) -> float:
        """-log2 of the probability; of the whole numbers, as they may be too large for a float."""
        return math.log2(self.possible) - math.log2(self.favourable)

    def choose(self, options: Sequence[T]) -> T:
        """Return one of the options, each as probable as the others."""
        n = len(options)
        self.possible *= n
        return options[int(self.random() * n)]

    def weigh(self, options: Mapping[T, int]) -> T:
        """Return one of the options, as often as its weight says."""
        total = sum(options.values())
        at, end = self.random() * total, 0
        for option, weight in options.items():
            end += weight
            if at < end:
                self.favourable *= weight
                self.possible *= total
                return option
        raise ValueError("no option has a weight")

    def happens(self, chance: Fraction) -> bool:
        """Return whether an event of this chance happens."""
        favourable, possible = chance.numerator, chance.denominator
        happened = self.random() * possible < favourable
        self.favourable *= favourable if happened else possible - favourable
        self.possible *= possible
        return happened
