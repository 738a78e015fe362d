"""The parts of all benchmarks: turns, timers, worker processes, tables and records."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")


def options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags that each benchmark has."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of each process"
    )
    parser.add_argument("--peers-python", default=sys.executable, help="a python with the peers")
    parser.add_argument("--cache", type=Path, default=ROOT / "out" / "bench", help="for files made")
    parser.add_argument("--json", type=Path, help="append the figures here; else to the cache")
    return parser


# ---- measuring ----


def alternate(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call the contenders in turns; return {name: its results, one per round}.

    So other work on the machine slows all contenders and not one of them. Each second round has the
    reverse order.
    """
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in list(contenders)[:: -1 if i % 2 else 1]:
            check_quiet()
            results[name].append(contenders[name]())
    check_quiet()
    return results


busiest: float | None = None  # the most cores that other programs used in a pause; None: no pause


def check_quiet() -> None:
    """Pause, and measure how many cores other programs use; `record` prints the most of them."""
    global busiest
    time.sleep(0.3)  # until the idle threads of the last contender have stopped spinning
    before = busy_seconds()
    time.sleep(0.2)
    busiest = round(max(busiest or 0.0, (busy_seconds() - before) / 0.2), 2)


def busy_seconds() -> float:
    """Return the seconds of work of all cores since the machine started; 0 without /proc/stat."""
    if not (path := Path("/proc/stat")).is_file():
        return 0.0
    user, nice, system, *_ = map(int, path.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def seconds_of(action: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median_seconds(action: Callable[[], Any], times: int = 5) -> float:
    """Return the median of several calls, after one that allocates memory and compiles code."""
    return statistics.median([seconds_of(action) for _ in range(times + 1)][1:])


def peer(name: str) -> Any:
    """Import a module of another project. Raises ImportError if it is not installed."""
    return importlib.import_module(name)


# ---- processes ----


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process that may use this number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}


def run(command: Sequence[str], threads: int, cwd: Path = ROOT) -> tuple[float, str]:
    """Run a command to its end; return the seconds from launch, and its output.

    Raises RuntimeError with the end of the output if the command fails.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=cwd, env=environment(threads), encoding="utf-8",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return seconds, done.stdout


class Worker:
    """The process of one contender, which loads once and then answers requests through `serve`.

    Raises `FileNotFoundError` or `RuntimeError` if it cannot start. The error ends with the last
    line that the process wrote on standard error.
    """

    def __init__(self, python: str, module: str, args: Sequence[str], threads: int) -> None:
        # A file and no pipe: the process would wait for a reader of a full pipe.
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, "-m", module, *args], cwd=ROOT, env=environment(threads), encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip
        self.facts = self._answer()

    def ask(self, request: Any = None) -> Any:
        """Send a request; return the answer. Both are values of JSON."""
        assert self.process.stdin is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        """Read lines up to the next answer, as libraries may print others; return the answer."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                answer = json.loads(line.removeprefix(MARK))
                if isinstance(answer, dict) and "error" in answer:
                    raise RuntimeError(answer["error"])
                return answer
        code = self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors if line.strip()]
        last = f": {lines[-1]}" if lines else ""
        raise RuntimeError(f"the process ended with exit code {code}{last}")

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.errors.close()


MARK = "answer: "


def serve(load: Callable[[], Callable[[Any], Any]]) -> None:
    """Run as the process of a `Worker`.

    Args:
        load: prepares the contender and returns the function that maps a request to its answer.
    """

    def answer(value: Any) -> None:
        """Print an answer on a line that `Worker` recognises."""
        print(f"\n{MARK}{json.dumps(value)}", flush=True)

    try:
        handle = load()
        answer("ready")
        for line in sys.stdin:
            answer(handle(json.loads(line)))
    except Exception as error:  # of any kind, from another program: the benchmark continues
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        answer({"error": f"{type(error).__name__}: {reason[:120]}"})


def start_workers(
    contenders: Mapping[str, str], module: str, args: Sequence[str], threads: int
) -> dict[str, Worker]:
    """Return {name: its worker} for contenders {name: python}.

    A contender that cannot start is reported and left out.
    """
    workers = {}
    for name, python in contenders.items():
        try:
            workers[name] = Worker(python, module, ["--worker", name, *args], threads)
        except (OSError, RuntimeError) as error:
            print(f"{name}: skipped ({error})", flush=True)
    return workers


# ---- showing ----


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column aligned to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip(), flush=True)


def machine(threads: int) -> dict[str, Any]:
    """Return the facts about machine and software that belong to each record."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, encoding="utf-8").stdout.strip()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "busy": busiest,
        "torch": importlib.metadata.version("torch"),
        "commit": commit,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def record(name: str, figures: Any, given: argparse.Namespace) -> None:
    """Append a line of JSON with the benchmark's name, the machine and the figures.

    Print how busy other programs kept the machine, as they distort the figures.
    """
    path = given.json or given.cache / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"bench": name, "machine": machine(given.threads), "figures": figures}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    if busiest is not None:
        advice = "; measure again" if busiest > 1 / 3 else ""
        print(f"other programs used up to {busiest} cores in the pauses{advice}")
    print(f"-> {path}")
