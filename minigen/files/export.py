"""A run's model as a folder for other programs: what transformers needs, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tyro.conf import Positional

from minigen.cli import parse
from minigen.errors import UserError
from minigen.files import checkpoint, lora


@dataclass(frozen=True)
class ExportConfig:
    """Write a model as a folder for transformers: `minigen export out/tales my-model`."""

    source: Positional[str]  # a run, whose best checkpoint is taken, or a checkpoint
    folder: Positional[Path]  # the new folder
    # number format of the weights (default: as they are saved)
    dtype: Literal["float32", "bfloat16", "float16"] | None = None


def export(source: str | Path, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write the model of a run or of a checkpoint, LoRA merged, into a new folder; return that.

    Args:
        dtype: of the weights; None: as they are.

    Raises `UserError` for another's model, and if the folder cannot be made.
    """
    path = checkpoint.find(source)
    if isinstance(path, str) or not (checkpoint.steps(path) or checkpoint.is_one(path)):
        raise UserError(f"{path} is another's model, which needs no export; give a run of your own")
    best = checkpoint.best_first(path)[0] if checkpoint.steps(path) else path
    found = checkpoint.load(best, to_train=False)
    model = found.model()
    lora.merge(model)
    model.to(dtype)
    of_it = (model, found.tokenizer, found.companions)
    contents = checkpoint.files_of_model(*of_it) | checkpoint.files_of_tokenizer(*of_it)
    try:
        folder.mkdir(parents=True)
        for name, content in contents.items():
            checkpoint.write_file(folder / name, content)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}; name a folder that is not there yet"
        ) from None
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ExportConfig, argv)
    dtype = getattr(torch, config.dtype) if config.dtype else None
    print(export(config.source, config.folder, dtype))
