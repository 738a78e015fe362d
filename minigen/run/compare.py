"""Compare runs on one plot, and list where they differ: `python -m minigen compare tales tales-2`

Points are the validation losses of a run, and a thin line is its training loss, which scatters from
batch to batch, so that the line joins means of several steps. The axis holds the losses after the
first fifth of each run: on an axis from the first loss, ln V, to 0, the ends of two runs are one
line.

A loss in nats/token depends on the length of the tokens. Where bytes per token differ between the
runs, losses are drawn in bits/byte.
"""

from __future__ import annotations

import math
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from minigen.cli import parse
from minigen.errors import UserError
from minigen.files import checkpoint, huggingface
from minigen.run.log import read_metrics
from minigen.system.plot import check_ending, pyplot

MAX_POINTS = 50  # of a run's training loss, each the mean of several steps
LEFT_OUT = 0.2  # of the steps, at the beginning: their losses do not count for the axis
MARKERS = "osv^DPX"  # with the ten colours, 70 runs look different
PLACES = {"name", "out_dir"}  # settings that say where a run is, which changes nothing in it
HEADER = ("steps", "minutes", "parameters", "nats/token", "bits/byte", "best step")

Points = list[tuple[float, float]]  # steps and values


@dataclass(frozen=True)
class CompareConfig:
    """Draw the losses of several runs on one pair of axes, and list where the runs differ."""

    runs: Positional[tuple[str, ...]] = ()  # names or folders of runs; none: all of --out_dir
    out_dir: str = "out"  # where the runs are
    plot: Path = Path("compare.png")  # the picture, which may also be a .pdf or a .svg


@dataclass(frozen=True)
class Run:
    """The measurements and the settings of a run."""

    label: str
    metrics: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]  # the flags of its best checkpoint; none without a checkpoint
    n_parameters: int | None

    def points(self, key: str) -> Points:
        """Return the steps and the values of a key of metrics.jsonl, where the value is finite."""
        found = [(line["step"], line[key]) for line in self.metrics if key in line]
        return [(step, value) for step, value in found if math.isfinite(value)]

    @property
    def bits_per_byte(self) -> float:
        """A loss of 1 nat/token in bits/byte, for this run's text and tokenizer."""
        line = next(line for line in self.metrics if has_both_units(line))
        return float(line["val_bits_per_byte"] / line["val_loss"])

    @property
    def steps(self) -> int:
        """The number of steps that the run has taken."""
        return max(int(line["step"]) for line in self.metrics)

    @property
    def minutes(self) -> float | None:
        """The minutes that the steps took, without evaluations; None without settings."""
        rows, length = (self.settings.get(key) for key in ("batch_size", "block_size"))
        if not (isinstance(rows, int) and isinstance(length, int)):
            return None
        speeds = [speed for _, speed in self.points("tokens_per_second") if speed > 0]
        return sum(rows * length / speed for speed in speeds) / 60

    @property
    def result(self) -> tuple[float, bool]:
        """The validation loss, and whether the run has ended: then the loss is of all the text."""
        losses = [
            (line[key], key == "final_val_loss")
            for line in self.metrics
            for key in ("val_loss", "final_val_loss")
            if key in line
        ]
        return losses[-1]


def has_both_units(line: Mapping[str, Any]) -> bool:
    """Whether a line of metrics.jsonl has a validation loss, not 0, in nats/token and bits/byte."""
    return 0 < line.get("val_loss", 0) < math.inf and "val_bits_per_byte" in line


def read_run(folder: Path, label: str) -> Run:
    """Read a run and its settings. Raises `UserError` if no validation loss of the run is known."""
    path = folder / "metrics.jsonl"
    try:
        n_lines = len(path.read_bytes().splitlines())
        metrics = read_metrics(folder)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(metrics) < n_lines:
        n = len(metrics) + 1
        print(f"warning: {path} is damaged from line {n} on, and read up to there", file=sys.stderr)
    if not any(has_both_units(line) for line in metrics):
        raise UserError(f"{path} holds no validation loss")
    if not checkpoint.steps(folder):  # the run has just begun
        return Run(label, metrics, {}, None)
    try:
        found = checkpoint.load_best(folder)
    except UserError as error:
        print(f"warning: {error}, so its settings are not known", file=sys.stderr)
        return Run(label, metrics, {}, None)
    n_parameters = huggingface.empty_model(found.config).n_parameters()
    n_parameters += sum(t.numel() for name, t in found.weights.items() if ".lora_" in name)
    return Run(label, metrics, found.state.get("config", {}), n_parameters)


def find_folder(name: str, out_dir: Path) -> Path:
    """Return the folder of the run called `name`, which need not have a checkpoint yet."""
    try:
        return checkpoint.find_run(out_dir, name)
    except UserError:
        for folder in (out_dir / name, Path(name)):
            if name and os.path.isdir(folder) and not checkpoint.is_checkpoint(folder):
                return folder
        raise


def find_runs(config: CompareConfig) -> list[Run]:
    """Read the runs to compare, each once; report a run that cannot be drawn, and leave it out."""
    out_dir = Path(config.out_dir)
    there = [str(path.relative_to(out_dir)) for path in checkpoint.runs(out_dir)]
    if not config.runs and not there:
        checkpoint.find_run(out_dir)  # which raises
    named: dict[Path, Path] = {}
    for name in config.runs or there:
        folder = find_folder(name, out_dir)
        named.setdefault(folder.resolve(), folder)
    names = [whole.name for whole in named]
    runs: list[Run] = []
    complaints: list[str] = []
    for whole, folder in named.items():
        label = whole.name if names.count(whole.name) == 1 else str(folder)
        try:
            runs.append(read_run(folder, printable(label)))
        except UserError as error:
            complaints.append(str(error))
    if not runs:
        raise UserError("; ".join(complaints))
    for complaint in complaints:
        print(f"warning: {complaint}; the other runs are compared", file=sys.stderr)
    return runs


