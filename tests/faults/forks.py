"""A server that imports torch once, and forks a process for each trial: hundreds in a minute.

    python forks.py        reads a JSON object a line, answers each with one

{"job": "train", "argv": [...], "log": PATH, "hook": [NAME, ...]} forks a child that runs the real
`main`, with its output in the log, and gives its pid. {"wait": PID} gives its exit status, as
`subprocess` does: minus the signal that ended it. The server itself never computes anything, so a
child begins like a fresh process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Flags = Callable[..., list[str]]
ROOT = Path(__file__).resolve().parents[2]


# ---- the tests' side ----


@dataclass
class Trial:
    """A child of the server."""

    server: Server
    pid: int
    log: Path

    def wait(self, seconds: float = 60) -> int:
        """Its exit code, or minus the signal that ended it; killed if it takes longer."""
        return int(self.server.ask(wait=self.pid, seconds=seconds)["code"])

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended before
            os.kill(self.pid, number)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, text: str, seconds: float = 60) -> None:
        """Wait until its output has `text`."""
        end = time.monotonic() + seconds
        while text not in self.said():
            assert time.monotonic() < end, self.said()
            time.sleep(0.002)


class Server:
    """Starts trials in `folder`, where the caches of their texts are kept, too."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return dict(json.loads(self.process.stdout.readline()))

    def start(self, job: str, argv: list[str], *hook: Any) -> Trial:
        """Fork a child for a job of JOBS, with a hook of HOOKS and its arguments."""
        self.n += 1
        log = self.folder / f"{self.n}.log"
        log.touch()
        pid = self.ask(job=job, argv=argv, log=str(log), hook=hook)["pid"]
        return Trial(self, pid, log)

    def run(self, job: str, argv: list[str], *hook: Any) -> tuple[int, str]:
        """Start, wait, and return the exit code and what was said."""
        trial = self.start(job, argv, *hook)
        code = trial.wait()
        return code, trial.said()

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


# ---- the server's side: jobs and hooks, which run in the child ----


def train_job(argv: list[str]) -> int:
    import train
    from minigen.signals import PERSON

    for number in PERSON:  # as train.py does before it imports anything
        signal.signal(number, lambda number, _: os._exit(128 + number))
    train.DATA = Path(sys.argv[1]) / "data"
    train.report_module.plot_loss = lambda *_: None  # type: ignore[attr-defined]
    return train.main(argv)


def sample_job(argv: list[str]) -> int:
    import sample

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sample.main(argv)
    return 0


def save_job(argv: list[str]) -> int:
    """Wait for a line on a pipe, if there is one, then save a checkpoint and prune.

    Args:
        argv: the run, the step, and the pipe.
    """
    from minigen import checkpoint

    run, step, *pipe = argv
    made = model_and_optimizer(int(step))
    if pipe:
        Path(pipe[0]).read_bytes()
    checkpoint.save(Path(run), *made, {"step": int(step), "val_loss": 9.0 - int(step)})
    checkpoint.prune(Path(run))
    return 0


def samples_job(argv: list[str]) -> int:
    """Run sample.py with each of the arguments, given as JSON, and print what came of it."""
    import io

    import sample
    from minigen.errors import UserError

    real = sys.stdout
    for given in argv:
        sys.stdout, said, wrong = io.StringIO(), "", ""
        try:
            sample.main(json.loads(given))
        except UserError as error:
            said = str(error)
        except BaseException as error:
            wrong = f"{type(error).__name__}: {error}"
        text, sys.stdout = sys.stdout.getvalue(), real
        result = json.dumps({"text": text, "said": said, "wrong": wrong})
        os.write(1, f"{result}\n".encode())  # at once, as stderr goes to the same file
    return 0


FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn",
             "os.fork", "socket.connect", "os.mkdir", "ctypes.dlopen")  # fmt: skip


def open_job(argv: list[str]) -> int:
    """Load each of the folders, and print what came of it, as JSON: a line for each."""
    from minigen.errors import UserError
    from minigen.interface import load

    done: list[str] = []
    sys.addaudithook(lambda name, _: done.append(name) if name in FORBIDDEN else None)
    with contextlib.suppress(UserError):  # what is imported late is not to be counted
        load(argv[0])
    for folder in argv[1:]:
        done.clear()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of memory
        before, began, said = memory("VmRSS"), time.process_time(), ""
        try:
            load(folder)
        except UserError as error:
            said = str(error)
        except BaseException as error:
            done.append(f"{type(error).__name__}: {error}")
        seconds, n_bytes = time.process_time() - began, memory("VmHWM") - before
        print(json.dumps({"said": said, "done": done, "seconds": seconds, "bytes": n_bytes}))
    return 0


