"""The share of right answers to questions whose right answers are known.

A model answers each prompt greedily, with its most probable tokens. For a question of the corpus
`tasks`, the corpus's checker says whether the answer is right. The answer to any other prompt is
right if it is that of the file, but for the white space around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigen.corpora import tasks
from minigen.data import Pairs
from minigen.errors import UserError
from minigen.evaluation.continuations import (
    Continuation,
    decode_continuation,
    generated_continuations,
)
from minigen.inference.engine import Engine
from minigen.sampling import Sampling

EXACT = "exact"  # the kind of questions that no checker knows


@dataclass(frozen=True)
class AnswerMetrics:
    """Right answers of a model.

    n_right, n_asked: numbers of answers, by the kind of the question.
    mistakes: for each kind with a wrong answer, the reason why the first one is wrong.
    """

    n_right: dict[str, int]
    n_asked: dict[str, int]
    mistakes: dict[str, str]

    @property
    def share(self) -> float:
        """The share of right answers."""
        return sum(self.n_right.values()) / sum(self.n_asked.values())


def answer_metrics(engine: Engine, pairs: Pairs, count: int, seed: int) -> AnswerMetrics:
    """Let a model answer about `count` questions from all over the pairs, and check its answers."""
    n = min(count, pairs.n_examples)
    asked = [_question(pairs, i * pairs.n_examples // n, engine) for i in range(n)]
    limit = 2 * max(len(one.ids) for one in asked)
    # Prompts of one length are computed together.
    asked.sort(key=lambda one: len(one.prompt))
    greedy = Sampling(temperature=0.0)
    given = generated_continuations(engine, asked, greedy, limit, seed)
    n_right, n_asked, mistakes = dict[str, int](), dict[str, int](), dict[str, str]()
    for right, answer in zip(asked, given, strict=True):
        kind, mistake = check(right.first_lines, answer.text, right.text)
        if mistake is None and engine.tokenizer.stop_ids.isdisjoint(answer.ids[-1:]):
            mistake = f'the answer "{answer.text[:40]}" does not end'
        n_asked[kind] = n_asked.get(kind, 0) + 1
        n_right[kind] = n_right.get(kind, 0) + (mistake is None)
        if mistake is not None:
            mistakes.setdefault(kind, mistake)
    return AnswerMetrics(n_right, n_asked, mistakes)


def _question(pairs: Pairs, number: int, engine: Engine) -> Continuation:
    """Return a prompt and its first answer."""
    ids, is_answer = pairs.example(number)
    begin = int(np.argmax(is_answer))
    end = begin + int(np.argmin([*is_answer[begin:], False]))
    prompt, answer = ids[:begin].tolist(), ids[begin:end].tolist()
    hidden = engine.tokenizer.controls.keys()
    text = engine.tokenizer.decode([id for id in prompt if id not in hidden])
    return Continuation(prompt, answer, text, decode_continuation(answer, engine.tokenizer))


def check(prompt: str, given: str, right: str) -> tuple[str, str | None]:
    """Return the kind of a question, and None for a right answer, else why it is wrong."""
    try:
        return tasks.kind_of(prompt), tasks.check_answer(prompt, given)
    except UserError:
        if given.strip() == right.strip():
            return EXACT, None
        return EXACT, f'the answer is "{given.strip()[:60]}", not "{right.strip()[:60]}"'


def rows(metrics: AnswerMetrics, two_steps: bool) -> list[tuple[str, int, int]]:
    """Return a label, the number of right answers and that of questions, for a table.

    Args:
        two_steps: a row for each kind of two steps; False: one for all with the same second step.
    """
    sums = dict[str, list[int]]()
    for kind, n in sorted(metrics.n_asked.items(), key=lambda item: " " in item[0]):
        first, _, second = kind.partition(" ")
        label = f"{first}, then {second}" if two_steps and second else kind
        if second and not two_steps:
            label = f"any, then {second}"
        row = sums.setdefault(label, [0, 0])
        row[0] += metrics.n_right[kind]
        row[1] += n
    return [(label, right, n) for label, (right, n) in sums.items()]
