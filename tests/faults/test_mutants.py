"""Each guard is needed: without it, one of the tests fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from forks import ROOT, Server

# What is dropped: the file, the words, what stands there instead, and a test that must then fail.
MUTANTS = {
    "fsync of a file": (
        "minigen/system/disk.py", "        os.fsync(file.fileno())\n", "        pass\n",
        "test_kills.py::test_order_of_flushes",
    ),
    "fsync of the folder": (
        "minigen/files/checkpoint.py", "        disk.flush_folder(folder)\n", "",
        "test_kills.py::test_order_of_flushes",
    ),
    "fsync of the parent": (
        "minigen/files/checkpoint.py", "        disk.flush_folder(run)\n", "",
        "test_kills.py::test_order_of_flushes",
    ),
    "rename": (
        "minigen/files/checkpoint.py", 'folder = run / f".tmp-{target.name}"', "folder = target",
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
        "minigen/files/checkpoint.py",
        "if facts.get(path.name) != dataclasses.asdict(fact)", "if False",
        "test_damage.py::test_every_damage_is_named_and_passed_over",
    ),
    "the finite check": (
        "train.py", "return bool((loss.isfinite() & norm.isfinite()).item())", "return True",
        "test_signals.py::test_what_is_no_number_is_not_learnt",
    ),
    "the lock": (
        "minigen/system/disk.py", "        _lock(file)\n", "        pass\n",
        "test_disk.py::test_two_runs_in_one_folder",
    ),
    "the shapes' check": (
        "minigen/files/checkpoint.py", "        _fit(config, *files)\n", "",
        "test_hostile.py::test_handcrafted",
    ),
    "the header's limit": (
        "minigen/files/safetensors_file.py", "min(self.size - 8, MOST_HEADER)", "self.size - 8",
        "test_hostile.py::test_handcrafted",
    ),
    "the text's check": (
        "train.py", 'last.state["content"] != content', "False",
        "test_disk.py::test_another_text_config_or_tokenizer_is_refused",
    ),
    "a field's values": (
        "minigen/files/config_file.py", "if name in only and value not in only[name]:", "if False:",
        "../test_config_file.py::test_what_is_refused",
    ),
    "an unknown field": (
        "minigen/files/config_file.py", "if name not in only and name not in computed", "if False",
        "../test_config_file.py::test_what_is_refused",
    ),
    "a head of its own": (
        "minigen/files/huggingface.py", "tied_head=bool((read(HEAD) == embedding).all())", "",
        "../test_weight_files.py::test_a_head_of_its_own_counts",
    ),
    "biases that are not zero": (
        "minigen/files/huggingface.py", "if any(name in names and read(name).any()", "if any(False",
        "../test_weight_files.py::test_biases_that_should_not_be_there",
    ),
    "what is computed anyway": (
        "minigen/files/huggingface.py", "        if not same:\n", "        if False:\n",
        "../test_weight_files.py::test_what_is_computed_anyway",
    ),
    "several formats of numbers": (
        "minigen/files/huggingface.py", ".to(functools.reduce(torch.promote_types, formats))", "",
        "../test_weight_files.py::test_several_formats_of_numbers",
    ),
    "one tensor in two files": (
        "minigen/files/weight_files.py",
        "            if name in home:\n", "            if False:\n",
        "../test_weight_files.py::test_files_in_pieces",
    ),
    "an adapter": (
        "minigen/files/huggingface.py",
        "        if adapter.is_one(folder):\n", "        if False:\n",
        "../test_adapter.py::test_the_logits_are_those_of_peft",
    ),
    "an adapter's fields": (
        "minigen/files/adapter.py", "decide(config, COMPUTED, ONLY, HARMLESS, str(where))", "pass",
        "../test_adapter.py::test_what_is_refused",
    ),
    "whose folder": (
        "minigen/files/checkpoint.py", "(named and not theirs)", "named",
        "../test_weight_files.py::test_a_folder_of_others_is_what_it_holds",
    ),
    "what a file system may lack": (
        "minigen/system/disk.py", "if error.errno not in lacking:", "if True:",
        "test_machines.py::test_what_a_file_system_lacks_is_a_warning",
    ),
    "an error of the disk": (
        "minigen/system/disk.py", "if error.errno not in lacking:", "if False:",
        "test_machines.py::test_an_error_of_the_disk_is_no_lack",
    ),
    "the documents of a user's text": (
        "minigen/corpora/__init__.py", "(n := count_documents(plain, END_OF_TEXT))", "(n := 0)",
        "../test_own_text.py::test_end_of_text_in_a_file_separates_documents",
    ),
    "a tokenizer's truncation is set aside": (
        "minigen/files/hub_tokenizer.py", 'saved |= {"truncation": None, "padding": None}', "pass",
        "../test_hub_tokenizer.py::test_truncation_and_padding_are_set_aside",
    ),
    "what is not byte-level is refused": (
        "minigen/files/hub_tokenizer.py", "    if why:\n", "    if False:\n",
        "../test_hub_tokenizer.py::test_what_is_no_byte_level_tokenizer_is_called_by_its_name",
    ),
    "a place to cut is tried": (
        "minigen/files/hub_tokenizer.py",
        "return [*self.encode(before), *self.encode(after)] == self.encode(before + after)",
        "return True",
        "../test_hub_tokenizer.py::test_tokens_of_parts_are_tokens_of_the_whole",
    ),
    "a token has a row": (
        "minigen/files/huggingface.py", "if tokenizer.n_vocab > config.vocab_size:", "if False:",
        "../test_hub_tokenizer.py::test_an_unreadable_folder_costs_one_line_before_weights",
    ),
    "control tokens in a prompt": (
        "minigen/files/hub_tokenizer.py", "self._theirs.encode_special_tokens = not special", "",
        "../test_companions.py::test_a_checkpoint_keeps_what_belongs_to_its_model",
    ),
    "the model's own ends": (
        "minigen/files/tokenizer_files.py", "    tokenizer.ends = companions.ends\n", "",
        "../test_companions.py::test_each_end_ends_a_text_and_is_not_shown",
    ),
    "a setting that is not computed": (
        "minigen/files/companions.py", "        if refused:\n", "        if False:\n",
        "../test_companions.py::test_what_is_not_computed_is_refused_by_name",
    ),
    "what belongs to a model": (
        "minigen/files/checkpoint.py", ": config, **beside.files}", ": config}",
        "../test_companions.py::test_a_checkpoint_keeps_what_belongs_to_its_model",
    ),
}  # fmt: skip
CHEAP = ("fsync of a file", "rename", "the optimiser's state", "the manifest's check",
         "the finite check")  # fmt: skip


@pytest.mark.parametrize(
    "name", [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in MUTANTS]
)
def test_a_guard_less_is_noticed(name: str, server: Server, tmp_path: Path) -> None:
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
    where = (f"--basetemp={tmp_path / 'trials'}", f"tests/faults/{test}")
    done = server.python("-m", "pytest", *options, *where, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout
