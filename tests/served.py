"""A server of models in a process of its own, as `python -m minigen serve` starts it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from served_models import environment


@dataclass(frozen=True)
class Served:
    """A server that runs.

    address: the beginning of each of its addresses, `http://127.0.0.1:PORT`.
    process: the process; `log`: the file with its errors.
    """

    address: str
    process: subprocess.Popen[str]
    log: Path


@contextlib.contextmanager
def serve(runs: Path, *words: str) -> Iterator[Served]:
    """Serve models of the folder `runs` until the block ends, on a free port.

    Args:
        runs: the folder of the runs, as `make_runs` returns it.
        words: names of runs, and flags.

    Raises `AssertionError` if the server does not start or writes a traceback.
    """
    command = [sys.executable, "-m", "minigen", "serve", *words]
    log = runs.parent / f"serve-{time.monotonic_ns()}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, "--out_dir", str(runs), "--port", "0"],
            cwd=runs.parent, env=environment(runs.parent), encoding="utf-8",
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line.startswith("http://"), f"{line}{log.read_text()}"
        yield Served(line.strip(), process, log)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
    assert "Traceback" not in log.read_text()
