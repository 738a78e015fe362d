"""The signals that stop a run: the step in progress is finished, and the run is saved."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType

from minigen.run import distributed

FROM_USER = (signal.SIGINT, signal.SIGTERM)  # a second one of these ends the process at once
# From the system: a closed terminal or console, or a cluster's notice that a job's time is nearly
# over. Some systems send a notice twice, or every second.
FROM_SYSTEM = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGBREAK", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)  # Windows has only SIGBREAK
)
SIGNALS = (*FROM_USER, *FROM_SYSTEM)


class StopSignal:
    """The handler of the signals that stop a run.

    While `defer` is true, a signal is only recorded, so that no step and no save is interrupted;
    the training loop reads `number` after each step. While `defer` is false (before and after the
    steps), a signal exits at once, because nothing can be lost. A second Ctrl-C or SIGTERM always
    ends the process at once (test_a_second_signal_ends_the_process_at_once). With several ranks a
    signal is only recorded, because all ranks have to stop after the same step.

    Python handles signals in the main thread only. A run in another thread installs no handlers.

    Args:
        cleanup: puts the former handlers back when it closes.
    """

    signals: tuple[signal.Signals, ...] = SIGNALS

    def __init__(self, cleanup: contextlib.ExitStack) -> None:
        self.number = 0  # of the signal that arrived; 0: none
        self.defer = False
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self.signals:
            former = signal.getsignal(number)
            # `nohup` starts a process with SIGHUP ignored, and it must stay ignored.
            is_ignored = number in FROM_SYSTEM and former == signal.SIG_IGN
            if former is not None and not is_ignored:
                cleanup.callback(signal.signal, number, signal.signal(number, self.handle))

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Record the signal; exit with 128 + its number unless `defer` or several ranks forbid."""
        self.number = number
        if distributed.size() > 1:
            return  # torchrun may send the signal a second time, so no handler changes here
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL if each in FROM_USER else signal.SIG_IGN)
        if not self.defer:
            sys.exit(128 + number)


class Interrupt(StopSignal):
    """The handler of Ctrl-C in a program that calls `minigen.train`, such as a notebook's kernel.

    The first one is recorded while `defer` is true, as in a command. Otherwise, and the second
    time, it raises `KeyboardInterrupt`, which does not end the program. All other signals are the
    program's own.
    """

    signals = (signal.SIGINT,)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Record the signal; raise `KeyboardInterrupt` unless the first one comes in a step."""
        is_first, self.number = not self.number, number
        if not (self.defer and is_first):
            raise KeyboardInterrupt
