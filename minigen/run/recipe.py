"""Choose the size, the dropout and the weight decay of a new model by the tokens that it will read.

A model learns from tokens. If it is too large for the tokens that it reads, its loss is still
falling when the time is over. If it is too small, its loss stops falling long before. A rule of
thumb is 20 tokens for a parameter (Hoffmann et al. 2022, arXiv:2203.15556), for large models that
read each text once. In a few minutes on a CPU a larger model pays far earlier: docs/notebook.md has
the measurements. A short text is read many times; a larger model would only know it by heart.

How many tokens a model reads depends on the machine, so `choose` times a few steps of each preset,
the smallest first. The choice is saved with the run, which resumes with it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minigen.model import GPT
from minigen.optim import Optimizer
from minigen.run import distributed
from minigen.run.config import SIZES, new_shape
from minigen.run.log import MIN_STEPS
from minigen.run.memory import count_micro_batches, keep_freed_memory
from minigen.run.speed import seconds_of_step
from minigen.run.text import Text
from minigen.system.device import is_out_of_memory

if TYPE_CHECKING:
    from train import TrainConfig

LADDER = ("tiny", "light", "mini")  # the presets that --size auto chooses from
TOKENS_PER_PARAMETER = 1.3  # that a model must read to be worth its size
PARAMETERS_PER_TOKEN = 8.0  # of the text, at most; the smallest preset may have more
DECAY_PER_EPOCH, LARGEST_DECAY = 0.1, 4.0  # weight decay for each time that a text is read
MANY_EPOCHS = 80  # from here on with dropout, too
TRAINING_SHARE = 0.85  # of the time; the rest goes into evaluations and checkpoints
LONGER = 4  # a line says how much lower the loss may be in a run that is longer by this factor
# The share by which the loss falls for each doubling of a run's time: after one epoch; less for
# each doubling of the epochs; and at most.
FALL, FADING, LARGEST_FALL = 0.045, 0.009, 0.065
# The number of steps that are timed for each preset, at least and at most, and their share of the
# run's time. The fastest counts: the first steps are slower than later ones, and so is any step
# while another program is busy.
N_TIMED, LARGEST_N_TIMED, TIMED_SHARE = 3, 30, 0.003


@dataclass(frozen=True)
class Plan:
    """A new model of a certain size, and the tokens that it would read in the run."""

    config: TrainConfig
    n_parameters: int
    n_tokens: float
    n_text: int  # tokens of the training text
    speed: float | None  # tokens per second; None: --max_steps says how long to train

    @property
    def epochs(self) -> float:
        """The number of times that the model would read the text."""
        return self.n_tokens / self.n_text

    @property
    def n_steps(self) -> float:
        """The number of steps that the run would take."""
        return self.n_tokens / (self.config.batch_size * self.config.block_size)

    @property
    def is_too_large(self) -> bool:
        """Whether the model has too many parameters for its text, however often it reads it."""
        return self.n_parameters > PARAMETERS_PER_TOKEN * self.n_text

    @property
    def is_worth_its_size(self) -> bool:
        """Whether the model would read enough tokens for its parameters, and not by heart."""
        is_read_enough = self.n_tokens >= TOKENS_PER_PARAMETER * self.n_parameters
        return is_read_enough and not self.is_too_large

    @property
    def minutes_needed(self) -> int:
        """The least --minutes in which the model would read enough tokens for its parameters."""
        assert self.speed is not None
        seconds = TOKENS_PER_PARAMETER * self.n_parameters / self.speed / TRAINING_SHARE
        return math.ceil(seconds / 60)


def choose(flags: TrainConfig, config: TrainConfig, text: Text, seconds: float) -> TrainConfig:
    """Return the configuration of a new run, with all values; note the reason in `text`.

    Args:
        flags: as the user gave them; a value that was given stays.
        config: with a value for all flags that do not depend on the text.
        text: of the run; its notes get a line about the choice.
        seconds: the time that is left for the run, unless --max_steps is given.
    """
    is_auto = config.size == "auto"
    sizes = LADDER if is_auto else (config.size,)
    chosen = _plan(flags, config, sizes[0], text, seconds, is_auto)
    larger = None
    for size in sizes[1:]:
        larger = _plan(flags, config, size, text, seconds, is_auto)
        if not larger.is_worth_its_size:
            break
        chosen, larger = larger, None
    dropout, weight_decay = regularisation(chosen.epochs, chosen.n_parameters / chosen.n_text)
    dropout = dropout if flags.dropout is None else flags.dropout
    weight_decay = weight_decay if flags.weight_decay is None else flags.weight_decay
    config = dataclasses.replace(chosen.config, dropout=dropout, weight_decay=weight_decay)
    if is_auto and chosen.speed is not None:
        if dropout:  # which makes steps slower
            chosen = _plan(flags, config, config.size, text, seconds, is_auto)
        more = ""
        if larger is not None and larger.speed and not larger.is_too_large:
            more = f"; from --minutes {larger.minutes_needed} on it would be {larger.config.size}"
        fall = fall_of_loss(chosen.epochs, LONGER)
        # The entropy, if it is known, says how far the loss can fall.
        if text.entropy is None and chosen.n_steps >= MIN_STEPS and round(fall, 2) > 0:
            minutes = f"{LONGER * config.minutes:g}"
            more += f"; with --minutes {minutes} the loss may be {fall:.0%} lower"
        text.notes.append(
            f"--size {config.size} --dropout {dropout:g} --weight_decay {weight_decay:g}, as "
            f"{chosen.speed:,.0f} tokens/s read the text {chosen.epochs:.1f} times in "
            f"{config.minutes:g} minutes{more}"
        )
    return config


def regularisation(epochs: float, parameters_per_token: float) -> tuple[float, float]:
    """Return the dropout and the weight decay of a model that reads its text `epochs` times.

    A text that is read many times is known by heart in the end, if the model has room for it.
    Weight decay hinders that: it takes back what the text does not ask for again and again, so the
    more often a text is read, the more of it is needed (Lovelace et al. 2026, arXiv:2605.01640,
    find 1.0 best where large models repeat their text; docs/notebook.md has small ones). Dropout
    removes random details, so that a memorised passage is of less use than a rule. It makes each
    step slower, and only a text that is read very often is better learnt with both.

    Args:
        parameters_per_token: the parameters of the model for each token of the text.
    """
    if parameters_per_token < 1:
        return 0.0, 0.1
    weight_decay = min(max(DECAY_PER_EPOCH * epochs, 0.1), LARGEST_DECAY)
    return (0.2 if epochs >= MANY_EPOCHS else 0.0), round(weight_decay, 2)


def fall_of_loss(epochs: float, times: float) -> float:
    """Estimate the share by which the loss on new text falls in a run that is `times` as long.

    On text by people the loss fell by 6 % for each doubling of the time before half of the text was
    read, by 2.8 % while the text was read three to six times, and by 1.2 % up to thirty times
    (docs/notebook.md): about 4.5 %, less 0.9 % for each doubling of the epochs. The loss falls
    faster in the first few hundred steps, of which this says nothing.

    Args:
        epochs: the number of times that the shorter run reads its text.
        times: the length of the longer run, in lengths of the shorter one.
    """
    doublings = math.log2(times)
    # The doublings of one epoch, in the middle between both runs; no logarithm of 0 epochs.
    middle = math.log2(max(epochs, 0.01)) + doublings / 2
    return doublings * min(max(FALL - FADING * middle, 0.0), LARGEST_FALL)


def _plan(
    flags: TrainConfig, config: TrainConfig, size: str, text: Text, seconds: float, is_auto: bool
) -> Plan:
    """Return the plan of a run with the preset `size`, in which flags that were given stay.

    If no setting depends on it, the speed is not measured, and `n_tokens` of the plan is 0.
    """
    preset = {name: value for name, value in SIZES[size].items() if getattr(flags, name) is None}
    preset["block_size"] = config.block_size  # a short text may have made it smaller
    config = dataclasses.replace(config, size=size, **preset)  # type: ignore[arg-type]
    model = GPT(new_shape(text.tokenizer.n_vocab, config))
    n_parameters, n_tokens = model.n_parameters(), config.batch_size * config.block_size
    n_text = text.train_tokens.n_tokens
    if config.max_steps is not None:
        return Plan(config, n_parameters, config.max_steps * n_tokens, n_text, None)
    is_settled = flags.dropout is not None and flags.weight_decay is not None
    if not is_auto and (is_settled or n_parameters < n_text):
        return Plan(config, n_parameters, 0.0, n_text, None)
    keep_freed_memory(n_parameters)
    n_micro_batches = count_micro_batches(config, text.tokenizer.n_vocab)
    model.to(config.device)
    optimizer = Optimizer(model.named_parameters(), config.optimizer == "muon")
    arguments = (model, text.train_tokens, config, n_micro_batches, optimizer)
    try:
        step_seconds = min(seconds_of_step(*arguments) for _ in range(N_TIMED))
        n_more = min(int(TIMED_SHARE * seconds / step_seconds), LARGEST_N_TIMED - N_TIMED)
        for _ in range(int(distributed.broadcast(n_more))):
            step_seconds = min(step_seconds, seconds_of_step(*arguments))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        step_seconds = math.inf  # a run with a given size cuts its batch further
    step_seconds = distributed.broadcast(step_seconds)
    speed = n_tokens / step_seconds
    return Plan(config, n_parameters, TRAINING_SHARE * seconds * speed, n_text, speed)
