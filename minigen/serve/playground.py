"""The numbers of the page: tokens, predictions and random numbers, as in minigen/sampling.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from minigen.data.template import ANSWERS
from minigen.errors import UserError
from minigen.files.chat_template import Message
from minigen.inference.engine import Engine
from minigen.sampling import uniform
from minigen.serve.body import read_body
from minigen.serve.chat import read_messages
from minigen.serve.models import Models
from minigen.serve.prefixes import Prefixes
from minigen.serve.worker import Worker

MAX_WORD = 1000  # characters of a word whose merges are shown: each merge is a list of all pieces


@dataclass(frozen=True)
class Playground:
    """The answers to the page's requests."""

    models: Models
    worker: Worker
    prefixes: WeakKeyDictionary[Engine, Prefixes] = field(default_factory=WeakKeyDictionary)

    def routes(self) -> list[Route]:
        """Return the addresses that the page asks."""
        return [
            Route("/api/models", self.list_models),
            Route("/api/vocabulary", self.vocabulary, methods=["POST"]),
            Route("/api/tokens", self.tokens, methods=["POST"]),
            Route("/api/merges", self.merges, methods=["POST"]),
            Route("/api/predict", self.predict, methods=["POST"]),
            Route("/api/uniform", self.uniform, methods=["POST"]),
        ]

    async def list_models(self, request: Request) -> Response:
        """Answer with the facts of each served model."""
        return JSONResponse({"models": [each.describe() for each in self.models]})

    async def vocabulary(self, request: Request) -> Response:
        """Answer with the bytes of each token, in hex, and with the control tokens."""
        engine = await self.models.named(await read_body(request), self.worker)
        tokenizer = engine.tokenizer
        return JSONResponse(
            {
                "bytes": [tokenizer.token_bytes(id).hex() for id in range(engine.n_vocab)],
                "controls": {str(id): name for id, name in tokenizer.controls.items()},
                "end_of_text": tokenizer.end_of_text,
                "stop_ids": sorted(tokenizer.stop_ids),
            }
        )

    async def tokens(self, request: Request) -> Response:
        """Answer with the ids that the model reads for a text, as `Engine.encode` returns them.

        Of `messages` in the place of the text, answer with the ids of the conversation.
        """
        body = await read_body(request)
        engine = await self.models.named(body, self.worker)
        if body.fields.get("messages") is not None:
            return JSONResponse(conversation(engine, read_messages(body)))
        return JSONResponse({"ids": engine.encode(body.text("text"))})

    async def merges(self, request: Request) -> Response:
        """Answer with the ids of a word, and with its pieces, in hex, after each merge."""
        body = await read_body(request)
        tokenizer = (await self.models.named(body, self.worker)).tokenizer
        word = body.text("word")
        if len(word) > MAX_WORD:
            raise UserError(f"word has {len(word)} characters; give at most {MAX_WORD}")
        steps = [[piece.hex() for piece in step] for step in tokenizer.merges(word)]
        return JSONResponse({"steps": steps, "ids": tokenizer.encode(word)})

    async def uniform(self, request: Request) -> Response:
        """Answer with the random numbers of 64 tokens of a sample, from token `n` on."""
        body = await read_body(request)
        seed, sample = (body.integer(name, 0, 0, 2**53 - 1) for name in ("seed", "sample"))
        n = body.integer("n", 0, 0, 2**53 - 1)
        return JSONResponse({"u": [uniform(seed, sample, n + i) for i in range(64)]})

    async def predict(self, request: Request) -> Response:
        """Answer with the logits of the token after a text, as n_vocab little-endian float32."""
        body = await read_body(request)
        engine = await self.models.named(body, self.worker)
        ids = body.ids("ids", engine.n_vocab)
        prefixes = self.prefixes.setdefault(engine, Prefixes())
        found = await self.worker.run(lambda: prefixes.predict(engine, ids))
        content = found.logits.numpy().astype("<f4").tobytes()
        facts = {"reused": found.reused, "computed": found.computed}
        facts |= {"truncated": found.truncated, "bytes": found.number_bytes}
        headers = {f"x-{name}": str(value) for name, value in facts.items()}
        return Response(content, media_type="application/octet-stream", headers=headers)


def conversation(engine: Engine, messages: Sequence[Message]) -> dict[str, Any]:
    """Return the ids of messages, and of each whether it is of an answer; null: not known.

    After a message that is no answer, the ids are those that `Engine.encode_chat` asks the model
    with. After an answer, they end with it, as in training.

    Raises `UserError` as `Engine.encode_chat` does.
    """
    template, tokenizer = engine.find_chat_template(), engine.tokenizer
    ids = (
        template.encode(messages, tokenizer, answers=False)
        if messages[-1]["role"] == ANSWERS
        else engine.encode_chat(messages)
    )
    try:
        is_answer = template.find_answers(messages, tokenizer, ids)
    except UserError:  # such a template can be asked, but not trained with
        is_answer = None
    return {"ids": ids, "is_answer": is_answer}
