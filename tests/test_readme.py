"""The README is true: every command in it runs, every file in its map exists, every flag is one."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from forks import Server
from small_forms import ROOT, copy_project, small_form

from minigen import __main__ as dispatcher
from minigen.corpora import NAMES
from minigen.sampling import Sampling
from sample import SampleConfig
from train import TrainConfig

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
COMMANDS = [line for block in BLOCKS for line in block.strip().splitlines()]

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "data" / "README.md",
         *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip


def test_two_commands_set_everything_up() -> None:
    """One installs and trains, one installs and tests, just so."""
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
            done = server.python(*small_form(words[1:], project), cwd=tmp_path, env=environment)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            ran += 1
    assert ran >= 6
    if small:  # they were found, and not written in their full size
        assert (project / "data" / "cache").is_dir()
        assert all(
            (path / "train.txt").stat().st_size < 100_000
            for path in (project / "data").iterdir()
            if path.name != "cache"
        )


def test_every_flag_is_one() -> None:
    """Flags that the text mentions exist in one of the two commands or are pip's and pytest's."""
    classes = (TrainConfig, SampleConfig, Sampling)
    known = {name for one in classes for name in one.__dataclass_fields__}
    known |= {"index"}  # pip's --index-url
    known |= {"help", "check", "nproc_per_node"}  # of any, of `minigen corpus`, of torchrun
    for flag in re.findall(r"(?<![\w-])--(\w+)", README):
        assert flag in known, flag


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one(page: Path) -> None:
    """Each `python -m minigen COMMAND` of the README and of the docs has a command that exists."""
    named = re.findall(r"(?:python -m\s+|`)minigen ([a-z]\w*)", page.read_text(encoding="utf-8"))
    assert set(named) <= set(dispatcher.COMMANDS)


def test_the_map_has_every_file_of_the_lesson_and_every_folder() -> None:
    """Each file at the top of the package and each folder is named, and what is named exists."""
    named = set(re.findall(r"`((?:\w+/)*(?:\w+\.py|\w+/))`", README))
    places = (ROOT, ROOT / "minigen")
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.py")}
    files |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "minigen").glob("[!_]*.py")}
    files |= {f"minigen/{path.parent.name}/" for path in (ROOT / "minigen").glob("*/__init__.py")}
    assert {name for name in files if not {name, name.removeprefix("minigen/")} & named} == set()
    assert all(name in README for name in NAMES)


def test_the_picture_is_there() -> None:
    """Pictures that are shown exist."""
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
