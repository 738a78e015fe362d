"""Plan a run by the clock: the number of steps for which --minutes leave time.

The learning rate falls towards the end of a run, so the number of steps must be known before the
fall begins. Until then each step is timed, and each time the plan is made anew; the run takes the
same steps as a run with --max_steps of the last plan. Once the rate falls, the plan changes only if
the machine has become clearly slower or faster: then the rate falls from its present value to the
new end (test_a_run_takes_its_minutes_on_a_machine_that_changes).
"""

from __future__ import annotations

import math
import time
from collections import deque

EVALUATIONS = 5  # in a run without --eval_interval
EVALUATION_SHARE = 0.15  # of the time; if five evaluations would take longer, there are fewer
FINAL_SHARE = 0.08  # of the time, kept for the loss on all of the validation text at the end
CLOSING = 1.0  # seconds to load the best checkpoint, and to exit, at least
TARGET = 0.97  # share of the time that the plan uses, as a step may take longer than expected
TOLERANCE = 0.025  # share of the time by which the plan may miss the target before it is changed


class Clock:
    """Measure a run and plan its end, so that the whole command takes the time that it has.

    Args:
        began: when the run began, by `time.perf_counter`.
        seconds: the time for the whole run; None: it ends after a number of steps.
    """

    def __init__(self, began: float, seconds: float | None = None) -> None:
        self.began, self.seconds = began, seconds
        self.n_steps = 0  # the number of steps that were timed
        self.training = 0.0  # seconds of all these steps
        self.latest: deque[float] = deque(maxlen=200)  # the seconds of each of the latest steps
        self.evaluating = 0.0  # seconds of an evaluation, on --eval_tokens of validation text
        self.pause = 0.0  # seconds of an evaluation with its sample, plot and checkpoint
        self.closing = CLOSING  # seconds after the final evaluation

    def record_step(self, seconds: float) -> None:
        """Record the duration of a step."""
        self.n_steps += 1
        self.training += seconds
        self.latest.append(seconds)

    def seconds_left(self, share: float = TARGET) -> float:
        """Return the seconds until this share of the time is over; infinity without a time."""
        if self.seconds is None:
            return math.inf
        return share * self.seconds - (time.perf_counter() - self.began) - self.closing

    def interval(self, max_steps: int) -> int:
        """Return the steps between evaluations: for five in a run, or fewer if they take long."""
        seconds = math.inf if self.seconds is None else EVALUATION_SHARE * self.seconds
        n = max(1, min(EVALUATIONS, seconds // max(self.pause, 1e-9)))
        return math.ceil(max_steps / n)

    def last_step(
        self, step: int, max_steps: int, interval: int | None, val_size_ratio: float
    ) -> int:
        """Return the step at which a run that has taken `step` steps has to end.

        Args:
            max_steps: the plan so far; 0: there is none yet.
            interval: steps between evaluations, if --eval_interval is given.
            val_size_ratio: length of the validation text, divided by --eval_tokens.

        Returns `max_steps` if the plan is about right, if too few steps were timed to improve it,
        and for a run that ends after a number of steps.
        """
        if self.seconds is None or (max_steps and step >= max_steps):
            return max_steps
        left = self.seconds_left() - min(
            FINAL_SHARE * self.seconds, val_size_ratio * self.evaluating
        )
        if left > 0 and (self.n_steps < 3 or self.training < 0.01 * self.seconds):
            return max_steps
        # The first three steps are slower than the others, and the latest predict the next best.
        n = max(1, min(self.n_steps - 3, max(10, self.n_steps // 4)))
        latest = list(self.latest)[-n:]
        step_seconds = sum(latest) / len(latest)
        if interval:
            step_seconds += self.pause / interval
        else:
            to_plan = max_steps or int(left / step_seconds)
            every = self.interval(max(1, to_plan))
            left -= self.pause * (math.ceil(to_plan / every) - step // every)
        if max_steps and abs(left - (max_steps - step) * step_seconds) < TOLERANCE * self.seconds:
            return max_steps
        return step + max(0, int(left / step_seconds))

    def affordable(self, val_size_ratio: float) -> float:
        """Return the length of the final evaluation, as a multiple of --eval_tokens.

        It is as long as the time that is left allows, but at least 1, and at most `val_size_ratio`,
        which is all of the validation text.
        """
        return max(1.0, min(val_size_ratio, self.seconds_left(1.0) / max(self.evaluating, 1e-9)))
