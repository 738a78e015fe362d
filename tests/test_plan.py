"""A run with --minutes takes about that time, even if the machine becomes slower or faster."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from minigen.run import clock as clock_module
from minigen.run.clock import Clock
from minigen.run.schedule import Schedule


class Time:
    """A clock that stands still until a test sets it."""

    now = 0.0

    def perf_counter(self) -> float:
        """Return the time in seconds."""
        return self.now


def simulate(
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    step_seconds: Callable[[float], float],
    evaluating: float,
    val_size_ratio: float,
    start: float = 5.0,
) -> tuple[float, list[float], int]:
    """Run the planning of the training loop with steps that only take time.

    Args:
        step_seconds: seconds of a step, as a function of the share of the time that is over.
        evaluating: seconds of an evaluation; its plot and its checkpoint take 0.5 more.
        val_size_ratio: length of the validation text, divided by --eval_tokens.
        start: seconds that imports and the reading of the text took.

    Returns the seconds of the whole run, the factor of the learning rate at each step, and the
    number of evaluations.
    """
    time = Time()
    monkeypatch.setattr(clock_module, "time", time)
    clock, schedule = Clock(0.0, seconds), Schedule(0, 0.7, 20)
    clock.evaluating, clock.pause = evaluating, evaluating + 0.5
    time.now = start
    factors, step, n_evaluations = list[float](), 0, 0
    while not schedule.max_steps or step < schedule.max_steps:
        factors.append(schedule.factor(step))
        step += 1
        duration = step_seconds(time.now / seconds)
        clock.record_step(duration)
        time.now += duration
        last_step = clock.last_step(step, schedule.max_steps, None, val_size_ratio)
        schedule = schedule.ending_at(last_step, step)
        interval = clock.interval(schedule.max_steps)
        if step == schedule.max_steps or (interval and step % interval == 0):
            n_evaluations += 1
            time.now += evaluating + 0.5
    time.now += evaluating * clock.affordable(val_size_ratio) + clock_module.CLOSING
    return time.now, factors, n_evaluations


@pytest.mark.parametrize("seconds", [30, 60, 120, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("step_seconds", [0.002, 0.05, 0.5])
@pytest.mark.parametrize("val_size_ratio", [1, 8, 1000])
def test_a_run_takes_its_minutes(
    seconds: float, step_seconds: float, val_size_ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps and a validation text of any length a run takes 0.9 to 1.02 of its time."""
    total, factors, n_evaluations = simulate(
        monkeypatch, seconds, lambda _: step_seconds, 0.3, val_size_ratio
    )
    assert 0.9 * seconds <= total <= 1.02 * seconds
    assert factors[-1] < 0.2 and max(factors) > 0.75 and 1 <= n_evaluations <= 7


@pytest.mark.parametrize(("at", "times"), [(0.1, 3), (0.4, 3), (0.7, 3), (0.4, 0.3), (0.7, 0.3)])
def test_a_run_takes_its_minutes_on_a_machine_that_changes(
    at: float, times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that become three times as long or as short move the end, and the rate never jumps."""
    total, factors, _ = simulate(
        monkeypatch, 120, lambda now: 0.05 * (times if now > at else 1), 0.3, 8
    )
    assert 0.88 * 120 <= total <= 1.03 * 120
    assert factors[-1] < 0.05
    assert all(b - a < 0.06 for a, b in itertools.pairwise(factors))  # warm-up rises by 1 / 20
    first_of_cooldown = next(i for i, factor in enumerate(factors) if i > 20 and factor < 1)
    assert all(b <= a for a, b in itertools.pairwise(factors[first_of_cooldown:]))


def test_slow_evaluations_become_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """If an evaluation takes a seventh of the time, there is only one, after the last step."""
    total, factors, n_evaluations = simulate(monkeypatch, 60, lambda _: 1.0, 8, 5)
    assert n_evaluations == 1 and len(factors) >= 25 and total <= 1.1 * 60


def test_a_clock_without_a_time_plans_nothing() -> None:
    """A run with --max_steps keeps that number, five evaluations, and all text for the last one."""
    clock = Clock(0.0)
    clock.pause = 99.0
    for _ in range(20):
        clock.record_step(9.0)
    assert clock.last_step(20, 100, None, 8) == 100 and clock.interval(100) == 20
    assert clock.affordable(8) == 8 and clock.seconds_left() == math.inf


def test_a_run_without_time_left_takes_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """If reading the text took longer than --minutes, the first step is the last one."""
    _, factors, n_evaluations = simulate(monkeypatch, 30, lambda _: 1.0, 0.3, 8, start=40)
    assert len(factors) == 1 and n_evaluations == 1
