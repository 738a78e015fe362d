"""Shards to batches: windows of T tokens as inputs, and the tokens after them as targets.

    stream   a b c d e f g ...
    input x  a b c d           y[t] is the token that follows x[t]: the model predicts it from
    target y b c d e           x[0], ..., x[t]

`naive_windows` and `naive_sliding` are the idea, for a stream in memory. `TokenFile` does the same
for a stream on disk, one window at a time, and lets a short document begin its window.

A batch is a function of (seed, step): there is no state to save, and none to restore on resuming.

Shapes: B windows in a batch, T = block_size tokens in a window.
"""

from __future__ import annotations

import bisect
import functools
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minigen.data.shards import Shard, shard_path
from minigen.errors import UserError

Ids: TypeAlias = npt.NDArray[np.int64]

MAX_OPEN = 64  # shards at once


# ---- the idea ----


@functools.lru_cache(maxsize=2)  # a batch may span two epochs
def shuffle(seed: int, epoch: int, n_tokens: int, n_windows: int) -> tuple[int, Ids]:
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
    windows = stream.unfold(0, block_size + 1, block_size)[order]  # (N, T + 1)
    return windows[:, :-1], windows[:, 1:]


def naive_sliding(ids: Ids, block_size: int) -> Iterator[tuple[Ids, int]]:
    """Yield each target of an evaluation, with the T tokens before it, or all if there are fewer.

    This takes a forward pass for each token. A window that slides by more than one token scores
    several targets in one pass, of which the first have less context.
    """
    for place in range(1, len(ids)):
        yield ids[max(0, place - block_size) : place], int(ids[place])


# ---- a stream on disk ----


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


def check_length(n_tokens: int, name: str, block_size: int) -> None:
    """Raise UserError if a text has not the T + 1 tokens of one window."""
    if n_tokens < block_size + 1:
        raise UserError(
            f"the {name} has only {n_tokens} tokens, and --block_size {block_size} "
            f"needs {block_size + 1}; give a smaller --block_size or more text"
        )


def file_stamp(file: io.FileIO) -> tuple[int, int]:
    """Return the size of an open file in bytes and the time of its last change in ns."""
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


