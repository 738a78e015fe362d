"""GPT-2's vocabulary for tests, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest


def use_gpt2_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiktoken find GPT-2's vocabulary without a network, or skip the test."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "tiktoken_cache"
    if not folder.is_dir():
        pytest.skip("the folder with GPT-2's vocabulary, shared/data/tiktoken_cache, is not here")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
