"""Export a run's model without the files that only training needs: a folder, or one GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tyro.conf import Positional

from minigen.cli import parse
from minigen.errors import UserError
from minigen.files import checkpoint, gguf_file, lora
from minigen.model import GPT


@dataclass(frozen=True)
class ExportConfig:
    """Write a model as a folder for transformers: `minigen export out/tales my-model`.

    A target that ends in .gguf becomes a file for llama.cpp, with a Modelfile for Ollama.
    """

    source: Positional[str]  # a run, whose best checkpoint is taken, or a checkpoint
    target: Positional[Path]  # the new folder, or the new file NAME.gguf
    # number format of the weights; q8_0, in GGUF only: 8 bits (default: as they are saved)
    dtype: Literal["float32", "bfloat16", "float16", "q8_0"] | None = None


def export(source: str | Path, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write the model of a run or of a checkpoint into a new folder; return the folder.

    An adapter is merged into its base model.

    Args:
        source: a run (its best checkpoint is taken), or a checkpoint.
        folder: the new folder; it must not exist yet.
        dtype: number format of the weights; None: as they are saved.

    Raises `UserError` if minigen did not train the model, or if the folder cannot be made.
    """
    loaded, model = load(source)
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


def export_gguf(source: str | Path, path: Path, dtype: str | None = None) -> Path:
    """Write the model of a run or of a checkpoint into a new GGUF file; return the file.

    Args:
        source: a run (its best checkpoint is taken), or a checkpoint.
        path: the new file; a Modelfile is written beside it.
        dtype: one of `gguf_file.FORMATS`; None: as the weights are saved.

    Raises `UserError` as `export` does, and for a model that GGUF cannot hold.
    """
    loaded, model = load(source)
    gguf_file.write(path, model, loaded.tokenizer, loaded.companions, dtype)
    return path


def load(source: str | Path) -> tuple[checkpoint.Checkpoint, GPT]:
    """Return the checkpoint that `source` means, and its model, with an adapter merged into it."""
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
    return loaded, model


def main(argv: Sequence[str] | None = None) -> None:
    """Export the model that the command line names, and print the target."""
    config = parse(ExportConfig, argv)
    if config.target.suffix == ".gguf":
        print(export_gguf(config.source, config.target, config.dtype))
    elif config.dtype == "q8_0":
        raise UserError("q8_0 is a number format of GGUF; name a target that ends in .gguf")
    else:
        dtype = getattr(torch, config.dtype) if config.dtype else None
        print(export(config.source, config.target, dtype))
