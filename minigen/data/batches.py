"""Tokens to batches: windows of T tokens as inputs, and the tokens after them as targets.

    stream   a b c d e f g ...
    input x  a b c d           y[t] is the token that follows x[t]: the model predicts it from
    target y b c d e           x[0], ..., x[t]

`naive_windows` and `naive_sliding` are the idea, for a stream in memory. `windows` and `sliding` do
the same for a stream of any length, of which they read one window at a time, and let a short
document begin its window. They are methods of the stream on disk (token_stream.py):
`tokens.windows(seed, numbers, block_size)`.

A batch is a function of (seed, step): there is no state to save, and none to restore on resuming.

Shapes: B windows in a batch, T = block_size tokens in a window.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minigen.loss import NOT_SCORED

Ids: TypeAlias = npt.NDArray[np.int64]  # of tokens


# ---- the idea ----


@functools.lru_cache(maxsize=2)  # a batch may span two epochs
def shuffle(
    seed: int, epoch: int, n_tokens: int, n_windows: int
) -> tuple[int, npt.NDArray[np.intp]]:
    """Return the place of an epoch's first window, and the order of its windows.

    This takes 8 bytes of memory a window, and 20 while it is made; 5 GB of text have 6 million.

    Only the generator's raw numbers are used. NumPy keeps those the same for ever, but not the
    permutations that it makes of them (NEP 19), and a run should resume as it began after NumPy was
    updated.
    """
    raw = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(1 + n_windows)
    return int(raw[0]) % n_tokens, np.argsort(raw[1:], kind="stable")


def naive_windows(ids: Ids, seed: int, epoch: int, block_size: int) -> tuple[Tensor, Tensor]:
    """Return all windows of an epoch of training: x (N, T) and y (N, T), N = n_tokens // T.

    The stream is a circle: its end is followed by its beginning. Cut it at a random place, and from
    there every T tokens; then shuffle the windows.
    """
    n_windows = len(ids) // block_size
    first, order = shuffle(seed, epoch, len(ids), n_windows)
    cut = np.roll(ids, -first)
    stream = torch.from_numpy(np.append(cut, cut[0]))  # the last target is the first token
    rows = stream.unfold(0, block_size + 1, block_size)[order]  # (N, T + 1)
    return rows[:, :-1], rows[:, 1:]


def naive_sliding(ids: Ids, block_size: int) -> Iterator[tuple[Ids, int]]:
    """Yield each target of an evaluation, with the T tokens before it, or all if there are fewer.

    This takes a forward pass for each token. A window that slides by more than one token scores
    several targets in one pass, of which the first have less context.
    """
    for place in range(1, len(ids)):
        yield ids[max(0, place - block_size) : place], int(ids[place])


# ---- the same for a stream of any length ----


class Tokens(Protocol):
    """A stream of token ids that is read in parts; token_stream.py has one in files."""

    @property
    def n_tokens(self) -> int: ...
    @property
    def end_of_text(self) -> int: ...

    def n_windows(self, block_size: int) -> int:
        """Return n_tokens // T; raise UserError if there are not the T + 1 tokens of a window."""

    def read(self, place: int, n: int) -> Ids:
        """Return the `n` tokens from `place` on. The stream is a circle: place -1 is its last."""


def windows(
    tokens: Tokens, seed: int, numbers: Iterable[int], block_size: int
) -> tuple[Tensor, Tensor]:
    """Return the windows with these numbers of an endless random order of windows, to train on.

    Window number i is the one at place i % n_windows of epoch i // n_windows, as `naive_windows`
    has it, with one refinement: a window that would begin inside a document of at most T tokens
    begins with that document instead. The end of a short document is learnt far sooner if its
    beginning can be seen, and if no other document is in the way.

    The last n_tokens % T tokens of an epoch are left over, other tokens in each epoch. Where
    windows begin earlier, some tokens come twice and others not at all.

    Returns x and y, int64 of shape (B, T): y[b, t] is the token that follows x[b, t].
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


def document_in_middle(begins: npt.NDArray[np.bool_]) -> tuple[int, bool]:
    """Find the document of the token in the middle of 2T + 1 tokens.

    Args:
        begins: (2T + 1,), whether each token is END_OF_TEXT, with which a document begins.

    Returns the place where the document begins, -1 if that is before these tokens, and whether the
    document is short: of at most T tokens.

    >>> document_in_middle(np.array([1, 0, 1, 0, 0, 1, 0], bool))  # T is 3, the middle at 3
    (2, True)
    """
    block_size = len(begins) // 2
    places = np.flatnonzero(begins)
    n_before = int(places.searchsorted(block_size, side="right"))
    begin = int(places[n_before - 1]) if n_before else -1
    end = int(places[n_before]) if n_before < len(places) else len(begins)
    return begin, end - begin <= block_size


def inputs_and_targets(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Return x and y, (B, T) each, of B rows of T + 1 tokens."""
    together = torch.from_numpy(np.stack(rows))  # (B, T + 1)
    return together[:, :-1].clone(), together[:, 1:].clone()


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
    T - stride tokens of context, or all of its document before it; with stride 1, this is
    `naive_sliding`.

    There are two refinements. A window begins no earlier than the document of the first target that
    it scores, and if that document has at most T tokens, no later either. And the last window ends
    with the stream.

    Args:
        stride: from 1 to T; None: T // 2.
        limit: score about this number of targets: in windows that are spread evenly over the stream
            and score `stride` targets each. One place would not stand for all.

    Yields x (B, T) and y (B, T), int64.
    """
    tokens.n_windows(block_size)  # refuse a stream that is shorter than a window
    stride = max(1, block_size // 2) if stride is None else stride
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride {stride} is not in 1..{block_size}")
    n_targets = tokens.n_tokens - 1
    spans = [(0, n_targets)]  # of targets to score: those after the first place, to the second
    if limit is not None and (n := math.ceil(limit / stride)) * stride < n_targets:
        spans = [(i * n_targets // n, i * n_targets // n + stride) for i in range(n)]
    places = sliding_places(tokens, block_size, stride, spans)
    while batch := list(itertools.islice(places, batch_size)):
        x, y = inputs_and_targets([tokens.read(start, block_size + 1) for start, _, _ in batch])
        for row, (start, scored, last) in zip(y, batch, strict=True):
            row[: scored - start] = NOT_SCORED
            row[last - start :] = NOT_SCORED
        yield x, y


def sliding_places(
    tokens: Tokens, block_size: int, stride: int, spans: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int, int]]:
    """Yield (start, scored, last) for each window, three places in the stream.

    They are those of its first token, of the last target already scored, and of the last target to
    score.
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
            yield start, scored, last
            scored = start + block_size
