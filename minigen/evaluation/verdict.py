"""The verdict on a model: one line for each fault that its losses and its samples show.

S is a share of the samples, and R the same share of real texts. L is the loss on held-out text, T
the loss on training text, and U the loss of a model that only knows how frequent each token is.

    verdict             condition
    collapsed           S >= R + 0.10, for texts that end in a loop or are duplicates
    memorising          S >= R + 0.15, for texts that share a long run with the training text
                        S >= R + 0.15, for short texts that are documents of the training text;
                            and L >= 1.1 T, if T is known
                        L >= 1.5 T; or L >= 1.2 T, if L > 0.9 U
    ignores its prompt  S < 0.25 R, for the share that follows its own prompt minus the share that
                            follows another text's prompt
    undertrained        S < 0.5 R, for well-formed texts
                        L > 0.9 U
    healthy             none of these

A model that memorises is never called undertrained, because more training would make it worse. If
a model has collapsed or memorises, malformed samples are not reported as a fault of their own. If
fewer than half as many samples as real texts are well-formed, prompts are not judged. A loss on
fewer than 100 tokens and a share of fewer than 10 samples depend on chance, so they give no
verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigen.evaluation.answers import AnswerMetrics
from minigen.evaluation.samples import GenreMetrics, SampleMetrics
from minigen.evaluation.text import TextMetrics

# The thresholds: S - R, then L / T, then S / R, then L / U, in the letters above.
COLLAPSED_EXCESS = 0.1
MEMORISING_EXCESS = 0.15
MEMORISING_LOSS_RATIO = 1.5
MEMORISING_LOSS_RATIO_IF_UNDERTRAINED = 1.2
MEMORISING_LOSS_RATIO_OF_DOCUMENTS = 1.1  # where whole short documents are copied
MIN_PROMPT_EFFECT = 0.25
MIN_WELL_FORMED = 0.5
MAX_UNIGRAM_RATIO = 0.9
MIN_TOKENS = 100
MIN_SAMPLES = 10


@dataclass(frozen=True)
class Comparison:
    """Samples of a model beside real text that was cut the same way."""

    samples: SampleMetrics
    real: SampleMetrics
    n_samples: int
    whole_documents: bool  # each text is a short document without a prompt
    copy_length: int | None  # shared bytes in a row that make a copy; None: no training text


@dataclass(frozen=True)
class Judgement:
    """All metrics of a model. Losses are in nats/token."""

    model: str  # its folder
    step: int | None  # of the checkpoint; None: the model is no run of train.py
    flags: Mapping[str, Any]  # of `evaluate`
    text: TextMetrics  # on the held-out text
    bits_per_byte: float  # the loss on the held-out text in bits/byte
    text_entropy: float | None  # of the held-out text, in bits/byte; None: not known
    train_loss: float | None  # None: unknown, or the held-out text is of another corpus
    unigram_loss: float | None  # of a model that only knows token frequencies; None: unknown
    comparison: Comparison | None  # None: without samples
    answers: Mapping[str, AnswerMetrics]  # to the questions of pairs; {}: the text has none

    @property
    def has_enough_text(self) -> bool:
        """True if the held-out text has enough tokens to judge the loss."""
        return self.text.n_tokens >= MIN_TOKENS


def verdict(judged: Judgement) -> list[str]:
    """Return a line for each fault of a model, or one line that says that none was found."""
    compared = judged.comparison
    if compared is not None and compared.n_samples < MIN_SAMPLES:
        compared = None
    collapsed = find_collapse(compared) if compared else []
    memorising = (find_copies(compared, judged) if compared else []) + find_loss_gap(judged)
    faults = collapsed + memorising
    if compared and not faults:
        faults += find_malformed(compared)
    if compared:
        faults += find_ignored_prompts(compared)
    if not memorising:
        faults += find_high_loss(judged)
    if faults:
        return faults
    if (n_tokens := judged.text.n_tokens) < MIN_TOKENS:
        return [f"no verdict: {n_tokens} tokens are too few; --file FILE judges on more text"]
    if judged.answers:
        shares = [f"{one.share:.1%} of {name}" for name, one in judged.answers.items()]
        return [f"no fault in the losses; right answers: {', '.join(shares)}"]
    if judged.comparison is None:
        return ["no fault in the losses; there are no samples, because of --count 0"]
    if compared is None:
        n_samples = judged.comparison.n_samples
        return [f"no fault in the losses; {n_samples} samples are too few to judge"]
    return ["healthy"]


# ---- by the losses ----


def memorises(new_loss: float, train_loss: float, ratio: float = MEMORISING_LOSS_RATIO) -> bool:
    """Return True if the loss on new text is at least `ratio` times the loss on training text."""
    return new_loss >= ratio * train_loss


def find_loss_gap(judged: Judgement) -> list[str]:
    """Find a loss on new text that is far above the loss on training text."""
    is_high = find_high_loss(judged)
    ratio = MEMORISING_LOSS_RATIO_IF_UNDERTRAINED if is_high else MEMORISING_LOSS_RATIO
    loss, train_loss = judged.text.loss, judged.train_loss
    if train_loss is None or not judged.has_enough_text or not memorises(loss, train_loss, ratio):
        return []
    return [
        f"memorising: the loss is {train_loss:.3f} on the training text and {loss:.3f} on new text"
    ]


def find_high_loss(judged: Judgement) -> list[str]:
    """Find a loss that is hardly below the loss of a model that only knows token frequencies."""
    loss, unigram_loss = judged.text.loss, judged.unigram_loss
    if unigram_loss is None or not judged.has_enough_text:
        return []
    if loss <= MAX_UNIGRAM_RATIO * unigram_loss:
        return []
    return [
        f"undertrained: the loss is {loss:.3f}; a model that only knows how frequent each token is "
        f"has {unigram_loss:.3f}"
    ]


# ---- by the samples ----


def find_collapse(compared: Comparison) -> list[str]:
    """Find samples that repeat themselves or each other more than real texts do."""
    stuck, of_real = compared.samples.repetition.stuck, compared.real.repetition.stuck
    if stuck < of_real + COLLAPSED_EXCESS:
        return []
    return [
        f"collapsed: {stuck:.0%} of samples end in a loop or are duplicates; "
        f"real text: {of_real:.0%}"
    ]


def find_copies(compared: Comparison, judged: Judgement) -> list[str]:
    """Find samples that copy the training text more than real texts share with it."""
    samples, real = compared.samples.copies, compared.real.copies
    if samples is None or real is None:
        return []
    faults = []
    # A model of names writes many of the training list, because these are probable names. That is a
    # fault only if the model finds them more probable than new names.
    loss, train_loss = judged.text.loss, judged.train_loss
    prefers = train_loss is None or (
        judged.has_enough_text and memorises(loss, train_loss, MEMORISING_LOSS_RATIO_OF_DOCUMENTS)
    )
    copied, of_real = samples.copied_whole, real.copied_whole
    if compared.whole_documents and copied >= of_real + MEMORISING_EXCESS and prefers:
        faults.append(
            f"memorising: {copied:.0%} of samples are documents of the training text; "
            f"real text: {of_real:.0%}"
        )
    copied, of_real = samples.copied_run or 0.0, real.copied_run or 0.0
    if copied >= of_real + MEMORISING_EXCESS:
        faults.append(
            f"memorising: {copied:.0%} of samples share {compared.copy_length} or more "
            f"bytes with the training text; real text: {of_real:.0%}"
        )
    return faults


def find_malformed(compared: Comparison) -> list[str]:
    """Find samples of which too few are well-formed."""
    samples, real = compared.samples.genre, compared.real.genre
    if samples is None or real is None or are_well_formed(samples, real):
        return []
    return [
        f"undertrained: {samples.well_formed:.0%} of samples are well-formed; "
        f"real text: {real.well_formed:.0%}"
    ]


def find_ignored_prompts(compared: Comparison) -> list[str]:
    """Find well-formed samples that follow their own prompt hardly more often than another one."""
    samples, real = compared.samples.genre, compared.real.genre
    if samples is None or real is None or samples.follows_other_prompt is None:
        return []
    real_by_chance = real.follows_other_prompt or 0.0
    effect = samples.follows_prompt - samples.follows_other_prompt
    real_effect = real.follows_prompt - real_by_chance
    if effect >= MIN_PROMPT_EFFECT * real_effect or not are_well_formed(samples, real):
        return []
    return [
        f"ignores its prompt: {samples.follows_prompt:.0%} of samples follow their prompt, "
        f"{samples.follows_other_prompt:.0%} the prompt of another text; "
        f"real text: {real.follows_prompt:.0%} and {real_by_chance:.0%}"
    ]


def are_well_formed(samples: GenreMetrics, real: GenreMetrics) -> bool:
    """Return True if at least half as many samples as real texts are well-formed."""
    return samples.well_formed >= MIN_WELL_FORMED * real.well_formed
