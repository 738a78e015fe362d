"""The pages of docs/ are true: each block of code runs, or says why it does not run here.

A block whose info string is `sh` or `python` runs. In `sh not-run: REASON`, the words after the
language exempt it: no test can use a network, a GPU or a second machine. GitHub colours both alike.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from forks import Server
from small_forms import ROOT, copy_project, run_small, small_form

PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.M | re.S)
NOT_RUN = re.compile(r" not-run: .{10,}")  # and a reason that is more than a word

OWN_TEST = "korean.md"  # tests/test_korean.py runs its scripts and commands in the page's order

RUNS = {"tales": ("tales", "tales-2", "my"), "tunes": ("tunes",)}  # corpus: runs that pages name


@dataclass(frozen=True)
class Block:
    """A block of code: its page, language, the rest of its info string, and its text."""

    page: Path
    language: str
    marker: str
    code: str

    @property
    def runs(self) -> bool:
        """Whether the block is to run."""
        return not self.marker


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that have a language."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, *groups) for groups in BLOCK.findall(text)]


@pytest.fixture(scope="session")
def home(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the project, small corpora, and the runs that pages name."""
    home = tmp_path_factory.mktemp("docs")
    project = home / "project"
    copy_project(project)
    for corpus_name, names in RUNS.items():
        words = small_form(["train.py", "--data", corpus_name], project)
        done = server.python(*words, cwd=home, env=environment(home))
        assert done.returncode == 0, done.stderr
        for name in names[1:]:
            shutil.copytree(home / "out" / names[0], home / "out" / name, symlinks=True)
    shutil.copytree(home / "out/tales", home / "old/tales", symlinks=True)
    (home / "my.txt").write_text("It was a dark and stormy night, and rain fell.\n" * 60)
    pairs = [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}"} for n in range(40)]
    (home / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    document = (project / "data/tunes/train.txt").read_text(encoding="utf-8").split("\n\n")[0]
    (home / "sad.abc").write_text(document.partition("\n")[2] + "\n")
    return home


def environment(home: Path) -> dict[str, str]:
    """Return the environment in which a page's commands find the copy of the project."""
    return {**os.environ, "PYTHONPATH": str(home / "project")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_that_does_not_run_says_why(page: Path) -> None:
    """Only `sh` and `python` blocks exist, and each marker has a reason."""
    for block in blocks(page):
        place = f"{page.name}: ```{block.language}{block.marker}"
        assert block.language in ("sh", "python"), place
        assert block.runs or NOT_RUN.fullmatch(block.marker), place


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != OWN_TEST], ids=lambda page: page.name
)
def test_the_code_of_a_page_runs(page: Path, home: Path, server: Server, tmp_path: Path) -> None:
    """The commands of a page succeed one after the other, then its Python blocks in one session."""
    commands = [
        line
        for block in blocks(page)
        if block.language == "sh" and block.runs
        for line in block.code.replace("\\\n", " ").splitlines()
    ]
    python = [block.code for block in blocks(page) if block.language == "python" and block.runs]
    if not commands and not python:
        return
    folder = tmp_path / "folder"
    shutil.copytree(home, folder, ignore=shutil.ignore_patterns("project"), symlinks=True)
    for line in commands:
        for command in line.split(" && "):
            run_command(command, f"{page.name}: {command}", folder, home, server)
    if python:
        step = max(path.name for path in (folder / "out/tales").glob("step-*"))
        script = folder / "page.py"
        script.write_text(re.sub(r"step-\d{6}", step, "\n".join(python)), encoding="utf-8")
        done = server.python(str(script), cwd=folder, env=environment(home))
        assert done.returncode == 0, f"{page.name}\n{done.stderr}"


def run_command(command: str, place: str, folder: Path, home: Path, server: Server) -> None:
    """Run the small form of a command in a folder, and require that it succeeds."""
    words = shlex.split(command, comments=True)
    if not words or words[0] == "pip":  # CI installs
        return
    assert words[0] in ("python", "torchrun"), f"{place}: mark the block `not-run: REASON`"
    launcher: list[str] = []
    if words[0] == "torchrun":
        at = words.index("train.py")
        launcher, words = ["-m", "torch.distributed.run", *words[1:at]], ["python", *words[at:]]
    project, env = home / "project", environment(home)
    if launcher:
        words = [*launcher, *small_form(words[1:], project)]
        done = server.python(*words, cwd=folder, env=env)
    else:
        done = run_small(words[1:], project, server, folder, env)
    assert done.returncode == 0, f"{place}\n{done.stderr}"
