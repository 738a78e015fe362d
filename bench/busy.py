"""What a busy machine costs: train beside loops that each keep one processor busy.

    python -m bench.busy

`train.py` runs on the quiet machine, beside one loop, and beside two. A fair share of two
processors is one beside one loop, and two thirds of one beside two.
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
    """Of one training run."""

    seconds: float  # of the whole command
    steps: int
    bits_per_byte: float


@contextlib.contextmanager
def loops(n: int) -> Iterator[None]:
    """Keep n processors busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def train(minutes: float, n: int) -> Figures:
    """Run `train.py` on the tales beside n loops, with the number of threads left to it."""
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
    """The medians of each number of loops beside those of none."""
    quiet = statistics.median(figures.steps for figures in results["quiet"])
    lines = []
    for name, figures in results.items():
        steps = statistics.median(one.steps for one in figures)
        seconds = statistics.median(one.seconds for one in figures)
        bits = statistics.median(one.bits_per_byte for one in figures)
        lines.append(
            [name, f"{seconds:.1f}", f"{steps:.0f}", f"{steps / quiet:.0%}", f"{bits:.4f}"]
        )
    return lines


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training run")
    given = parser.parse_args()
    names = {0: "quiet", 1: "beside one loop", 2: "beside two"}
    contenders = {names[n]: functools.partial(train, given.minutes, n) for n in LOOPS}
    results = alternate(contenders, given.rounds)
    table(["", "seconds", "steps", "of quiet", "bits/byte"], rows(results))
    figures = {name: [one._asdict() for one in some] for name, some in results.items()}
    record("busy", figures, given)


if __name__ == "__main__":
    main()
