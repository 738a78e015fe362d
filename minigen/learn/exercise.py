"""What an exercise is: a function of minigen that the learner writes, and the tests that it passes.

The learner gets a copy of the function's file in which the body is blank. The right answer is the
project's own function, and the project's own tests check the learner's, so that neither can differ
from the code that minigen runs.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

AnyFunction = Callable[..., Any]


@dataclass(frozen=True)
class Theorem:
    """A test of the project that holds only if the function is right."""

    test: str  # its place, such as "tests/test_model.py::test_scores_keep_their_size"
    holds: str  # the sentence that it proves
    otherwise: str  # where to look if it fails


@dataclass(frozen=True)
class Mistake:
    """A wrong function that many people write at first, and the words that explain it."""

    function: AnyFunction  # with the parameters of the right one
    words: str  # what is wrong, and how to see it


@dataclass(frozen=True)
class Exercise:
    """A function to write.

    `trial` calls any function in the place of the target on a fixed input, and returns its result.
    It tells whether the learner's function computes the same as the project's, or the same as one
    of the mistakes.
    """

    name: str  # a word of the command line: "attention"
    title: str  # "Attention as a formula"
    target: str  # "minigen.model:naive_weights", or "minigen.model:MLP.forward"
    task: str  # what to write, in a few sentences; the docstring says the rest
    hints: tuple[str, ...]  # each says more than the one before
    theorems: tuple[Theorem, ...]
    trial: Callable[[AnyFunction], Any]  # function -> tensors, numbers, or lists of them
    mistakes: tuple[Mistake, ...]

    @property
    def module(self) -> str:
        """The module of the target, such as "minigen.model"."""
        return self.target.partition(":")[0]

    @property
    def qualname(self) -> str:
        """The target's name inside its module, such as "MLP.forward"."""
        return self.target.partition(":")[2]

    @property
    def file(self) -> Path:
        """The file of the target."""
        return Path(str(importlib.import_module(self.module).__file__))

    def solution(self) -> AnyFunction:
        """Return the project's own function."""
        owner, name = find(self.target)
        function: AnyFunction = getattr(owner, name)
        return function


def find(target: str) -> tuple[Any, str]:
    """Return the module or class that holds a target, and the target's name in it.

    >>> find("minigen.model:MLP.forward")
    (<class 'minigen.model.MLP'>, 'forward')
    """
    module, _, names = target.partition(":")
    *outer, name = names.split(".")
    owner: Any = importlib.import_module(module)
    for each in outer:
        owner = getattr(owner, each)
    return owner, name


def same(a: Any, b: Any) -> bool:
    """Return whether two results of `Exercise.trial` agree, up to rounding."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return (
            isinstance(a, Tensor)
            and isinstance(b, Tensor)
            and a.shape == b.shape
            and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
        )
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5)
    return bool(a == b)
