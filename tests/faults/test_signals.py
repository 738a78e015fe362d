"""Signals and numbers that are none: the step is finished or dropped, never half of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import ROOT, Server
from jobs import Flags

from minigen.files import checkpoint

slow = pytest.mark.slow
Trained = Callable[[str], dict[str, str]]


@pytest.mark.parametrize("n", [4, pytest.param(20, marks=slow)])
def test_a_signal_at_any_moment(
    n: int, server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """Start-up, steps, evaluations, saves: 130 or 143, a checkpoint of the step, the same bits."""
    began = time.monotonic()
    assert server.run("train", flags("whole"))[0] == 0
    seconds = time.monotonic() - began
    for i in range(n):
        number = (signal.SIGINT, signal.SIGTERM)[i % 2]
        trial, run = server.start("train", flags(f"run{i}")), tmp_path / "out" / f"run{i}"
        time.sleep(seconds * (i + random.random()) / n)
        trial.kill(number)
        code, said = trial.wait(), trial.said()
        assert "Traceback" not in said
        # A child of the server may not have its first handler yet; a run may be done already.
        assert code in (128 + number, 0, *(() if said else (-number,))), (code, said)
        if "stopped and saved" in said:
            step = checkpoint.load_newest(run).step
            assert f"stopped and saved at step {step}." in said
        code, said = server.run(
            "train", resume(f"run{i}") if checkpoint.steps(run) else flags(run.name)
        )
        assert code == 0, said
        assert trained(f"run{i}") == trained("whole")


@pytest.mark.parametrize("n", [2, pytest.param(12, marks=slow)])
def test_a_signal_while_modules_are_imported(n: int, text: Path, tmp_path: Path) -> None:
    """The real command spends its first second on that: the right exit code, no traceback."""
    for i in range(n):
        number = (signal.SIGINT, signal.SIGTERM)[i % 2]
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "--data", str(text), "--device", "cpu"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        time.sleep(0.2 + 0.8 * (i + random.random()) / n)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 128 + number and "Traceback" not in said, said


def test_a_second_signal_leaves_at_once(
    server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """In the middle of a long step, the other signal too; what was saved before is whole."""
    more = "--max_steps 12 --eval_interval 2"
    assert server.run("train", flags("whole", more))[0] == 0
    for first, second in ((signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)):
        name = f"run{first}{second}"
        trial = server.start("train", flags(name, more), "slow_steps", 0.5)
        trial.until((tmp_path / "out" / name / "step-000002").is_dir)
        trial.kill(first)
        time.sleep(0.05)
        trial.kill(second)
        assert trial.wait() == -second  # had it finished the step, it would have saved and exited
        assert checkpoint.load_newest(tmp_path / "out" / name).step == 2
        assert server.run("train", resume(name))[0] == 0
        assert trained(name) == trained("whole")


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_no_number_is_not_learnt(
    what: str, value: str, server: Server, flags: Flags, tmp_path: Path
) -> None:
    """Exit code 3 and the step; the newest checkpoint is that of before, and finite."""
    code, said = server.run("train", flags("run"), "poison", 20, what, value)
    assert code == 3, said
    assert said.splitlines()[-1].startswith("error: step 20 has ") and "Traceback" not in said
    last = checkpoint.load_newest(tmp_path / "out" / "run")
    assert last.step == 16
    assert all(t.isfinite().all() for t in [*last.weights.values(), *last.optimizer.values()])


def test_a_skipped_step_changes_nothing_but_is_counted(
    server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """--on_nan skip goes on, resumes to the same bits, and gives up after 20."""
    more = "--max_steps 40 --eval_interval 8 --on_nan skip"
    code, said = server.run("train", flags("whole", more), "poison", 5, "gradient", "nan")
    assert code == 0 and "warning: step 5 has " in said and "skipped, as 1 of" in said
    assert checkpoint.load_newest(tmp_path / "out" / "whole").state["skipped"] == 1
    trial = server.start("train", flags("half", more), "poison", 5, "gradient", "nan")
    trial.until("step 16: ")
    trial.kill(signal.SIGTERM)
    assert trial.wait() == 143
    assert server.run("train", resume("half"))[0] == 0
    assert trained("half") == trained("whole")
    code, said = server.run("train", flags("never", more), "poison", -1, "loss", "nan")
    assert code == 3 and said.count("warning: ") == 20 and "error: step 20 has " in said


def test_weights_that_overflow_are_not_saved(server: Server, flags: Flags, tmp_path: Path) -> None:
    """A learning rate beyond all reason: it ends in one line, and nothing broken is kept."""
    code, said = server.run(
        "train", flags("run", "--max_steps 9 --eval_interval 1 --learning_rate 1e9")
    )
    assert (
        code in (2, 3) and said.splitlines()[-1].startswith("error: ") and "Traceback" not in said
    )
    for path in checkpoint.steps(tmp_path / "out" / "run"):
        last = checkpoint.load(path)
        assert all(t.isfinite().all() for t in [*last.weights.values(), *last.optimizer.values()])


def test_threads_that_changed_are_a_warning(server: Server, flags: Flags, resume: Flags) -> None:
    """One line, as sums in another order need not give the same bits."""
    assert server.run("train", flags("run", "--max_steps 4"))[0] == 0
    code, said = server.run("train", resume("run", "--max_steps 6"), "threads", 2)
    assert code == 0 and "warning: this run was saved with 1 threads, and now has 2" in said
    assert os.environ.get("OMP_NUM_THREADS") != "2"
