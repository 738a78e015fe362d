"""Handle signals while PyTorch is imported, which takes seconds: so this module comes first.

During those seconds, Ctrl-C and SIGTERM end train.py, sample.py and `python -m minigen` without a
traceback; later the command installs its own handlers. `threads` measures how busy the machine is.
A program that imports a script as a library keeps its own handlers, whatever its own name is.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from minigen.system import shell, threads  # noqa: F401

STARTED = time.perf_counter()  # --minutes includes the time of the imports
SCRIPTS = [shell.script(name) for name in shell.SCRIPTS]


def _leave(number: int, frame: object) -> None:
    """Exit at once, in the middle of an import, with the exit code of a signal."""
    os._exit(128 + number)


def begin() -> None:
    """Let Ctrl-C and SIGTERM end this process at once and silently: nothing can be lost yet."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)


def end() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt`, and SIGTERM end the process: the imports are over."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve() in SCRIPTS:
    begin()
