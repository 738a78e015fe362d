"""A run in progress: its steps, its clock, its checkpoints, and the accidents in between.

`train` in train.py is the loop; the methods here stand in the order in which the loop calls them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from minigen.data import TokenStream
from minigen.files import checkpoint
from minigen.files.companions import Companions
from minigen.model import GPT
from minigen.optim import Optimizer
from minigen.run import distributed
from minigen.run.clock import Clock
from minigen.run.compile import eager
from minigen.run.log import Report, far_from_done
from minigen.run.memory import count_finer
from minigen.run.sample import sample_text
from minigen.run.schedule import Schedule
from minigen.run.signals import StopSignal
from minigen.run.text import Text
from minigen.system.device import is_out_of_memory
from minigen.system.shell import command, cwd
from minigen.system.threads import threads

if TYPE_CHECKING:
    from train import TrainConfig

MAX_SKIPPED = 20  # steps of a run without finite gradients, with --on_nan skip
SHOWING = 0.5  # seconds that an evaluation takes besides: a sample, a plot, a checkpoint

Result = TypeVar("Result")
Evaluate = Callable[[GPT, TokenStream, "TrainConfig", int, int], float]  # train.py's `evaluate`


class Stopped(Exception):
    """End a run before its last step.

    Args:
        code: the exit code of the command.
    """

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Run:
    """A run in progress."""

    # --- what a run is; none of this changes ---
    config: TrainConfig
    folder: Path
    text: Text
    model: GPT
    ddp_model: nn.Module  # the model as it is called to train it; with one process, just the model
    optimizer: Optimizer
    companions: Companions | None  # other files of the base model, which its checkpoints keep
    base: dict[str, Any] | None  # facts about the model that is fine-tuned, if one is
    report: Report
    clock: Clock
    signals: StopSignal
    # --- what a run finds out and counts ---
    step: int  # how many steps were taken
    schedule: Schedule
    n_micro_batches: int
    is_compiled: bool = False
    n_skipped: int = 0  # steps whose gradient was not finite
    thread_counts: list[list[int]] = field(default_factory=list)  # [from this step on, threads]
    stopped_by: int = 0  # a signal's number
    is_evaluation_due: bool = False
    exit_code: int = 0
    _began: float = 0.0  # the step or the evaluation in progress
    _evaluated: int = 0  # the step of the latest evaluation
    _saved: int = -1  # the step of the latest checkpoint

    @property
    def max_steps(self) -> int:
        """The number of steps; 0 while it is not known yet."""
        return self.schedule.max_steps

    def begin(self, evaluate: Evaluate) -> None:
        """Evaluate the model before its first step; log a base model's loss on its old text."""
        if self.step == 0:
            self.validate(evaluate)
        if self.base and "before" not in self.base:
            self.base["before"] = self._knowledge(evaluate, self.model)
        if self.clock.seconds is not None:
            self._timed_loss(evaluate)  # only to time it: the first one included start-up costs
            self.clock.pause = self.clock.evaluating + SHOWING
        self._evaluated = 0

    def steps(self) -> Iterator[int]:
        """Yield the number of each step: up to --max_steps, or all that fit into --minutes.

        A signal ends the run after the step that it arrives in, and saves it.
        """
        self.signals.waits = True
        while not self.max_steps or self.step < self.max_steps:
            self._began = time.perf_counter()
            self._follow_threads()
            yield self.step
            if self.stopped_by:
                if self._saved != self.step:
                    self.save()
                again = command("train", "--init_from", "resume", "--name", self.folder)
                self.report.say(f"stopped and saved at step {self.step}. To go on: {again}")
                raise Stopped(128 + self.stopped_by)
        self.signals.waits = False

    def _follow_threads(self) -> None:
        """Compute with one thread for each core that other programs leave free."""
        number = threads.follow()
        if not self.thread_counts or self.thread_counts[-1][1] != number:
            self.thread_counts.append([self.step, number])
            self.report.threads(self.step, number, threads)

    def within_memory(self, compute: Callable[..., Result], *args: Any) -> Result:
        """Return `compute(*args, n_micro_batches)`; if memory runs out, try with twice as many."""
        while True:
            try:
                return compute(*args, self.n_micro_batches)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self.model.zero_grad(set_to_none=True)
            self.n_micro_batches = count_finer(self.config, self.n_micro_batches)
            self.report.say(
                f"out of memory: going on with --gradient_accumulation_steps "
                f"{self.n_micro_batches}, the same batch"
            )

    def accepts(self, loss: Tensor, grad_norm: Tensor) -> bool:
        """Return True if the loss and the gradient are finite, so that a step may be taken.

        Otherwise skip the step, or end the run before its weights are spoilt, as --on_nan says.
        Both numbers are of the whole batch, so all ranks decide alike.
        """
        norm = distributed.full_tensor(grad_norm)
        if bool((loss.isfinite() & norm.isfinite()).item()):
            return True
        self.n_skipped += 1
        found = f"step {self.step} has loss {loss.item():g} and a gradient of {norm.item():g}"
        if self.config.on_nan == "stop" or self.n_skipped > MAX_SKIPPED:
            self.report.say(f"error: {found}; nothing of it was learnt; lower --learning_rate")
            raise Stopped(3)
        self.report.say(f"warning: {found}; skipped, as {self.n_skipped} of at most {MAX_SKIPPED}")
        self.model.zero_grad(set_to_none=True)
        return False

    def end_step(self, loss: Tensor, grad_norm: Tensor, learning_rate: float) -> None:
        """Count the step and log it; plan how many more there are, and whether to evaluate now."""
        config = self.config
        self.step += 1
        seconds = time.perf_counter() - self._began
        self.clock.stepped(seconds)
        values = loss.item(), distributed.full_tensor(grad_norm).item()
        if all(map(math.isfinite, values)):  # else the step was skipped
            speed = config.batch_size * config.block_size / seconds
            self.report.step(self.step, *values, learning_rate, speed)
        self._plan()
        # Once a step, as a signal may arrive at any time, and on one rank only.
        self.stopped_by = distributed.all_reduce_max(self.signals.number)

    def _plan(self) -> None:
        """Settle the number of steps, where the clock does, and whether to evaluate now."""
        given, by_clock = self.config.eval_interval, self.clock.seconds is not None
        # Ranks decide together, which takes a while.
        if by_clock and (distributed.size() == 1 or self.step % 10 == 0):
            last_step = self.clock.last_step(self.step, self.max_steps, given, self._n_parts)
            last_step = int(distributed.broadcast(last_step))
            if last_step != self.max_steps:
                self.schedule = self.schedule.ending_at(last_step, self.step)
                self.report.plan(last_step)
        interval = given or self.clock.interval(self.max_steps)
        if by_clock:  # clocks differ, and all ranks evaluate together
            interval = int(distributed.broadcast(interval))
        due = bool(interval) and self.step % interval == 0
        if due and not given:  # none right after another, or right before the last
            nearest = min(self.step - self._evaluated, self.max_steps - self.step)
            due = nearest >= interval / 2
        self.is_evaluation_due = due or self.step == self.max_steps

    @property
    def _n_parts(self) -> float:
        """How many times as long as one evaluation the whole validation text takes."""
        n_tokens = self.text.val_tokens.n_tokens
        return n_tokens / min(n_tokens, self.config.eval_tokens)

    def validate(self, evaluate: Evaluate) -> float:
        """Return the loss on validation text, in nats/token; log it with a sample."""
        self._evaluated, self._began = self.step, time.perf_counter()
        val_loss = self._timed_loss(evaluate)
        self.report.evaluation(self.step, val_loss, self._sample(self.model))
        return val_loss

    def _timed_loss(self, evaluate: Evaluate) -> float:
        """Return the loss on validation text, and note how long that takes."""
        began, limit = time.perf_counter(), self.config.eval_tokens
        val_loss = self._loss(evaluate, self.model, self.text.val_tokens, limit)
        self.clock.evaluating = time.perf_counter() - began
        return val_loss

    def _loss(self, evaluate: Evaluate, model: GPT, tokens: TokenStream, limit: int) -> float:
        with eager(self.is_compiled):
            return evaluate(model, tokens, self.config, self.n_micro_batches, limit)

    def _sample(self, model: GPT) -> str:
        with eager(self.is_compiled):
            return sample_text(model, self.text.tokenizer, self.config, self.text.opening)

    def save(self, **losses: float) -> None:
        """Save a checkpoint. If the disk is full before the last step, warn and train on."""
        text = self.text
        config = dataclasses.replace(
            self.config,
            max_steps=self.max_steps,
            gradient_accumulation_steps=self.n_micro_batches,
            compile="yes" if self.is_compiled else "no",
        )
        state = {
            "step": self.step,
            "config": dataclasses.asdict(config),
            "content": text.content,
            **losses,
            "schedule": dataclasses.asdict(self.schedule),
            "skipped": self.n_skipped,
            "opening": text.opening,
            "threads": torch.get_num_threads(),
            "thread_counts": self.thread_counts,
            # How the text is found again; its paths begin in `folder`.
            "most_chars": text.most_chars,
            "folder": cwd(),
            "links": text.links,
        }
        if self.base:
            state["base_model"] = self.base
        model, averages = distributed.gather_full(self.model, self.optimizer.state)
        try:
            if distributed.is_main_process():
                checkpoint.save(
                    self.folder, model, text.tokenizer, averages, state, self.companions
                )
                checkpoint.prune(self.folder)
        except checkpoint.NotSavedError as error:
            if self.stopped_by or self.step == self.max_steps:
                raise
            self.report.say(f"warning: {error}; training goes on")
        distributed.barrier()  # if a rank exits before rank 0 has saved, torchrun kills rank 0
        self._saved = self.step
        if losses:
            self.clock.pause = time.perf_counter() - self._began

    def _knowledge(self, evaluate: Evaluate, model: GPT) -> dict[str, Any]:
        """Return a sample, and the loss on a text that the base model knew: both change."""
        tokens = self.text.old_tokens or self.text.val_tokens
        old_loss = self._loss(evaluate, model, tokens, self.config.eval_tokens)
        return {"sample": self._sample(model), "old_loss": old_loss}

    def finish(self, evaluate: Evaluate) -> None:
        """Report the best model's loss on all validation text, and what to do with the model."""
        config, report, text = self.config, self.report, self.text
        best = checkpoint.load_best(self.folder)
        model = best.model()
        distributed.distribute(model, config.device, config.dtype, config.fsdp)
        n_parts = distributed.broadcast(self.clock.affordable(self._n_parts))
        limit, n_tokens = round(n_parts * config.eval_tokens), text.val_tokens.n_tokens
        val_loss = self._loss(evaluate, model, text.val_tokens, limit)
        report.final(best.step, val_loss, limit, n_tokens)
        if self.base:
            after = self._knowledge(evaluate, model)
            report.before_and_after(best.step, self.base["before"], after)
        if self.clock.seconds is not None:
            n_trained = self.step * config.batch_size * config.block_size
            found = far_from_done(
                self.clock.n_steps, n_trained / text.train_tokens.n_tokens,
                self.clock.seconds / 60, report.busy,
            )  # fmt: skip
            if found:
                why, minutes = found
                again = ("--init_from", "resume", "--name", self.folder, "--minutes", str(minutes))
                report.say(f"{why}. More time would help: {command('train', *again)}")
        now = command("sample", "--run", self.folder)
        report.say(f"done: {best.path}, {self.folder / 'loss.png'}. Now: {now}")
        report.close()

    def save_before_error(self) -> None:
        """Save what was learnt when the loop ends with an error, such as a text that is gone."""
        is_saved = (self.folder / f"step-{self.step:06d}").exists()
        if self.signals.waits and distributed.size() == 1 and not is_saved:
            self.save()
