"""The size, the dropout and the weight decay of a new model follow the machine and the text."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from minigen.data.vocabulary import vocabulary_size
from minigen.run import recipe
from minigen.run.config import SIZES, new_shape, resolve
from minigen.run.recipe import (
    LADDER,
    LARGEST_DECAY,
    TOKENS_PER_PARAMETER,
    TRAINING_SHARE,
    choose,
    fall_of_loss,
    regularisation,
)
from minigen.run.text import Text, find_text
from train import TrainConfig


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Text:
    """Return a text of about 130,000 tokens."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    path = tmp_path / "my.txt"
    path.write_text("The cat sat on the mat, and the dog sat by the cat. " * 10_000, "utf-8")
    flags = resolve(TrainConfig(data=(str(path),), vocab_size=300, device="cpu"))
    found, _ = find_text(flags, None, None, None, {})
    return found


def chosen(
    text: Text, monkeypatch: pytest.MonkeyPatch, seconds: float, **given: Any
) -> TrainConfig:
    """Return the choice for a machine that takes 1 ms for 10,000 parameters and 1,000 tokens."""

    def seconds_of_step(model: Any, tokens: Any, config: TrainConfig, *_: Any) -> float:
        return 1e-10 * config.batch_size * config.block_size * float(model.n_parameters())

    monkeypatch.setattr(recipe, "seconds_of_step", seconds_of_step)
    flags = TrainConfig(data=("my.txt",), device="cpu", **given)
    return choose(flags, resolve(flags), text, seconds)


@pytest.mark.parametrize(("minutes", "n_timed"), [(0, 3), (30, 5)])
def test_a_longer_run_times_more_steps(
    text: Text, monkeypatch: pytest.MonkeyPatch, minutes: float, n_timed: int
) -> None:
    """A run of 30 minutes times 5 steps of 2 seconds, the shortest run 3; the fastest counts."""
    times: list[float] = []

    def seconds_of_step(*_: Any) -> float:
        times.append(1.0 if len(times) == n_timed - 1 else 2.0)
        return times[-1]

    monkeypatch.setattr(recipe, "seconds_of_step", seconds_of_step)
    flags = TrainConfig(data=("my.txt",), device="cpu", size="mini", dropout=0.0)
    config = choose(flags, resolve(flags), text, 60 * minutes)
    step_tokens = config.batch_size * config.block_size
    epochs = TRAINING_SHARE * 60 * minutes / 1.0 * step_tokens / text.train_tokens.n_tokens
    assert config.weight_decay == regularisation(epochs, 99)[1] < LARGEST_DECAY
    assert len(times) == n_timed


def n_parameters(text: Text, size: Any) -> int:
    """Return the parameters of a model of a preset."""
    config = resolve(TrainConfig(data=("my.txt",), device="cpu", size=size))
    return recipe.GPT(new_shape(text.tokenizer.n_vocab, config)).n_parameters()


@pytest.mark.parametrize("smaller", LADDER[:-1])
def test_the_size_is_the_largest_that_reads_enough_tokens(
    text: Text, monkeypatch: pytest.MonkeyPatch, smaller: str
) -> None:
    """With a little more time than a size needs, it is chosen; with less, the one before it."""
    size = LADDER[LADDER.index(smaller) + 1]
    n = n_parameters(text, size)
    seconds = TOKENS_PER_PARAMETER * n * 1e-10 * n / TRAINING_SHARE
    assert chosen(text, monkeypatch, 1.01 * seconds).size == size
    assert chosen(text, monkeypatch, 0.99 * seconds).size == smaller
    assert chosen(text, monkeypatch, 0).size == LADDER[0]
    assert any(f"it would be {size}" in note for note in text.notes)


