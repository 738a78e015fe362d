"""Random draws whose exact probability is known."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A source of random draws, which multiplies the probabilities of the options drawn.

    The product is the probability of the text that the draws wrote, if no other draws write the
    same text. The product is an exact fraction, so nothing is lost by rounding.

    >>> dice = Dice(random.Random(0))
    >>> dice.choose("abcdefgh"), dice.choose_weighted({"rain": 1, "sun": 3})
    ('g', 'sun')
    >>> dice.probability, round(dice.bits, 3)
    (Fraction(3, 32), 3.415)
    """

    __slots__ = ("favourable", "possible", "random")  # fast, as there are many draws

    def __init__(self, rng: random.Random) -> None:
        # Python promises only for the method random() that a seed gives the same numbers in future
        # versions. With no other method, the corpora stay the same to the byte
        # (test_the_same_seed_gives_the_same_bytes_on_every_python).
        self.random = rng.random
        # Numerators (other than 1) and denominators of the draws' probabilities. They are not
        # multiplied before the product is needed, because it is a long number.
        self.favourable, self.possible = list[int](), list[int]()

    @property
    def probability(self) -> Fraction:
        """The probability of all draws so far."""
        return Fraction(math.prod(self.favourable), math.prod(self.possible))

    @property
    def bits(self) -> float:
        """-log2 of the probability. The probability itself may be too small for a float."""
        return math.log2(math.prod(self.possible)) - math.log2(math.prod(self.favourable))

    def choose(self, options: Sequence[T]) -> T:
        """Return one of the options; all options are equally probable."""
        n = len(options)
        self.possible.append(n)
        return options[int(self.random() * n)]

    def choose_weighted(self, options: Mapping[T, int]) -> T:
        """Return one of the options, each with a probability in proportion to its weight.

        Raises `ValueError` if all weights are 0.
        """
        total = sum(options.values())
        point, end = self.random() * total, 0
        for option, weight in options.items():
            end += weight
            if point < end:
                self.favourable.append(weight)
                self.possible.append(total)
                return option
        raise ValueError("no option has a weight")

    def happens(self, p: float) -> bool:
        """Return whether an event of probability `p` happens."""
        happened = self.random() < p
        favourable, possible = p.as_integer_ratio()  # exact, as floats are binary fractions
        self.favourable.append(favourable if happened else possible - favourable)
        self.possible.append(possible)
        return happened
