"""Runs side by side: a table, a plot that shows how they end, and the page of their metrics."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Server

import train
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.run import compare
from minigen.run.compare import CompareConfig, find_runs, plot, table
from minigen.run.log import Report, read_metrics

pytestmark = pytest.mark.usefixtures("signals")
ROOT = Path(train.__file__).parent
SMALL = "--n_layer 1 --n_embd 8 --n_head 1 --block_size 16 --batch_size 2 --vocab_size 260"
BRIEF = "--max_steps 2 --eval_tokens 50 --device cpu --dtype float32 --compile no"

# As `python -m minigen compare` runs it.
COMMAND = """
from minigen.run.compare import main
from minigen.system.streams import one_line_errors
with one_line_errors():
    main()
"""

Train = Callable[..., Path]


@pytest.fixture
def trained(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train in this process for two steps, and return the run's folder."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))

    def start(name: str, flags: str = SMALL) -> Path:
        place = ["--out_dir", str(tmp_path / "out"), "--name", name, "--data", str(text)]
        assert train.main([*place, *BRIEF.split(), *flags.split()]) == 0
        return tmp_path / "out" / name

    return start


def record(run: Path, *losses: float, train_loss: float = 3.0, bits_per_byte: float = 0.5) -> Path:
    """Write a run without a checkpoint: ten steps before each evaluation but the first."""
    run.mkdir(parents=True)
    report = Report(
        run, 0, 10, n_vocab=50, bits_per_byte=bits_per_byte, entropy=None, step_tokens=8
    )
    for n, loss in enumerate(losses):
        for step in range(10 * n - 9, 10 * n + 1) if n else ():
            report.step(step, train_loss, norm=1.0, rate=0.1, speed=100.0)
        report.record(step=10 * n, val_loss=loss, val_bits_per_byte=bits_per_byte * loss)
    return run


def read(*runs: Path | str, out_dir: Path | str = "out") -> list[compare.Run]:
    """Read runs by their names or folders."""
    return find_runs(CompareConfig(tuple(map(str, runs)), str(out_dir)))


def plotted(tmp_path: Path, *runs: Path) -> Any:
    """Plot runs; return the axes, and the names in the legend."""
    figure = plot(read(*runs), tmp_path / "plot.png")
    (legend,) = figure.legends
    return figure.axes[0], [text.get_text() for text in legend.get_texts()]


def test_the_command_compares_two_runs(trained: Train, server: Server, tmp_path: Path) -> None:
    """The command writes a PNG, and prints a row for each run and the settings that differ."""
    runs = trained("a"), trained("한_b", f"{SMALL} --learning_rate 1e-3")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    (tmp_path / "compare.py").write_text(COMMAND, encoding="utf-8")
    done = server.python("compare.py", "a", runs[1], cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows, _, setting, _, last = done.stdout.splitlines()
    assert header.split("  ")[-1] == "run" and len(rows) == 2
    for row, run, label in zip(rows, runs, ("a", r"\ud55c_b"), strict=True):
        steps, minutes, n, nats, bits, best, name = row.split()
        final = read_metrics(run)[-1]
        assert int(n.replace(",", "")) == checkpoint.load_best(run).model().n_parameters()
        assert nats == f"{final['final_val_loss']:.4f}"
        assert bits == f"{final['final_val_bits_per_byte']:.4f}"
        assert (steps, minutes, best, name) == ("2", "0.0", str(final["step"]), label)
    assert setting == r"learning_rate: 0.01 (a); 0.001 (\ud55c_b)"
    assert last == "the losses are drawn in compare.png"
    assert (tmp_path / "compare.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_page_lists_each_key_of_the_metrics(trained: Train) -> None:
    """docs/metrics.md lists the keys that a run and a fine-tuned run log, and no others."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `(\w+)` \|", page, flags=re.M)
    base = trained("base")
    tuned = trained("tuned", f"--init_from {base} --lora_rank 1")
    logged = {key for run in (base, tuned) for line in read_metrics(run) for key in line}
    assert logged == set(keys) and len(keys) == len(set(keys))

    # LoRA's parameters are counted beside those of the model.
    (run,) = read(tuned)
    assert run.n_parameters == checkpoint.load_best(tuned).model().n_parameters()


