"""How wrong a prediction is: the surprise -ln p(target) of the token that follows, in nats.

A token to which the model gave the probability 1 is no surprise, 0 nats; the less probable it was,
the larger the surprise. One nat is the surprise of p = 1/e, one bit that of p = 1/2; a nat is
1 / ln 2 = 1.44 bits. The mean over a text is the cross-entropy, the loss that training lowers. A
model that knows nothing gives each of V tokens p = 1/V, so its loss is ln V.

Losses per token can be compared only if the tokenizer is the same: longer tokens are fewer, and
each is harder to predict. The surprise of a whole text, in bits, divided by the number of its bytes
can be compared for any two tokenizers: bits per byte. Tests: tests/test_loss.py.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

NOT_SCORED = -1  # in place of a target: this token is not scored


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum, not the mean, of -ln p(target) over all scored tokens: a scalar, in nats.

    A sum, because the losses of micro-batches, or of the windows of a text, then add up; the caller
    divides by the number of all targets.

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
