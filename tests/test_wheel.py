"""An installed wheel works like a checkout, from any folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pytest
from small_text import write_text

import minigen

ROOT = Path(minigen.__file__).parents[1]
TINY = ["--tokenizer", "byte", "--n_layer", "1", "--n_head", "1", "--n_embd", "8", "--block_size",
        "16", "--batch_size", "2", "--max_steps", "2", "--eval_tokens", "50", "--device", "cpu",
        "--compile", "no", "--name", "my"]  # fmt: skip

# All commands run in one process, because each new process would import PyTorch again.
LIBRARY = """
import sys
import minigen
from minigen.__main__ import main

def run(*words):
    sys.argv = ["minigen", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code

run("sample", *SAMPLE, "the sun", "--max_new_tokens", "3")
run("evaluate", "my", "--count", "2", "--max_new_tokens", "4", "--device", "cpu")
run("export", "my", "model")
print("model:", minigen.load("model").path)
write = minigen.pipeline("text-generation", model="model", device="cpu")
print(write("the", max_new_tokens=3, do_sample=False))
flags = {word.removeprefix("--"): value for word, value in zip(TINY[::2], TINY[1::2])}
print("called:", minigen.train("text.txt", **{**flags, "name": "call"}).folder.name)
"""


@dataclass(frozen=True)
class Installed:
    """A virtual environment with minigen's wheel, and an empty working folder."""

    bin: Path
    folder: Path
    env: Mapping[str, str]

    def run(self, program: str, *words: str) -> str:
        """Run a program of the environment in the working folder; return its whole output."""
        done = subprocess.run(
            [self.bin / program, *words], cwd=self.folder, env=self.env, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it, without a network; other packages are the outer ones."""
    pytest.importorskip("hatchling")
    tmp = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp.glob("*.whl")
    venv.create(tmp / "venv", symlinks=True)
    bin = tmp / "venv" / ("Scripts" if os.name == "nt" else "bin")
    (packages,) = (tmp / "venv").rglob("site-packages")
    outer = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "outer.pth").write_text("\n".join(outer), encoding="utf-8")
    env = {name: value for name, value in os.environ.items()
           if name not in ("PYTHONPATH", "MINIGEN_DATA")}  # fmt: skip
    env |= {"PATH": f"{bin}{os.pathsep}{env['PATH']}", "XDG_CACHE_HOME": str(tmp / "cache")}
    env["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # which has a list of fonts already
    (tmp / "empty").mkdir()
    made = Installed(bin, tmp / "empty", env)
    flags = ["--no-deps", "--no-index", "--no-compile", "--ignore-installed"]
    made.run("python", "-m", "pip", "install", *flags, str(wheel))
    return made


def test_an_installed_wheel_trains_samples_evaluates_and_is_a_library(installed: Installed) -> None:
    """In an empty folder all commands run, also the printed one; tokens go to the user's cache."""
    write_text(installed.folder)
    output = installed.run("minigen", "train", "text.txt", *TINY)
    line = re.search(r"Now: (.*)", output)
    assert line is not None
    program, command, *words = shlex.split(line[1])
    assert (program, command) == ("minigen", "sample")
    output = installed.run("python", "-c", f"SAMPLE = {words}\nTINY = {TINY}\n{LIBRARY}")
    assert "the sun" in output and "out/my/step-000002" in output
    assert "bits/byte" in output and "model: model" in output and "called: call" in output
    assert "'generated_text': 'the" in output
    assert any((installed.folder.parent / "cache/minigen/data/cache").glob("*.bin"))
    (package,) = (installed.bin.parent).rglob("site-packages/minigen")
    assert not (package.parent / "data").exists() and not (installed.folder / "data").exists()


def test_the_help_of_an_installed_command_names_it_and_the_data_folder(
    installed: Installed,
) -> None:
    """The usage line begins with `minigen train`, and the data folder is in the user's cache."""
    usage = " ".join(installed.run("minigen", "train", "--help").split())
    assert usage.startswith("usage: minigen train ")
    assert str(installed.folder.parent / "cache/minigen/data") in usage.replace(" ", "")


def test_an_installed_wheel_has_its_version_and_one_package(installed: Installed) -> None:
    """`minigen --version` prints the version, and the wheel installs no other package."""
    assert installed.run("minigen", "--version") == f"minigen {minigen.__version__}\n"
    (package,) = (installed.bin.parent).rglob("site-packages/minigen")
    shipped = {path.name for path in package.parent.iterdir()} - {"__pycache__", "outer.pth"}
    assert {name.partition("-")[0] for name in shipped} == {"minigen"}


def test_an_installed_hint_names_the_packages_that_are_missing(installed: Installed) -> None:
    """The hint names the packages of the extra, because pip does not record where the wheel is."""
    code = "from minigen.system.shell import install; print(install('hf'))"
    output = installed.run("python", "-c", code)
    assert output.endswith("-m pip install huggingface-hub transformers\n")
