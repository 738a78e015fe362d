"""A run killed at any moment resumes bit for bit, and each of its checkpoints is complete."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from operator import sub
from pathlib import Path

import pytest
from forks import Server
from jobs import Flags, model_and_optimizer

from minigen.files import checkpoint

slow = pytest.mark.slow
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


Trained = Callable[..., dict[str, str]]


def resume_or_restart(server: Server, flags: Flags, resume: Flags, name: str, out: Path) -> None:
    """Resume a killed run, or start it again if it has no checkpoint; check that it resumed."""
    checkpoints = checkpoint.steps(out / name)
    code, stderr = server.run("train", resume(name) if checkpoints else flags(name))
    assert code == 0, stderr
    assert not checkpoints or "step 0: validation" not in stderr


@pytest.mark.parametrize("n", [4, pytest.param(30, marks=slow)])
def test_a_run_killed_at_any_moment_resumes_bit_for_bit(
    n: int, server: Server, flags: Flags, resume: Flags, trained: Trained, undisturbed: Trained,
    tmp_path: Path,
) -> None:  # fmt: skip
    """After kill -9 at `n` moments, spread evenly, the end is that of an undisturbed run."""
    began = time.monotonic()
    expected = undisturbed()
    seconds = time.monotonic() - began
    for i in range(n):
        trial = server.start("train", flags(f"run{i}"))
        time.sleep(seconds * (i + random.random()) / n)
        trial.kill()
        trial.wait()
        resume_or_restart(server, flags, resume, f"run{i}", tmp_path / "out")
        assert trained(f"run{i}") == expected, i


@pytest.mark.parametrize("n", [4, pytest.param(20, marks=slow)])
def test_a_run_killed_during_a_save_resumes_bit_for_bit(
    n: int, server: Server, flags: Flags, resume: Flags, trained: Trained, undisturbed: Trained,
    tmp_path: Path,
) -> None:  # fmt: skip
    """After kill -9 at any disk operation of any save, the end is that of an undisturbed run."""
    expected = undisturbed()
    for i in range(n):
        save, event = random.randint(1, 5), random.randint(1, 21)
        trial = server.start("train", flags(f"run{i}"), "kill_inside_a_save", save, event)
        assert trial.wait() == -9, trial.output()
        resume_or_restart(server, flags, resume, f"run{i}", tmp_path / "out")
        assert trained(f"run{i}") == expected, (save, event)


def test_a_kill_during_a_save_loses_at_most_that_save(
    server: Server, flags: Flags, resume: Flags, trained: Trained, undisturbed: Trained,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Ten kills in one run lose at most two steps each, and the run ends in the same bits."""
    more = "--max_steps 44 --eval_interval 2"
    argv, steps = flags("run", more), []
    for _ in range(10):
        trial = server.start("train", argv, "kill_inside_a_save", 2, random.randint(1, 21))
        assert trial.wait() == -9, trial.output()
        steps.append(checkpoint.load_newest(tmp_path / "out" / "run").step)
        argv = resume("run")
    assert server.run("train", argv)[0] == 0
    assert steps == sorted(set(steps)) and max(map(sub, steps, [0, *steps])) <= 4
    assert trained("run") == undisturbed(more)


# ---- every system call of a save ----

# A call is "unfinished" in the trace when another thread's call is printed before its result.
CALLS = re.compile(r"^(?:\d+ +)?(\w+)\((.*?)(?:\) += | <unfinished)", re.M)


