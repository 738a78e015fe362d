"""The one exception for faults that a user can mend."""

from __future__ import annotations

import math


class UserError(ValueError):
    """Something the user can mend. The message is one line: what is wrong, and what to do."""


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise `UserError` unless least <= value <= most.

    >>> check_range("--seed", -1, 0)
    Traceback (most recent call last):
    minigen.errors.UserError: --seed is -1; give 0 or more
    """
    if not least <= value <= most:  # nor is NaN in a range
        limits = f"from {least:g} to {most:g}" if most < math.inf else f"{least:g} or more"
        raise UserError(f"{name} is {value}; give {limits}")
