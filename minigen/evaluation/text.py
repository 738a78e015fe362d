"""How well a model predicts a text that it never saw: its loss, and its calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from minigen.data import Pairs, TokenStream
from minigen.data.batches import Batch
from minigen.errors import UserError
from minigen.loss import token_losses
from minigen.model import GPT
from minigen.system.device import LOGITS_BYTES, autocast
from minigen.system.streams import progress_bar
from minigen.system.threads import threads

N_BINS = 20  # of probabilities, each 0.05 wide
N_POSITIONS = 16  # stretches of the context, each with a loss of its own
MAX_COUNTED = 1 << 22  # tokens of a text whose frequencies are counted
MAX_LOSS = 700  # nats/token; the perplexity of a higher loss may be no float


class CalibrationBin(NamedTuple):
    """The predictions whose probability is in one twentieth of 0 to 1."""

    expected: float  # mean probability of the predictions
    observed: float  # share of the predictions whose token came next
    n_predictions: int


class PositionLoss(NamedTuple):
    """The loss in one stretch of the context."""

    last: int  # the stretch's last position, counted from 1
    loss: float  # nats/token


@dataclass(frozen=True)
class TextMetrics:
    """How well a model predicts a text."""

    n_tokens: int  # number of predicted tokens
    loss: float  # nats/token
    calibration_error: float  # from 0 to 1
    calibration: list[CalibrationBin]  # without empty bins
    by_position: list[PositionLoss]

    @property
    def perplexity(self) -> float:
        """e to the power of the loss; infinite if that is too large for a float."""
        return math.exp(self.loss) if self.loss < MAX_LOSS else math.inf


def validation_windows(
    tokens: TokenStream | Pairs, block_size: int, n_rows: int, limit: int | None = None
) -> Iterator[Batch]:
    """Yield the batches of a text or of pairs, with a progress bar.

    Before each batch, the number of threads is adapted to the load of the machine.

    Args:
        n_rows: B, the number of windows in a batch.
        limit: score only about this number of tokens, from all over the text.
    """
    length = min(tokens.n_tokens, limit or tokens.n_tokens)
    with progress_bar(total=length, desc=tokens.name, delay=1, leave=False) as bar:
        for batch in tokens.validation_batches(block_size, n_rows, limit):
            threads.adapt()
            yield batch
            bar.update(int((batch.y >= 0).sum()))


@torch.no_grad()
def text_metrics(
    model: GPT,
    tokens: TokenStream | Pairs,
    n_vocab: int,
    block_size: int,
    dtype: str = "float32",
    limit: int | None = None,
) -> TextMetrics:
    """Predict each token of a text, or about `limit` of them, from the tokens before it.

    The loss is train.py's validation loss: the same windows, loss and number format
    (test_evaluate_and_train_give_one_validation_loss).

    The calibration error is half the sum over bins of |expected - observed| tokens, divided by the
    number of tokens: the share of the probability that is in a wrong bin. It is the expected
    calibration error of Guo et al. 2017 (arXiv:1706.04599), but of all probabilities, as in Nixon
    et al. 2019 (arXiv:1904.01685), and not only of the highest.

    Args:
        model: in evaluation mode, with float32 weights.
        n_vocab: the number of tokens that the tokenizer knows; higher ids count as impossible.
        block_size: the longest context, in tokens.
        dtype: data type of matrix products, "float32" or "bfloat16".

    Raises `UserError` if a loss is not finite.
    """
    device, length = model.embedding.weight.device, min(block_size, tokens.n_tokens - 1)
    # Logits get half of the memory; probabilities, which are sorted on the CPU, need the other.
    rows = max(1, LOGITS_BYTES["cpu"] // 2 // (4 * n_vocab * length))
    total, n = 0.0, 0
    bins = torch.zeros(3, N_BINS, dtype=torch.float64)  # expected, observed, predictions
    positions = torch.zeros(2, length, dtype=torch.float64)  # sums of losses, numbers of tokens
    for x, y, begins in validation_windows(tokens, length, rows, limit):  # (B, T) each
        with autocast(device.type, dtype):
            rows_begin = None if begins is None else begins.to(device)
            logits = model(x.to(device), begins=rows_begin)[..., :n_vocab].float()  # (B, T, V)
        # The loss by position uses all targets of a window, also those that an earlier window
        # scored: otherwise few losses would be left for the first half of the context. Of pairs it
        # uses the answers, at their positions in the example.
        targets = torch.cat((x[:, 1:], y[:, -1:]), dim=1) if begins is None else y
        losses = token_losses(logits, targets.to(device)).cpu().double()  # (B, T)
        places = torch.arange(x.shape[1]) - (torch.zeros_like(x) if begins is None else begins)
        has_target = targets >= 0
        for sums, values in zip(positions, (losses, has_target.double()), strict=True):
            sums.index_add_(0, places[has_target], values[has_target])
        scored = y >= 0
        total += float(losses[scored].sum())
        n += int(scored.sum())
        probabilities = logits[scored.to(device)].softmax(dim=-1)  # (N, V)
        bins += calibration_sums(probabilities.cpu(), y[scored])
    if not math.isfinite(total):
        raise UserError("the loss is not finite: the weights are broken; use another checkpoint")
    expected, observed, _ = bins
    stretches = torch.arange(length).tensor_split(min(N_POSITIONS, length))
    by_stretch = [
        (int(part[-1]) + 1, *positions[:, part].sum(dim=1).tolist()) for part in stretches
    ]
    return TextMetrics(
        n_tokens=n,
        loss=total / n,
        calibration_error=float((expected - observed).abs().sum()) / 2 / n,
        calibration=[
            CalibrationBin(p / m, came / m, int(m)) for p, came, m in bins.T.tolist() if m
        ],
        by_position=[PositionLoss(last, loss / m) for last, loss, m in by_stretch if m],
    )


def calibration_sums(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Sort predictions into bins of their probability, and add them up.

    Each of N positions has V predictions, one for each token.

    Args:
        probabilities: (N, V), on the CPU.
        targets: (N,), the tokens that came next.

    Returns (3, N_BINS), float64: in each bin the sum of the probabilities, the number of
    predictions whose token came next, and the number of predictions.
    """
    n, n_vocab = probabilities.shape
    # Probabilities add up to 1, so at a position at most N_BINS of them are 1 / N_BINS or more. All
    # others belong into the first bin, whose sums follow from the totals.
    p, ids = probabilities.double().topk(min(N_BINS, n_vocab))
    bin = (p * N_BINS).long().clamp(max=N_BINS - 1).flatten()
    came = (ids == targets[:, None]).double().flatten()
    sums = torch.stack(
        [bin.bincount(weights, minlength=N_BINS).double() for weights in (p.flatten(), came, None)]
    )
    sums[:, 0] += torch.tensor((n, n, n * n_vocab)) - sums.sum(dim=1)
    return sums


