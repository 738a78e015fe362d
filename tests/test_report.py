"""The log of a run: metrics that survive a resume, a plot, and warnings."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from minigen.run.log import (
    Report,
    far_from_done,
    memorising,
    plot_loss,
    read_metrics,
    read_samples,
    smoothed,
)

PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins


def make(run: Path, step: int = 0) -> Report:
    """Return the log of a run of ten steps."""
    return Report(run, step, 10, n_vocab=50, bits_per_byte=0.5, entropy=0.3, step_tokens=8)


def test_a_resumed_run_lists_each_step_once(tmp_path: Path) -> None:
    """A resumed run drops the lines of steps that it takes again, and a line that was cut short."""
    report = make(tmp_path)
    for step in range(1, 8):
        report.step(step, loss=4.0 - step / 10, norm=1.0, rate=0.1, speed=100.0)
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 8, "train')
    resumed = make(tmp_path, step=5)
    resumed.step(6, loss=1.0, norm=1.0, rate=0.1, speed=100.0)
    steps = [line["step"] for line in read_metrics(tmp_path) if "train_loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert read_metrics(tmp_path)[-1]["train_loss"] == 1.0


def test_a_resumed_run_lists_each_sample_once(tmp_path: Path) -> None:
    """samples.jsonl has the text of each evaluation, and a resumed run drops those it repeats."""
    report = make(tmp_path)
    for step in (0, 5, 10):
        report.evaluation(step, 3.0, f"a tale\nof step {step} \udce9")
    with open(tmp_path / "samples.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 8, "te')
    make(tmp_path, step=5).evaluation(10, 3.0, "another")
    texts = ["a tale\nof step 0 \udce9", "a tale\nof step 5 \udce9", "another"]
    read = [(line["step"], line["text"]) for line in read_samples(tmp_path)]
    assert read == list(zip((0, 5, 10), texts, strict=True))


def test_the_plan_of_a_run_is_in_its_metrics(tmp_path: Path) -> None:
    """The first line has the facts of the text and the plan; a later plan has a line of its own."""
    report = Report(tmp_path, 0, 0, n_vocab=50, bits_per_byte=0.5, entropy=None, step_tokens=8)
    report.plan(3, 20)
    start, plan = read_metrics(tmp_path)
    assert math.isnan(start.pop("entropy")) and math.isnan(start.pop("max_steps"))
    assert start == {"step": 0, "n_vocab": 50, "bits_per_byte": 0.5, "step_tokens": 8}
    assert plan == {"step": 3, "max_steps": 20} and report.bar.total == 20


def test_a_new_run_drops_earlier_metrics(tmp_path: Path) -> None:
    """A new run does not keep the metrics of an earlier run in its folder."""
    make(tmp_path).step(1, 1.0, 1.0, 1.0, 1.0)
    make(tmp_path).evaluation(2, 1.0, "text")
    make(tmp_path)
    (start,) = read_metrics(tmp_path)
    assert start["max_steps"] == 10 and read_samples(tmp_path) == []


# ---- loss.png ----


def drawn(run: Path, entropy: float | None = 0.5, n_vocab: int = 50) -> dict[str, Any]:
    """Draw a run's losses, with 1 bit/byte for 1 nat/token; return the lines by their labels."""
    axes = plot_loss(run, n_vocab, 1.0, entropy).axes[0]
    return {line.get_label().split(" ")[0]: line for line in axes.lines}


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    """loss.png is a PNG, with points and without."""
    report = make(tmp_path)
    plot_loss(tmp_path, 50, 0.5, None)
    report.step(1, 3.0, 1.0, 0.1, 100.0)
    report.evaluation(1, 2.9, "once")
    assert (tmp_path / "loss.png").read_bytes()[:8] == PNG


