"""The small models that tests share: of each architecture, with random weights, or saved."""

from __future__ import annotations

from pathlib import Path

import torch

from minigen.files import checkpoint
from minigen.model import GPT, GPTConfig
from minigen.tokenizer import Tokenizer


def architectures(vocab_size: int, block_size: int, n_embd: int) -> dict[str, GPTConfig]:
    """Return configurations that together have each value of each switch, by their names."""
    size = (vocab_size, block_size, 2, 4, n_embd)
    return {
        "gpt2": GPTConfig.gpt2(*size),
        "modern": GPTConfig.modern(*size),
        "grouped queries": GPTConfig.modern(*size, n_kv_head=2, tie_embeddings=False),
        "llama": GPTConfig.modern(*size, n_kv_head=2, qk_norm=False),
        "narrow heads": GPTConfig.modern(*size, head_dim=16, tie_embeddings=False),
        "a mixture": GPTConfig.gpt2(*size, norm="rmsnorm", mlp="swiglu", bias=False, qk_norm=True),
    }


def random_model(config: GPTConfig, seed: int = 0, std: float = 0.2) -> GPT:
    """Return a model in evaluation mode, of which every weight is random and changes the logits.

    A fresh model has matrices of zeros, and they would hide mistakes: each block adds nothing.

    Args:
        std: the standard deviation of the weights.
    """
    torch.manual_seed(seed)
    model = GPT(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=1.0 if p.ndim == 1 else 0.0, std=std)
    return model


def varied_model(config: GPTConfig, seed: int = 0) -> GPT:
    """Return a model in evaluation mode with large random matrices, so that its texts vary.

    Gains and biases are those of a fresh model: random ones would favour the same few tokens.
    """
    torch.manual_seed(seed)
    model = GPT(config).eval()
    for p in model.parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.5)
    return model


def save_untrained(
    run: Path, tokenizer: Tokenizer, step: int = 1, val_loss: float = 1.0, block_size: int = 8
) -> None:
    """Save an untrained model of one narrow block as the checkpoint of `step` of a run."""
    torch.manual_seed(step)
    model = GPT(GPTConfig.modern(tokenizer.n_vocab, block_size, n_layer=1, n_head=1, n_embd=8))
    checkpoint.save(run, model, tokenizer, {}, {"step": step, "val_loss": val_loss})
