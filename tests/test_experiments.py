"""`python -m minigen experiment`: a change of a small model, and the figure to expect."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forks import Server
from models import random_model

import minigen.model
from minigen.corpora import tales
from minigen.learn.exercise import find
from minigen.learn.experiment import DEVIATIONS, Expected, changed, last_loss
from minigen.learn.experiments import BY_NAME, EXPERIMENTS, FIGURES, SHORT, TALES
from minigen.model import GPT, Block, GPTConfig, RMSNorm
from minigen.run.log import read_metrics
from minigen.run.run import Run, Stopped

ROOT = Path(minigen.model.__file__).parents[1]
CHANGED = [each for each in EXPERIMENTS if each.replacements]
PAGE = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")


# ---- the list ----


def test_the_page_has_the_experiments_and_their_figures() -> None:
    """docs/experiments.md has each experiment with its question and its figures, as the code."""
    questions = re.findall(r"^- `(\w+)`: (.*)$", PAGE, flags=re.M)
    assert questions == [(each.name, each.question) for each in EXPERIMENTS]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", PAGE, flags=re.M)
    assert rows == [
        (each, name, str(figure)) for each in FIGURES for name, figure in FIGURES[each].items()
    ]


def test_each_experiment_has_a_question_an_answer_and_figures() -> None:
    """Each experiment asks, says what to look at, answers, and has the figures of three seeds."""
    assert len(BY_NAME) == len(EXPERIMENTS) and list(FIGURES) == list(BY_NAME)
    for each in EXPERIMENTS:
        assert each.question.endswith("?") and "?" in each.think and len(each.answer) > 100
        for expected in FIGURES[each.name].values():
            assert len(expected.figures) == 3 and all(map(math.isfinite, expected.figures))


def test_each_of_the_twenty_questions_names_the_test_that_answers_it() -> None:
    """docs/teaching.md has 20 questions, each with an answer and the name of a test."""
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    section = page.split("## Twenty questions")[1].split("\n## ")[0]
    items = re.findall(r"^(\d+)\. \*\*([^*]+\?)\*\*(.*?)(?=^\d+\. |\Z)", section, flags=re.M | re.S)
    assert [int(number) for number, _, _ in items] == list(range(1, 21))
    for number, _, answer in items:
        assert re.search(r"`test_\w+`", answer), number


def test_an_experiment_changes_one_thing() -> None:
    """Beside its base, an experiment has one other flag, one other text, or other code."""
    of_texts = dict(SHORT.items() - TALES.items())  # the values that a run on the tales has, too
    for each in EXPERIMENTS:
        if each.base is None:
            continue
        base = BY_NAME[each.base]
        differing = set((of_texts | each.flags).items()) ^ set((of_texts | base.flags).items())
        names = {name for name, _ in differing}
        other_text = each.n_tales != base.n_tales
        assert len(names) + other_text + bool(each.replacements) == 1, each.name


def test_the_margin_is_that_of_student() -> None:
    """95 % of new runs lie within `DEVIATIONS` standard deviations of the mean of three.

    With two degrees of freedom, t lies below x with the probability 1/2 + x / (2 sqrt(2 + x^2)).
    """
    x = DEVIATIONS / math.sqrt(1 + 1 / 3)
    assert 0.5 + x / (2 * math.sqrt(2 + x * x)) == pytest.approx(0.975, abs=1e-4)
    expected = Expected((1.0, 2.0, 3.0))
    assert (expected.mean, expected.margin) == (2.0, DEVIATIONS)
    assert expected.covers(6.9) and not expected.covers(7.0)
    equal = Expected((1.0, 1.0, 1.0), digits=2)
    assert equal.covers(0.98) and not equal.covers(0.96)


# ---- the command ----


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with a small corpus of tales."""
    folder = tmp_path_factory.mktemp("data")
    tales.write(folder / "tales", 60_000, 20_000)
    return folder


Experiment = Callable[..., Any]


@pytest.fixture
def experiment(server: Server, data: Path, tmp_path: Path) -> Experiment:
    """Return a function that runs `python -m minigen experiment WORDS` in the test's folder."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MINIGEN_DATA": str(data)}

    def run(*words: str) -> Any:
        return server.python("-m", "minigen", "experiment", *words, cwd=tmp_path, env=env)

    return run


BRIEF = ("--max_steps", "2", "--threads", "1")


def losses(folder: Path) -> list[float]:
    """Return the validation losses of a run."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["val_loss"] for line in lines if "val_loss" in line]


