"""How wrong a prediction is: the surprise -ln p(target) of the token that came, in nats."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

NOT_SCORED = -1  # instead of a target: a token that is not to be scored


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum, not the mean, of -ln p(target) over all scored tokens: a scalar, in nats.

    A sum, because the parts of a batch or a text then simply add up; the caller divides by the
    number of targets.

    Args:
        logits: (B, T, V).
        targets: ids (B, T); NOT_SCORED where a token is not to be scored.
    """
    # float32, as a sum over a vocabulary needs more digits than bfloat16 has.
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=NOT_SCORED, reduction="sum"
    )


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -ln p(target) of each token by itself, in nats.

    `next_token_loss` is not the sum of these to the last bit: PyTorch adds up in another order.

    Args:
        logits: (B, T, V).
        targets: ids (B, T); NOT_SCORED where a token is not to be scored.

    Returns (B, T), float32, with 0 where a token is not scored.
    """
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=NOT_SCORED, reduction="none"
    )
    return losses.view(targets.shape)
