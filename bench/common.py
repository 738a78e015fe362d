"""What all benchmarks share: turns, tables, records, and the processes that are measured."""

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
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")


def options(doc: str | None) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--rounds", type=int, default=3, help="turns that each contender gets")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each process")
    parser.add_argument("--peers-python", default=sys.executable, help="a python with the peers")
    parser.add_argument("--cache", type=Path, default=ROOT / "out" / "bench", help="for files made")
    parser.add_argument("--json", type=Path, help="append the figures here; else to the cache")
    return parser


# ---- measuring ----


def alternate(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each contender returns, {name: one result a round}. They take turns.

    So what slows the machine for a while slows all of them. Every other round goes backwards.
    """
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in list(contenders)[:: -1 if i % 2 else 1]:
            check_quiet()
            results[name].append(contenders[name]())
    check_quiet()
    return results


busiest = 0.0  # cores that others used in the pauses, at most; goes into the record


def check_quiet() -> None:
    """Warn if other programs use more than a third of a core: then these figures are not ours."""
    global busiest
    time.sleep(0.3)  # the last contender's idle threads may still be spinning
    before = busy_seconds()
    time.sleep(0.2)
    cores = (busy_seconds() - before) / 0.2
    busiest = max(busiest, cores)
    if cores > 1 / 3:
        print(f"warning: other programs use {cores:.1f} cores; measure again", flush=True)


def busy_seconds() -> float:
    """That all cores together have worked since the machine started; 0 where it is not told."""
    if not (path := Path("/proc/stat")).is_file():
        return 0.0
    user, nice, system, *_ = map(int, path.read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def seconds_of(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def median_seconds(action: Callable[[], Any], times: int = 5) -> float:
    """The first time, when memory is fetched and code is compiled, does not count."""
    return statistics.median([seconds_of(action) for _ in range(times + 1)][1:])


def peer(name: str) -> Any:
    """Another project's module: untyped here, and perhaps not installed (ImportError)."""
    return importlib.import_module(name)


# ---- processes ----


def environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}


def run(command: Sequence[str], threads: int, cwd: Path = ROOT) -> tuple[float, str]:
    """Run a command to its end: the seconds from launch, and all that it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=cwd, env=environment(threads), encoding="utf-8",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    taken = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return taken, done.stdout


class Worker:
    """A process of its own for one contender: it loads once, then runs each time it is asked.

    It runs `serve` below. `FileNotFoundError` or `RuntimeError` says why it cannot.
    """

    def __init__(self, python: str, module: str, args: Sequence[str], threads: int) -> None:
        self.process = subprocess.Popen(
            [python, "-m", module, *args], cwd=ROOT, env=environment(threads), encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.facts = self._answer()

    def ask(self, request: Any = None) -> Any:
        assert self.process.stdin is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        """The next line that is an answer; libraries may print others."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                answer = json.loads(line.removeprefix(MARK))
                if isinstance(answer, dict) and "error" in answer:
                    raise RuntimeError(answer["error"])
                return answer
        raise RuntimeError(f"it ended with exit code {self.process.wait()}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


MARK = "answer: "


def serve(load: Callable[[], Callable[[Any], Any]]) -> None:
    """Be a `Worker`'s process: load, say so, then answer each request with what it returns."""

    def answer(value: Any) -> None:
        print(f"\n{MARK}{json.dumps(value)}", flush=True)

    try:
        handle = load()
        answer("ready")
        for line in sys.stdin:
            answer(handle(json.loads(line)))
    except Exception as error:  # whatever a peer may raise: the benchmark goes on without it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        answer({"error": f"{type(error).__name__}: {reason[:120]}"})


def start_workers(
    contenders: Mapping[str, str], module: str, args: Sequence[str], threads: int
) -> dict[str, Worker]:
    """A worker for each contender {name: python}; one that cannot start is named and left out."""
    workers = {}
    for name, python in contenders.items():
        try:
            workers[name] = Worker(python, module, ["--worker", name, *args], threads)
        except (OSError, RuntimeError) as error:
            print(f"{name}: skipped ({error})", flush=True)
    return workers


# ---- showing ----


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip(), flush=True)


def machine(threads: int) -> dict[str, Any]:
    """Where and of what the figures are."""
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
        "busy": round(busiest, 2),  # cores that others used
        "torch": importlib.metadata.version("torch"),
        "commit": commit,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def record(name: str, figures: Any, given: argparse.Namespace) -> None:
    """Append a line of JSON: which benchmark, where, and its figures."""
    path = given.json or given.cache / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"bench": name, "machine": machine(given.threads), "figures": figures}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(f"-> {path}")
