"""The learning-rate schedule of a run that ends earlier or later than planned."""

from __future__ import annotations

import itertools

import pytest

from minigen.run.schedule import Schedule


def test_a_new_end_before_the_rate_falls_is_as_if_planned_from_the_beginning() -> None:
    """However often the plan changes until then."""
    schedule = Schedule(0, 0.6, 10)
    for step, end in ((5, 300), (20, 80), (32, 100)):
        schedule = schedule.ending_at(end, step)
    assert schedule == Schedule(100, 0.6, 10)


@pytest.mark.parametrize("end", [75, 90, 130, 400])
def test_a_new_end_while_the_rate_falls_makes_no_jump(end: int) -> None:
    """From the factor that it has at step 70 of 100 the rate falls to the same last stride."""
    old = Schedule(100, 0.6, 10)
    new = old.ending_at(end, step=70)
    assert new.factor(70) == pytest.approx(old.factor(70))
    factors = [new.factor(step) for step in range(70, end)]
    falls = [a - b for a, b in itertools.pairwise(factors)]
    assert falls == pytest.approx([factors[-1]] * len(falls)) and factors[-1] > 0


def test_a_run_that_had_ended_rises_and_falls_once_more() -> None:
    """As a run of its own would, counted from the old end; without a cooldown nothing fell."""
    again = Schedule(100, 0.6, 10).again(100, 0.5).ending_at(160, 100)
    fresh = Schedule(60, 0.5, 10)
    assert [again.factor(100 + s) for s in range(60)] == [fresh.factor(s) for s in range(60)]
    assert Schedule(50, 0, 10).ending_at(90, 50) == Schedule(90, 0, 10)
