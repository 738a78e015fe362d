"""An installed wheel does, from any folder, what a checkout does."""

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

# The commands in one process, as each process imports PyTorch anew.
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
"""


@dataclass(frozen=True)
class Installed:
    """An environment with minigen's wheel, and a folder beside it in which nothing else lies."""

    bin: Path
    folder: Path
    env: Mapping[str, str]

    def run(self, program: str, *words: str) -> str:
        """Run a program of the environment in the folder; return all that it prints."""
        done = subprocess.run(
            [self.bin / program, *words], cwd=self.folder, env=self.env, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel, and install it, without a network, where the outer packages are seen."""
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
    env["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # where its list of fonts is known already
    (tmp / "empty").mkdir()
    made = Installed(bin, tmp / "empty", env)
    flags = ["--no-deps", "--no-index", "--no-compile", "--ignore-installed"]
    made.run("python", "-m", "pip", "install", *flags, str(wheel))
    return made


def test_an_installed_wheel_trains_samples_and_is_a_library(installed: Installed) -> None:
    """From an empty folder; the printed commands run, and the text's tokens lie in the cache."""
    write_text(installed.folder)
    said = installed.run("minigen", "train", "text.txt", *TINY)
    line = re.search(r"Now: (.*)", said)
    assert line is not None
    program, command, *words = shlex.split(line[1])
    assert (program, command) == ("minigen", "sample")
    said = installed.run("python", "-c", f"SAMPLE = {words}\n{LIBRARY}")
    assert "the sun" in said and "out/my/step-000002" in said
    assert "bits/byte" in said and "model: model" in said and "'generated_text': 'the" in said
    assert any((installed.folder.parent / "cache/minigen/data/cache").glob("*.bin"))
    (package,) = (installed.bin.parent).rglob("site-packages/minigen")
    assert not (package.parent / "data").exists() and not (installed.folder / "data").exists()


def test_the_help_of_an_installed_command_names_it_and_the_data_folder(
    installed: Installed,
) -> None:
    """As it is typed, with the folder in the user's cache; nothing is installed but the package."""
    said = " ".join(installed.run("minigen", "train", "--help").split())
    assert said.startswith("usage: minigen train ")
    assert str(installed.folder.parent / "cache/minigen/data") in said.replace(" ", "")
    assert installed.run("minigen", "--version") == f"minigen {minigen.__version__}\n"
    (package,) = (installed.bin.parent).rglob("site-packages/minigen")
    shipped = {path.name for path in package.parent.iterdir()} - {"__pycache__", "outer.pth"}
    assert {name.partition("-")[0] for name in shipped} == {"minigen"}


def test_an_installed_hint_names_the_packages_that_are_missing(installed: Installed) -> None:
    """Not minigen itself, as nobody knows where its wheel lies."""
    code = "from minigen.system.shell import install; print(install('hf'))"
    said = installed.run("python", "-c", code)
    assert said.endswith("-m pip install huggingface-hub transformers\n")
