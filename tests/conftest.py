"""What several tests share: a small text, and a place where a run leaves nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_text import write_text

torch.set_num_threads(1)  # the models of the tests are too small to share out


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
