"""What fine-tuning has changed: a table of a model before and after.

A model that learns a new text forgets an old one, so the table has the losses on both. Of pairs it
also has the share of right answers, which says more than a loss: an answer with one wrong word has
a low loss, and is wrong.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minigen.data import Pairs
from minigen.evaluation.answers import answer_metrics
from minigen.inference.engine import Engine
from minigen.run import distributed

KNOWN, HELD_OUT = "questions", "questions of held-out kinds"
FEW, MANY = 4, 100  # questions that are asked at least, and at most
ASKING = 3.0  # seconds for the answers to the questions of one kind, about
LONGEST = 50  # tokens of most answers; longer ones are rarely the same to the letter


def right_answers(
    engine: Engine, questions: Mapping[str, Pairs], counts: Mapping[str, int] | None
) -> dict[str, tuple[int, int]]:
    """Return the number of right answers, and of questions, by the name of the questions.

    Args:
        counts: the number of questions of each name; None: the number that the model answers in
            about `ASKING` seconds.
    """
    shares = {}
    for name, pairs in questions.items():
        if np.quantile(pairs.n_answer_tokens, 0.9) > LONGEST:
            continue
        if counts is None:
            began = time.perf_counter()
            answer_metrics(engine, pairs, FEW, seed=0)
            n = int(FEW * ASKING / (time.perf_counter() - began))
            count = int(distributed.broadcast(min(max(n, FEW), MANY)))
        elif name in counts:
            count = counts[name]
        else:  # a run that began with an earlier version asked nothing before
            continue
        metrics = answer_metrics(engine, pairs, count, seed=0)
        shares[name] = sum(metrics.n_right.values()), sum(metrics.n_asked.values())
    return shares


def table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table.

    Args:
        before: with `new_loss` and `old_loss`, in nats/token, and `answers`, as `right_answers`
            returns them. Of a run that began with an earlier version, only with `old_loss`.
    """
    yield f"{'':15}{'before':>11}{'after':>11}"
    for name in ("new", "old"):
        if f"{name}_loss" not in before:
            continue
        one, other = finite(before.get(f"{name}_loss")), finite(after[f"{name}_loss"])
        comment = ""
        if name == "old":
            more = "more" if other > one else "less"
            comment = f": the model is {more} surprised by this text"
        yield f"{f'{name} text':15}{one:>11.4f}{other:>11.4f}  nats/token{comment}"
    label = "right answers"
    for name, (n_right, n_asked) in before.get("answers", {}).items():
        share = after["answers"][name][0] / n_asked
        yield f"{label:15}{n_right / n_asked:>11.1%}{share:>11.1%}  of {n_asked} {name}"
        label = ""


def finite(loss: float | None) -> float:
    """Return a loss; NaN for None, as which JSON has a loss that was not finite."""
    return math.nan if loss is None else loss
