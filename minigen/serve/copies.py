"""The parts of a text that stand word for word in the training text of a model."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from minigen.data.cache import find_tokens
from minigen.evaluation.continuations import evenly_spaced, real_continuations
from minigen.evaluation.repetition import BORDER, MAX_SEARCHED, TrainingText
from minigen.evaluation.samples import copy_length
from minigen.inference.engine import Engine
from minigen.system.places import data_folder
from minigen.tokenizer import Tokenizer

N_REAL = 100  # real texts that show how long the phrases are that texts of a corpus share
NEW_TOKENS = 200  # of a real text that is no whole document


class Copies:
    """The training text of a model, in which the runs of other texts are looked up.

    Texts of one corpus share phrases without any copying: "and they lived happily ever after". So a
    run counts as copied only from `length` bytes on, the length of `samples.copy_length`: at most
    5 % of the real texts that were held out from training share a run as long.
    """

    def __init__(self, training: TrainingText, length: int) -> None:
        self.training, self.length = training, length

    @classmethod
    def of(cls, engine: Engine) -> Copies | None:
        """Return the copies of a run of train.py; None if its text is too long or not known.

        The text is read from the tokens that training has kept. Nothing is downloaded, written
        or tokenised, so there is no result once these files are gone.
        """
        content, tokenizer = engine.state.get("content"), engine.tokenizer
        match content:
            case [str(first), str(second)]:
                stems = (first, second)
            case _:
                return None
        cache: Path = data_folder() / "cache"
        training, held_out = (find_tokens(stem, tokenizer, cache, "text") for stem in stems)
        if training is None or held_out is None or training.n_bytes > MAX_SEARCHED:
            return None
        text = TrainingText.decoded(training, tokenizer)
        block_size = engine.model.config.block_size
        real = real_continuations(held_out, tokenizer, block_size, NEW_TOKENS)
        return cls(text, copy_length(text, evenly_spaced(real, N_REAL)))

    def of_tokens(self, ids: Sequence[int], tokenizer: Tokenizer) -> list[tuple[int, int]]:
        """Return the copied runs of a text as (start, end) in tokens: ids[start:end] is copied.

        A token at the edge of a run counts if all its bytes are copied. A control token is the
        border of a document, as in `TrainingText.decoded`.
        """
        pieces = [BORDER if id in tokenizer.controls else tokenizer.token_bytes(id) for id in ids]
        places = [0, *itertools.accumulate(map(len, pieces))]  # of the tokens' first bytes
        runs = []
        for first, last in self.runs(b"".join(pieces)):
            start = bisect.bisect_left(places, first)
            end = bisect.bisect_right(places, last) - 1
            if start < end:
                runs.append((start, end))
        return runs

    def runs(self, content: bytes) -> Iterator[tuple[int, int]]:
        """Yield the copied runs of a text as (first, last) in bytes, from left to right.

        Each run stands in the training text as a whole, and begins after the one before it.
        """
        n = self.length
        windows = [content[i : i + n] for i in range(len(content) - n + 1)]
        known = self.training.shares_run(n, windows)
        first = 0
        while first < len(known):
            if not known[first]:
                first += 1
                continue
            last = next((i for i in range(first, len(known)) if not known[i]), len(known)) + n - 1
            last = self._longest(content, first, last)
            yield first, last
            first = last

    def _longest(self, content: bytes, first: int, last: int) -> int:
        """Return the largest end, at most `last`, of a run from `first` on that is copied.

        The windows of a stretch may each be copied from another place, so that the stretch as a
        whole is not. A run of one window is known to be copied.
        """
        if content[first:last] in self.training.content:
            return last
        known, too_long = first + self.length, last
        while too_long - known > 1:
            middle = (known + too_long) // 2
            if content[first:middle] in self.training.content:
                known = middle
            else:
                too_long = middle
        return known
