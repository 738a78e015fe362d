"""The verdict on a model: one line for each fault that its losses and its samples show.

S is a share of the samples, R the same share of real texts. L is the loss on held-out text, T that
on training text, and U the loss of a model that knows only how frequent each token is.

    verdict             condition
    collapsed           S >= R + 0.10 of texts that end in a loop or are the same as another one
    memorising          S >= R + 0.15 of texts that have a long run of the training text
                        S >= R + 0.15 of short texts that are whole documents of the training text,
                            and L >= 1.1 T if T is known
                        L >= 1.5 T, or L >= 1.2 T if L > 0.9 U
    ignores its prompt  S < 0.25 R, both being the share of texts that obey their own first line
                            less the share that obey another text's
    undertrained        S < 0.5 R of well-formed texts
                        L > 0.9 U
    healthy             none of these

A model that memorises is never called undertrained: more training would make it worse. Nor is a
model that has collapsed for its malformed samples; and malformed samples say nothing of prompts.
On fewer than 100 tokens a loss is chance, as is a share of fewer than 10 samples: then neither is
judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigen.evaluation.samples import SampleMetrics, TaskMetrics
from minigen.evaluation.text import TextMetrics

COLLAPSED_EXCESS = 0.1  # of the share of samples over real text's
MEMORISING_EXCESS = 0.15  # of the share of samples over real text's
MEMORISING_LOSS_RATIO = 1.5  # of the loss on new text to that on training text
MEMORISING_LOSS_RATIO_IF_UNDERTRAINED = 1.2
MEMORISING_LOSS_RATIO_OF_DOCUMENTS = 1.1  # where whole short documents are copied
MIN_PROMPT_EFFECT = 0.25  # of real text's
MIN_WELL_FORMED = 0.5  # of real text's share
MAX_UNIGRAM_RATIO = 0.9  # of the loss to that of a model that knows only token frequencies
MIN_TOKENS = 100
MIN_SAMPLES = 10


@dataclass(frozen=True)
class Comparison:
    """Samples of a model beside real text that was cut the same way."""

    samples: SampleMetrics
    real: SampleMetrics
    n_samples: int
    whole_documents: bool  # each text is a short document without a prompt
    copy_length: int | None  # bytes in common with training that make a copy; None: not known


@dataclass(frozen=True)
class Judgement:
    """All that is measured of a model. Losses are in nats/token."""

    model: str  # its folder
    step: int | None  # of the checkpoint; None: no run of train.py
    flags: Mapping[str, Any]  # of `evaluate`
    text: TextMetrics  # on the held-out text
    bits_per_byte: float  # its loss in another unit
    text_entropy: float | None  # bits/byte, a bound of the loss; None: not known
    train_loss: float | None  # None: unknown, or the held-out text is not of the same corpus
    unigram_loss: float | None  # of a model that knows only token frequencies; None: as above
    comparison: Comparison | None  # None: without samples

    @property
    def has_enough_text(self) -> bool:
        """Whether the loss on the held-out text is more than chance."""
        return self.text.n_tokens >= MIN_TOKENS


def verdict(judged: Judgement) -> list[str]:
    """Return a line for each fault of a model, or one line that says that none was found."""
    compared = judged.comparison
    if compared is not None and compared.n_samples < MIN_SAMPLES:
        compared = None
    collapsed = find_collapse(compared) if compared else []
    memorising = (find_copies(compared, judged) if compared else []) + find_loss_gap(judged)
    found = collapsed + memorising
    if compared and not found:
        found += find_malformed(compared)
    if compared:
        found += find_ignored_prompts(compared)
    if not memorising:
        found += find_little_learnt(judged)
    if found:
        return found
    if (n_tokens := judged.text.n_tokens) < MIN_TOKENS:
        return [f"no verdict: {n_tokens} tokens are too few; --file FILE judges on more text"]
    if judged.comparison is None:
        return ["no fault in its losses; --count 0 made no samples"]
    if compared is None:
        n_samples = judged.comparison.n_samples
        return [f"no fault in its losses; {n_samples} samples are too few to judge"]
    return ["healthy"]


# ---- by the losses ----


def memorises(new_loss: float, train_loss: float, ratio: float = MEMORISING_LOSS_RATIO) -> bool:
    """Whether the loss on new text is so far above that on training text as to mean memorising."""
    return new_loss >= ratio * train_loss


def find_loss_gap(judged: Judgement) -> list[str]:
    """Find a loss on new text that is far above the loss on training text."""
    little = find_little_learnt(judged)
    ratio = MEMORISING_LOSS_RATIO_IF_UNDERTRAINED if little else MEMORISING_LOSS_RATIO
    loss, train_loss = judged.text.loss, judged.train_loss
    if train_loss is None or not judged.has_enough_text or not memorises(loss, train_loss, ratio):
        return []
    return [
        f"memorising: the loss is {train_loss:.3f} on the training text and {loss:.3f} on new text"
    ]


def find_little_learnt(judged: Judgement) -> list[str]:
    """Find a loss that is hardly below that of a model that knows only token frequencies."""
    loss, unigram_loss = judged.text.loss, judged.unigram_loss
    if unigram_loss is None or not judged.has_enough_text:
        return []
    if loss <= MAX_UNIGRAM_RATIO * unigram_loss:
        return []
    return [
        f"undertrained: a loss of {loss:.3f}; knowing only how frequent each token is "
        f"gives {unigram_loss:.3f}"
    ]


# ---- by the samples ----


def find_collapse(compared: Comparison) -> list[str]:
    """Find samples that repeat themselves or each other more than real texts do."""
    stuck, usual = compared.samples.repetition.stuck, compared.real.repetition.stuck
    if stuck < usual + COLLAPSED_EXCESS:
        return []
    return [f"collapsed: {stuck:.0%} of samples loop or are the same; real text: {usual:.0%}"]


def find_copies(compared: Comparison, judged: Judgement) -> list[str]:
    """Find samples that copy the training text more than real texts share with it."""
    samples, real = compared.samples.copies, compared.real.copies
    if samples is None or real is None:
        return []
    found = []
    # Many short documents are probable, in the training text or not: that a model writes those
    # of the training text is a fault only if it finds them more probable than new ones.
    loss, train_loss = judged.text.loss, judged.train_loss
    prefers = train_loss is None or (
        judged.has_enough_text and memorises(loss, train_loss, MEMORISING_LOSS_RATIO_OF_DOCUMENTS)
    )
    copied, usual = samples.copied_whole, real.copied_whole
    if compared.whole_documents and copied >= usual + MEMORISING_EXCESS and prefers:
        found.append(
            f"memorising: {copied:.0%} of samples are documents of the training text; "
            f"real text: {usual:.0%}"
        )
    copied, usual = samples.copied_run or 0.0, real.copied_run or 0.0
    if copied >= usual + MEMORISING_EXCESS:
        found.append(
            f"memorising: {copied:.0%} of samples share {compared.copy_length} or more "
            f"bytes with the training text; real text: {usual:.0%}"
        )
    return found


def find_malformed(compared: Comparison) -> list[str]:
    """Find samples that seldom have the form of a document of their corpus."""
    samples, real = compared.samples.task, compared.real.task
    if samples is None or real is None or is_formed(samples, real):
        return []
    return [
        f"undertrained: {samples.well_formed:.0%} of samples are well-formed; "
        f"real text: {real.well_formed:.0%}"
    ]


def find_ignored_prompts(compared: Comparison) -> list[str]:
    """Find well-formed samples that obey their own prompt hardly more often than another one."""
    samples, real = compared.samples.task, compared.real.task
    if samples is None or real is None or samples.follows_other_prompt is None:
        return []
    real_by_chance = real.follows_other_prompt or 0.0
    effect, usual = (
        samples.follows_prompt - samples.follows_other_prompt,
        real.follows_prompt - real_by_chance,
    )
    if effect >= MIN_PROMPT_EFFECT * usual or not is_formed(samples, real):
        return []
    return [
        f"ignores its prompt: {samples.follows_prompt:.0%} obey it, "
        f"{samples.follows_other_prompt:.0%} another "
        f"one's; real text: {real.follows_prompt:.0%} and {real_by_chance:.0%}"
    ]


def is_formed(samples: TaskMetrics, real: TaskMetrics) -> bool:
    """Whether at least half as many samples as real texts are well-formed."""
    return samples.well_formed >= MIN_WELL_FORMED * real.well_formed
