"""Compare runs on one plot, and list where they differ: `python -m minigen compare tales tales-2`

Points are the validation losses of a run. A thin line is its training loss, in means of
neighbouring steps, as the loss scatters from batch to batch. The axis spans the losses after the
first fifth of each run: on an axis from 0 to the first loss, ln V, the ends of two runs look alike.

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

from tyro.conf import Positional

from minigen.cli import parse
from minigen.errors import UserError
from minigen.files import checkpoint, huggingface
from minigen.run.config import from_saved
from minigen.run.log import Points, finite_points, read_metrics, smoothed
from minigen.system.plot import check_ending, drawing, new_figure

STEEP_BEGINNING = 0.2  # share of the steps; their losses are no part of the axis
MARKERS = "osv^DPX"  # 7 of them and 10 colours: 70 runs look different
PLACES = {"name", "out_dir"}  # flags that change only where a run is saved
HEADER = ("steps", "minutes", "parameters", "nats/token", "bits/byte", "best step")


@dataclass(frozen=True)
class CompareConfig:
    """Draw the losses of several runs on one pair of axes, and list where the runs differ."""

    # names or folders of the runs (default: all runs in --out_dir)
    runs: Positional[tuple[str, ...]] = ()
    out_dir: str = "out"  # the folder of the runs
    plot: Path = Path("compare.png")  # file for the plot: .png, .pdf or .svg


@dataclass(frozen=True)
class Run:
    """The metrics and the settings of a run."""

    label: str
    metrics: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]  # the flags of its best checkpoint; none without a checkpoint
    n_parameters: int | None

    def points(self, key: str) -> Points:
        """Return the steps and the values of a key of metrics.jsonl, where the value is finite."""
        return finite_points(self.metrics, key)

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
        """The minutes that the steps took, without evaluations; None if settings are missing."""
        rows, length = (self.settings.get(key) for key in ("batch_size", "block_size"))
        if not (isinstance(rows, int) and isinstance(length, int)):
            return None
        speeds = [speed for _, speed in self.points("tokens_per_second") if speed > 0]
        return sum(rows * length / speed for speed in speeds) / 60

    @property
    def result(self) -> tuple[float, bool]:
        """The last validation loss, and True if it is the final one, on all the text."""
        losses = [
            (line[key], key == "final_val_loss")
            for line in self.metrics
            for key in ("val_loss", "final_val_loss")
            if key in line
        ]
        return losses[-1]


def has_both_units(line: Mapping[str, Any]) -> bool:
    """Return True if a line of metrics.jsonl has a validation loss above 0 in both units."""
    return 0 < line.get("val_loss", 0) < math.inf and "val_bits_per_byte" in line


def read_run(folder: Path, label: str) -> Run:
    """Read a run and its settings. Raises `UserError` if the run has no validation loss."""
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
        best = checkpoint.load_best(folder)
    except UserError as error:
        print(f"warning: {error}, so its settings are not known", file=sys.stderr)
        return Run(label, metrics, {}, None)
    n_parameters = huggingface.empty_model(best.config).n_parameters()
    n_parameters += sum(t.numel() for name, t in best.weights.items() if ".lora_" in name)
    return Run(label, metrics, from_saved(best.state.get("config", {})), n_parameters)


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
    """Read the runs to compare, each once; warn of a run that cannot be read, and leave it out."""
    out_dir = Path(config.out_dir)
    available = [str(path.relative_to(out_dir)) for path in checkpoint.runs(out_dir)]
    if not config.runs and not available:
        checkpoint.find_run(out_dir)  # raises the error for a folder without runs
    folders: dict[Path, Path] = {}  # absolute path -> path as it was given
    for name in config.runs or available:
        folder = find_folder(name, out_dir)
        folders.setdefault(folder.resolve(), folder)
    names = [path.name for path in folders]
    runs: list[Run] = []
    errors: list[str] = []
    for path, folder in folders.items():
        label = path.name if names.count(path.name) == 1 else str(folder)
        try:
            runs.append(read_run(folder, printable(label)))
        except UserError as error:
            errors.append(str(error))
    if not runs:
        raise UserError("; ".join(errors))
    for message in errors:
        print(f"warning: {message}; the other runs are compared", file=sys.stderr)
    return runs


def same_tokens(runs: Sequence[Run]) -> bool:
    """Return True if bytes per token are the same in all runs, so that nats/token compare."""
    first, *others = (run.bits_per_byte for run in runs)
    return all(math.isclose(first, other, rel_tol=1e-9) for other in others)


def columns(points: Points) -> tuple[list[float], list[float]]:
    """Return the steps and the values of points."""
    return [step for step, _ in points], [value for _, value in points]


@drawing()
def plot(runs: Sequence[Run], path: Path) -> Any:
    """Draw the losses of all runs into a file; return matplotlib's figure."""
    same = same_tokens(runs)
    labels = [textwrap.fill(run.label, 28) for run in runs]
    height = max(4.5, 0.2 * sum(1 + label.count("\n") for label in labels))
    figure = new_figure(figsize=(9, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    handles, late_losses, late_validation = [], [], []
    for n, run in enumerate(runs):
        unit = 1 if same else run.bits_per_byte
        training = [(step, unit * loss) for step, loss in smoothed(run.points("train_loss"))]
        validation = [(step, unit * loss) for step, loss in run.points("val_loss")]
        colour, marker = f"C{n % 10}", MARKERS[n % len(MARKERS)]
        (line,) = axes.plot(*columns(training), color=colour, linewidth=0.8)
        (dots,) = axes.plot(*columns(validation), marker, color=colour, markersize=5)
        handles.append((line, dots))
        begin = min(STEEP_BEGINNING * run.steps, validation[-1][0])
        late_validation += [loss for step, loss in validation if step >= begin]
        late_losses += [loss for step, loss in training + validation if step >= begin]
    low, high = min(late_losses), max(late_validation)
    margin = 0.06 * (high - low) or 0.01
    axes.set(
        xlabel="step",
        ylabel="loss in " + ("nats/token" if same else "bits/byte, as tokenizers or texts differ"),
        xlim=(0, 1.05 * max(1, *(run.steps for run in runs))),
        ylim=(low - margin, high + margin),
    )
    title = "points: validation loss; lines: training loss, mean of several steps"
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    legend = figure.legend(handles, [" "] * len(runs), loc="outside right upper", fontsize=9)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)  # an older matplotlib leaves out a label that begins with "_"
    figure.savefig(path)
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
    # The names come last: the width of a Korean letter depends on the terminal.
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
    """Return a line for each setting in which runs differ: the values, and the runs of each."""
    with_settings = [run for run in runs if run.settings]
    lines = []
    for field in dict.fromkeys(field for run in with_settings for field in run.settings):
        labels: dict[str, list[str]] = {}  # of the runs, by the value of the setting
        for run in with_settings:
            labels.setdefault(flag_value(run.settings.get(field)), []).append(run.label)
        if len(labels) > 1 and field not in PLACES:
            values = "; ".join(f"{value} ({', '.join(names)})" for value, names in labels.items())
            lines.append(f"{printable(field)}: {values}")
    return lines


def flag_value(value: Any) -> str:
    """Return a setting as a command line has it."""
    if isinstance(value, list):
        return " ".join(map(flag_value, value)) or "none"
    return "none" if value is None else printable(str(value)) or '""'


def printable(text: str) -> str:
    """Return a text with "?" for each control character, which could change the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare runs; draw their losses, and print a table."""
    config = parse(CompareConfig, argv)
    check_ending(config.plot)
    runs = find_runs(config)
    try:  # before the table: a reader such as `head -1` ends the process after its first line
        plot(runs, config.plot)
    except OSError as error:
        raise UserError(f"cannot write {config.plot}: {error.strerror}") from None
    finally:
        print(table(runs))
    print(f"\nthe losses are drawn in {printable(str(config.plot))}")
