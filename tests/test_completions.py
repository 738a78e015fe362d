"""Tests of OpenAI's completions API: a real server answers real clients, exactly as the library."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import torch
from absent import package
from models import architectures, varied_model
from serving import serving

from minigen.files import checkpoint
from minigen.inference.engine import Engine
from minigen.sampling import PLAIN, Sampling
from minigen.serve.completions import Form, events
from minigen.serve.job import Job, Part, Prompt
from minigen.serve.models import Models
from minigen.serve.token_names import token_names
from minigen.serve.worker import MAX_WAITING, Worker
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

BLOCK = 32
TEXT = "the owl and the fox, the owl € and the fox: “né” 日本 " * 3


@dataclass(frozen=True)
class Served:
    """A client of a server, the models that it answers with, and the worker that computes."""

    client: httpx.Client
    models: Models
    worker: Worker

    def post(self, fields: Any) -> httpx.Response:
        """Send a request for completions."""
        return self.client.post("/v1/completions", json=fields)

    def complete(self, **fields: Any) -> dict[str, Any]:
        """Return the answer of a request that succeeds."""
        response = self.post(fields)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


def wait_until(condition: Any) -> None:
    """Wait until a condition holds, for a minute at most."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition never held")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve two small models with random weights."""
    folder = tmp_path_factory.mktemp("out")
    for name, tokenizer in {
        "words": train_tokenizer("bpe", [TEXT], 300),
        "bytes": train_tokenizer("byte", []),
    }.items():
        config = architectures(tokenizer.n_vocab, BLOCK, 16)["grouped queries"]
        state = {"step": 1, "val_loss": 1.0, "opening": "the" if name == "words" else ""}
        checkpoint.save(folder / name, varied_model(config), tokenizer, {}, state)
    models, worker = Models([str(folder / "words"), str(folder / "bytes")]), Worker()
    with (
        serving(models, worker=worker) as address,
        httpx.Client(base_url=address.url, timeout=60) as client,
    ):
        yield Served(client, models, worker)


def written(
    engine: Engine, ids: list[int], n: int, seed: int, sampling: Sampling = PLAIN, length: int = 16
) -> list[list[int]]:
    """Return the new ids of n samples of a prompt, as the library writes them one by one."""
    return [
        [
            token.id
            for [token] in engine.generate(
                [ids], sampling, max_new_tokens=length, seed=seed, samples=[sample]
            )
            if token
        ]
        for sample in range(n)
    ]


def shown(engine: Engine, ids: list[int]) -> str:
    """Return the text of new ids, without an end-of-text token."""
    return engine.tokenizer.decode([id for id in ids if id != engine.tokenizer.end_of_text])


def stream(served: Served, **fields: Any) -> list[dict[str, Any]]:
    """Return the events of a streamed answer, without the last one."""
    response = served.post({**fields, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    *events, done, nothing = response.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


# ---- models ----


def test_models_are_listed_by_name(served: Served) -> None:
    """`GET /v1/models` lists the models, and `GET /v1/models/NAME` is one of the list."""
    listed = served.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["words", "bytes"]
    assert all(model["object"] == "model" for model in listed["data"])
    assert served.client.get("/v1/models/bytes").json() == listed["data"][1]


def test_an_unknown_model_is_not_found(served: Served) -> None:
    """A name that is no model gets 404 and the names of the models."""
    message = "there is no model 'gpt9' here; the models are words, bytes"
    answers = [served.client.get("/v1/models/gpt9"), served.post({"model": "gpt9"})]
    for answer in answers:
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert error["message"] == message and error["code"] == "model_not_found"


# ---- the same texts as the library ----


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.7, "top_p": 0.9, "top_k": 40},
                                    {"temperature": 0.0}, {"min_p": 0.1},
                                    {"repetition_penalty": 1.5, "temperature": 1.3}])  # fmt: skip
def test_choices_are_the_samples_of_the_library(served: Served, fields: dict[str, Any]) -> None:
    """Choice k has the text of sample k, and settings not given leave the model's probabilities."""
    engine = served.models.get("words")
    sampling = Sampling(**{"temperature": 1.0, "min_p": 0.0, **fields})
    answer = served.complete(prompt="the owl", n=3, max_tokens=40, seed=7, **fields)
    texts = written(engine, engine.encode("the owl"), 3, 7, sampling, 40)
    assert [choice["text"] for choice in answer["choices"]] == [shown(engine, t) for t in texts]
    assert [choice["finish_reason"] for choice in answer["choices"]] == [
        "stop" if ids[-1] == engine.tokenizer.end_of_text else "length" for ids in texts
    ]
    n_prompt, n_new = len(engine.encode("the owl")), sum(map(len, texts))
    assert answer["usage"] == {
        "prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new,
    }  # fmt: skip
    assert (answer["model"], answer["object"]) == ("words", "text_completion")


def test_each_prompt_gets_the_choices_that_it_gets_alone(served: Served) -> None:
    """Choices p * n to p * n + n - 1 are those of a request with prompt p only."""
    engine = served.models.get("bytes")
    texts = ["a", "long prompt " * 5, "né"]
    for prompts in (texts, [engine.encode(text) for text in texts]):
        answer = served.complete(model="bytes", prompt=prompts, n=2, seed=3)
        assert [choice["index"] for choice in answer["choices"]] == [*range(6)]
        for p, prompt in enumerate(prompts):
            alone = served.complete(model="bytes", prompt=prompt, n=2, seed=3)
            for k in range(2):
                assert answer["choices"][2 * p + k]["text"] == alone["choices"][k]["text"]


def test_a_prompt_as_ids_is_read_as_it_is(served: Served) -> None:
    """Nothing is added to a prompt of ids, and a string is read as `Engine.encode` reads it."""
    engine = served.models.get("words")
    ids = engine.tokenizer.encode("the owl")
    assert engine.encode("the owl") == [engine.tokenizer.end_of_text, *ids]
    answer = served.complete(prompt=ids, seed=1, max_tokens=9)
    [expected] = written(engine, ids, 1, 1, length=9)
    assert answer["choices"][0]["text"] == shown(engine, expected)


@pytest.mark.parametrize("fields", [{}, {"prompt": ""}, {"prompt": None}])
def test_without_a_prompt_a_text_begins_as_documents_do(
    served: Served, fields: dict[str, Any]
) -> None:
    """A request without a prompt gets the text that `sample.py` writes without a prompt."""
    answer = served.complete(seed=1, echo=True, **fields)
    expected = "".join(served.models.get("words").stream("", PLAIN, max_new_tokens=16, seed=1))
    assert answer["choices"][0]["text"] == expected


def test_a_missing_seed_is_drawn_and_reported(served: Served) -> None:
    """Without a seed each request gets another text, and the answer's seed gives it once more."""
    first, second = (served.complete(prompt="the", max_tokens=30) for _ in range(2))
    assert first["seed"] != second["seed"]
    again = served.complete(prompt="the", max_tokens=30, seed=first["seed"])
    assert again["choices"] == first["choices"] != second["choices"]


@pytest.mark.parametrize("length", [2, 3, 7])
def test_a_stop_string_across_tokens_ends_the_text(served: Served, length: int) -> None:
    """The text ends before the first stop string, wherever tokens end, and does not show it."""
    whole = served.complete(model="bytes", prompt="a", seed=4, max_tokens=60)["choices"][0]["text"]
    stop = whole[20 : 20 + length]
    for value in (stop, ["never", stop]):
        answer = served.complete(model="bytes", prompt="a", seed=4, max_tokens=60, stop=value)
        [choice] = answer["choices"]
        assert choice["text"] == whole[: whole.index(stop)]
        assert choice["finish_reason"] == "stop"


# ---- echo and logprobs ----