def same_tokens(runs: Sequence[Run]) -> bool:
    """Whether a token is the same number of bytes in all runs, so that nats/token compare."""
    first, *others = (run.bits_per_byte for run in runs)
    return all(math.isclose(first, other, rel_tol=1e-9) for other in others)


def smoothed(points: Points) -> Points:
    """Return the same curve in at most 50 points, each the mean of neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size or 1)]
    return [tuple(np.mean(part, axis=0).tolist()) for part in parts]


def columns(points: Points) -> tuple[list[float], list[float]]:
    """Return the steps and the values of points."""
    return [step for step, _ in points], [value for _, value in points]


def plot(runs: Sequence[Run], path: Path) -> Any:
    """Draw the losses of all runs into a file; return matplotlib's figure."""
    plt, same = pyplot(), same_tokens(runs)
    labels = [textwrap.fill(run.label, 28) for run in runs]
    height = max(4.5, 0.2 * sum(1 + label.count("\n") for label in labels))
    figure, axes = plt.subplots(figsize=(9, height), dpi=120, layout="constrained")
    handles, late, validated = [], [], []
    for n, run in enumerate(runs):
        unit = 1 if same else run.bits_per_byte
        training = [(step, unit * loss) for step, loss in smoothed(run.points("train_loss"))]
        validation = [(step, unit * loss) for step, loss in run.points("val_loss")]
        colour, marker = f"C{n % 10}", MARKERS[n % len(MARKERS)]
        (line,) = axes.plot(*columns(training), color=colour, linewidth=0.8)
        (dots,) = axes.plot(*columns(validation), marker, color=colour, markersize=5)
        handles.append((line, dots))
        begin = min(LEFT_OUT * run.steps, validation[-1][0])
        validated += [loss for step, loss in validation if step >= begin]
        late += [loss for step, loss in training + validation if step >= begin]
    low, high = min(late), max(validated)
    margin = 0.06 * (high - low) or 0.01
    axes.set(
        xlabel="step",
        ylabel="loss in " + ("nats/token" if same else "bits/byte, as tokenizers or texts differ"),
        xlim=(0, 1.05 * max(1, *(run.steps for run in runs))),
        ylim=(low - margin, high + margin),
    )
    axes.set_title("points: validation loss; lines: training loss, smoothed", fontsize=10)
    axes.grid(alpha=0.25)
    legend = figure.legend(handles, [" "] * len(runs), loc="outside right upper", fontsize=9)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)  # an older matplotlib would leave out a label with "_" first
    figure.savefig(path)
    plt.close(figure)
    return figure


def table(runs: Sequence[Run]) -> str:
    """Return a row of results for each run, and a line for each setting in which runs differ."""
    rows = [(*HEADER, "run")]
    for run in runs:
        loss, ended = run.result
        minutes, n_parameters = run.minutes, run.n_parameters
        best, _ = min(run.points("val_loss"), key=lambda point: point[1])
        rows.append((
            f"{run.steps:,}",
            "-" if minutes is None else f"{minutes:.1f}",
            "-" if n_parameters is None else f"{n_parameters:,}",
            f"{loss:.4f}",
            f"{loss * run.bits_per_byte:.4f}",
            f"{best:,}",
            run.label if ended else f"{run.label} (has not ended)",
        ))  # fmt: skip
    # The names stand last, as the width of a Korean letter depends on the terminal.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = [
        "  ".join([*(cell.rjust(n) for cell, n in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
    lines += ["", *(differences(runs) or ["no setting differs"])]
    if not same_tokens(runs):
        lines += ["", "tokenizers or texts differ, so nats/token do not compare; see bits/byte"]
    return "\n".join(lines)


def differences(runs: Sequence[Run]) -> list[str]:
    """Return a line for each setting that is not the same in all runs: values, and their runs."""
    known = [run for run in runs if run.settings]
    lines = []
    for field in dict.fromkeys(field for run in known for field in run.settings):
        whose: dict[str, list[str]] = {}
        for run in known:
            whose.setdefault(flag_value(run.settings.get(field)), []).append(run.label)
        if len(whose) > 1 and field not in PLACES:
            values = "; ".join(f"{value} ({', '.join(who)})" for value, who in whose.items())
            lines.append(f"{printable(field)}: {values}")
    return lines


def flag_value(value: Any) -> str:
    """Return a setting as it is written on a command line."""
    if isinstance(value, list):
        return " ".join(map(flag_value, value)) or "none"
    return "none" if value is None else printable(str(value)) or '""'


def printable(text: str) -> str:
    """Return a name on one line, without control characters for the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare runs; draw their losses, and print a table."""
    config = parse(CompareConfig, argv)
    check_ending(config.plot)
    runs = find_runs(config)
    try:  # first, as the reader of the table may be gone after its first line
        plot(runs, config.plot)
    except OSError as error:
        raise UserError(f"cannot write {config.plot}: {error.strerror}") from None
    finally:
        print(table(runs))
    print(f"\nthe losses are drawn in {printable(str(config.plot))}")
