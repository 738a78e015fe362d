"""The metrics of generated texts; each is also taken of real text, beside which it means something.

A metric is a share from 0 to 1 unless its comment gives a unit. None: there is nothing to count.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from minigen.corpora import task
from minigen.evaluation.continuations import Continuation
from minigen.evaluation.repetition import (
    MIN_LOOP_LENGTH,
    TrainingText,
    distinct,
    duplicates,
    ends_in_loop,
    self_repetition,
)
from minigen.model import GPT

FIRST_COPY_LENGTH = 60  # bytes; doubled until real text seldom shares a run of this length
MAX_REAL_COPIES = 0.05  # the share of real texts that may have a run of the length in common


@dataclass(frozen=True)
class TaskMetrics:
    """The verdicts of a corpus's own checker on texts that begin with a line of conditions."""

    well_formed: float
    follows_prompt: float  # its own first line
    valid: float
    follows_other_prompt: float | None  # the first line of another text


@dataclass(frozen=True)
class RepetitionMetrics:
    """The texts that repeat themselves or each other."""

    identical: float | None  # to another one of the texts
    loops: float | None  # at its end
    stuck: float  # either of these
    self_repetition: float | None  # of 4-grams
    distinct_1: float | None  # of words
    distinct_2: float | None
    distinct_3: float | None


@dataclass(frozen=True)
class CopyMetrics:
    """The texts that repeat the training text."""

    copied_run: float | None  # a run of `Comparison.copy_length` bytes or more
    copied_whole: float
    longest_run: int  # bytes


@dataclass(frozen=True)
class SampleMetrics:
    """All metrics of one set of texts."""

    task: TaskMetrics | None  # None: no checker knows texts of this kind
    repetition: RepetitionMetrics
    copies: CopyMetrics | None  # None: the training text is not known
    entropy: float | None  # nats; of the model's predictions of the texts
    different: float | None = None  # of the continuations of one prompt; None: not generated

    def by_name(self) -> dict[str, float | None]:
        """Return the metrics that apply to the texts by their names in evaluation.json."""
        return {
            **(asdict(self.task) if self.task else {}),
            **asdict(self.repetition),
            **(asdict(self.copies) if self.copies else {}),
            "entropy": self.entropy,
            **({} if self.different is None else {"different": self.different}),
        }


def sample_metrics(
    texts: Sequence[Continuation],
    entropy: float | None,
    training: TrainingText | None,
    copy_length: int,
) -> SampleMetrics:
    """Measure texts by themselves, against each other and, if it is known, the training text.

    Args:
        entropy: of the model's predictions of the texts; see `mean_entropy`.
        copy_length: bytes in a row in common with the training text that make a copy.
    """
    return SampleMetrics(
        task_metrics(texts) if all(one.first_lines for one in texts) else None,
        repetition_metrics([one.text for one in texts]),
        copy_metrics(texts, training, copy_length) if training else None,
        entropy,
    )


def task_metrics(texts: Sequence[Continuation]) -> TaskMetrics:
    """Check each text under its own first line, and under the first line of another text.

    The second is how often a model would obey that does not read its prompt.
    """
    verdicts, by_chance = [], []
    for i, one in enumerate(texts):
        check = _task(one).check
        verdicts.append(check(one.first_lines + one.text))
        for other in itertools.chain(texts[i + 1 :], texts[:i]):
            if other.first_lines != one.first_lines and _task(other) is _task(one):
                by_chance.append(check(other.first_lines + one.text).follows_prompt)
                break
    return TaskMetrics(
        well_formed=fraction(verdict.well_formed for verdict in verdicts),
        follows_prompt=fraction(verdict.follows_prompt for verdict in verdicts),
        valid=fraction(verdict.valid for verdict in verdicts),
        follows_other_prompt=fraction(by_chance) if by_chance else None,
    )


def _task(continuation: Continuation) -> task.Task:
    found = task.detect(continuation.first_lines)
    assert found is not None
    return found


def repetition_metrics(texts: Sequence[str]) -> RepetitionMetrics:
    """Measure how far texts repeat themselves and each other."""
    looping, identical = [ends_in_loop(text) for text in texts], duplicates(texts)
    long_enough = max(map(len, texts), default=0) >= MIN_LOOP_LENGTH
    return RepetitionMetrics(
        identical=fraction(identical) if len(texts) > 1 else None,
        loops=fraction(looping) if long_enough else None,
        stuck=fraction(a or b for a, b in zip(looping, identical, strict=True)),
        self_repetition=self_repetition(texts),
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        distinct_3=distinct(texts, 3),
    )


def copy_metrics(
    texts: Sequence[Continuation], training: TrainingText, copy_length: int
) -> CopyMetrics:
    """Measure how much of the texts is in the training text.

    A short document is copied as a whole if it is a document there, and another text if it is
    anywhere in it and has `copy_length` bytes.
    """
    contents = [one.text.encode() for one in texts]
    copied = training.shares_run(copy_length, contents)
    whole = (
        training.has_document(content)
        if one.is_document
        else has_run and content in training.content
        for one, content, has_run in zip(texts, contents, copied, strict=True)
    )
    long_enough = max(map(len, contents), default=0) >= copy_length
    return CopyMetrics(
        copied_run=fraction(copied) if long_enough else None,
        copied_whole=fraction(whole),
        longest_run=training.longest_run(contents),
    )


def copy_length(training: TrainingText, real: Sequence[Continuation]) -> int:
    """Return the first of 60, 120, 240, ... bytes that few real texts share with training.

    Few are at most 5 %.
    """
    length, contents = FIRST_COPY_LENGTH, [one.text.encode() for one in real]
    while fraction(training.shares_run(length, contents)) > MAX_REAL_COPIES:
        length *= 2
    return length


@torch.no_grad()
def mean_entropy(model: GPT, texts: Sequence[Continuation], n_vocab: int) -> float | None:
    """Return the mean entropy, in nats, of the model's predictions of the texts' tokens.

    None where the prompts fill the context, as any does that holds one token.
    """
    found: list[float] = []
    for one in texts:
        ids = [*one.prompt, *one.ids][: model.config.block_size]
        if len(ids) < 2:
            continue
        logits = model(torch.tensor([ids[:-1]]).to(model.embedding.weight.device))  # (1, T, V)
        found += entropy(logits[0, len(one.prompt) - 1 :, :n_vocab]).tolist()
    return sum(found) / len(found) if found else None


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy, in nats, of each prediction (..., V), of shape (...).

    >>> entropy(torch.zeros(4)).exp().item()
    4.0
    """
    entropies: Tensor = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)
    return entropies


def fraction(flags: Iterable[bool]) -> float:
    """Return the share of flags that are true; 0 without flags.

    >>> fraction([True, False, False, False])
    0.25
    """
    every = list(flags)
    return sum(every) / max(1, len(every))
