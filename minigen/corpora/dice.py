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

    __slots__ = ("favourable", "possible", "random")  # fast, as there are many draws

    def __init__(self, rng: random.Random) -> None:
        # random() is the one method whose numbers Python promises to keep for ever.
        self.random = rng.random
        # Numerators and denominators of the draws' probabilities, but for numerators of 1. They are
        # multiplied in the end, as a long product takes its time.
        self.favourable, self.possible = list[int](), list[int]()

    @property
    def probability(self) -> Fraction:
        """The probability of all draws so far."""
        return Fraction(math.prod(self.favourable), math.prod(self.possible))

    @property
    def bits(self) -> float:
        """-log2 of the probability, which may be too small for a float."""
        return math.log2(math.prod(self.possible)) - math.log2(math.prod(self.favourable))

    def choose(self, options: Sequence[T]) -> T:
        """Return one of the options, each as probable as the others."""
        n = len(options)
        self.possible.append(n)
        return options[int(self.random() * n)]

    def weigh(self, options: Mapping[T, int]) -> T:
        """Return one of the options, as often as its weight says."""
        total = sum(options.values())
        at, end = self.random() * total, 0
        for option, weight in options.items():
            end += weight
            if at < end:
                self.favourable.append(weight)
                self.possible.append(total)
                return option
        raise ValueError("no option has a weight")

    def happens(self, chance: float) -> bool:
        """Return whether an event of this chance happens."""
        happened = self.random() < chance
        favourable, possible = chance.as_integer_ratio()  # exact, as floats are binary fractions
        self.favourable.append(favourable if happened else possible - favourable)
        self.possible.append(possible)
        return happened
