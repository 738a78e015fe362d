"""What a run tells while it goes: a progress bar, `metrics.jsonl`, and `loss.png`."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen.evaluation.repetition import ends_in_loop
from minigen.evaluation.text import above_entropy
from minigen.evaluation.verdict import memorises
from minigen.system.plot import pyplot
from minigen.system.shell import command
from minigen.system.streams import progress_bar
from minigen.system.strict_json import to_json
from minigen.system.threads import Threads

RISEN = 1.005  # times the lowest validation loss: more than chance makes it rise
N_MEAN = 20  # steps whose training losses are averaged
FEW_STEPS = 300  # with fewer, a model is far from what it can learn
ONE_EPOCH = 0.95  # of the text; the last windows are left over
MAX_TIMES = 10  # the time that is advised is at most so many times the time that was given


class Report:
    """The bar on the terminal, a line in `metrics.jsonl` for each step, and `loss.png`.

    Args:
        run: the run's folder. A resumed run drops the lines of steps that it takes again.
        step: the step that the run starts from.
        max_steps: 0 while it is not known yet; `plan` tells it later.
        n_vocab: number of different tokens.
        bits_per_byte: what a loss of 1 nat/token is in bits/byte, for this text and tokenizer.
        floor: the entropy of the validation text in bits/byte, if it is known.
        silent: tell and write nothing, as another process does.
    """

    def __init__(
        self,
        run: Path,
        step: int,
        max_steps: int,
        n_vocab: int,
        bits_per_byte: float,
        floor: float | None,
        silent: bool = False,
    ) -> None:
        self.run, self.n_vocab, self.bits_per_byte, self.floor = run, n_vocab, bits_per_byte, floor
        self.silent, self.warned, self.busy = silent, set[str](), False
        self.bar = progress_bar(
            initial=step, total=max_steps or None, unit=" steps",
            disable=silent, dynamic_ncols=True, smoothing=0.1,
        )  # fmt: skip
        self.plan(max_steps)
        if silent:
            return
        with self.optional():
            kept = [line for line in read_metrics(run) if line["step"] <= step] if step else []
            text = "".join(to_json(line) + "\n" for line in kept)
            (run / "metrics.jsonl").write_text(text, encoding="utf-8")

    def plan(self, max_steps: int) -> None:
        """The number of steps is known now, so the bar can tell how long it will take."""
        self.bar.total = max_steps or None
        # As tqdm's own, but for the rate: steps/s also where that is less than one.
        self.bar.bar_format = (
            "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
            if max_steps
            else "{n_fmt}{unit} [{elapsed}, {rate_noinv_fmt}{postfix}]"
        )

    def step(self, step: int, loss: float, norm: float, rate: float, speed: float) -> None:
        """A step was done with the training loss `loss`, at `speed` tokens per second."""
        self.record(
            step=step, train_loss=loss, grad_norm=norm, learning_rate=rate, tokens_per_second=speed
        )
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
        self.bar.update()

    def evaluation(self, step: int, loss: float, sample: str) -> None:
        """The model was evaluated, and wrote `sample`."""
        if self.silent:
            return
        self.record(step=step, val_loss=loss, val_bits_per_byte=loss * self.bits_per_byte)
        self.say(f"step {step}: validation loss {self.in_words(loss)}. It writes: {sample!r}")
        with self.optional():
            if found := memorising(read_metrics(self.run)):
                self.warn(*found)
            if 2 * step >= (self.bar.total or math.inf) and ends_in_loop(sample):  # earlier, all do
                judge = command("evaluate", self.run)
                self.warn(
                    "loops",
                    "what it writes goes round in a loop. If the text does not, a lower "
                    f"--learning_rate or more text would help. To learn more: {judge}",
                )
        try:
            plot_loss(self.run, self.n_vocab, self.bits_per_byte, self.floor)
        except Exception as error:  # whatever matplotlib, its settings or its fonts can do wrong
            self.warn("plot", f"cannot draw {self.run / 'loss.png'}: {in_brief(error)}")

    def threads(self, step: int, number: int, threads: Threads) -> None:
        """Log that from `step` on so many threads compute, and the first time say why."""
        self.record(step=step, threads=number)
        if number < threads.max_threads and threads.n_busy > 0.25 and not self.busy:
            self.busy = True
            verb = "compute" if number > 1 else "computes"
            self.say(
                f"step {step}: other programs keep {threads.n_busy:.1f} processors busy, so "
                f"{number} of {threads.max_threads} threads {verb}"
            )

    def final(self, step: int, loss: float, n_tokens: int, n_all: int) -> None:
        """Log the loss of the model of `step` on `n_tokens` of the `n_all` validation tokens."""
        self.record(
            step=step, final_val_loss=loss, final_val_bits_per_byte=loss * self.bits_per_byte
        )
        part = f"{n_tokens:,} of the {n_all:,} tokens" if n_tokens < n_all else "all"
        self.say(f"step {step} on {part} of the validation text: {self.in_words(loss)}")

    def before_and_after(self, step: int, before: dict[str, Any], after: dict[str, Any]) -> None:
        """What fine-tuning did: a sample of the same prompt and seed, and the loss on old text."""
        self.say(f"before: {before['sample']!r}\nafter:  {after['sample']!r}")
        was, now = before["old_loss"], after["old_loss"]
        was = math.nan if was is None else was  # read back after a resume
        self.record(step=step, old_loss_before=was, old_loss_after=now)
        more = "more" if now > was else "less"
        self.say(
            f"on the old text: {was:.4f} nats/token before, {now:.4f} after: {more} surprised by it"
        )

    def in_words(self, loss: float) -> str:
        """A loss in both units, beside the two that bound it."""
        bits = loss * self.bits_per_byte
        words = f"{loss:.4f} nats/token = {bits:.4f} bits/byte"
        if self.floor is not None:
            words += f" ({above_entropy(bits, self.floor)}, {self.floor:.4f})"
        return words

    def record(self, **values: float) -> None:
        """Append a line to metrics.jsonl."""
        if self.silent:
            return
        with self.optional(), open(self.run / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(to_json(values) + "\n")

    @contextlib.contextmanager
    def optional(self) -> Iterator[None]:
        """Something to write that training can do without: where the disk is full, warn once."""
        try:
            yield
        except OSError as error:
            place = error.filename or self.run
            self.warn("disk", f"cannot write {place}: {error.strerror}")

    def warn(self, meaning: str, text: str) -> None:
        """Print a warning, once for each `meaning` however its figures change."""
        if meaning not in self.warned:
            self.warned.add(meaning)
            self.say(f"warning: {text}")

    def say(self, text: str) -> None:
        """Print a line above the bar; where that is a file on a full disk, nobody can be told."""
        if self.silent:
            return
        with contextlib.suppress(OSError):
            self.bar.clear()
            print(text, file=sys.stderr, flush=True)
            self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        self.bar.close()


def far_from_done(
    n_steps: int, epochs: float, minutes: float, busy: bool
) -> tuple[str, int] | None:
    """Return why a run by the clock is far from done, and the minutes that would help; or None.

    Args:
        n_steps: the steps that the time was enough for.
        epochs: how many times these steps have read the text.
        minutes: the time that the run had.
        busy: whether other programs had a part of the processors.
    """
    if n_steps >= FEW_STEPS and epochs >= ONE_EPOCH:
        return None
    enough = minutes * min(MAX_TIMES, max(FEW_STEPS / max(1, n_steps), ONE_EPOCH / epochs))
    found = f"the model has read {epochs:.0%} of the text in {n_steps:,} steps"
    if n_steps < FEW_STEPS:
        reason = ", as other programs had the processors" if busy else ""
        found = f"only {n_steps:,} steps were possible{reason}"
    return found, math.ceil(enough)


def memorising(metrics: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Find a validation loss that rises while the training loss falls, or is far above it.

    Args:
        metrics: the lines of metrics.jsonl.

    Returns a key, which stays the same while only the figures of the advice change, and the advice;
    or None.
    """
    evaluations = [line for line in metrics if math.isfinite(line.get("val_loss", math.nan))]
    training = [line for line in metrics if math.isfinite(line.get("train_loss", math.nan))]
    if not evaluations or not training:
        return None
    best = min(evaluations, key=lambda line: float(line["val_loss"]))
    val_loss, lowest = evaluations[-1]["val_loss"], best["val_loss"]
    train_loss = mean_train_loss(training)
    until_best = mean_train_loss([line for line in training if line["step"] <= best["step"]])
    if val_loss >= RISEN * lowest and train_loss < until_best:
        return (
            f"memorising since step {best['step']}",
            f"since step {best['step']} the loss on new text has risen from {lowest:.3f} to "
            f"{val_loss:.3f}, while it falls in training: the model is memorising. The checkpoint "
            "of that step is kept. More text, --dropout 0.2 or fewer steps would help",
        )
    if memorises(val_loss, train_loss):
        return (
            "memorising",
            f"the loss on new text is {val_loss:.3f}, but {train_loss:.3f} in training: the model "
            "is memorising. More text, --dropout 0.2 or fewer steps would help",
        )
    return None


