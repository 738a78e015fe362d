"""The learning-rate schedule of a run, whose number of steps may change while it trains."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minigen.optim import lr_factor


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule: warm-up, constant, cooldown; its end may move during training.

    The end moves because --minutes plan the number of steps by the clock, and because a finished
    run can be trained further. Methods that move it return a new schedule.
    """

    max_steps: int  # the step at which the run ends; 0 while it is not known yet
    cooldown: float  # the fraction of the steps since `origin`, the last ones, in which it falls
    warmup_steps: int
    origin: int = 0  # the step at which warm-up starts: above 0 for a run trained further

    def factor(self, step: int) -> float:
        """Return the factor, above 0 and up to 1, by which --learning_rate is multiplied at `step`.

        The factor is `optim.lr_factor`, with steps counted from `origin`: it rises during warm-up
        and falls by equal amounts during cooldown. The last step still trains: its factor is one
        such amount, and 0 would be reached at step `max_steps`, which is not taken.
        """
        n_steps = self.max_steps - self.origin if self.max_steps else 0
        return lr_factor(step - self.origin, n_steps, self.warmup_steps, self.cooldown)

    def ending_at(self, max_steps: int, step: int) -> Schedule:
        """Return the schedule of a run that has taken `step` steps and now ends at `max_steps`.

        Before cooldown, the schedule is the one that `max_steps` would have given from the start.
        During cooldown, the rate falls from its present value to the new end, without a jump: a
        jump upwards would undo what the small steps have settled.
        """
        n_taken, n_steps = step - self.origin, max_steps - self.origin
        factor = replace(self, warmup_steps=0).factor(step)
        is_cooldown = factor < 1 or n_taken > (1 - self.cooldown) * n_steps
        if not self.cooldown or not is_cooldown or n_steps <= n_taken:
            return replace(self, max_steps=max_steps)
        return replace(self, max_steps=max_steps, cooldown=(n_steps - n_taken) / factor / n_steps)

    def warm_restart(self, step: int, cooldown: float) -> Schedule:
        """Return the schedule of a run that had ended at `step` and is trained further.

        At the end of a run the learning rate is too low to learn more. So warm-up starts again at
        `step`: a warm restart (Loshchilov and Hutter 2016, arXiv:1608.03983). The new end is not
        known yet.
        """
        return Schedule(0, cooldown, self.warmup_steps, step)
