"""Run a function of a test around each gradient, to make a fault in the middle of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from minigen.run.run import Run

Hook = Callable[[Run, Callable[[], Tensor]], Tensor]


def around_gradients(hook: Hook) -> Callable[..., Any]:
    """Return a `Run.within_memory` that calls `hook(run, compute)` instead of computing a gradient.

    `compute()` computes the gradient of the step `run.step` and returns the batch's loss.
    """
    original = Run.within_memory

    def within_memory(self: Run, compute: Callable[..., Tensor], *args: Any) -> Tensor:
        return hook(self, lambda: original(self, compute, *args))

    return within_memory
