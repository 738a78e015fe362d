"""Each guard is needed: without it, one of the tests fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forks import ROOT

# What is dropped: the file, the words, what stands there instead, and a test that must then fail.
MUTANTS = {
    "fsync of a file": (
        "minigen/tensor_file.py", "    os.fsync(file.fileno())\n", "",
        "test_kills.py::test_order_of_flushes",
    ),
    "fsync of the folder": (
        "minigen/checkpoint.py", "        _sync(folder)\n", "",
        "test_kills.py::test_order_of_flushes",
    ),
    "fsync of the parent": (
        "minigen/checkpoint.py", "        _sync(run)\n", "",
        "test_kills.py::test_order_of_flushes",
    ),
    "rename": (
        "minigen/checkpoint.py", 'folder = run / f".tmp-{target.name}"', "folder = target",
        "test_kills.py::test_order_of_flushes",
    ),
    "the optimiser's state": (
        "train.py",
        "optimizer.load(distributed.scatter(last.optimizer, optimizer.state), step - skipped)",
        "pass",
        "test_kills.py::test_killed_ten_times",
    ),
    "the seed of a step": (
        "train.py", "        torch.manual_seed(int(key))\n", "",
        "test_kills.py::test_killed_ten_times",
    ),
    "the manifest's check": (
        "minigen/checkpoint.py", "if facts.get(path.name) != dataclasses.asdict(fact)", "if False",
        "test_damage.py::test_every_damage_is_named_and_passed_over",
    ),
    "the finite check": (
        "train.py", "return bool((loss.isfinite() & norm.isfinite()).item())", "return True",
        "test_signals.py::test_what_is_no_number_is_not_learnt",
    ),
    "the lock": (
        "minigen/checkpoint.py", "        held.acquire()\n", "",
        "test_disk.py::test_two_runs_in_one_folder",
    ),
    "the shapes' check": (
        "minigen/checkpoint.py", "        _fit(config, *files)\n", "",
        "test_hostile.py::test_handcrafted",
    ),
    "the header's limit": (
        "minigen/tensor_file.py", "min(self.size - 8, MOST_HEADER)", "self.size - 8",
        "test_hostile.py::test_handcrafted",
    ),
    "the text's check": (
        "train.py", 'last.state["content"] != content', "False",
        "test_disk.py::test_another_text_config_or_tokenizer_is_refused",
    ),
    "a tokenizer's truncation is set aside": (
        "minigen/hub_tokenizer.py", 'saved |= {"truncation": None, "padding": None}', "pass",
        "../test_hub_tokenizer.py::test_truncation_and_padding_are_set_aside",
    ),
    "what is not byte-level is refused": (
        "minigen/hub_tokenizer.py", "    if why:\n", "    if False:\n",
        "../test_hub_tokenizer.py::test_what_is_no_byte_level_tokenizer_is_called_by_its_name",
    ),
    "a place to cut is tried": (
        "minigen/hub_tokenizer.py",
        "return [*self.encode(before), *self.encode(after)] == self.encode(before + after)",
        "return True",
        "../test_hub_tokenizer.py::test_tokens_of_parts_are_tokens_of_the_whole",
    ),
    "a token has a row": (
        "minigen/pretrained.py", "if tokenizer.n_vocab > config.vocab_size:", "if False:",
        "../test_hub_tokenizer.py::test_an_unreadable_folder_costs_one_line_before_weights",
    ),
    "control tokens in a prompt": (
        "minigen/hub_tokenizer.py", "self._theirs.encode_special_tokens = not special", "",
        "../test_companions.py::test_a_checkpoint_keeps_what_belongs_to_its_model",
    ),
    "the model's own ends": (
        "minigen/hub_tokenizer.py", "    tokenizer.ends = companions.ends\n", "",
        "../test_companions.py::test_each_end_ends_a_text_and_is_not_shown",
    ),
    "a setting that is not computed": (
        "minigen/companions.py", "        if refused:\n", "        if False:\n",
        "../test_companions.py::test_what_is_not_computed_is_refused_by_name",
    ),
    "what belongs to a model": (
        "minigen/checkpoint.py", ": config, **beside.files}", ": config}",
        "../test_companions.py::test_a_checkpoint_keeps_what_belongs_to_its_model",
    ),
}  # fmt: skip
CHEAP = ("fsync of a file", "rename", "the optimiser's state", "the manifest's check",
         "the finite check")  # fmt: skip


@pytest.mark.parametrize(
    "name", [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in MUTANTS]
)
def test_a_guard_less_is_noticed(name: str, tmp_path: Path) -> None:
    """A copy of minigen without it fails a test that passes with it."""
    path, guard, instead, test = MUTANTS[name]
    for part in ("minigen", "tests", "train.py", "sample.py", "pyproject.toml"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / part)
    mutant = tmp_path / path
    text = mutant.read_text(encoding="utf-8")
    assert text.count(guard) == 1
    mutant.write_text(text.replace(guard, instead), encoding="utf-8")
    # No other process, as there is one test; and nobody reads why it fails.
    options = ["-q", "-x", "-n", "0", "--assert=plain", "-p", "no:cacheprovider"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--basetemp={tmp_path / 'trials'}",
         f"tests/faults/{test}"],
        cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout
