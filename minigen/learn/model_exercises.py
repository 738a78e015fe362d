"""The exercises on minigen/model.py."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.learn.exercise import AnyFunction, Exercise, Mistake, Theorem
from minigen.model import (
    MLP,
    Block,
    GPTConfig,
    KVCache,
    LayerCache,
    RMSNorm,
    rope_cos_sin,
)

# The smallest models that have everything: vectors of 4 numbers, two heads, rotary positions.
GPT2 = GPTConfig.gpt2(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=4)
MODERN = GPTConfig.modern(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=4, head_dim=4)

Module = TypeVar("Module", bound=nn.Module)


def _numbers(*shape: int, seed: int = 1) -> Tensor:
    """Return random numbers of this shape, the same at each call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _filled(module: Module) -> Module:
    """Fill all parameters of a module with random numbers, the same at each call."""
    for seed, p in enumerate(module.parameters()):
        p.data = _numbers(*p.shape, seed=seed)
    return module


# ---- attention ----


def _trial_of_weights(weights: AnyFunction) -> list[Tensor]:
    """Return the weights of five tokens, causal and with a mask, in heads of four numbers."""
    q, k = _numbers(2, 1, 2, 5, 4)
    window = torch.ones(5, 5).tril().triu(-1).bool()  # each token sees itself and the one before
    return [weights(q, k), weights(q, k, window)]


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / math.sqrt(q.shape[-1])


def _causal(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones(q.shape[-2], k.shape[-2]).tril().bool() if mask is None else mask


def _unscaled(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    return (q @ k.mT).masked_fill(~_causal(q, k, mask), -math.inf).softmax(-1)


def _divided_by_width(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    return (q @ k.mT / q.shape[-1]).masked_fill(~_causal(q, k, mask), -math.inf).softmax(-1)


def _softmax_over_queries(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    return _scores(q, k).masked_fill(~_causal(q, k, mask), -math.inf).softmax(-2)


def _sees_all(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    mask = torch.ones_like(_causal(q, k, None)) if mask is None else mask
    return _scores(q, k).masked_fill(~mask, -math.inf).softmax(-1)


def _sees_the_next(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    mask = torch.ones(q.shape[-2], k.shape[-2]).tril(1).bool() if mask is None else mask
    return _scores(q, k).masked_fill(~mask, -math.inf).softmax(-1)


def _always_causal(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    return _scores(q, k).masked_fill(~_causal(q, k, None), -math.inf).softmax(-1)


def _zero_hides(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    return _scores(q, k).masked_fill(~_causal(q, k, mask), 0.0).softmax(-1)


def _masks_after_softmax(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    return _scores(q, k).softmax(-1).masked_fill(~_causal(q, k, mask), 0.0)


WEIGHTS = Exercise(
    name="attention",
    title="Attention: how much each token takes from each other",
    target="minigen.model:naive_weights",
    task="Compute the scores q k^T / sqrt(D), hide the keys that a query may not see, and turn the "
    "scores of each query into weights with the sum 1.",
    hints=(
        "The scores are one matrix product: (B, H, T, D) times (B, H, D, S). Transpose k.",
        "A hidden key has the score -inf, since exp(-inf) is 0. Without a mask, query t sees the "
        "keys 0 to t: torch.ones(T, S).tril() has ones there.",
        "scores = q @ k.mT / math.sqrt(D); scores = scores.masked_fill(~mask, -math.inf); the "
        "softmax of scores is over the keys, the last axis.",
    ),
    theorems=(
        Theorem(
            "tests/test_model.py::test_scores_keep_their_size",
            "Scores have the same size for heads of any width D",
            "are the scores divided by sqrt(D)?",
        ),
        Theorem(
            "tests/test_model.py::test_no_token_sees_the_future",
            "No token sees a later one",
            "without a mask, which keys does query t see?",
        ),
        Theorem(
            "tests/test_model.py::test_naive_attention_is_the_kernel",
            "The formula gives the numbers of PyTorch's kernel, with and without a mask",
            "over which axis is the softmax, and which score has a hidden key?",
        ),
    ),
    trial=_trial_of_weights,
    mistakes=(
        Mistake(
            _unscaled,
            "the scores are not divided by sqrt(D): they grow with the width of a head, and the "
            "softmax gives nearly all weight to one key",
        ),
        Mistake(
            _divided_by_width,
            "the scores are divided by D, not by its root: they shrink with the width of a head, "
            "and every key gets about the same weight",
        ),
        Mistake(
            _softmax_over_queries,
            "the softmax is over the queries: the columns of the weights have the sum 1, but the "
            "rows should, since each query shares out one unit of attention among the keys",
        ),
        Mistake(
            _sees_all,
            "without a mask every query sees every key: a model that sees the next token copies "
            "it, so its loss falls to 0 and it has learnt nothing",
        ),
        Mistake(
            _sees_the_next,
            "the causal mask is off by one: query t also sees key t + 1, the very token that it "
            "shall predict (look at row 0: it has two weights above 0)",
        ),
        Mistake(
            _always_causal,
            "the argument `mask` is ignored: if there is one, it alone says which keys a query "
            "sees",
        ),
        Mistake(
            _zero_hides,
            "a hidden key has the score 0, and exp(0) = 1 is a weight like any other: only -inf "
            "gives the weight 0",
        ),
        Mistake(
            _masks_after_softmax,
            "keys are hidden after the softmax: hidden keys have taken their share by that time, "
            "so the weights that are left have a sum below 1",
        ),
    ),
)


# ---- mask ----


def _trial_of_mask(mask: AnyFunction) -> Any:
    """Return the mask of three new tokens after one and after three cached ones, of six keys."""
    cache = KVCache(MODERN, batch=2, capacity=8)
    cache.lengths += torch.tensor([1, 3])
    return mask(cache, cache.positions(3), 6)


def _without_itself(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    return torch.arange(kv_len) < positions[:, None, :, None]


def _one_ahead(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    return torch.arange(kv_len) <= positions[:, None, :, None] + 1


def _future_only(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    return torch.arange(kv_len) >= positions[:, None, :, None]


def _without_the_cache(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    B, T = positions.shape
    return (torch.arange(kv_len) <= torch.arange(T)[:, None]).expand(B, 1, T, kv_len)


def _only_the_cache(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    B, T = positions.shape
    return (torch.arange(kv_len) < self.lengths[:, None, None, None]).expand(B, 1, T, kv_len)


def _up_to_the_last(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    B, T = positions.shape
    return (torch.arange(kv_len) <= positions[:, None, -1:, None]).expand(B, 1, T, kv_len)


def _everything(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    B, T = positions.shape
    return torch.ones(B, 1, T, kv_len, dtype=torch.bool)


def _of_one_row(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    longest = positions.amax(0)  # (T,)
    B, T = positions.shape
    return (torch.arange(kv_len) <= longest[:, None]).expand(B, 1, T, kv_len)


def _transposed(self: KVCache, positions: Tensor, kv_len: int) -> Tensor:
    return torch.arange(kv_len)[:, None] <= positions[:, None, None, :]


MASK = Exercise(
    name="mask",
    title="The causal mask: which keys a token may see",
    target="minigen.model:KVCache.mask",
    task="The T new tokens of each sequence are queries at the given positions, (B, T). The keys "
    "are those of the positions 0 to S - 1, where S is kv_len: cached tokens, new tokens, and in "
    "shorter sequences positions that hold no token yet. Return True where a query may see a key: "
    "the key's position is the query's own or an earlier one. The shape is (B, 1, T, S), and the "
    "axis of 1 stands for all heads.",
    hints=(
        "One comparison of positions is enough, that of a key and that of a query. The keys' "
        "positions are torch.arange(kv_len), on the device of `positions`.",
        "Broadcasting compares all pairs: the queries' positions need the shape (B, 1, T, 1), and "
        "the keys' positions, (S,), then meet the last axis.",
        "positions[:, None, :, None] has the shape (B, 1, T, 1). A token sees itself, so the "
        "comparison of the key's position with the query's is <=.",
    ),
    theorems=(
        Theorem(
            "tests/test_model.py::test_cached_is_uncached",
            "Single tokens, read with a cache, get the logits of one pass over the whole text",
            "do sequences of unequal length have different masks, and does a token see itself?",
        ),
        Theorem(
            "tests/test_model.py::test_pieces_of_a_text_are_the_text",
            "Pieces of several tokens, read with a cache, get the logits of one pass",
            "may the tokens of one piece see each other, and in which direction?",
        ),
    ),
    trial=_trial_of_mask,
    mistakes=(
        Mistake(
            _without_itself,
            "the mask is off by one: a token does not see itself, so the first token of a text "
            "sees nothing at all, and the softmax of nothing is NaN; write <=, not <",
        ),
        Mistake(
            _one_ahead,
            "the mask is off by one: each token also sees the next one, which is the answer in "
            "training and, in a cache, may be a position that holds no token yet",
        ),
        Mistake(
            _future_only,
            "the comparison is the wrong way around: each token sees itself and the tokens after "
            "it (look at the last query: it should see most, and sees least)",
        ),
        Mistake(
            _without_the_cache,
            "the new tokens count from 0, as if the cache were empty: the first of them is at "
            "position lengths[b], so take the queries' positions from `positions`",
        ),
        Mistake(
            _only_the_cache,
            "queries see the cached tokens only: each new token must see itself, too, and the new "
            "tokens before it",
        ),
        Mistake(
            _up_to_the_last,
            "all new tokens see up to the last of them: that is right for one new token, but of "
            "several each must end at a position of its own",
        ),
        Mistake(
            _everything,
            "every query sees every key: also later tokens, and in shorter sequences positions "
            "that hold no token",
        ),
        Mistake(
            _of_one_row,
            "all sequences have the mask of the longest: in a shorter one the queries then see "
            "positions that hold no token, so keep the axis B of `positions`",
        ),
        Mistake(
            _transposed,
            "queries and keys have changed places: the shape is (B, 1, S, T), but rows belong to "
            "queries and columns to keys",
        ),
    ),
)


# ---- rope ----


def _trial_of_rope(turn: AnyFunction) -> list[Any]:
    """Return vectors of two pairs at the positions 0, 2 and 5, and whether bfloat16 stays."""
    x = _numbers(1, 2, 3, 4)
    cos, sin = rope_cos_sin(torch.tensor([[0, 2, 5]]), MODERN)
    return [turn(x, cos, sin), turn(x.bfloat16(), cos, sin).dtype == torch.bfloat16]


def _other_way(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((right, -left), dim=-1) * sin).to(x.dtype)


def _without_minus(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((right, left), dim=-1) * sin).to(x.dtype)


def _in_place_of_partner(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-left, right), dim=-1) * sin).to(x.dtype)


def _neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    partner = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return (x * cos + partner * sin).to(x.dtype)


def _sine_for_cosine(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return (x * sin + torch.cat((-right, left), dim=-1) * cos).to(x.dtype)


def _cosine_alone(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return (x * cos).to(x.dtype)


def _widened(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


ROPE = Exercise(
    name="rope",
    title="Rotary positions: turn queries and keys by their place in the text",
    target="minigen.model:apply_rope",
    task="Take dimensions i and i + D/2 as the coordinates of a point in a plane, and turn each "
    "point by its angle. cos and sin hold the angle's cosine and sine at both dimensions of a "
    "pair. The result has the shape and the number format of x.",
    hints=(
        "A point (a, b) turned by the angle w is at (a cos w - b sin w, b cos w + a sin w).",
        "Each number is multiplied by cos and gets its partner times sin. The partner is the other "
        "half of the vector: x.chunk(2, dim=-1) returns the halves, left and right.",
        "The partners are torch.cat((-right, left), dim=-1): the left half gets -right. Since cos "
        "and sin are float32, finish with .to(x.dtype).",
    ),
    theorems=(
        Theorem(
            "tests/test_model.py::test_rotary_scores_depend_on_distance_only",
            "The score of two tokens depends only on how far apart they are",
            "does every pair turn by one angle, and keep its length?",
        ),
        Theorem(
            "tests/test_model.py::test_rotary_positions_multiply_complex_numbers",
            "Turning is the multiplication of complex numbers, in the number format of x",
            "which number is the partner of which, and with which sign?",
        ),
    ),
    trial=_trial_of_rope,
    mistakes=(
        Mistake(
            _other_way,
            "the points turn the other way around: the minus belongs to the left half, a cos - b "
            "sin; a model that was trained by another program would compute nonsense",
        ),
        Mistake(
            _without_minus,
            "the minus is missing: a cos + b sin and b cos + a sin do not turn a point, they also "
            "stretch it (its length changes from position to position)",
        ),
        Mistake(
            _in_place_of_partner,
            "the halves have not changed places: each number is mixed with itself, and not with "
            "its partner, so nothing turns",
        ),
        Mistake(
            _neighbours,
            "the pairs are neighbours, dimensions 2i and 2i + 1, but cos and sin are laid out for "
            "the pairs i and i + D/2: the two numbers of a pair get different angles",
        ),
        Mistake(
            _sine_for_cosine,
            "cos and sin have changed places: at position 0 the angle is 0, so x must stay as it "
            "is there",
        ),
        Mistake(
            _cosine_alone,
            "the part with sin is missing: cos alone shrinks a pair and does not turn it",
        ),
        Mistake(
            _widened,
            "the result is float32 even if x is bfloat16, because cos and sin are: attention then "
            "gets queries and values of different formats",
        ),
    ),
)


# ---- norm ----


def _trial_of_norm(forward: AnyFunction) -> list[Any]:
    """Return the norms of a usual, a tiny and a zero vector, and of a large one in float16."""
    x = _numbers(3, 4) * torch.tensor([[1.0], [1e-3], [0.0]])
    large = torch.full((4,), 1000.0, dtype=torch.float16)
    return [forward(_filled(RMSNorm(4, 1e-6)), x), forward(RMSNorm(4, 1e-6), large).round()]


def _layer_norm(self: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide - wide.mean(-1, keepdim=True)
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
    return self.weight * wide.to(x.dtype)


def _without_root(self: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide / (wide.square().mean(-1, keepdim=True) + self.eps)
    return self.weight * wide.to(x.dtype)


def _root_of_sum(self: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + self.eps)
    return self.weight * wide.to(x.dtype)


def _over_all_numbers(self: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean() + self.eps)
    return self.weight * wide.to(x.dtype)


def _without_eps(self: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True))
    return self.weight * wide.to(x.dtype)


def _eps_outside(self: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide / (wide.square().mean(-1, keepdim=True).sqrt() + self.eps)
    return self.weight * wide.to(x.dtype)


def _without_gain(self: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def _gain_first(self: RMSNorm, x: Tensor) -> Tensor:
    wide = self.weight * x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def _in_the_format_of_x(self: RMSNorm, x: Tensor) -> Tensor:
    return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))


NORM = Exercise(
    name="norm",
    title="The norm: give each vector the same size",
    target="minigen.model:RMSNorm.forward",
    task="Divide each vector, the last axis of x, by the root of the mean of its squares, and "
    "multiply by the gain, self.weight. self.eps is added to the mean of the squares, so that a "
    "vector of zeros stays one. Compute in float32, and give the result the number format of x "
    "before the gain.",
    hints=(
        "The mean of the squares is x.square().mean(-1, keepdim=True): the mean is over the last "
        "axis, and keepdim leaves an axis of 1, so that the division fits.",
        "torch.rsqrt(y) is 1 / sqrt(y). eps stands under the root.",
        "wide = x.float(); wide = wide * torch.rsqrt(the mean of the squares of wide + self.eps); "
        "then the gain times wide.to(x.dtype).",
    ),
    theorems=(
        Theorem(
            "tests/test_model.py::test_rms_norm_is_that_of_pytorch",
            "The norm gives the numbers of torch.nn.RMSNorm, for vectors of any size",
            "which mean is under the root, where is eps, and when comes the gain?",
        ),
        Theorem(
            "tests/test_model.py::test_rms_norm_does_not_overflow",
            "A norm of float16 vectors does not overflow",
            "are the squares computed in float32?",
        ),
    ),
    trial=_trial_of_norm,
    mistakes=(
        Mistake(
            _layer_norm,
            "the mean is subtracted: that is LayerNorm; RMSNorm keeps the mean and only divides",
        ),
        Mistake(
            _without_root,
            "the vector is divided by the mean of the squares, not by its root: a vector twice as "
            "long becomes half as long",
        ),
        Mistake(
            _root_of_sum,
            "the squares are added up, but not divided by their number: the numbers of a wide "
            "vector become small, of size 1 / sqrt(width)",
        ),
        Mistake(
            _over_all_numbers,
            "one mean is taken over all tokens: each vector needs its own, else a long vector "
            "makes all others small, and a token sees the length of later ones",
        ),
        Mistake(
            _without_eps,
            "eps is missing: a vector of zeros is divided by 0, and gives NaN",
        ),
        Mistake(
            _eps_outside,
            "eps is added to the root and not under it: vectors as small as 0.001 then come out "
            "too large",
        ),
        Mistake(
            _without_gain,
            "the gain, self.weight, is missing: it has no effect, so it gets no gradient and is "
            "never learnt",
        ),
        Mistake(
            _gain_first,
            "the gain is multiplied before the division: the rms then includes the gain, and the "
            "division takes most of it away again",
        ),
        Mistake(
            _in_the_format_of_x,
            "the squares have the format of x: in float16 the square of 1,000 is infinite, so the "
            "vector becomes 0; compute in float32",
        ),
    ),
)


# ---- mlp ----


def _trial_of_mlp(forward: AnyFunction) -> list[Tensor]:
    """Return the results of an MLP with GELU and of one with SwiGLU, for three tokens."""
    return [forward(_filled(MLP(config)), _numbers(1, 3, 4)) for config in (GPT2, MODERN)]


def _without_bend(self: MLP, x: Tensor) -> Tensor:
    up = self.up(x)
    x = up if self.gate is None else self.gate(x) * up
    x = self.down(x)
    return x


def _exact_gelu(self: MLP, x: Tensor) -> Tensor:
    up = self.up(x)
    x = F.gelu(up) if self.gate is None else F.silu(self.gate(x)) * up
    x = self.down(x)
    return x


def _gelu_gate(self: MLP, x: Tensor) -> Tensor:
    up = self.up(x)
    bent = F.gelu(up if self.gate is None else self.gate(x), approximate="tanh")
    x = bent if self.gate is None else bent * up
    x = self.down(x)
    return x


def _sigmoid_gate(self: MLP, x: Tensor) -> Tensor:
    up = self.up(x)
    x = F.gelu(up, approximate="tanh") if self.gate is None else self.gate(x).sigmoid() * up
    x = self.down(x)
    return x


def _bends_up(self: MLP, x: Tensor) -> Tensor:
    up = self.up(x)
    x = F.gelu(up, approximate="tanh") if self.gate is None else self.gate(x) * F.silu(up)
    x = self.down(x)
    return x


def _added_gate(self: MLP, x: Tensor) -> Tensor:
    up = self.up(x)
    x = F.gelu(up, approximate="tanh") if self.gate is None else F.silu(self.gate(x)) + up
    x = self.down(x)
    return x


def _without_gate(self: MLP, x: Tensor) -> Tensor:
    x = F.gelu(self.up(x), approximate="tanh")
    x = self.down(x)
    return x


def _bends_last(self: MLP, x: Tensor) -> Tensor:
    up = self.up(x)
    if self.gate is None:
        return F.gelu(self.down(up), approximate="tanh")
    return F.silu(self.down(self.gate(x) * up))


def _adds_x(self: MLP, x: Tensor) -> Tensor:
    up = self.up(x)
    bent = F.gelu(up, approximate="tanh") if self.gate is None else F.silu(self.gate(x)) * up
    x = x + self.down(bent)
    return x


GATE = Exercise(
    name="mlp",
    title="The MLP: widen, bend, narrow",
    target="minigen.model:MLP.forward",
    task="Widen each vector with self.up, bend it, and narrow it with self.down. If self.gate is "
    "None, as in GPT-2, bend with GELU in its approximation by tanh. Otherwise, as in Qwen3, "
    "multiply with silu of a second widened vector, which self.gate makes from x.",
    hints=(
        "self.up, self.gate and self.down are called like functions. The residual stream is no "
        "part of this function: `Block.forward` adds x.",
        "PyTorch has both bends: F.gelu(up, approximate='tanh') and F.silu.",
        "SwiGLU: self.down(F.silu(self.gate(x)) * self.up(x)); without a gate: "
        "self.down(F.gelu(self.up(x), approximate='tanh')).",
    ),
    theorems=(
        Theorem(
            "tests/test_model.py::test_swiglu_is_its_formula",
            "SwiGLU gives the numbers that its formula gives, one by one",
            "which of the two widened vectors is bent, and with which function?",
        ),
        Theorem(
            "tests/test_model.py::test_a_closed_gate_stops_all_numbers",
            "A gate far below 0 stops all numbers, and a gate far above 0 multiplies them",
            "is silu(gate) multiplied with the other widened vector?",
        ),
        Theorem(
            "tests/test_model.py::test_a_block_of_gpt2_is_a_layer_of_pytorch",
            "A block of GPT-2 gives the numbers of PyTorch's own layer",
            "without a gate, is the bend GELU, with approximate='tanh'?",
        ),
    ),
    trial=_trial_of_mlp,
    mistakes=(
        Mistake(
            _without_bend,
            "nothing is bent: without GELU the two matrices compute no more than one matrix can, "
            "and without silu a gate far below 0 stops nothing",
        ),
        Mistake(
            _exact_gelu,
            "this GELU is the exact one: GPT-2 was trained with the approximation by tanh, and the "
            "two differ from the fourth decimal on",
        ),
        Mistake(
            _gelu_gate,
            "the gate is bent with GELU: that is GEGLU, another MLP; SwiGLU bends with F.silu",
        ),
        Mistake(
            _sigmoid_gate,
            "the gate is only opened and closed by sigmoid(g): silu(g) is g times sigmoid(g), so "
            "that a large gate also makes the number larger",
        ),
        Mistake(
            _bends_up,
            "the wrong vector is bent: silu belongs to the gate, and self.up(x) stays as it is",
        ),
        Mistake(
            _added_gate,
            "the gate is added: only a product can stop a number",
        ),
        Mistake(
            _without_gate,
            "self.gate is not used: GELU alone is the MLP of GPT-2, right only where self.gate is "
            "None",
        ),
        Mistake(
            _bends_last,
            "the bend comes after self.down: in the wide space, before it, are many more numbers "
            "to switch on and off, and the result may have any sign",
        ),
        Mistake(
            _adds_x,
            "x is added: `Block.forward` adds the MLP's result to x, so x would count twice",
        ),
    ),
)


# ---- block ----


def _trial_of_block(forward: AnyFunction) -> list[Tensor]:
    """Return the results of blocks: causal, with a mask, with a cache, with everything dropped."""
    x, new = _numbers(1, 3, 4), _numbers(1, 2, 4)
    seen = torch.ones(3, 3).tril().triu(-1).bool()
    dropping = _filled(Block(GPT2))
    dropping.dropout.p = 1.0
    cache = KVCache(MODERN, batch=1, capacity=8)
    cache.kv += _numbers(*cache.kv.shape)
    cache.lengths += 3
    positions = cache.positions(2)
    layer = LayerCache(cache.kv[0], positions, 5)
    cos_sin, later = (rope_cos_sin(p, MODERN) for p in (torch.arange(3)[None], positions))
    return [
        forward(_filled(Block(GPT2)), x, None, None, None),
        forward(_filled(Block(MODERN)), x, cos_sin, seen, None),
        forward(_filled(Block(MODERN)), new, later, cache.mask(positions, 5), layer),
        forward(dropping, x, None, None, None),
    ]


CosSin = tuple[Tensor, Tensor] | None


def _without_stream(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = self.dropout(self.attention(self.attention_norm(x), cos_sin, mask, cache))
    x = self.dropout(self.mlp(self.mlp_norm(x)))
    return x


def _norm_after(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = self.attention_norm(x + self.dropout(self.attention(x, cos_sin, mask, cache)))
    x = self.mlp_norm(x + self.dropout(self.mlp(x)))
    return x


def _normed_stream(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = self.attention_norm(x)
    x = x + self.dropout(self.attention(x, cos_sin, mask, cache))
    x = self.mlp_norm(x)
    x = x + self.dropout(self.mlp(x))
    return x


def _without_norms(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = x + self.dropout(self.attention(x, cos_sin, mask, cache))
    x = x + self.dropout(self.mlp(x))
    return x


def _one_norm(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = x + self.dropout(self.attention(self.attention_norm(x), cos_sin, mask, cache))
    x = x + self.dropout(self.mlp(self.attention_norm(x)))
    return x


def _side_by_side(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    attended = self.dropout(self.attention(self.attention_norm(x), cos_sin, mask, cache))
    x = x + attended + self.dropout(self.mlp(self.mlp_norm(x)))
    return x


def _mlp_first(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = x + self.dropout(self.mlp(self.mlp_norm(x)))
    x = x + self.dropout(self.attention(self.attention_norm(x), cos_sin, mask, cache))
    return x


def _without_mask_and_cache(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = x + self.dropout(self.attention(self.attention_norm(x), cos_sin))
    x = x + self.dropout(self.mlp(self.mlp_norm(x)))
    return x


def _without_dropout(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = x + self.attention(self.attention_norm(x), cos_sin, mask, cache)
    x = x + self.mlp(self.mlp_norm(x))
    return x


def _drops_the_stream(
    self: Block, x: Tensor, cos_sin: CosSin, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    x = self.dropout(x + self.attention(self.attention_norm(x), cos_sin, mask, cache))
    x = self.dropout(x + self.mlp(self.mlp_norm(x)))
    return x


RESIDUAL = Exercise(
    name="block",
    title="The block: attention and MLP add to the residual stream",
    target="minigen.model:Block.forward",
    task="Normalise x with self.attention_norm, give it to self.attention, and add the result to "
    "x. Then do the same with self.mlp_norm and self.mlp. Each result goes through self.dropout "
    "before the sum. self.attention also needs cos_sin, mask and cache.",
    hints=(
        "The block has two lines, and both begin with x = x + ... The residual stream itself is "
        "never normalised, only the copy that a part reads.",
        "The order for each part is: norm, part, dropout, sum. The MLP reads the x to which "
        "attention has added.",
        "First line: x = x + self.dropout(self.attention(self.attention_norm(x), cos_sin, mask, "
        "cache)). The second is alike, and the MLP takes nothing but the vectors.",
    ),
    theorems=(
        Theorem(
            "tests/test_model.py::test_a_block_of_gpt2_is_a_layer_of_pytorch",
            "A block of GPT-2 gives the numbers of PyTorch's own layer",
            "in which order do norm, attention, sum and MLP come?",
        ),
        Theorem(
            "tests/test_model.py::test_a_block_only_adds",
            "A block whose parts give zeros, or are dropped, returns its input bit for bit",
            "is x itself neither normalised, nor replaced, nor dropped?",
        ),
        Theorem(
            "tests/test_model.py::test_packed_documents_do_not_see_each_other",
            "Documents in one sequence do not see each other",
            "does attention get the mask?",
        ),
        Theorem(
            "tests/test_model.py::test_cached_is_uncached",
            "Single tokens, read with a cache, get the logits of one pass over the whole text",
            "does attention get the cache?",
        ),
    ),
    trial=_trial_of_block,
    mistakes=(
        Mistake(
            _without_stream,
            "the results replace x, and nothing is added: information from earlier blocks is lost, "
            "and a deep model hardly learns, since no gradient passes unweakened",
        ),
        Mistake(
            _norm_after,
            "the norms come after the sums, as in the transformer of 2017: each block then changes "
            "the size of x itself, and a deep model hardly learns without a long warm-up",
        ),
        Mistake(
            _normed_stream,
            "x is replaced by its norm, and the results are added to that: only the input of each "
            "part is normalised, and x itself is not",
        ),
        Mistake(
            _without_norms,
            "the norms are missing: x grows from block to block, and attention and MLP get larger "
            "and larger numbers",
        ),
        Mistake(
            _one_norm,
            "the MLP reads through attention's norm: self.mlp_norm has a gain of its own, and is "
            "never trained if it is not used",
        ),
        Mistake(
            _side_by_side,
            "attention and MLP read the same x: the MLP shall work on the sum, in which it finds "
            "the information that attention has just gathered",
        ),
        Mistake(
            _mlp_first,
            "the MLP comes before attention: gather information first, then work on it",
        ),
        Mistake(
            _without_mask_and_cache,
            "attention gets neither mask nor cache: the defaults are None, so nothing complains, "
            "and a new token does not see the text before it",
        ),
        Mistake(
            _without_dropout,
            "dropout is missing: in training, self.dropout sets a share of each result to zero",
        ),
        Mistake(
            _drops_the_stream,
            "dropout acts on the sum: it shall drop a part of each result, and nothing of x, which "
            "all later blocks need",
        ),
    ),
)


# ---- cache ----


def _trial_of_cache(extend: AnyFunction) -> list[Any]:
    """Return the keys and values of two sequences after two more tokens each, and the cache.

    Last stands whether keys are float32 though the cache is bfloat16.
    """
    kv, positions = _numbers(2, 4, 6, 4), torch.tensor([[1, 2], [3, 4]])
    k, v = _numbers(2, 2, 2, 4, seed=2), _numbers(2, 2, 2, 4, seed=3)
    few_bits = LayerCache(kv.bfloat16(), positions, kv_len=5)
    layer = LayerCache(kv, positions, kv_len=5)
    keys, values = extend(layer, k, v)
    return [keys, values, layer.kv, extend(few_bits, k, v)[0].dtype == torch.float32]


def _write(kv: Tensor, positions: Tensor, new: Tensor) -> None:
    kv.scatter_(2, positions[:, None, :, None].expand_as(new), new.to(kv.dtype))


def _read(kv: Tensor, number_format: torch.dtype) -> tuple[Tensor, Tensor]:
    keys, values = kv.to(number_format).chunk(2, dim=1)
    return keys, values


def _from_the_start(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    self.kv[:, :, : k.shape[2]] = torch.cat((k, v), dim=1)
    return _read(self.kv[:, :, : self.kv_len], k.dtype)


def _at_the_end(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    self.kv[:, :, self.kv_len - k.shape[2] : self.kv_len] = torch.cat((k, v), dim=1)
    return _read(self.kv[:, :, : self.kv_len], k.dtype)


def _values_first(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    _write(self.kv, self.positions, torch.cat((v, k), dim=1))
    return _read(self.kv[:, :, : self.kv_len], k.dtype)


def _only_the_new(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    _write(self.kv, self.positions, torch.cat((k, v), dim=1))
    return k, v


def _whole_capacity(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    _write(self.kv, self.positions, torch.cat((k, v), dim=1))
    return _read(self.kv, k.dtype)


def _into_a_copy(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    kv = self.kv.clone()
    _write(kv, self.positions, torch.cat((k, v), dim=1))
    return _read(kv[:, :, : self.kv_len], k.dtype)


def _before_the_write(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = _read(self.kv[:, :, : self.kv_len].clone(), k.dtype)
    _write(self.kv, self.positions, torch.cat((k, v), dim=1))
    return keys, values


def _added(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    new = torch.cat((k, v), dim=1).to(self.kv.dtype)
    self.kv.scatter_add_(2, self.positions[:, None, :, None].expand_as(new), new)
    return _read(self.kv[:, :, : self.kv_len], k.dtype)


def _in_the_format_of_the_cache(self: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    _write(self.kv, self.positions, torch.cat((k, v), dim=1))
    return _read(self.kv[:, :, : self.kv_len], self.kv.dtype)


CACHE = Exercise(
    name="cache",
    title="The key-value cache: write the new, read all",
    target="minigen.model:LayerCache.extend",
    task="self.kv, (B, 2 Hk, capacity, D), holds the keys of all heads and after them the values. "
    "Write the T new keys and values of sequence b at self.positions[b], and return the keys and "
    "the values of the first self.kv_len positions. The cache may have a number format of its own, "
    "such as bfloat16; the result has that of k.",
    hints=(
        "torch.cat((k, v), dim=1) has the layout of the cache, (B, 2 Hk, T, D), so that one "
        "operation writes both. Sequences differ in length, so each has positions of its own.",
        "self.kv.scatter_(2, index, new) writes along axis 2 at `index`, which has the shape of "
        "`new`: self.positions[:, None, :, None].expand_as(new).",
        "After the write, self.kv[:, :, : self.kv_len] are the positions to return, and "
        ".chunk(2, dim=1) parts the keys from the values. Convert with .to(self.kv.dtype) before "
        "the write and with .to(k.dtype) after it.",
    ),
    theorems=(
        Theorem(
            "tests/test_model.py::test_cached_is_uncached",
            "Single tokens, read with a cache, get the logits of one pass over the whole text",
            "does each sequence write at positions of its own, and read all that is written?",
        ),
        Theorem(
            "tests/test_model.py::test_pieces_of_a_text_are_the_text",
            "Pieces of several tokens, read with a cache, get the logits of one pass",
            "are all T keys and values written, each at its position?",
        ),
        Theorem(
            "tests/test_model.py::test_a_cache_may_have_fewer_bits",
            "A cache in bfloat16 gives nearly the logits of one in float32",
            "are k and v converted to the cache's format, and back?",
        ),
    ),
    trial=_trial_of_cache,
    mistakes=(
        Mistake(
            _from_the_start,
            "the new keys and values are written at the beginning of the cache: they overwrite the "
            "beginning of the text; write at self.positions",
        ),
        Mistake(
            _at_the_end,
            "all sequences write at the positions of the longest, and a gap is left in the shorter "
            "ones: sequence b has positions of its own, self.positions[b]",
        ),
        Mistake(
            _values_first,
            "the values stand before the keys: the cache holds keys in the first half of axis 1 "
            "and values in the second, and later tokens take one for the other",
        ),
        Mistake(
            _only_the_new,
            "only the new keys and values are returned: attention then sees nothing of the text "
            "before them, for which the cache is there",
        ),
        Mistake(
            _whole_capacity,
            "the whole capacity is returned, not the first kv_len positions: the mask is kv_len "
            "wide, and the rest is empty",
        ),
        Mistake(
            _into_a_copy,
            "the new keys and values are written into a copy: the result is right, but the next "
            "call does not find them; change self.kv in place",
        ),
        Mistake(
            _before_the_write,
            "the cache is read before the new keys and values are in it: a new token then does not "
            "see itself",
        ),
        Mistake(
            _added,
            "the new keys and values are added to those in the cache: an entry may hold padding of "
            "an earlier call, so it must be overwritten",
        ),
        Mistake(
            _in_the_format_of_the_cache,
            "the result has the number format of the cache: in a cache of bfloat16 the keys then "
            "do not fit to the queries; convert with .to(k.dtype)",
        ),
    ),
)

EXERCISES = (WEIGHTS, MASK, ROPE, NORM, GATE, RESIDUAL, CACHE)
