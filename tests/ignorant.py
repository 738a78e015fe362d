"""A model that predicts all tokens with the same probability, so its metrics are known exactly."""

from __future__ import annotations

from pathlib import Path

import torch

from minigen.data import TokenStream, scan, write_tokens
from minigen.model import GPT, GPTConfig
from minigen.tokenizer import train_tokenizer


def ignorant(tmp_path: Path, text: str) -> tuple[GPT, TokenStream]:
    """Return a model whose predictions are uniform, and a text as tokens of one byte each."""
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    tokenizer = train_tokenizer("byte", [])
    tokens = write_tokens(scan([tmp_path / "text.txt"], "\n\n"), tokenizer, tmp_path, "text")
    model = GPT(GPTConfig.modern(tokenizer.n_vocab, 32, 1, 2, 16)).eval()
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    return model, tokens
