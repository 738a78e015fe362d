"""OpenAI's completions API: `GET /v1/models` and `POST /v1/completions`.

The fields and the answers are those of OpenAI's legacy completions, and so are the defaults: a
request without settings draws from the probabilities that the model predicts (temperature 1, no
filter), unlike sample.py, whose defaults are those of `Sampling`. The fields top_k, min_p and
repetition_penalty are minigen's own. Choice k of a prompt is text k of `sample.py --num_samples`
with the same seed and settings; so the choices of a prompt do not depend on the other prompts of
the request (test_each_prompt_gets_the_choices_that_it_gets_alone).
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from minigen.errors import UserError
from minigen.inference.engine import Engine
from minigen.sampling import Sampling, check_settings
from minigen.serve.body import Body, read_body
from minigen.serve.job import Job, Part, Prompt, Written
from minigen.serve.models import Models
from minigen.serve.token_names import token_names
from minigen.serve.worker import Busy, Worker

MAX_CHOICES = 128  # of a request: prompts times n
MAX_TOKENS = 2**18  # of an answer: choices times max_tokens and, with echo, the prompt
MAX_LOGPROBS = 20  # OpenAI: 5
MAX_SCORES = 2**19  # log-probabilities of an answer, which are 30 bytes each
MAX_STOPS, MAX_STOP_LENGTH = 16, 256  # OpenAI: 4 stop strings
# Fields of OpenAI's API that change the text and are not offered, each with the values that ask
# for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
}
T = TypeVar("T")
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Completions:
    """The answers to programs that speak OpenAI's completions API."""

    models: Models
    worker: Worker

    def routes(self) -> list[Route]:
        """Return the addresses that programs ask."""
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{id:path}", self.show_model),
            Route("/v1/completions", self.complete, methods=["POST"]),
        ]

    async def list_models(self, request: Request) -> Response:
        """Answer with the names of the models."""
        data = [describe(each.id, each.engine) for each in self.models]
        return JSONResponse({"object": "list", "data": data})

    async def show_model(self, request: Request) -> Response:
        """Answer with one model."""
        id = request.path_params["id"]
        if id not in self.models.served:
            return self.unknown(id)
        return JSONResponse(describe(id, self.models.get(id)))

    def unknown(self, id: str) -> Response:
        """Answer 404 to a name that is no model."""
        try:
            self.models.get(id)
        except UserError as error:
            about = {**wrong(error), "param": "model", "code": "model_not_found"}
        return JSONResponse({"error": about}, status_code=404)

    async def complete(self, request: Request) -> Response:
        """Answer with the texts that continue the prompts of a request."""
        return await self.answer(request, read_job, Form)

    async def answer(
        self, request: Request, read: Callable[[Body, Engine], Job], make_form: type[Form]
    ) -> Response:
        """Answer with the texts of the job that `read` finds in a request.

        Args:
            make_form: the form of the answer.
        """
        body = await read_body(request)
        id = body.text("model", None)
        step = body.integer("step", None, 0, 2**62)
        if id is None:
            id = next(iter(self.models)).id
        elif id not in self.models.served:
            return self.unknown(id)
        engine = self.models.get(id)
        if step is not None:
            engine = await self.worker.run(lambda: self.models.get(id, step))
        job = read(body, engine)
        form = make_form(job, id)
        usage = with_usage(body)
        parts = self.worker.submit(job)
        if job.streams:
            return EventStream(job, events(form, parts, usage))
        try:
            answer = await unless_closed(collect(form, parts), request.receive, job)
        except (UserError, Busy):
            raise
        except Exception as error:
            return JSONResponse({"error": wrong(error)}, status_code=500)
        if answer is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answer)


class EventStream(StreamingResponse):
    """A response of server-sent events; its job ends with the connection."""

    def __init__(self, job: Job, content: AsyncIterator[str]) -> None:
        super().__init__(content, media_type="text/event-stream")
        self.headers["cache-control"] = "no-store"
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        await unless_closed(self.stream_response(send), receive, self.job)


