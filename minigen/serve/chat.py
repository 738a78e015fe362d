"""OpenAI's chat API: `POST /v1/chat/completions`.

The model answers messages, which its own chat template makes one text (docs/api.md); a model
without a template continues a text, and says so. Choice k is text k of `sample.py --chat` with the
same seed and settings.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minigen.errors import UserError
from minigen.inference.engine import Engine
from minigen.serve.body import Body
from minigen.serve.completions import (
    MAX_LOGPROBS,
    MAX_TOKENS,
    REFUSED,
    Completions,
    Form,
    make_job,
    refuse,
)
from minigen.serve.job import Job, Prompt, Written
from minigen.serve.token_names import token_names

# Fields of OpenAI's chat API that change the text and are not offered.
REFUSED_IN_CHAT: dict[str, tuple[Any, ...]] = {
    **REFUSED,
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "reasoning_effort": (),
    "verbosity": (),
}


@dataclass(frozen=True)
class Chat:
    """The answers to programs that speak OpenAI's chat API."""

    completions: Completions

    def routes(self) -> list[Route]:
        """Return the address that programs ask."""
        return [Route("/v1/chat/completions", self.reply, methods=["POST"])]

    async def reply(self, request: Request) -> Response:
        """Answer with the message that follows those of a request."""
        return await self.completions.answer(request, read_chat, ChatForm)


# ---- the request ----


def read_chat(body: Body, engine: Engine) -> Job:
    """Return the job of a request for a message. Raises `UserError` for impossible values."""
    refuse(body, REFUSED_IN_CHAT)
    more = body.fields.get("chat_template_kwargs") or {}  # vLLM's name for it
    if not isinstance(more, dict) or more.keys() & {"messages", "add_generation_prompt"}:
        raise UserError("chat_template_kwargs is no object with names that the template reads")
    if not all(isinstance(value, str | int | float) for value in more.values()):
        raise UserError("chat_template_kwargs has a value that is no string, number, true or false")
    ids = engine.encode_chat(read_messages(body), more)
    room = (engine.block_size or engine.model.config.block_size) - len(ids)
    limit = body.integer("max_completion_tokens", None, 1, MAX_TOKENS)
    limit = limit or body.integer("max_tokens", None, 1, MAX_TOKENS)
    n_logprobs = body.integer("top_logprobs", 0, 0, MAX_LOGPROBS)
    if n_logprobs and not body.switch("logprobs"):
        raise UserError("top_logprobs needs logprobs: true")
    return make_job(
        body,
        engine,
        [Prompt(ids, "")],
        min(limit or max(1, room), MAX_TOKENS),
        n_logprobs if body.switch("logprobs") else None,
    )


def read_messages(body: Body) -> list[dict[str, Any]]:
    """Return the messages of a request; a content in parts is joined.

    Raises `UserError`, with the number of the message, for one that is no text.
    """
    messages = body.fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UserError('messages is no list such as [{"role": "user", "content": "Hi"}]')
    return [_message(number, each) for number, each in enumerate(messages)]


def _message(number: int, value: Any) -> dict[str, Any]:
    """Return a message with a role and a content, both strings."""
    where = f"messages[{number}]"
    if not isinstance(value, dict):
        raise UserError(f"{where} is not an object with a role and a content")
    content = value.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        if len(parts) < len(content) or not all(
            isinstance(part.get("text"), str) for part in parts
        ):
            raise UserError(f"{where} has a part that is no text, which is not offered here")
        content = "".join(part["text"] for part in parts)
    if value.get("tool_calls"):
        raise UserError(f"{where} has tool_calls, which are not offered here")
    message = Body({**value, "content": content})
    try:
        role, text = message.text("role", None), message.text("content", None)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if not role or text is None:
        raise UserError(f"{where} has no {'content' if role else 'role'}")
    others = {name: one for name, one in value.items() if isinstance(one, str)}
    return {**others, "role": role, "content": text}


# ---- the answer ----


@dataclass
class ChatForm(Form):
    """The form of the answers to a job that messages ask for."""

    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    begun: set[int] = field(default_factory=set)  # choices of which a stream has a part already

    def head(self, in_stream: bool = False) -> dict[str, Any]:
        """Return the fields that the answer begins with, or each event of a stream."""
        kind = "chat.completion.chunk" if in_stream else "chat.completion"
        return {**super().head(in_stream), "object": kind}

    def choice(
        self, index: int, text: str, tokens: Sequence[Written], finish: str | None
    ) -> dict[str, Any]:
        """Return a choice, with its message."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, **self._end(tokens, finish)}

    def part(
        self, index: int, text: str, tokens: Sequence[Written], finish: str | None
    ) -> dict[str, Any]:
        """Return a part of a choice; the first one says whose message it is."""
        delta = {"content": text} if index in self.begun else {"role": "assistant", "content": text}
        self.begun.add(index)
        return {"index": index, "delta": delta, **self._end(tokens, finish)}

    def _end(self, tokens: Sequence[Written], finish: str | None) -> dict[str, Any]:
        """Return the fields with which both forms of a choice end."""
        logprobs = None if self.job.n_logprobs is None else self.logprobs(tokens)
        return {"logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, tokens: Sequence[Written]) -> dict[str, Any]:
        """Return the log-probabilities of tokens, which are the model's own: before temperature."""
        return {
            "content": [
                {
                    **self._token(token.id, token.score.logprob),
                    "top_logprobs": [self._token(*one) for one in token.score.top],
                }
                for token in tokens
                if token.score
            ],
            "refusal": None,
        }

    def _token(self, id: int, logprob: float) -> dict[str, Any]:
        """Return a token: its name, its log-probability and its bytes."""
        engine = self.job.engine
        data = [*engine.tokenizer.token_bytes(id)]
        return {"token": token_names(engine)[id], "logprob": logprob, "bytes": data}
