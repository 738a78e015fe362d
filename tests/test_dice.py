"""Dice: options are drawn with their probabilities, and the probability of draws is exact."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest

from minigen.corpora.dice import Dice

WEATHER = {"rain": 1, "sun": 5, "snow": 2}


@pytest.mark.parametrize(
    ("draw", "chances"),
    [
        (lambda dice: dice.choose("abc"), dict.fromkeys("abc", Fraction(1, 3))),
        (
            lambda dice: dice.choose_weighted(WEATHER),
            {k: Fraction(n, 8) for k, n in WEATHER.items()},
        ),
        (lambda dice: dice.happens(0.375), {True: Fraction(3, 8), False: Fraction(5, 8)}),
    ],
)
def test_options_are_drawn_with_their_probability(
    draw: Callable[[Dice], object], chances: dict[object, Fraction]
) -> None:
    """Chi-squared over 4,000 draws is near its mean, and each draw has its exact probability."""
    rng, n, counted = random.Random(0), 4000, Counter[object]()
    for _ in range(n):
        dice = Dice(rng)
        drawn = draw(dice)
        counted[drawn] += 1
        assert dice.probability == chances[drawn]
    assert counted.keys() == chances.keys()
    chi2 = sum((counted[k] - n * p) ** 2 / (n * p) for k, p in chances.items())
    freedom = len(chances) - 1
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom)


def test_probabilities_of_draws_multiply() -> None:
    """The probability is the product over all draws; bits are right even if a float of it is 0."""
    dice = Dice(random.Random(0))
    product = Fraction(1)
    for _ in range(500):
        dice.choose(range(10))
        product *= Fraction(1, 10) * Fraction(WEATHER[dice.choose_weighted(WEATHER)], 8)
        product *= Fraction(1, 4) if dice.happens(0.25) else Fraction(3, 4)
    assert dice.probability == product and float(product) == 0.0
    assert dice.bits == pytest.approx(math.log2(product.denominator) - math.log2(product.numerator))


def test_options_without_a_weight_are_refused() -> None:
    """Options that all have weight 0 raise a `ValueError`, because the grammar has a mistake."""
    with pytest.raises(ValueError, match="no option has a weight"):
        Dice(random.Random(0)).choose_weighted({"rain": 0})
