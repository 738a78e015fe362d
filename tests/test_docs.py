"""The pages of docs/ are true: each block of code runs, or says why it does not run here.

A block whose info string is `sh` or `python` runs. In `sh not-run: REASON`, the words after the
language exempt it: no test can use a network, a GPU or a second machine. GitHub colours both alike.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from forks import Server

import train
from minigen.corpora import pictures, tales, tunes

ROOT = Path(train.__file__).parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.M | re.S)
NOT_RUN = re.compile(r" not-run: .{10,}")  # and a reason that is more than a word

# Small forms: each command is the page's, except that it works on little for a moment.
BRIEF = {
    "train.py": shlex.split("--max_steps 2 --block_size 64 --eval_tokens 200"),
    "sample.py": shlex.split("--max_new_tokens 5"),
    "evaluate": shlex.split("--count 4 --max_new_tokens 5 --eval_tokens 200"),
}
RUNS = {"tales": ("tales", "tales-2", "my"), "tunes": ("tunes",)}  # corpus: runs that pages name
VALUES_NOT_MODELS = ("--size", "--tokenizer")  # flags whose value may be gpt2, and mean no model


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


def small(words: list[str], project: Path) -> list[str]:
    """Return the arguments of `python` for the small form of a command `python WORDS`."""
    name = "evaluate" if words[:3] == ["-m", "minigen", "evaluate"] else words[0]
    if "--minutes" in words:  # which excludes --max_steps
        at = words.index("--minutes")
        words = words[:at] + words[at + 2 :]
    words = [*words, *BRIEF.get(name, ())]
    if name == "train.py" and "--init_from" not in words:  # which fixes the shape of the model
        words += ["--n_embd", "16"]
    for at, word in enumerate(words):
        if word == "gpt2" and words[at - 1] not in VALUES_NOT_MODELS:
            words[at] = "out/tales"  # a model that needs no network
        if word == "shakespeare":
            words[at] = "my.txt"
        if re.search(r"\.(png|wav|abc)$", word) and name == "sample.py":
            words[at] = str(Path(word).with_suffix(".txt"))  # so small a model draws no picture
    if name.endswith(".py"):
        words[0] = str(project / name)
    return words


@pytest.fixture(scope="session")
def home(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the project, small corpora, and the runs that pages name."""
    home = tmp_path_factory.mktemp("docs")
    project = home / "project"
    shutil.copytree(ROOT / "minigen", project / "minigen")
    for file in ("train.py", "sample.py", "pyproject.toml"):  # which make it a checkout
        shutil.copy(ROOT / file, project)
    for corpus in (tales, pictures, tunes):
        corpus.write(project / "data" / corpus.__name__.split(".")[-1], 60_000, 20_000)
    for corpus_name, names in RUNS.items():
        words = small(["train.py", "--data", corpus_name], project)
        done = server.python(*words, cwd=home, env=environment(home))
        assert done.returncode == 0, done.stderr
        for name in names[1:]:
            shutil.copytree(home / "out" / names[0], home / "out" / name, symlinks=True)
    shutil.copytree(home / "out/tales", home / "old/tales", symlinks=True)
    (home / "my.txt").write_text("It was a dark and stormy night, and rain fell.\n" * 60)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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
    words = [*launcher, *small(words[1:], home / "project")]
    done = server.python(*words, cwd=folder, env=environment(home))
    assert done.returncode == 0, f"{place}\n{done.stderr}"
