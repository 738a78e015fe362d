"""Find the tokenizer that a name means: that of a run, of a model, or of a file."""

from __future__ import annotations

from pathlib import Path

from minigen.errors import UserError
from minigen.files import checkpoint, huggingface, tokenizer_files
from minigen.tokenizer import Tokenizer, train_tokenizer


def find_tokenizer(name: str | None, out_dir: str) -> Tokenizer:
    """Return the tokenizer that `name` means; None: that of the run in `out_dir` saved last.

    Raises `UserError` if there is no such tokenizer.
    """
    if name == "gpt2":
        return train_tokenizer("gpt2", [])
    if name is not None and name.endswith(".json"):
        return tokenizer_files.load(Path(name))
    model = checkpoint.find_run(out_dir) if name is None else checkpoint.find(name, out_dir)
    if isinstance(model, Path) and checkpoint.steps(model):
        return checkpoint.load_best_tokenizer(model)
    if isinstance(model, Path) and checkpoint.is_checkpoint(model):
        return checkpoint.load_tokenizer(model)
    tokenizer = huggingface.load_tokenizer(model)
    if tokenizer is None:
        raise UserError(f"{model} has no tokenizer.json; save the model's tokenizer there")
    return tokenizer
