"""A judgement as a table for people, as JSON for programs, and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from minigen.evaluation.answers import rows
from minigen.evaluation.text import TextMetrics, relative_to_entropy
from minigen.evaluation.verdict import Judgement, verdict
from minigen.system.plot import drawing, new_figure

MAX_MISTAKES = 5  # to print
# The metrics of samples by their names in evaluation.json: a label, and the format of a value.
LABELS = {
    "well_formed": ("well-formed", "{:.1%}"),
    "follows_prompt": ("follow their prompt", "{:.1%}"),
    "follows_other_prompt": ("follow the prompt of another text", "{:.1%}"),
    "valid": ("valid", "{:.1%}"),
    "identical": ("duplicates of another one", "{:.1%}"),
    "loops": ("end in a loop", "{:.1%}"),
    "different": ("distinct samples of one prompt", "{:.1%}"),
    "self_repetition": ("4-grams that repeat in a text", "{:.1%}"),
    "distinct_1": ("distinct words", "{:.1%}"),
    "distinct_2": ("distinct pairs of words", "{:.1%}"),
    "distinct_3": ("distinct triples of words", "{:.1%}"),
    "entropy": ("entropy of predictions, nats", "{:.3f}"),
    "copied_run": ("share {} bytes with training text", "{:.1%}"),
    "copied_whole": ("copied whole from training text", "{:.1%}"),
    "longest_run": ("longest run shared with it, bytes", "{:,.0f}"),
}


def as_json(judged: Judgement) -> dict[str, Any]:
    """Return the content of evaluation.json; other programs rely on its keys."""
    compared = judged.comparison
    return {
        "model": judged.model,
        "step": judged.step,
        "config": dict(judged.flags),
        "text": {**asdict(judged.text), "single_tokens": judged.unigram_loss},
        "perplexity": judged.text.perplexity,
        "bits_per_byte": judged.bits_per_byte,
        "floor": judged.text_entropy,
        "train_loss": judged.train_loss,
        "run_length": compared.copy_length if compared else None,
        "n_samples": compared.n_samples if compared else 0,
        "short": compared.whole_documents if compared else False,
        "samples": compared.samples.by_name() if compared else {},
        "real": compared.real.by_name() if compared else {},
        "answers": {name: asdict(one) for name, one in judged.answers.items()},
        "verdict": verdict(judged),
    }


def table(judged: Judgement) -> str:
    """Return the losses, each metric of samples beside that of real text, and the verdict."""
    text, bits = judged.text, judged.bits_per_byte
    lines = [
        f"{judged.model} on {text.n_tokens:,} tokens",
        f"loss                {text.loss:.4f} nats/token = {bits:.4f} bits/byte"
        + (f" ({relative_to_entropy(bits, judged.text_entropy)})" if judged.text_entropy else "")
        + f", perplexity {text.perplexity:.2f}",
    ]
    if judged.train_loss is not None:
        lines.append(f"on training text    {judged.train_loss:.4f} nats/token")
    lines.append(f"calibration error   {text.calibration_error:.2%}")
    if compared := judged.comparison:
        lines.append(f"\n{'':50}{'samples':>9}{'real text':>11}")
        columns = compared.samples.by_name(), compared.real.by_name()
        for name, (label, form) in LABELS.items():
            if name in columns[0]:
                cells = [
                    "" if name not in column else cell(column[name], form) for column in columns
                ]
                label = label.format(compared.copy_length)
                lines.append(f"{label:50}{cells[0]:>9}{cells[1]:>11}".rstrip())
    for name, answered in judged.answers.items():
        n = sum(answered.n_asked.values())
        lines.append(f"\n{f'right answers, {name}':50}{answered.share:>9.1%}  of {n:,}")
        for label, n_right, n_asked in rows(answered, two_steps=name == "held-out kinds"):
            lines.append(f"  {label:48}{n_right / n_asked:>9.1%}  of {n_asked:,}")
        mistakes = [f"  {kind}: {mistake}" for kind, mistake in answered.mistakes.items()]
        lines += mistakes[:MAX_MISTAKES]
    return "\n".join([*lines, "", *verdict(judged)])


def cell(value: float | None, form: str) -> str:
    """Return a value as the table shows it."""
    return "n/a" if value is None else form.format(value)


@drawing()
def plot(judged: Judgement, path: Path) -> Any:
    """Draw calibration, loss by position, and the metrics of samples beside those of real text.

    Returns matplotlib's figure.
    """
    bars = share_bars(judged)
    heights = (3.8, 1.2 + 0.32 * len(bars)) if bars else (3.8,)  # inches
    figure = new_figure(figsize=(9, sum(heights)), dpi=100, layout="constrained")
    top, *rest = np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights))
    for bottom in rest:
        _draw_bars(bottom.subplots(), bars)
    left, right = top.subplots(1, 2)
    _draw_calibration(left, judged.text)
    _draw_positions(right, judged.text)
    figure.savefig(path)
    return figure


def _draw_calibration(axes: Any, text: TextMetrics) -> None:
    """Draw the share of tokens that came next, over the probability that the model gave to them.

    The vertical lines are two standard deviations of chance, for this number of predictions.
    """
    expected, observed, n = map(np.array, zip(*text.calibration, strict=True))
    axes.plot((0, 100), (0, 100), color="grey", linestyle=":", label="perfectly calibrated")
    chance = 2 * np.sqrt(expected * (1 - expected).clip(0) / n)
    axes.errorbar(
        100 * expected, 100 * observed, 100 * chance, fmt="o", markersize=4, linewidth=1,
        label="this model, and chance",
    )  # fmt: skip
    axes.set(
        title="calibration",
        ylim=(-4, 104),
        xlabel="probability that the model gave to tokens, in %",
        ylabel="tokens that came, in %",
    )
    axes.legend(loc="upper left")


def _draw_positions(axes: Any, text: TextMetrics) -> None:
    """Draw the loss in each stretch of the context."""
    ends = [0, *(stretch.last for stretch in text.by_position)]
    axes.stairs([stretch.loss for stretch in text.by_position], ends, baseline=None)
    axes.set(
        title="loss by position",
        xlabel="position in the context, in tokens",
        ylabel="loss in nats/token",
    )


def _draw_bars(axes: Any, bars: Sequence[tuple[str, float, float]]) -> None:
    """Draw the shares of samples and of real text, each with its value."""
    labels, samples, real = zip(*bars, strict=True)
    heights = np.arange(len(bars), 0, -1)
    for shares, offset, colour, label in (
        (samples, 0.2, "C0", "samples"),
        (real, -0.2, "grey", "real text"),
    ):
        drawn = axes.barh(
            heights + offset, np.multiply(100, shares), 0.4, color=colour, label=label
        )
        texts = [f"{100 * share:.1f}" for share in shares]
        axes.bar_label(drawn, texts, padding=3, fontsize=8)
    axes.set_yticks(heights, labels)
    axes.set(xlim=(0, 108), xlabel="share, in %")
    axes.set_title("samples beside real text", loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)  # above the bars


def share_bars(judged: Judgement) -> list[tuple[str, float, float]]:
    """Return a label, the samples' share and real text's, of each share that both have."""
    if judged.comparison is None:
        return []
    of_samples = judged.comparison.samples.by_name()
    of_real = judged.comparison.real.by_name()
    bars = []
    for name, (label, form) in LABELS.items():
        sample_share, real_share = of_samples.get(name), of_real.get(name)
        if "%" in form and sample_share is not None and real_share is not None:
            label = label.format(judged.comparison.copy_length)
            bars.append((label, sample_share, real_share))
    return bars
