"""Text out of a model: predict, filter, draw one token, append it, and again.

    texts --model--> logits --filters--> probabilities --random number--> one more token each

`naive_generate` is the definition, and `generate` computes the same tokens faster. The model is any
callable that maps ids to logits: this file knows no transformer. Tests named in parentheses are in
tests/test_sampling.py.

Shapes, everywhere in this file:
    B  texts that grow      T  tokens that the model reads at once      V  the model's vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from minigen.errors import UserError

Texts = Sequence[Sequence[int]]  # the ids so far of each of B texts
ROWS = 64  # the largest number of texts that the commands let grow at once


@dataclass(frozen=True)
class Sampling:
    """The settings that turn logits into the probabilities to draw from.

    They are flags of all commands that sample. `PLAIN` leaves the model's probabilities as they
    are. Raises `UserError` for a value outside its range.
    """

    temperature: float = 0.8  # below 1 is safer, above 1 bolder; 0 takes the most probable token
    top_k: int | None = None  # draw from the k most probable tokens only (default: from all)
    top_p: float = 1.0  # draw from the fewest tokens that together reach this probability
    min_p: float = 0.1  # draw from tokens with at least this times the best one's probability
    repetition_penalty: float = 1.0  # above 1 makes tokens that are already there less probable

    def __post_init__(self) -> None:
        for name, fits, needed in (
            ("temperature", 0 <= self.temperature < math.inf, "0 (most probable token) or more"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more (not given: all tokens)"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (1: all tokens)"),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1 (0: all tokens)"),
            ("repetition_penalty", 0.01 <= self.repetition_penalty <= 100, "0.01 to 100"),
        ):
            if not fits:
                raise UserError(f"{name} is {getattr(self, name)}; give {needed}")


PLAIN = Sampling(temperature=1.0, min_p=0.0)  # draws from the probabilities that the model predicts

# Each filter has the name of its setting. It takes logits (B, V) and returns logits (B, V), with
# -inf for a token that it cuts: the softmax gives that token the probability 0.


def repetition_penalty(logits: Tensor, texts: Texts, penalty: float) -> Tensor:
    """Make the tokens of each row's text less probable (Keskar et al. 2019, arXiv:1909.05858).

    Positive logits are divided by `penalty` and negative ones multiplied, so that a penalty above 1
    lowers both.
    """
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, text in zip(seen, texts, strict=True):
        row[torch.tensor(text, dtype=torch.long)] = True
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def temperature(logits: Tensor, value: float) -> Tensor:
    """Divide the logits by `value`; at 0, leave only the first of the most probable tokens.

    Each probability p becomes p^(1 / value), and all are scaled to the sum 1 again. A temperature
    of 0.5 squares them, so that probable tokens win; 2 takes the root, so that rare ones get a
    chance (test_temperature_raises_probabilities_to_a_power).

    Subtracting the largest logit first leaves the probabilities as they are. Then a
    division by even the smallest temperature can overflow to -inf only, the probability 0.
    """
    if value == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(-1, best, 0.0)
    return (logits - logits.amax(dim=-1, keepdim=True)) / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Cut all but the k most probable tokens; ties with the last of them stay too."""
    return logits.masked_fill(logits < logits.topk(k).values[..., -1:], -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Cut the least probable tokens, as long as their probabilities add up to at most 1 - p.

    The tokens that remain are the "nucleus" of Holtzman et al. 2019, arXiv:1904.09751. Of equally
    probable tokens, those with the lowest ids are cut
    (test_top_p_cuts_the_lowest_ids_of_equal_tokens).
    """
    ordered, ids = logits.sort(dim=-1, stable=True)  # least probable first
    cut = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    cut[..., -1] = False  # rounding must not cut the most probable one
    return logits.masked_fill(cut.scatter(-1, ids, cut), -math.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Cut tokens less probable than p times the best one (Nguyen et al. 2024, arXiv:2407.01082)."""
    chance = logits.softmax(dim=-1)
    return logits.masked_fill(chance < p * chance.amax(dim=-1, keepdim=True), -math.inf)


def filter_steps(logits: Tensor, texts: Texts, s: Sampling) -> Iterator[tuple[str, Tensor]]:
    """Apply each filter that is switched on; yield its name and the logits (B, V) after it.

    The order is repetition_penalty, temperature, top_k, top_p, min_p. It matters: top_p and min_p
    compare probabilities, which the temperature before them has changed, so a higher temperature
    lets more tokens through; and top_p adds up the probabilities of the tokens that top_k has left.
    It is the order of transformers
    (test_all_filters_together_are_transformers_in_its_order).
    """
    if s.repetition_penalty != 1:
        logits = repetition_penalty(logits, texts, s.repetition_penalty)
        yield "repetition_penalty", logits
    logits = temperature(logits, s.temperature)
    yield "temperature", logits
    if s.top_k is not None:
        logits = top_k(logits, s.top_k)
        yield "top_k", logits
    if s.top_p < 1:
        logits = top_p(logits, s.top_p)
        yield "top_p", logits
    if s.min_p > 0:
        logits = min_p(logits, s.min_p)
        yield "min_p", logits


def filtered(logits: Tensor, texts: Texts, s: Sampling) -> Tensor:
    """Return the logits (B, V) after all filters that are switched on."""
    *_, (_, last) = filter_steps(logits, texts, s)
    return last


def uniform(seed: int, sample: int, n: int) -> float:
    """Return the random number in [0, 1) for token n of a sample.

    The number is a function of its arguments alone: there is no generator whose state has to be
    kept, and no other sample can use up a number
    (test_a_random_number_depends_on_all_its_arguments_and_never_changes).
    """
    return _uniforms(seed, sample, n // 64)[n % 64]


@lru_cache(maxsize=1024)
def _uniforms(seed: int, sample: int, block: int) -> list[float]:
    """Return the random numbers for the 64 tokens from 64 * block on.

    Philox makes four numbers at each count; the first is the token's.
    """
    count = 64 * block
    bits = np.random.Philox(key=seed, counter=[count, sample, 0, 0]).random_raw(4 * 64)[::4] >> 11
    return [int(number) * 2.0**-53 for number in bits]


def inverse_cdf(probabilities: Tensor, u: float) -> int:
    """Return the token in whose part of the line from 0 to 1 the number u falls.

    The tokens lie side by side in the order of their ids, each as wide as its probability. So a
    random u meets each token as often as it is probable
    (test_tokens_are_drawn_as_often_as_they_are_probable), and a token of probability 0, which has
    no width, never. The ends of the tokens are the cumulative distribution function (CDF), and the
    token at u is its inverse: this is inverse-CDF sampling.

    Args:
        probabilities: (V,).
        u: the number, 0 <= u < 1.

    >>> inverse_cdf(torch.tensor([0.5, 0.0, 0.5]), 0.5)
    2
    """
    ends = probabilities.cumsum(dim=0)  # token i owns ends[i - 1] <= x < ends[i]
    return int(torch.searchsorted(ends, u * ends[-1], right=True))


def context_length(n_tokens: int, block_size: int) -> int:
    """Return the number of latest tokens of a text that the model sees: all, as long as they fit.

    A text that outgrows block_size is cut to its latest block_size / 2 tokens and grows again. A
    cut makes all entries of the cache wrong. If each token led to a cut, each would need a pass
    over the whole context; this way one token in block_size / 2 does. The cuts depend on the text's
    length only: a long prompt is cut as if it had been generated token by token.

    >>> [context_length(n, block_size=8) for n in range(7, 16)]
    [7, 8, 4, 5, 6, 7, 8, 4, 5]
    """
    if n_tokens <= block_size:
        return n_tokens
    half = max(1, block_size // 2)
    return half + (n_tokens - block_size - 1) % (block_size - half + 1)


def naive_generate(
    model: Callable[[Tensor], Tensor],
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    n_vocab: int,
    block_size: int,
    max_new_tokens: int,
    seed: int = 0,
    sample: int = 0,
) -> list[int]:
    """Continue a prompt and return the new ids: the definition of the tokens of `generate`.

    For each new token the model reads all tokens of the context once more, and all its predictions
    but the last are thrown away.

    Args:
        model: ids (1, T) -> logits (1, T, V); a `GPT` in evaluation mode.
        n_vocab: ids from here on only pad the model's vocabulary and are never drawn.
        block_size: the number of tokens that the model can see.
        sample: the number of this text; seed and sample decide all random numbers.
    """
    ids = list(prompt)
    for n in range(max_new_tokens):
        context = ids[-context_length(len(ids), block_size) :]
        with torch.no_grad():
            predictions = model(torch.tensor([context]))  # (1, T, V): of each next token
        logits = predictions[:, -1, :n_vocab].double()  # (1, n_vocab)
        probabilities = filtered(logits, [ids], sampling)[0].softmax(dim=-1)  # (n_vocab,)
        ids.append(inverse_cdf(probabilities, uniform(seed, sample, n)))
    return ids[len(prompt) :]


# Everything below computes the same tokens faster: a cache keeps the keys and values of tokens that
# the model has read, several texts grow at once, and temperature 0 needs no filters.


def draw(logits: Tensor, texts: Texts, s: Sampling, numbers: Sequence[float]) -> list[int]:
    """Filter logits (B, V), and return a token for each of the B random numbers."""
    if s.temperature == 0:  # only the most probable token is left: find it without the filters
        if s.repetition_penalty != 1:
            logits = repetition_penalty(logits, texts, s.repetition_penalty)
        return [*logits.argmax(dim=-1).tolist()]
    # `inverse_cdf` of each row, in NumPy: a call of PyTorch takes longer than the search itself.
    rows = filtered(logits, texts, s).softmax(dim=-1).cumsum(dim=-1).numpy()
    pairs = zip(rows, numbers, strict=True)
    return [int(ends.searchsorted(u * ends[-1], side="right")) for ends, u in pairs]


@dataclass(frozen=True, eq=False)
class Token:
    """A token that was drawn, and the numbers that led to it."""

    id: int
    u: float  # the random number
    logits: Tensor  # the model's prediction, (n_vocab,), float64, on the CPU
    ids: Sequence[int]  # the text that the token belongs to; later tokens are appended to this list
    at: int  # the token's index in the text
    n_truncated: int  # tokens at the text's beginning that the model no longer sees

    @property
    def text(self) -> Sequence[int]:
        """Return the ids that the token follows, (at,)."""
        return self.ids[: self.at]


class Cache(Protocol):
    """The parts of a key-value cache that this file uses; see `minigen.model.KVCache`."""

    kv: Tensor  # (n_layer, B, 2 Hk, capacity, D)
    lengths: Tensor  # (B,)

    @property
    def capacity(self) -> int: ...


AnyCache = TypeVar("AnyCache", bound=Cache)


class CachedPredictor(Generic[AnyCache]):
    """Predict the next token of several growing texts, reading only the new tokens of each."""

    def __init__(
        self,
        model: Callable[[Tensor, AnyCache, Tensor], Tensor],
        new_cache: Callable[[int], AnyCache],
    ) -> None:
        self.model, self.new_cache = model, new_cache
        self.rows: list[int] = []  # the number of the text that each row of the cache belongs to
        self.cache = new_cache(0)
        self.block_size = self.cache.capacity

    # No gradients inside this call only: a decorator on `generate`, which yields to its caller,
    # would switch off the caller's gradients too.
    @torch.no_grad()
    def predict(self, texts: Mapping[int, Sequence[int]]) -> Tensor:
        """Return the logits (B, V), float64 on the CPU, of the token after each text.

        Args:
            texts: {number of the text: its ids}. If each text has grown by one token since the last
                call, one token of each is read; otherwise the caches are computed again, as after a
                cut (`context_length`). Texts of the last call may be left out.
        """
        _select(self.cache, [self.rows.index(row) for row in texts if row in self.rows])
        self.rows = list(texts)
        visible = [context_length(len(text), self.block_size) for text in texts.values()]
        if visible == (self.cache.lengths + 1).tolist():
            return self._read([text[-1:] for text in texts.values()])
        return self._prefill([text[-n:] for n, text in zip(visible, texts.values(), strict=True)])

    def take(self, other: CachedPredictor[AnyCache]) -> None:
        """Append the texts of another predictor, to read new tokens of all texts together."""
        if self.rows:
            _join(self.cache, other.cache)
        else:
            self.cache = other.cache
        self.rows = self.rows + other.rows
        self.block_size = max(self.block_size, other.block_size)

    def _prefill(self, contexts: Sequence[Sequence[int]]) -> Tensor:
        """Read whole contexts into a new cache; return the logits (B, V) after each context."""
        keys = [tuple(context) for context in contexts]
        distinct = list(dict.fromkeys(keys))  # read a prompt of n samples once, then copy it
        self.cache = self.new_cache(len(distinct))
        logits = self._read(distinct)
        copies = [distinct.index(key) for key in keys]
        _select(self.cache, copies)
        return logits[copies]

    def _read(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Read the next tokens of each row into the cache; return the logits (B, V) after them."""
        T = max(len(piece) for piece in pieces)
        ids = torch.tensor([[*piece, *[0] * (T - len(piece))] for piece in pieces])  # (B, T)
        lengths = torch.tensor([len(piece) for piece in pieces]).to(self.cache.lengths.device)
        logits = self.model(ids.to(lengths.device), self.cache, lengths - 1)  # (B, 1, V)
        self.cache.lengths += lengths
        return logits[:, 0].cpu().double()  # in this order: Apple's GPUs have no float64


def _select(cache: Cache, rows: list[int]) -> None:
    """Reduce the cache to these rows, in this order; a row that is named twice is copied."""
    if rows != list(range(len(cache.lengths))):
        cache.kv, cache.lengths = cache.kv[:, rows], cache.lengths[rows]


def _join(cache: Cache, other: Cache) -> None:
    """Append the rows of `other` to the cache, which gets the larger capacity of the two."""
    capacity = max(cache.capacity, other.capacity)
    kvs = [nn.functional.pad(c.kv, (0, 0, 0, capacity - c.capacity)) for c in (cache, other)]
    cache.kv = torch.cat(kvs, dim=1)
    cache.lengths = torch.cat((cache.lengths, other.lengths))


def check_settings(sampling: Sampling, n_vocab: int, seed: int) -> None:
    """Raise `UserError` for settings that do not fit a model of `n_vocab` ids."""
    if sampling.top_k is not None and sampling.top_k > n_vocab:
        raise UserError(f"top_k is {sampling.top_k}; give at most {n_vocab}, all tokens")
    if not 0 <= seed < 2**64:
        raise UserError(f"seed is {seed}; give 0 to 2^64 - 1")


def check_finite(logits: Tensor) -> None:
    """Raise `UserError` if the model predicts NaN."""
    if not math.isfinite(logits.sum()):
        raise UserError("the model predicts NaN: its weights are broken; use an earlier one")


def generate(
    model: Callable[[Tensor, AnyCache, Tensor], Tensor],
    new_cache: Callable[[int], AnyCache],
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    n_vocab: int,
    max_new_tokens: int,
    end_of_text: int | Collection[int] | None = None,
    seed: int = 0,
    samples: Sequence[int] | None = None,
    finished: set[int] | None = None,
) -> Iterator[list[Token | None]]:
    """Continue each prompt: each step yields one new token per row, None for a row that has ended.

    The tokens of row b are the tokens of `naive_generate` for prompts[b] and samples[b], alone or
    among other rows (test_generate_is_naive_generate, test_a_sample_is_the_same_in_any_batch). One
    condition: a model may add up in another order for another number of rows, and its logits then
    differ by rounding. A random number that falls that close to the border between two tokens can
    draw the other token. On a CPU minigen/inference/cpu.c adds up in one order, so there the texts
    are the same in every case.

    Args:
        model: (ids (B, T), cache, at (B,)) -> logits (B, 1, V) of the token after index at[b];
            a `GPT` in evaluation mode.
        new_cache: number of rows -> an empty cache; its capacity is the context's length.
        prompts: ids, at least one for each row. For n samples of one prompt, give it n times.
        n_vocab: ids from here on only pad the model's vocabulary and are never drawn.
        end_of_text: the id, or the ids, that end a row after they are yielded; None: no id does.
        samples: row b draws the random numbers of sample samples[b]; None: of sample b.
        finished: a row that the caller adds to this set gets no more tokens.

    Raises `UserError`, at the first token, for settings that do not fit the model, and if the
    model predicts NaN.

    >>> empty = lambda rows: KVCache(gpt.config, rows, gpt.config.block_size)  # doctest: +SKIP
    >>> limits = {"n_vocab": 50257, "max_new_tokens": 20}
    >>> for [token] in generate(gpt, empty, [[50256]], Sampling(), **limits):  # doctest: +SKIP
    ...     print(token.id)
    """
    check_settings(sampling, n_vocab, seed)
    if isinstance(model, nn.Module) and model.training:
        raise ValueError("the model is in training mode, with dropout on; call model.eval()")
    if not all(prompts):
        raise ValueError("a prompt has no token; begin it with the end-of-text token")
    samples = range(len(prompts)) if samples is None else samples
    ends = (end_of_text,) if isinstance(end_of_text, int) else end_of_text or ()
    finished = set() if finished is None else finished
    predictor = CachedPredictor(model, new_cache)
    texts = {row: list(prompt) for row, prompt in enumerate(prompts)}

    for n in range(max_new_tokens):
        texts = {row: text for row, text in texts.items() if row not in finished}
        if not texts:
            return
        logits = predictor.predict(texts)[:, :n_vocab]  # (B, n_vocab)
        check_finite(logits)
        numbers = [uniform(seed, samples[row], n) for row in texts]
        ids = draw(logits, list(texts.values()), sampling, numbers)
        step: list[Token | None] = [None] * len(prompts)
        for b, (row, text) in enumerate(texts.items()):
            n_truncated = len(text) - context_length(len(text), predictor.block_size)
            step[row] = Token(ids[b], numbers[b], logits[b], text, len(text), n_truncated)
            text.append(ids[b])
            if ids[b] in ends:
                finished.add(row)
        yield step
