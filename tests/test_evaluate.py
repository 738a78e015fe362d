"""Judging a model: each fault has its own verdict, and the loss is the one that training logs."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from forks import Server
from ignorant import ignorant

import train
from minigen.corpora import genre, tales
from minigen.errors import UserError
from minigen.evaluation import command
from minigen.evaluation.command import EvaluateConfig, judge
from minigen.evaluation.report import as_json, plot, table
from minigen.evaluation.samples import (
    CopyMetrics,
    GenreMetrics,
    RepetitionMetrics,
    SampleMetrics,
)
from minigen.evaluation.verdict import Comparison, Judgement, verdict
from minigen.inference.engine import Engine, load
from minigen.run.log import read_metrics
from minigen.tokenizer import train_tokenizer

ROOT = Path(command.__file__).parents[2]


class Narrow(random.Random):
    """Random numbers that pick the first quarter of each list: a model soon learns such tales."""

    def random(self) -> float:
        return super().random() / 4


def documents(n: int, rng: random.Random) -> list[str]:
    """Return `n` tales."""
    return [tales.tale(rng).text for _ in range(n)]


def looped(text: str) -> str:
    """Return a tale that repeats its first sentence again and again."""
    line = genre.first_lines(text)
    sentence = text.removeprefix(line).split(". ")[0] + ". "
    return line + (6 * sentence)[:600]


def shuffled(texts: list[str]) -> list[str]:
    """Return the tales with their first lines exchanged."""
    lines = [genre.first_lines(text) for text in texts]
    bodies = [text.removeprefix(line) for text, line in zip(texts, lines, strict=True)]
    random.Random(0).shuffle(lines)
    return [line + body for line, body in zip(lines, bodies, strict=True)]


@pytest.fixture(scope="module")
def project(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project where train.py has trained one model of each kind."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "minigen", folder / "minigen")
    shutil.copy(ROOT / "train.py", folder)
    narrow = documents(1500, Narrow(0))
    kinds = {
        "healthy": (narrow, 420),
        "collapsed": (list(map(looped, narrow)), 150),
        "memorising": (documents(8, random.Random(0)) * 5, 140),
        "ignoring": (shuffled(narrow[:800]), 280),
    }
    files = {name: texts for name, (texts, _) in kinds.items()}
    files |= {"new": documents(60, Narrow(1)), "any": documents(60, random.Random(1))}
    for name, texts in files.items():
        (folder / f"{name}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    flags = ["--size", "tiny", "--vocab_size", "512", "--compile", "no", "--device", "cpu"]
    flags += ["--dropout", "0", "--weight_decay", "0.1"]
    running = [
        server.start_python(
            "train.py", "--data", f"{name}.txt", "--separator", r"\n\n", *flags,
            "--max_steps", str(steps), "--eval_interval", str(steps), cwd=folder,
        )
        for name, (_, steps) in kinds.items()
    ]  # fmt: skip
    for process in running:
        assert process.wait(240) == 0, process.output()
    return folder


Judge = Callable[..., dict[str, Any]]


@pytest.fixture
def judged(project: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Judge one of the four models by tales that are new to it; return evaluation.json."""
    monkeypatch.setenv("MINIGEN_DATA", str(project / "data"))
    monkeypatch.chdir(project)

    def of(run: str, **flags: Any) -> dict[str, Any]:
        given = {"file": "new.txt", "count": 40, **flags}
        config = EvaluateConfig(run=run, device="cpu", **given)
        return as_json(judge(config, load(config.run, device=config.device)))

    return of


# ---- the four models ----


def test_a_healthy_model_is_healthy(judged: Judge) -> None:
    """The samples of a healthy model follow their prompts, and its losses are alike."""
    found = judged("healthy", file=None)
    assert found["verdict"] == ["healthy"]
    samples, real = found["samples"], found["real"]
    assert samples["follows_prompt"] > 0.7 and real["follows_prompt"] == 1
    assert samples["follows_other_prompt"] < 0.1
    assert abs(samples["entropy"] - real["entropy"]) < 0.1
    assert found["text"]["loss"] < 1.2 * found["train_loss"]
    assert found["text"]["calibration_error"] < 0.05