def traced_save(server: Server, run: Path, step: int, *strace: str) -> list[tuple[str, str]]:
    """Save the checkpoint of `step` under strace; return the system calls and their arguments.

    Args:
        strace: the options that choose the calls to trace, and a signal to send at one of them.
    """
    pipe, trace = run.parent / "pipe", run.parent / "trace"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    trial = server.start("save", [str(run), str(step), str(pipe)])
    with open(pipe, "wb"):  # the child opens the pipe too, and waits until this end is closed
        command = ["strace", "-f", "-y", "-o", str(trace), *strace, "-p", str(trial.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
        assert tracer.stderr and "attached" in tracer.stderr.readline()
    trial.wait()
    tracer.communicate(timeout=30)
    return CALLS.findall(trace.read_text())


def make_run(server: Server, run: Path, first: bool) -> None:
    """Make a run that is about to save step 4: an empty run, or one with three checkpoints."""
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    for step in () if first else (1, 2, 3):
        assert server.run("save", [str(run), str(step)])[0] == 0


@needs_strace
@pytest.mark.parametrize("first", [True, False], ids=["first save", "rotation"])
@pytest.mark.parametrize("every", [12, pytest.param(1, marks=slow)])
def test_a_save_killed_at_any_system_call_leaves_complete_checkpoints(
    first: bool, every: int, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After kill -9 at a call that touches a file, the newest checkpoint loads, if there is one.

    The next save succeeds. Each call in turn is tried, or each twelfth call.
    """
    run = tmp_path / "run"
    make_run(server, run, first)
    counts = Counter[str]()
    points = []
    for name, _ in traced_save(server, run, 4, "-e", "trace=%file,%desc"):
        counts[name] += 1
        points.append((name, counts[name]))
    assert len(points) > 50
    allowed = ([], [4]) if first else ([2, 3], [2, 3, 4], [3, 4])
    unfinished = 0
    for name, n in points[::every]:
        make_run(server, run, first)
        inject = f"inject={name}:signal=SIGKILL:when={n}"
        traced_save(server, run, 4, "-e", f"trace={name}", "-e", inject)
        steps = [int(path.name[5:]) for path in checkpoint.steps(run)]
        assert steps in allowed, (name, n)
        if steps:
            assert checkpoint.load_newest(run).step == steps[-1]
        unfinished += steps != allowed[-1] or any(run.glob(".tmp-*"))
        checkpoint.save(run, *model_and_optimizer(5), {"step": 5})
        checkpoint.prune(run)
        assert checkpoint.load_newest(run).step == 5 and not list(run.glob(".tmp-*"))
    assert unfinished > len(points) / every / 3
    assert capsys.readouterr().err == ""


def assert_flushed_in_order(calls: list[tuple[str, str]], run: Path) -> None:
    """Check the order: flush each file, flush the folder, rename it, flush its parent folder.

    Args:
        calls: fsync and rename, each with its path.
    """
    folder = str(run / ".tmp-step-000004")
    names = {path.name for path in (run / "step-000004").iterdir()}
    renamed = calls.index(("rename", folder))
    before, after = calls[:renamed], calls[renamed + 1 :]
    assert {path for _, path in before} == {folder, *(f"{folder}/{name}" for name in names)}
    assert before[-2:] == [("fsync", f"{folder}/MANIFEST.json"), ("fsync", folder)]
    assert ("fsync", str(run)) in after


def test_a_save_flushes_files_and_folder_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python calls fsync for each file and the folder, then rename, then fsync for the parent.

    So a power cut never leaves a folder with the final name and incomplete files.
    """
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(handle: int) -> None:
        status = os.fstat(handle)
        (path,) = (
            p for p in [tmp_path, *tmp_path.rglob("*")] if os.path.samestat(p.stat(), status)
        )
        calls.append(("fsync", str(path)))
        fsync(handle)

    def noted_rename(old: str, new: str) -> None:
        calls.append(("rename", str(old)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    run = tmp_path / "run"
    run.mkdir()
    checkpoint.save(run, *model_and_optimizer(4), {"step": 4})
    assert_flushed_in_order(calls, run)


@needs_strace
def test_the_kernel_gets_the_flushes_in_the_order_of_the_calls(
    server: Server, tmp_path: Path
) -> None:
    """In a trace of system calls, files and folder are flushed before the rename, too."""
    run = tmp_path / "run"
    make_run(server, run, first=True)
    calls = []
    for name, arguments in traced_save(server, run, 4, "-e", "trace=fsync,rename"):
        path = re.search(r"<(.*)>$" if name == "fsync" else r'^"(.*?)"', arguments)
        assert path
        calls.append((name, path[1]))
    assert_flushed_in_order(calls, run)
