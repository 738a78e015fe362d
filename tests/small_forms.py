"""Small forms of the commands in the README and in docs/: each runs in moments on small corpora."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from forks import Server

import train
from minigen.corpora import pictures, tales, tunes

ROOT = Path(train.__file__).parent

# The flags that are added to each command, unless it has them.
BRIEF = {
    "train.py": "--max_steps 2 --block_size 64 --eval_tokens 200 --n_embd 16",
    "sample.py": "--max_new_tokens 5",
    "evaluate": "--count 4 --max_new_tokens 5 --eval_tokens 200",
    "serve": "--port 0",
}
VALUES_NOT_MODELS = ("--size", "--tokenizer")  # flags whose value may be gpt2, and mean no model


def copy_project(project: Path) -> None:
    """Copy the project with small corpora: train.py looks for the corpora beside itself."""
    shutil.copytree(ROOT / "minigen", project / "minigen")
    shutil.copytree(ROOT / "tests", project / "tests")  # which check the exercises
    for file in ("train.py", "sample.py", "pyproject.toml"):  # which make it a checkout
        shutil.copy(ROOT / file, project)
    for corpus in (tales, pictures, tunes):
        corpus.write(project / "data" / corpus.__name__.split(".")[-1], 60_000, 20_000)


def small_form(words: list[str], project: Path) -> list[str]:
    """Return the arguments of `python` for the small form of a command `python WORDS`."""
    name = words[2] if words[:2] == ["-m", "minigen"] else words[0]
    flags = shlex.split(BRIEF.get(name, ""))
    if "--minutes" in words:  # which excludes --max_steps
        at = words.index("--minutes")
        words = words[:at] + words[at + 2 :]
    left_out = set(words) | ({"--n_embd"} if "--init_from" in words else set())  # it fixes the size
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        if flag == "--max_steps" or flag not in left_out:
            words = [*words, flag, value]  # of two values the last counts
    for at, word in enumerate(words):
        if word == "gpt2" and words[at - 1] not in VALUES_NOT_MODELS:
            words[at] = "out/tales"  # a model that needs no network
        if word == "shakespeare":
            words[at] = "my.txt"
        if re.search(r"\.(png|wav|abc)$", word) and name == "sample.py":
            words[at] = str(Path(word).with_suffix(".txt"))  # a model this small draws no picture
    if name.endswith(".py"):
        words[0] = str(project / name)
    return words


def run_small(
    words: list[str], project: Path, server: Server, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the small form of a command `python WORDS`; end `serve` with Ctrl-C once it serves."""
    words = small_form(words, project)
    if words[:3] != ["-m", "minigen", "serve"]:
        return server.python(*words, cwd=cwd, env=env)
    trial = server.start_python(*words, cwd=cwd, env=env)
    trial.until(lambda: "http://" in trial.out.read_text(encoding="utf-8"))
    trial.kill(signal.SIGINT)
    code = trial.wait()
    code = 0 if code == 128 + signal.SIGINT else code or 1  # Ctrl-C is how it ends
    return subprocess.CompletedProcess(words, code, "", trial.output())