def test_losses_of_different_tokens_are_drawn_in_bits_per_byte(tmp_path: Path) -> None:
    """Losses are in nats/token if tokens have the same length, else in bits/byte, as labelled."""
    a, b = record(tmp_path / "a", 4, 2, 1), record(tmp_path / "b", 4, 3, 2)
    c = record(tmp_path / "c", 9, 8, 6, bits_per_byte=0.25)
    axes, _ = plotted(tmp_path, a, b)
    assert axes.get_ylabel() == "loss in nats/token"
    assert axes.lines[1].get_xydata().tolist() == [[0, 4], [10, 2], [20, 1]]
    assert "do not compare" not in table(read(a, b))
    axes, _ = plotted(tmp_path, a, c)
    assert axes.get_ylabel() == "loss in bits/byte, as tokenizers or texts differ"
    assert axes.lines[1].get_xydata().tolist() == [[0, 2], [10, 1], [20, 0.5]]
    assert axes.lines[3].get_xydata().tolist() == [[0, 2.25], [10, 2], [20, 1.5]]
    assert axes.lines[0].get_ydata()[0] == 1.5 and axes.lines[2].get_ydata()[0] == 0.75
    assert "nats/token do not compare; see bits/byte" in table(read(a, c))


def test_the_axis_shows_how_runs_end(tmp_path: Path) -> None:
    """The axis leaves out the steep beginning, and spans all losses after the first fifth."""
    a = record(tmp_path / "a", 7.3, 0.56, 0.53, 0.52, 0.51, 0.50, train_loss=0.505)
    b = record(tmp_path / "b", 7.3, 0.55, 0.53, 0.52, 0.52, 0.51, train_loss=0.48)
    axes, _ = plotted(tmp_path, a, b)
    low, high = axes.get_ylim()
    assert 0.45 < low < 0.48 and 0.56 < high < 0.6
    axes, _ = plotted(tmp_path, record(tmp_path / "new", 7.3))  # no step yet
    low, high = axes.get_ylim()
    assert low < 7.3 < high


def test_a_loss_that_is_null_is_left_out(tmp_path: Path) -> None:
    """An infinite loss is null in metrics.jsonl, absent from the plot, and "nan" in the table."""
    run = record(tmp_path / "a", 3.0, math.inf, 2.0, math.nan)
    assert '"val_loss": null' in (run / "metrics.jsonl").read_text(encoding="utf-8")
    axes, _ = plotted(tmp_path, run)
    assert axes.lines[1].get_xdata().tolist() == [0, 20]
    assert "nan" in compare.table(read(run))


def test_the_plot_is_drawn_before_the_table_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that ends early, as in `python -m minigen compare | head -1`, costs no plot."""

    def gone(_: object) -> str:
        raise BrokenPipeError

    monkeypatch.setattr(compare, "table", gone)
    run, plot = record(tmp_path / "a", 3.0, 2.0), tmp_path / "plot.png"
    with pytest.raises(BrokenPipeError):
        compare.main([str(run), "--plot", str(plot)])
    assert plot.is_file()


def test_any_name_is_drawn_as_it_is(tmp_path: Path) -> None:
    """A name with "$", a first "_" or characters that no font has is in the legend unchanged."""
    names = ["_a", "$\\q$ costs", "한국어", "a\x1b[31mb\n"]
    runs = [record(tmp_path / name, 3, 2) for name in [*names, "long" * 60]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, labels = plotted(tmp_path, *runs)
    assert labels[:4] == [*names[:3], "a?[31mb?"]
    assert labels[4].replace("\n", "") == "long" * 60
    assert len(table(read(*runs)).splitlines()) == 1 + 5 + 2


def test_runs_of_one_name_are_labelled_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is drawn once, however it is named; a name in --out_dir comes before a folder."""
    for folder in ("out/a", "old/a", "old/b", "b"):
        record(tmp_path / folder, 3, 2)
    monkeypatch.chdir(tmp_path)
    runs = read("a", "out/a", str(tmp_path / "out" / "a"), "old/a", "b", out_dir="out")
    assert [run.label for run in runs] == [str(Path("out/a")), str(Path("old/a")), "b"]
    assert [run.label for run in read("a", "b", out_dir="old")] == ["a", "b"]


