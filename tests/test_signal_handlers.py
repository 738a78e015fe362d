"""The signals that a run handles, and the effect of a second signal."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from minigen.run.signals import FROM_SYSTEM, FROM_USER, SIGNALS, StopSignal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows sends no signals")


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    """Put back all signal handlers after the test."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_during_the_steps_the_first_signal_is_only_recorded(number: int) -> None:
    """While `defer` is true, a signal is recorded and the process continues.

    Then a second Ctrl-C or SIGTERM would end the process; the system's signals are ignored.
    """
    with contextlib.ExitStack() as cleanup:
        stop = StopSignal(cleanup)
        stop.defer = True
        os.kill(os.getpid(), number)
        assert stop.number == number
        assert {signal.getsignal(each) for each in FROM_USER} == {signal.SIG_DFL}
        for each in FROM_SYSTEM:
            os.kill(os.getpid(), each)
        assert stop.number == number


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_first_step_a_signal_exits_at_once(number: int) -> None:
    """A signal exits with 128 + its number, and the former handlers are put back."""
    former = {each: signal.getsignal(each) for each in SIGNALS}
    with pytest.raises(SystemExit) as ended, contextlib.ExitStack() as cleanup:
        StopSignal(cleanup)
        os.kill(os.getpid(), number)
    assert ended.value.code == 128 + number
    assert {each: signal.getsignal(each) for each in SIGNALS} == former


def test_under_nohup_sighup_stays_ignored() -> None:
    """A process that was started with SIGHUP ignored keeps ignoring it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.ExitStack() as cleanup:
        stop = StopSignal(cleanup)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
