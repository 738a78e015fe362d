"""A run trains on a machine that lacks something, and one warning says so."""

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

Trained = Callable[..., dict[str, str]]
SHORT = "--max_steps 6 --eval_interval 2"


@pytest.mark.parametrize(
    "calls, number, warnings",
    [("fsync flock madvise", errno.ENOTSUP, 3), ("rename", errno.EPERM, 1)],
)
def test_an_unsupported_operation_of_a_file_system_is_a_warning(
    calls: str, number: int, warnings: int, server: Server, flags: Flags, resume: Flags,
    trained: Trained, undisturbed: Trained, tmp_path: Path,
) -> None:  # fmt: skip
    """The run saves the same bits, keeps three checkpoints at most, resumes, and warns once."""
    fault, run = ("refuse_calls", calls, number), tmp_path / "out" / "run"
    more = "--max_steps 4 --eval_interval 1"
    expected = undisturbed(more)  # and makes the tokens
    code, stderr = server.run("train", flags("run", more), *fault)
    assert code == 0, stderr
    assert stderr.count("warning: this file system") == warnings, stderr
    assert stderr.count("warning: ") == warnings, stderr
    assert len(checkpoint.steps(run)) <= 3 and not list(run.glob(".tmp-*"))
    assert trained("run") == expected
    assert server.run("train", resume("run", "--max_steps 5"), *fault)[0] == 0
    assert checkpoint.load_newest(run).step == 5


def test_an_error_of_the_disk_is_not_taken_for_an_unsupported_operation(
    server: Server, flags: Flags, tmp_path: Path
) -> None:
    """If a flush fails with EIO, data may be lost: no checkpoint is kept, and the run fails."""
    assert server.run("train", flags("first", "--max_steps 1"))[0] == 0  # makes the tokens
    code, stderr = server.run("train", flags("run", SHORT), "refuse_calls", "fsync", errno.EIO)
    assert code == 2 and stderr.count("warning: cannot save ") == 2, stderr
    assert stderr.splitlines()[-1].startswith("error: cannot save ")
    assert not checkpoint.steps(tmp_path / "out" / "run")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGXCPU"])
def test_a_lost_terminal_or_the_end_of_a_job_saves_the_run(
    name: str, server: Server, flags: Flags, tmp_path: Path
) -> None:
    """Even if signal n comes three times, the step is saved, and the exit code is 128 + n."""
    number = getattr(signal, name)
    trial = server.start("train", flags("run", SHORT), "slow_steps", 0.3)
    metrics = tmp_path / "out" / "run" / "metrics.jsonl"
    trial.until(lambda: metrics.exists() and '"step": 1,' in metrics.read_text("utf-8"))
    for _ in range(3):
        trial.kill(number)
        time.sleep(0.02)
    assert trial.wait() == 128 + number
    step = checkpoint.load_newest(tmp_path / "out" / "run").step
    assert f"stopped and saved at step {step}." in trial.output()


def test_a_run_trains_to_its_end_without_a_reader_of_its_messages(
    server: Server, flags: Flags, trained: Trained, undisturbed: Trained
) -> None:
    """`python train.py 2>&1 | head -1` ends in the bits of a run whose messages are read."""
    assert server.run("train", flags("run", SHORT), "close_reader")[0] == 0
    assert trained("run") == undisturbed(SHORT)


def test_a_run_with_absolute_paths_needs_no_working_folder(
    server: Server, resume: Flags, flags: Flags, tmp_path: Path
) -> None:
    """A run resumes and saves although its working folder was removed."""
    assert server.run("train", flags("run", "--max_steps 2"))[0] == 0
    code, stderr = server.run("train", resume("run", "--max_steps 4"), "remove_working_folder")
    assert code == 0 and checkpoint.load_newest(tmp_path / "out" / "run").step == 4, stderr


def test_a_run_trains_without_standard_streams(
    server: Server, flags: Flags, tmp_path: Path
) -> None:
    """Messages are lost, and no file of the run, which may have a stream's descriptor, gets one."""
    code, stderr = server.run("train", flags("run", SHORT), "close_streams")
    assert (code, stderr) == (0, "")
    run = tmp_path / "out" / "run"
    assert checkpoint.load_newest(run).step == 6
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines and all(line.startswith('{"step"') for line in lines)
