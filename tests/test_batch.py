"""Tests of the thread of the models and of its batches: each text gets the tokens it gets alone."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import UserError
from minigen.inference.engine import Engine
from minigen.model import KVCache
from minigen.sampling import PLAIN, Sampling, context_length, naive_generate
from minigen.serve import batch as batch_module
from minigen.serve.batch import Batch
from minigen.serve.job import Job, Part, Prompt
from minigen.serve.scores import PromptScorer
from minigen.serve.worker import MAX_WAITING, Busy, Worker
from minigen.tokenizer import train_tokenizer
from tests.models import architectures, varied_model

N_VOCAB, BLOCK = 258, 16


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    """Return small random models, computed by PyTorch alone and by the decoder in C."""
    tokenizer = train_tokenizer("bpe", ["aa bb aa bb"], N_VOCAB)
    configs = architectures(tokenizer.n_vocab, BLOCK, 16)
    return {
        name: Engine(varied_model(configs[name]), tokenizer, device="cpu")
        for name in ("gpt2", "grouped queries")
    }


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Return a worker that ends with the test."""
    worker = Worker()
    yield worker
    worker.close()


class Answer:
    """The parts of a job that were delivered."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = threading.Event()
        self.error: Exception | None = None

    def __call__(self, parts: list[Part], is_last: bool, error: Exception | None) -> None:
        self.parts += parts
        self.error = self.error or error
        if is_last:
            self.ended.set()

    def ids(self, choice: int) -> list[int]:
        """Return the new ids of a choice."""
        return [t.id for part in self.parts if part.choice == choice for t in part.tokens]


def job_of(
    engine: Engine, ids: list[int], n_new: int, sampling: Sampling = PLAIN, **more: Any
) -> tuple[Job, Answer]:
    """Return a job with one prompt, and its answer."""
    answer = Answer()
    fields = {"n": 1, "seed": 0, "n_logprobs": 0, **more}
    prompts = [Prompt(ids, "")]
    return Job(engine, prompts, sampling=sampling, max_new_tokens=n_new, deliver=answer,
               **fields), answer  # fmt: skip


def alone(engine: Engine, job: Job, sample: int) -> list[int]:
    """Return the ids that `Engine.generate` writes for one choice of a job."""
    steps = engine.generate(
        [job.prompts[0].ids], job.sampling, max_new_tokens=job.max_new_tokens,
        seed=job.seed, samples=[sample],
    )  # fmt: skip
    return [token.id for [token] in steps if token]


requests = st.fixed_dictionaries(
    {
        "at": st.integers(0, 25),  # the step before which the request arrives
        "ids": st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=3 * BLOCK),
        "n_new": st.integers(1, 2 * BLOCK),
        "n": st.integers(1, 3),
        "seed": st.integers(0, 5),
        "sampling": st.builds(
            Sampling,
            temperature=st.sampled_from([0.0, 0.7, 1.0, 1.5]),
            top_k=st.sampled_from([None, 5]),
            top_p=st.sampled_from([1.0, 0.9]),
            min_p=st.sampled_from([0.0, 0.05]),
            repetition_penalty=st.sampled_from([1.0, 1.3]),
        ),
    }
)


@pytest.mark.parametrize("name", ["gpt2", "grouped queries"])
@given(drawn=st.lists(requests, min_size=1, max_size=6), rows=st.sampled_from([3, 64]))
@settings(max_examples=25, deadline=None)
def test_any_mixture_of_requests_gives_each_the_tokens_that_it_gets_alone(
    engines: dict[str, Engine], name: str, drawn: list[dict[str, Any]], rows: int
) -> None:
    """Whatever other requests are there, each text has the tokens of `Engine.generate` alone."""
    engine = engines[name]
    jobs = []
    for about in drawn:
        about = {**about}
        jobs.append((about.pop("at"), *job_of(engine, **about)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "ROWS", rows)
        batch = Batch(engine)
        for step in itertools.count():
            for at, job, _ in jobs:
                if at == step:
                    batch.add(job)
            batch.step()
            assert len(batch.running) + len(batch.cut) <= rows
            if step > 25 and not batch.jobs:
                break
    for _, job, answer in jobs:
        assert answer.error is None
        for sample in range(job.n):
            assert answer.ids(sample) == alone(engine, job, sample)


def test_a_text_of_a_batch_has_the_tokens_of_the_definition(engines: dict[str, Engine]) -> None:
    """A text in a batch has the tokens of `naive_generate`, also after its context is cut."""
    engine = engines["gpt2"]
    jobs = [job_of(engine, [*range(70, 70 + n)], 40, seed=n) for n in (1, 9, 30)]
    batch = Batch(engine)
    for job, _ in jobs:
        batch.add(job)
    while batch.jobs:
        batch.step()
    for job, answer in jobs:
        ids = naive_generate(
            engine.model, job.prompts[0].ids, job.sampling, n_vocab=engine.n_vocab,
            block_size=BLOCK, max_new_tokens=40, seed=job.seed,
        )  # fmt: skip
        end = engine.tokenizer.end_of_text
        assert answer.ids(0) == (ids[: ids.index(end) + 1] if end in ids else ids)


def test_samples_of_a_prompt_read_it_once(engines: dict[str, Engine]) -> None:
    """A prompt with several samples is read once, and its row of the cache is copied."""
    engine = engines["gpt2"]
    batch, n_read = Batch(engine), list[int]()
    model = batch.backend

    def counting(ids: torch.Tensor, cache: KVCache, at: torch.Tensor) -> torch.Tensor:
        """Note the number of tokens that the model reads."""
        n_read.append(ids.numel())
        logits: torch.Tensor = model(ids, cache, at)
        return logits

    batch.backend = counting  # type: ignore[assignment]
    job, answer = job_of(engine, [70] * 12, 1, n=5)
    batch.add(job)
    batch.step()
    assert n_read == [12]
    assert [answer.ids(k) for k in range(5)] == [alone(engine, job, k) for k in range(5)]


def test_a_cancelled_job_leaves_before_the_next_token(engines: dict[str, Engine]) -> None:
    """A cancelled job gets no further token, and the other texts of the batch stay as they are."""
    engine = engines["gpt2"]
    batch = Batch(engine)
    gone, _ = job_of(engine, [70], 10_000, seed=1, n=3)
    stays, answer = job_of(engine, [71, 72], 30, seed=2)
    batch.add(gone)
    batch.add(stays)
    for _ in range(3):
        batch.step()
    n_written = gone.n_written
    assert n_written == 9 and len(batch.running) == 4
    gone.cancelled = True
    batch.step()
    assert gone.n_written == n_written
    assert [text.job for text in batch.running] == [stays]
    while batch.jobs:
        batch.step()
    assert answer.ids(0) == alone(engine, stays, 0)


def test_the_cache_of_a_batch_is_bounded(
    engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts wait if the cache would need more bytes than it may have; a single text never waits."""
    engine = engines["gpt2"]
    batch = Batch(engine)
    monkeypatch.setattr(batch_module, "CACHE_BYTES", 2 * BLOCK * batch.bytes_per_token)
    jobs = [job_of(engine, [70], 3 * BLOCK, seed=seed) for seed in range(5)]
    for job, _ in jobs:
        batch.add(job)
    while batch.jobs:
        batch.step()
        assert batch.predictor.cache.kv[:, :, :, :BLOCK].numel() * 4 <= batch_module.CACHE_BYTES
    monkeypatch.setattr(batch_module, "CACHE_BYTES", 1)
    jobs.append(job_of(engine, [70], 3 * BLOCK, seed=9))
    batch.add(jobs[-1][0])
    while batch.jobs:
        batch.step()
    assert [answer.ids(0) for _, answer in jobs] == [alone(engine, job, 0) for job, _ in jobs]


