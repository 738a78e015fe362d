"""Each guard in the code is needed: without it, a test fails."""

from __future__ import annotations

import ast
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from forks import ROOT, Server


class Mutant(NamedTuple):
    """A guard to remove from the code, and a test that must then fail."""

    where: str  # "module:function" or "module:Class.method"; the module may lie in any folder
    guard: str  # a statement, an expression or "if CONDITION:", which is in the function once
    instead: str  # the replacement, of the same kind
    test: str  # the path of the test, relative to this folder


MUTANTS = {
    "fsync of a file": Mutant(
        "disk:flush", "os.fsync(file.fileno())", "pass",
        "test_kills.py::test_a_save_flushes_files_and_folder_before_the_rename",
    ),
    "fsync of the folder": Mutant(
        "checkpoint:save", "disk.flush_folder(folder)", "pass",
        "test_kills.py::test_a_save_flushes_files_and_folder_before_the_rename",
    ),
    "fsync of the parent": Mutant(
        "checkpoint:save", "disk.flush_folder(run)", "pass",
        "test_kills.py::test_a_save_flushes_files_and_folder_before_the_rename",
    ),
    "rename": Mutant(
        "checkpoint:save", 'folder = run / f".tmp-{target.name}"', "folder = target",
        "test_kills.py::test_a_save_flushes_files_and_folder_before_the_rename",
    ),
    "the optimiser's state": Mutant(
        "start:_resume", "optimizer.load(optimizer_state, last.step - n_skipped)", "pass",
        "test_kills.py::test_a_kill_during_a_save_loses_at_most_that_save",
    ),
    "the seed of a step": Mutant(
        "train:accumulate_gradients", "torch.manual_seed(int(key))", "pass",
        "test_kills.py::test_a_kill_during_a_save_loses_at_most_that_save",
    ),
    "the manifest's check": Mutant(
        "checkpoint:_verify", "digests.get(path.name) != dataclasses.asdict(digest)", "False",
        "test_damage.py::test_every_damage_is_named_and_skipped",
    ),
    "the finite check": Mutant(
        "run.run:Run.accepts", "bool((loss.isfinite() & norm.isfinite()).item())", "True",
        "test_signals.py::test_a_nonfinite_loss_or_gradient_stops_the_run_before_it_is_learnt",
    ),
    "the lock": Mutant(
        "disk:take_lock", "_lock(file)", "pass",
        "test_disk.py::test_a_folder_is_for_one_run_at_a_time",
    ),
    "the shapes' check": Mutant(
        "checkpoint:load", "_check_shapes(config, *files)", "pass",
        "test_hostile.py::test_handcrafted_files_are_harmless",
    ),
    "the header's limit": Mutant(
        "safetensors_file:TensorFile.__init__", "min(self.size - 8, MAX_HEADER)", "self.size - 8",
        "test_hostile.py::test_handcrafted_files_are_harmless",
    ),
    "the text's check": Mutant(
        "start:_prepare", 'last.state["content"] != text.cache_names', "False",
        "test_disk.py::test_another_text_is_refused_on_resume",
    ),
    "the values of a field": Mutant(
        "config_file:decide", "name in only and value not in only[name]", "False",
        "../test_config_file.py::test_an_unsupported_field_is_refused",
    ),
    "an unknown field": Mutant(
        "config_file:decide",
        "name not in only and name not in computed and name not in harmless", "False",
        "../test_config_file.py::test_an_unsupported_field_is_refused",
    ),
    "a head of its own": Mutant(
        "huggingface:config_of_weights", "bool((read(HEAD) == embedding).all())", "True",
        "../test_weight_files.py::test_an_untied_head_is_used",
    ),
    "biases that are not zero": Mutant(
        "huggingface:config_of_weights",
        "any(name in names and read(name).any() for name, _ in zero_biases(config))", "False",
        "../test_weight_files.py::test_biases_in_the_file_are_used",
    ),
    "masks and angles in the file": Mutant(
        "huggingface:check_buffers", "if not agrees:", "if False:",
        "../test_weight_files.py::test_masks_and_angles_are_compared",
    ),
    "several formats of numbers": Mutant(
        "huggingface:build", "model.to(functools.reduce(torch.promote_types, formats))", "model",
        "../test_weight_files.py::test_mixed_number_formats_are_not_rounded",
    ),
    "one tensor in two files": Mutant(
        "weight_files:_together", "if name in home:", "if False:",
        "../test_weight_files.py::test_a_tensor_in_two_files_is_refused",
    ),
    "an adapter": Mutant(
        "huggingface:_model", "if adapter.is_adapter(folder):", "if False:",
        "../test_adapter.py::test_the_logits_are_those_of_peft",
    ),
    "an adapter's fields": Mutant(
        "adapter:add", "decide(config, COMPUTED, ONLY, HARMLESS, str(where))", "pass",
        "../test_adapter.py::test_an_unsupported_adapter_is_refused",
    ),
    "the folder of another program": Mutant(
        "checkpoint:is_checkpoint", "named and not other_program", "named",
        "../test_weight_files.py::test_a_model_of_another_program_is_not_a_checkpoint",
    ),
    "an unsupported operation": Mutant(
        "disk:_warn_if_in", "if error.errno not in unsupported:", "if True:",
        "test_machines.py::test_an_unsupported_operation_of_a_file_system_is_a_warning",
    ),
    "an error of the disk": Mutant(
        "disk:_warn_if_in", "if error.errno not in unsupported:", "if False:",
        "test_machines.py::test_an_error_of_the_disk_is_not_taken_for_an_unsupported_operation",
    ),
    "the documents of a user's text": Mutant(
        "separator:choose_separator", "count_documents(others, END_OF_TEXT)", "0",
        "../test_own_text.py::test_end_of_text_in_a_file_separates_documents",
    ),
    "a tokenizer's truncation": Mutant(
        "hub_tokenizer:HubTokenizer.__init__",
        'saved |= {"truncation": None, "padding": None}', "pass",
        "../test_hub_tokenizer.py::test_truncation_and_padding_are_ignored",
    ),
    "a tokenizer that is not byte-level": Mutant(
        "hub_tokenizer:refuse", "if why:", "if False:",
        "../test_hub_tokenizer.py::test_another_kind_of_tokenizer_is_refused_by_name",
    ),
    "a place to cut": Mutant(
        "hub_tokenizer:HubTokenizer.can_cut",
        "[*self.encode(before), *self.encode(after)] == self.encode(before + after)", "True",
        "../test_hub_tokenizer.py::test_tokens_of_parts_are_tokens_of_the_whole",
    ),
    "a row for each token": Mutant(
        "huggingface:check_size", "if tokenizer.n_vocab > config.vocab_size:", "if False:",
        "../test_hub_tokenizer.py::test_an_unreadable_folder_costs_one_line_before_weights",
    ),
    "control tokens in a prompt": Mutant(
        "hub_tokenizer:HubTokenizer._read",
        "self._hub.encode_special_tokens = not special", "pass",
        "../test_companions.py::test_a_checkpoint_keeps_the_companions_of_its_model",
    ),
    "the model's own ends": Mutant(
        "tokenizer_files:_with_ends", "tokenizer.ends = companions.ends", "pass",
        "../test_companions.py::test_each_end_ends_a_text_and_is_not_shown",
    ),
    "a setting that is not computed": Mutant(
        "companions:Companions.settings", "if refused:", "if False:",
        "../test_companions.py::test_a_setting_that_is_not_computed_is_refused",
    ),
    "a model's companions": Mutant(
        "checkpoint:files_of_tokenizer",
        '{"tokenizer.json": content, "tokenizer_config.json": config, **companions.files}',
        '{"tokenizer.json": content, "tokenizer_config.json": config}',
        "../test_companions.py::test_a_checkpoint_keeps_the_companions_of_its_model",
    ),
}  # fmt: skip
CHEAP = ("fsync of a file", "rename", "the optimiser's state", "the manifest's check",
         "the finite check")  # fmt: skip