def test_echo_begins_with_the_prompt(served: Served) -> None:
    """With `echo`, the text is the prompt, exactly as given, and then the text without `echo`."""
    engine = served.models.get("words")
    eot = engine.tokenizer.end_of_text
    for prompt in ("the owl € né", f"{END_OF_TEXT}a"):
        [plain] = served.complete(prompt=prompt, seed=2)["choices"]
        [echoed] = served.complete(prompt=prompt, seed=2, echo=True)["choices"]
        assert echoed["text"] == prompt + plain["text"]
    [choice] = served.complete(prompt=[eot, 65, 66], echo=True, max_tokens=0)["choices"]
    assert choice == {
        "index": 0, "text": END_OF_TEXT + "AB", "logprobs": None, "finish_reason": "length",
    }  # fmt: skip


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_echoed_logprobs_are_those_of_the_library(served: Served, max_tokens: int) -> None:
    """With `echo`, each token but the first has the log-probability that the model predicts."""
    engine = served.models.get("words")
    ids = engine.encode("the owl and the fox")
    answer = served.complete(
        prompt=ids, echo=True, logprobs=4, max_tokens=max_tokens, temperature=0.5, seed=5
    )
    found = answer["choices"][0]["logprobs"]
    new = written(engine, ids, 1, 5, Sampling(temperature=0.5, min_p=0), max_tokens)[0]
    names = token_names(engine)
    assert found["tokens"] == [names[id] for id in ids + new]
    with torch.no_grad():
        logits = engine.model(torch.tensor([ids + new]))[0, :, : engine.n_vocab]
    logprobs = logits.double().log_softmax(dim=-1)
    assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
    for i, id in enumerate((ids + new)[1:], 1):
        row = logprobs[i - 1]
        assert found["token_logprobs"][i] == pytest.approx(row[id].item(), abs=1e-5)
        best = {names[k] for k in row.topk(4).indices.tolist()}
        assert found["top_logprobs"][i].keys() == best | {names[id]}
        assert found["top_logprobs"][i][names[id]] == found["token_logprobs"][i]
        assert max(found["top_logprobs"][i].values()) == pytest.approx(row.max().item(), abs=1e-5)


def test_an_evaluation_reads_the_likelihood_of_a_continuation(served: Served) -> None:
    """The request of lm-eval's local-completions gets the scores that it looks for."""
    engine = served.models.get("bytes")
    context, continuation = engine.encode("the owl"), engine.tokenizer.encode(" and")
    with torch.no_grad():
        logits = engine.model(torch.tensor([context + continuation]))[0, :, : engine.n_vocab]
    greedy = [*context, int(logits[len(context) - 1].argmax())]
    answer = served.complete(
        model="bytes", prompt=[context + continuation, greedy], temperature=0, max_tokens=1,
        logprobs=1, seed=1234, echo=True,
    )  # fmt: skip
    found = []
    for choice in answer["choices"]:
        scores = choice["logprobs"]["token_logprobs"][len(context) : -1]
        tops = choice["logprobs"]["top_logprobs"][len(context) : -1]
        is_greedy = scores == [max(top.values()) for top in tops]
        found.append((sum(scores), is_greedy))
    rows = logits.double().log_softmax(dim=-1)[len(context) - 1 : -1]
    total = sum(row[id].item() for row, id in zip(rows, continuation, strict=True))
    assert found[0] == (pytest.approx(total, abs=1e-4), False)
    assert found[1] == (pytest.approx(rows[0].max().item(), abs=1e-4), True)


def test_names_of_tokens_are_unique(served: Served) -> None:
    """Different ids have different names: their text, or the bytes of a part of a character."""
    for model in served.models:
        assert len(set(token_names(model.engine))) == model.engine.n_vocab
    names = token_names(served.models.get("bytes"))
    assert names[65] == "A" and names[0xE2] == "bytes:\\xe2"
    spelled = [*(bytes([b]) for b in range(256)), b"bytes:\\xe2", b"A", b"A", b"A<id 257>", b"end"]
    tokenizer = Tokenizer("hub", spelled)
    engine = Engine(varied_model(architectures(261, 8, 16)["gpt2"]), tokenizer)
    names = token_names(engine)
    assert len(set(names)) == 261 and names[65] == "A" and names[0xE2] == "bytes:\\xe2"


