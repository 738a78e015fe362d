"""Tokens to batches: windows of T tokens as inputs, and the tokens after them as targets.

    stream   a b c d e f g ...
    input x  a b c d           y[t] is the token that follows x[t]: the model predicts it from
    target y b c d e           x[0], ..., x[t]

Why are x and y one token apart? One pass over T inputs then asks T questions, "which token is
next?", and the text itself has the answers (test_windows_go_round_the_circle).

`naive_windows` and `naive_sliding` are the idea, for a stream in memory. `windows` and `sliding` do
the same for a stream of any length, of which they read one window at a time. In addition they let a
window begin with its document if the document is short. They are methods of the stream on disk
(token_stream.py): `tokens.windows(seed, numbers, block_size)`.

With given settings a batch is a function of (seed, step), and of nothing that came before. So there
is no state to save: a resumed run continues with the batches that it would have had
(test_a_batch_is_a_function_of_the_seed_and_its_numbers). And any number of processes can divide a
batch without a message between them (test_micro_batches_of_all_ranks_are_the_batch).

Shapes: B windows in a batch, T = block_size tokens in a window. Tests: tests/test_batches.py.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minigen.loss import NOT_SCORED

Ids: TypeAlias = npt.NDArray[np.int64]  # token ids, in order


class Batch(NamedTuple):
    """Inputs, targets, and for pairs where each example begins: (B, T) each, int64."""

    x: Tensor
    y: Tensor
    begins: Tensor | None = None  # `GPT.forward` says what for; None: a row is a single text

    def to(self, device: str | torch.device) -> Batch:
        """Return the batch on a device."""
        begins = None if self.begins is None else self.begins.to(device)
        return Batch(self.x.to(device), self.y.to(device), begins)


# ---- the idea ----


@functools.lru_cache(maxsize=2)  # a batch may span two epochs
def shuffle(
    seed: int, epoch: int, n_tokens: int, n_windows: int
) -> tuple[int, npt.NDArray[np.intp]]:
    """Return the place of an epoch's first window, and the order of its windows.

    An epoch is about one pass over the text: each window comes once
    (test_an_epoch_covers_each_window_once). Why shuffled? Neighbouring windows are alike, so a
    batch of neighbours would pull the weights towards one part of the text; a shuffled batch stands
    for all of it. Why a random first place? Windows begin elsewhere in each epoch, so a token is
    predicted from another context each time (test_epochs_and_seeds_are_shuffled_differently).

    Only the generator's raw numbers are used. NumPy keeps them the same for ever, but not the
    permutations that it makes of them (NEP 19), and a run should resume with the same windows after
    an update of NumPy (test_the_order_of_an_epoch_never_changes).

    This takes 8 bytes of memory for each window, and 20 while the order is made; 5 GB of text have
    6 million windows.
    """
    raw = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(1 + n_windows)
    return int(raw[0]) % n_tokens, np.argsort(raw[1:], kind="stable")


def naive_windows(ids: Ids, seed: int, epoch: int, block_size: int) -> tuple[Tensor, Tensor]:
    """Return all windows of an epoch of training: x (N, T) and y (N, T), N = n_tokens // T.

    The stream is a circle: its end is followed by its beginning. Cut it at a random place, and from
    there every T tokens; then shuffle the windows.
    """
    T, n_windows = block_size, len(ids) // block_size
    first, order = shuffle(seed, epoch, len(ids), n_windows)
    circle = np.roll(ids, -first)  # begins with the first window
    circle = np.append(circle, circle[0])  # the last target may be the first token
    rows = np.stack([circle[i * T : i * T + T + 1] for i in order])  # (N, T + 1)
    return torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])


def naive_sliding(ids: Ids, block_size: int) -> Iterator[tuple[Ids, int]]:
    """Yield (context, target) for each token but the first: the T tokens before it, and itself.

    There are fewer than T tokens before the first targets. This is the fairest evaluation, as each
    target has all the context that the model can see, but it takes a forward pass for each token. A
    window that slides by more than one token scores several targets in one pass, and the first of
    them have less context.
    """
    for place in range(1, len(ids)):
        yield ids[max(0, place - block_size) : place], int(ids[place])


# ---- the same for a stream of any length ----


class Tokens(Protocol):
    """A stream of token ids that is read in parts, such as `TokenStream` in token_stream.py."""

    @property
    def n_tokens(self) -> int: ...
    @property
    def end_of_text(self) -> int: ...

    def n_windows(self, block_size: int) -> int:
        """Return n_tokens // T. Raises UserError if there are fewer than T + 1 tokens."""

    def read(self, place: int, n: int) -> Ids:
        """Return `n` tokens from `place` on. The stream is a circle: place -1 is the last token."""


