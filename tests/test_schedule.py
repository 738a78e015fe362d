"""The learning-rate schedule of a run that ends earlier or later than planned."""

from __future__ import annotations

import itertools

import pytest

from minigen.run.schedule import Schedule


def test_the_last_step_still_trains() -> None:
    """Cooldown falls by equal amounts, and the factor of the last step is one such amount."""
    schedule = Schedule(100, 0.5, 10)
    factors = [schedule.factor(step) for step in range(50, 100)]
    assert factors == pytest.approx([(50 - n) / 50 for n in range(50)])
    assert factors[-1] == pytest.approx(1 / 50)


def test_a_new_end_before_cooldown_is_as_if_planned_from_the_start() -> None:
    """Changes of the plan before cooldown leave no trace in the schedule."""
    schedule = Schedule(0, 0.6, 10)
    for step, end in ((5, 300), (20, 80), (32, 100)):
        schedule = schedule.ending_at(end, step)
    assert schedule == Schedule(100, 0.6, 10)


@pytest.mark.parametrize("end", [75, 90, 130, 400])
def test_a_new_end_during_cooldown_makes_no_jump(end: int) -> None:
    """From its value at step 70 of 100 the factor falls by equal amounts to the new end."""
    old = Schedule(100, 0.6, 10)
    new = old.ending_at(end, step=70)
    assert new.factor(70) == pytest.approx(old.factor(70))
    factors = [new.factor(step) for step in range(70, end)]
    decreases = [a - b for a, b in itertools.pairwise(factors)]
    assert decreases == pytest.approx([factors[-1]] * len(decreases)) and factors[-1] > 0


def test_a_warm_restart_is_the_schedule_of_a_new_run() -> None:
    """A finished run that is trained further warms up and cools down as a run of its own would."""
    restarted = Schedule(100, 0.6, 10).warm_restart(100, 0.5).ending_at(160, 100)
    new = Schedule(60, 0.5, 10)
    assert [restarted.factor(100 + s) for s in range(60)] == [new.factor(s) for s in range(60)]


def test_a_schedule_without_cooldown_only_moves_its_end() -> None:
    """Without cooldown the factor never falls, so a new end changes nothing else."""
    assert Schedule(50, 0, 10).ending_at(90, 50) == Schedule(90, 0, 10)
