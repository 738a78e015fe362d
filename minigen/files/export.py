"""Export a run's model as a folder for transformers, without the files that only training needs."""

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
    """Write the model of a run or of a checkpoint into a new folder; return the folder.

    An adapter is merged into its base model.

    Args:
        source: a run (its best checkpoint is taken), or a checkpoint.
        folder: the new folder; it must not exist yet.
        dtype: number format of the weights; None: as they are saved.

    Raises `UserError` if minigen did not train the model, or if the folder cannot be made.
    """
    path = checkpoint.find(source)
    if isinstance(path, str) or not (checkpoint.steps(path) or checkpoint.is_checkpoint(path)):
        raise UserError(
            f"{path} is no run and no checkpoint of minigen, so it needs no export; give a run of "
            "your own"
        )
    best = checkpoint.best_first(path)[0] if checkpoint.steps(path) else path
    loaded = checkpoint.load(best, to_train=False)
    model = loaded.model()
    lora.merge(model)
    model.to(dtype)
    parts = (model, loaded.tokenizer, loaded.companions)
    contents = checkpoint.files_of_model(*parts) | checkpoint.files_of_tokenizer(*parts)
    try:
        folder.mkdir(parents=True)
        for name, content in contents.items():
            checkpoint.write_file(folder / name, content)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}; name a folder that does not exist yet"
        ) from None
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Export the model that the command line names, and print the folder."""
    config = parse(ExportConfig, argv)
    dtype = getattr(torch, config.dtype) if config.dtype else None
    print(export(config.source, config.folder, dtype))
