"""Measure how time and memory grow: `python -m bench.scale`.

Decoding is measured by context, training by batch, context and width. The figures are written to
scale.json and scale.png in the cache folder.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch

from bench.common import (
    alternate,
    check_quiet,
    median_seconds,
    options,
    record,
    run,
    start_workers,
    table,
)
from bench.generate import LONG, PROMPT, make_weights, report_sweep
from bench.train import train_step
from minigen import GPT, GPTConfig
from minigen.optim import Optimizer
from minigen.system.device import choose_dtype
from minigen.system.plot import drawing, new_figure

BASE = {"batch": 8, "context": 256, "width": 256}  # a sweep changes one of these
SWEEPS = {
    "batch": (1, 2, 4, 8, 16, 32),
    "context": (64, 128, 256, 512, 1024),
    "width": (64, 128, 256, 512, 1024),
}
N_LAYER, N_VOCAB = 4, 2048


def start_up(given: argparse.Namespace) -> Any:
    """Return the seconds from launch to end of commands that compute next to nothing."""
    tiny = ["--max_steps", "1", "--eval_tokens", "256", "--name", "start", "--out_dir"]
    commands = {
        "import torch": ["-c", "import torch"],
        "import minigen": ["-c", "import minigen"],
        "train.py --help": ["train.py", "--help"],
        "train.py, one step": ["train.py", *tiny, str(given.cache)],
        "sample.py, one token": [
            "sample.py", "--checkpoint", str(given.cache / "gpt2"), "--max_new_tokens", "1"
        ],
    }  # fmt: skip

    def seconds(arguments: list[str]) -> float:
        """Return the seconds that a command of Python takes."""
        return run([sys.executable, *arguments], given.threads)[0]

    calls = {name: functools.partial(seconds, command) for name, command in commands.items()}
    times = alternate(calls, 1 + given.rounds)  # the first round writes the corpus and fills caches
    figures = {name: statistics.median(values[1:]) for name, values in times.items()}
    table(("start-up", "seconds"), [(name, f"{s:.2f}") for name, s in figures.items()])
    return figures


def decoding(given: argparse.Namespace) -> Any:
    """Return the milliseconds per token of GPT-2 (124M) by context."""
    kinds = ("minigen float32", "minigen bfloat16", "minigen int8")
    flags = ["--cache", str(given.cache), "--threads", str(given.threads)]
    pythons = dict.fromkeys(kinds, sys.executable)
    workers = start_workers(pythons, "bench.generate", flags, given.threads)
    request = (PROMPT, LONG)
    calls = {name: functools.partial(worker.ask, request) for name, worker in workers.items()}
    results = alternate(calls, 1)
    for worker in workers.values():
        worker.close()
    return report_sweep(results)


def training(given: argparse.Namespace) -> Any:
    """Return milliseconds per step and peak memory, each point from a process of its own."""

    def measure(point: dict[str, int]) -> dict[str, float]:
        """Return the figures of one point, which `measure_point` prints in its process."""
        check_quiet()
        command = [sys.executable, "-m", "bench.scale", "--point", json.dumps(point)]
        answer: dict[str, float] = json.loads(run(command, given.threads)[1].splitlines()[-1])
        return answer

    figures: dict[str, dict[int, dict[str, float]]] = {}
    for name, values in SWEEPS.items():
        figures[name] = {value: measure(BASE | {name: value}) for value in values}
        rows = [
            (f"{value}", f"{f['ms']:,.0f}", f"{f['tokens/s']:,.0f}", f"{f['peak, MB']:,.0f}")
            for value, f in figures[name].items()
        ]
        table((name, "ms a step", "tokens/s", "peak, MB"), rows)
    return figures


def measure_point(point: dict[str, int]) -> None:
    """Train a few steps with this batch, context and width; print the figures as JSON."""
    import resource  # not on Windows

    batch, context, width = point["batch"], point["context"], point["width"]
    torch.manual_seed(0)
    model = GPT(
        GPTConfig.modern(N_VOCAB, context, N_LAYER, width // 64, width, tie_embeddings=False)
    )
    optimizer = Optimizer(model.named_parameters())
    x, y = torch.randint(N_VOCAB, (2, batch, context))
    dtype = choose_dtype("auto", torch.device("cpu"))
    step: Callable[[], None] = functools.partial(train_step, model, optimizer, x, y, dtype)
    seconds = median_seconds(step, times=3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = {"ms": 1e3 * seconds, "tokens/s": batch * context / seconds}
    print(json.dumps(answer | {"peak, MB": peak / (1e6 if sys.platform == "darwin" else 1e3)}))


@drawing()
def plot(figures: dict[str, Any], path: str) -> None:
    """Draw the sweeps side by side, and save the image."""
    figure = new_figure(figsize=(16, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    for name, row in figures["decoding"].items():
        axes[0].plot(list(row), list(row.values()), "o-", label=name)
    axes[0].set(xlabel="context", ylabel="ms per token (124M)", ylim=(0, None))
    axes[0].legend()
    for axis, (name, row) in zip(axes[1:], figures["training"].items(), strict=True):
        axis.loglog(list(row), [point["ms"] for point in row.values()], "o-", label="ms a step")
        axis.loglog(list(row), [p["peak, MB"] for p in row.values()], "s--", label="peak, MB")
        rest = ", ".join(f"{key} {value}" for key, value in BASE.items() if key != name)
        axis.set(xlabel=f"{name} ({rest})")
        axis.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure all sweeps; or, as a process of this benchmark, one point."""
    parser = options(__doc__)
    parser.add_argument("--point", type=json.loads, help="(a process of this benchmark)")
    given = parser.parse_args()
    if given.point:
        return measure_point(given.point)
    given.cache = given.cache.resolve()
    make_weights(given.cache)
    figures = {part.__name__: part(given) for part in (start_up, decoding, training)}
    (given.cache / "scale.json").write_text(json.dumps(figures, indent=1))
    plot(figures, str(given.cache / "scale.png"))
    print(f"-> {given.cache / 'scale.json'}, scale.png")
    record("scale", figures, given)


if __name__ == "__main__":
    main()
