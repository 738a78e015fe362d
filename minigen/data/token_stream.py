"""Token ids on disk: a stream that is read from its shards, a few windows at a time."""

from __future__ import annotations

import bisect
import functools
import io
import itertools
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigen.data import batches
from minigen.data.batches import Ids
from minigen.data.shards import Shard, shard_path
from minigen.errors import UserError

MAX_OPEN = 64  # shards at once


@dataclass(frozen=True)
class TokenStream:
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

    windows = batches.windows  # batches to train on
    sliding = batches.sliding  # batches to evaluate on

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

        >>> TokenStream(Path(), "text", "<u2", 256, (Shard(9, 8, 8, 1, ""),)).n_windows(4)
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
                content = file.read(take * dtype.itemsize)
            except OSError as error:
                path = shard_path(self.path, number)
                raise UserError(f"cannot read {path}: {error.strerror}; start again") from None
            if stamp != file_stamp(file) or len(content) < take * dtype.itemsize:
                raise UserError(
                    f"{shard_path(self.path, number)} was cut short or written over; "
                    "start again to make it anew"
                )
            parts.append(np.frombuffer(content, dtype))
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
