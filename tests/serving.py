"""Real servers for tests: in a thread, or as the command in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigen.serve.address import Address, listen
from minigen.serve.models import Models
from minigen.serve.protocol import GuardedProtocol
from minigen.serve.server import make_server
from minigen.serve.worker import Worker

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def serving(
    models: Models,
    token: str | None = None,
    host: str = "127.0.0.1",
    protocol: type[GuardedProtocol] = GuardedProtocol,
) -> Iterator[Address]:
    """Serve models at a free port from a thread; the value is the server's address."""
    opened, worker, ready = listen(host, 0), Worker(), threading.Event()
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


@contextlib.contextmanager
def command(*flags: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m minigen serve` with these flags, and kill it in the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "minigen", "serve", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Send Ctrl-C; return the exit code and the rest of both streams."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err