def windows(
    tokens: Tokens, seed: int, numbers: Iterable[int], block_size: int
) -> tuple[Tensor, Tensor]:
    """Return the windows `numbers` of an endless random order of windows, to train on.

    Window number i is window i % n_windows of epoch i // n_windows, as `naive_windows` orders them
    (test_windows_of_a_long_document_are_the_naive_ones). There is one refinement: a window that
    would begin inside a document of at most T tokens begins with that document instead. So a short
    document is kept whole, as the model will have to write it: the model learns the document's end
    far sooner if the window has the document's beginning, and nothing of another document before it
    (test_windows_of_short_documents_begin_with_them).

    The refinement has a price: in an epoch some tokens come twice, and others are no target at all.
    Of the tales, pictures and tunes, in windows of 256 tokens, about 12, 5 and 13 % are left out.
    They are other tokens in each epoch: after eight epochs 0.1, 0 and 0.8 % were no target yet
    (test_an_epoch_of_short_documents_leaves_out_other_tokens_each_time). Of a single long document
    only the last n_tokens % T tokens of the epoch are left out.

    Returns x and y, int64 of shape (B, T): y[b, t] is the token that follows x[b, t].
    Raises UserError if the stream has fewer than T + 1 tokens.
    """
    n_windows = tokens.n_windows(block_size)
    rows = []
    for number in numbers:
        epoch, place = divmod(int(number), n_windows)
        first, order = shuffle(seed, epoch, tokens.n_tokens, n_windows)
        start = first + int(order[place]) * block_size
        around = tokens.read(start - block_size, 2 * block_size + 1)  # `start` is in the middle
        begin, is_short = document_in_middle(around == tokens.end_of_text)
        begin = begin if is_short else block_size
        rows.append(around[begin : begin + block_size + 1])
    return inputs_and_targets(rows)


def document_in_middle(is_end_of_text: npt.NDArray[np.bool_]) -> tuple[int, bool]:
    """Find the document of the token in the middle of 2T + 1 tokens.

    Args:
        is_end_of_text: (2T + 1,), whether each token is END_OF_TEXT, with which a document begins.

    Returns the place where the document begins, -1 if that is before these tokens, and whether the
    document is short: of at most T tokens.

    >>> document_in_middle(np.array([1, 0, 1, 0, 0, 1, 0], bool))  # T is 3, the middle at 3
    (2, True)
    """
    block_size = len(is_end_of_text) // 2
    begins = np.flatnonzero(is_end_of_text)
    n_before = int(begins.searchsorted(block_size, side="right"))
    begin = int(begins[n_before - 1]) if n_before else -1
    end = int(begins[n_before]) if n_before < len(begins) else len(is_end_of_text)
    return begin, end - begin <= block_size


def inputs_and_targets(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Split B rows of T + 1 tokens into x and y, (B, T) each, which are one token apart."""
    batch = torch.from_numpy(np.stack(rows))  # (B, T + 1)
    return batch[:, :-1].clone(), batch[:, 1:].clone()


def sliding(
    tokens: Tokens,
    block_size: int,
    batch_size: int,
    stride: int | None = None,
    limit: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every token but the first as a target once, in order, with context before it.

    Each window scores only the targets after those of the window before; its other targets are
    NOT_SCORED. It begins `stride` tokens after the window before. So a target has at least
    T - stride tokens of context, or all of its document before it
    (test_sliding_scores_each_token_once_with_context). With stride 1, this is `naive_sliding`
    (test_sliding_by_one_token_is_naive).

    Why slide by half a window? With stride T, the first targets of each window would have hardly
    any context, and their losses would say little about the model. With stride 1, each target
    has T tokens of context, but costs a pass. Half a window leaves each target T / 2 tokens of
    context, for twice the passes of stride T (test_the_default_stride_keeps_half_a_window).

    There are two refinements. A window begins no earlier than the document of the first target that
    it scores; if that document has at most T tokens, the window begins with it
    (test_sliding_predicts_from_the_beginning_of_a_document). And the last window ends with the
    stream.

    Args:
        stride: from 1 to T; None: T // 2, at least 1.
        limit: score about this number of targets: in windows that are spread evenly over the stream
            and score `stride` targets each. The beginning alone may differ from the rest.

    Yields x (B, T) and y (B, T), int64.
    Raises UserError if the stream has fewer than T + 1 tokens, and ValueError for another stride.
    """
    tokens.n_windows(block_size)  # raises the UserError
    stride = max(1, block_size // 2) if stride is None else stride
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride {stride} is not in 1..{block_size}")
    n_targets = tokens.n_tokens - 1
    spans = [(0, n_targets)]  # score the targets after the first place, up to the second
    if limit is not None and (n := math.ceil(limit / stride)) * stride < n_targets:
        spans = [(i * n_targets // n, i * n_targets // n + stride) for i in range(n)]
    windows_in_order = place_windows(tokens, block_size, stride, spans)
    while batch := list(itertools.islice(windows_in_order, batch_size)):
        x, y = inputs_and_targets([tokens.read(window.start, block_size + 1) for window in batch])
        for row, window in zip(y, batch, strict=True):
            row[: window.scored - window.start] = NOT_SCORED
            row[window.last - window.start :] = NOT_SCORED
        yield x, y


class SlidingWindow(NamedTuple):
    """A window of an evaluation, as three places in the stream."""

    start: int  # of the window's first token
    scored: int  # of the last target that an earlier window scores
    last: int  # of the last target to score, in this window or a later one


def place_windows(
    tokens: Tokens, block_size: int, stride: int, spans: Iterable[tuple[int, int]]
) -> Iterator[SlidingWindow]:
    """Yield the windows of `sliding`, in order.

    Args:
        spans: of targets to score, as (scored, last): those after place `scored`, up to `last`.
    """
    for scored, last in spans:
        while scored < last:
            # The token at `scored` is the last one before the targets, and of their document.
            around = tokens.read(scored - block_size, 2 * block_size + 1)
            begin, is_short = document_in_middle(around == tokens.end_of_text)
            start = scored - block_size + begin
            if not is_short:
                start = max(start, scored - (block_size - stride))
            start = min(start, tokens.n_tokens - 1 - block_size)
            yield SlidingWindow(start, scored, last)
            scored = start + block_size