SCRIPTS = ("train.py", "sample.py")


def mutated(root: Path, mutant: Mutant) -> tuple[Path, str]:
    """Return the file of a mutant's module below a folder, and its text without the guard.

    The guard is found in the syntax tree, so the layout of the lines does not matter.
    """
    module, _, function = mutant.where.partition(":")
    path = find_module(root, module)
    text = path.read_bytes()
    body = find_function(ast.parse(text), function.split("."))
    assert body is not None, f"{path} has no {function}"
    nodes = matches(body, mutant)
    assert len(nodes) == 1, f"{mutant.where} has {mutant.guard!r} {len(nodes)} times, not once"
    (node,) = nodes
    # The columns of a syntax tree count bytes.
    lines = text.splitlines(keepends=True)
    assert node.end_lineno is not None and node.end_col_offset is not None
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    instead = mutant.instead if isinstance(node, ast.stmt) else f"({condition(mutant.instead)})"
    return path, (text[:start] + instead.encode() + text[end:]).decode()


def find_module(root: Path, name: str) -> Path:
    """Return the only module or script below a folder whose dotted name ends with `name`."""
    paths = [*(root / "minigen").rglob("*.py"), *(root / script for script in SCRIPTS)]
    parts = {path: path.relative_to(root).with_suffix("").parts for path in paths}
    names = {path: ".".join(p for p in parts[path] if p != "__init__") for path in paths}
    matching = [path for path in paths if f".{names[path]}".endswith(f".{name}")]
    assert len(matching) == 1, f"{name} is the name of {len(matching)} modules, not of one"
    return matching[0]


