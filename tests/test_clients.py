"""Programs that speak OpenAI's completions API get from the server what the library gives.

The programs are the real ones: the packages of the extra `[clients]`. Where one is not installed,
its tests are skipped with a reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from absent import absent, package
from forks import Server
from serving import Served, serve
from small_forms import ROOT

import minigen
from minigen.inference.engine import Engine, Piece
from minigen.sampling import PLAIN, Sampling
from minigen.tokenizer import END_OF_TEXT

PROMPT = "hero: Sir Fox, friend:"
SAMPLING = Sampling(temperature=0.9, top_p=0.95, min_p=0.0)
BLOCK_SIZE = 64  # of the model of tales
SETTINGS: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "seed": 7, "max_tokens": 24}


@pytest.fixture(scope="module")
def served(runs: Path, server: Server) -> Iterator[Served]:
    """Serve two models."""
    with serve(server, runs, "tales", "letters") as served:
        yield served


@pytest.fixture(scope="module")
def engine(runs: Path) -> Engine:
    """Return the first of the served models."""
    return minigen.load(runs / "tales")


def pieces(engine: Engine, prompt: str = PROMPT, sample: int = 0, seed: int = 7) -> list[Piece]:
    """Return the pieces of the text that the library writes with SETTINGS."""
    return list(engine.stream(prompt, SAMPLING, max_new_tokens=24, seed=seed, sample=sample))


def written(engine: Engine, prompt: str = PROMPT, sample: int = 0, seed: int = 7) -> str:
    """Return the text that the library writes with SETTINGS."""
    return "".join(pieces(engine, prompt, sample, seed))


def ids_written(engine: Engine, prompt: str = PROMPT, sample: int = 0) -> list[int]:
    """Return the tokens that the library draws with SETTINGS, without those of the prompt."""
    return [piece.token.id for piece in pieces(engine, prompt, sample) if piece.token]


def logprobs(engine: Engine, ids: Sequence[int]) -> torch.Tensor:
    """Return the log-probability of each token after each of the tokens `ids`, (T, n_vocab)."""
    with torch.no_grad():
        logits = engine.model(torch.tensor([ids]))[0, :, : engine.n_vocab]
    return logits.double().log_softmax(dim=-1)


def of_tokens(engine: Engine, ids: Sequence[int]) -> list[float]:
    """Return the log-probability of each token from the second on."""
    return logprobs(engine, ids[:-1])[range(len(ids) - 1), list(ids[1:])].tolist()


# ---- the package openai ----


@pytest.fixture
def client(served: Served) -> Any:
    """Return a client of the package openai."""
    return package("openai").OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0)


def test_openai_lists_the_models(client: Any) -> None:
    """The client finds the served models, in order, and each by its name."""
    assert [model.id for model in client.models.list()] == ["tales", "letters"]
    assert client.models.retrieve("letters").id == "letters"


def test_openai_gets_the_texts_of_the_library(client: Any, engine: Engine) -> None:
    """Each choice of each prompt is the sample of that number which the library writes."""
    prompts = [PROMPT, "hero: little Owl"]
    answer = client.completions.create(model="tales", prompt=prompts, n=3, **SETTINGS)
    places = [(prompt, sample) for prompt in prompts for sample in range(3)]
    expected = [written(engine, *place) for place in places]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert len(set(expected)) == 6
    assert answer.usage.prompt_tokens == sum(len(engine.encode(prompt)) for prompt in prompts)
    lengths = [len(ids_written(engine, *place)) for place in places]
    assert answer.usage.completion_tokens == sum(lengths)
    ends = ["length" if length == 24 else "stop" for length in lengths]
    assert [choice.finish_reason for choice in answer.choices] == ends


def test_openai_passes_the_settings_of_minigen(client: Any, engine: Engine) -> None:
    """The settings that OpenAI does not have are given in extra_body."""
    sampling = Sampling(temperature=1.2, top_k=9, min_p=0.02, repetition_penalty=1.3)
    own = {"top_k": 9, "min_p": 0.02, "repetition_penalty": 1.3}
    settings = {**SETTINGS, "temperature": 1.2, "top_p": 1.0}
    answer = client.completions.create(model="tales", prompt=PROMPT, **settings, extra_body=own)
    expected = "".join(engine.stream(PROMPT, sampling, max_new_tokens=24, seed=7))
    assert answer.choices[0].text == expected


def test_openai_streams_the_text(client: Any, engine: Engine) -> None:
    """The pieces of a stream join to the text; the last chunk has the number of tokens."""
    stream = client.completions.create(
        model="tales", prompt=PROMPT, stream=True, stream_options={"include_usage": True},
        **SETTINGS,
    )  # fmt: skip
    *chunks, last = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == written(engine)
    assert len(chunks) > 1
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])
    assert (last.choices, last.usage.completion_tokens) == ([], 24)


def test_openai_streams_several_texts_at_once(served: Served, engine: Engine) -> None:
    """Four clients that stream at once each get their own text."""
    openai = package("openai")

    async def one(sample: int) -> str:
        async with openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none") as client:
            settings = {**SETTINGS, "seed": sample}
            stream = await client.completions.create(
                model="tales", prompt=PROMPT, stream=True, **settings
            )
            return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*map(one, range(4)))

    expected = [written(engine, seed=seed) for seed in range(4)]
    assert asyncio.run(all_at_once()) == expected


def test_openai_ends_at_a_stop_string(client: Any, engine: Engine) -> None:
    """A text ends before a stop string, streamed or not."""
    text = written(engine)
    stop = text[9:12]
    expected = text[: text.index(stop)]
    for settings in ({}, {"stream": True}):
        answer = client.completions.create(
            model="tales", prompt=PROMPT, stop=[stop, "never"], **settings, **SETTINGS
        )
        chunks = answer if settings else [answer]
        choices = [chunk.choices[0] for chunk in chunks]
        assert "".join(choice.text for choice in choices) == expected
        assert choices[-1].finish_reason == "stop"


def test_openai_reads_log_probabilities(client: Any, engine: Engine) -> None:
    """The log-probabilities of drawn tokens are the model's own, and the best ones are listed."""
    answer = client.completions.create(model="tales", prompt=PROMPT, logprobs=4, **SETTINGS)
    [choice] = answer.choices
    found = choice.logprobs
    ids, prompt = ids_written(engine), engine.encode(PROMPT)
    expected = of_tokens(engine, [*prompt, *ids])[len(prompt) - 1 :]
    assert found.token_logprobs == pytest.approx(expected, abs=1e-4)
    assert "".join(found.tokens) == choice.text
    assert [choice.text[at:][: len(token)] for at, token in
            zip(found.text_offset, found.tokens, strict=True)] == found.tokens  # fmt: skip
    best = logprobs(engine, [*prompt, *ids])[len(prompt) - 1 : -1].topk(4).values.tolist()
    for n, top in enumerate(found.top_logprobs):
        assert sorted(top.values(), reverse=True)[:4] == pytest.approx(best[n], abs=1e-4)
        assert top[found.tokens[n]] == found.token_logprobs[n]


