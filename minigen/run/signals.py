"""The signals that end a run: each leaves a note, so that the step is finished and saved."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType

from minigen.run import distributed

PERSON = (signal.SIGINT, signal.SIGTERM)  # a second one of these ends the process at once
# A lost terminal or a console that closes; a cluster's notice that the time of a job is over. Some
# come twice, or each second.
MACHINE = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGBREAK", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)  # Windows has only SIGBREAK
)
SIGNALS = (*PERSON, *MACHINE)


class StopSignal:
    """Before and after the steps a signal ends the run at once, as nothing is lost.

    During them it leaves a note, so that no step and no save is cut in two. A second Ctrl-C or
    SIGTERM ends the process wherever it is. Of several processes, each only leaves a note. Only a
    process's main thread can be told of signals; a run in another thread leaves them alone.
    """

    def __init__(self, held: contextlib.ExitStack) -> None:
        self.number = 0
        self.waits = False
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            before = signal.getsignal(number)
            ignored = number in MACHINE and before == signal.SIG_IGN  # `nohup` keeps a run alive
            if before is not None and not ignored:
                held.callback(signal.signal, number, signal.signal(number, self.note))

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal; if nothing would be lost, end the process."""
        self.number = number
        if distributed.size() > 1:
            return  # it may come twice, by itself and from torchrun, and all have to leave together
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL if each in PERSON else signal.SIG_IGN)
        if not self.waits:
            sys.exit(128 + number)