def inputs_and_targets(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Return x and y, (B, T) each, of B rows of T + 1 tokens."""
    windows = torch.from_numpy(np.stack(rows))  # (B, T + 1)
    return windows[:, :-1].clone(), windows[:, 1:].clone()


@dataclass(frozen=True)
class TokenFile:
    """A stream of token ids on disk, in shards, and the facts about its text.

    It is read window by window with plain reads: a memory map would kill the process without a
    message if a file were cut short.
    """

    path: Path  # of the facts; the shards lie beside it
    name: str  # for messages
    dtype: str  # "<u2" or "<u4"
    end_of_text: int
    shards: tuple[Shard, ...]
    every: int = 1  # one of this number of stripes of the text was read

    @functools.cached_property
    def n_tokens(self) -> int:
        return sum(shard.n_tokens for shard in self.shards)

    @functools.cached_property
    def n_bytes(self) -> int:
        return sum(shard.n_token_bytes for shard in self.shards)

    @functools.cached_property
    def n_documents(self) -> int:
        return sum(shard.n_documents for shard in self.shards)

    def n_windows(self, block_size: int) -> int:
        """Return the windows of an epoch; raise UserError if there are not the T + 1 tokens of one.

        >>> TokenFile(Path(), "text", "<u2", 256, (Shard(9, 8, 8, 1, ""),)).n_windows(4)
        2
        """
        check_length(self.n_tokens, self.name, block_size)
        return self.n_tokens // block_size

    def bits_per_byte(self, separator_bytes: int) -> float:
        """Return a loss of 1 nat/token in bits/byte.

        Args:
            separator_bytes: the bytes of text that each END_OF_TEXT after the first stands for.
        """
        n_bytes = self.n_bytes + (self.n_documents - 1) * separator_bytes
        return (self.n_tokens - 1) / n_bytes / math.log(2)  # the first END_OF_TEXT is no target

    def batch(
        self, seed: int, step: int, batch_size: int, block_size: int
    ) -> tuple[Tensor, Tensor]:
        """Return inputs (B, T) and targets (B, T) of a training step: a function of seed, step."""
        return self.windows(seed, range(step * batch_size, (step + 1) * batch_size), block_size)

    def windows(self, seed: int, ids: Iterable[int], block_size: int) -> tuple[Tensor, Tensor]:
        """Return the windows with these numbers of an endless random order of windows.

        Window i is the one at place i % n_windows of epoch i // n_windows, as `naive_windows` has
        it, with one refinement: a window that would begin inside a document of at most T tokens
        begins with that document instead. The end of a short document is learnt far sooner if its
        beginning can be seen, and if no other document is in the way.

        The last n_tokens % T tokens of an epoch are left over, other tokens in each epoch.

        Returns x and y, int64 of shape (B, T): y[b, t] is the token that follows x[b, t].
        """
        n_windows = self.n_windows(block_size)
        rows = []
        for id in ids:
            epoch, place = divmod(int(id), n_windows)
            first, order = shuffle(seed, epoch, self.n_tokens, n_windows)
            start = first + int(order[place]) * block_size
            around = self.read(start - block_size, 2 * block_size + 1)
            begin, is_short = document_in_middle(around == self.end_of_text)
            begin = begin if is_short else block_size
            rows.append(around[begin : begin + block_size + 1])
        return inputs_and_targets(rows)

    def sliding(
        self, block_size: int, batch_size: int, stride: int | None = None, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every token but the first as a target once, in order, with context before it.

        Each window scores only the targets after those of the window before; its other targets are
        -1. It begins `stride` tokens after the window before. So a target has at least T - stride
        tokens of context, or all of the stream before it; with stride 1, this is `naive_sliding`.

        There are two refinements. A window begins no earlier than the document of the first target
        that it scores, and if that document has at most T tokens, no later either. And the last
        window ends with the stream.

        Args:
            stride: from 1 to T; None: T // 2.
            limit: score about this number of targets: in windows that are spread evenly over the
                stream and score `stride` targets each. One place would not stand for all.

        Yields x (B, T) and y (B, T), int64.
        """
        self.n_windows(block_size)  # refuse a stream that is shorter than a window
        stride = max(1, block_size // 2) if stride is None else stride
        if not 1 <= stride <= block_size:
            raise ValueError(f"stride {stride} is not in 1..{block_size}")
        n_targets = self.n_tokens - 1
        spans = [(0, n_targets)]  # of targets to score: those after the first place, to the second
        if limit is not None and (n := math.ceil(limit / stride)) * stride < n_targets:
            spans = [(i * n_targets // n, i * n_targets // n + stride) for i in range(n)]
        windows = self._sliding_windows(block_size, stride, spans)
        while batch := list(itertools.islice(windows, batch_size)):
            x, y = inputs_and_targets([self.read(start, block_size + 1) for start, _, _ in batch])
            for row, (start, scored, last) in zip(y, batch, strict=True):
                row[: scored - start] = -1
                row[last - start :] = -1
            yield x, y

    def _sliding_windows(
        self, block_size: int, stride: int, spans: Iterable[tuple[int, int]]
    ) -> Iterator[tuple[int, int, int]]:
        """Yield of each window its first place, the last target scored before it, and the last to
        score.
        """
        for scored, last in spans:
            while scored < last:
                # The token at `scored` is the last one before the targets, and of their document.
                around = self.read(scored - block_size, 2 * block_size + 1)
                begin, is_short = document_in_middle(around == self.end_of_text)
                start = scored - block_size + begin
                if not is_short:
                    start = max(start, scored - (block_size - stride))
                start = min(start, self.n_tokens - 1 - block_size)
                yield start, scored, last
                scored = start + block_size

    def read(self, place: int, n: int) -> Ids:
        """Return the `n` tokens from `place` on. The stream is a circle: place -1 is its last.

        Raises UserError if a shard was changed or cannot be read.
        """
        dtype, parts = np.dtype(self.dtype), []
        while n:
            place %= self.n_tokens
            number = bisect.bisect(self._begins, place) - 1
            skip = place - self._begins[number]
            take = min(n, self.shards[number].n_tokens - skip)
            try:
                file, stamp = self._open(number)
                file.seek(skip * dtype.itemsize)
                ids = file.read(take * dtype.itemsize)
            except OSError as error:
                path = shard_path(self.path, number)
                raise UserError(f"cannot read {path}: {error.strerror}; start again") from None
            if stamp != file_stamp(file) or len(ids) < take * dtype.itemsize:
                raise UserError(
                    f"{shard_path(self.path, number)} was cut short or written over; "
                    "start again to make it anew"
                )
            parts.append(np.frombuffer(ids, dtype))
            place, n = place + take, n - take
        return np.concatenate(parts, dtype=np.int64)

    @functools.cached_property
    def _opened(self) -> dict[int, tuple[io.FileIO, tuple[int, int]]]:
        """Shards, kept open: they stay readable when their names are removed or given away."""
        return {}

    def _open(self, number: int) -> tuple[io.FileIO, tuple[int, int]]:
        """Return a shard's file and its stamp when it was opened."""
        if number not in self._opened:
            if len(self._opened) == MAX_OPEN:
                self._opened.clear()
            file = io.FileIO(shard_path(self.path, number))
            self._opened[number] = file, file_stamp(file)
        return self._opened[number]

    @functools.cached_property
    def _begins(self) -> list[int]:
        """The place of each shard's first token."""
        return list(itertools.accumulate((s.n_tokens for s in self.shards), initial=0))[:-1]