def find_function(node: ast.AST, names: list[str]) -> ast.AST | None:
    """Return the function with this path of names, such as a class and a method."""
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == names[0]:
            return find_function(child, names[1:]) if names[1:] else child
    return None


def condition(code: str) -> str:
    """Return the condition of "if CONDITION:", and other code unchanged."""
    return code.removeprefix("if ").removesuffix(":") if code.endswith(":") else code


def parsed(code: str) -> ast.stmt | ast.expr:
    """Return the syntax tree of a statement, an expression or a condition."""
    (statement,) = ast.parse(condition(code)).body
    return statement.value if isinstance(statement, ast.Expr) else statement


def matches(function: ast.AST, mutant: Mutant) -> list[ast.stmt | ast.expr]:
    """Return all nodes of a function that are equal to the guard."""
    guard: ast.AST = parsed(mutant.guard)
    if isinstance(guard, ast.expr) and isinstance(parsed(mutant.instead), ast.stmt):
        guard = ast.Expr(guard)  # the call is a statement
    nodes = [node for node in ast.walk(function) if isinstance(node, ast.stmt | ast.expr)]
    if mutant.guard.endswith(":"):
        nodes = [node.test for node in nodes if isinstance(node, ast.If)]
    same = ast.dump(guard)
    return [node for node in nodes if type(node) is type(guard) and ast.dump(node) == same]


@pytest.mark.parametrize("name", MUTANTS)
def test_each_guard_is_in_its_function_once(name: str) -> None:
    """A guard that was moved or rewritten fails here, and its mutant must be changed with it."""
    path, text = mutated(ROOT, MUTANTS[name])
    assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(path.read_bytes()))


def test_a_guard_is_found_in_any_folder_and_layout(tmp_path: Path) -> None:
    """Only the guard is replaced; a guard that is missing or there twice is an error."""
    path = tmp_path / "minigen" / "deep" / "é.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "class A:\n def f(self):\n  é = 1; g(\n    é, ['x']\n  ); h(); h()\n",
        encoding="utf-8",
    )
    assert mutated(tmp_path, Mutant("é:A.f", 'g(é, ["x"])', "pass", "")) == (
        path, "class A:\n def f(self):\n  é = 1; pass; h(); h()\n"
    )  # fmt: skip
    for where, guard, complaint in (
        ("e:f", "g()", "e is the name of 0 modules"),
        ("é:h", "g()", "has no h"),
        ("é:A.f", "g()", "'g()' 0 times"),
        ("é:A.f", "h()", "'h()' 2 times"),
    ):
        with pytest.raises(AssertionError, match=re.escape(complaint)):
            mutated(tmp_path, Mutant(where, guard, "pass", ""))


@pytest.mark.parametrize(
    "name", [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in MUTANTS]
)
def test_without_a_guard_a_test_fails(name: str, server: Server, tmp_path: Path) -> None:
    """In a copy of minigen without the guard, the test of the guard fails."""
    for part in ("minigen", "tests", "train.py", "sample.py", "pyproject.toml"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / part)
    path, text = mutated(tmp_path, MUTANTS[name])
    path.write_text(text, encoding="utf-8")
    # One test needs no further processes, and no explanation of its failure.
    options = ["-q", "-x", "-n", "0", "--assert=plain", "-p", "no:cacheprovider"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    where = (f"--basetemp={tmp_path / 'trials'}", f"tests/faults/{MUTANTS[name].test}")
    done = server.python("-m", "pytest", *options, *where, cwd=tmp_path, env=environment)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout
