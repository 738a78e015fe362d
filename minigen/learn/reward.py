"""Train a model with the learner's functions in place of minigen's, and write a text with them.

minigen goes fast ways round some of its lesson: `train_bpe` round `naive_bpe`, a kernel of PyTorch
round `naive_attention`, a cache and a decoder in C round `naive_generate`. Here the way of the
lesson is taken, so that the learner's functions do the work, and each call of them is counted.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import regex
from torch import Tensor

from minigen import model as lesson
from minigen import tokenizer as tokenizers
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.learn.command import LearnConfig, call, file_of
from minigen.learn.course import EXERCISES
from minigen.learn.exercise import AnyFunction, Exercise
from minigen.learn.learner import Fault, explain, in_place, load, replaced
from minigen.learn.progress import Progress
from minigen.learn.words import say
from minigen.run import library
from minigen.sampling import Sampling, naive_generate
from minigen.system.shell import command
from minigen.tokenizer import Tokenizer

PROMPT = "hero: Sir Fox,"
LENGTH = 80  # tokens of the text
SAMPLING = Sampling(temperature=0.8, top_k=50, top_p=0.95)  # with each filter of the course


def train(config: LearnConfig, progress: Progress) -> int:
    """Train on tales with all functions that passed, and write a text.

    Returns 0, or 1 if a function of the learner raises an error.

    Raises `UserError` if no exercise has passed.
    """
    folder = config.folder
    files = {exercise: file_of(config, exercise.name) for exercise in EXERCISES}
    mine = {one: path for one, path in files.items() if progress.is_passed(one.name, path)}
    for one in [one for one in files if one.name in progress.passed and one not in mine]:
        print(
            f"{one.name} was changed after its check, so minigen's own is used; check it again: "
            f"{call(config, one.name, '--check')}",
            file=sys.stderr,
        )
    if not mine:
        raise UserError(f"no exercise has passed yet; begin with {call(config)}")
    say(f"Training with your own {', '.join(one.qualname for one in mine)}.")
    sys.stdout.flush()  # the lines of the training go to stderr
    calls = Counter[str]()
    try:
        with learners_functions(mine, calls):
            # The tokens in the cache are of an earlier run, perhaps with minigen's own functions.
            os.environ["MINIGEN_DATA"] = str((folder / "data").absolute())
            shutil.rmtree(folder / "data" / "cache", ignore_errors=True)
            run = library.train(
                "tales", minutes=config.minutes, name="learn", device="cpu", compile="no"
            )
            text, seconds = write(run.folder)
    except Fault as fault:
        print(fault)
        return 1
    except Exception as error:
        words = filter(None, (explain(error, path) for path in mine.values()))
        if (found := next(words, None)) is None:
            raise
        print(found)
        return 1
    print("\nCalls of your functions:")
    for one in mine:
        count = f"{calls[one.name]:,}" if calls[one.name] else "none, as this run does not need it"
        print(f"  {one.name:14}{one.qualname}: {count}")
    print(f"\nWritten with them:\n\n{text}\n")
    own_text, own_seconds = write(run.folder)
    verdict = "the same text"
    if text != own_text:
        verdict = "another text, as a difference in rounding can draw another token,"
    print(
        f"minigen's own functions write {verdict} with this model: in {own_seconds:.1f} s, yours "
        f"in {seconds:.1f} s."
    )
    folder_of_run = Path(os.path.relpath(run.folder))
    print(f"The model is an ordinary run: {command('sample', '--run', folder_of_run)}")
    return 0


def write(run: Path) -> tuple[str, float]:
    """Return the text that the best model of a run writes by `naive_generate`, and the seconds."""
    best = checkpoint.load_best(run)
    began = time.perf_counter()
    ids = naive_generate(
        best.model(),
        best.tokenizer.encode_prompt(PROMPT),
        SAMPLING,
        n_vocab=best.tokenizer.n_vocab,
        block_size=best.config.block_size,
        max_new_tokens=LENGTH,
    )
    ends = [n for n, id in enumerate(ids) if id in best.tokenizer.stop_ids]
    text = PROMPT + best.tokenizer.decode(ids[: ends[0]] if ends else ids)
    return text, time.perf_counter() - began


# ---- the learner's functions in the place of minigen's ----


@contextlib.contextmanager
def learners_functions(mine: Mapping[Exercise, Path], calls: Counter[str]) -> Iterator[None]:
    """Set the learner's functions in place of minigen's, and close the ways round them.

    Args:
        mine: the exercises that passed, and their files.
        calls: the number of calls is counted here, by the name of the exercise.
    """
    functions = {one: load(one, path) for one, path in mine.items()}
    with contextlib.ExitStack() as stack:
        for one, function in functions.items():
            stack.enter_context(in_place(one, counted(function, one.name, calls)))
        for target, owner, name, function in WAYS:
            if target in {one.target for one in mine}:
                stack.enter_context(replaced(owner, name, function))
        yield


def counted(function: AnyFunction, name: str, calls: Counter[str]) -> AnyFunction:
    """Return a function that does the same, and counts its calls."""

    @functools.wraps(function)
    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return function(*args, **kwargs)

    return counting


def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Compute `attention` by the formula, for any length and without gradients, too."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    return lesson.naive_attention(q, k, v, mask, dropout)


def _train_bpe(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    """Learn tokens step by step, by `naive_bpe`."""
    return tokenizers.naive_bpe(words, n_tokens)


_ids_of_words: WeakKeyDictionary[Tokenizer, dict[str, list[int]]] = WeakKeyDictionary()


def _encode_array(self: Tokenizer, text: str) -> npt.NDArray[np.uint32]:
    """Encode each different word of a text once, by `naive_encode`."""
    ids_of, ids = _ids_of_words.setdefault(self, {}), list[int]()
    for word in regex.findall(tokenizers.PATTERN, text):
        if word not in ids_of:
            ids_of[word] = tokenizers.naive_encode(word, self.tokens[: self.end_of_text])
        ids += ids_of[word]
    return np.array(ids, np.uint32)


def _encode_documents(self: Tokenizer, documents: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Encode documents, END_OF_TEXT before each."""
    end_of_text = np.array([self.end_of_text], np.uint32)
    parts = [part for text in documents for part in (end_of_text, self.encode_array(text))]
    return np.concatenate(parts)


# For a target, the function of minigen that goes round it, and one that does not.
WAYS: tuple[tuple[str, Any, str, Callable[..., Any]], ...] = (
    ("minigen.model:naive_weights", lesson, "attention", _attention),
    ("minigen.tokenizer:naive_bpe", tokenizers, "train_bpe", _train_bpe),
    ("minigen.tokenizer:naive_encode", Tokenizer, "encode_array", _encode_array),
    ("minigen.tokenizer:naive_encode", Tokenizer, "encode_documents", _encode_documents),
)
