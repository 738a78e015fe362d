"""Digests of files, which tests compare instead of contents.

For contents that differ, pytest would show the difference of all bytes, which takes minutes.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from minigen.files import checkpoint

# The files of each checkpoint of a model without LoRA.
CHECKPOINT_FILES = (
    *checkpoint.WHOLE, "tokenizer.json", "tokenizer_config.json", "optimizer.safetensors",
    "state.json", "MANIFEST.json",
)  # fmt: skip


def digests(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, at any depth, by its path there."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob(pattern)
        if path.is_file()
    }


def trained(run: Path) -> dict[str, str]:
    """Return the digests of the weights and the optimizer's state in a run's newest checkpoint."""
    return digests(checkpoint.steps(run)[-1], "*.safetensors")
