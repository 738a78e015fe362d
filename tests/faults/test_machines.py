"""Machines that lack something, or take it away: a run does without, and says so once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import ROOT, Flags, Server

from minigen import checkpoint

Trained = Callable[[str], dict[str, str]]
SHORT = "--max_steps 6 --eval_interval 2"


@pytest.mark.parametrize(
    "call, number, warnings",
    [
        ("fsync", errno.ENOTSUP, 2),
        ("fsync of a folder", errno.EINVAL, 1),
        ("flock", errno.ENOLCK, 1),
        ("flock", errno.ENOSYS, 1),
        ("rename", errno.EPERM, 2),
        ("madvise", errno.EINVAL, 0),
    ],
)
def test_what_a_file_system_lacks_is_a_warning(
    call: str, number: int, warnings: int, server: Server, flags: Flags, resume: Flags,
    trained: Trained, tmp_path: Path,
) -> None:  # fmt: skip
    """A run saves, resumes to the same bits, keeps three checkpoints at most, and says it once."""
    assert server.run("train", flags("whole", SHORT))[0] == 0
    (server.folder / "data").rename(tmp_path / "data")  # so that tokens are written once more
    code, said = server.run("train", flags("run", "--max_steps 4 --eval_interval 1"), "lacks",
                            call, number)  # fmt: skip
    assert code == 0, said
    assert said.count("warning: this file system") == said.count("warning: ") == warnings, said
    run = tmp_path / "out" / "run"
    assert len(checkpoint.steps(run)) <= 3 and not list(run.glob(".tmp-*"))
    code, said = server.run("train", flags("half", "--max_steps 6 --eval_interval 2"),
                            "lacks", call, number)  # fmt: skip
    assert code == 0 and trained("half") == trained("whole"), said
    code, said = server.run("train", resume("run", "--max_steps 6"), "lacks", call, number)
    assert code == 0 and checkpoint.load_newest(run).step == 6, said


def test_an_error_of_the_disk_is_no_lack(server: Server, flags: Flags, tmp_path: Path) -> None:
    """A flush that fails with EIO has lost something: nothing is called saved."""
    assert server.run("train", flags("first", "--max_steps 1"))[0] == 0  # makes the tokens
    code, said = server.run("train", flags("run", SHORT), "lacks", "fsync", errno.EIO)
    assert code == 2 and said.count("warning: cannot save ") == 2, said
    assert said.splitlines()[-1].startswith("error: cannot save ")
    assert not checkpoint.steps(tmp_path / "out" / "run")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_lost_terminal_and_the_end_of_a_job_save_the_run(
    name: str, server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """However often the signal comes: 128 + its number, and the run resumes to the same bits."""
    number = getattr(signal, name)
    assert server.run("train", flags("whole"))[0] == 0
    trial = server.start("train", flags("run"), "slow_steps", 0.05)
    trial.until("step 8: ")
    trial.kill(number)
    trial.kill(number)
    assert trial.wait() == 128 + number and "stopped and saved at step" in trial.said()
    assert server.run("train", resume("run"))[0] == 0
    assert trained("run") == trained("whole")


def test_nohup_keeps_a_run_alive(server: Server, flags: Flags) -> None:
    """A process that began with SIGHUP ignored ignores it to its end."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        nohup = Server(server.folder)
    finally:
        signal.signal(signal.SIGHUP, before)
    trial = nohup.start("train", flags("run", "--max_steps 12"), "slow_steps", 0.05)
    trial.until("step 0: ")
    trial.kill(signal.SIGHUP)
    code = trial.wait()
    nohup.close()
    assert code == 0 and "done: " in trial.said()


def test_a_reader_that_has_gone_ends_no_run(server: Server, flags: Flags, trained: Trained) -> None:
    """`python train.py 2>&1 | head -1` trains to its end."""
    assert server.run("train", flags("whole", SHORT))[0] == 0
    assert server.run("train", flags("run", SHORT), "no_reader")[0] == 0
    assert trained("run") == trained("whole")


def test_a_working_folder_that_was_removed(
    server: Server, flags: Flags, resume: Flags, trained: Trained
) -> None:
    """With absolute paths a run does not need one."""
    assert server.run("train", flags("whole", SHORT))[0] == 0
    code, said = server.run("train", flags("run", "--max_steps 4 --eval_interval 2"),
                            "removed_folder")  # fmt: skip
    assert code == 2 or "Traceback" not in said, said


def test_a_command_without_standard_streams(flags: Flags, trained: Trained, tmp_path: Path) -> None:
    """All closed, as for a program without a console: no file of the run is taken for a stream."""
    if os.name != "posix":
        pytest.skip("a shell closes the streams")
    argv = [sys.executable, str(ROOT / "train.py"), *flags("run", "--max_steps 2")]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], cwd=tmp_path)
    assert done.returncode == 0
    assert checkpoint.load_newest(tmp_path / "out" / "run").step == 2
    log = (tmp_path / "out" / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    assert all(line.startswith('{"step"') for line in log.splitlines())