async def unless_closed(work: Coroutine[Any, Any, T], receive: Receive, job: Job) -> T | None:
    """Return the result of `work` for a job; None if the client closes the connection before.

    The job ends with the call.
    """
    working = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(until_closed(receive))
    try:
        await asyncio.wait([working, closed], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        job.cancelled = True
        working.cancel()
        closed.cancel()


async def until_closed(receive: Receive) -> None:
    """Return when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


# ---- the request ----


def read_job(body: Body, engine: Engine) -> Job:
    """Return the job of a request for completions. Raises `UserError` for impossible values."""
    refuse(body, REFUSED)
    prompts = read_prompts(body.fields.get("prompt"), engine)
    n = body.integer("n", 1, 1, MAX_CHOICES)
    if body.integer("best_of", n, 1, MAX_CHOICES) != n:
        raise UserError("best_of is not n; only best_of = n is offered: all texts are returned")
    return make_job(
        body,
        engine,
        prompts,
        body.integer("max_tokens", 16, 0, MAX_TOKENS),
        body.integer("logprobs", None, 0, MAX_LOGPROBS),
        body.switch("echo"),
    )


def refuse(body: Body, fields: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise `UserError` for a field that is not offered.

    Args:
        fields: name -> the values that ask for nothing.
    """
    for name, nothing in fields.items():
        if body.fields.get(name) is not None and body.fields[name] not in nothing:
            raise UserError(f"{name} is not offered here; leave it out")


def make_job(
    body: Body,
    engine: Engine,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    n_logprobs: int | None,
    echo: bool = False,
) -> Job:
    """Return the job that continues prompts with the settings of a request.

    Raises `UserError` for impossible values.
    """
    n = body.integer("n", 1, 1, MAX_CHOICES)
    if len(prompts) * n > MAX_CHOICES:
        raise UserError(
            f"{len(prompts)} prompts with n = {n} are {len(prompts) * n} texts; "
            f"ask for at most {MAX_CHOICES} at once"
        )
    n_echoed = sum(len(prompt.ids) for prompt in prompts) if echo else 0
    n_tokens = n * (n_echoed + len(prompts) * max_new_tokens)
    if n_tokens > MAX_TOKENS:
        about = f" after {n_echoed} of the prompts" if echo else ""
        raise UserError(
            f"{len(prompts) * n} texts of up to {max_new_tokens} tokens{about} are more than "
            f"{MAX_TOKENS} tokens; ask for fewer at once"
        )
    if n_logprobs is not None and n_tokens * (n_logprobs + 1) > MAX_SCORES:
        raise UserError(
            f"up to {n_tokens} tokens with logprobs = {n_logprobs} are more than {MAX_SCORES} "
            "log-probabilities; ask for fewer at once"
        )
    sampling = Sampling(
        temperature=body.number("temperature", 1.0),
        top_k=body.integer("top_k", None, -(2**63), 2**63),
        top_p=body.number("top_p", 1.0),
        min_p=body.number("min_p", 0.0),
        repetition_penalty=body.number("repetition_penalty", 1.0),
    )
    seed = body.integer("seed", random.getrandbits(53), 0, 2**64 - 1)
    check_settings(sampling, engine.n_vocab, seed)
    return Job(
        engine,
        prompts,
        n,
        sampling,
        seed,
        max_new_tokens,
        stop_strings=read_stops(body),
        n_logprobs=n_logprobs,
        echo=echo,
        streams=body.switch("stream"),
    )


def read_prompts(value: Any, engine: Engine) -> list[Prompt]:
    """Return the prompts: of a string, a list of strings, ids, or a list of lists of ids."""
    several = value if isinstance(value, list) else ["" if value is None else value]
    if several and several is value and all(type(each) is int for each in several):
        several = [value]
    if not several:
        raise UserError("prompt is an empty list; give a string, or at least one token id")
    if all(isinstance(each, str) for each in several):
        return [encode(engine, text) for text in several]
    if all(isinstance(each, list) and each for each in several):
        prompts = [Body({"prompt": each}).ids("prompt", engine.n_vocab) for each in several]
        return [Prompt(ids, engine.tokenizer.decode(ids)) for ids in prompts]
    raise UserError("prompt is no string, no list of strings, no token ids and no lists of them")


def encode(engine: Engine, text: str) -> Prompt:
    """Return the prompt of a string, as `Engine.encode` reads it.

    The tokens that the model reads before the string, such as <|endoftext|>, are no part of the
    prompt's text.
    """
    ids = engine.encode(text)
    data = text.encode()
    suffixes = (n for n in range(len(ids) + 1) if engine.tokenizer.decode_bytes(ids[n:]) == data)
    return Prompt(ids, text, next(suffixes, 0) if text else len(ids))


def read_stops(body: Body) -> list[str]:
    """Return the stop strings."""
    value = body.fields.get("stop")
    stops = value if isinstance(value, list) else [] if value is None else [value]
    if len(stops) > MAX_STOPS:
        raise UserError(f"stop has {len(stops)} strings; give at most {MAX_STOPS}")
    for stop in stops:
        if not 0 < len(Body({"stop": stop}).text("stop", "")) <= MAX_STOP_LENGTH:
            raise UserError(f"a stop string has no character, or more than {MAX_STOP_LENGTH}")
    return stops


def with_usage(body: Body) -> bool:
    """Return whether a stream ends with the number of tokens."""
    options = body.fields.get("stream_options")
    if not isinstance(options, dict | None):
        raise UserError("stream_options is not an object")
    return Body(options or {}).switch("include_usage")


# ---- the answer ----


@dataclass
class Form:
    """The form of the answers to a job."""

    job: Job
    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, in_stream: bool = False) -> dict[str, Any]:
        """Return the fields that the answer begins with, or each event of a stream."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "seed": self.job.seed,
        }

    def choice(
        self, index: int, text: str, tokens: Sequence[Written], finish: str | None
    ) -> dict[str, Any]:
        """Return a choice."""
        logprobs = None if self.job.n_logprobs is None else self.logprobs(tokens)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    # A part of a choice, in a stream; OpenAI's chat has another form for it.
    part = choice

    def logprobs(self, tokens: Sequence[Written]) -> dict[str, Any]:
        """Return the log-probabilities of tokens, which are the model's own: before temperature.

        The most probable tokens of each prediction are listed, and the one that was drawn.
        """
        names = token_names(self.job.engine)
        return {
            "tokens": [names[token.id] for token in tokens],
            "token_logprobs": [token.score and token.score.logprob for token in tokens],
            "top_logprobs": [
                token.score
                and {names[id]: logprob for id, logprob in token.score.top}
                | {names[token.id]: token.score.logprob}
                for token in tokens
            ],
            "text_offset": [token.offset for token in tokens],
        }

    def usage(self) -> dict[str, int]:
        """Return the numbers of tokens; a prompt is counted once for all of its choices."""
        n_prompt = sum(len(prompt.ids) for prompt in self.job.prompts)
        n_new = self.job.n_written
        return {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_new,
            "total_tokens": n_prompt + n_new,
        }

    def notice(self) -> dict[str, str]:
        """Return a field that says that a text did not fit into the context, if one did not."""
        job, engine = self.job, self.job.engine
        size = engine.block_size or engine.model.config.block_size
        if not job.outgrown and all(len(prompt.ids) <= size for prompt in job.prompts):
            return {}
        return {
            "notice": f"a text is longer than the model's context of {size} tokens; each token "
            f"follows from the latest {max(1, size // 2)} to {size} tokens before it"
        }


async def collect(form: Form, arriving: AsyncIterator[list[Part]]) -> dict[str, Any]:
    """Return the answer of a request that does not stream."""
    parts = [part async for parts in arriving for part in parts]
    choices = [form.choice(*part) for part in sorted(joined(parts))]
    return {**form.head(), "choices": choices, "usage": form.usage(), **form.notice()}


def joined(parts: Sequence[Part]) -> list[Part]:
    """Return one part for each choice, with all that its parts have."""
    parts_of: dict[int, list[Part]] = {}
    for part in parts:
        parts_of.setdefault(part.choice, []).append(part)
    return [
        Part(
            choice,
            "".join([part.text for part in some]),
            [token for part in some for token in part.tokens],
            some[-1].finish,
        )
        for choice, some in parts_of.items()
    ]


async def events(
    form: Form, arriving: AsyncIterator[list[Part]], with_usage: bool
) -> AsyncIterator[str]:
    """Yield server-sent events; those that are ready at once are one chunk.

    The pieces of a choice that are ready at once are one event: a small model writes a hundred
    between two deliveries, and each event has 200 bytes besides its text.
    """
    head = ENCODER.encode(form.head(in_stream=True))[
        :-1
    ]  # the same in each event, so it is written once
    usage = {"usage": None} if with_usage else {}
    has_logprobs = form.job.n_logprobs is not None
    try:
        async for parts in arriving:
            chunk = ""
            for part in joined(parts):
                if part.text or part.finish or (has_logprobs and part.tokens):
                    notice = form.notice() if part.finish else {}
                    chunk += event(head, {"choices": [form.part(*part)], **usage, **notice})
            if chunk:
                yield chunk
    except Exception as error:
        yield event("{", {"error": wrong(error)})
        return
    last = event(head, {"choices": [], "usage": form.usage()}) if with_usage else ""
    yield last + "data: [DONE]\n\n"


def event(head: str, fields: dict[str, Any]) -> str:
    """Return a server-sent event.

    Args:
        head: the beginning of the JSON object, up to the comma before `fields`.
    """
    comma = "," if len(head) > 1 else ""
    return f"data: {head}{comma}{ENCODER.encode(fields)[1:]}\n\n"


def wrong(error: Exception) -> dict[str, Any]:
    """Return an error in the form of OpenAI's."""
    if isinstance(error, UserError):
        return {"message": str(error), "type": "invalid_request_error", "code": None}
    return {"message": "the model failed", "type": "server_error", "code": None}


def describe(id: str, engine: Engine) -> dict[str, Any]:
    """Return a model as OpenAI's API describes it."""
    created = int(engine.path.stat().st_mtime) if engine.path.exists() else 0
    return {"id": id, "object": "model", "created": created, "owned_by": "minigen"}