def test_evaluations_are_points_that_no_line_joins(tmp_path: Path) -> None:
    """The plot shows no validation loss between two evaluations, because none was measured."""
    report = make(tmp_path)
    for step in (1, 2, 3):
        report.step(step, 3.0, 1.0, 0.1, 100.0)
        report.record(step=step, val_loss=3.0 - step / 10)
    lines = drawn(tmp_path, entropy=None)
    assert lines["validation"].get_xydata().tolist() == [[1, 2.9], [2, 2.8], [3, 2.7]]
    assert lines["validation"].get_linestyle() == "None" != lines["validation"].get_marker()
    assert lines["training"].get_linestyle() == "-"


def test_the_plot_has_the_final_loss_beside_the_last_evaluation(tmp_path: Path) -> None:
    """The final loss, on all validation text, is a point at the step of the best checkpoint."""
    report = make(tmp_path)
    for step, loss in ((10, 2.0), (20, 3.0)):
        report.record(step=step, val_loss=loss)
    report.final(10, 2.5, 100, 100)
    lines = drawn(tmp_path, None)
    assert lines["validation"].get_xydata().tolist() == [[10, 2], [20, 3]]
    assert lines["final"].get_xydata().tolist() == [[10, 2.5]]


def test_the_axis_is_the_distance_to_the_entropy_once_it_is_near(tmp_path: Path) -> None:
    """Below twice the entropy of the text, losses are drawn in percent above it."""
    report = make(tmp_path)
    report.record(step=0, val_loss=4.0)
    assert drawn(tmp_path)["validation"].get_ydata().tolist() == [4]
    report.record(step=10, val_loss=0.75)
    assert drawn(tmp_path)["validation"].get_ydata().tolist() == pytest.approx([700, 50])
    report.record(step=20, val_loss=0.495)  # below it, by chance
    lines = drawn(tmp_path)
    assert lines["validation"].get_ydata().tolist() == pytest.approx([700, 50, -1])
    assert lines["entropy"].get_ydata()[0] == 0
    bottom, top = lines["entropy"].axes.get_ylim()
    assert bottom < -1 and top > 700


def test_the_plot_marks_a_model_that_knows_nothing(tmp_path: Path) -> None:
    """A line is at ln V, unless the model knew something from the start, as to fine-tune it."""
    report = make(tmp_path)
    report.record(step=0, val_loss=4.0)
    assert drawn(tmp_path, None)["a"].get_ydata()[0] == math.log(50)
    assert "a" not in drawn(tmp_path, None, n_vocab=1000)


def test_training_loss_is_smoothed_by_means() -> None:
    """The first 40 steps are drawn as they are, and a mean has at most 1/50 of all steps."""
    assert smoothed([]) == []
    points = [(float(n), 5.0 - n) for n in range(1, 2001)]
    means = smoothed(points)
    assert means[:40] == points[:40] and smoothed(points[:40]) == points[:40]
    assert all(value == pytest.approx(5 - step) for step, value in means)
    gaps = [later - step for (step, _), (later, _) in itertools.pairwise(means)]
    assert max(gaps) == 40 and len(means) < 200


@pytest.mark.parametrize("name", ["$\\q$ costs", "_한국어", "long" * 60])
def test_any_name_of_a_run_can_be_a_title(name: str, tmp_path: Path) -> None:
    """A name with "$", or with characters that no font has, is drawn without a warning."""
    (tmp_path / name).mkdir()
    report = make(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.step(1, loss=3.0, norm=1.0, rate=0.1, speed=1.0)
        plot_loss(tmp_path / name, 50, 0.5, 0.3)
    assert (tmp_path / name / "loss.png").read_bytes()[:8] == PNG


@pytest.mark.parametrize(
    "line",
    ['{"step": 2, "train', "[2]", "2", '{"step": "2"}', '{"step": 2.5}', '{"val_loss": 1.0}',
     '{"step": null}', '{"step": 2, "val_loss": "low"}', "[" * 10**5,
     '{"step": 2, "val_loss": 1' + 400 * "0" + "}"],
    ids=range(10),
)  # fmt: skip
def test_metrics_end_before_a_damaged_line(line: str, tmp_path: Path) -> None:
    """A line counts if it is an object of numbers that has a step, and no later line counts."""
    good = json.dumps({"step": 1, "train_loss": 2.0, "grad_norm": float("nan")})
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n{good}\n", encoding="utf-8")
    assert [read["train_loss"] for read in read_metrics(tmp_path)] == [2.0]


def test_a_plot_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of matplotlib is one warning, and the run logs its losses as before."""

    def fail(*_: object) -> None:
        raise ImportError("numpy.core.multiarray failed to import\nand a second line")

    monkeypatch.setattr("minigen.run.log.plot_loss", fail)
    report = make(tmp_path)
    for step in (1, 2):
        report.evaluation(step, 3.0, "once")
    assert capsys.readouterr().err.count("warning: cannot draw") == 1
    assert [line["val_loss"] for line in read_metrics(tmp_path)[1:]] == [3.0, 3.0]


def test_matplotlib_settings_of_the_user_are_ignored(tmp_path: Path) -> None:
    """A notebook's MPLBACKEND and a damaged matplotlibrc that asks for LaTeX change nothing."""
    (tmp_path / "matplotlibrc").write_text("backend: nosuch\nfont.size: many\ntext.usetex: True\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "val_loss": 1.0}\n')
    code = "import sys; from pathlib import Path; from minigen.run.log import plot_loss; "
    code += "plot_loss(Path(sys.argv[1]), 50, 0.5, None)"
    backend = "module://matplotlib_inline.nosuch"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, encoding="utf-8",
        env={**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "loss.png").read_bytes()[:8] == PNG


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    """A program's backend and style stay, whether matplotlib was imported before or not."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "val_loss": 1.0}\n')
    code = """if True:
        import sys
        from pathlib import Path
        from minigen.run.log import plot_loss
        if sys.argv[2] == "before":
            import matplotlib
            matplotlib.rcParams["lines.linewidth"] = 7.0
            settings = dict(matplotlib.rcParams)
        plot_loss(Path(sys.argv[1]), 50, 0.5, None)
        import matplotlib
        assert "matplotlib.pyplot" not in sys.modules
        assert matplotlib.rcParams._get("backend") == "module://matplotlib_inline.nosuch"
        assert sys.argv[2] == "after" or dict(matplotlib.rcParams) == settings
    """
    for when in ("before", "after"):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path, when], capture_output=True, encoding="utf-8",
            env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.nosuch"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


# ---- metrics.jsonl ----


def test_a_loss_that_is_not_finite_is_null_and_read_as_nan(tmp_path: Path) -> None:
    """metrics.jsonl is strict JSON, and a resumed run and a plot take null for NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    report = make(tmp_path)
    report.step(1, loss=math.inf, norm=math.nan, rate=0.1, speed=1.0)
    report.evaluation(1, math.inf, "once")
    make(tmp_path, step=1).step(2, loss=1.0, norm=1.0, rate=0.1, speed=1.0)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    _, first, evaluation, _, last = (json.loads(line, parse_constant=refuse) for line in lines)
    assert first["train_loss"] is None and first["grad_norm"] is None
    assert evaluation["val_loss"] is None and last["train_loss"] == 1.0
    assert math.isnan(read_metrics(tmp_path)[1]["train_loss"])
    assert memorising(read_metrics(tmp_path)) is None
    plot_loss(tmp_path, 50, 0.5, 0.3)


# ---- warnings and advice ----


def history(*evaluations: tuple[float, float]) -> list[dict[str, Any]]:
    """Return metrics: for each (training, validation) loss, ten steps and an evaluation."""
    lines: list[dict[str, Any]] = []
    for i, (train, val) in enumerate(evaluations):
        lines += [{"step": 10 * i + k + 1, "train_loss": train} for k in range(10)]
        lines.append({"step": 10 * i + 10, "val_loss": val})
    return lines


def test_memorising_is_a_validation_loss_that_rises_while_the_training_loss_falls() -> None:
    """There is no warning while both losses fall, when both rise, or with too few evaluations."""
    assert memorising([]) is None
    assert memorising(history((3.0, 3.0))) is None
    assert memorising(history((3.0, 3.0), (2.0, 2.5))) is None
    assert memorising(history((3.0, 3.0), (4.0, 3.5))) is None
    warning = memorising(history((3.0, 3.0), (2.0, 2.5), (1.0, 2.9), (0.5, 3.4)))
    assert warning is not None
    key, text = warning
    assert key == "memorising since step 20" and "2.500 to 3.400" in text


def test_memorising_is_a_validation_loss_far_above_the_training_loss() -> None:
    """At 1.5 times the training loss there is a warning, even after the first evaluation."""
    assert memorising(history((2.0, 2.9))) is None
    warning = memorising(history((2.0, 3.0)))
    assert warning is not None
    assert "the validation loss is 3.000, but the training loss 2.000" in warning[1]


def test_a_sample_that_loops_is_a_warning_in_the_second_half_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first half of a run, the samples of any model loop."""
    report = make(tmp_path)
    report.evaluation(2, 3.0, "and so " * 20)
    report.evaluation(8, 2.9, "and so on, as ever, to the end.")
    assert "loop" not in capsys.readouterr().err
    report.evaluation(10, 2.8, "and so " * 20)
    assert "warning: the sample repeats itself in a loop" in capsys.readouterr().err


def test_a_warning_is_printed_once_until_it_means_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other numbers are no new warning; a later best checkpoint is, and so is another fault."""
    report = make(tmp_path)
    train = iter(range(1, 1000))

    def n_warnings(val_loss: float, sample: str = "once") -> int:
        for _ in range(20):
            step = next(train)
            report.step(step, loss=5 - step / 200, norm=1.0, rate=0.1, speed=1.0)
        report.evaluation(step, val_loss, sample)
        return capsys.readouterr().err.count("warning: ")

    assert n_warnings(5.0) == 0
    assert [n_warnings(5.1 + n / 10) for n in range(3)] == [1, 0, 0]
    assert n_warnings(4.6) == 0  # the new best checkpoint
    assert [n_warnings(4.7), n_warnings(4.8)] == [1, 0]
    assert [n_warnings(4.8, "round and " * 30), n_warnings(4.8, "round and " * 30)] == [1, 0]


def test_the_bar_counts_steps_per_second_however_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar has steps per second, never seconds per step, if the run's length is known or not."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for max_steps in (0, 10):
        bar = Report(
            tmp_path, 0, max_steps, n_vocab=50, bits_per_byte=0.5, entropy=0.3, step_tokens=8
        ).bar
        facts = bar.format_dict | {"bar_format": bar.bar_format, "n": 4, "elapsed": 10.0}
        facts |= {"rate": 0.4, "total": bar.total, "ncols": 100, "prefix": "", "postfix": "loss 1"}
        shown = bar.format_meter(**facts)
        assert "0.40 steps/s" in shown and "loss 1" in shown and "s/ step" not in shown
        assert ("4/10" in shown) == (max_steps > 0)


def test_a_run_with_few_steps_or_little_text_read_is_far_from_done() -> None:
    """A short run is advised the time of 300 steps and one epoch, at most ten times its own."""
    assert far_from_done(400, 3.0, 2, busy=True) is None
    busy = "only 47 steps were possible, because other programs kept the processors busy"
    assert far_from_done(47, 0.1, 2, busy=True) == (busy, 19)
    assert far_from_done(100, 9.0, 2, busy=False) == ("only 100 steps were possible", 6)
    read = "the model has read 2% of the text in 5,000 steps"
    assert far_from_done(5000, 0.02, 2, busy=False) == (read, 20)