def test_openai_sees_the_token_that_ends_a_text(client: Any, engine: Engine) -> None:
    """A text that the model ends has an entry for the end-of-text token, and no letters of it.

    lm-eval cuts the last entry from a list, which must be that of a new token.
    """
    answer = client.completions.create(model="tales", prompt=PROMPT, n=20, logprobs=0, **SETTINGS)
    ended = [choice for choice in answer.choices if choice.finish_reason == "stop"]
    assert 0 < len(ended) < 20
    for choice in ended:
        *tokens, last = choice.logprobs.tokens
        assert (last, "".join(tokens)) == (END_OF_TEXT, choice.text)
        assert len(choice.logprobs.token_logprobs) == len(ids_written(engine, sample=choice.index))


def test_openai_scores_a_prompt(client: Any, engine: Engine) -> None:
    """With `echo` and no new token, the answer has the log-probability of each token given."""
    ids = engine.encode("hero: Sir Fox, friend: little Owl, place: faraway harbour")
    answer = client.completions.create(
        model="tales", prompt=[ids, ids[:5]], echo=True, logprobs=1, max_tokens=0
    )
    for choice, given in zip(answer.choices, (ids, ids[:5]), strict=True):
        first, *others = choice.logprobs.token_logprobs
        assert first is None
        assert others == pytest.approx(of_tokens(engine, given), abs=1e-4)