def test_offsets_lead_to_the_characters_of_each_token(served: Served) -> None:
    """A token's `text_offset` is the index of its first character in the text of the choice."""
    engine = served.models.get("words")
    for echo in (True, False):
        answer = served.complete(
            prompt="the € “né” 日本", echo=echo, logprobs=0, max_tokens=60, seed=8, n=3,
            logit_bias={}, presence_penalty=0,
        )  # fmt: skip
        for choice in answer["choices"]:
            found, n_complete = choice["logprobs"], 0
            assert len({*map(len, found.values())}) == 1
            assert found["text_offset"] == sorted(found["text_offset"])
            for name, offset in zip(found["tokens"], found["text_offset"], strict=True):
                if not name.startswith("bytes:") and name != END_OF_TEXT:
                    assert choice["text"][offset:].startswith(name)
                    n_complete += 1
            assert n_complete > 5
    [choice] = served.complete(model="bytes", prompt="né", echo=True, logprobs=0, max_tokens=0)[
        "choices"
    ]
    assert choice["logprobs"]["tokens"] == [END_OF_TEXT, "n", "bytes:\\xc3", "bytes:\\xa9"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1, 1]
    assert engine.n_vocab > 256


def test_a_text_beyond_the_context_is_answered_with_a_notice(served: Served) -> None:
    """A text longer than the context is treated as in `sample.py`, and a notice says so."""
    engine = served.models.get("bytes")
    ids = engine.tokenizer.encode("x" * 3 * BLOCK)
    answer = served.complete(model="bytes", prompt=ids, seed=1, max_tokens=9, echo=True, logprobs=1)
    [expected] = written(engine, ids, 1, 1, length=9)
    assert answer["choices"][0]["text"] == "x" * 3 * BLOCK + shown(engine, expected)
    assert None not in answer["choices"][0]["logprobs"]["token_logprobs"][1:]
    assert "longer than the model's context of 32 tokens" in answer["notice"]
    start, n = engine.encode("x"), BLOCK + 2
    seed = next(s for s in range(99) if len(written(engine, start, 1, s, length=n)[0]) == n)
    assert "notice" in served.complete(model="bytes", prompt="x", seed=seed, max_tokens=n)
    assert "notice" not in served.complete(model="bytes", prompt="x", seed=1, max_tokens=4)
    last = stream(served, model="bytes", prompt=ids, seed=1, max_tokens=9)[-1]
    assert last["notice"] == answer["notice"]


# ---- streaming ----


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "the"},
        {"prompt": ["the owl", "“né”"], "n": 2, "echo": True, "logprobs": 2},
        {"prompt": [[65, 66], [67]], "logprobs": 0, "model": "bytes"},
        {"prompt": "the", "stop": ["e", "o"], "n": 3, "logprobs": 1, "model": "bytes"},
        {"prompt": "the", "max_tokens": 0, "echo": True},
    ],
)
def test_a_streamed_answer_adds_up_to_the_whole_one(served: Served, fields: dict[str, Any]) -> None:
    """The pieces of each choice add up to its text and its log-probabilities."""
    fields = {"max_tokens": 50, "seed": 6, **fields}
    events = stream(served, **fields, stream_options={"include_usage": True})
    whole = served.complete(**fields)
    assert events[-1]["choices"] == [] and events[-1]["usage"] == whole["usage"]
    assert len({event["id"] for event in events}) == 1
    assert all(event["usage"] is None for event in events[:-1])
    for choice in whole["choices"]:
        parts = [
            e["choices"][0] for e in events[:-1] if e["choices"][0]["index"] == choice["index"]
        ]
        assert "".join(part["text"] for part in parts) == choice["text"]
        reasons = [part["finish_reason"] for part in parts]
        assert reasons == [None] * (len(parts) - 1) + [choice["finish_reason"]]
        if choice["logprobs"] is None:
            assert all(part["logprobs"] is None for part in parts)
        else:
            for name, values in choice["logprobs"].items():
                assert [value for part in parts for value in part["logprobs"][name]] == values


