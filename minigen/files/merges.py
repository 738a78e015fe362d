"""How a word becomes tokens, step by step: `python -m minigen merges unbelievable`

u | n | b | e | l | i | e | v | a | b | l | e
...
un | bel | iev | able
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from minigen.cli import parse
from minigen.files import tokenizer_files
from minigen.system.streams import decoded
from minigen.tokenizer import train_tokenizer


@dataclass(frozen=True)
class MergesConfig:
    """Show how a word becomes tokens, step by step."""

    word: Positional[str]  # a word, or several in quotes
    tokenizer: Path | None = None  # a tokenizer.json (default: the tokenizer of GPT-2)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the pieces of a word after each join, a step a line, and the ids at the end."""
    config = parse(MergesConfig, argv)
    word = decoded(config.word)
    if config.tokenizer is None:
        tokenizer = train_tokenizer("gpt2", [])
    else:
        tokenizer = tokenizer_files.load(config.tokenizer)
    for pieces in tokenizer.merges(word):
        print(" | ".join(piece.decode("utf-8", errors="backslashreplace") for piece in pieces))
    print("ids:", *tokenizer.encode(word))