def test_openai_raises_its_typed_errors(client: Any) -> None:
    """Impossible values are a `BadRequestError` and an unknown model a `NotFoundError`."""
    openai = package("openai")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n is 0"),
        ({"logprobs": 99}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [10**6]}, "prompt"),
        ({"prompt": {"text": "x"}}, "prompt"),
        ({"seed": "x"}, "seed"),
    ]
    for fields, named in wrong:
        with pytest.raises(openai.BadRequestError) as raised:
            client.completions.create(**{"model": "tales", "prompt": "a", **fields})
        assert raised.value.body["type"] == "invalid_request_error"
        message = raised.value.body["message"]
        assert named in message and "\n" not in message, message
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-5", prompt="a")
    assert missing.value.code == "model_not_found"
    assert "tales, letters" in missing.value.body["message"]
    with pytest.raises(openai.BadRequestError, match="has no chat template"):
        client.chat.completions.create(model="tales", messages=[{"role": "user", "content": "a"}])


# ---- llm ----


@pytest.fixture
def llm_home(served: Served, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user of `llm` who has registered the model."""
    package("llm")
    model = {"model_id": "my-tales", "model_name": "tales", "completion": True}
    models = [{**model, "api_base": f"{served.address}/v1"}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
    return {**os.environ, "LLM_USER_PATH": str(tmp_path)}


@pytest.mark.parametrize("flags", [[], ["--no-stream"], ["-o", "logprobs", "2"]])
def test_llm_prints_the_text_of_the_library(
    flags: list[str], llm_home: dict[str, str], engine: Engine
) -> None:
    """The command `llm` prints the text that the library writes, streamed or not."""
    options = [word for name, value in SETTINGS.items() for word in ("-o", name, str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "my-tales", PROMPT, *options, *flags],
        env=llm_home, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, written(engine) + "\n"), done.stderr


def test_llm_shows_an_error_in_one_line(llm_home: dict[str, str]) -> None:
    """The command `llm` ends with the sentence of the server."""
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "my-tales", PROMPT, "-o", "max_tokens", "999999999"],
        env=llm_home, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 1
    assert "max_tokens is 999999999" in done.stderr and "Traceback" not in done.stderr


# ---- langchain ----


@pytest.fixture
def chain(served: Served) -> Any:
    """Return the class of langchain for completions, with the settings of all tests here."""
    return package("langchain_openai").OpenAI(
        model="tales", base_url=f"{served.address}/v1", api_key="none", max_retries=0, **SETTINGS
    )


def test_langchain_invokes_streams_and_batches(chain: Any, engine: Engine) -> None:
    """`invoke`, `stream` and `batch` give the texts that the library writes."""
    prompts = [PROMPT, "hero: little Owl", "mood:"]
    expected = [written(engine, prompt) for prompt in prompts]
    assert chain.invoke(PROMPT) == expected[0]
    pieces = list(chain.stream(PROMPT))
    assert "".join(pieces) == expected[0] and len(pieces) > 1
    assert chain.batch(prompts) == expected
    assert asyncio.run(chain.ainvoke(PROMPT)) == expected[0]


def test_langchain_reads_log_probabilities_and_usage(chain: Any, engine: Engine) -> None:
    """A result of `generate` has the log-probabilities, the reason of the end, and the tokens."""
    result = chain.generate([PROMPT], logprobs=2)
    [[generation]] = result.generations
    found = generation.generation_info["logprobs"]["token_logprobs"]
    ids, prompt = ids_written(engine), engine.encode(PROMPT)
    assert found == pytest.approx(of_tokens(engine, [*prompt, *ids])[len(prompt) - 1 :], abs=1e-4)
    assert generation.generation_info["finish_reason"] == "length"
    assert result.llm_output["token_usage"]["completion_tokens"] == 24


# ---- httpx: the bytes on the wire ----


def test_server_sent_events_are_lines_of_json(served: Served, engine: Engine) -> None:
    """Each event is one line of JSON after `data: `, a blank line follows, and the end is [DONE].

    All events have the same id.
    """
    body = {"model": "tales", "prompt": PROMPT, "stream": True, **SETTINGS}
    address = f"{served.address}/v1/completions"
    with httpx.stream("POST", address, json=body, timeout=60) as answer:
        assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
        data = b"".join(answer.iter_bytes()).decode()
    *events, end, rest = data.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == written(engine)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


# ---- lm-eval: a program that trusts the log-probabilities of a server ----

TASKS = {
    "choice": """
task: choice
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/choice.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
target_delimiter: ""
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "rolling": """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/rolling.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}, {metric: byte_perplexity}]
""",
}


