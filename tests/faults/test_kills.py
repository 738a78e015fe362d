"""Whatever kills a run, and whenever: it goes on to the same bits, and what was saved is whole."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from operator import sub
from pathlib import Path

import pytest
from forks import Server
from jobs import Flags, model_and_optimizer

from minigen.files import checkpoint

slow = pytest.mark.slow
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")


Trained = Callable[[str], dict[str, str]]


def go_on(server: Server, flags: Flags, resume: Flags, name: str, out: Path) -> None:
    """Resume a run that was killed; begin it anew only if nothing of it had been saved."""
    saved = checkpoint.steps(out / name)
    code, said = server.run("train", resume(name) if saved else flags(name))
    assert code == 0, said
    assert not saved or f"step {0}: validation" not in said  # no silent restart


@pytest.mark.parametrize("n", [4, pytest.param(30, marks=slow)])
def test_killed_at_any_moment(
    n: int, server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """kill -9 at uniform moments of a run: in the end, all bits are those of a run without."""
    began = time.monotonic()
    assert server.run("train", flags("whole"))[0] == 0
    seconds = time.monotonic() - began
    for i in range(n):
        trial = server.start("train", flags(f"run{i}"))
        time.sleep(seconds * (i + random.random()) / n)
        trial.kill()
        trial.wait()
        go_on(server, flags, resume, f"run{i}", tmp_path / "out")
        assert trained(f"run{i}") == trained("whole"), i


@pytest.mark.parametrize("n", [4, pytest.param(20, marks=slow)])
def test_killed_inside_a_save(
    n: int, server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """At anything that one of the saves does to the disk."""
    assert server.run("train", flags("whole"))[0] == 0
    for i in range(n):
        save, event = random.randint(1, 5), random.randint(1, 21)
        trial = server.start("train", flags(f"run{i}"), "kill_inside_a_save", save, event)
        assert trial.wait() == -9, trial.said()
        go_on(server, flags, resume, f"run{i}", tmp_path / "out")
        assert trained(f"run{i}") == trained("whole"), (save, event)


def test_killed_ten_times(
    server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """Ten kills in one run, each inside a save: some lose that save, none more."""
    more = "--max_steps 44 --eval_interval 2"
    assert server.run("train", flags("whole", more))[0] == 0
    argv, steps = flags("run", more), []
    for _ in range(10):
        trial = server.start("train", argv, "kill_inside_a_save", 2, random.randint(1, 21))
        assert trial.wait() == -9, trial.said()
        steps.append(checkpoint.load_newest(tmp_path / "out" / "run").step)
        argv = resume("run")
    assert server.run("train", argv)[0] == 0
    assert steps == sorted(set(steps)) and max(map(sub, steps, [0, *steps])) <= 4
    assert trained("run") == trained("whole")


# ---- every system call of a save ----

CALLS = re.compile(r"^(?:\d+ +)?(\w+)\((.*?)\) += (\S+)", re.M)


def traced_save(server: Server, run: Path, step: int, *strace: str) -> list[tuple[str, str]]:
    """Save the checkpoint of `step`, as the only thing that is traced; the calls and arguments."""
    pipe, trace = run.parent / "pipe", run.parent / "trace"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    trial = server.start("save", [str(run), str(step), str(pipe)])
    with open(pipe, "wb"):  # opens as soon as the child does, which then reads until it is closed
        command = ["strace", "-f", "-y", "-o", str(trace), *strace, "-p", str(trial.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
        assert tracer.stderr and "attached" in tracer.stderr.readline()
    trial.wait()
    tracer.communicate(timeout=30)
    return [(name, arguments) for name, arguments, _ in CALLS.findall(trace.read_text())]


def prepared(server: Server, run: Path, first: bool) -> None:
    """A run before the save of step 4: empty, or so full that a checkpoint must go."""
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    for step in () if first else (1, 2, 3):
        assert server.run("save", [str(run), str(step)])[0] == 0


@needs_strace
@pytest.mark.parametrize("first", [True, False], ids=["first save", "rotation"])
@pytest.mark.parametrize("share", [12, pytest.param(1, marks=slow)])
def test_killed_at_every_system_call(
    first: bool, share: int, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At each call that touches a file: afterwards a whole checkpoint loads, or none was there."""
    run = tmp_path / "run"
    prepared(server, run, first)
    seen: dict[str, int] = {}
    points = []
    for name, _ in traced_save(server, run, 4, "-e", "trace=%file,%desc"):
        seen[name] = seen.get(name, 0) + 1
        points.append((name, seen[name]))
    assert len(points) > 50
    allowed = ([], [4]) if first else ([2, 3], [2, 3, 4], [3, 4])
    unfinished = 0
    for name, n in points[::share]:
        prepared(server, run, first)
        inject = f"inject={name}:signal=SIGKILL:when={n}"
        traced_save(server, run, 4, "-e", f"trace={name}", "-e", inject)
        found = [int(path.name[5:]) for path in checkpoint.steps(run)]
        assert found in allowed, (name, n)
        if found:
            assert checkpoint.load_newest(run).step == found[-1]
        unfinished += found != allowed[-1] or any(run.glob(".tmp-*"))
        checkpoint.save(
            run, *model_and_optimizer(5), {"step": 5}
        )  # and the next save is not in the way
        checkpoint.prune(run)
        assert checkpoint.load_newest(run).step == 5 and not list(run.glob(".tmp-*"))
    assert unfinished > len(points) / share / 2
    assert capsys.readouterr().err == ""


def in_order(calls: list[tuple[str, str]], run: Path) -> None:
    """fsync of each file, of the folder, rename, fsync of the parent; and nothing is written late.

    Args:
        calls: fsync and rename, each with the path that it is about.
    """
    folder = str(run / ".tmp-step-000004")
    names = {path.name for path in (run / "step-000004").iterdir()}
    renamed = calls.index(("rename", folder))
    before, after = calls[:renamed], calls[renamed + 1 :]
    assert {path for _, path in before} == {folder, *(f"{folder}/{name}" for name in names)}
    assert before[-2:] == [("fsync", f"{folder}/MANIFEST.json"), ("fsync", folder)]
    assert ("fsync", str(run)) in after


def test_order_of_flushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read off the functions that Python calls."""
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
    in_order(calls, run)


@needs_strace
def test_order_of_flushes_in_a_trace(server: Server, tmp_path: Path) -> None:
    """Read off what the kernel was asked."""
    run = tmp_path / "run"
    prepared(server, run, first=True)
    calls = []
    for name, arguments in traced_save(server, run, 4, "-e", "trace=fsync,rename"):
        found = re.search(r"<(.*)>$" if name == "fsync" else r'^"(.*?)"', arguments)
        assert found
        calls.append((name, found[1]))
    in_order(calls, run)
