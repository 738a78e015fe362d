"""The jobs of a trial in a fork of tests/forks.py, and the hooks that make them go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Flags = Callable[..., list[str]]

# ---- jobs ----


def train_job(argv: list[str]) -> int:
    """Run train.py with these flags, and return its exit code."""
    from brief import make_brief

    import train
    from minigen.run.signals import FROM_USER

    for number in FROM_USER:  # as train.py does before its imports
        signal.signal(number, lambda number, _: os._exit(128 + number))
    os.environ["MINIGEN_DATA"] = str(Path(sys.argv[1]) / "data")
    make_brief()
    return train.main(argv)


def sample_job(argv: list[str]) -> int:
    """Run sample.py with these flags."""
    import sample

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sample.main(argv)
    return 0


def save_job(argv: list[str]) -> int:
    """Wait for a line on a pipe, if there is one, then save a checkpoint and prune.

    Args:
        argv: the run, the step, and the pipe.
    """
    from minigen.files import checkpoint

    run, step, *pipe = argv
    made = model_and_optimizer(int(step))
    if pipe:
        Path(pipe[0]).read_bytes()
    checkpoint.save(Path(run), *made, {"step": int(step), "val_loss": 9.0 - int(step)})
    checkpoint.prune(Path(run))
    return 0


def samples_job(argv: list[str]) -> int:
    """Run sample.py once for each argument, a list of flags in JSON; print each result as JSON."""
    import io

    import sample
    from minigen.errors import UserError

    real = sys.stdout
    for flags in argv:
        sys.stdout, user_error, bug = io.StringIO(), "", ""
        try:
            sample.main(json.loads(flags))
        except UserError as error:
            user_error = str(error)
        except BaseException as error:
            bug = f"{type(error).__name__}: {error}"
        text, sys.stdout = sys.stdout.getvalue(), real
        result = json.dumps({"text": text, "user_error": user_error, "bug": bug})
        os.write(1, f"{result}\n".encode())  # unbuffered, because stderr goes to the same file
    return 0


# Operations that loading a model must not need: running code, the network, new folders.
FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn",
             "os.fork", "socket.connect", "os.mkdir", "ctypes.dlopen")  # fmt: skip


def open_job(argv: list[str]) -> int:
    """Load the model in each folder, and print a line of JSON with the result and its cost.

    Args:
        argv: a folder that loads without errors, which is not reported, and the others.
    """
    # Late imports must not count as the cost of the first folder.
    from transformers import AutoTokenizer  # noqa: F401

    from minigen.errors import UserError
    from minigen.inference.engine import load

    bugs: list[str] = []  # forbidden operations, and errors that are no `UserError`
    sys.addaudithook(lambda name, _: bugs.append(name) if name in FORBIDDEN else None)
    with contextlib.suppress(UserError):  # imports the rest
        load(argv[0])
    for folder in argv[1:]:
        bugs.clear()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of memory
        before, began, user_error = memory("VmRSS"), time.process_time(), ""
        try:
            load(folder)
        except UserError as error:
            user_error = str(error)
        except BaseException as error:
            bugs.append(f"{type(error).__name__}: {error}")
        seconds, n_bytes = time.process_time() - began, memory("VmHWM") - before
        result = {"user_error": user_error, "bugs": bugs, "seconds": seconds, "bytes": n_bytes}
        print(json.dumps(result))
    return 0


def memory(kind: str) -> int:
    """Return bytes of this process's memory, by Linux's name of the figure, such as "VmRSS"."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{kind}:")[2].split()[0])


def model_and_optimizer(seed: int) -> Any:
    """Return a small random model, a tokenizer, and a random optimiser state."""
    import torch

    from minigen.model import GPT, GPTConfig
    from minigen.optim import Optimizer
    from minigen.tokenizer import train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer("char", ["abc déf"])
    model = GPT(GPTConfig.modern(tokenizer.n_vocab, 8, n_layer=1, n_head=2, n_embd=8))
    state = Optimizer(model.named_parameters()).state
    return model, tokenizer, {name: torch.rand_like(t) for name, t in state.items()}


# ---- hooks ----


def kill_inside_a_save(number: int, event: int) -> None:
    """Kill the process at the `event`-th disk operation of the `number`-th save."""
    from minigen.files import checkpoint

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

    operations = ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove")
    sys.addaudithook(lambda name, _: count() if name in operations else None)
    checkpoint.save, os.fsync = save, counted


def poison(step: int, where: str, value: str) -> None:
    """Make the loss, or one number of a gradient, NaN or Inf at a step; at each step if -1."""
    from steps import around_gradients

    from minigen.run.run import Run

    def poisoned(run: Run, compute: Callable[[], Any]) -> Any:
        loss = compute()
        if run.step == step or step < 0:
            if where == "loss":
                return loss + float(value)
            grad = run.model.blocks[0].mlp.down.weight.grad
            assert grad is not None
            grad[0, 0] = float(value)
        return loss

    Run.within_memory = around_gradients(poisoned)  # type: ignore[method-assign]


def slow_steps(seconds: float) -> None:
    """Make each step take these seconds longer."""
    from steps import around_gradients

    from minigen.run.run import Run

    def slow(run: Run, compute: Callable[[], Any]) -> Any:
        time.sleep(seconds)
        return compute()

    Run.within_memory = around_gradients(slow)  # type: ignore[method-assign]


def refuse_calls(calls: str, number: int) -> None:
    """Make system calls fail with an error number: "flock", "fsync", "madvise", "rename"."""
    import fcntl

    from minigen.files import safetensors_file

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    class Memory(safetensors_file.mmap.mmap):
        madvise = refuse

    if "flock" in calls:
        fcntl.flock = refuse
    if "fsync" in calls:
        os.fsync = refuse
    if "madvise" in calls:
        safetensors_file.mmap.mmap = Memory  # type: ignore[misc]
    if "rename" in calls:
        os.rename = os.replace = Path.rename = Path.replace = refuse  # type: ignore[method-assign]


def close_reader() -> None:
    """Make standard error a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 2)


def close_streams() -> None:
    """Close the three standard streams, as for a program without a console."""
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]
    for number in range(3):
        with contextlib.suppress(OSError):
            os.close(number)


def remove_working_folder() -> None:
    """Change to a new working folder, and remove it."""
    folder = Path("removed")
    folder.mkdir()
    os.chdir(folder)
    Path(f"../{folder}").rmdir()


def limit_file_size(n_bytes: int) -> None:
    """Make writing fail beyond `n_bytes` of a file, as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def set_threads(n: int) -> None:
    """Set PyTorch's number of threads."""
    import torch

    torch.set_num_threads(n)


JOBS = {"train": train_job, "sample": sample_job, "samples": samples_job, "save": save_job,
        "open": open_job}  # fmt: skip
HOOKS = {
    f.__name__: f
    for f in (kill_inside_a_save, poison, slow_steps, limit_file_size, set_threads, refuse_calls,
              close_reader, close_streams, remove_working_folder)
}  # fmt: skip