@pytest.fixture(scope="module")
def documents(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the documents of the two tasks, from tales that the model was not trained on."""
    tales = (runs.parent / "data/tales/val.txt").read_text(encoding="utf-8").split("\n\n")
    choices = []
    for n, tale in enumerate(tales[:8]):
        at = 30 * (n + 1)  # the later ones are longer than the context
        lines = [each[at : at + 40] for each in tales[n : n + 3]]
        choices.append({"text": tale[:at], "choices": lines, "answer": 0})
    choices.append({"text": "", "choices": ["hero: Sir", "Sir hero:", " "], "answer": 0})
    texts = [{"text": tale} for tale in [*tales[:3], "One", "나는 밥을 먹는다. 🙂"]]
    return {"choice": choices, "rolling": texts}


@pytest.fixture(scope="module")
def evaluated(
    documents: dict[str, Any], served: Served, runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """Run the command `lm-eval` on both tasks, offline; return each task's answers."""
    package("lm_eval")
    folder = tmp_path_factory.mktemp("lm-eval")
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(task.replace("FOLDER", str(folder)))
        lines = [json.dumps(document) for document in documents[name]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    offline = {name: "1" for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
    model = {
        "model": "tales", "base_url": f"{served.address}/v1/completions", "num_concurrent": 3,
        "tokenizer_backend": "huggingface", "tokenizer": runs / "tales" / "best",
        "max_length": BLOCK_SIZE + 1,
    }  # fmt: skip
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"),
            *("--model_args", *(f"{name}={value}" for name, value in model.items())),
            *("--tasks", *TASKS, "--include_path", folder),
            *("--output_path", folder / "results", "--log_samples", "--batch_size", "2"),
        ],
        env={**os.environ, **offline, "HF_HOME": str(folder)}, cwd=folder,
        capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for name in TASKS:
        [path] = (folder / "results").rglob(f"samples_{name}_*.jsonl")
        found[name] = sorted(
            map(json.loads, path.read_text().splitlines()), key=itemgetter("doc_id")
        )
    return found


def test_lm_eval_scores_choices_as_the_library_does(
    evaluated: dict[str, Any], documents: dict[str, Any], engine: Engine
) -> None:
    """The log-likelihood of each choice after its text is the sum in process, to 1e-4.

    So is the answer to the question whether the choice is the greedy one.
    """
    tokenizer = engine.tokenizer
    n_cut = 0
    for document, answer in zip(documents["choice"], evaluated["choice"], strict=True):
        for choice, [[found, is_greedy]] in zip(document["choices"], answer["resps"], strict=True):
            # lm-eval gives spaces at the end of the text to the choice, and cuts the tokens of
            # both where those of the text end.
            context = tokenizer.encode(document["text"].rstrip())
            new = tokenizer.encode(document["text"] + choice)[len(context) :]
            whole = [*(context or [tokenizer.end_of_text]), *new]
            n_cut += len(whole) > BLOCK_SIZE
            n_new, ids = len(new), whole[-BLOCK_SIZE:]
            scores = logprobs(engine, ids[:-1])[-n_new:]
            expected = sum(scores[range(n_new), ids[-n_new:]].tolist())
            assert float(found) == pytest.approx(expected, abs=1e-4)
            assert is_greedy == str(scores.argmax(dim=-1).tolist() == ids[-n_new:])
    assert 0 < n_cut < 27  # some texts are longer than the context, and some are not


def test_lm_eval_scores_whole_texts_as_the_library_does(
    evaluated: dict[str, Any], documents: dict[str, Any], engine: Engine
) -> None:
    """The log-likelihood of a text, read in windows, is the sum in process, to 1e-4."""
    size = BLOCK_SIZE - 1
    n_long = 0
    for document, answer in zip(documents["rolling"], evaluated["rolling"], strict=True):
        ids = [engine.tokenizer.end_of_text, *engine.tokenizer.encode(document["text"])]
        expected = 0.0
        for start in range(1, len(ids), size):  # each window is as long as it can be
            end = min(start + size, len(ids))
            window = ids[max(0, end - size - 1) : end]
            expected += sum(of_tokens(engine, window)[start - end :])
            n_long += start > 1
        [[found]] = answer["resps"]
        found = found[0] if isinstance(found, list) else found
        assert float(found) == pytest.approx(expected, abs=1e-4)
        n_bytes = len(document["text"].encode())
        assert answer["bits_per_byte"][0] / answer["bits_per_byte"][1] == pytest.approx(
            expected / n_bytes, rel=1e-6
        )
    assert n_long > 0


# ---- docs/api.md ----

PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python) not-run: it needs the server above;.*?\n(.*?)^```$",
                    PAGE, re.M | re.S)  # fmt: skip
TABLE = PAGE.partition("## `POST /v1/completions`")[2].partition("## `POST /v1/chat")[0]
LIMITS = re.findall(r"^\| `(\w+)` \| [^|]* \| (?:[^|,]*: )?([\d.]+) to (\d+)\b", TABLE, re.M)


def test_the_limits_of_the_page_are_those_of_the_server(served: Served) -> None:
    """For each field with a range in docs/api.md, both ends are accepted, and more is refused."""
    names = {"max_tokens", "n", "seed", "min_p", "repetition_penalty", "logprobs"}
    assert {name for name, _, _ in LIMITS} == names

    def status(**fields: Any) -> int:
        fields = {"prompt": PROMPT, "max_tokens": 1, "stop": ["a", "e", "i", " "], **fields}
        return httpx.post(f"{served.address}/v1/completions", json=fields, timeout=60).status_code

    for name, least, most in LIMITS:
        low, high = float(least), int(most)
        ends = [low if low % 1 else int(low), high]
        assert [status(**{name: end}) for end in ends] == [200, 200], name
        assert [status(**{name: end}) for end in (low / 2 - (low % 1 == 0), high + 1)] == [400, 400]


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "sh"])
def test_the_commands_of_the_page_work(
    code: str, served: Served, engine: Engine, llm_home: dict[str, str]
) -> None:
    """Each block of commands in docs/api.md prints the text that the library writes."""
    if shutil.which("curl") is None:
        absent("the program curl is not installed")
    code = code.replace("http://127.0.0.1:8000", served.address)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-e", "-c", code], env={**llm_home, "PATH": path},
        capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = "".join(engine.stream(PROMPT, PLAIN, max_new_tokens=20, seed=1))
    text = json.loads(done.stdout)["choices"][0]["text"] if "curl" in code else done.stdout[:-1]
    assert text == expected


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python"])
def test_the_python_of_the_page_works(
    code: str, served: Served, engine: Engine, tmp_path: Path
) -> None:
    """Each block of Python in docs/api.md prints the text that the library writes."""
    for name in re.findall(r"^(?:import|from) (\w+)", code, re.M):
        package(name)
    script = tmp_path / "page.py"
    script.write_text(code.replace("http://127.0.0.1:8000", served.address), encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "".join(engine.stream(PROMPT, PLAIN, max_new_tokens=20, seed=1)) in done.stdout
