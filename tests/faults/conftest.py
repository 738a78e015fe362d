"""What the faults share: the flags of a run that takes a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import digests
import pytest
from jobs import Flags

SMALL = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 16 --batch_size 4 --vocab_size 270"
SMALL += " --device cpu --dropout 0.1 --eval_tokens 100 --compile no --dtype float32"


@pytest.fixture
def flags(text: Path, tmp_path: Path) -> Flags:
    """The flags of a small run with the name given."""

    def make(name: str, more: str = "--max_steps 40 --eval_interval 8") -> list[str]:
        return [
            *("--out_dir", str(tmp_path / "out"), "--name", name, "--data", str(text)),
            *SMALL.split(),
            *more.split(),
        ]

    return make


@pytest.fixture
def resume(tmp_path: Path) -> Flags:
    """The flags that go on with a run."""

    def make(name: str, more: str = "") -> list[str]:
        out_dir = str(tmp_path / "out")
        return ["--init_from", "resume", "--out_dir", out_dir, "--name", name, *more.split()]

    return make


@pytest.fixture
def trained(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The digests of weights and optimiser in the newest checkpoint of a run."""
    return lambda name: digests.trained(tmp_path / "out" / name)