def memory(kind: str) -> int:
    """Bytes of this process's memory, of a kind that Linux counts."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{kind}:")[2].split()[0])


def model_and_optimizer(seed: int) -> Any:
    """A small random model, a tokenizer, and an optimiser's state."""
    import torch

    from minigen.model import GPT, GPTConfig
    from minigen.optim import Optimizer
    from minigen.tokenizer import train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer("char", ["abc déf"])
    model = GPT(GPTConfig.modern(tokenizer.n_vocab, 8, n_layer=1, n_head=2, n_embd=8))
    state = Optimizer(model.named_parameters()).state
    return model, tokenizer, {name: torch.rand_like(t) for name, t in state.items()}


def kill_inside_a_save(number: int, event: int) -> None:
    """End the process at the `event`-th thing that the `number`-th save does to the disk."""
    from minigen import checkpoint

    saves = events = 0
    original, fsync = checkpoint.save, os.fsync

    def save(*args: Any) -> Any:
        nonlocal saves
        saves += 1
        return original(*args)

    def count(*_: Any) -> None:
        nonlocal events
        if saves == number:
            events += 1
            if events == event:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(handle: int) -> None:
        count()
        fsync(handle)

    disk = ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove")
    sys.addaudithook(lambda name, _: count() if name in disk else None)
    checkpoint.save, os.fsync = save, counted


def poison(step: int, what: str, value: str) -> None:
    """Make the loss, or one number of a gradient, NaN or Inf at a step; -1: at all."""
    import train

    original: Callable[..., Any] = train.gradients

    def poisoned(model: Any, tokens: Any, config: Any, at: int) -> Any:
        loss = original(model, tokens, config, at)
        if at == step or step < 0:
            if what == "loss":
                return loss + float(value)
            model.blocks[0].mlp.down.weight.grad[0, 0] = float(value)
        return loss

    train.gradients = poisoned  # type: ignore[assignment]


def slow_steps(seconds: float) -> None:
    """Let each step take longer."""
    import train

    original: Callable[..., Any] = train.gradients

    def slow(*args: Any) -> Any:
        time.sleep(seconds)
        return original(*args)

    train.gradients = slow  # type: ignore[assignment]


def lacks(calls: str, number: int) -> None:
    """The system answers calls with an error: "flock", "fsync", "madvise", "rename"."""
    import fcntl

    from minigen import tensor_file

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    class Memory(tensor_file.mmap.mmap):
        madvise = refuse

    if "flock" in calls:
        fcntl.flock = refuse
    if "fsync" in calls:
        os.fsync = refuse
    if "madvise" in calls:
        tensor_file.mmap.mmap = Memory  # type: ignore[misc]
    if "rename" in calls:
        os.rename = os.replace = Path.rename = Path.replace = refuse  # type: ignore[method-assign]


def no_reader() -> None:
    """Nobody reads standard error any more."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 2)


def no_streams() -> None:
    """The process was started without the three standard streams."""
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]
    for number in range(3):
        with contextlib.suppress(OSError):
            os.close(number)


def removed_folder() -> None:
    """The working folder is gone."""
    folder = Path("removed")
    folder.mkdir()
    os.chdir(folder)
    Path(f"../{folder}").rmdir()


def largest_file(n_bytes: int) -> None:
    """The disk takes no file of more than so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def threads(n: int) -> None:
    import torch

    torch.set_num_threads(n)


JOBS = {"train": train_job, "sample": sample_job, "samples": samples_job, "save": save_job,
        "open": open_job}  # fmt: skip
HOOKS = {
    f.__name__: f
    for f in (kill_inside_a_save, poison, slow_steps, largest_file, threads, lacks, no_reader,
              no_streams, removed_folder)
}  # fmt: skip


def child(request: dict[str, Any]) -> int:
    from minigen.errors import one_line_errors

    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((null, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    try:
        if request["hook"]:
            name, *arguments = request["hook"]
            HOOKS[name](*arguments)
        with one_line_errors():
            return JOBS[request["job"]](request["argv"])
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
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    os.chdir(sys.argv[1])
    sys.path.insert(0, str(ROOT))
    import sample  # noqa: F401
    import train
    from minigen import report

    train.report_module = report  # type: ignore[attr-defined]
    for request in requests():
        if "wait" in request:
            answer = {"code": wait(request["wait"], request["seconds"])}
        elif pid := os.fork():
            answer = {"pid": pid}
        else:
            os._exit(child(request))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
