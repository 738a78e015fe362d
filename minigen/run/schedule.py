"""The learning-rate schedule of a run, whose number of steps may change while it trains."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minigen.optim import lr_factor


@dataclass(frozen=True)
class Schedule:
    """Hold the learning-rate schedule of a run, which may end earlier or later than planned."""

    max_steps: int  # the step at which the run ends; 0 while it is not known yet
    cooldown: float  # the share of the steps since `origin`, at the end, over which the rate falls
    warmup_steps: int
    origin: int = 0  # the step that warm-up begins at; above 0 after a run that had ended resumed

    def factor(self, step: int) -> float:
        """Return the factor of the highest learning rate at `step`; see `lr_factor`."""
        n_steps = self.max_steps - self.origin if self.max_steps else 0
        return lr_factor(step - self.origin, n_steps, self.warmup_steps, self.cooldown)

    def ending_at(self, max_steps: int, step: int) -> Schedule:
        """Return the schedule of a run that has taken `step` steps and now ends at `max_steps`.

        If the learning rate has not begun to fall, the schedule is as if `max_steps` had been
        planned from the beginning. If it has, the rate falls from its present value to the new end,
        without a jump.
        """
        taken, n_steps = step - self.origin, max_steps - self.origin
        factor = replace(self, warmup_steps=0).factor(step)
        falls = factor < 1 or taken > (1 - self.cooldown) * n_steps
        if not self.cooldown or not falls or n_steps <= taken:
            return replace(self, max_steps=max_steps)
        return replace(self, max_steps=max_steps, cooldown=(n_steps - taken) / factor / n_steps)

    def again(self, step: int, cooldown: float) -> Schedule:
        """Return the schedule of a run that has ended at `step` and is to be trained further.

        At the end of a run the learning rate is too low to learn more. So it rises once more, and
        will fall towards a new end, which is not known yet.
        """
        return Schedule(0, cooldown, self.warmup_steps, step)