def test_the_list_has_every_experiment_with_its_question(experiment: Experiment) -> None:
    """Without a name, the command lists each experiment, its question and its figures."""
    done = experiment()
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    for each in EXPERIMENTS:
        figures = "; ".join(f"{name} {one}" for name, one in FIGURES[each.name].items())
        assert f"{each.name} {each.question} expect: {figures}" in text
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_the_printed_command_is_the_experiment(
    experiment: Experiment, server: Server, data: Path, tmp_path: Path
) -> None:
    """The line that an experiment prints, copied into a shell, gives the losses that it reports."""
    done = experiment("one_head", *BRIEF)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("one_head: " + BY_NAME["one_head"].question[:40])
    (line,) = [line for line in done.stdout.splitlines() if "train.py" in line]
    words = shlex.split(line)
    assert "--n_head" in words
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MINIGEN_DATA": str(data)}
    copied = server.python(*words[1:], cwd=tmp_path, env=env)
    assert copied.returncode == 0, copied.stderr
    first, second = (tmp_path / "out/experiments" / name for name in ("one_head", "one_head-2"))
    assert losses(first) == losses(second)
    assert f"{last_loss(read_metrics(first)):.4f}" in done.stdout


def test_a_changed_model_leaves_no_weights(
    experiment: Experiment, server: Server, tmp_path: Path
) -> None:
    """After an experiment that changes code there are metrics, and no model that could be read."""
    done = experiment("no_residual", *BRIEF)
    assert done.returncode == 0, done.stderr
    before, after = BY_NAME["no_residual"].replacements[0].sources()
    assert before in done.stdout and after in done.stdout and "x + " in before
    folder = tmp_path / "out/experiments/no_residual"
    assert len(losses(folder)) >= 2
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left <= {"metrics.jsonl", "samples.jsonl", "loss.png", ".lock"}, left
    assert "sample.py" not in done.stderr  # no line says how to sample it
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    sampled = server.python(ROOT / "sample.py", "--run", str(folder), cwd=tmp_path, env=env)
    assert sampled.returncode == 2 and sampled.stderr.startswith("error: ")


def test_a_short_text_is_written_and_trained_on(experiment: Experiment, tmp_path: Path) -> None:
    """An experiment on some of the tales writes these, and the text that it is validated on."""
    done = experiment("short_text", *BRIEF)
    assert done.returncode == 0, done.stderr
    n_tales = BY_NAME["short_text"].n_tales
    text = (tmp_path / f"out/experiments/train-{n_tales}-tales.txt").read_text(encoding="utf-8")
    documents = tales.documents(0)
    assert text.strip().split("\n\n") == [next(documents).text for _ in range(n_tales or 0)]


def test_another_text_or_length_has_no_expected_figure(
    experiment: Experiment, tmp_path: Path
) -> None:
    """With --max_steps or --data, no figure is called as expected, or not as expected."""
    (tmp_path / "my.txt").write_text("It was a dark and stormy night, and rain fell.\n" * 60)
    done = experiment("one_head", "--data", "my.txt", *BRIEF)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "as expected" not in text and "so they do not apply" in text


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["no_residul"], "there is no experiment 'no_residul'; did you mean no_residual?"),
        (["xyz"], "there is no experiment 'xyz'; the experiments are base, "),
        (["base", "--sed", "1"], "unknown flag --sed; did you mean --seed?"),
        (["base", "--max_steps", "0"], "--max_steps is 0; give 1 or more"),
        (["base", "--seed", "-1"], "--seed is -1; give from 0"),
        (["base", "--data", "none.txt"], "no such file or corpus: 'none.txt'"),
    ],
)
def test_a_wrong_command_is_an_error_of_one_line(
    words: list[str], error: str, experiment: Experiment, tmp_path: Path
) -> None:
    """A wrong name, flag or text is one line with exit code 2, and no run begins."""
    done = experiment(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {error}") and done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_the_answer_needs_no_run(experiment: Experiment, tmp_path: Path) -> None:
    """--answer prints the answer to the question, and trains nothing."""
    done = experiment("no_mask", "--answer")
    assert (done.returncode, done.stderr) == (0, "")
    assert BY_NAME["no_mask"].answer in " ".join(done.stdout.split())
    assert not list(tmp_path.iterdir())


# ---- the changed models ----


def replaced(name: str) -> Any:
    """Return the context in which the model is that of an experiment."""
    return changed(BY_NAME[name].replacements)


def logits(model: GPT, ids: list[int]) -> torch.Tensor:
    """Return the logits (T, V) of a sequence."""
    with torch.no_grad():
        result: torch.Tensor = model.eval()(torch.tensor([ids]))[0]
    return result


@pytest.fixture(scope="module")
def model() -> GPT:
    """Return a random model of one block."""
    return random_model(GPTConfig.modern(20, 16, 1, 2, 16), 0, std=0.4)


def test_without_positions_a_block_sees_a_set(model: GPT) -> None:
    """In one block without positions, the order of the earlier tokens changes no logit."""

    def follow_order() -> bool:
        one, other = (logits(model, ids)[-1] for ids in ([1, 2, 3, 4, 5], [3, 1, 4, 2, 5]))
        return not torch.allclose(one, other, atol=1e-5)

    assert follow_order()
    with replaced("no_positions"):
        assert not follow_order()


def test_without_the_mask_a_token_sees_the_next(model: GPT) -> None:
    """Without the mask, the logits of a token depend on the token that they have to predict."""

    def see_the_future() -> bool:
        one, other = (logits(model, ids)[0] for ids in ([1, 2], [1, 3]))
        return not torch.allclose(one, other, atol=1e-5)

    assert not see_the_future()
    with replaced("no_mask"):
        assert see_the_future()


def test_without_the_sum_a_block_forgets_its_input(model: GPT) -> None:
    """If its MLP gives 0, a block without residual stream gives 0; with it, the stream passes."""
    block = model.blocks[0]
    assert isinstance(block, Block)
    weight = block.mlp.down.weight.data.clone()
    block.mlp.down.weight.data.zero_()
    x = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0))
    assert block(x, None).abs().max() > 0.1
    with replaced("no_residual"):
        assert block(x, None).abs().max() == 0
        assert GPT(model.config).blocks[0].mlp.down.weight.abs().max() > 0  # type: ignore[union-attr]
    assert GPT(model.config).blocks[0].mlp.down.weight.abs().max() == 0  # type: ignore[union-attr]
    block.mlp.down.weight.data.copy_(weight)


