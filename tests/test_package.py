"""The package as a whole: who imports whom, what importing costs, nothing unsafe."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import minigen

PACKAGE = Path(minigen.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [PACKAGE.parent / "train.py", PACKAGE.parent / "sample.py"]

# The leaves, which all may import.
LEAVES = {
    "minigen.disk",
    "minigen.errors",
    "minigen.places",
    "minigen.strict_json",
    "minigen.streams",
}
# Beside these.
ALLOWED = {
    "checkpoint.py": {
        "minigen",
        "minigen.companions",
        "minigen.config_file",
        "minigen.model",
        "minigen.tensor_file",
        "minigen.tokenizer",
        "minigen.weight_files",
    },
    "companions.py": {"minigen.tensor_file"},
    "hub_tokenizer.py": {"minigen.companions", "minigen.tensor_file", "minigen.tokenizer"},
    "lora.py": {"minigen", "minigen.config_file", "minigen.model"},  # pretrained
    "config_file.py": {"minigen.model", "minigen.tensor_file"},
    "weight_files.py": {"minigen.tensor_file"},
    "adapter.py": {"minigen.config_file", "minigen.tensor_file", "minigen.weight_files"},
    "pretrained.py": {
        "minigen",  # adapter
        "minigen.companions",
        "minigen.config_file",
        "minigen.model",
        "minigen.sampling",
        "minigen.tensor_file",
        "minigen.tokenizer",
        "minigen.weight_files",
    },
    "data.py": {"minigen.text_file", "minigen.tokenizer"},
    "command_line.py": {"minigen"},
    "tokenizer.py": {"minigen", "minigen.hub_tokenizer"},
    "decoder.py": {"minigen.device", "minigen.model", "minigen.native", "minigen.threads"},
    "device.py": {"minigen.model"},
    "signals.py": {"minigen"},
    "distributed.py": {"minigen", "minigen.device", "minigen.model"},  # lora, optim, pretrained
    "__init__.py": {"minigen", "minigen.model", "minigen.interface"},
    "graph.py": {"minigen.model"},
    "interface.py": {
        "minigen",
        "minigen.companions",
        "minigen.decoder",
        "minigen.device",
        "minigen.graph",
        "minigen.model",
        "minigen.sampling",
        "minigen.tokenizer",
    },
    "report.py": {"minigen.plot", "minigen.repetition", "minigen.threads"},
    "canvas.py": {"minigen.plot"},
    "compare.py": {"minigen", "minigen.command_line", "minigen.plot", "minigen.report"},
    "excerpts.py": {
        "minigen.corpora",
        "minigen.data",
        "minigen.interface",
        "minigen.model",
        "minigen.repetition",
        "minigen.sampling",
        "minigen.tokenizer",
    },
    "evaluate.py": {
        "minigen",
        "minigen.command_line",
        "minigen.data",
        "minigen.device",
        "minigen.interface",
        "minigen.model",
        "minigen.plot",
        "minigen.repetition",
        "minigen.report",
        "minigen.excerpts",
        "minigen.sampling",
        "minigen.threads",
        "minigen.tokenizer",
    },
    "corpora/__init__.py": {"minigen.corpora", "minigen.text_file", "minigen.tokenizer"},
    "corpora/medium.py": {"minigen"},  # corpora
    "corpora/pictures.py": {"minigen", "minigen.corpora", "minigen.corpora.medium"},
    "corpora/tales.py": {"minigen.corpora", "minigen.corpora.grammar", "minigen.corpora.medium"},
    "corpora/tunes.py": {
        "minigen",
        "minigen.corpora",
        "minigen.corpora.medium",
        "minigen.notation",
    },
    "sound.py": {"minigen.notation", "minigen.plot"},
}


def imports(path: Path) -> set[str]:
    """The modules of minigen that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    found |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    return {name for name in found if name.startswith("minigen")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.name)
def test_imports_go_one_way(path: Path) -> None:
    """Each file stands on few others, so that it can be read by itself."""
    allowed = ALLOWED.get(path.relative_to(PACKAGE).as_posix(), set()) | LEAVES
    assert imports(path) <= allowed


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda p: p.name)
def test_nothing_is_unpickled_or_executed(path: Path) -> None:
    """No pickle, no exec, no eval of text, no torch.load of code; read off the syntax tree."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {a.name for a in node.names} | {getattr(node, "module", "") or ""}
            assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("exec", "eval", "compile", "np.load", "__import__")
            if called == "torch.load":  # of PyTorch's old format tensors only
                assert "weights_only=True" in ast.unparse(node)


@pytest.mark.parametrize(
    "name",
    [
        "optim",
        "model",
        "decoder",
        "tokenizer",
        "sampling",
        "data",
        "corpora.grammar",
        "corpora.tales",
        "corpora.pictures",
        "corpora.tunes",
        "notation",
        "repetition",
        "excerpts",
        "strict_json",
    ],
)
def test_examples_in_docstrings_are_true(name: str) -> None:
    """Every >>> of a module gives what it says."""
    result = doctest.testmod(importlib.import_module(f"minigen.{name}"))
    assert result.failed == 0


def test_importing_is_silent_and_brings_nothing_heavy() -> None:
    """`import minigen` prints nothing and loads no plotting, no transformers."""
    code = "import sys, minigen; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stderr == ""
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {"matplotlib", "transformers", "tyro", "tiktoken", "requests", "tokenizers"}
