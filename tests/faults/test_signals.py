"""After a signal or a non-finite number, a step is finished or dropped, and never half taken."""

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
Trained = Callable[..., dict[str, str]]
SKIP = "--max_steps 40 --eval_interval 8 --on_nan skip"


def assert_finite(path: Path) -> None:
    """Check that all weights and optimiser averages of a checkpoint are finite."""
    saved = checkpoint.load(path)
    assert all(t.isfinite().all() for t in [*saved.weights.values(), *saved.optimizer.values()])


@pytest.mark.parametrize("n", [4, pytest.param(20, marks=slow)])
def test_a_run_stopped_by_a_signal_resumes_bit_for_bit(
    n: int, server: Server, flags: Flags, resume: Flags, trained: Trained, undisturbed: Trained,
    tmp_path: Path,
) -> None:  # fmt: skip
    """SIGINT or SIGTERM comes at `n` moments, spread evenly over start-up, steps and saves.

    The exit code is 130 or 143, and a message that a step was saved is true.
    """
    began = time.monotonic()
    expected = undisturbed()
    seconds = time.monotonic() - began
    for i in range(n):
        number = (signal.SIGINT, signal.SIGTERM)[i % 2]
        trial, run = server.start("train", flags(f"run{i}")), tmp_path / "out" / f"run{i}"
        time.sleep(seconds * (i + random.random()) / n)
        trial.kill(number)
        code, stderr = trial.wait(), trial.output()
        assert "Traceback" not in stderr
        # A child of the server may have no handler yet, and a run may have ended already.
        assert code in (128 + number, 0, *(() if stderr else (-number,))), (code, stderr)
        if "stopped and saved" in stderr:
            step = checkpoint.load_newest(run).step
            assert f"stopped and saved at step {step}." in stderr
        argv = resume(f"run{i}") if checkpoint.steps(run) else flags(run.name)
        code, stderr = server.run("train", argv)
        assert code == 0, stderr
        assert trained(f"run{i}") == expected


@pytest.mark.parametrize("n", [2, pytest.param(12, marks=slow)])
def test_a_signal_during_the_imports_exits_without_a_traceback(
    n: int, text: Path, tmp_path: Path
) -> None:
    """In the first second of the real command, SIGINT exits with 130 and SIGTERM with 143."""
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
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 128 + number and "Traceback" not in stderr, stderr


@pytest.mark.parametrize(
    "first, second", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)]
)
def test_a_second_signal_ends_the_process_at_once(
    first: int, second: int, server: Server, flags: Flags, resume: Flags, trained: Trained,
    undisturbed: Trained, tmp_path: Path,
) -> None:  # fmt: skip
    """A second signal in the same step ends it without a save; the run resumes bit for bit."""
    more = "--max_steps 12 --eval_interval 2"
    trial = server.start("train", flags("run", more), "slow_steps", 0.5)
    trial.until((tmp_path / "out" / "run" / "step-000002").is_dir)
    trial.kill(first)
    time.sleep(0.05)
    trial.kill(second)
    assert trial.wait() == -second  # if it had finished the step, it would have saved and exited
    assert checkpoint.load_newest(tmp_path / "out" / "run").step == 2
    assert server.run("train", resume("run"))[0] == 0
    assert trained("run") == undisturbed(more)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_nonfinite_loss_or_gradient_stops_the_run_before_it_is_learnt(
    where: str, value: str, server: Server, flags: Flags, tmp_path: Path
) -> None:
    """The exit code is 3, the error names the step, and the newest checkpoint is finite."""
    code, stderr = server.run("train", flags("run"), "poison", 20, where, value)
    assert code == 3, stderr
    assert stderr.splitlines()[-1].startswith("error: step 20 has ") and "Traceback" not in stderr
    newest = checkpoint.steps(tmp_path / "out" / "run")[-1]
    assert newest.name == "step-000016"
    assert_finite(newest)


def test_with_on_nan_skip_a_step_is_left_out_and_counted(
    server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """The run continues, its checkpoints hold the count, and it resumes bit for bit."""
    fault = ("poison", 5, "gradient", "nan")
    code, stderr = server.run("train", flags("whole", SKIP), *fault)
    assert code == 0 and "warning: step 5 has " in stderr and "skipped, number 1 of" in stderr
    assert checkpoint.load_newest(tmp_path / "out" / "whole").state["skipped"] == 1
    trial = server.start("train", flags("half", SKIP), *fault)
    trial.until("step 16: ")
    trial.kill(signal.SIGTERM)
    assert trial.wait() == 143
    assert server.run("train", resume("half"))[0] == 0
    assert trained("half") == trained("whole")


def test_with_on_nan_skip_a_run_stops_after_20_skipped_steps(server: Server, flags: Flags) -> None:
    """A run whose loss is never finite warns 20 times and then exits with 3."""
    code, stderr = server.run("train", flags("run", SKIP), "poison", -1, "loss", "nan")
    assert code == 3 and stderr.count("warning: ") == 20 and "error: step 20 has " in stderr


def test_weights_that_overflow_are_not_saved(server: Server, flags: Flags, tmp_path: Path) -> None:
    """A senseless learning rate ends the run with one line, and each checkpoint is finite."""
    argv = flags("run", "--max_steps 9 --eval_interval 1 --learning_rate 1e9")
    code, stderr = server.run("train", argv)
    assert code in (2, 3) and "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("error: ")
    for path in checkpoint.steps(tmp_path / "out" / "run"):
        assert_finite(path)


def test_another_number_of_threads_on_resume_is_a_warning(
    server: Server, flags: Flags, resume: Flags
) -> None:
    """The run resumes with a warning, because sums in another order differ in their last digits."""
    assert server.run("train", flags("run", "--max_steps 4"))[0] == 0
    code, stderr = server.run("train", resume("run", "--max_steps 6"), "set_threads", 2)
    assert code == 0 and "warning: this run was saved with 1 threads, and now has 2" in stderr
    assert os.environ.get("OMP_NUM_THREADS") != "2"