def unigram_loss(text: TokenStream, training: TokenStream, n_vocab: int) -> float:
    """Return the loss on a text, in nats/token, of a model that knows only token frequencies.

    The frequencies are counted in the training text. Each count is increased by 1, so that no token
    has probability 0. Of both texts, only the first 4 million tokens are counted.
    """
    of_text, of_training = (
        torch.from_numpy(tokens.read(0, min(MAX_COUNTED, tokens.n_tokens))).bincount(
            minlength=n_vocab
        )
        for tokens in (text, training)
    )
    log_p = ((of_training + 1.0).double() / (of_training + 1).sum()).log()
    return float(-(of_text * log_p).sum() / of_text.sum())


def relative_to_entropy(bits_per_byte: float, entropy: float) -> str:
    """Return how far a loss is above the entropy of its text, both in bits/byte, in words.

    The entropy of a text is the sum of -log2 p of its documents under the grammar that wrote them,
    divided by the number of their bytes. No model can have a lower mean loss on new text of that
    grammar. A loss on a part of a text can be lower by chance, where that part is easier than the
    rest; not by a fifth, unless there is hardly any entropy. Then the answers have leaked: the mask
    is missing, or the text is one that the model was trained on.

    >>> relative_to_entropy(0.66, 0.55)
    "20.0% above the text's entropy of 0.5500"
    >>> relative_to_entropy(0.54, 0.55)
    "1.8% below the text's entropy of 0.5500, by chance"
    >>> relative_to_entropy(0.01, 0.55)
    "98.2% below the text's entropy of 0.5500: the model has seen the tokens that it predicts"
    >>> relative_to_entropy(0.33, 0.003)
    "0.3270 above the text's entropy of 0.0030"
    """
    distance = f"{abs(bits_per_byte / entropy - 1):.1%}"
    if bits_per_byte > 100 * entropy:  # of answers, most of which are certain
        distance = f"{bits_per_byte - entropy:.4f}"
    if bits_per_byte < entropy:
        below = f"{distance} below the text's entropy of {entropy:.4f}"
        if entropy - bits_per_byte > max(entropy / 5, 0.02):
            return f"{below}: the model has seen the tokens that it predicts"
        return f"{below}, by chance"
    return f"{distance} above the text's entropy of {entropy:.4f}"
