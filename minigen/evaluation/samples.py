"""The metrics of generated texts. The same metrics of real texts give them a meaning.

A metric is the share of texts, from 0 to 1, unless its comment says something else. None: there is
nothing to count.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from minigen.corpora import genre
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

FIRST_COPY_LENGTH = 60  # bytes; doubled until few real texts share a run of this length
MAX_REAL_COPIES = 0.05  # share of real texts that may share a run of this length


@dataclass(frozen=True)
class GenreMetrics:
    """The verdicts of a corpus's own checker on texts whose first line states conditions."""

    well_formed: float  # have the form of a document of the corpus
    follows_prompt: float  # fulfil the conditions of their first line
    valid: float  # the corpus itself could have written them
    follows_other_prompt: float | None  # would fulfil the conditions of another text's first line


@dataclass(frozen=True)
class RepetitionMetrics:
    """How far texts repeat themselves or each other."""

    identical: float | None  # are the same as another one
    loops: float | None  # end in a loop
    stuck: float  # are the same as another one, or end in a loop
    self_repetition: float | None  # share of 4-grams that the text had before
    distinct_1: float | None  # share of distinct words among all words
    distinct_2: float | None  # of distinct pairs of words
    distinct_3: float | None  # of distinct triples of words


@dataclass(frozen=True)
class CopyMetrics:
    """How far texts repeat the training text."""

    copied_run: float | None  # share `Comparison.copy_length` bytes in a row with it, or more
    copied_whole: float  # are in it from beginning to end
    longest_run: int  # that any text shares with it, in bytes


@dataclass(frozen=True)
class SampleMetrics:
    """All metrics of one set of texts."""

    genre: GenreMetrics | None  # None: no checker knows texts of this kind
    repetition: RepetitionMetrics
    copies: CopyMetrics | None  # None: the training text is not known
    entropy: float | None  # mean entropy of the model's predictions of the texts, in nats
    different: float | None = None  # distinct ones among samples of one prompt; None: no samples

    def by_name(self) -> dict[str, float | None]:
        """Return the metrics that apply to these texts, by their names in evaluation.json."""
        return {
            **(asdict(self.genre) if self.genre else {}),
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
    """Return the metrics of texts.

    Args:
        entropy: as `mean_entropy` returns it.
        training: the training text; None: not known.
        copy_length: length in bytes of a run shared with the training text that makes a copy.
    """
    return SampleMetrics(
        genre_metrics(texts) if all(one.first_lines for one in texts) else None,
        repetition_metrics([one.text for one in texts]),
        copy_metrics(texts, training, copy_length) if training else None,
        entropy,
    )


def genre_metrics(texts: Sequence[Continuation]) -> GenreMetrics:
    """Check each text under its own first line, and under the first line of another text.

    A model that does not read its prompt has the second share in both: chance.
    """
    verdicts, by_chance = [], []
    for i, one in enumerate(texts):
        check = _genre(one).check
        verdicts.append(check(one.first_lines + one.text))
        for other in itertools.chain(texts[i + 1 :], texts[:i]):
            if other.first_lines != one.first_lines and _genre(other) is _genre(one):
                by_chance.append(check(other.first_lines + one.text).follows_prompt)
                break
    return GenreMetrics(
        well_formed=fraction(verdict.well_formed for verdict in verdicts),
        follows_prompt=fraction(verdict.follows_prompt for verdict in verdicts),
        valid=fraction(verdict.valid for verdict in verdicts),
        follows_other_prompt=fraction(by_chance) if by_chance else None,
    )


def _genre(continuation: Continuation) -> genre.Genre:
    detected = genre.detect(continuation.first_lines)
    assert detected is not None
    return detected


def repetition_metrics(texts: Sequence[str]) -> RepetitionMetrics:
    """Measure how far texts repeat themselves and each other."""
    loops, identical = [ends_in_loop(text) for text in texts], duplicates(texts)
    long_enough = max(map(len, texts), default=0) >= MIN_LOOP_LENGTH
    return RepetitionMetrics(
        identical=fraction(identical) if len(texts) > 1 else None,
        loops=fraction(loops) if long_enough else None,
        stuck=fraction(a or b for a, b in zip(loops, identical, strict=True)),
        self_repetition=self_repetition(texts),
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        distinct_3=distinct(texts, 3),
    )


def copy_metrics(
    texts: Sequence[Continuation], training: TrainingText, copy_length: int
) -> CopyMetrics:
    """Measure how much of the texts is in the training text.

    A short document is copied as a whole if it is a document of the training text. Another text is
    copied as a whole if it has at least `copy_length` bytes and is anywhere in the training text.
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
    """Return the first of 60, 120, 240, ... bytes such that few real texts share a run as long.

    Few means at most 5 %. Texts of one corpus share phrases, in some corpora long ones, without any
    copying. The result is longer than these phrases.
    """
    length, contents = FIRST_COPY_LENGTH, [one.text.encode() for one in real]
    while fraction(training.shares_run(length, contents)) > MAX_REAL_COPIES:
        length *= 2
    return length


@torch.no_grad()
def mean_entropy(model: GPT, texts: Sequence[Continuation], n_vocab: int) -> float | None:
    """Return the mean entropy, in nats, of the model's predictions of the texts' tokens.

    Returns None if the context has no room for a token after any prompt.
    """
    entropies: list[float] = []
    for one in texts:
        ids = [*one.prompt, *one.ids][: model.config.block_size]
        if len(ids) < 2:
            continue
        logits = model(torch.tensor([ids[:-1]]).to(model.embedding.weight.device))  # (1, T, V)
        entropies += entropy(logits[0, len(one.prompt) - 1 :, :n_vocab]).tolist()
    return sum(entropies) / len(entropies) if entropies else None


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy, in nats, of each prediction: logits (..., V) give entropies (...).

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
    values = list(flags)
    return sum(values) / max(1, len(values))
