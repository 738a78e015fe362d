"""Threads compute where there are processors for them, and another program costs its share only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from steps import around_gradients

from minigen.system.threads import INTERVAL, Processors, Threads, fitting


class Told(Processors):
    """Processors of which others keep busy what the test says."""

    def __init__(self, taken: list[float], count: int = 2) -> None:
        self.told, self.n = iter(taken), count

    def taken(self) -> float | None:
        return next(self.told)

    def count(self) -> int:
        return self.n


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch with two threads, and with one again."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def followed(taken: list[float], count: int = 2) -> list[int]:
    """The numbers of threads for a sequence of measurements; PyTorch's is the same each time."""
    threads, numbers = Threads(), list[int]()
    threads.processors = Told(taken, count)
    for _ in taken:
        numbers.append(threads.follow())
        assert torch.get_num_threads() == numbers[-1]
    return numbers


def test_no_more_threads_than_free_processors() -> None:
    """Never none, never more than PyTorch would use, and half a processor is rounded."""
    assert [fitting(2, 2, taken) for taken in (0, 0.4, 0.6, 1, 2, 9)] == [2, 2, 1, 1, 1, 1]
    assert [fitting(4, 8, taken) for taken in (0, 4, 5, 7.6)] == [4, 4, 3, 1]


def test_the_number_of_threads_follows_other_programs(two_threads: None) -> None:
    """One measurement changes nothing, two in a row do, down and up again."""
    assert followed([0, 1, 0, 1, 1, 1, 0, 1, 0, 0, 0]) == [2, 2, 2, 2, 1, 1, 1, 1, 1, 2, 2]
    torch.set_num_threads(2)
    assert followed([5, 6, 5, 4], count=8) == [2, 2, 2, 2]


def test_of_two_measurements_the_smaller_change_is_made() -> None:
    """Six of eight and then four of eight are free: six threads."""
    torch.set_num_threads(8)
    assert followed([2, 4, 4], count=8) == [8, 6, 4]
    torch.set_num_threads(1)


def test_a_number_that_was_chosen_stays(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By OMP_NUM_THREADS, by `torch.set_num_threads` or by --threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert Threads().processors is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    threads = Threads()
    assert threads.processors is not None
    threads.processors = Told([0, 2, 2, 2, 2])
    assert threads.follow() == 2
    torch.set_num_threads(3)
    assert [threads.follow() for _ in range(4)] == [3, 3, 3, 3]
    threads = Threads()
    threads.fix(2)
    threads.follow()
    assert threads.processors is None and torch.get_num_threads() == 2


def test_a_resumed_run_has_the_threads_that_it_was_saved_with(two_threads: None) -> None:
    """Where the machine has so many; then other programs are followed as before."""
    threads = Threads()
    threads.processors = Told([0, 0, 0, 0, 1, 1])
    assert threads.resume(1) and torch.get_num_threads() == 1
    assert not threads.resume(3) and torch.get_num_threads() == 1
    assert threads.resume(2) and torch.get_num_threads() == 2
    assert [threads.follow() for _ in range(3)] == [2, 2, 1]


@pytest.mark.parametrize("error", [psutil.AccessDenied(), FileNotFoundError("/proc/stat"),
                                   NotImplementedError(), IndexError(), ValueError()])  # fmt: skip
def test_a_system_that_does_not_tell_changes_nothing(
    error: Exception, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc, in a sandbox, in a container of another kind: the number of threads stays."""

    def fail(*_: object, **__: object) -> None:
        raise error

    threads = Threads()
    threads.processors = Told([0.0], 2)
    monkeypatch.setattr(Told, "taken", fail)
    assert threads.follow() == 2
    monkeypatch.undo()
    monkeypatch.setattr(psutil, "cpu_times", fail)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Threads().processors is None and Threads().follow() == 2
    monkeypatch.setattr("minigen.system.threads.psutil", None)
    assert Threads().follow() == 2


def test_a_busy_program_is_measured() -> None:
    """A loop in another process counts, and one in this process does not."""
    mine, without = Processors(), Processors(psutil.Process())
    without.own = psutil.Process(os.getppid())  # as another process sees this one
    without.busy = without._busy()
    end = time.perf_counter() + 1.2 * INTERVAL
    while time.perf_counter() < end:
        pass
    seen_by_me, seen_by_others = mine.taken(), without.taken()
    assert seen_by_me is not None and seen_by_others is not None
    assert seen_by_others - seen_by_me > 0.3
    assert mine.taken() is None  # too soon

    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(1.2 * INTERVAL)
        taken = mine.taken()
        assert taken is not None and taken > 0.3
    finally:
        loop.kill()
        loop.wait()


def test_a_run_keeps_a_record_of_its_threads(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Busy from step 2 to 5: checkpoint and metrics have it, and one line says why."""
    import train
    from minigen.files import checkpoint
    from minigen.run import run as run_module
    from minigen.run.log import read_metrics

    class Busy(Threads):
        def follow(self) -> int:
            self.most, self.taken = 2, 1.0
            return 1 if 2 <= steps < 5 else 2

    steps = -1

    def counted(run: run_module.Run, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return compute()

    monkeypatch.setattr(run_module, "threads", Busy())
    monkeypatch.setattr(run_module.Run, "within_memory", around_gradients(counted))
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    flags = f"--data {text} --out_dir {tmp_path}/out --name run --n_layer 1 --n_head 1 --n_embd 8"
    flags += " --block_size 16 --batch_size 2 --max_steps 8 --compile no --device cpu"
    assert train.main(flags.split()) == 0
    run = tmp_path / "out" / "run"
    assert checkpoint.load_newest(run).state["thread_counts"] == [[0, 2], [3, 1], [6, 2]]
    logged = [(line["step"], line["threads"]) for line in read_metrics(run) if "threads" in line]
    assert logged == [(0, 2), (3, 1), (6, 2)]
    said = capsys.readouterr().err
    assert said.count("other programs keep 1.0 processors busy, so 1 of 2 threads computes") == 1