def test_without_norms_sizes_pass(model: GPT) -> None:
    """A norm gives vectors of any size one size; without it, twice the vector is twice as long."""
    norm, x = RMSNorm(8, 0.0), torch.arange(1.0, 9.0)
    assert torch.allclose(norm(2 * x), norm(x))
    with replaced("no_norm"):
        assert torch.equal(norm(2 * x), 2 * norm(x))


def test_without_the_scale_scores_are_dot_products() -> None:
    """Without the scale the weights are softmax(q k^T), with the mask or causal."""
    q, k, v = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    causal = torch.ones(5, 5).tril().bool()
    wanted = (q @ k.mT).masked_fill(~causal, -math.inf).softmax(-1) @ v
    assert not torch.allclose(minigen.model.attention(q, k, v), wanted, atol=1e-3)
    with replaced("no_scale"):
        for mask in (None, causal):
            torch.testing.assert_close(minigen.model.attention(q, k, v, mask), wanted)


@pytest.mark.parametrize("each", CHANGED, ids=lambda each: each.name)
def test_the_model_is_minigens_again_after_an_experiment(each: Any) -> None:
    """Each function that an experiment replaces is minigen's own afterwards, also after an error.

    So are the methods of a run that save its weights.
    """
    places = [find(replacement.target) for replacement in each.replacements]
    places += [(Run, "save"), (Run, "finish")]
    before = [getattr(holder, name) for holder, name in places]
    with pytest.raises(KeyboardInterrupt), changed(each.replacements):
        inside = [getattr(holder, name) for holder, name in places]
        assert all(a is not b for a, b in zip(before, inside, strict=True))
        raise KeyboardInterrupt
    assert all(getattr(h, n) is b for (h, n), b in zip(places, before, strict=True))


def test_an_experiment_of_flags_changes_no_code() -> None:
    """An experiment without replacements saves its run as train.py does."""
    save = Run.save
    with changed(()):
        assert Run.save is save


def test_ctrl_c_ends_a_changed_run_without_saving() -> None:
    """A changed run that is to stop does not say that it is saved: it ends with the exit code."""
    with changed(BY_NAME["no_mask"].replacements):
        Run.save(SimpleNamespace(stopped_by=0))  # type: ignore[arg-type]
        with pytest.raises(Stopped) as stop:
            Run.save(SimpleNamespace(stopped_by=2))  # type: ignore[arg-type]
    assert stop.value.code == 130


def test_the_code_that_is_shown_is_the_code_that_runs() -> None:
    """The shown code is that of the two functions, without docstrings."""
    for each in CHANGED:
        for replacement in each.replacements:
            shown, other = replacement.sources()
            assert shown.startswith(("def ", "@torch.no_grad()\ndef ")) and '"""' not in shown
            assert other.startswith("def ") and shown != other


def test_the_figure_is_that_of_the_last_step() -> None:
    """The figure is the last validation loss, not the lowest one, in bits/byte."""
    lines = [{"val_loss": 1.0, "val_bits_per_byte": 0.3}, {"train_loss": 1.0},
             {"val_loss": 2.0, "val_bits_per_byte": 0.6}]  # fmt: skip
    assert last_loss(lines) == 0.6