def test_a_number_of_steps_decides_without_timing(
    text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --max_steps the choice depends on the tokens of its batches, and on no machine."""
    light = SIZES["light"]
    step_tokens = light["batch_size"] * light["block_size"]
    least = math.ceil(TOKENS_PER_PARAMETER * n_parameters(text, "light") / step_tokens)
    monkeypatch.delattr(recipe, "seconds_of_step")
    for max_steps, size in ((least, "light"), (least - 1, "tiny")):
        flags = TrainConfig(data=("my.txt",), device="cpu", max_steps=int(max_steps))
        assert choose(flags, resolve(flags), text, 0).size == size


def test_a_flag_that_is_given_stays(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size fills in only those of its values that were not given, as do both rates."""
    config = chosen(text, monkeypatch, 1e9, n_embd=40, dropout=0.3, weight_decay=0)
    assert (config.n_embd, config.dropout, config.weight_decay) == (40, 0.3, 0)
    assert (config.size, config.n_layer) == (LADDER[-1], SIZES[LADDER[-1]]["n_layer"])
    assert chosen(text, monkeypatch, 1e9, size="light").n_embd == SIZES["light"]["n_embd"]
    assert chosen(text, monkeypatch, 1e9, block_size=9).block_size == 9


def test_a_short_text_is_too_little_for_a_larger_model(
    text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the run is, and no line promises a larger size for more minutes."""
    short = dataclasses.replace(text, notes=[])
    monkeypatch.setitem(text.train_tokens.__dict__, "n_tokens", 10_000)  # a cached property
    assert chosen(short, monkeypatch, 1e9).size == LADDER[0]
    assert len(short.notes) == 1 and "it would be" not in short.notes[0]


def test_the_vocabulary_grows_with_the_text() -> None:
    """A merge for 500 characters, up to 2,048 tokens; 4,096 for 20 million characters or more."""
    lengths = (10, 9_000, 90_000, 900_000, 19_999_999, 20_000_000, 10**9)
    sizes = [vocabulary_size(n) for n in lengths]
    assert sizes == [257, 275, 437, 2048, 2048, 4096, 4096]


def test_regularisation_is_for_texts_that_a_model_can_know_by_heart() -> None:
    """More epochs never mean less of either; with fewer parameters than tokens there is little."""
    rates = [regularisation(epochs, 3) for epochs in range(200)]
    assert rates == sorted(rates)
    assert [rates[epochs] for epochs in (0, 3, 14, 199)] == [(0, 0.1), (0, 0.3), (0, 1.4), (0.2, 4)]
    assert regularisation(200, 0.9) == (0, 0.1)


def test_the_fall_of_the_loss_is_that_of_measured_runs() -> None:
    """Losses of docs/notebook.md on real text, of a shorter and a longer run, within a third."""
    for epochs, times, shorter, longer in (
        (0.12, 5, 1.936, 1.666), (3, 2, 1.456, 1.415), (6, 5, 1.415, 1.377)
    ):  # fmt: skip
        assert fall_of_loss(epochs, times) == pytest.approx(1 - longer / shorter, rel=1 / 3)
    assert fall_of_loss(60, 4) == 0  # a text that is known by heart


def test_the_line_about_the_choice_says_how_much_a_longer_run_may_give(
    text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate is that of four times the minutes, unless the steps are too few to tell.

    Of a text with an entropy there is none.
    """
    chosen(text, monkeypatch, 1, minutes=0.5)
    assert "lower" not in text.notes[-1]
    chosen(text, monkeypatch, 10, minutes=0.5)
    epochs = float(re.findall(r"read the text ([\d.]+) times", text.notes[-1])[0])
    fall = fall_of_loss(epochs, 4)
    assert text.notes[-1].endswith(f"; with --minutes 2 the loss may be {fall:.0%} lower")
    known = dataclasses.replace(text, notes=[], entropy=1.0)
    chosen(known, monkeypatch, 10, minutes=0.5)
    assert len(known.notes) == 1 and "lower" not in known.notes[0]


def test_a_size_that_is_given_is_not_timed_in_vain(
    text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no setting depends on it, no step is timed; else memory that runs out is no error."""
    monkeypatch.delattr(recipe, "seconds_of_step")
    flags = TrainConfig(data=("my.txt",), device="cpu", size="light", dropout=0.1, weight_decay=0.2)
    assert choose(flags, resolve(flags), text, 60).weight_decay == 0.2

    def out_of_memory(*_: Any) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(recipe, "seconds_of_step", out_of_memory, raising=False)
    flags = TrainConfig(data=("my.txt",), device="cpu", size="light")
    assert choose(flags, resolve(flags), text, 60).dropout == 0
