"""What several tests share: a small text, and a place where a run leaves nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Server
from small_text import write_text

# torch reads the number when it is first imported, also in the processes that tests start. Their
# models are too small to share out, and bits must not depend on what else the machine does.
os.environ["OMP_NUM_THREADS"] = "1"


# The files with the longest tests, and with the most expensive fixtures.
LONG = ("test_train.py", "test_evaluate.py", "test_distributed.py", "test_readme.py",
        "test_mutants.py", "test_kills.py", "test_data.py", "test_pretrained.py",
        "test_docs.py")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run them first, so that short ones are left to share when the first process has no more."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True, scope="session")
def brief_runs() -> None:
    """Make the runs in this process brief."""
    from brief import make_brief  # here, as it imports PyTorch

    make_brief()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What runs a command of Python without importing torch once more."""
    server = Server(tmp_path_factory.mktemp("trials"))
    yield server
    server.close()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """`write_text` in a folder of the test's own."""
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
    """GPT-2's vocabulary where tiktoken finds it without a network."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "tiktoken_cache"
    if not folder.is_dir():
        pytest.skip("the folder with GPT-2's vocabulary, shared/data/tiktoken_cache, is not here")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
