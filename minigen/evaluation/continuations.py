"""Real continuations of prompts from held-out text, and those that a model generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minigen.corpora import genre
from minigen.data import TokenStream
from minigen.inference.engine import Engine
from minigen.sampling import ROWS, Sampling
from minigen.system.streams import progress_bar
from minigen.tokenizer import Tokenizer

PROMPT_TOKENS = 16  # prompt of a document whose first line states no conditions
MAX_READ = 1 << 22  # tokens of a text; prompts are taken from these


@dataclass(frozen=True)
class Continuation:
    """A prompt from a real text, and its continuation: the real one, or a model's."""

    prompt: list[int]  # token ids
    ids: list[int]  # token ids of the continuation, with END_OF_TEXT if the document ends there
    first_lines: str  # the prompt's text if a corpus can check the document; "" if none can
    text: str  # the text of `ids`, without END_OF_TEXT

    @property
    def is_document(self) -> bool:
        """True if the text is a whole short document, whose prompt is END_OF_TEXT alone."""
        return len(self.prompt) == 1 and self.prompt == self.ids[-1:]


def real_continuations(
    tokens: TokenStream,
    tokenizer: Tokenizer,
    block_size: int,
    max_new_tokens: int,
    n_lines: int = 1,
) -> list[Continuation]:
    """Cut documents into prompts and continuations.

    The prompt of a tale, picture or tune is its first lines. If at least half of the
    documents are of these kinds, the others are left out: the split may have cut off their first
    lines.

    The prompt of another document is its first 16 tokens. A document that is longer than the
    context gives several pieces, each with a prompt. A document of fewer than 32 tokens, such as a
    name, has no prompt but END_OF_TEXT: half a name would say little about a model that writes
    names.

    Args:
        block_size: the longest piece, in tokens, with its prompt.
        max_new_tokens: the longest continuation of a piece, in tokens.
        n_lines: lines of a tale, picture or tune that are its prompt.
    """
    ids = tokens.read(0, min(tokens.n_tokens, MAX_READ))
    of_genres: list[Continuation] = []
    others: list[Continuation] = []
    n_others = 0
    for document in np.split(ids, np.flatnonzero(ids == tokens.end_of_text))[1:]:
        text = tokenizer.decode(document[1:].tolist())
        if genre.detect(text):
            first_lines = genre.first_lines(text, n_lines)
            text = text.removeprefix(first_lines)
            prompt = tokenizer.encode_prompt(first_lines, special=False)
            rest = [*tokenizer.encode(text), tokens.end_of_text]
            of_genres.append(Continuation(prompt, rest, first_lines, text))
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
    return of_genres if len(of_genres) >= n_others else others


def decode_continuation(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the text of token ids, without the tokens that end a text."""
    hidden = tokenizer.stop_ids & tokenizer.controls.keys()
    return tokenizer.decode([id for id in ids if id not in hidden])


def truncated(continuation: Continuation, n_tokens: int, tokenizer: Tokenizer) -> Continuation:
    """Return the same prompt with the first `n_tokens` of its continuation."""
    ids = continuation.ids[:n_tokens]
    return replace(continuation, ids=ids, text=decode_continuation(ids, tokenizer))


def evenly_spaced(continuations: Sequence[Continuation], n: int) -> list[Continuation]:
    """Return `n` continuations at even distances in the sequence, or all if there are fewer."""
    n = min(n, len(continuations))
    return [continuations[i * len(continuations) // n] for i in range(n)]


def generated_continuations(
    engine: Engine, prompts: Sequence[Continuation], sampling: Sampling, limit: int, seed: int
) -> list[Continuation]:
    """Let a model continue the same prompts, each with at most `limit` tokens.

    The n-th continuation uses the random numbers of the n-th sample of sample.py.
    """
    samples = list[Continuation]()
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
                samples.append(
                    replace(one, ids=ids, text=decode_continuation(ids, engine.tokenizer))
                )
            bar.update(len(batch))
    return samples
