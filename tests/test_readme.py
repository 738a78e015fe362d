"""The README is true: its commands run, and the files, flags and pictures that it names exist."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from forks import Server
from small_forms import ROOT, copy_project, run_small

from minigen import __main__ as dispatcher
from minigen.corpora import NAMES
from minigen.learn.command import LearnConfig
from minigen.sampling import Sampling
from sample import SampleConfig
from train import TrainConfig

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
COMMANDS = [line for block in BLOCKS for line in block.strip().splitlines()]

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "data" / "README.md",
         *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip


def test_two_commands_set_everything_up() -> None:
    """One command installs minigen and trains a model, and one installs it and runs the tests."""
    assert COMMANDS[0] == "pip install -e . && python train.py"
    assert 'pip install -e ".[dev]" && pytest' in COMMANDS


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_command_runs(small: bool, server: Server, tmp_path: Path) -> None:
    """Each command of the README succeeds, one after the other in an empty folder."""
    project = tmp_path / "project" if small else ROOT
    (tmp_path / "my.txt").write_text("It was a dark and stormy night, and rain fell.\n" * 60)
    if small:
        copy_project(project)
    environment = {**os.environ, "PYTHONPATH": str(project)}
    ran = 0
    for line in COMMANDS:
        for command in line.split(" && "):
            words = shlex.split(command)
            if words[0] != "python":
                continue  # installing is what CI does
            done = run_small(words[1:], project, server, tmp_path, environment)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            ran += 1
    assert ran >= 6
    if small:  # the small corpora were used, and none was written in its full size
        assert (project / "data" / "cache").is_dir()
        assert all(
            (path / "train.txt").stat().st_size < 100_000
            for path in (project / "data").iterdir()
            if path.name != "cache"
        )


def test_every_flag_exists() -> None:
    """Each flag that the README names is one of train.py, sample.py, learn, or a listed command."""
    classes = (TrainConfig, SampleConfig, Sampling, LearnConfig)
    flags = {name for one in classes for name in one.__dataclass_fields__}
    flags |= {"index"}  # pip's --index-url
    flags |= {"help", "check", "nproc_per_node"}  # of any, of `minigen corpus`, of torchrun
    for flag in re.findall(r"(?<![\w-])--(\w+)", README):
        assert flag in flags, flag


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_minigen_command_exists(page: Path) -> None:
    """Each `python -m minigen COMMAND` of the README and the pages names a command that exists."""
    named = re.findall(r"(?:python -m\s+|`)minigen ([a-z]\w*)", page.read_text(encoding="utf-8"))
    assert set(named) <= set(dispatcher.COMMANDS)


def test_the_map_has_every_file_of_the_lesson_and_every_folder() -> None:
    """The README names each file at the top of the package and each folder, and no other file."""
    named = set(re.findall(r"`((?:\w+/)*(?:\w+\.py|\w+/))`", README))
    places = (ROOT, ROOT / "minigen")
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.py")}
    files |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "minigen").glob("[!_]*.py")}
    files |= {f"minigen/{path.parent.name}/" for path in (ROOT / "minigen").glob("*/__init__.py")}
    assert {name for name in files if not {name, name.removeprefix("minigen/")} & named} == set()
    assert all(name in README for name in NAMES)


def test_every_picture_exists() -> None:
    """Each picture that the README shows is a file."""
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert shown
    assert all((ROOT / path).is_file() for path in shown)
