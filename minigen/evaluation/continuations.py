"""Real and generated continuations: the same prompts from held-out text, continued two ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minigen.corpora import task
from minigen.data import TokenStream
from minigen.inference.engine import Engine
from minigen.sampling import ROWS, Sampling
from minigen.system.streams import progress_bar
from minigen.tokenizer import Tokenizer

PROMPT_TOKENS = 16  # of a document whose first line does not say what the text is to be
MAX_READ = 1 << 22  # tokens of a text that prompts are taken from


@dataclass(frozen=True)
class Continuation:
    """A prompt from a real text, and what comes after it: in that text, or from a model."""

    prompt: list[int]  # token ids
    ids: list[int]  # of the continuation, with END_OF_TEXT if the document ends there
    first_lines: str  # the prompt's text where a corpus can check it; "" for other documents
    text: str  # of `ids`, without END_OF_TEXT

    @property
    def is_document(self) -> bool:
        """Whether the text is a whole short document, whose prompt is END_OF_TEXT alone."""
        return len(self.prompt) == 1 and self.prompt == self.ids[-1:]


def real_continuations(
    tokens: TokenStream,
    tokenizer: Tokenizer,
    block_size: int,
    max_new_tokens: int,
    n_lines: int = 1,
) -> list[Continuation]:
    """Cut documents after their first lines or tokens.

    Where most documents are tales, pictures or tunes, only those are taken, as the split may have
    cut another one. A short document, of less than 32 tokens, has no prompt but END_OF_TEXT: half
    a name would say little about a model that writes names. Any other document that outgrows the
    context is taken in pieces.

    Args:
        block_size: the longest piece, in tokens, with its prompt.
        max_new_tokens: of a piece, after its prompt.
        n_lines: of a tale, picture or tune, that are its prompt.
    """
    ids = tokens.read(0, min(tokens.n_tokens, MAX_READ))
    of_tasks: list[Continuation] = []
    others: list[Continuation] = []
    n_others = 0
    for document in np.split(ids, np.flatnonzero(ids == tokens.end_of_text))[1:]:
        text = tokenizer.decode(document[1:].tolist())
        if task.detect(text):
            first_lines = task.first_lines(text, n_lines)
            text = text.removeprefix(first_lines)
            prompt = tokenizer.encode_prompt(first_lines, special=False)
            rest = [*tokenizer.encode(text), tokens.end_of_text]
            of_tasks.append(Continuation(prompt, rest, first_lines, text))
        else:
            n_others += 1
            whole = [*document.tolist(), tokens.end_of_text]
            fits = len(whole) <= max(2, block_size)
            size = len(whole) if fits else max(2, min(block_size, PROMPT_TOKENS + max_new_tokens))
            is_short = fits and size < 2 * PROMPT_TOKENS
            for first in range(0, len(whole) - size + 1, size):
                begin = first + (1 if is_short else min(PROMPT_TOKENS, size // 2))
                rest = whole[begin : first + size]
                text = decode_continuation(rest, tokenizer)
                others.append(Continuation(whole[first:begin], rest, "", text))
    return of_tasks if len(of_tasks) >= n_others else others


def decode_continuation(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the text of ids, without the tokens that end a text."""
    hidden = tokenizer.stop_ids & tokenizer.controls.keys()
    return tokenizer.decode([id for id in ids if id not in hidden])


def truncated(continuation: Continuation, n_tokens: int, tokenizer: Tokenizer) -> Continuation:
    """Return the same prompt with the first `n_tokens` of its continuation."""
    ids = continuation.ids[:n_tokens]
    return replace(continuation, ids=ids, text=decode_continuation(ids, tokenizer))


def evenly_spaced(continuations: Sequence[Continuation], n: int) -> list[Continuation]:
    """Return `n` continuations from all over the sequence, or all if there are fewer."""
    n = min(n, len(continuations))
    return [continuations[i * len(continuations) // n] for i in range(n)]


def generated_continuations(
    engine: Engine, prompts: Sequence[Continuation], sampling: Sampling, limit: int, seed: int
) -> list[Continuation]:
    """Let a model continue the same prompts, each with at most `limit` tokens.

    The n-th continuation draws the random numbers of sample n, as in sample.py.
    """
    written = list[Continuation]()
    with progress_bar(total=len(prompts), desc="samples", leave=False) as bar:
        for first in range(0, len(prompts), ROWS):
            batch = prompts[first : first + ROWS]
            steps = engine.generate(
                [one.prompt for one in batch],
                sampling,
                max_new_tokens=limit,
                seed=seed,
                samples=range(first, first + len(batch)),
            )
            for one, tokens in zip(batch, zip(*steps, strict=True), strict=True):
                ids = [token.id for token in tokens if token]
                written.append(
                    replace(one, ids=ids, text=decode_continuation(ids, engine.tokenizer))
                )
            bar.update(len(batch))
    return written
