"""The number of threads is the number of processors that other programs leave free."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from steps import around_gradients

from minigen.system.threads import INTERVAL, Processors, Threads, n_threads


class FakeProcessors(Processors):
    """Processors with invented measurements."""

    def __init__(self, n_busy: list[float], count: int = 2) -> None:
        self.measurements, self.n = iter(n_busy), count

    def n_busy(self) -> float | None:
        """Return the next measurement."""
        return next(self.measurements)

    def count(self) -> int:
        """Return the number of processors."""
        return self.n


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Give PyTorch two threads during the test."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def adapted(n_busy: list[float], count: int = 2) -> list[int]:
    """Return the number of threads after each measurement; it is PyTorch's number, too."""
    threads, numbers = Threads(), list[int]()
    threads.processors = FakeProcessors(n_busy, count)
    for _ in n_busy:
        numbers.append(threads.adapt())
        assert torch.get_num_threads() == numbers[-1]
    return numbers


def test_there_is_one_thread_for_each_free_processor() -> None:
    """The number of free processors is rounded, from 1 to the number that PyTorch would use."""
    assert [n_threads(2, 2, n_busy) for n_busy in (0, 0.4, 0.6, 1, 2, 9)] == [2, 2, 1, 1, 1, 1]
    assert [n_threads(4, 8, n_busy) for n_busy in (0, 4, 5, 7.6)] == [4, 4, 3, 1]


def test_two_measurements_in_a_row_change_the_number_of_threads(two_threads: None) -> None:
    """A single measurement changes nothing; two in a row lower or raise the number."""
    assert adapted([0, 1, 0, 1, 1, 1, 0, 1, 0, 0, 0]) == [2, 2, 2, 2, 1, 1, 1, 1, 1, 2, 2]


def test_busy_processors_beyond_the_threads_change_nothing(two_threads: None) -> None:
    """With two threads on eight processors, others may keep up to six busy."""
    assert adapted([5, 6, 5, 4], count=8) == [2, 2, 2, 2]


def test_of_two_measurements_the_smaller_change_is_made() -> None:
    """If six and then four of eight processors are free, eight threads become six."""
    torch.set_num_threads(8)
    assert adapted([2, 4, 4], count=8) == [8, 6, 4]
    torch.set_num_threads(1)


def test_omp_num_threads_fixes_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """With OMP_NUM_THREADS set, nothing is measured; without it, the processors are."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert Threads().processors is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert Threads().processors is not None


def test_a_number_that_the_program_sets_stays(two_threads: None) -> None:
    """After `torch.set_num_threads`, the number adapts no more."""
    threads = Threads()
    threads.processors = FakeProcessors([0, 2, 2, 2, 2])
    assert threads.adapt() == 2
    torch.set_num_threads(3)
    assert [threads.adapt() for _ in range(4)] == [3, 3, 3, 3]


def test_a_fixed_number_stays(two_threads: None) -> None:
    """After `fix`, which --threads calls, the number adapts no more."""
    threads = Threads()
    threads.processors = FakeProcessors([2, 2, 2])
    threads.fix(2)
    assert [threads.adapt() for _ in range(3)] == [2, 2, 2]


def test_a_resumed_run_has_the_threads_that_it_was_saved_with(two_threads: None) -> None:
    """`resume` sets the saved number if the machine allows it; afterwards the number adapts."""
    threads = Threads()
    threads.processors = FakeProcessors([0, 0, 0, 0, 1, 1])
    assert threads.resume(1) and torch.get_num_threads() == 1
    assert not threads.resume(3) and torch.get_num_threads() == 1
    assert threads.resume(2) and torch.get_num_threads() == 2
    assert [threads.adapt() for _ in range(3)] == [2, 2, 1]


@pytest.mark.parametrize("error", [psutil.AccessDenied(), FileNotFoundError("/proc/stat"),
                                   NotImplementedError(), IndexError(), ValueError()])  # fmt: skip
def test_without_measurements_the_number_of_threads_stays(
    error: Exception, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If psutil fails, as in a sandbox without /proc, or is missing, the number never changes."""

    def fail(*_: object, **__: object) -> None:
        raise error

    threads = Threads()
    threads.processors = FakeProcessors([0.0], 2)
    monkeypatch.setattr(FakeProcessors, "n_busy", fail)
    assert threads.adapt() == 2
    monkeypatch.undo()
    monkeypatch.setattr(psutil, "cpu_times", fail)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Threads().processors is None and Threads().adapt() == 2
    monkeypatch.setattr("minigen.system.threads.psutil", None)
    assert Threads().adapt() == 2


def test_only_the_work_of_others_on_allowed_processors_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Idle time, guests, which count as user time too, and this process's own work do not count."""
    seconds = 0.0

    class OwnProcess:
        def cpu_affinity(self) -> list[int]:
            return [0, 1]

        def cpu_times(self) -> tuple[float, ...]:
            return (0.5 * seconds, 0.1 * seconds, 0.1 * seconds, 0.0, 0.0)  # with its children

    Times = namedtuple("Times", "user system idle iowait guest")

    def cpu_times(percpu: bool) -> list[Times]:
        shares = [(0.9, 0.1, 0.0, 0.0, 0.3), (0.2, 0.0, 0.7, 0.1, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)]
        return [Times(*(share * seconds for share in each)) for each in shares]

    monkeypatch.setattr(psutil, "cpu_times", cpu_times)
    monkeypatch.setattr("minigen.system.threads.time.perf_counter", lambda: seconds)
    processors = Processors(OwnProcess())  # type: ignore[arg-type]
    seconds = 0.9 * INTERVAL
    assert processors.n_busy() is None  # too early
    seconds = 2 * INTERVAL
    assert processors.n_busy() == pytest.approx(1.0 + 0.2 - 0.7)
    assert processors.count() == 2


def test_the_work_of_another_process_counts() -> None:
    """A loop in another process keeps a processor busy."""
    processors = Processors()
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(1.2 * INTERVAL)  # the measured interval itself, not a wait for an event
        n_busy = processors.n_busy()
        assert n_busy is not None and n_busy > 0.3
    finally:
        loop.kill()
        loop.wait()


def test_a_run_records_its_numbers_of_threads(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The checkpoint and metrics.jsonl have each change; one line on stderr gives the reason."""
    import train
    from minigen.files import checkpoint
    from minigen.run import run as run_module
    from minigen.run.log import read_metrics

    class BusyFromStep2To5(Threads):
        def adapt(self) -> int:
            self.max_threads, self.n_busy = 2, 1.0
            return 1 if 2 <= step < 5 else 2

    step = -1

    def count(run: run_module.Run, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        nonlocal step
        step += 1
        return compute()

    monkeypatch.setattr(run_module, "threads", BusyFromStep2To5())
    monkeypatch.setattr(run_module.Run, "within_memory", around_gradients(count))
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    flags = f"--data {text} --out_dir {tmp_path}/out --name run --n_layer 1 --n_head 1 --n_embd 8"
    flags += " --block_size 16 --batch_size 2 --max_steps 8 --compile no --device cpu"
    assert train.main(flags.split()) == 0
    run = tmp_path / "out" / "run"
    assert checkpoint.load_newest(run).state["thread_counts"] == [[0, 2], [3, 1], [6, 2]]
    logged = [(line["step"], line["threads"]) for line in read_metrics(run) if "threads" in line]
    assert logged == [(0, 2), (3, 1), (6, 2)]
    stderr = capsys.readouterr().err
    assert stderr.count("other programs keep 1.0 processors busy, so 1 of 2 threads computes") == 1
