"""A judgement as a table for people, as JSON for programs, and as a plot."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from minigen.evaluation.text import relative_to_entropy
from minigen.evaluation.verdict import Judgement, verdict
from minigen.system.plot import pyplot

# The metrics of samples by their names in evaluation.json: a label, and the format of a value.
LABELS = {
    "well_formed": ("well-formed", "{:.1%}"),
    "follows_prompt": ("obey their first line", "{:.1%}"),
    "follows_other_prompt": ("obey that of another document", "{:.1%}"),
    "valid": ("valid to the letter", "{:.1%}"),
    "identical": ("the same as another one", "{:.1%}"),
    "loops": ("end in a loop", "{:.1%}"),
    "different": ("different ones of one prompt", "{:.1%}"),
    "self_repetition": ("4-grams that the text had before", "{:.1%}"),
    "distinct_1": ("different words of all", "{:.1%}"),
    "distinct_2": ("different pairs of words", "{:.1%}"),
    "distinct_3": ("different triples of words", "{:.1%}"),
    "entropy": ("entropy of predictions, nats", "{:.3f}"),
    "copied_run": ("share {} bytes with the training text", "{:.1%}"),
    "copied_whole": ("are in the training text as a whole", "{:.1%}"),
    "longest_run": ("longest run in common, bytes", "{:,.0f}"),
}


def as_json(judged: Judgement) -> dict[str, Any]:
    """Return the content of evaluation.json, whose keys other programs know."""
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
    return "\n".join([*lines, "", *verdict(judged)])


def cell(value: float | None, form: str) -> str:
    """Return a value as the table shows it."""
    return "n/a" if value is None else form.format(value)


def plot(judged: Judgement, path: Path) -> None:
    """Draw calibration, loss by position, and shares of samples beside those of real text."""
    plt = pyplot()
    figure, (one, two, three) = plt.subplots(
        1, 3, figsize=(15, 4.5), dpi=100, width_ratios=(1, 1, 1.2), layout="constrained"
    )
    bins = judged.text.calibration
    one.plot((0, 1), (0, 1), color="grey", linestyle=":", label="as it should be")
    one.plot(
        [bin.expected for bin in bins], [bin.observed for bin in bins], "o-", markersize=3,
        label="this model",
    )  # fmt: skip
    one.set(xlabel="probability that the model gave", ylabel="share of such tokens that came",
            title="calibration")  # fmt: skip
    one.legend()
    two.plot(*zip(*judged.text.by_position, strict=True), "o-", markersize=3)
    two.set(xlabel="tokens that the model saw before", ylabel="loss in nats/token", ylim=(0, None),
            title="loss by position in the context")  # fmt: skip
    bars = share_bars(judged)
    heights = np.arange(len(bars), 0, -1)
    three.barh(heights + 0.2, [bar[1] for bar in bars], 0.4, label="samples")
    three.barh(heights - 0.2, [bar[2] for bar in bars], 0.4, label="real text", color="grey")
    three.set_yticks(heights, [bar[0] for bar in bars])
    three.set(xlim=(0, 1), title="share of samples, and of real text")
    if bars:
        three.legend()
    figure.savefig(path)
    plt.close(figure)


def share_bars(judged: Judgement) -> list[tuple[str, float, float]]:
    """Return label, samples' share and real text's share of each metric that is known of both."""
    if judged.comparison is None:
        return []
    samples, real = judged.comparison.samples.by_name(), judged.comparison.real.by_name()
    bars = []
    for name, (label, form) in LABELS.items():
        ours, theirs = samples.get(name), real.get(name)
        if "%" in form and ours is not None and theirs is not None:
            bars.append((label.format(judged.comparison.copy_length), ours, theirs))
    return bars
