"""Token ids on disk: a stream that is read from its shards, one window at a time."""

from __future__ import annotations

import bisect
import functools
import io
import itertools
import math
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigen.data import batches
from minigen.data.batches import Batch, Ids
from minigen.data.shards import Shard
from minigen.errors import UserError

MAX_OPEN = 64  # shards that are open at once


@dataclass(frozen=True)
class TokenStream:
    """A stream of token ids on disk, in shards.

    Windows are read with plain reads: a memory map would kill the process without a message if a
    file were cut short (test_a_shard_that_is_cut_short_in_use_is_reported).
    """

    path: Path  # of the index, a JSON file; the shards lie beside it
    name: str  # for messages, such as "training text"
    dtype: str  # "<u2" or "<u4"
    end_of_text: int  # the id before each document
    shards: tuple[Shard, ...]
    stripe_interval: int = 1  # n: of each n stripes of the text, one was read

    windows = batches.windows  # batches to train on
    sliding = batches.sliding  # batches to evaluate on

    # The loop in train.py calls these three, which `Pairs` has, too.

    def batch(self, seed: int, numbers: Iterable[int], block_size: int) -> Batch:
        """Return `windows` as a batch."""
        return Batch(*self.windows(seed, numbers, block_size))

    def n_targets(self, seed: int, numbers: Collection[int], block_size: int) -> int:
        """Return the number of scored targets in a batch of `windows`: all."""
        return len(numbers) * block_size

    def validation_batches(
        self, block_size: int, batch_size: int, limit: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of `sliding`."""
        return itertools.starmap(Batch, self.sliding(block_size, batch_size, limit=limit))

    @functools.cached_property
    def n_tokens(self) -> int:
        """The number of tokens, with an END_OF_TEXT for each document."""
        return sum(shard.n_tokens for shard in self.shards)

    @functools.cached_property
    def n_bytes(self) -> int:
        """The number of bytes of text in all tokens; END_OF_TEXT has none."""
        return sum(shard.n_token_bytes for shard in self.shards)

    @functools.cached_property
    def n_documents(self) -> int:
        """The number of documents."""
        return sum(shard.n_documents for shard in self.shards)

    def n_windows(self, block_size: int) -> int:
        """Return the number of windows in an epoch: n_tokens // T.

        Raises UserError if the stream has fewer than T + 1 tokens.

        >>> TokenStream(Path(), "text", "<u2", 256, (Shard(9, 8, 8, 1, ""),)).n_windows(4)
        2
        """
        check_length(self.n_tokens, self.name, block_size)
        return self.n_tokens // block_size

    def bits_per_byte(self, separator_bytes: int) -> float:
        """Return the bits per byte of a loss of 1 nat per token.

        A loss per token depends on the tokenizer: longer tokens are harder to predict. A loss per
        byte of text does not, so it compares models with different tokenizers
        (test_bits_per_byte_counts_the_bytes_that_the_tokens_hold).

        Args:
            separator_bytes: the bytes of text that each END_OF_TEXT after the first stands for.
        """
        n_bytes = self.n_bytes + (self.n_documents - 1) * separator_bytes
        return (self.n_tokens - 1) / n_bytes / math.log(2)  # the first END_OF_TEXT is no target

    def read(self, place: int, n: int) -> Ids:
        """Return `n` tokens from `place` on. The stream is a circle: place -1 is the last token.

        Raises UserError if a shard was changed or cannot be read.
        """
        dtype, parts = np.dtype(self.dtype), []
        while n:
            place %= self.n_tokens
            number = bisect.bisect(self._shard_starts, place) - 1
            skip = place - self._shard_starts[number]
            take = min(n, self.shards[number].n_tokens - skip)
            try:
                file, stamp = self._open(number)
                file.seek(self.shards[number].skip + skip * dtype.itemsize)
                id_bytes = file.read(take * dtype.itemsize)
            except OSError as error:
                path = self.shards[number].path(self.path, number)
                raise UserError(f"cannot read {path}: {error.strerror}; start again") from None
            if stamp != file_stamp(file) or len(id_bytes) < take * dtype.itemsize:
                anew = "" if self.shards[number].file else ", and it is made anew"
                path = self.shards[number].path(self.path, number)
                raise UserError(f"{path} was cut short or written over; start again{anew}")
            parts.append(np.frombuffer(id_bytes, dtype))
            place, n = place + take, n - take
        return np.concatenate(parts, dtype=np.int64)

    @functools.cached_property
    def _opened(self) -> dict[int, tuple[io.FileIO, tuple[int, int]]]:
        """The open shards and their stamps. They stay readable after their names are removed."""
        return {}

    def _open(self, number: int) -> tuple[io.FileIO, tuple[int, int]]:
        """Return the file of a shard, and the stamp that it had when it was opened."""
        if number not in self._opened:
            if len(self._opened) == MAX_OPEN:
                self._opened.clear()
            file = io.FileIO(self.shards[number].path(self.path, number))
            self._opened[number] = file, file_stamp(file)
        return self._opened[number]

    @functools.cached_property
    def _shard_starts(self) -> list[int]:
        """The place of each shard's first token."""
        lengths = (shard.n_tokens for shard in self.shards)
        return list(itertools.accumulate(lengths, initial=0))[:-1]


def check_length(n_tokens: int, name: str, block_size: int) -> None:
    """Raise UserError if a text has fewer than T + 1 tokens, which one window needs."""
    if n_tokens < block_size + 1:
        raise UserError(
            f"the {name} has only {n_tokens} tokens, and --block_size {block_size} "
            f"needs {block_size + 1}; give a smaller --block_size or more text"
        )


def file_stamp(file: io.FileIO) -> tuple[int, int]:
    """Return the size of an open file in bytes and the time of its last change in ns."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
