"""Run a function of a test around each gradient: a fault or a stop in the middle of a step."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
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


@contextlib.contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """Stop the run as Ctrl-C does, by a signal in the middle of this step."""

    def interrupted(run: Run, compute: Callable[[], Tensor]) -> Tensor:
        if run.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return compute()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "within_memory", around_gradients(interrupted))
        yield