def test_the_pieces_of_a_choice_that_are_ready_together_are_one_event(served: Served) -> None:
    """Of the pieces that arrive together, an event joins those of one choice."""
    job = Job(served.models.get("words"), [Prompt([0], "")], 2, PLAIN, 0, 9)
    deliveries = [
        [Part(1, "a", (), None), Part(0, "b", (), None), Part(1, "c", (), "stop")],
        [Part(0, "d", (), None), Part(0, "", (), "length")],
    ]

    async def arriving() -> AsyncIterator[list[Part]]:
        """Yield the deliveries."""
        for parts in deliveries:
            yield parts

    async def read() -> list[str]:
        """Return the chunks of the stream."""
        return [chunk async for chunk in events(Form(job, "words"), arriving(), False)]

    *chunks, end = asyncio.run(read())
    found = [
        [json.loads(line.removeprefix("data: "))["choices"] for line in chunk.split("\n\n") if line]
        for chunk in chunks
    ]
    choice = lambda index, text, finish: [  # noqa: E731
        {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
    ]
    assert found == [[choice(1, "ac", "stop"), choice(0, "b", None)], [choice(0, "d", "length")]]
    assert end == "data: [DONE]\n\n"


def test_an_error_in_a_stream_is_an_event(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the model fails after the first tokens, the stream ends with an event that says so."""
    engine = served.models.get("words")
    backend, n_calls = engine.ready(), 0

    def failing(*args: Any) -> Any:
        """Compute three tokens, then fail."""
        nonlocal n_calls
        n_calls += 1
        if n_calls > 3:
            raise RuntimeError("out of memory")
        return backend(*args)

    monkeypatch.setattr(engine, "backend", failing)
    fields = {"prompt": "the", "max_tokens": 50, "seed": 6}
    response = served.post({**fields, "stream": True})
    assert "[DONE]" not in response.text
    last = json.loads(response.text.split("\n\n")[-2].removeprefix("data: "))
    assert last == {"error": {"message": "the model failed", "type": "server_error", "code": None}}
    n_calls = 0
    answer = served.post(fields)
    assert (answer.status_code, answer.json()) == (500, last)
    monkeypatch.undo()
    assert served.post(fields).status_code == 200


# ---- wrong requests ----


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": []}, "prompt is an empty list; give a string, or at least one token id"),
        ({"prompt": [[]]}, "prompt is no string, no list of strings, no token ids"),
        (
            {"prompt": 5},
            "prompt is no string, no list of strings, no token ids",
        ),
        ({"prompt": ["a", 5]}, "prompt is no string, no list of strings, no token ids"),
        ({"prompt": [True]}, "prompt is no string, no list of strings, no token ids"),
        ({"prompt": [5, 300]}, "prompt has something else than token ids from 0 to {last}"),
        ({"prompt": [[5], [-1]]}, "prompt has something else than token ids from 0 to {last}"),
        ({"prompt": ["a"] * 129}, "129 prompts with n = 1 are 129 texts; ask for at most 128"),
        (
            {"prompt": ["a"] * 65, "n": 2},
            "65 prompts with n = 2 are 130 texts; ask for at most 128",
        ),
        ({"n": 0}, "n is 0; give a whole number from 1 to 128"),
        ({"n": 1.5}, "n is not a whole number"),
        ({"best_of": 2}, "best_of is not n"),
        ({"max_tokens": -1}, "max_tokens is -1; give a whole number from 0 to 262144"),
        ({"max_tokens": 262144, "n": 2}, "2 texts of up to 262144 tokens are more than"),
        ({"temperature": -1}, "temperature is -1.0; give 0"),
        ({"temperature": "hot"}, "temperature is not a number"),
        ({"top_p": 0}, "top_p is 0.0; give above 0"),
        ({"top_k": 301}, "top_k is 301; give at most {n_vocab}"),
        ({"top_k": 0}, "top_k is 0; give 1 or more"),
        ({"min_p": 2}, "min_p is 2.0; give 0 to 1"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 to 18446744073709551615"),
        ({"logprobs": 21}, "logprobs is 21; give a whole number from 0 to 20"),
        ({"logprobs": True}, "logprobs is not a whole number"),
        ({"echo": "yes"}, "echo is not true or false"),
        ({"stream": 1}, "stream is not true or false"),
        ({"stream_options": []}, "stream_options is not an object"),
        ({"stop": ""}, "a stop string has no character, or more than 256"),
        ({"stop": ["a"] * 17}, "stop has 17 strings; give at most 16"),
        ({"stop": [None]}, "a stop string has no character"),
        ({"stop": 5}, "stop is not a string"),
        ({"logit_bias": {"5": 1}}, "logit_bias is not offered here; leave it out"),
        ({"presence_penalty": 0.5}, "presence_penalty is not offered here; leave it out"),
        ({"frequency_penalty": [0]}, "frequency_penalty is not offered here; leave it out"),
        ({"suffix": "end"}, "suffix is not offered here; leave it out"),
        ({"model": 5}, "model is not a string"),
        ({"step": 2}, "words has no checkpoint of step 2"),
    ],
)
def test_an_impossible_value_gets_one_sentence(
    served: Served, fields: dict[str, Any], message: str
) -> None:
    """A value that makes no sense gets 400, and a sentence in the form of OpenAI's errors."""
    n_vocab = served.models.get("words").n_vocab
    message = message.replace("{n_vocab}", str(n_vocab)).replace("{last}", str(n_vocab - 1))
    for streams in (False, True):
        answer = served.post({"stream": streams, "max_tokens": 1, **fields})
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["message"].startswith(message)
        assert (error["type"], error["code"]) == ("invalid_request_error", None)


def test_fields_that_ask_for_nothing_are_ignored(served: Served) -> None:
    """Unknown fields change nothing, nor do unsupported ones whose value asks for nothing."""
    plain = served.complete(prompt="the", seed=1)
    more = served.complete(
        prompt="the", seed=1, user="me", foo={"bar": 1}, suffix=None, logit_bias={}, best_of=1,
        presence_penalty=0, frequency_penalty=0.0, stop=None, stop_words=5, max_tokens=None,
        step=1, n=None, temperature=None, logprobs=None, stream_options=None, top_k=None,
    )  # fmt: skip
    assert more["choices"] == plain["choices"]


# ---- load ----


@pytest.mark.parametrize("streams", [True, False])
def test_a_closed_connection_frees_the_model(served: Served, streams: bool) -> None:
    """When the client has gone, its texts leave the batch."""
    fields = {"prompt": "the", "max_tokens": 2**16, "n": 3, "stream": streams, "temperature": 3}
    worker = served.worker
    with (
        contextlib.suppress(httpx.ReadTimeout),
        served.client.stream("POST", "/v1/completions", json=fields, timeout=1) as response,
    ):
        next(response.iter_bytes())
    wait_until(lambda: not worker.batches and not worker.jobs)


def test_a_full_queue_answers_503(served: Served) -> None:
    """If too many requests wait, the next gets 503 and the time after which to try again."""
    begun, release = threading.Event(), threading.Event()

    def pause() -> None:
        """Wait until the test is ready."""
        begun.set()
        release.wait()

    async def block() -> None:
        """Keep the models' thread busy."""
        await served.worker.run(pause)

    blocker = threading.Thread(target=lambda: asyncio.run(block()))
    blocker.start()
    begun.wait()
    texts: list[str] = []
    ask = lambda: texts.append(served.complete(prompt="the", seed=1)["choices"][0]["text"])  # noqa: E731
    waiting = [threading.Thread(target=ask) for _ in range(MAX_WAITING)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: len(served.worker.jobs) == MAX_WAITING)
    for streams in (True, False):
        refused = served.post({"prompt": "the", "stream": streams})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["type"] == "server_error"
    release.set()
    for thread in [*waiting, blocker]:
        thread.join()
    assert texts == [served.complete(prompt="the", seed=1)["choices"][0]["text"]] * MAX_WAITING


# ---- OpenAI's own client ----


def test_the_client_of_openai_works(served: Served) -> None:
    """OpenAI's client lists models, completes, streams, and raises its own errors."""
    openai = package("openai")
    url = str(served.client.base_url.join("/v1"))
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["words", "bytes"]
    assert client.models.retrieve("bytes").id == "bytes"
    about: dict[str, Any] = {"model": "words", "prompt": "the owl", "seed": 3, "max_tokens": 20}
    engine = served.models.get("words")
    expected = shown(engine, written(engine, engine.encode("the owl"), 1, 3, length=20)[0])
    answer = client.completions.create(**about, logprobs=2, extra_body={"min_p": 0.0})
    assert answer.choices[0].text == expected
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.token_logprobs and answer.usage
    assert len(logprobs.token_logprobs) == answer.usage.completion_tokens
    pieces = [e.choices[0].text for e in client.completions.create(**about, stream=True)]
    assert "".join(pieces) == expected
    with pytest.raises(openai.NotFoundError, match="no model 'x'"):
        client.completions.create(model="x", prompt="a")
    with pytest.raises(openai.BadRequestError, match="temperature is -1"):
        client.completions.create(model="words", prompt="a", temperature=-1)
