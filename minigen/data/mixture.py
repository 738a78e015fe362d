"""Rows of a new text with rows of an old text among them, so that a model forgets less.

A model that is trained further on another text forgets its first one: no gradient asks for it any
more. If some rows of each batch are of the old text, their gradient still does. This is called
rehearsal, or replay (Robins 1995).

    new text   n0 n1 n2 n3 n4 n5 ...
    old text   o0 o1 ...
    mixture    n0 n1 n2 n3 o0 n4 n5 n6 n7 o1 ...        old_share 0.2

Shapes: B rows in a batch, T = block_size tokens in a row. Tests: tests/test_mixture.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from minigen.data.batches import Batch, Ids
from minigen.data.pairs import Pairs
from minigen.data.token_stream import TokenStream


@dataclass(frozen=True)
class Mixture:
    """An endless order of rows in which a share comes from an old text.

    Row i of the mixture is a function of i and the seed, as the rows of both texts are, so a run
    resumes with the rows that it would have had. Each text is read in its own order, and no row is
    left out (test_a_mixture_has_the_rows_of_both_texts_in_their_order).
    """

    new: TokenStream | Pairs
    old: TokenStream | Pairs
    old_share: float  # from 0 to below 1

    def batch(self, seed: int, numbers: Collection[int], block_size: int) -> Batch:
        """Return the rows `numbers`, those of the new text first."""
        parts = [text.batch(seed, rows, block_size) for text, rows in self._split(numbers)]
        begins = None
        if isinstance(self.new, Pairs) or isinstance(self.old, Pairs):
            # A row of running text is one text, which begins at 0.
            rows = [torch.zeros_like(p.x) if p.begins is None else p.begins for p in parts]
            begins = torch.cat(rows)
        return Batch(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]), begins)

    def n_targets(self, seed: int, numbers: Collection[int], block_size: int) -> int:
        """Return the number of scored targets in the rows `numbers`."""
        return sum(text.n_targets(seed, rows, block_size) for text, rows in self._split(numbers))

    def _split(self, numbers: Collection[int]) -> Iterator[tuple[TokenStream | Pairs, list[int]]]:
        """Yield each text of which there are rows, and the numbers of its rows."""
        wanted: Ids = np.array([*numbers], np.int64)
        before, after = (np.floor(n * self.old_share).astype(int) for n in (wanted, wanted + 1))
        is_old = after > before  # of the rows before this one, `before` are of the old text
        for text, rows in ((self.new, (wanted - before)[~is_old]), (self.old, before[is_old])):
            if len(rows):
                yield text, rows.tolist()
