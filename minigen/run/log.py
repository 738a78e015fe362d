"""The log of a run: a progress bar, lines of text, metrics.jsonl, samples.jsonl, and loss.png."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen.evaluation.compression import relative_to_bzip2
from minigen.evaluation.repetition import ends_in_loop
from minigen.evaluation.text import relative_to_entropy
from minigen.evaluation.verdict import memorises
from minigen.run import before_after
from minigen.system.plot import drawing, new_figure
from minigen.system.shell import command
from minigen.system.streams import progress_bar, set_total
from minigen.system.strict_json import to_json
from minigen.system.threads import Threads

MIN_RISE = 1.005  # ratio of the validation loss to its lowest; a smaller rise may be chance
N_AVERAGED = 20  # the training loss is the mean of these latest steps; a single batch scatters
MIN_STEPS = 300  # a model with fewer steps is far from the loss that it can reach
MIN_EPOCHS = 0.95  # passes over the text; below 1, as its last tokens may not fill a batch
MAX_TIMES = 10  # a run is advised to take at most 10 times the time that it had
MAX_MEANS = 50  # points of the training curve after its steep beginning
GROWTH = 0.05  # a point of the training curve is the mean of this share of the steps before it
ADVICE = "More text, a higher --dropout or fewer steps would help"  # against memorising

Points = list[tuple[float, float]]  # steps and values


class Report:
    """The log of a run: the terminal's progress bar and lines, and files in the run's folder.

    The files are `metrics.jsonl`, `samples.jsonl` and `loss.png`. They hold all that another
    process needs to follow the run (minigen/serve/training.py), and the run waits for no reader.

    Args:
        run: the run's folder. A resumed run drops the lines of steps that it takes again.
        step: the step that the run starts from.
        max_steps: 0 if the number of steps is not known yet; see `plan`.
        n_vocab: the number of different tokens.
        bits_per_byte: a loss of 1 nat/token in bits/byte, for this text and tokenizer.
        entropy: the entropy of the validation text in bits/byte; None: not known.
        step_tokens: the tokens of a step's batch.
        silent: log nothing, because rank 0 does.
    """

    def __init__(
        self,
        run: Path,
        step: int,
        max_steps: int,
        n_vocab: int,
        bits_per_byte: float,
        entropy: float | None,
        step_tokens: int,
        silent: bool = False,
    ) -> None:
        self.run, self.n_vocab = run, n_vocab
        self.bits_per_byte, self.entropy = bits_per_byte, entropy
        self.silent, self.warned = silent, set[str]()
        self.busy = False  # whether other programs have kept processors busy
        self.bar = progress_bar(
            initial=step, total=max_steps or None, unit=" steps",
            disable=silent, dynamic_ncols=True, smoothing=0.1,
        )  # fmt: skip
        self.show_plan(max_steps)
        if silent:
            return
        with self.optional_output():
            for name, read in (("metrics.jsonl", read_metrics), ("samples.jsonl", read_samples)):
                kept = [line for line in read(run) if line["step"] <= step] if step else []
                text = "".join(to_json(line) + "\n" for line in kept)
                (run / name).write_text(text, encoding="utf-8")
        self.record(
            step=step, n_vocab=n_vocab, bits_per_byte=bits_per_byte, step_tokens=step_tokens,
            entropy=math.nan if entropy is None else entropy, max_steps=max_steps or math.nan,
        )  # fmt: skip

    def plan(self, step: int, max_steps: int) -> None:
        """Log after `step` steps that the run will end at `max_steps`."""
        self.show_plan(max_steps)
        self.record(step=step, max_steps=max_steps)

    def show_plan(self, max_steps: int) -> None:
        """Set the number of steps, from which the bar estimates the time that is left."""
        set_total(self.bar, max_steps or None)
        # tqdm's own format, except for the rate: steps/s also where it is less than one.
        self.bar.bar_format = (
            "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
            if max_steps
            else "{n_fmt}{unit} [{elapsed}, {rate_noinv_fmt}{postfix}]"
        )

    def step(self, step: int, loss: float, norm: float, rate: float, speed: float) -> None:
        """Log a step.

        Args:
            step: the number of steps so far.
            loss: mean training loss of the batch, in nats/token.
            norm: length of the gradient before it was clipped.
            rate: the learning rate.
            speed: in tokens per second.
        """
        self.record(
            step=step, train_loss=loss, grad_norm=norm, learning_rate=rate, tokens_per_second=speed
        )
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
        self.bar.update()

    def evaluation(self, step: int, loss: float, sample: str) -> None:
        """Log the validation loss, in nats/token, and a sample; warn of faults; draw loss.png."""
        if self.silent:
            return
        self.record(step=step, val_loss=loss, val_bits_per_byte=loss * self.bits_per_byte)
        self.append("samples.jsonl", {"step": step, "text": sample})
        self.print_line(
            f"step {step}: validation loss {self.in_both_units(loss)}. Sample: {sample!r}"
        )
        with self.optional_output():
            if warning := memorising(read_metrics(self.run)):
                self.warn(*warning)
            # In the first half of a run, the samples of any model loop.
            if 2 * step >= (self.bar.total or math.inf) and ends_in_loop(sample):
                evaluate = command("evaluate", self.run)
                self.warn(
                    "loops",
                    "the sample repeats itself in a loop. Unless the training text does, too, "
                    f"try a lower --learning_rate or more text. For details: {evaluate}",
                )
        self.draw()

    def draw(self) -> None:
        """Draw loss.png, or warn that it cannot be drawn."""
        if self.silent:
            return
        try:
            plot_loss(self.run, self.n_vocab, self.bits_per_byte, self.entropy)
        except Exception as error:  # matplotlib, its settings and its fonts can fail in any way
            self.warn("plot", f"cannot draw {self.run / 'loss.png'}: {first_line(error)}")

    def threads(self, step: int, number: int, threads: Threads) -> None:
        """Log the number of threads that compute from `step` on; print the reason, once."""
        self.record(step=step, threads=number)
        if number < threads.max_threads and threads.n_busy > 0.25 and not self.busy:
            self.busy = True
            verb = "compute" if number > 1 else "computes"
            self.print_line(
                f"step {step}: other programs keep {threads.n_busy:.1f} processors busy, so "
                f"{number} of {threads.max_threads} threads {verb}"
            )

    def final(
        self, step: int, loss: float, n_tokens: int, n_all: int, bzip2: float | None = None
    ) -> None:
        """Log the loss of the best checkpoint on `n_tokens` of the `n_all` validation tokens.

        Args:
            bzip2: the bits per byte that bzip2 needs for the same text; None: do not compare.
        """
        bits, compared = loss * self.bits_per_byte, ""
        values = {"final_val_loss": loss, "final_val_bits_per_byte": bits}
        if bzip2 is not None:
            values["bzip2_bits_per_byte"] = bzip2
            compared = f" ({relative_to_bzip2(bits, bzip2)})"
        self.record(step=step, **values)
        part = f"{n_tokens:,} of the {n_all:,} tokens" if n_tokens < n_all else "all"
        self.print_line(
            f"the best model (step {step}) on {part} of the validation text: "
            f"loss {self.in_both_units(loss)}{compared}"
        )
        if bzip2 is not None and bits > bzip2 and step >= MIN_STEPS:
            self.warn(
                "bzip2",
                "bzip2, which only finds repetitions, predicts the text better than this model: "
                "more text or a longer run would help",
            )
        self.draw()

    def before_and_after(self, step: int, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Log the effect of fine-tuning: samples of one prompt and seed, losses, right answers."""
        self.print_line(f"before: {before['sample']!r}\nafter:  {after['sample']!r}")
        values = {
            "old_loss_before": before_after.finite(before["old_loss"]),
            "old_loss_after": after["old_loss"],
        }
        for when, measured in (("before", before), ("after", after)):
            for name, (n_right, n_asked) in measured.get("answers", {}).items():
                key = "right_answers" if name == before_after.KNOWN else "right_held_out"
                values[f"{key}_{when}"] = n_right / n_asked
        self.record(step=step, **values)
        for line in before_after.table(before, after):
            self.print_line(line)

    def in_both_units(self, loss: float) -> str:
        """Return a loss in nats/token and bits/byte, beside the entropy of the text if known."""
        bits = loss * self.bits_per_byte
        text = f"{loss:.4f} nats/token = {bits:.4f} bits/byte"
        if self.entropy is not None:
            text += f" ({relative_to_entropy(bits, self.entropy)})"
        return text

    def record(self, **values: float) -> None:
        """Append a line to metrics.jsonl."""
        self.append("metrics.jsonl", values)

    def append(self, name: str, values: Mapping[str, Any]) -> None:
        """Append a line to a file of the run."""
        if self.silent:
            return
        with self.optional_output(), open(self.run / name, "a", encoding="utf-8") as file:
            file.write(to_json(values) + "\n")

    @contextlib.contextmanager
    def optional_output(self) -> Iterator[None]:
        """Turn an `OSError` into a warning, once: training can do without its log."""
        try:
            yield
        except OSError as error:
            place = error.filename or self.run
            self.warn("disk", f"cannot write {place}: {error.strerror}")

    def warn(self, key: str, text: str) -> None:
        """Print a warning, once for each `key`, even if the numbers in the text change."""
        if key not in self.warned:
            self.warned.add(key)
            self.print_line(f"warning: {text}")

    def print_line(self, text: str) -> None:
        """Print a line above the bar; ignore an error of stderr, as no line could report it."""
        if self.silent:
            return
        with contextlib.suppress(OSError):
            self.bar.clear()
            print(text, file=sys.stderr, flush=True)
            self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        self.bar.close()


