"""The package as a whole: its layers, the cost of importing it, and no unsafe calls."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minigen

PACKAGE = Path(minigen.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [PACKAGE.parent / "train.py", PACKAGE.parent / "sample.py"]

# The layers, in order: a file or folder imports only from itself and from earlier layers.
LAYERS = (
    "errors", "system", "cli",  # small tools, which know nothing of models
    "tokenizer", "model", "loss", "optim", "sampling", "inspect", "data",  # the core
    "corpora", "files", "inference", "evaluation", "run", "serve",  # the programs around the core
    "learn",
)  # fmt: skip


def layer(module: str) -> int:
    """Return the number of a module's layer; -1 for the package itself, which all may import."""
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else -1


def imports(path: Path) -> set[str]:
    """Return the modules and names of minigen that a file imports, also inside functions."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minigen"):
            names |= {f"{node.module}.{name.name}" for name in node.names}
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names if name.name.startswith("minigen")}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    """A module imports only from its own and earlier layers, so the core can be read alone."""
    own = layer(f"minigen.{path.relative_to(PACKAGE).with_suffix('').as_posix().replace('/', '.')}")
    if own >= 0:  # the package itself re-exports names of all layers
        assert {name for name in imports(path) if layer(name) > own} == set()


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda p: p.name)
def test_nothing_is_unpickled_or_executed(path: Path) -> None:
    """No module imports pickle or calls exec, eval or an unsafe torch.load.

    This is read off the syntax tree.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {a.name for a in node.names} | {getattr(node, "module", "") or ""}
            assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("exec", "eval", "compile", "np.load", "__import__")
            if called == "torch.load":  # PyTorch's old format, restricted to tensors
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
        "learn.words",
        "system.strict_json",
        "system.threads",
    ],
)
def test_examples_in_docstrings_are_true(name: str) -> None:
    """Each >>> example in a module gives the result that the docstring shows."""
    result = doctest.testmod(importlib.import_module(f"minigen.{name}"))
    assert result.failed == 0


def test_the_tests_need_only_the_packages_of_the_readme() -> None:
    """No file of tests imports a package that only the extra [clients] brings, but in a test.

    Where that extra is not installed, such a file would fail as a whole.
    """
    required = [
        re.split(r"[\[;<>=~ ]", each)[0].replace("-", "_")
        for each in importlib.metadata.requires("minigen") or []
        if "clients" in each
    ]
    assert "openai" in required
    for path in (PACKAGE.parent / "tests").rglob("*.py"):
        found = {
            name.split(".")[0]
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )
        }  # fmt: skip
        assert found.isdisjoint(required), path


def test_importing_minigen_is_silent_and_imports_no_large_library() -> None:
    """`import minigen` prints nothing, and loads neither PyTorch nor any other large library."""
    code = "import sys, minigen; dir(minigen); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stderr == ""
    loaded = {name.partition(".")[0] for name in ast.literal_eval(done.stdout)}
    heavy = {"torch", "numpy", "matplotlib", "transformers", "tokenizers", "tiktoken", "tyro"}
    assert not loaded & (heavy | {"tqdm", "regex", "requests"})


def test_every_public_name_is_found() -> None:
    """Each name of `minigen.__all__` is an attribute and in `dir(minigen)`; another is an error."""
    assert set(minigen.__all__) <= set(dir(minigen))
    for name in minigen.__all__:
        assert getattr(minigen, name) is not None
    homes = [name for names in minigen.MODULES.values() for name in names]
    assert sorted([*homes, "__version__"]) == sorted(minigen.__all__)
    with pytest.raises(AttributeError, match="'minigen' has no attribute 'nothing'"):
        _ = minigen.nothing


def test_the_versions_that_are_tested_are_the_bounds_of_those_that_are_allowed() -> None:
    """`.ci/versions` tests the oldest Python and PyTorch of pyproject.toml, and the newest."""
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    pythons = re.findall(r"Python :: (3\.\d+)", project)
    oldest, after_newest = re.findall(r'"torch>=2\.(\d+),<2\.(\d+)"', project)[0]
    tested = re.findall(r'"(3\.\d+) 2\.(\d+)\.0"', (PACKAGE.parent / ".ci/versions").read_text())
    assert f'requires-python = ">={pythons[0]}"' in project
    assert tested == [(pythons[0], oldest), (pythons[-1], str(int(after_newest) - 1))]


def test_the_measurement_of_the_processors_begins_before_pytorch_is_imported() -> None:
    """Any module of minigen imports `system.threads` first: the slow import is measured, too."""
    code = """if True:
        import sys
        import minigen.loss
        names = list(sys.modules)
        assert names.index("minigen.system.threads") < names.index("torch")
    """
    subprocess.run([sys.executable, "-c", code], check=True)
