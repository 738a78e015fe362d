"""Flags: --help shows each with its default in words, and a wrong command line is one line."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import Server

import train
from minigen.cli import Flag, flags, help_text, parse
from minigen.corpora.command import CorpusConfig
from minigen.errors import UserError, check_range
from minigen.evaluation.command import EvaluateConfig
from minigen.files.export import ExportConfig
from minigen.files.merges import MergesConfig
from minigen.inference.parity import CheckConfig
from minigen.learn.command import LearnConfig
from minigen.learn.experiments import ExperimentConfig
from minigen.model import GPT
from minigen.run import config as config_module
from minigen.run.compare import CompareConfig
from minigen.run.config import RANGES, SIZES, check_ranges, new_shape, resolve
from sample import SampleConfig
from train import TrainConfig

ROOT = Path(train.__file__).parent
CONFIGS = [TrainConfig, SampleConfig, EvaluateConfig, CompareConfig, CheckConfig, ExportConfig,
           MergesConfig, CorpusConfig, ExperimentConfig, LearnConfig]  # fmt: skip
# Flags that earlier versions took 0 for as "choose for me".
ONCE_0 = ("n_layer", "n_head", "n_embd", "block_size", "minutes", "max_steps", "batch_size",
          "gradient_accumulation_steps", "lora_rank", "learning_rate", "eval_interval",
          "threads")  # fmt: skip

per_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)


@per_config
def test_help_says_what_a_flag_that_is_not_given_becomes(config: type[Any]) -> None:
    """Each flag has a help text, which states the default in words if the default is empty."""
    for flag in flags(config):
        assert flag.comment, flag.name
        if flag.default in (None, "", ()):
            assert re.search(r"\(default: \w[^()]*\)$", flag.comment), (
                f"{flag.name}: {flag.comment}"
            )
        assert flag.default is dataclasses.MISSING or flag.description.endswith(")")


@pytest.mark.parametrize("name", ONCE_0)
def test_a_flag_that_is_not_given_is_none(name: str) -> None:
    """A flag that is not given is None, never a number, so that each number can be checked."""
    assert getattr(TrainConfig(), name) is None


def test_0_is_an_error_where_it_once_meant_auto(server: Server, tmp_path: Path) -> None:
    """A flag such as `--n_layer 0` is an error of one line with exit code 2, and makes no file."""
    for name in ONCE_0:
        done = server.python(ROOT / "train.py", f"--{name}", "0", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"error: --{name} is 0(\.0)?; give (1|more|from 1) .*\n", done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", RANGES)
def test_a_number_outside_its_range_is_an_error(name: str) -> None:
    """Each limit of `RANGES` is enforced, and NaN is in no range."""
    least, most = RANGES[name]
    for value in (least - 1, most + 1 if most < 2**62 else least - 1, float("nan")):
        with pytest.raises(UserError, match=rf"^--{name} is .*; give "):
            check_ranges(dataclasses.replace(TrainConfig(), **{name: value}))


@pytest.mark.parametrize("name", ["n_layer", "n_embd", "block_size", "batch_size", "lora_rank"])
def test_a_number_that_no_machine_holds_is_refused(name: str) -> None:
    """A size of 10^18 is refused by the name of its flag before anything is computed."""
    with pytest.raises(UserError, match=rf"^--{name} is 1000000000000000000; give "):
        check_ranges(dataclasses.replace(TrainConfig(), **{name: 10**18}))


@pytest.mark.parametrize(
    "name", ["dropout", "warmup_steps", "cooldown", "weight_decay", "grad_clip"]
)
def test_0_stays_a_value_where_it_switches_off(name: str) -> None:
    """A flag such as `--dropout 0` keeps the value 0."""
    assert getattr(resolve(dataclasses.replace(TrainConfig(), **{name: 0})), name) == 0


def test_a_range_is_stated_in_plain_numbers() -> None:
    """An error names the limits without exponents."""
    for limits, words in (
        ((1,), "give 1 or more"),
        ((0, 10), "give from 0 to 10"),
        ((0, 10**9), "give from 0 to 1,000,000,000"),
        ((5e-324,), "give more than 0"),
        ((5e-324, 10**9), "give more than 0, at most 1,000,000,000"),
    ):
        with pytest.raises(UserError, match=f"^--x is -1; {words}$"):
            check_range("--x", -1, *limits)


def test_groups_of_help_are_the_headings_in_the_source() -> None:
    """--help shows the flags in the order of the fields, each under the heading above it."""
    text = help_text(TrainConfig, "data", None)
    source = inspect.getsource(TrainConfig)
    headings = re.findall(r"^(\w.*):$", text, flags=re.M)
    assert headings == re.findall(r"# --- (.*) ---", source) and len(headings) >= 6
    shown = re.findall(r"^  --(?:\[no_\])?(\w+)", text, flags=re.M)
    assert shown == [field.name for field in dataclasses.fields(TrainConfig)]


@per_config
@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_help_fits_into_the_terminal(
    config: type[Any], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line is ASCII, and fits into the terminal unless it lists the choices of a flag."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "argv", ["x"])
    lines = help_text(config, None, None).splitlines()
    choices = [line for line in lines if line.startswith("  --") and "{" in line]
    assert all(len(line) <= int(columns) for line in lines if line not in choices)
    assert all(line.isascii() and line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("default", "shown"),
    [(2048, "2048"), (0.1, "0.1"), (True, "on"), (False, "off"), (("a", "b"), "a b"), ("x", "x")],
)
def test_a_default_that_is_a_value_is_shown_as_it_is_typed(default: Any, shown: str) -> None:
    """A comment without a default gets the value of the field."""
    flag = Flag("name", type(default), False, False, default, "heading", "what it is")
    assert flag.description == f"what it is (default: {shown})"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize(
    ("config", "argv", "message"),
    [
        (
            CorpusConfig,
            [],
            "CORPUS (the corpus: tales or pictures or tunes or tasks) is missing; usage: ",
        ),
        (ExportConfig, ["run"], "TARGET (the new folder, or the new file NAME.gguf) is missing; "),
        (ExportConfig, [], "SOURCE (a run, whose best checkpoint is taken, or a checkpoint) and "),
        (MergesConfig, [], "WORD (a word, or several in quotes) is missing; usage: "),
        (CorpusConfig, ["cats"], "'cats' is not one of tales, pictures, tunes, tasks; --help"),
        (CorpusConfig, ["tales", "--count"], "--count has no value; give one; --help"),
        (SampleConfig, ["--adapter"], "--adapter has no value; give one; --help"),
        (TrainConfig, ["--data", "--max_steps", "1"], "--data has no value; give one; --help"),
        (TrainConfig, ["--old-data"], "--old_data has no value; give one; --help"),
        (CorpusConfig, ["tales", "--count", "x"], "--count: 'x' is not a whole number; --help"),
        (TrainConfig, ["--size", "big"], "--size: 'big' is not one of auto, tiny, slim, light, "),
    ],
)
def test_a_wrong_command_line_is_an_error_of_one_line(
    config: type[Any],
    argv: list[str],
    message: str,
    encoding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is the same whether or not the terminal has the characters of a frame."""
    stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(UserError) as error:
        parse(config, argv)
    assert str(error.value).startswith(message)
    assert str(error.value).isascii() and str(error.value).isprintable()


def test_the_stated_sizes_of_the_presets_are_exact() -> None:
    """The comment at `SIZES` has the number of parameters of each preset."""
    source = inspect.getsource(config_module).split("SIZES: dict")[0]
    for settings in SIZES.values():
        with torch.device("meta"):
            model = GPT(new_shape(2048, dataclasses.replace(TrainConfig(), **settings)))
        assert f"{model.n_parameters():,}" in source


@dataclasses.dataclass(frozen=True)
class Plain:
    """A dataclass of three flags."""

    first: int = 1  # a comment
    second: int = 2
    # a comment above
    third: int = 3


def test_a_comment_belongs_to_one_field() -> None:
    """A comment after or above a field is the help text of that field only."""
    assert [flag.comment for flag in flags(Plain)] == ["a comment", "", "a comment above"]
