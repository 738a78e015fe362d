"""The texts that one model writes at once: new ones join between two tokens, ended ones leave.

This is *continuous batching* (Yu et al. 2022, "Orca"). A step reads one token of each text in one
pass, so that each weight is loaded once for all of them. Each text gets the tokens that it gets
alone: a text that joins is read by itself, and so is a text that `context_length` has cut; then
its row of the cache joins those of the others. The settings, the seed and the sample number belong
to the row (test_any_mixture_of_requests_gives_each_the_tokens_that_it_gets_alone).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minigen.errors import UserError
from minigen.inference.engine import Engine, PieceDecoder
from minigen.model import KVCache
from minigen.sampling import (
    ROWS,
    CachedPredictor,
    Sampling,
    check_finite,
    context_length,
    draw,
    uniform,
)
from minigen.serve.job import Job, Part, Prompt, Written
from minigen.serve.scores import PromptScorer, score

CACHE_BYTES = 2**30  # for the keys and values of a batch; a single text may need more
READ_TOKENS = 512  # of new texts in one step, at least one text; until then the other texts wait


@dataclass(eq=False)
class Text:
    """A choice of a job that grows in a batch.

    ids: the prompt and the new tokens.
    capacity: the tokens that its row of the cache may have to hold.
    n_read: the tokens in its row of the cache.
    """

    number: int
    job: Job
    choice: int
    sample: int
    ids: list[int]
    decoder: PieceDecoder
    capacity: int
    n_shown: int  # characters of the prompt in the text of the choice
    n_read: int = 0
    n_new: int = 0


@dataclass(eq=False)
class Entry:
    """A prompt of a job that waits, or of which samples still wait for room in the batch."""

    job: Job
    index: int  # of the prompt among those of the job
    scorer: PromptScorer | None
    samples: list[int] = field(default_factory=list)  # that have not joined the batch

    @property
    def prompt(self) -> Prompt:
        """The prompt."""
        return self.job.prompts[self.index]


class Batch:
    """The jobs of one model."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.backend = engine, engine.ready()
        self.block_size = engine.block_size or engine.model.config.block_size
        self.jobs: list[Job] = []
        self.waiting = deque[Entry]()
        self.cut = deque[Text]()  # texts of the batch that must be read again
        self.running: list[Text] = []  # texts with a row in the cache
        self.numbers = itertools.count()
        self.predictor = self._predictor(0)
        kv = engine.new_cache(1, 1).kv
        self.bytes_per_token = kv.numel() * kv.element_size()

    def _predictor(self, capacity: int) -> CachedPredictor[KVCache]:
        """Return a predictor without texts."""
        return CachedPredictor(self.backend, lambda rows: self.engine.new_cache(rows, capacity))

    def add(self, job: Job) -> None:
        """Let a job wait for room in the batch."""
        self.jobs.append(job)
        for index, prompt in enumerate(job.prompts):
            scorer = None
            if job.echo and job.n_logprobs is not None:
                scorer = PromptScorer(self.engine, prompt.ids, job.n_logprobs)
            self.waiting.append(Entry(job, index, scorer, [*range(job.n)]))

    def step(self) -> None:
        """Read new texts, write one token of each text, and deliver the pieces."""
        for job in self.jobs:
            if job.cancelled:
                job.end()
                self._drop_ended()
        logits = []
        if self.running:
            logits.append(self.predictor.predict({t.number: t.ids for t in self.running}))
        else:
            self.predictor = self._predictor(0)
        for texts in self._to_read():
            reader = self._predictor(texts[0].capacity)
            try:
                logits.append(reader.predict({text.number: text.ids for text in texts}))
            except Exception as error:
                texts[0].job.end(error)
                continue
            self.predictor.take(reader)
            self.running += texts
        if self.running:
            together = torch.cat(logits) if len(logits) > 1 else logits[0]
            self._write(together[:, : self.engine.n_vocab])
        for job in self.jobs:
            job.flush()
            if job.ended:
                self._drop_ended()

    def fail(self, error: Exception) -> None:
        """End all jobs with an error, and forget them."""
        for job in self.jobs:
            job.end(error)
        self._drop_ended()

    def _drop_ended(self) -> None:
        """Forget the jobs that have ended, and their texts."""
        self.jobs = [job for job in self.jobs if not job.ended]
        self.waiting = deque(entry for entry in self.waiting if not entry.job.ended)
        self.cut = deque(text for text in self.cut if not text.job.ended)
        self.running = [text for text in self.running if not text.job.ended]

    def _to_read(self) -> Iterator[list[Text]]:
        """Yield the texts to read in this step: those that were cut, then new ones that fit."""
        n_tokens = 0
        while n_tokens < READ_TOKENS:
            if self.cut:
                texts = [self.cut.popleft()]
            elif not self.waiting:
                return
            else:
                entry = self.waiting[0]
                entry.job.started = True
                if entry.scorer and entry.scorer.next and not entry.job.ended:
                    try:
                        n_tokens += entry.scorer.advance()
                    except Exception as error:
                        entry.job.end(error)
                    continue
                texts = self._join(entry)
                if entry.samples and not entry.job.ended:
                    if not texts:
                        return
                else:
                    self.waiting.popleft()
            if texts:
                n_tokens += context_length(len(texts[0].ids), self.block_size)
                yield texts

    def _join(self, entry: Entry) -> list[Text]:
        """Return the samples of a prompt that fit into the batch now."""
        job, prompt = entry.job, entry.prompt
        if job.ended:
            return []
        if job.max_new_tokens == 0:
            self._echo(entry, entry.samples)
            for sample in entry.samples:
                job.put(Part(entry.index * job.n + sample, "", (), "length"))
            entry.samples = []
            return []
        capacity = min(self.block_size, len(prompt.ids) + job.max_new_tokens)
        present = [*self.running, *self.cut]
        longest = max([capacity, *(text.capacity for text in present)])
        most = max(1, min(ROWS, CACHE_BYTES // (self.bytes_per_token * longest)))
        n_room = max(0, most - len(present))
        samples, entry.samples = entry.samples[:n_room], entry.samples[n_room:]
        self._echo(entry, samples)
        tokenizer = self.engine.tokenizer
        return [
            Text(
                next(self.numbers),
                job,
                entry.index * job.n + sample,
                sample,
                [*prompt.ids],
                PieceDecoder(tokenizer, tokenizer.stop_ids, job.stop_strings),
                capacity,
                len(prompt.text) if job.echo else 0,
            )
            for sample in samples
        ]

    def _echo(self, entry: Entry, samples: Sequence[int]) -> None:
        """Put the prompt at the beginning of the choices of some samples, if the job echoes."""
        job, prompt = entry.job, entry.prompt
        if not (job.echo and samples):
            return
        tokens: list[Written] = []
        if entry.scorer:
            offset, decoder = 0, self.engine.tokenizer.stream()
            for i, id in enumerate(prompt.ids):
                found = entry.scorer.scores[i - 1] if i else None
                if i < prompt.n_added:
                    tokens.append(Written(id, 0, found))
                else:
                    tokens.append(Written(id, offset + decoder.breaks(id), found))
                    offset += len(decoder.push(id))
        for sample in samples:
            job.put(Part(entry.index * job.n + sample, prompt.text, tokens, None))

    def _write(self, logits: Tensor) -> None:
        """Draw a token for each running text from logits (B, n_vocab), and put its piece."""
        texts, logits = self._finite(logits)
        rows_of: dict[Sampling, list[int]] = {}
        for row, text in enumerate(texts):
            rows_of.setdefault(text.job.sampling, []).append(row)
        self.running = []
        for sampling, rows in rows_of.items():
            some = logits if len(rows) == len(texts) else logits[rows]
            alike = [texts[row] for row in rows]
            numbers = [uniform(t.job.seed, t.sample, t.n_new) for t in alike]
            ids = draw(some, [text.ids for text in alike], sampling, numbers)
            for row, (text, id) in enumerate(zip(alike, ids, strict=True)):
                if not self._push(text, id, some, row):
                    grows = context_length(len(text.ids), self.block_size) == text.n_read + 1
                    (self.running if grows else self.cut).append(text)

    def _finite(self, logits: Tensor) -> tuple[list[Text], Tensor]:
        """Return the running texts with finite logits, and these logits; end the jobs of others."""
        try:
            check_finite(logits)
        except UserError as error:
            finite = logits.sum(dim=-1).isfinite().tolist()
            for text, is_finite in zip(self.running, finite, strict=True):
                if not is_finite:
                    text.job.end(error)
            rows = [row for row, is_finite in enumerate(finite) if is_finite]
            return [self.running[row] for row in rows], logits[rows]
        return self.running, logits

    def _push(self, text: Text, id: int, logits: Tensor, row: int) -> bool:
        """Append a token to a text, put its piece, and return whether the text ends.

        Args:
            logits: (B, n_vocab), of which `row` predicted the token.
        """
        job, n = text.job, len(text.ids)
        text.n_read = context_length(n, self.block_size)
        written = None
        if job.n_logprobs is not None:
            [found] = score(logits[row : row + 1], [id], job.n_logprobs)
            written = Written(id, text.n_shown + text.decoder.offset(id), found)
        piece = text.decoder.push(id)
        text.ids.append(id)
        text.n_new += 1
        job.n_written += 1
        job.outgrown |= n > text.n_read
        finish = "stop" if text.decoder.ended else None
        if finish is None and text.n_new == job.max_new_tokens:
            piece, finish = piece + text.decoder.cut(), "length"
        job.put(Part(text.choice, piece, [written] if written else (), finish))
        return finish is not None
