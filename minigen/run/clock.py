"""Plan a run by the clock: how many steps --minutes leaves time for.

The learning rate falls towards the end of a run, so the number of steps must be known before that.
Until the rate begins to fall, the plan follows each new measurement, and the run is the same as one
with that number of steps given. Afterwards the plan changes only if the machine has become slower
or faster: then the rate falls from where it is to the new end.
"""

from __future__ import annotations

import math
import time
from collections import deque

EVALUATIONS = 5  # in a run, where --eval_interval does not say otherwise
EVALUATING = 0.15  # the largest share of the time that these may take; else there are fewer
FINAL = 0.08  # the share of the time that is kept for the validation text at the end
CLOSING = 1.0  # seconds to load the best checkpoint, and to leave
TARGET = 0.97  # the share of the time that is planned for
OFF = 0.025  # a plan that misses the target by more of the time than this is changed


class Clock:
    """Measures a run against the time that it has.

    Args:
        began: when the run began, as `time.perf_counter()` counts.
        seconds: the time for the whole run; None: it ends by its number of steps.
    """

    def __init__(self, began: float, seconds: float | None = None) -> None:
        self.began, self.seconds = began, seconds
        self.n_steps = 0  # that were timed
        self.training = 0.0  # seconds of all of them
        self.latest: deque[float] = deque(maxlen=200)  # seconds of each of the latest
        self.evaluating = 0.0  # seconds to evaluate a part of the validation text
        self.pause = 0.0  # the same with a sample, a plot and a checkpoint

    def stepped(self, seconds: float) -> None:
        """Note that a step took `seconds`."""
        self.n_steps += 1
        self.training += seconds
        self.latest.append(seconds)

    def left(self, share: float = TARGET) -> float:
        """Return the seconds that are left until this share of the time is over."""
        if self.seconds is None:
            return math.inf
        return share * self.seconds - (time.perf_counter() - self.began) - CLOSING

    def interval(self, max_steps: int) -> int:
        """Return the steps between evaluations: five in a run, or fewer if they take too long."""
        fitting = math.inf if self.seconds is None else EVALUATING * self.seconds
        n = max(1, min(EVALUATIONS, fitting // max(self.pause, 1e-9)))
        return math.ceil(max_steps / n)

    def last_step(self, step: int, max_steps: int, interval: int, n_parts: float) -> int:
        """Return the step at which a run that has taken `step` steps has to end.

        Args:
            max_steps: the plan so far, which stays if it is about right; 0: there is none yet.
            interval: steps between evaluations, if they are given; else 0.
            n_parts: how many times as long as one evaluation the whole validation text takes.

        Returns `max_steps` while too few steps were timed to tell, and for a run without a time.
        """
        if self.seconds is None or (max_steps and step >= max_steps):
            return max_steps
        left = self.left() - min(FINAL * self.seconds, n_parts * self.evaluating)
        if left > 0 and (self.n_steps < 3 or self.training < 0.01 * self.seconds):
            return max_steps
        # The first three steps are slower, and the latest tell most about the next.
        n = max(1, min(self.n_steps - 3, max(10, self.n_steps // 4)))
        latest = list(self.latest)[-n:]
        each = sum(latest) / len(latest)
        if interval:
            each += self.pause / interval
        else:
            to_plan = max_steps or int(left / each)
            every = self.interval(max(1, to_plan))
            left -= self.pause * (math.ceil(to_plan / every) - step // every)
        if max_steps and abs(left - (max_steps - step) * each) < OFF * self.seconds:
            return max_steps
        return step + max(0, int(left / each))

    def affordable(self, n_parts: float) -> float:
        """Return how many of `n_parts` evaluations there is time for at the end: one at least."""
        return max(1.0, min(n_parts, self.left(1.0) / max(self.evaluating, 1e-9)))
