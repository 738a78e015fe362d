"""How wrong a prediction is: the surprise of the token that came, in nats."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

NOT_SCORED = -1  # instead of a target: a token that is not to be scored
# The most bytes that the float32 logits of one forward pass may take, by device: a larger batch is
# computed part by part, which is as fast.
LOGITS_BYTES = {"cpu": 2**28, "mps": 2**30, "cuda": 2**32}


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -ln p(target) of each token, in nats.

    Args:
        logits: (B, T, V).
        targets: ids (B, T); -1 where a token is not to be scored.

    Returns (B, T), float32, with 0 where a token is not scored.
    """
    logits = logits.float()  # a sum over a vocabulary needs more digits than bfloat16 has
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none"
    )
    return losses.view(targets.shape)


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of -ln p(target) over all tokens that are scored, in nats, as a scalar.

    Args:
        logits: (B, T, V).
        targets: ids (B, T); -1 where a token is not to be scored.
    """
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
