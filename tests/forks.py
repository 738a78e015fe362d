"""A server that imports torch once, and forks a process for each command: hundreds in a minute.

    python forks.py FOLDER        each line is a request and each answer a line, both in JSON

{"python": WORDS, "cwd": PATH, "env": {...}, "out": PATH, "err": PATH} forks a child that runs the
command `python WORDS` with its output in these files; the answer has its pid. {"job": "train",
"argv": [...], "hook": [NAME, ...], ...} runs a job of faults/jobs.py instead. The answer to
{"wait": PID} has the child's exit code or, as in `subprocess`, minus the number of the signal that
ended it.

The server itself never computes anything, so a child begins like a new process, with one exception:
environment variables that Python reads at its start, or a library at its import, have the server's
values. A test of these variables must start a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = Path(__file__).resolve().parent


# ---- the client, in the process of the tests ----


@dataclass
class Trial:
    """A child of the server; `log` has its stderr, and for a job also its stdout."""

    server: Server
    pid: int
    out: Path
    log: Path
    code: int | None = None  # once `wait` knows it

    def wait(self, seconds: float = 60) -> int:
        """Return the exit code, or minus the signal's number; kill a child that is too slow."""
        if self.code is None:
            self.code = int(self.server.ask(wait=self.pid, seconds=seconds)["code"])
        return self.code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the child, unless `wait` has seen its end: its number may be another's.

        Nothing happens to a child that has ended and not been waited for.
        """
        if self.code is None:
            os.kill(self.pid, number)

    def output(self) -> str:
        """Return the text that the child has written to `log`."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, awaited: str | Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `log` contains a text, or until a condition holds."""
        end = time.monotonic() + seconds
        while not (awaited in self.output() if isinstance(awaited, str) else awaited()):
            assert time.monotonic() < end, self.output()
            time.sleep(0.002)


class Server:
    """The client of the server: it starts trials in `folder`, which also holds their caches."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.ask()  # waits for the imports, so that the first trial is not slower than others

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, and return the answer."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return dict(json.loads(self.process.stdout.readline()))

    def _fork(self, merged: bool, **request: Any) -> Trial:
        """Fork a child, with stdout in `log` too if `merged`."""
        self.n += 1
        log = self.folder / f"{self.n}.log"
        out = log if merged else self.folder / f"{self.n}.out"
        for path in (out, log):
            path.touch()
        pid = self.ask(out=str(out), err=str(log), **request)["pid"]
        return Trial(self, pid, out, log)

    def start(self, job: str, argv: list[str], *hook: Any) -> Trial:
        """Fork a child for a job of jobs.JOBS, with a hook of jobs.HOOKS and its arguments."""
        return self._fork(True, job=job, argv=argv, hook=hook, cwd=str(self.folder))

    def run(self, job: str, argv: list[str], *hook: Any) -> tuple[int, str]:
        """Run a job to its end, and return its exit code and its output."""
        trial = self.start(job, argv, *hook)
        code = trial.wait()
        return code, trial.output()

    def start_python(
        self, *words: str | Path, cwd: Path, env: Mapping[str, str] = os.environ
    ) -> Trial:
        """Fork a child for the command `python WORDS`: a script's path or `-m`, and arguments."""
        return self._fork(False, python=list(map(str, words)), cwd=str(cwd), env=dict(env))

    def python(
        self, *words: str | Path, cwd: Path, env: Mapping[str, str] = os.environ
    ) -> subprocess.CompletedProcess[str]:
        """Run the command `python WORDS` to its end, like `subprocess.run`."""
        trial = self.start_python(*words, cwd=cwd, env=env)
        code = trial.wait(240)
        out = trial.out.read_text(encoding="utf-8")
        return subprocess.CompletedProcess(words, code, out, trial.output())

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


# ---- the server ----


def run_python(words: list[str], env: Mapping[str, str], standard: list[str]) -> None:
    """Run the command `python WORDS` in this process, with new imports of minigen's modules.

    Args:
        words: perhaps `-W` and an action; then a script, or `-m` and a module; then arguments.
        env: the whole environment.
        standard: `sys.path` without the script's folder and the folders of PYTHONPATH.
    """
    os.environ.clear()
    os.environ.update(env)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("minigen", "train", "sample")]:
        del sys.modules[name]
    more = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    if words[0] == "-W":
        warnings.simplefilter(words[1])  # type: ignore[arg-type]
        words = words[2:]
    if words[0] == "-m":
        sys.argv, sys.path = words[1:], [os.getcwd(), *more, *standard]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path = words, [str(Path(words[0]).resolve().parent), *more, *standard]
        runpy.run_path(words[0], run_name="__main__")


def run_job(request: dict[str, Any]) -> int:
    """Install the hook of a request, run its job, and return the exit code."""
    try:
        from jobs import HOOKS, JOBS

        from minigen.system.streams import one_line_errors
    except KeyboardInterrupt:  # the job, with its handlers, has not begun
        raise SystemExit(130) from None
    if request["hook"]:
        name, *arguments = request["hook"]
        HOOKS[name](*arguments)
    with one_line_errors():
        return JOBS[request["job"]](request["argv"])


def child(request: dict[str, Any], standard: list[str]) -> int:
    """Do a request in a forked process, and return the exit code."""
    out, log = (os.open(request[name], os.O_WRONLY | os.O_APPEND) for name in ("out", "err"))
    null = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((null, 0), (out, 1), (log, 2)):
        os.dup2(old, new)
    encoding = request.get("env", {}).get("PYTHONIOENCODING", "utf-8")
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, closefd=False, buffering=1)  # noqa: SIM115
    os.chdir(request["cwd"])
    try:
        if "job" in request:
            return run_job(request)
        run_python(request["python"], request["env"], standard)
        return 0
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def wait(pid: int, seconds: float) -> int:
    """Wait for a child, and return its exit code; kill it after this time."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def requests() -> Iterator[dict[str, Any]]:
    """Yield the requests on standard input."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Answer requests until standard input ends."""
    from_variable = [*map(os.path.abspath, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    standard = [path for path in sys.path[1:] if path not in from_variable]
    os.chdir(sys.argv[1])
    sys.path[:0] = [str(ROOT), str(TESTS / "faults")]
    import sample  # noqa: F401
    import train  # noqa: F401
    from minigen.system import plot

    with plot.drawing():
        plot.new_figure()
    for request in requests():
        answer = {}
        if "wait" in request:
            answer = {"code": wait(request["wait"], request["seconds"])}
        elif request:
            answer = {"pid": os.fork()}
            if not answer["pid"]:
                os._exit(child(request, standard))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
