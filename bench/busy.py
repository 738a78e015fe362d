"""Measure what a busy machine costs: train while loops each keep one processor busy.

    python -m bench.busy

`train.py` runs on the quiet machine, beside one loop, and beside two loops. On two processors its
fair share is one processor beside one loop, and two thirds of a processor beside two loops.
"""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from bench.common import ROOT, alternate, options, record, table
from minigen.files import checkpoint
from minigen.run.log import read_metrics

LOOPS = (0, 1, 2)


class Figures(NamedTuple):
    """The figures of one training run."""

    seconds: float  # of the whole command
    steps: int
    bits_per_byte: float


@contextlib.contextmanager
def loops(n: int) -> Iterator[None]:
    """Keep n processors busy while the block runs."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def train(minutes: float, n: int) -> Figures:
    """Run `train.py` on the tales beside n loops; it chooses its number of threads itself."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    with tempfile.TemporaryDirectory() as folder, loops(n):
        command = [sys.executable, "train.py", "--minutes", str(minutes), "--out_dir", folder]
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, check=True)
        seconds = time.perf_counter() - began
        run = checkpoint.find_run(folder)
        final = next(x for x in read_metrics(run)[::-1] if "final_val_bits_per_byte" in x)
        steps = checkpoint.load_newest(run).step
        return Figures(seconds, steps, final["final_val_bits_per_byte"])


def rows(results: dict[str, list[Figures]]) -> list[list[str]]:
    """Return a row of medians for each number of loops, compared with the quiet machine."""
    quiet = statistics.median(run.steps for run in results["quiet"])
    lines = []
    for name, runs in results.items():
        steps = statistics.median(run.steps for run in runs)
        seconds = statistics.median(run.seconds for run in runs)
        bits = statistics.median(run.bits_per_byte for run in runs)
        lines.append(
            [name, f"{seconds:.1f}", f"{steps:.0f}", f"{steps / quiet:.0%}", f"{bits:.4f}"]
        )
    return lines


def main() -> None:
    """Run the benchmark, and print its table."""
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training run")
    given = parser.parse_args()
    names = {0: "quiet", 1: "beside one loop", 2: "beside two loops"}
    contenders = {names[n]: functools.partial(train, given.minutes, n) for n in LOOPS}
    results = alternate(contenders, given.rounds)
    table(["", "seconds", "steps", "of quiet", "bits/byte"], rows(results))
    figures = {name: [run._asdict() for run in runs] for name, runs in results.items()}
    record("busy", figures, given)


if __name__ == "__main__":
    main()
