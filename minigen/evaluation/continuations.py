"""What a model writes beside real text that was cut the same way, and figures of both."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minigen.corpora import task
from minigen.data import TokenFile
from minigen.evaluation.repetition import (
    LEAST_LOOP,
    LongText,
    distinct,
    loops,
    self_repetition,
    twins,
)
from minigen.inference.engine import Engine
from minigen.model import GPT
from minigen.sampling import ROWS, Sampling
from minigen.system.streams import progress_bar
from minigen.tokenizer import Tokenizer

PROMPT_TOKENS = 16  # where no first line says what a text is to be; none of a short document
READ = 1 << 22  # tokens of a text to take excerpts from


@dataclass(frozen=True)
class Excerpt:
    """A beginning, real in any case, and what comes next: in the text, or as a model goes on."""

    prompt: list[int]  # for the model
    rest: list[int]  # with END_OF_TEXT, if the text ends there
    line: str  # or lines, that a document of a medium begins with; empty if it is of none
    body: str  # the text of `rest`

    @property
    def is_document(self) -> bool:
        """Whether the body is a short document from beginning to end, whose prompt says nothing."""
        return len(self.prompt) == 1 and self.prompt == self.rest[-1:]


def excerpts(
    tokens: TokenFile, tokenizer: Tokenizer, block: int, n_new: int, n_lines: int = 1
) -> list[Excerpt]:
    """What samples are to be compared with: documents, cut behind their first lines or tokens.

    Where most documents are of a medium, only those are taken, as one cut by the split is none. A
    short document, of less than 32 tokens, has no beginning but END_OF_TEXT: half a name would say
    little about a model that writes names. A document of no medium that outgrows the context is
    taken in pieces, each with so many new tokens at most.
    """
    ids = tokens.read(0, min(tokens.n_tokens, READ))
    found: list[Excerpt] = []
    plain: list[Excerpt] = []
    n_plain = 0
    for document in np.split(ids, np.flatnonzero(ids == tokens.end_of_text))[1:]:
        text = tokenizer.decode(document[1:].tolist())
        if task.of(text):
            line = task.first_lines(text, n_lines)
            body = text.removeprefix(line)
            rest = [*tokenizer.encode(body), tokens.end_of_text]
            found.append(Excerpt(tokenizer.encode_prompt(line, special=False), rest, line, body))
        else:
            n_plain += 1
            whole = [*document.tolist(), tokens.end_of_text]
            is_whole = len(whole) <= max(2, block)
            size = len(whole) if is_whole else max(2, min(block, PROMPT_TOKENS + n_new))
            is_short = is_whole and size < 2 * PROMPT_TOKENS
            for first in range(0, len(whole) - size + 1, size):
                n = first + (1 if is_short else min(PROMPT_TOKENS, size // 2))
                rest = whole[n : first + size]
                plain.append(Excerpt(whole[first:n], rest, "", body_of(rest, tokenizer)))
    return found if len(found) >= n_plain else plain


def body_of(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of ids, without the end."""
    hidden = tokenizer.stops & tokenizer.controls.keys()
    return tokenizer.decode([id for id in ids if id not in hidden])


def cut(one: Excerpt, n: int, tokenizer: Tokenizer) -> Excerpt:
    """At most so many tokens behind the same beginning."""
    rest = one.rest[:n]
    return replace(one, rest=rest, body=body_of(rest, tokenizer))


