"""The caches of the texts that a model has read lately, so that a new text costs its new end only.

A page asks again and again for the next token of texts that begin alike: the same text with one
more token, or another branch of it. The keys and values of a token depend only on the tokens up to
it (`minigen.model.KVCache`), so the caches of earlier texts serve for the part that is the same.

    a text read before    a b c d e f
    a new text            a b c x        a b c are copied, x is read
    the next one          a b c x y      grows in the same cache, y is read

The logits are those of a pass over the whole text
(test_logits_from_a_cache_are_those_of_a_pass_over_the_whole_text). Where `cpu.c` reads, they have
the same bits, too; where PyTorch reads, it adds in another order for another number of tokens, so
they may differ by rounding. A text that is asked for again gets the logits that it had.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minigen.errors import UserError
from minigen.inference.engine import Engine
from minigen.model import KVCache
from minigen.sampling import check_finite, context_length

MAX_BYTES = 1 << 28  # of the caches of a model; one cache may always be kept
MAX_TEXTS = 16  # that a model keeps caches of
MAX_ANSWERS = 64  # texts whose logits are kept
FIRST_CAPACITY = 128  # tokens that a new cache has room for; the room doubles when it is full


@dataclass
class ReadText:
    """A text that the model has read, and its cache of one row."""

    ids: tuple[int, ...]
    cache: KVCache


@dataclass(frozen=True)
class Prediction:
    """The logits of a text's next token, and how many cells of a cache led to them."""

    logits: Tensor  # (n_vocab,), float32, on the CPU
    reused: int  # tokens whose keys and values were there already
    computed: int  # tokens that were read
    truncated: int  # tokens at the text's beginning that the model does not see
    number_bytes: int  # of each number of the cache


class Prefixes:
    """The texts that one model has read lately, the latest last."""

    def __init__(self) -> None:
        self.texts: list[ReadText] = []
        self.answers: OrderedDict[tuple[int, ...], Prediction] = OrderedDict()

    @torch.no_grad()
    def predict(self, engine: Engine, ids: Sequence[int]) -> Prediction:
        """Return the prediction of the token after a text, as `Engine.generate` makes it.

        Args:
            engine: the same in all calls.
            ids: at least one; the model sees the latest `sampling.context_length` of them.

        Raises `UserError` for a text without tokens, and if the model predicts NaN.
        """
        if not ids:
            raise UserError("ids is empty; give at least one token")
        block_size = engine.block_size or engine.model.config.block_size
        n = context_length(len(ids), block_size)
        seen = tuple(ids[-n:])
        if seen in self.answers:
            self.answers.move_to_end(seen)
            return replace(self.answers[seen], reused=n, computed=0, truncated=len(ids) - n)
        text, reused = self._start(engine, seen, block_size)
        cache = text.cache
        rest = torch.tensor([seen[reused:]], device=cache.kv.device)  # (1, T)
        at = torch.tensor([n - reused - 1], device=cache.kv.device)
        row = engine.ready()(rest, cache, at)[0, 0, : engine.n_vocab]
        cache.lengths += n - reused
        logits = row.float().cpu().clone()  # a CUDA graph overwrites its output
        check_finite(logits)
        text.ids = seen
        self.texts.append(text)
        while len(self.texts) > MAX_TEXTS or (len(self.texts) > 1 and self._n_bytes() > MAX_BYTES):
            del self.texts[0]
        size = cache.kv.element_size()
        found = Prediction(logits, reused, n - reused, len(ids) - n, size)
        self.answers[seen] = found
        while len(self.answers) > MAX_ANSWERS:
            self.answers.popitem(last=False)
        return found

    def _n_bytes(self) -> int:
        """Return the bytes of all caches."""
        return sum(text.cache.kv.nbytes for text in self.texts)

    def _start(self, engine: Engine, seen: tuple[int, ...], block: int) -> tuple[ReadText, int]:
        """Return a text whose cache holds the longest known beginning of `seen`, and its length.

        At least one token of `seen` is left to be read, as only reading gives logits. A text that
        `seen` continues is taken out of `texts`, because its own cache grows.
        """
        # Of two texts that share as much, the later one.
        shared, _, best = max(
            ((common_prefix(each.ids, seen[:-1]), i, each) for i, each in enumerate(self.texts)),
            key=lambda found: found[:2],
            default=(0, 0, None),
        )
        if best is not None and shared == len(best.ids):
            self.texts.remove(best)
            if len(seen) <= best.cache.capacity:
                return best, shared
        capacity = FIRST_CAPACITY
        while capacity < len(seen):
            capacity *= 2
        cache = engine.new_cache(1, min(capacity, block))
        if best is not None and shared:
            cache.kv[:, :, :, :shared] = best.cache.kv[:, :, :, :shared]
            cache.lengths += shared
        return ReadText((), cache), shared


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of tokens that two texts have in common at their beginning.

    >>> common_prefix([5, 6, 7], [5, 6, 8, 9])
    2
    """
    pairs = zip(a, b, strict=False)
    return next((n for n, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
