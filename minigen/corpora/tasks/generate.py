"""Draw questions with their answers, and write them as pairs."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.corpora import splits
from minigen.corpora.dice import Dice
from minigen.corpora.tasks.tables import GRAMMAR, HELD_OUT, NUMBERS, PAST, STEPS, TRAINED, WORDS

VERSION = 2  # of the text format: the same version and seed give the same bytes
SPLITS = ("train", "val", "held_out")
VAL_SHARE = 10  # one of 10 prompts is for val.jsonl, and never in train.jsonl


@dataclass(frozen=True)
class Example:
    """A question and its answer.

    prompt: a text, and the question about it.
    completion: the answer. It begins with a space, as a word inside a text does, so that its words
        are the tokens of the prompt's.
    bits: exact -log2 p of the completion, given the prompt; 0 if no other is drawn.
    """

    prompt: str
    completion: str
    kind: str
    bits: float

    @property
    def text(self) -> str:
        """The example as a line of a JSON Lines file."""
        row = {"prompt": self.prompt, "completion": self.completion, "kind": self.kind}
        return json.dumps(row)


def documents(seed: int, split: str = "train") -> Iterator[Example]:
    """Yield examples without end; the k-th depends only on (seed, split, k), on every machine.

    A prompt of a kind in TRAINED belongs to training or to validation, for all seeds alike
    (test_no_prompt_is_in_two_splits).
    """
    weights = dict.fromkeys(HELD_OUT, 1) if split == "held_out" else TRAINED
    for k in itertools.count():
        rng = random.Random(f"{seed}/{split}/{k}")
        kind = Dice(rng).choose_weighted(weights)
        drawn = example(kind, rng)
        while split != "held_out" and is_for_validation(drawn.prompt) != (split == "val"):
            drawn = example(kind, rng)
        yield drawn


def is_for_validation(prompt: str) -> bool:
    """Return whether a prompt belongs to validation, which its hash decides."""
    return int.from_bytes(hashlib.sha256(prompt.encode("ascii")).digest()) % VAL_SHARE == 0


def example(kind: str, rng: random.Random) -> Example:
    """Draw an example of a kind.

    >>> example("reverse first", random.Random(0)).completion
    ' seven twelve nine: seven'
    """
    dice = Dice(rng)
    first, _, second = kind.partition(" ")
    memory: dict[str, str] = {}
    for name in GRAMMAR.remembered:
        memory[name] = GRAMMAR.draw_rule(name, memory, dice)
    n_answers = 1  # equally probable ones
    if first in ("hero", "friend", "place", "add", "past"):
        text, answer = draw_text(first, memory, dice)
    else:
        words = draw_words(kind, dice)
        text, answer = " ".join(words) + ".", answer_about_words(first, words, dice)
        n_answers = len(words) if first == "any" else 1
    question = STEPS[first]
    if second:
        then = STEPS[second]
        question += f" Then {then[0].lower()}{then[1:]}"
        answer += f": {second_answer(second, answer, dice)}"
    return Example(f"{text} {question}", f" {answer}", kind, math.log2(n_answers))


def draw_text(step: str, memory: Mapping[str, str], dice: Dice) -> tuple[str, str]:
    """Draw a tale or a sentence; return it, and the answer to the question of a step."""
    hero = f"{GRAMMAR.draw_rule('title', memory, dice)} {memory['hero']}"
    friend, place = f"little {memory['friend']}", f"in the faraway {memory['place']}"
    if step == "add":
        numbers = {i: word for i, word in enumerate(NUMBERS, start=2)}
        pairs = [(i, j) for i in numbers for j in numbers if i + j in numbers]
        left, right = dice.choose(pairs)
        things = GRAMMAR.draw_rule("things", memory, dice)
        text = f"{hero} has {numbers[left]} {things}, and {friend} has {numbers[right]} {things}."
        return text, numbers[left + right]
    if step == "past":
        verb, goal = dice.choose(list(PAST)), GRAMMAR.draw_rule("goal", memory, dice)
        return f"{hero} {verb} {goal}.", f"{hero} {PAST[verb]} {goal}"
    tale = GRAMMAR.draw_rule("tale", memory, dice)
    return tale, {"hero": hero, "friend": friend, "place": place}[step]


def draw_words(kind: str, dice: Dice) -> list[str]:
    """Draw a list of different words, which are numbers if they are to be sorted."""
    are_numbers = "sort" in kind or dice.happens(0.5)
    rest = list(NUMBERS if are_numbers else WORDS)
    lengths = (2, 3, 4, 5, 6) if kind == "count" else (3, 4) if are_numbers else (3, 4, 5)
    words = []
    for _ in range(dice.choose(lengths)):
        words.append(dice.choose(rest))
        rest.remove(words[-1])
    return words


def answer_about_words(step: str, words: list[str], dice: Dice) -> str:
    """Return the answer to the question of a step about a list of words."""
    if step == "sort":
        return " ".join(sorted(words, key=NUMBERS.index))
    if step == "count":
        return NUMBERS[len(words) - 2]
    if step == "any":
        return dice.choose(words)
    return {"first": words[0], "last": words[-1], "reverse": " ".join(words[::-1])}[step]


def second_answer(step: str, answer: str, dice: Dice) -> str:
    """Return the answer of a second step, which is about the answer of the first."""
    if step == "pirate":
        return f"Arr, {answer}, matey!"
    return answer_about_words(step, answer.split(), dice)


def write(
    folder: Path,
    train_bytes: int = 5_000_000,
    val_bytes: int = 200_000,
    held_out_bytes: int = 200_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write train.jsonl, val.jsonl, held_out.jsonl and facts.json, as `splits.write` does."""
    return splits.write(
        Path(folder),
        "tasks",
        {split: documents(seed, split) for split in SPLITS},
        dict(zip(SPLITS, (train_bytes, val_bytes, held_out_bytes), strict=True)),
        {"version": VERSION, "seed": seed},
        ending=".jsonl",
        between="\n",
        scored=lambda line: str(json.loads(line)["completion"]),
    )
