"""Real servers for tests: in a thread, or as the command in a process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forks import Server, Trial
from served_models import environment

from minigen.serve.address import Address, listen
from minigen.serve.models import Models
from minigen.serve.protocol import GuardedProtocol
from minigen.serve.server import make_server
from minigen.serve.worker import Worker


@contextlib.contextmanager
def serving(
    models: Models,
    token: str | None = None,
    host: str = "127.0.0.1",
    protocol: type[GuardedProtocol] = GuardedProtocol,
    worker: Worker | None = None,
) -> Iterator[Address]:
    """Serve models at a free port from a thread; the value is the server's address.

    Args:
        worker: computes for the models, for a test that looks at it; None: one is made. It is
            closed in the end.
    """
    opened, worker, ready = listen(host, 0), worker or Worker(), threading.Event()
    address = Address(host, opened.getsockname()[1])
    server = make_server(models, worker, address, token, ready.set, protocol)
    thread = threading.Thread(target=server.run, args=([opened],))
    thread.start()
    try:
        assert ready.wait(30), "the server did not start"
        yield address
    finally:
        server.should_exit = True
        thread.join(30)
        worker.close()
        assert not thread.is_alive(), "the server did not end"


@dataclass(frozen=True)
class Served:
    """A server in a process: the beginning of its addresses, `http://HOST:PORT`, and the process.

    If the server asks for a token, the address has it as the page takes it.
    """

    address: str
    trial: Trial

    @property
    def log(self) -> Path:
        """The file with the errors of the process."""
        return self.trial.log


@contextlib.contextmanager
def command(server: Server, out: Path, *words: str, **env: str) -> Iterator[Trial]:
    """Run `python -m minigen serve` until the block ends, and kill it if it still runs.

    The process is forked, so that no test waits for the import of PyTorch.

    Args:
        server: forks the process.
        out: the folder of the runs.
        words: names of runs, and flags.
        env: environment variables.
    """
    trial = server.start_python(
        "-m", "minigen", "serve", *words, "--out_dir", out,
        cwd=out.parent, env={**environment(out.parent), **env},
    )  # fmt: skip
    try:
        yield trial
    finally:
        trial.kill()
        trial.wait()


def address_of(trial: Trial) -> str:
    """Return the line that `python -m minigen serve` prints once it answers."""
    trial.until(lambda: trial.out.read_text().endswith("\n"))
    return trial.out.read_text().strip()


@contextlib.contextmanager
def serve(server: Server, out: Path, *words: str) -> Iterator[Served]:
    """Serve models of the folder `out` from a process on a free port until the block ends.

    Raises `AssertionError` if the server does not start, does not end, or writes a traceback.
    """
    with command(server, out, *words, "--port", "0") as trial:
        yield Served(address_of(trial), trial)
        trial.kill(signal.SIGTERM)
        assert trial.wait(30) == -signal.SIGTERM
    assert "Traceback" not in trial.output()


def interrupt(trial: Trial) -> tuple[int, str, str]:
    """Send Ctrl-C; return the exit code and all of both streams."""
    trial.kill(signal.SIGINT)
    return trial.wait(30), trial.out.read_text(), trial.output()
