"""What a run tells: metrics that survive a resume, a plot, and a warning in time."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from minigen.run.log import Report, far_from_done, memorising, plot_loss, read_metrics


def make(run: Path, step: int = 0) -> Report:
    return Report(run, step, 10, n_vocab=50, bits_per_byte=0.5, entropy=0.3)


def test_a_resumed_run_takes_steps_again_and_lists_them_once(tmp_path: Path) -> None:
    """Lines of steps after the checkpoint are dropped, and a line cut short is no obstacle."""
    report = make(tmp_path)
    for step in range(1, 8):
        report.step(step, loss=4.0 - step / 10, norm=1.0, rate=0.1, speed=100.0)
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 8, "train')
    resumed = make(tmp_path, step=5)
    resumed.step(6, loss=1.0, norm=1.0, rate=0.1, speed=100.0)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert read_metrics(tmp_path)[-1]["train_loss"] == 1.0


def test_a_new_run_starts_a_new_list(tmp_path: Path) -> None:
    """Metrics that an earlier run left without a checkpoint are not mixed with the new ones."""
    make(tmp_path).step(1, 1.0, 1.0, 1.0, 1.0)
    make(tmp_path)
    assert read_metrics(tmp_path) == []


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    """loss.png is a PNG, with points and without."""
    report = make(tmp_path)
    plot_loss(tmp_path, 50, 0.5, None)
    report.step(1, 3.0, 1.0, 0.1, 100.0)
    report.evaluation(1, 2.9, "once")
    assert (tmp_path / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", ["$\\q$ costs", "_한국어", "long" * 60])
def test_any_name_of_a_run_can_be_a_title(name: str, tmp_path: Path) -> None:
    """A formula that is none, and characters that no font has, neither end a run nor warn."""
    (tmp_path / name).mkdir()
    report = make(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.step(1, loss=3.0, norm=1.0, rate=0.1, speed=1.0)
        plot_loss(tmp_path / name, 50, 0.5, 0.3)
    assert (tmp_path / name / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


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
    """Whatever matplotlib raises, once, and the run records its losses as before."""

    def fail(*_: object) -> None:
        raise ImportError("numpy.core.multiarray failed to import\nand a second line")

    monkeypatch.setattr("minigen.run.log.plot_loss", fail)
    report = make(tmp_path)
    for step in (1, 2):
        report.evaluation(step, 3.0, "once")
    assert capsys.readouterr().err.count("warning: cannot draw") == 1
    assert [line["val_loss"] for line in read_metrics(tmp_path)] == [3.0, 3.0]


def test_settings_for_other_pictures_do_not_count(tmp_path: Path) -> None:
    """A notebook's MPLBACKEND, and a matplotlibrc that is damaged or asks for LaTeX."""
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
    assert (tmp_path / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_number_that_is_none_is_null_and_read_as_nan(tmp_path: Path) -> None:
    """metrics.jsonl is JSON for every reader, and a resumed run and a plot take such a line."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    report = make(tmp_path)
    report.step(1, loss=math.inf, norm=math.nan, rate=0.1, speed=1.0)
    report.evaluation(1, math.inf, "once")
    make(tmp_path, step=1).step(2, loss=1.0, norm=1.0, rate=0.1, speed=1.0)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    first, look, last = (json.loads(line, parse_constant=refuse) for line in lines)
    assert first["train_loss"] is None and first["grad_norm"] is None and look["val_loss"] is None
    assert math.isnan(read_metrics(tmp_path)[0]["train_loss"]) and last["train_loss"] == 1.0
    assert memorising(read_metrics(tmp_path)) is None
    plot_loss(tmp_path, 50, 0.5, 0.3)


def history(*looks: tuple[float, float]) -> list[dict[str, Any]]:
    """Metrics with ten training steps of the first loss before each evaluation with the second."""
    lines: list[dict[str, Any]] = []
    for i, (train, val) in enumerate(looks):
        lines += [{"step": 10 * i + k + 1, "train_loss": train} for k in range(10)]
        lines.append({"step": 10 * i + 10, "val_loss": val})
    return lines


def test_memorising_is_said_when_validation_rises_while_training_falls() -> None:
    """Only then: not while both fall, not when both rise, not with too little to judge by."""
    assert memorising([]) is None
    assert memorising(history((3.0, 3.0))) is None
    assert memorising(history((3.0, 3.0), (2.0, 2.5))) is None
    assert memorising(history((3.0, 3.0), (4.0, 3.5))) is None
    advice = memorising(history((3.0, 3.0), (2.0, 2.5), (1.0, 2.9), (0.5, 3.4)))
    assert advice is not None
    meaning, text = advice
    assert meaning == "memorising since step 20" and "2.500 to 3.400" in text


def test_memorising_is_said_when_the_losses_fall_apart() -> None:
    """At 1.5 times the training loss, also after the first evaluation."""
    assert memorising(history((2.0, 2.9))) is None
    advice = memorising(history((2.0, 3.0)))
    assert advice is not None and "3.000, but 2.000 in training" in advice[1]


def test_a_loop_is_said_late_in_training_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the second half of a run: before, the samples of every model loop."""
    report = make(tmp_path)
    report.evaluation(2, 3.0, "and so " * 20)
    report.evaluation(8, 2.9, "and so on, as ever, to the end.")
    assert "loop" not in capsys.readouterr().err
    report.evaluation(10, 2.8, "and so " * 20)
    assert "warning: what it writes goes round in a loop" in capsys.readouterr().err


def test_a_warning_is_said_once_until_it_means_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other figures are no news; another best checkpoint is, and so is another fault."""
    report = make(tmp_path)
    train = iter(range(1, 1000))

    def evaluation(val_loss: float, sample: str = "once") -> int:
        for _ in range(20):
            step = next(train)
            report.step(step, loss=5 - step / 200, norm=1.0, rate=0.1, speed=1.0)
        report.evaluation(step, val_loss, sample)
        return capsys.readouterr().err.count("warning: ")

    assert evaluation(5.0) == 0
    assert [evaluation(5.1 + n / 10) for n in range(3)] == [1, 0, 0]
    assert evaluation(4.6) == 0  # a better one
    assert [evaluation(4.7), evaluation(4.8)] == [1, 0]
    assert [evaluation(4.8, "round and " * 30), evaluation(4.8, "round and " * 30)] == [1, 0]


def test_the_bar_counts_steps_per_second_however_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never seconds per step, with the number of steps known and unknown."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for max_steps in (0, 10):
        bar = Report(tmp_path, 0, max_steps, n_vocab=50, bits_per_byte=0.5, entropy=0.3).bar
        facts = bar.format_dict | {"bar_format": bar.bar_format, "n": 4, "elapsed": 10.0}
        facts |= {"rate": 0.4, "total": bar.total, "ncols": 100, "prefix": "", "postfix": "loss 1"}
        shown = bar.format_meter(**facts)
        assert "0.40 steps/s" in shown and "loss 1" in shown and "s/ step" not in shown
        assert ("4/10" in shown) == (max_steps > 0)


def test_what_more_time_would_give_is_said_where_a_run_was_far_from_done() -> None:
    """Too few steps, or a text that was not read once; in ten times the time at most."""
    assert far_from_done(400, 3.0, 2, busy=True) is None
    busy = "only 47 steps were possible, as other programs had the processors"
    assert far_from_done(47, 0.1, 2, busy=True) == (busy, 19)
    assert far_from_done(100, 9.0, 2, busy=False) == ("only 100 steps were possible", 6)
    read = "the model has read 2% of the text in 5,000 steps"
    assert far_from_done(5000, 0.02, 2, busy=False) == (read, 20)