def mean_train_loss(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean training loss of the last 20 lines; 0 without lines."""
    losses = [float(line["train_loss"]) for line in metrics[-N_MEAN:]]
    return sum(losses) / max(1, len(losses))


def in_brief(error: Exception) -> str:
    """Return what an error says, on one line."""
    said = error.strerror if isinstance(error, OSError) else str(error)
    return (f"{said}".splitlines() or [""])[0][:200] or type(error).__name__


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The measurements of a run, up to a line that was cut short or damaged.

    What was not finite, which JSON has as null, is NaN.
    """
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    metrics: list[dict[str, Any]] = []
    for line in lines:
        try:
            values = json.loads(line)
            if type(values["step"]) is not int:
                break
            values = {key: math.nan if value is None else value for key, value in values.items()}
            for value in values.values():
                math.isnan(value)  # raises unless the value is a number that can be drawn
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            break
        metrics.append(values)
    return metrics


def plot_loss(run: Path, n_vocab: int, bits_per_byte: float, floor: float | None) -> None:
    """Draw `loss.png` from `metrics.jsonl`: both losses, between the two lines that bound them.

    The upper line is ln V: the loss of a model that knows nothing and finds each of the V tokens
    equally likely. The lower line is the entropy of the text, which no model can beat on average.

    Args:
        run: the run's folder.
        n_vocab: V, the number of different tokens.
        bits_per_byte: a loss of 1 nat/token in bits/byte, for this text and tokenizer.
        floor: the entropy of the validation text in bits/byte; None: not known.
    """
    plt = pyplot()
    metrics = read_metrics(run)
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    for key, label, style in (("train_loss", "training", "-"), ("val_loss", "validation", "o-")):
        points = [(line["step"], line[key]) for line in metrics if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1, markersize=3)
    axes.axhline(
        math.log(n_vocab),
        color="grey",
        linestyle=":",
        label=f"knowing nothing: ln {n_vocab} = {math.log(n_vocab):.2f}",
    )
    if floor is not None:
        axes.axhline(
            floor / bits_per_byte,
            color="black",
            linestyle="--",
            label=f"the text's own entropy: {floor:.3f} bits/byte",
        )
    axes.set(xlabel="step", ylabel="loss in nats/token", ylim=(0, None), title=run.name)
    other = axes.twinx()  # the same heights, in the other unit
    other.set(ylabel="bits/byte", ylim=(0, axes.get_ylim()[1] * bits_per_byte))
    axes.legend()
    figure.tight_layout()
    figure.savefig(run / "loss.png")
    plt.close(figure)
