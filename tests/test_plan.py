"""--minutes is kept, whatever a step takes and however that changes while the run goes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from minigen.run import clock as clock_module
from minigen.run.clock import Clock
from minigen.run.schedule import Schedule


class Time:
    """A clock that stands still until it is moved."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def simulated(
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    step_seconds: Callable[[float], float],
    evaluating: float,
    n_parts: float,
    begun: float = 5.0,
) -> tuple[float, list[float], int]:
    """Run the training loop's planning with steps that only take time.

    Args:
        step_seconds: seconds of a step that begins at this share of the time.
        evaluating: seconds of an evaluation; a plot and a checkpoint take 0.5 more.
        n_parts: so many times as long as one evaluation the whole validation text takes.
        begun: seconds that imports and the reading of the text took.

    Returns the seconds of the whole run, the share of the learning rate at each step, and how many
    evaluations there were.
    """
    time = Time()
    monkeypatch.setattr(clock_module, "time", time)
    clock, schedule = Clock(0.0, seconds), Schedule(0, 0.7, 20)
    clock.evaluating, clock.pause = evaluating, evaluating + 0.5
    time.now = begun
    shares, step, evaluations = list[float](), 0, 0
    while not schedule.max_steps or step < schedule.max_steps:
        shares.append(schedule.factor(step))
        step += 1
        taken = step_seconds(time.now / seconds)
        clock.stepped(taken)
        time.now += taken
        last_step = clock.last_step(step, schedule.max_steps, 0, n_parts)
        schedule = schedule.ending_at(last_step, step)
        interval = clock.interval(schedule.max_steps)
        if step == schedule.max_steps or (interval and step % interval == 0):
            evaluations += 1
            time.now += evaluating + 0.5
    time.now += evaluating * clock.affordable(n_parts) + clock_module.CLOSING
    return time.now, shares, evaluations


@pytest.mark.parametrize("seconds", [30, 60, 120, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("each", [0.002, 0.05, 0.5])
@pytest.mark.parametrize("n_parts", [1, 8, 1000])
def test_the_time_is_kept(
    seconds: float, each: float, n_parts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of any length and a validation text of any length take 0.9 to 1.02 of the time."""
    taken, shares, evaluations = simulated(monkeypatch, seconds, lambda _: each, 0.3, n_parts)
    assert 0.9 * seconds <= taken <= 1.02 * seconds
    assert shares[-1] < 0.2 and max(shares) > 0.75 and 1 <= evaluations <= 7


@pytest.mark.parametrize(("at", "times"), [(0.1, 3), (0.4, 3), (0.7, 3), (0.4, 0.3), (0.7, 0.3)])
def test_the_time_is_kept_where_the_machine_changes(
    at: float, times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps become three times as long or as short, early or late, and the rate never jumps."""
    taken, shares, _ = simulated(
        monkeypatch, 120, lambda now: 0.05 * (times if now > at else 1), 0.3, 8
    )
    assert 0.88 * 120 <= taken <= 1.03 * 120
    assert shares[-1] < 0.05
    assert all(b - a < 0.06 for a, b in itertools.pairwise(shares))  # warm-up's steps
    fallen = next(i for i, share in enumerate(shares) if i > 20 and share < 1)
    assert all(b <= a for a, b in itertools.pairwise(shares[fallen:]))


def test_little_time_means_fewer_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where evaluations are slow, there is one, at the end, and the steps keep most of the time."""
    taken, shares, evaluations = simulated(monkeypatch, 60, lambda _: 1.0, 8, 5)
    assert evaluations == 1 and len(shares) >= 25 and taken <= 1.1 * 60


def test_without_a_time_nothing_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of steps stays, with five evaluations, and all of the text is read at the end."""
    clock = Clock(0.0)
    clock.pause = 99.0
    for _ in range(20):
        clock.stepped(9.0)
    assert clock.last_step(20, 100, 0, 8) == 100 and clock.interval(100) == 20
    assert clock.affordable(8) == 8 and clock.left() == math.inf


def test_time_that_is_over_ends_the_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reading of the text has taken all of it, one step is taken, and it is the last."""
    _, shares, evaluations = simulated(monkeypatch, 30, lambda _: 1.0, 0.3, 8, begun=40)
    assert len(shares) == 1 and evaluations == 1
