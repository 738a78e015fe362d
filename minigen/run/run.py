"""A training run in progress: the methods that the loop in train.py calls, in that order.

The loop is about learning. These methods do the rest: they count steps, follow the clock, log,
evaluate, save checkpoints, and handle signals, full memory and non-finite losses.
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

from minigen.data import Pairs, TokenStream
from minigen.evaluation.compression import bzip2_bits_per_byte
from minigen.files import checkpoint
from minigen.files.companions import Companions
from minigen.model import GPT
from minigen.optim import Optimizer
from minigen.run import before_after, distributed
from minigen.run.clock import Clock
from minigen.run.compile import eager
from minigen.run.log import Report, far_from_done
from minigen.run.memory import count_finer
from minigen.run.sample import engine_in_training, sample_text
from minigen.run.schedule import Schedule
from minigen.run.signals import StopSignal
from minigen.run.text import Text
from minigen.system.device import is_out_of_memory
from minigen.system.shell import command, cwd
from minigen.system.threads import threads

if TYPE_CHECKING:
    from train import TrainConfig

MAX_SKIPPED = 20  # steps that --on_nan skip may leave out in one run
REPORTING = 0.5  # seconds that the sample, the plot and the checkpoint of an evaluation may take

Result = TypeVar("Result")
# train.py's `evaluate`
Evaluate = Callable[[GPT, "TokenStream | Pairs", "TrainConfig", int, int], float]


class Stopped(Exception):
    """An exception that ends a run before its last step.

    Args:
        code: the exit code of the command.
    """

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Run:
    """A training run in progress: its parts, which stay the same, and its state, which changes."""

    # --- the parts of the run ---
    config: TrainConfig
    folder: Path
    text: Text
    model: GPT
    ddp_model: nn.Module  # the module to call in training: the model, or DDP around it
    optimizer: Optimizer
    companions: Companions | None  # other files of the base model, copied to each checkpoint
    base: dict[str, Any] | None  # fine-tuning: the base model's path, hash and settings
    report: Report
    clock: Clock
    signals: StopSignal
    # --- the state of the run ---
    step: int  # the number of steps taken
    schedule: Schedule
    n_micro_batches: int  # micro-batches of a step
    is_compiled: bool = False
    n_skipped: int = 0  # steps whose gradient was not finite
    thread_counts: list[list[int]] = field(default_factory=list)  # [step, threads from it on]
    stopped_by: int = 0  # the number of the signal that stops the run; 0: none
    is_evaluation_due: bool = False
    exit_code: int = 0
    _began_at: float = 0.0  # when the step or evaluation in progress began, by `perf_counter`
    _evaluated_at: int = 0  # the step of the latest evaluation
    _saved_at: int = -1  # the step of the latest checkpoint

    @property
    def max_steps(self) -> int:
        """The step at which the run ends; 0 while it is not known yet."""
        return self.schedule.max_steps

    @property
    def is_saved(self) -> bool:
        """Whether the latest step of this run is in a checkpoint."""
        return self.step > 0 and self._saved_at == self.step

    def begin(self, evaluate: Evaluate) -> None:
        """Evaluate the model before its first step, as the value that training must improve.

        With --minutes, also time an evaluation, because the plan of the steps has to leave time for
        evaluations. In fine-tuning, also measure the base model on its old text and on questions,
        so that `finish` can compare.

        Args:
            evaluate: train.py's function of that name.
        """
        if self.step == 0:
            val_loss = self.validate(evaluate)
            if self.config.keep_checkpoints and not checkpoint.steps(self.folder):
                self.save(val_loss=val_loss)  # a model that knows nothing, to compare with
            if self.base:
                began = time.perf_counter()
                before = self._measure_effect(evaluate, self.model, val_loss, None)
                self.base["before"] = before | {"seconds": time.perf_counter() - began}
        if self.base:  # `finish` will take as long
            self.clock.closing += self.base["before"].get("seconds", 0.0)
        if self.clock.seconds is not None:
            self._timed_val_loss(evaluate)  # again, as the time of the first one includes start-up
            self.clock.pause = self.clock.evaluating + REPORTING
        self._evaluated_at = 0

    def steps(self) -> Iterator[int]:
        """Yield the number of each step, up to --max_steps or until --minutes are over.

        After Ctrl-C or another signal the loop gets no further step: a checkpoint is saved, so that
        the run can resume, and `Stopped` ends the run.
        """
        self.signals.defer = True
        while not self.max_steps or self.step < self.max_steps:
            self._began_at = time.perf_counter()
            self._adapt_threads()
            yield self.step
            if self.stopped_by:
                if self._saved_at != self.step:
                    self.save()
                resume = command("train", "--init_from", "resume", "--name", self.folder)
                self.report.print_line(
                    f"stopped and saved at step {self.step}. To resume: {resume}"
                )
                raise Stopped(128 + self.stopped_by)
        self.signals.defer = False

    def _adapt_threads(self) -> None:
        """Set the number of threads to the number of cores that other programs leave free."""
        number = threads.adapt()
        if not self.thread_counts or self.thread_counts[-1][1] != number:
            self.thread_counts.append([self.step, number])
            self.report.threads(self.step, number, threads)

    def within_memory(self, compute: Callable[..., Result], *args: Any) -> Result:
        """Return `compute(*args, n_micro_batches)`, which must cut a batch into micro-batches.

        If memory runs out, double the number of micro-batches and compute the same batch again:
        gradients add up over micro-batches, so the step is the same.

        Raises `UserError` if a single sequence does not fit, or with several ranks.
        """
        while True:
            try:
                return compute(*args, self.n_micro_batches)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self.model.zero_grad(set_to_none=True)
            self.n_micro_batches = count_finer(self.config, self.n_micro_batches)
            self.report.print_line(
                f"out of memory: training continues with --gradient_accumulation_steps "
                f"{self.n_micro_batches}, the same batch"
            )

    def accepts(self, loss: Tensor, grad_norm: Tensor) -> bool:
        """Return whether the loss and the gradient norm are finite, so that the optimiser may step.

        One NaN in the gradient makes its norm NaN; clipping then makes every weight NaN, and the
        run is lost. So with --on_nan skip the gradient is dropped, and with --on_nan stop the run
        ends with exit code 3 (test_a_nonfinite_loss_or_gradient_stops_the_run_before_it_is_learnt).
        Both numbers are of the whole batch, so all ranks decide alike.
        """
        norm = distributed.full_tensor(grad_norm)
        if bool((loss.isfinite() & norm.isfinite()).item()):
            return True
        self.n_skipped += 1
        problem = f"step {self.step} has loss {loss.item():g} and gradient norm {norm.item():g}"
        if self.config.on_nan == "stop" or self.n_skipped > MAX_SKIPPED:
            self.report.print_line(
                f"error: {problem}; the weights are unchanged; lower --learning_rate"
            )
            raise Stopped(3)
        self.report.print_line(
            f"warning: {problem}; skipped, number {self.n_skipped} of at most {MAX_SKIPPED}"
        )
        self.model.zero_grad(set_to_none=True)
        return False

    def end_step(self, loss: Tensor, grad_norm: Tensor, learning_rate: float) -> None:
        """Count and log a step that was taken or skipped, and plan what follows it.

        The plan has three parts: how many steps --minutes leave time for, whether an evaluation is
        due, and whether a signal has come.

        Args:
            learning_rate: the rate of this step, to be logged.
        """
        config = self.config
        self.step += 1
        seconds = time.perf_counter() - self._began_at
        self.clock.record_step(seconds)
        values = loss.item(), distributed.full_tensor(grad_norm).item()
        if all(map(math.isfinite, values)):  # else the step was skipped
            speed = config.batch_size * config.block_size / seconds
            self.report.step(self.step, *values, learning_rate, speed)
        self._plan()
        # A signal may arrive on one rank only, and all ranks have to stop after the same step.
        self.stopped_by = distributed.all_reduce_max(self.signals.number)

    def _plan(self) -> None:
        """Plan the last step, if --minutes limit the run; decide whether to evaluate now."""
        eval_interval, is_timed = self.config.eval_interval, self.clock.seconds is not None
        # Several ranks do this every tenth step only, as a broadcast takes time.
        if is_timed and (distributed.size() == 1 or self.step % 10 == 0):
            last_step = self.clock.last_step(
                self.step, self.max_steps, eval_interval, self._val_size_ratio
            )
            last_step = int(distributed.broadcast(last_step))
            if last_step != self.max_steps:
                self.schedule = self.schedule.ending_at(last_step, self.step)
                self.report.plan(self.step, last_step)
        interval = eval_interval or self.clock.interval(self.max_steps)
        if is_timed:  # clocks differ, and all ranks have to evaluate after the same step
            interval = int(distributed.broadcast(interval))
        due = bool(interval) and self.step % interval == 0
        if due and not eval_interval:  # the interval changes with the plan: keep evaluations apart
            distance = min(self.step - self._evaluated_at, self.max_steps - self.step)
            due = distance >= interval / 2
        self.is_evaluation_due = due or self.step == self.max_steps

    @property
    def _val_size_ratio(self) -> float:
        """The length of the validation text, divided by the tokens that one evaluation scores."""
        n_tokens = self.text.val_tokens.n_tokens
        return n_tokens / min(n_tokens, self.config.eval_tokens)

    def validate(self, evaluate: Evaluate) -> float:
        """Return the loss on validation text, in nats/token, and log it with a sample.

        The loop saves a checkpoint with this loss, because the checkpoint with the lowest one is
        kept. The training loss would not do: it also falls if a model memorises its text.
        """
        self._evaluated_at, self._began_at = self.step, time.perf_counter()
        val_loss = self._timed_val_loss(evaluate)
        self.report.evaluation(self.step, val_loss, self._eager_sample(self.model))
        return val_loss

    def _timed_val_loss(self, evaluate: Evaluate) -> float:
        """Return the loss on validation text, and record the time of the evaluation."""
        began, limit = time.perf_counter(), self.config.eval_tokens
        val_loss = self._eager_loss(evaluate, self.model, self.text.val_tokens, limit)
        self.clock.evaluating = time.perf_counter() - began
        return val_loss

    def _eager_loss(
        self, evaluate: Evaluate, model: GPT, tokens: TokenStream | Pairs, limit: int
    ) -> float:
        """Return the loss on about `limit` tokens, without compiled code."""
        with eager(self.is_compiled):
            return evaluate(model, tokens, self.config, self.n_micro_batches, limit)

    def _eager_sample(self, model: GPT) -> str:
        """Return a sample of the model, without compiled code."""
        with eager(self.is_compiled):
            return sample_text(
                model, self.text.tokenizer, self.config, self.text.opening, self.text.prompt
            )

    def save(self, **losses: float) -> None:
        """Save a checkpoint, from which the run can resume bit for bit; delete old checkpoints.

        If the disk is full, training continues with a warning, because the next save may succeed.

        Args:
            losses: `val_loss`, if the model was evaluated at this step.

        Raises `NotSavedError` if the last checkpoint of a run cannot be saved.
        """
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
            "content": text.cache_names,
            "old_content": text.old_cache_name,
            **losses,
            "schedule": dataclasses.asdict(self.schedule),
            "skipped": self.n_skipped,
            "opening": text.opening,
            "threads": torch.get_num_threads(),
            "thread_counts": self.thread_counts,
            # A resumed run finds its text with these; relative paths begin in `folder`.
            "most_chars": text.max_chars,
            "folder": cwd(),
            "links": text.links,
        }
        if self.base:
            state["base_model"] = self.base
        model, optimizer_state = distributed.gather_full(self.model, self.optimizer.state)
        try:
            if distributed.is_main_process():
                checkpoint.save(
                    self.folder, model, text.tokenizer, optimizer_state, state, self.companions
                )
                checkpoint.prune(self.folder, keep_all=self.config.keep_checkpoints)
        except checkpoint.NotSavedError as error:
            if self.stopped_by or self.step == self.max_steps:
                raise
            self.report.print_line(f"warning: {error}; training continues")
        distributed.barrier()  # if a rank exits before rank 0 has saved, torchrun kills rank 0
        self._saved_at = self.step
        if losses:
            self.clock.pause = time.perf_counter() - self._began_at

    def _measure_effect(
        self, evaluate: Evaluate, model: GPT, new_loss: float, counts: dict[str, int] | None
    ) -> dict[str, Any]:
        """Return what `before_after.table` compares, of the model before or after fine-tuning.

        Args:
            new_loss: on the validation text.
            counts: the number of questions of each name, as in `before_after.right_answers`.
        """
        config, text = self.config, self.text
        old_tokens = text.old.val_tokens if text.old else text.val_tokens
        old_loss = self._eager_loss(evaluate, model, old_tokens, config.eval_tokens)
        sample = self._eager_sample(model)
        with (
            eager(self.is_compiled),
            engine_in_training(model, text.tokenizer, config) as engine,
        ):
            answers = before_after.right_answers(engine, text.questions, counts)
        return {"sample": sample, "old_loss": old_loss, "new_loss": new_loss, "answers": answers}

    def finish(self, evaluate: Evaluate) -> None:
        """Log the loss of the best checkpoint on all validation text, and the next command to run.

        With --minutes, it is only the part that the rest of the time allows.
        """
        config, report, text = self.config, self.report, self.text
        best = checkpoint.load_best(self.folder)
        model = best.model()
        distributed.distribute(model, config.device, config.dtype, config.fsdp)
        n_evaluations = distributed.broadcast(self.clock.affordable(self._val_size_ratio))
        limit, n_tokens = round(n_evaluations * config.eval_tokens), text.val_tokens.n_tokens
        val_loss = self._eager_loss(evaluate, model, text.val_tokens, limit)
        bzip2, train, val = None, text.train_tokens, text.val_tokens
        no_standard = text.entropy is None and not report.silent  # the entropy is a better one
        if no_standard and isinstance(train, TokenStream) and isinstance(val, TokenStream):
            bzip2 = bzip2_bits_per_byte(text.tokenizer, train, val)
        report.final(best.step, val_loss, limit, n_tokens, bzip2)
        if self.base:
            before = self.base["before"]
            counts = {name: n_asked for name, (_, n_asked) in before.get("answers", {}).items()}
            after = self._measure_effect(evaluate, model, val_loss, counts)
            report.before_and_after(best.step, before, after)
        if self.clock.seconds is not None:
            n_trained = self.step * config.batch_size * config.block_size
            advice = far_from_done(
                self.clock.n_steps, n_trained / text.train_tokens.n_tokens,
                self.clock.seconds / 60, report.busy,
            )  # fmt: skip
            if advice:
                reason, minutes = advice
                flags = ("--init_from", "resume", "--name", self.folder, "--minutes", str(minutes))
                report.print_line(f"{reason}. More time would help: {command('train', *flags)}")
        sample = command("sample", "--run", self.folder)
        report.print_line(f"done: {best.path}, {self.folder / 'loss.png'}. Now: {sample}")

    def save_before_error(self) -> None:
        """Save a checkpoint if the loop ends with a `UserError`, such as a text cut short.

        Several ranks cannot do so: a save is a collective, and only one of them may have failed.
        """
        is_saved = (self.folder / f"step-{self.step:06d}").exists()
        if self.signals.defer and distributed.size() == 1 and not is_saved:
            self.save()
