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

# The layers, in order: a file or folder imports only from those before it, or from itself.
LAYERS = (
    "errors", "system", "cli",  # small tools, which know nothing of models
    "tokenizer", "model", "loss", "optim", "sampling", "data",  # the lesson
    "corpora", "files", "inference", "evaluation", "run",  # what surrounds it
)  # fmt: skip


def layer(module: str) -> int:
    """The number of a module's layer; -1 for the package itself, which all may import."""
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else -1


def imports(path: Path) -> set[str]:
    """The modules and names of minigen that a file imports, wherever in the file."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minigen"):
            found |= {f"{node.module}.{name.name}" for name in node.names}
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("minigen")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    """A folder imports only from those before it; so the lesson imports no periphery."""
    own = layer(f"minigen.{path.relative_to(PACKAGE).with_suffix('').as_posix().replace('/', '.')}")
    if own >= 0:  # the package itself gathers the names of all
        assert {name for name in imports(path) if layer(name) > own} == set()


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
        "errors",
        "system.shell",
        "inference.cpu",
        "inference.stop_strings",
        "tokenizer",
        "sampling",
        "data.text",
        "data.tokens",
        "data.batches",
        "data.token_stream",
        "system.parallel",
        "corpora.dice",
        "corpora.grammar",
        "corpora.tales.check",
        "corpora.tales.generate",
        "corpora.pictures.caption",
        "corpora.pictures.check",
        "corpora.tunes.abc_notation",
        "corpora.tunes.check",
        "corpora.tunes.generate",
        "corpora.tunes.prompt",
        "evaluation.repetition",
        "evaluation.samples",
        "evaluation.text",
        "system.strict_json",
    ],
)
def test_examples_in_docstrings_are_true(name: str) -> None:
    """Every >>> of a module gives what it says."""
    result = doctest.testmod(importlib.import_module(f"minigen.{name}"))
    assert result.failed == 0


def test_importing_is_silent_and_brings_nothing_heavy() -> None:
    """`import minigen` prints nothing, and loads neither PyTorch nor any other large library."""
    code = "import sys, minigen; dir(minigen); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stderr == ""
    loaded = {name.partition(".")[0] for name in ast.literal_eval(done.stdout)}
    heavy = {"torch", "numpy", "matplotlib", "transformers", "tokenizers", "tiktoken", "tyro"}
    assert not loaded & (heavy | {"tqdm", "regex", "requests"})


def test_every_public_name_is_found() -> None:
    """`minigen.NAME`, `from minigen import NAME` and `dir(minigen)` know each; no others exist."""
    assert set(minigen.__all__) <= set(dir(minigen))
    for name in minigen.__all__:
        assert getattr(minigen, name) is not None
    homes = [name for names in minigen.MODULES.values() for name in names]
    assert sorted([*homes, "__version__"]) == sorted(minigen.__all__)
    with pytest.raises(AttributeError, match="'minigen' has no attribute 'nothing'"):
        _ = minigen.nothing


def test_the_machine_is_measured_while_pytorch_is_imported() -> None:
    """Whichever part of minigen is imported first, the measurement begins before PyTorch does."""
    code = """if True:
        import sys
        import minigen.loss
        names = list(sys.modules)
        assert names.index("minigen.system.threads") < names.index("torch")
    """
    subprocess.run([sys.executable, "-c", code], check=True)
