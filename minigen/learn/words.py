"""Words for a learner: where two results differ, in lines that a terminal has room for."""

from __future__ import annotations

import textwrap
from typing import Any

from torch import Tensor

from minigen.learn.exercise import same

WIDTH = 100  # columns of a line
LONGEST = 60  # characters of a value in a message


def say(text: str, indent: int = 0) -> None:
    """Print a text in lines of at most WIDTH columns, of which later ones are indented."""
    for line in text.splitlines():
        print(textwrap.fill(line, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False))


def difference(mine: Any, right: Any) -> str:
    """Return the first difference of two results that `same` tells apart.

    >>> difference([1, 2.5], [1, 2.0])
    'in entry 1 it gives 2.5 and minigen 2.0'
    """
    if isinstance(mine, list | tuple) and isinstance(right, list | tuple):
        if len(mine) != len(right):
            return f"it gives {len(mine)} entries and minigen {len(right)}"
        n = next(n for n, pair in enumerate(zip(mine, right, strict=True)) if not same(*pair))
        return f"in entry {n} {difference(mine[n], right[n])}"
    if isinstance(mine, Tensor) and isinstance(right, Tensor) and mine.shape == right.shape:
        pairs = zip(mine.flatten(), right.flatten(), strict=True)
        n = next(n for n, pair in enumerate(pairs) if not same(*pair))
        place = list[int]()
        for size in reversed(mine.shape):
            place.insert(0, n % size)
            n //= size
        at = tuple(place)
        where = f"at {place} " if place else ""
        return f"{where}it gives {mine[at].item():.4g} and minigen {right[at].item():.4g}"
    return f"it gives {described(mine)} and minigen {described(right)}"


def described(value: Any) -> str:
    """Return a value in words: a tensor by its shape, anything else as Python shows it."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None:
        return "None (is there a `return`?)"
    shown = repr(value)
    return shown if len(shown) <= LONGEST else f"{type(value).__name__} {shown[:LONGEST]}..."
