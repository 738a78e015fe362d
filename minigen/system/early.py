"""Imported before all else by the scripts: the imports of PyTorch take seconds.

Until a script installs handlers of its own, Ctrl-C and SIGTERM end its process without a traceback.
`threads` begins to measure how busy the machine is. A program that imports a script as a library
keeps its own handlers.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from minigen.system import threads  # noqa: F401

STARTED = time.perf_counter()  # --minutes counts the whole command, slow imports too
SCRIPTS = ("train.py", "sample.py")


def _leave(number: int, frame: object) -> None:
    os._exit(128 + number)


if Path(getattr(sys.modules["__main__"], "__file__", None) or "").name in SCRIPTS:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
