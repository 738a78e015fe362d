"""The exercises on minigen/model.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minigen.learn.exercise import AnyFunction, Exercise, Mistake, Theorem


def _trial_of_weights(weights: AnyFunction) -> list[Tensor]:
    """Return the weights of five tokens, causal and with a mask, in heads of four numbers."""
    q, k = torch.randn(2, 1, 2, 5, 4, generator=torch.Generator().manual_seed(1))
    window = torch.ones(5, 5).tril().triu(-1).bool()  # each token sees itself and the one before
    return [weights(q, k), weights(q, k, window)]


def _unscaled(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is None:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    return (q @ k.mT).masked_fill(~mask, -math.inf).softmax(-1)


WEIGHTS = Exercise(
    name="attention",
    title="Attention: how much each token takes from each other",
    target="minigen.model:naive_weights",
    task="Compute the scores q k^T / sqrt(D), hide the keys that a query may not see, and turn the "
    "scores of each query into weights with the sum 1.",
    hints=(
        "The scores are one matrix product: (B, H, T, D) times (B, H, D, S). Transpose k.",
        "A hidden key has the score -inf, since exp(-inf) is 0. Without a mask, query t sees the "
        "keys 0 to t: torch.ones(T, S).tril() has ones there.",
        "The softmax is over the keys, the last axis.",
    ),
    theorems=(
        Theorem(
            "tests/test_model.py::test_scores_keep_their_size",
            "Scores have the same size for heads of any width D",
            "are the scores divided by sqrt(D)?",
        ),
    ),
    trial=_trial_of_weights,
    mistakes=(
        Mistake(
            _unscaled,
            "the scores are not divided by sqrt(D): they grow with the width of a head, and the "
            "softmax gives nearly all weight to one key",
        ),
    ),
)

EXERCISES = (WEIGHTS,)