@pytest.mark.parametrize("n_new", [0, 4])
def test_a_prompt_that_waits_for_room_is_echoed_once(
    n_new: int, engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each choice has its prompt's tokens once, however many steps its request had to wait."""
    engine, ids = engines["gpt2"], [70, 71, 72]
    batch = Batch(engine)
    monkeypatch.setattr(batch_module, "CACHE_BYTES", 2 * BLOCK * batch.bytes_per_token)
    jobs = [
        job_of(engine, ids, new, n=n, n_logprobs=1, echo=True)
        for n, new in ((2, BLOCK), (3, n_new))
    ]
    for job, _ in jobs:
        batch.add(job)
    while batch.jobs:
        batch.step()
    for job, answer in jobs:
        for sample in range(job.n):
            written = alone(engine, job, sample) if job.max_new_tokens else []
            assert answer.ids(sample) == [*ids, *written]


def test_an_error_ends_the_job_that_it_is_about(engines: dict[str, Engine]) -> None:
    """If the model fails at one prompt, that job ends with the error, and no other job."""
    engine = engines["gpt2"]
    batch = Batch(engine)
    model = batch.backend

    def failing(ids: torch.Tensor, cache: KVCache, at: torch.Tensor) -> torch.Tensor:
        """Fail at token 99, and predict NaN after token 98."""
        if 99 in ids:
            raise RuntimeError("99")
        logits: torch.Tensor = model(ids, cache, at)
        return logits.masked_fill((ids[:, :1] == 98)[:, :, None], torch.nan)

    batch.backend = failing  # type: ignore[assignment]
    jobs = [job_of(engine, ids, 20) for ids in ([70, 71], [99, 70], [98, 70], [72, 73])]
    for job, _ in jobs:
        batch.add(job)
    while batch.jobs:
        batch.step()
    errors = [answer.error for _, answer in jobs]
    assert [type(error) for error in errors] == [type(None), RuntimeError, UserError, type(None)]
    assert "NaN" in str(errors[2])
    for job, answer in (jobs[0], jobs[3]):
        assert answer.ids(0)[:5] == alone(engine, job, 0)[:5]


# ---- the prompt's log-probabilities ----


@pytest.mark.parametrize("n", [1, 2, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_a_prompt_is_scored_as_if_it_had_been_written(engines: dict[str, Engine], n: int) -> None:
    """The score of each token is that of the prediction from which it would have been drawn."""
    engine = engines["gpt2"]
    ids = [(7 * i) % N_VOCAB for i in range(n)]
    scorer = PromptScorer(engine, ids, 3)
    while scorer.next:
        assert scorer.advance() <= BLOCK
    assert len(scorer.scores) == n - 1
    for i, found in enumerate(scorer.scores, 1):
        context = ids[i - context_length(i, BLOCK) : i]
        with torch.no_grad():
            logits = engine.model(torch.tensor([context]))[0, -1, : engine.n_vocab].double()
        logprobs = logits.log_softmax(dim=-1)
        best = logprobs.topk(3)
        assert found.logprob == pytest.approx(logprobs[ids[i]].item(), abs=1e-5)
        assert [id for id, _ in found.top] == best.indices.tolist()
        assert [logprob for _, logprob in found.top] == pytest.approx(
            best.values.tolist(), abs=1e-5
        )


def test_a_prompt_within_the_context_has_the_bits_of_one_pass(engines: dict[str, Engine]) -> None:
    """The scores of a prompt that fits into the context are those of a single call of the model."""
    engine = engines["gpt2"]
    ids = [*range(40, 40 + BLOCK)]
    scorer = PromptScorer(engine, ids, 0)
    scorer.advance()
    with torch.no_grad():
        logprobs = (
            engine.model(torch.tensor([ids]))[0, :, : engine.n_vocab].double().log_softmax(-1)
        )
    expected = [logprobs[i - 1, ids[i]].item() for i in range(1, BLOCK)]
    assert [found.logprob for found in scorer.scores] == expected and scorer.next is None


# ---- the worker ----


async def ids_of(worker: Worker, job: Job) -> list[int]:
    """Return the new ids of a job's only choice."""
    return [t.id async for parts in worker.submit(job) for part in parts for t in part.tokens]


def test_the_worker_answers_several_models_at_once(
    worker: Worker, engines: dict[str, Engine]
) -> None:
    """Jobs of two models, and functions beside them, each get what they get alone."""
    jobs = [
        job_of(engine, [70, seed], 60, seed=seed, streams=bool(seed % 2))[0]
        for seed in range(3)
        for engine in engines.values()
    ]

    async def ask() -> tuple[list[list[int]], list[str]]:
        """Return the answers of all jobs, and the thread of each function."""
        answers = asyncio.gather(*(ids_of(worker, job) for job in jobs))
        names = [await worker.run(lambda: threading.current_thread().name) for _ in range(20)]
        return await answers, names

    answers, names = asyncio.run(ask())
    assert answers == [alone(job.engine, job, 0) for job in jobs]
    assert names == ["models"] * 20


def test_a_function_passes_its_error_on(worker: Worker) -> None:
    """`Worker.run` raises the error of its function, and the thread continues."""

    async def ask() -> int:
        """Compute a function that fails, and one that does not."""
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        return await worker.run(lambda: 5)

    assert asyncio.run(ask()) == 5


def test_a_full_queue_refuses_and_keeps_its_promises(
    worker: Worker, engines: dict[str, Engine]
) -> None:
    """With MAX_WAITING requests in the queue, the next is refused, and those in it are answered."""
    engine = engines["gpt2"]
    jobs = [job_of(engine, [70], 5, seed=seed)[0] for seed in range(MAX_WAITING)]

    async def ask() -> list[list[int]]:
        """Fill the queue while the thread is busy with a function."""
        begun, release = threading.Event(), threading.Event()
        blocking = asyncio.create_task(worker.run(lambda: begun.set() or release.wait()))
        await asyncio.to_thread(begun.wait)
        answers = [asyncio.create_task(ids_of(worker, job)) for job in jobs]
        await asyncio.sleep(0)
        for attempt in (lambda: worker.submit(job_of(engine, [70], 5)[0]), refused_function):
            with pytest.raises(Busy):
                attempt()
        release.set()
        await blocking
        return await asyncio.gather(*answers)

    def refused_function() -> None:
        """Try to run a function."""
        worker.run(lambda: 0).send(None)

    assert asyncio.run(ask()) == [alone(engine, job, 0) for job in jobs]


def test_closing_ends_open_jobs(engines: dict[str, Engine]) -> None:
    """`close` ends the thread at once: an open job gets an error, and no new one starts."""
    worker = Worker()

    async def ask() -> int:
        """Close the worker after the first parts of a long text."""
        n_parts = 0
        job = job_of(engines["gpt2"], [70], 10**6, streams=True, n=2)[0]
        with pytest.raises(Busy):
            async for parts in worker.submit(job):
                n_parts += len(parts)
                worker.close()
        with pytest.raises(Busy):
            worker.submit(job)
        return n_parts

    assert asyncio.run(ask()) > 0
    assert not worker.thread.is_alive()