# ---- advice ----


def far_from_done(
    n_steps: int, epochs: float, minutes: float, busy: bool
) -> tuple[str, int] | None:
    """Return the reason why a timed run is far from done, and the minutes it needs; or None.

    Args:
        n_steps: the steps that the run has taken.
        epochs: the passes over the training text; below 1: the share of the text that was read.
        minutes: the time limit of the run.
        busy: whether other programs kept processors busy.
    """
    if n_steps >= MIN_STEPS and epochs >= MIN_EPOCHS:
        return None
    times = max(MIN_STEPS / max(1, n_steps), MIN_EPOCHS / epochs)
    reason = f"the model has read {epochs:.0%} of the text in {n_steps:,} steps"
    if n_steps < MIN_STEPS:
        why = ", because other programs kept the processors busy" if busy else ""
        reason = f"only {n_steps:,} steps were possible{why}"
    return reason, math.ceil(minutes * min(MAX_TIMES, times))


def memorising(metrics: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return a warning if the losses show that the model memorises (overfits), or None.

    A model that learns the language of its text gets better on new text, too: both losses fall
    together. A model that learns the training text by heart gets better on that text alone. Its
    training loss falls further, while its validation loss stops far above, and then rises.

    Args:
        metrics: the lines of metrics.jsonl.

    Returns the key of the warning, which stays the same while only its numbers change, and its
    text.
    """
    evaluations = [line for line in metrics if math.isfinite(line.get("val_loss", math.nan))]
    training = [line for line in metrics if math.isfinite(line.get("train_loss", math.nan))]
    if not evaluations or not training:
        return None
    best = min(evaluations, key=lambda line: float(line["val_loss"]))
    val_loss, lowest = evaluations[-1]["val_loss"], best["val_loss"]
    train_loss = mean_train_loss(training)
    until_best = mean_train_loss([line for line in training if line["step"] <= best["step"]])
    if val_loss >= MIN_RISE * lowest and train_loss < until_best:
        return (
            f"memorising since step {best['step']}",
            f"since step {best['step']} the validation loss has risen from {lowest:.3f} to "
            f"{val_loss:.3f}, while the training loss falls: the model is memorising its text "
            f"(overfitting). The checkpoint of step {best['step']} is kept. {ADVICE}",
        )
    if memorises(val_loss, train_loss):
        return (
            "memorising",
            f"the validation loss is {val_loss:.3f}, but the training loss {train_loss:.3f}: the "
            f"model is memorising its text (overfitting). {ADVICE}",
        )
    return None


def mean_train_loss(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean training loss of the last 20 lines; 0 without lines."""
    losses = [float(line["train_loss"]) for line in metrics[-N_AVERAGED:]]
    return sum(losses) / max(1, len(losses))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, cut to 200 characters."""
    message = error.strerror if isinstance(error, OSError) else str(error)
    return (f"{message}".splitlines() or [""])[0][:200] or type(error).__name__


# ---- metrics.jsonl, samples.jsonl and loss.png ----


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl, up to the first that is cut short or damaged.

    A value that was not finite, which is null in JSON, is NaN.
    """
    return _until_none(parse_metrics, run / "metrics.jsonl")


def read_samples(run: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's samples.jsonl, up to the first that is cut short or damaged."""
    return _until_none(parse_sample, run / "samples.jsonl")


def _until_none(parse: Callable[[bytes], Any], path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, parsed, up to the first that is None; none without a file."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return list(itertools.takewhile(lambda values: values is not None, map(parse, lines)))


def parse_metrics(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line of metrics.jsonl; None if it is damaged.

    A value that was not finite, which is null in JSON, is NaN.
    """
    try:
        values = json.loads(line)
        if type(values["step"]) is not int:
            return None
        values = {key: math.nan if value is None else value for key, value in values.items()}
        for value in values.values():
            math.isnan(value)  # raises unless the value is a number that can be drawn
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return dict(values)


def parse_sample(line: bytes) -> dict[str, Any] | None:
    """Return the step and the text of a line of samples.jsonl; None if it is damaged."""
    try:
        step, text = operator.itemgetter("step", "text")(json.loads(line))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_sample = type(step) is int and isinstance(text, str)
    return {"step": step, "text": text} if is_sample else None


def finite_points(metrics: Sequence[Mapping[str, Any]], key: str) -> Points:
    """Return the steps and the values of a key of metrics.jsonl, where the value is finite."""
    return [(line["step"], line[key]) for line in metrics if math.isfinite(line.get(key, math.nan))]


def smoothed(points: Points) -> Points:
    """Return means of neighbouring points, as the loss scatters from batch to batch.

    Each of the first points stands alone, because the loss falls fast there. Later, the number of
    points in a mean is 5 % of the number of points before it, and at most 1/50 of all points.
    """
    means, start, longest = [], 0, math.ceil(len(points) / MAX_MEANS)
    while start < len(points):
        size = min(max(1, int(GROWTH * start)), longest)
        group = points[start : start + size]
        step, value = (math.fsum(column) / len(group) for column in zip(*group, strict=True))
        means.append((step, value))
        start += size
    return means


@drawing()
def plot_loss(run: Path, n_vocab: int, bits_per_byte: float, entropy: float | None) -> Any:
    """Draw `loss.png` from `metrics.jsonl`: a line for training, and points for evaluations.

    The loss falls steeply in the first steps, so on a linear axis the rest of a run is a flat line.
    So the axis is logarithmic. Once the loss is below twice the entropy of the text, which no model
    can beat, the axis shows the distance of the loss to the entropy, in percent of the entropy.

    Args:
        run: the run's folder.
        n_vocab: V, the number of different tokens. A model that knows nothing finds each of them
            equally likely: its loss is ln V.
        bits_per_byte: a loss of 1 nat/token in bits/byte, for this text and tokenizer.
        entropy: the entropy of the validation text in bits/byte; None: not known.

    Returns matplotlib's figure.
    """
    metrics = read_metrics(run)
    training = smoothed(finite_points(metrics, "train_loss"))
    validation = finite_points(metrics, "val_loss")
    final = finite_points(metrics, "final_val_loss")
    losses = [loss for _, loss in training + validation + final if loss > 0] or [1.0]
    low, high, know_nothing = min(losses), max(losses), math.log(n_vocab)
    lowest = (entropy or 0) / bits_per_byte  # nats/token
    by_distance = entropy is not None and low < 2 * lowest

    def height(loss: float) -> float:
        return 100 * (loss / lowest - 1) if by_distance else loss

    figure = new_figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    curves = [
        (training, "-", "training loss, mean of several steps"),
        (validation, "o", "validation loss"),
    ]
    if final:
        curves.append((final, "kD", "final validation loss, of the best model"))
    for points, style, label in curves:
        steps, heights = [step for step, _ in points], [height(loss) for _, loss in points]
        fill = "none" if points is final else "full"  # hollow, as it may cover another point
        axes.plot(steps, heights, style, linewidth=1, markersize=5, fillstyle=fill, label=label)
    if high > 0.9 * know_nothing:  # a fine-tuned model knows something from the start
        label = f"a model that knows nothing: ln {n_vocab} = {know_nothing:.2f} nats/token"
        axes.axhline(height(know_nothing), color="grey", linestyle=":", label=label)
    right = axes.twinx()  # the same heights in another unit
    if by_distance:
        label = f"entropy of the text: {entropy:.4f} bits/byte"
        axes.axhline(0, color="black", linestyle="--", linewidth=1, label=label)
        _scale_by_distance(axes, right, lowest, 2 * height(low), 1.5 * height(high))
    else:
        _scale_by_loss(axes, right, bits_per_byte, low / 1.1, 1.1 * high)
    axes.set(xlabel="step", title=run.name)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    figure.savefig(run / "loss.png")
    return figure


def _scale_by_distance(axes: Any, right: Any, lowest: float, bottom: float, top: float) -> None:
    """Scale axes of percent above `lowest`, the entropy of the text in nats/token.

    Between -1 % and 1 % the scale is linear: by chance, a loss may be below the entropy.
    """
    bottom, top = min(bottom, -0.5), max(top, 1.5)
    ticks = [tick for tick in (-100, -10, -1, 0, 1, 10, 100, 1000, 10000) if bottom < tick < top]
    axes.set(yscale="symlog", ylim=(bottom, top), ylabel="loss above the entropy of the text")
    right.set(yscale="symlog", ylim=(bottom, top), ylabel="loss in nats/token")
    axes.set_yticks(ticks, [f"{tick} %" for tick in ticks])
    right.set_yticks(ticks, [f"{lowest * (1 + tick / 100):.3g}" for tick in ticks])


def _scale_by_loss(axes: Any, right: Any, bits_per_byte: float, bottom: float, top: float) -> None:
    """Scale axes of the loss: nats/token on the left, and bits/byte on the right."""
    from matplotlib import ticker  # which takes long to import

    axes.set(yscale="log", ylim=(bottom, top), ylabel="loss in nats/token")
    limits = bits_per_byte * bottom, bits_per_byte * top
    right.set(yscale="log", ylim=limits, ylabel="loss in bits/byte")
    for axis in (axes.yaxis, right.yaxis):  # round numbers, also where powers of ten are far apart
        few = top < 10 * bottom
        axis.set_major_locator(ticker.AutoLocator() if few else ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
