"""Which signals a run listens to, and what a second one does."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from minigen.run.signals import MACHINE, PERSON, SIGNALS, StopSignal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows sends no signals")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Put back all handlers."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_only_a_person_hurries(number: int) -> None:
    """After the first signal another Ctrl-C or SIGTERM ends the process; a machine's does not."""
    with contextlib.ExitStack() as held:
        stop = StopSignal(held)
        stop.waits = True
        os.kill(os.getpid(), number)
        assert stop.number == number
        assert {signal.getsignal(each) for each in PERSON} == {signal.SIG_DFL}
        for each in MACHINE:
            os.kill(os.getpid(), each)
        assert stop.number == number


def test_before_the_first_step_a_signal_ends_the_run_at_once() -> None:
    """With 128 and its number, and afterwards the handlers are those of before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        with pytest.raises(SystemExit) as ended, contextlib.ExitStack() as held:
            StopSignal(held)
            os.kill(os.getpid(), number)
        assert ended.value.code == 128 + number
        assert {each: signal.getsignal(each) for each in SIGNALS} == before


def test_nohup_keeps_a_run_alive() -> None:
    """A process that began with SIGHUP ignored ignores it to its end."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.ExitStack() as held:
        stop = StopSignal(held)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
