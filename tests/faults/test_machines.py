"""Machines that lack something, or take it away: a run does without, and says so once."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Server
from jobs import Flags

from minigen.files import checkpoint

Trained = Callable[[str], dict[str, str]]
SHORT = "--max_steps 6 --eval_interval 2"


@pytest.mark.parametrize(
    "calls, number, warnings",
    [("fsync flock madvise", errno.ENOTSUP, 3), ("rename", errno.EPERM, 1)],
)
def test_what_a_file_system_lacks_is_a_warning(
    calls: str, number: int, warnings: int, server: Server, flags: Flags, resume: Flags,
    trained: Trained, tmp_path: Path,
) -> None:  # fmt: skip
    """A run saves the same bits, keeps three checkpoints, resumes, and says once what lacks."""
    lacks, run = ("lacks", calls, number), tmp_path / "out" / "run"
    more = "--max_steps 4 --eval_interval 1"
    code, said = server.run("train", flags("run", more), *lacks)
    assert code == 0, said
    assert said.count("warning: this file system") == said.count("warning: ") == warnings, said
    assert len(checkpoint.steps(run)) <= 3 and not list(run.glob(".tmp-*"))
    assert server.run("train", flags("plain", more))[0] == 0
    assert trained("run") == trained("plain")
    assert server.run("train", resume("run", "--max_steps 5"), *lacks)[0] == 0
    assert checkpoint.load_newest(run).step == 5


def test_an_error_of_the_disk_is_no_lack(server: Server, flags: Flags, tmp_path: Path) -> None:
    """A flush that fails with EIO has lost something: nothing is called saved."""
    assert server.run("train", flags("first", "--max_steps 1"))[0] == 0  # makes the tokens
    code, said = server.run("train", flags("run", SHORT), "lacks", "fsync", errno.EIO)
    assert code == 2 and said.count("warning: cannot save ") == 2, said
    assert said.splitlines()[-1].startswith("error: cannot save ")
    assert not checkpoint.steps(tmp_path / "out" / "run")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGXCPU"])
def test_a_lost_terminal_and_the_end_of_a_job_save_the_run(
    name: str, server: Server, flags: Flags, tmp_path: Path
) -> None:
    """However often the signal comes, the step is finished: 128 + its number, and the run saved."""
    number = getattr(signal, name)
    trial = server.start("train", flags("run", SHORT), "slow_steps", 0.1)
    metrics = tmp_path / "out" / "run" / "metrics.jsonl"
    trial.until(lambda: metrics.exists() and '"step": 1,' in metrics.read_text("utf-8"))
    for _ in range(3):
        trial.kill(number)
        time.sleep(0.02)
    assert trial.wait() == 128 + number
    step = checkpoint.load_newest(tmp_path / "out" / "run").step
    assert f"stopped and saved at step {step}." in trial.said()


def test_a_reader_that_has_gone_ends_no_run(server: Server, flags: Flags, trained: Trained) -> None:
    """`python train.py 2>&1 | head -1` trains to its end."""
    assert server.run("train", flags("whole", SHORT))[0] == 0
    assert server.run("train", flags("run", SHORT), "no_reader")[0] == 0
    assert trained("run") == trained("whole")


def test_a_working_folder_that_was_removed(
    server: Server, resume: Flags, flags: Flags, tmp_path: Path
) -> None:
    """A run with absolute paths does not need one."""
    assert server.run("train", flags("run", "--max_steps 2"))[0] == 0
    code, said = server.run("train", resume("run", "--max_steps 4"), "removed_folder")
    assert code == 0 and checkpoint.load_newest(tmp_path / "out" / "run").step == 4, said


def test_a_run_without_standard_streams(server: Server, flags: Flags, tmp_path: Path) -> None:
    """As of a program without a console: no file of the run is taken for a stream."""
    code, said = server.run("train", flags("run", SHORT), "no_streams")
    assert (code, said) == (0, "")
    run = tmp_path / "out" / "run"
    assert checkpoint.load_newest(run).step == 6
    log = (run / "metrics.jsonl").read_text(encoding="utf-8")
    lines = log.splitlines()
    assert lines and all(line.startswith('{"step"') for line in lines)