def test_samples_of_a_collapsed_model_loop(judged: Judge) -> None:
    """A model of tales that loop has loops where real tales, cut the same way, have none."""
    found = judged("collapsed")
    assert any(line.startswith("collapsed: ") for line in found["verdict"])
    assert found["samples"]["stuck"] > 0.3 and found["real"]["stuck"] == 0
    assert found["samples"]["self_repetition"] > 0.3 > 0.1 > found["real"]["self_repetition"]


def test_samples_of_a_memorising_model_are_copies(judged: Judge) -> None:
    """A model of eight tales copies from them, although its own held-out text shows no fault.

    That text has the same tales as the training text.
    """
    found = judged("memorising", file="any.txt", count=20)
    assert any(line.startswith("memorising: ") for line in found["verdict"])
    assert found["samples"]["copied_run"] > 0.5 and found["real"]["copied_run"] <= 0.05
    assert found["samples"]["longest_run"] > 4 * found["real"]["longest_run"]


def test_a_model_that_ignores_its_prompt_follows_it_only_by_chance(judged: Judge) -> None:
    """A model of tales with exchanged first lines writes well-formed tales, but not as asked."""
    found = judged("ignoring")
    assert len(found["verdict"]) == 1 and found["verdict"][0].startswith("ignores its prompt: ")
    assert found["samples"]["well_formed"] > 0.7 and found["samples"]["follows_prompt"] < 0.15


KEYS = [
    "model", "step", "config", "text", "perplexity", "bits_per_byte", "floor", "train_loss",
    "run_length", "n_samples", "short", "samples", "real", "answers", "verdict",
]  # fmt: skip
OF_TEXT = [
    "n_tokens", "loss", "calibration_error", "calibration", "by_position", "single_tokens",
]  # fmt: skip
OF_SAMPLES = [
    "well_formed", "follows_prompt", "valid", "follows_other_prompt", "identical", "loops", "stuck",
    "self_repetition", "distinct_1", "distinct_2", "distinct_3", "copied_run", "copied_whole",
    "longest_run", "entropy", "different",
]  # fmt: skip


