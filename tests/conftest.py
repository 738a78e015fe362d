"""Fixtures that many tests share: a small text, a server of processes, restored signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Server
from gpt2_vocabulary import use_gpt2_cache
from small_text import write_text

# torch reads this variable at its import, in this process and in the processes that tests start.
# Their models are too small for several threads, and results must not depend on how busy the
# machine is.
os.environ["OMP_NUM_THREADS"] = "1"


# The files with the longest tests, and with the most expensive fixtures.
LONG = ("test_train.py", "test_evaluate.py", "test_distributed.py", "test_readme.py",
        "test_mutants.py", "test_kills.py", "test_data.py", "test_pretrained.py",
        "test_docs.py")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files of LONG first: at the end, short tests keep all worker processes busy."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True, scope="session")
def brief_runs() -> None:
    """Make the runs in this process brief: without plots, and with short samples."""
    from brief import make_brief  # imported here, because it imports PyTorch

    make_brief()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server, which runs Python commands without importing torch anew each time."""
    server = Server(tmp_path_factory.mktemp("trials"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, server: Server, worker_id: str) -> Path:
    """Return the folder of the runs of `served_models`, trained once for all processes."""
    from served_models import make_runs  # imported here, because it imports PyTorch

    base = tmp_path_factory.getbasetemp()
    return make_runs(base if worker_id == "master" else base.parent, server)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Write a small text in the folder of the test, and return its path."""
    return write_text(tmp_path)


@pytest.fixture
def signals() -> Iterator[None]:
    """Put back the signal handlers that a run in this process has changed."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def gpt2_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiktoken find GPT-2's vocabulary without a network, or skip the test."""
    use_gpt2_cache(monkeypatch)
