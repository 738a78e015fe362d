"""Fixtures of the fault tests: the flags of a run that takes a second, and its results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import digests
import pytest
from forks import Server
from jobs import Flags

SMALL = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 16 --batch_size 4 --vocab_size 270"
SMALL += " --device cpu --dropout 0.1 --eval_tokens 100 --compile no --dtype float32"


@pytest.fixture
def flags(text: Path, tmp_path: Path) -> Flags:
    """Return a function from the name of a run to the flags that train it."""

    def make(name: str, more: str = "--max_steps 40 --eval_interval 8") -> list[str]:
        return [
            *("--out_dir", str(tmp_path / "out"), "--name", name, "--data", str(text)),
            *SMALL.split(),
            *more.split(),
        ]

    return make


@pytest.fixture
def resume(tmp_path: Path) -> Flags:
    """Return a function from the name of a run to the flags that resume it."""

    def make(name: str, more: str = "") -> list[str]:
        out_dir = str(tmp_path / "out")
        return ["--init_from", "resume", "--out_dir", out_dir, "--name", name, *more.split()]

    return make


@pytest.fixture
def trained(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return a function from a run's name to digests of its newest weights and optimiser state."""
    return lambda name: digests.trained(tmp_path / "out" / name)


@pytest.fixture
def undisturbed(
    server: Server, flags: Flags, trained: Callable[[str], dict[str, str]]
) -> Callable[..., dict[str, str]]:
    """Return a function that trains a run without any fault, and returns digests of the result."""

    def train(*more: str) -> dict[str, str]:
        code, stderr = server.run("train", flags("undisturbed", *more))
        assert code == 0, stderr
        return trained("undisturbed")

    return train
