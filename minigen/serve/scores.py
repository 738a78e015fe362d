"""The log-probabilities of tokens: of the ones that a model writes, and of a prompt's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minigen.inference.engine import Engine
from minigen.sampling import check_finite, context_length

ROWS = 128  # predictions whose probabilities are computed at once: of GPT-2, 50 MB


class Score(NamedTuple):
    """A token's log-probability, in nats, as the model predicts it: before temperature and filters.

    top: (id, log-probability) of the most probable tokens, the best one first.
    """

    logprob: float
    top: list[tuple[int, float]]


def score(logits: Tensor, ids: Sequence[int], n_top: int) -> list[Score]:
    """Return the score of each of the tokens `ids` (T,) under the logits (T, n_vocab)."""
    logprobs = logits.log_softmax(dim=-1)
    own = logprobs.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(n_top, logprobs.shape[1]))
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Score(logprob, list(zip(*top, strict=True))) for logprob, top in zip(own, tops, strict=True)
    ]


class PromptScorer:
    """The scores of a prompt's tokens from the second on, computed one context at a time.

    Each token is scored after the tokens that the model would have seen if it had written the
    token itself (`sampling.context_length`). So a prompt within the context is read in one pass,
    and a longer one in several.
    """

    def __init__(self, engine: Engine, ids: Sequence[int], n_top: int) -> None:
        self.engine, self.ids, self.n_top = engine, ids, n_top
        self.block_size = engine.block_size or engine.model.config.block_size
        self.scores: list[Score] = []
        self._passes = self._contexts()
        self.next = next(self._passes, None)

    def _contexts(self) -> Iterator[tuple[int, list[int]]]:
        """Yield the index of the first token that is seen, and the tokens to score after it."""
        indices = range(1, len(self.ids))
        first_seen = lambda i: i - context_length(i, self.block_size)  # noqa: E731
        for start, group in itertools.groupby(indices, key=first_seen):
            yield start, list(group)

    @torch.no_grad()
    def advance(self) -> int:
        """Score the tokens of one context; return the number of tokens that the model reads.

        Raises `UserError` if the model predicts NaN.
        """
        assert self.next is not None
        start, indices = self.next
        self.engine.ready()
        seen = torch.tensor([self.ids[start : min(indices[-1] + 1, start + self.block_size)]])
        logits = self.engine.model(seen.to(self.engine.model.embedding.weight.device))[0]
        for i in range(0, len(indices), ROWS):
            some = indices[i : i + ROWS]
            rows = logits[some[0] - 1 - start : some[-1] - start, : self.engine.n_vocab]
            rows = rows.cpu().double()
            check_finite(rows)
            self.scores += score(rows, [self.ids[index] for index in some], self.n_top)
        self.next = next(self._passes, None)
        return seen.shape[1]
