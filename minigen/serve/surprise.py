"""How surprised a model is by each token of a text that somebody has typed, and by the whole text.

The text is read as a document of the validation text is: END_OF_TEXT stands before it, and a text
longer than the context is scored in overlapping windows (`data.batches.sliding`), so that each
token has half a context before it. So the loss is the loss of train.py and of `evaluate`
(test_the_surprise_of_the_validation_text_is_its_validation_loss).
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from minigen.data.batches import Ids, sliding
from minigen.data.token_stream import check_length
from minigen.errors import UserError
from minigen.evaluation.command import validation_block_size
from minigen.evaluation.text import MAX_LOSS
from minigen.inference.engine import Engine
from minigen.loss import token_losses
from minigen.serve.body import read_body
from minigen.serve.copies import Copies
from minigen.serve.models import Models
from minigen.serve.worker import Worker

MAX_TOKENS = 4096  # of a text; the rest of a longer text is not read
N_TOP = 5  # alternatives of each token


@dataclass(frozen=True)
class TypedText:
    """The tokens of a text in memory, for `data.batches.sliding`."""

    ids: Ids  # END_OF_TEXT is the first
    end_of_text: int

    @property
    def n_tokens(self) -> int:
        """The number of tokens, with END_OF_TEXT."""
        return len(self.ids)

    def n_windows(self, block_size: int) -> int:
        """Return n_tokens // T. Raises `UserError` if there are fewer than T + 1 tokens."""
        check_length(self.n_tokens, "text", block_size)
        return self.n_tokens // block_size

    def read(self, place: int, n: int) -> Ids:
        """Return `n` tokens from `place` on; the text is a circle."""
        return self.ids.take(range(place, place + n), mode="wrap")


@dataclass
class Scores:
    """The scores of the tokens of a text; the first token has none, as nothing stands before it."""

    logprob: list[float | None] = field(default_factory=lambda: [None])  # ln p(token), in nats
    # 1: no token was more probable
    rank: list[int | None] = field(default_factory=lambda: [None])
    top: list[list[tuple[int, float]]] = field(default_factory=lambda: [[]])  # (id, p), best first

    def append(self, logits: Tensor, targets: Tensor) -> None:
        """Add the scores of the next N tokens, given logits (N, V) and ids (N,)."""
        losses = token_losses(logits[None], targets[None])[0]
        self.logprob += (-losses).tolist()
        own = logits.gather(1, targets[:, None])
        self.rank += (1 + (logits > own).sum(dim=1)).tolist()
        p, ids = logits.softmax(dim=-1).topk(min(N_TOP, logits.shape[1]))
        self.top += [
            [*zip(*row, strict=True)] for row in zip(ids.tolist(), p.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Surprise:
    """The answers to /api/surprise."""

    models: Models
    worker: Worker
    # A thread of its own, so that no prediction waits while a long training text is read.
    searcher: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "copies"))
    copies: WeakKeyDictionary[Engine, Copies | None] = field(default_factory=WeakKeyDictionary)

    def routes(self) -> list[Route]:
        """Return the address that the page asks."""
        return [Route("/api/surprise", self.surprise, methods=["POST"])]

    async def surprise(self, request: Request) -> Response:
        """Answer with the scores of each token of a text, and with the metrics of the text."""
        body = await read_body(request)
        engine = await self.models.named(body, self.worker)
        given = body.ids("ids", engine.n_vocab)
        ids, n_truncated = scored_ids(engine, body.text("text"), given)
        text = TypedText(np.array(ids), engine.tokenizer.end_of_text)
        scores = Scores()
        for x, y in sliding(text, min(validation_block_size(engine), len(ids) - 1), 1):
            if await request.is_disconnected():
                return Response()  # nobody reads it
            # Each window waits for its turn, so that other requests are answered in between.
            await self.worker.run(functools.partial(score, engine, x, y, scores))
        loop = asyncio.get_running_loop()
        copied = await loop.run_in_executor(self.searcher, self.copied, engine, ids)
        facts = {"ids": ids, **scores.__dict__, **metrics(engine, ids, scores.logprob)}
        return JSONResponse({**facts, "copied": copied, "n_truncated": n_truncated})

    def copied(self, engine: Engine, ids: Sequence[int]) -> list[tuple[int, int]] | None:
        """Return the runs that are copied from the training text; None if it is not known."""
        if engine not in self.copies:
            self.copies[engine] = Copies.of(engine)
        copies = self.copies[engine]
        return None if copies is None else copies.of_tokens(ids, engine.tokenizer)


def scored_ids(engine: Engine, text: str, given: Sequence[int] = ()) -> tuple[list[int], int]:
    """Return the ids of a text, and the number of tokens that are cut off at its end.

    Without `given` they are END_OF_TEXT and the ids of `text`, in which the name of a control token
    becomes that token. Ids that are given stay as they are: a text that a model has drawn may have
    other tokens than its characters have when they are encoded.

    Raises `UserError` for a text without tokens, with a character that the tokenizer does not have,
    or with a token that the model does not have.
    """
    tokenizer = engine.tokenizer
    ids = [*given] or tokenizer.encode(text, special=True)
    if not given and ids[:1] != [tokenizer.end_of_text]:
        ids = [tokenizer.end_of_text, *ids]
    if len(ids) < 2:
        raise UserError("the text has no token that a model could predict; give some words")
    if max(ids) >= engine.n_vocab:
        raise UserError(f"the text has a token that the model does not have: {max(ids)}")
    return ids[:MAX_TOKENS], max(0, len(ids) - MAX_TOKENS)


@torch.no_grad()
def score(engine: Engine, x: Tensor, y: Tensor, scores: Scores) -> None:
    """Read a window x (1, T), and score the tokens of y (1, T) that no window before has scored."""
    engine.ready()
    scored = y >= 0
    logits = engine.model(x.to(engine.model.embedding.weight.device))[..., : engine.n_vocab]
    scores.append(logits[scored.to(logits.device)].float().cpu(), y[scored])


def metrics(engine: Engine, ids: Sequence[int], logprob: Sequence[float | None]) -> dict[str, Any]:
    """Return the loss in nats/token, the perplexity, and the bits per byte of a text.

    The bytes are those of the scored tokens. A control token has none, as END_OF_TEXT has none in
    `TokenStream.bits_per_byte`. A text of control tokens only has no bits per byte.
    """
    losses = [-each for each in logprob if each is not None]
    loss = math.fsum(losses) / len(losses)
    if not math.isfinite(loss):
        raise UserError("the loss is not finite: the weights are broken; use another checkpoint")
    tokenizer = engine.tokenizer
    n_bytes = sum(len(tokenizer.token_bytes(id)) for id in ids[1:] if id not in tokenizer.controls)
    bits = loss * len(losses) / math.log(2) / n_bytes if n_bytes else None
    perplexity = math.exp(loss) if loss < MAX_LOSS else None  # JSON has no infinity
    return {"loss": loss, "perplexity": perplexity, "bits_per_byte": bits}