def evenly(items: Sequence[Excerpt], n: int) -> list[Excerpt]:
    """So many of the items, or all, from all over."""
    n = min(n, len(items))
    return [items[i * len(items) // n] for i in range(n)]


def write(
    engine: Engine, excerpts: Sequence[Excerpt], sampling: Sampling, limit: int, seed: int
) -> list[Excerpt]:
    """The same beginnings, and how the model goes on, with at most `limit` tokens.

    The n-th draws the random numbers of sample n, as sample.py's n-th does.
    """
    written = list[Excerpt]()
    with progress_bar(total=len(excerpts), desc="samples", leave=False) as bar:
        for first in range(0, len(excerpts), ROWS):
            batch = excerpts[first : first + ROWS]
            steps = engine.generate(
                [one.prompt for one in batch],
                sampling,
                max_new_tokens=limit,
                seed=seed,
                samples=range(first, first + len(batch)),
            )
            for one, tokens in zip(batch, zip(*steps, strict=True), strict=True):
                rest = [token.id for token in tokens if token]
                written.append(replace(one, rest=rest, body=body_of(rest, engine.tokenizer)))
            bar.update(len(batch))
    return written


@torch.no_grad()
def mean_entropy(model: GPT, texts: Sequence[Excerpt], n_vocab: int) -> float | None:
    """Of the model's predictions of what the texts have behind their prompts, in nats.

    None where the prompts fill the context, as any does that holds one token.
    """
    found: list[float] = []
    for one in texts:
        ids = [*one.prompt, *one.rest][: model.config.block_size]
        if len(ids) < 2:
            continue
        logits = model(torch.tensor([ids[:-1]]).to(model.embedding.weight.device))
        found += entropy(logits[0, len(one.prompt) - 1 :, :n_vocab]).tolist()
    return sum(found) / len(found) if found else None


def entropy(logits: Tensor) -> Tensor:
    """Of each prediction (..., V), in nats.

    >>> entropy(torch.zeros(4)).exp().item()
    4.0
    """
    entropies: Tensor = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)
    return entropies


# ---- figures of texts ----


Figures = dict[str, float | None]  # None: there is nothing to count


def figures(texts: Sequence[Excerpt], training: LongText | None, run: int) -> Figures:
    """Count what can be said of texts alone, and of copies only with the training text.

    Args:
        training: 0xFF, which is in no UTF-8, stands around each document.
        run: so many bytes of UTF-8 in common with the training text make a copy.
    """
    bodies = [one.body for one in texts]
    looping, same = [loops(body) for body in bodies], twins(bodies)
    found: Figures = {}
    if all(one.line for one in texts):
        found |= fidelity(texts)
    found |= {
        "identical": share(same) if len(texts) > 1 else None,
        "loops": share(looping) if max(map(len, bodies), default=0) >= LEAST_LOOP else None,
        "stuck": share(a or b for a, b in zip(looping, same, strict=True)),
        "self_repetition": self_repetition(bodies),
        **{f"distinct_{n}": distinct(bodies, n) for n in (1, 2, 3)},
    }
    if training is not None:
        contents = [body.encode() for body in bodies]
        copied = training.has_run(run, contents)
        whole = (
            b"\xff%b\xff" % content in training.content
            if one.is_document
            else has and content in training.content
            for one, content, has in zip(texts, contents, copied, strict=True)
        )
        found |= {
            "copied_run": share(copied) if max(map(len, contents), default=0) >= run else None,
            "copied_whole": share(whole),
            "longest_run": training.longest_run(contents),
        }
    return found


def fidelity(texts: Sequence[Excerpt]) -> Figures:
    """How many texts are what their first line says, and what that of another document says.

    The second is what a model would reach that does not read its prompt.
    """
    verdicts, by_chance = [], []
    for i, one in enumerate(texts):
        check = _medium(one).check
        verdicts.append(check(one.line + one.body))
        for other in itertools.chain(texts[i + 1 :], texts[:i]):
            if other.line != one.line and _medium(other) is _medium(one):
                by_chance.append(check(other.line + one.body).obeys)
                break
    return {
        **{
            name: share(getattr(verdict, name) for verdict in verdicts)
            for name in ("well_formed", "obeys", "valid")
        },
        "obeys_by_chance": share(by_chance) if by_chance else None,
    }


def _medium(one: Excerpt) -> task.Medium:
    found = task.of(one.line)
    assert found is not None
    return found


def share(flags: Iterable[bool]) -> float:
    """Of flags, how many are true; 0 of none."""
    every = list(flags)
    return sum(every) / max(1, len(every))


def copying_run(training: LongText, real: Sequence[Excerpt]) -> int:
    """60, 120, 240, ... bytes: the first that at most 5 % of real texts share with training."""
    run, contents = 60, [one.body.encode() for one in real]
    while share(training.has_run(run, contents)) > 0.05:
        run *= 2
    return run