def test_a_run_that_does_not_exist_is_one_line(trained: Train, tmp_path: Path) -> None:
    """The error says which runs there are, how to train one, or which file is missing."""
    out = trained("whole").parent
    with pytest.raises(UserError, match=r"^no run 'nowhere' in .*; runs there: whole$"):
        read("whole", "nowhere", out_dir=out)
    with pytest.raises(UserError, match=r"^no run in .* yet; train one: \S+ \S*train\.py$"):
        read(out_dir=tmp_path / "none")
    (out / "empty").mkdir()
    with pytest.raises(UserError, match=r"^cannot read .*empty.metrics.jsonl: No such file"):
        read("empty", out_dir=out)


def test_runs_that_can_be_read_are_compared_without_the_others(
    trained: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run without metrics is left out; a damaged line ends the metrics of its run."""
    out = trained("whole").parent
    (out / "empty").mkdir()
    path = record(out / "cut", 5, 4, 3) / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:15], "{", *lines[16:]]), encoding="utf-8")
    capsys.readouterr()
    whole, cut = read("whole", "cut", "empty", out_dir=out)
    damaged, left_out = capsys.readouterr().err.splitlines()
    assert damaged == f"warning: {path} is damaged from line 16 on, and read up to there"
    assert left_out.endswith("No such file or directory; the other runs are compared")
    assert whole.result[1] and cut.result == (4, False) and cut.steps == 12
    _, first, second, *_ = table([whole, cut]).splitlines()
    assert first.endswith("  whole") and second.endswith("  cut (has not ended)")
    assert second.split()[:3] == ["12", "-", "-"]  # minutes and parameters need a checkpoint


def test_without_a_readable_checkpoint_only_the_settings_are_unknown(
    trained: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose checkpoints are damaged is compared, with a warning, by its metrics."""
    run = trained("a")
    for path in checkpoint.steps(run):
        (path / "state.json").write_text("{", encoding="utf-8")
    capsys.readouterr()
    (one,) = read(run)
    assert (one.n_parameters, one.minutes, one.settings) == (None, None, {}) and one.result[1]
    assert "settings are not known" in capsys.readouterr().err.splitlines()[-1]


def test_without_names_all_runs_are_compared(trained: Train) -> None:
    """All runs of --out_dir that have a checkpoint are compared if no run is named."""
    out = trained("b").parent
    record(out / "a_run_that_has_just_begun", 3)
    assert [run.label for run in read(out_dir=out)] == ["b"]


def test_a_plot_that_cannot_be_written_is_one_line(trained: Train, tmp_path: Path) -> None:
    """An unknown ending is an error before the work, and a missing folder after it."""
    run = str(trained("a"))
    with pytest.raises(UserError, match=r"^--plot x: give a name that ends in .png, .pdf or .svg$"):
        compare.main([run, "--plot", "x"])
    with pytest.raises(UserError, match=r"^cannot write .*x.png: No such file or directory$"):
        compare.main([run, "--plot", str(tmp_path / "no" / "x.png")])
    compare.main([run, "--plot", str(tmp_path / "x.svg")])
    assert b"<svg" in (tmp_path / "x.svg").read_bytes()
