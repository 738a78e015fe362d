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

from tyro.conf import Positional

from minigen.cli import parse
from minigen.files.named_tokenizer import find_tokenizer
from minigen.system.streams import decoded


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
