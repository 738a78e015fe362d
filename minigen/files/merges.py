"""Show how a word becomes tokens, a merge at a time: `python -m minigen merges unbelievable`

u | n | b | e | l | i | e | v | a | b | l | e
...
un | bel | iev | able

By default the tokenizer of the run that was saved last is used, so the merges come from your own
text; `--tokenizer gpt2` shows the merges of GPT-2, as above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from minigen.cli import parse
from minigen.errors import UserError
from minigen.files import checkpoint, huggingface, tokenizer_files
from minigen.system.streams import decoded
from minigen.tokenizer import Tokenizer, train_tokenizer


@dataclass(frozen=True)
class MergesConfig:
    """Show how a word becomes tokens, step by step."""

    word: Positional[str]  # a word, or several in quotes
    # a run, a folder with a model, a tokenizer.json, or gpt2 (default: the run that was saved last)
    tokenizer: str | None = None
    out_dir: str = "out"  # where the runs are


def main(argv: Sequence[str] | None = None) -> None:
    """Print the pieces of a word after each merge, a line for each step, and the ids at the end."""
    config = parse(MergesConfig, argv)
    word = decoded(config.word)
    tokenizer = find_tokenizer(config.tokenizer, config.out_dir)
    for pieces in tokenizer.merges(word):
        print(" | ".join(piece.decode("utf-8", errors="backslashreplace") for piece in pieces))
    print("ids:", *tokenizer.encode(word))


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
