"""The one exception for faults that a user can mend."""

from __future__ import annotations

import math

POSITIVE = 5e-324  # the least value of a range that begins above 0: the smallest positive float


class UserError(ValueError):
    """A fault that the user can mend. Its message is one line: what is wrong and how to mend it."""


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise `UserError` unless least <= value <= most.

    >>> check_range("--seed", -1, 0)
    Traceback (most recent call last):
    minigen.errors.UserError: --seed is -1; give 0 or more
    >>> check_range("--minutes", 0, POSITIVE)
    Traceback (most recent call last):
    minigen.errors.UserError: --minutes is 0; give more than 0
    """
    if least <= value <= most:  # NaN is in no range
        return
    if least == POSITIVE:
        limits = "more than 0" + (f", at most {most:,}" if most < math.inf else "")
    else:
        limits = f"from {least:,} to {most:,}" if most < math.inf else f"{least:,} or more"
    raise UserError(f"{name} is {value}; give {limits}")