def test_the_command_writes_for_people_and_programs(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints a table, and writes a PNG and JSON with stable keys beside the run."""
    monkeypatch.setenv("MINIGEN_DATA", str(project / "data"))
    monkeypatch.chdir(project)
    command.main(["healthy", "--count", "4", "--seed", "1", "--device", "cpu"])
    out, run = capsys.readouterr().out, project / "out" / "healthy"
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert list(found) == KEYS and list(found["text"]) == OF_TEXT
    assert list(found["samples"]) == OF_SAMPLES and list(found["real"]) == OF_SAMPLES[:-1]
    assert all(len(bin) == 3 for bin in found["text"]["calibration"])
    assert all(len(stretch) == 2 for stretch in found["text"]["by_position"])
    assert f"{found['text']['loss']:.4f} nats/token" in out and "real text" in out
    assert out.endswith("\n".join(found["verdict"]) + "\n")
    assert (run / "evaluation.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_text_that_cannot_be_judged_on_is_one_line(
    judged: Judge, project: Path, tmp_path: Path
) -> None:
    """A missing text, a missing split, flags that contradict and a count below 0 are one line."""
    other = load(project / "out" / "healthy")
    with pytest.raises(UserError, match=r"no run of train.py.*--file FILE"):
        judge(EvaluateConfig(count=0), Engine(other.model, other.tokenizer, tmp_path))
    with pytest.raises(UserError, match=r"has no held-out text"):
        judged("healthy", file=None, split="held_out")
    with pytest.raises(UserError, match="exclude each other"):
        judged("healthy", split="held_out")
    with pytest.raises(UserError, match="--count is -1; give 0 or more"):
        command.main(["--count", "-1"])


def test_a_run_that_moved_finds_its_text(
    judged: Judge, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is copied to another place is judged on its text, whose folder it remembers."""
    shutil.copytree(project / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    assert judged("healthy", file=None, eval_tokens=300, count=2)["train_loss"] is not None


def test_a_text_that_is_missing_or_changed_is_one_line(
    judged: Judge, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the run's text there is an error; with --file, only copies are not searched."""
    shutil.copytree(project / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    text = (project / "healthy.txt").rename(project / "away.txt")
    with pytest.raises(UserError, match=r"'healthy.txt'.*give a text to judge on: --file FILE"):
        judged("healthy", file=None)
    text.rename(project / "healthy.txt")
    (tmp_path / "healthy.txt").write_text("another text " * 50, encoding="utf-8")
    with pytest.raises(UserError, match="no longer the text that it was trained on"):
        judged("healthy", file=None)
    found = judged("healthy", file=str(project / "new.txt"), separator=r"\n\n")
    assert "copied_run" not in found["samples"] and found["verdict"] == ["healthy"]


def test_an_unknown_ending_of_the_plot_is_refused_before_the_work(tmp_path: Path) -> None:
    """An unknown ending of --plot is refused before a model is loaded."""
    with pytest.raises(UserError, match=r"x.doc: give a name that ends in .png, .pdf or .svg$"):
        command.main(["--out_dir", str(tmp_path / "none"), "--plot", "x.doc"])


@pytest.fixture
def of_one_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judgement:
    """Judge a model that knows nothing on a text of one byte."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path))
    (tmp_path / "little.txt").write_text("a", encoding="utf-8")
    model, _ = ignorant(tmp_path, "ab")
    loaded = Engine(model, train_tokenizer("byte", []), tmp_path, device="cpu")
    return judge(EvaluateConfig(file=str(tmp_path / "little.txt"), device="cpu"), loaded)


def test_very_little_text_gets_no_verdict(of_one_byte: Judgement) -> None:
    """A text of one byte has a loss, but no verdict, and "n/a" for metrics without a count."""
    few = ["no verdict: 1 tokens are too few; --file FILE judges on more text"]
    assert verdict(of_one_byte) == as_json(of_one_byte)["verdict"] == few
    assert "n/a" in table(of_one_byte) and " 0.0%" not in table(of_one_byte)


def test_a_perplexity_beyond_all_floats_is_inf(of_one_byte: Judgement) -> None:
    """A loss of 1000 nats/token, whose perplexity no float can hold, is in the table."""
    surprised = replace(of_one_byte, text=replace(of_one_byte.text, loss=1000.0))
    assert "perplexity inf" in table(surprised)


def test_labels_of_the_plot_do_not_overlap(of_one_byte: Judgement, tmp_path: Path) -> None:
    """No label of evaluation.png covers a label of another panel, or leaves the picture."""
    metrics = SampleMetrics(
        GenreMetrics(1.0, 1.0, 1.0, 0.0),
        RepetitionMetrics(0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4),
        CopyMetrics(0.0, 0.0, 100),
        1.0,
    )
    compared = Comparison(metrics, metrics, 100, False, 120)
    figure = plot(replace(of_one_byte, comparison=compared), tmp_path / "x.png")
    boxes = [axes.get_tightbbox() for axes in figure.get_axes()]
    assert len(boxes) == 3 and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# ---- one validation loss ----

SMALL = "--n_layer 1 --n_embd 16 --n_head 2 --batch_size 2 --vocab_size 300 --seed 1"
BRIEF = "--max_steps 20 --eval_interval 20 --device cpu --compile no"


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-5)])
def test_evaluate_and_train_give_one_validation_loss(
    dtype: str, tolerance: float, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both commands give a run the same loss, also if it is fine-tuned with a shorter context."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    if dtype == "bfloat16":  # whether products in it are fast here or not
        monkeypatch.setattr(command, "choose_dtype", lambda *_: "bfloat16")
    usual = [*BRIEF.split(), "--data", str(text), "--dtype", dtype]
    assert train.main([*usual, *SMALL.split(), "--block_size", "64", "--name", "new"]) == 0
    tuned = ["--init_from", "new", "--block_size", "32", "--name", "tuned"]
    assert train.main([*usual, *tuned]) == 0
    for name in ("new", "tuned"):
        logged = [line for line in read_metrics(Path("out", name)) if "final_val_loss" in line]
        config = EvaluateConfig(run=name, count=0, device="cpu")
        found = judge(config, load(config.run, device=config.device))
        assert found.text.loss == pytest.approx(logged[-1]["final_val_loss"], rel=tolerance)
        bits = logged[-1]["final_val_bits_per_byte"]
        assert found.bits_per_byte == pytest.approx(bits, rel=tolerance)
