"""The transformer: token ids in, logits of the next token out.

The same classes compute GPT-2 (2019), Qwen3 (2025), and the models between the two. Six switches
choose the arithmetic: norm, position, mlp, bias, qk_norm and tie_embeddings. `GPTConfig.gpt2()`
sets the switches and the widths as in GPT-2, and `GPTConfig.modern()` as in Qwen3. The model is
plain PyTorch and knows nothing of text, files, optimisers or losses.

The file is in reading order: the configuration, the parts of a block (norm, rotary positions,
attention, MLP), the block, the model. The key-value cache at the end only makes generation faster.
A first reading may skip the cache, and the arguments `mask`, `cache`, `at`, `kv_len` and `begins`,
which training on running text leaves out. A name such as (test_no_token_sees_the_future) is the
test in tests/test_model.py that proves the sentence before it.

Shapes, everywhere in this file:
    B  sequences in the batch        V  vocab_size            H   n_head     (query heads)
    T  tokens of each sequence       C  n_embd                Hk  n_kv_head  (key and value heads)
    S  positions that can be seen    D  head_dim              M   n_ffn   (inside the MLP)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.errors import UserError, check_range


@dataclass(frozen=True)
class GPTConfig:
    """The shape and the arithmetic of a model.

    Raises `UserError` if the numbers do not fit together.

    >>> GPTConfig.gpt2(vocab_size=50257).n_ffn
    3072
    """

    vocab_size: int  # number of different tokens
    block_size: int  # the longest sequence that the model can see, in tokens
    n_layer: int  # number of blocks, one after another
    n_head: int  # attention heads in a block: each looks back with queries of its own
    n_kv_head: int  # key and value heads; if fewer than n_head, several query heads share one
    n_embd: int  # numbers in the vector of a token, between the blocks
    head_dim: int  # numbers in a query, a key or a value of one head
    n_ffn: int  # numbers in the vector of a token inside the MLP
    norm: Literal["layernorm", "rmsnorm"]
    position: Literal["learned", "rotary"]  # add a vector to each token, or turn q and k
    mlp: Literal["gelu", "swiglu"]
    bias: bool  # a matrix product or LayerNorm also adds a vector
    qk_norm: bool  # normalise queries and keys, so that no score explodes at a high learning rate
    tie_embeddings: bool = True  # the output matrix is the embedding matrix; see `GPT`
    norm_eps: float = 1e-6  # added to a variance, so that no norm divides by zero
    rope_theta: float = 10_000.0  # about how many times faster the first pair turns than the last
    dropout: float = 0.0  # the share of numbers set to zero at random in training; see `Block`

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_kv_head", "n_embd",
                     "head_dim", "n_ffn"):  # fmt: skip
            check_range(name, getattr(self, name), 1)
        if self.n_head % self.n_kv_head:
            raise UserError(f"n_head {self.n_head} is not a multiple of n_kv_head {self.n_kv_head}")
        if self.position == "rotary" and self.head_dim % 2:
            raise UserError(
                f"head_dim {self.head_dim} is odd; rotary positions turn pairs, so make it even"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout is {self.dropout}; give at least 0 and below 1")

    @classmethod
    def gpt2(
        cls,
        vocab_size: int = 50257,
        block_size: int = 1024,
        n_layer: int = 12,
        n_head: int = 12,
        n_embd: int = 768,
        **switches: Any,
    ) -> GPTConfig:
        """Return GPT-2's configuration; the defaults are of the model with 124M parameters."""
        base: dict[str, Any] = {
            "n_kv_head": n_head, "head_dim": _head_dim(n_embd, n_head), "n_ffn": 4 * n_embd,
            "norm": "layernorm", "position": "learned", "mlp": "gelu", "bias": True,
            "qk_norm": False, "norm_eps": 1e-5,
        }  # fmt: skip
        return cls(vocab_size, block_size, n_layer, n_head, n_embd=n_embd, **{**base, **switches})

    @classmethod
    def modern(
        cls,
        vocab_size: int,
        block_size: int = 256,
        n_layer: int = 4,
        n_head: int = 4,
        n_embd: int = 128,
        **switches: Any,
    ) -> GPTConfig:
        """Return Qwen3's arithmetic: RMSNorm, rotary positions, QK-norm, SwiGLU, no biases.

        `qk_norm=False` gives Llama's. The default `tie_embeddings=True` is that of Qwen3's small
        models; train.py gives False, with which a small model learns faster.

        Heads are 64 wide even in a narrow model: with heads of 16, the model needs far more steps
        until it learns to use earlier tokens.
        """
        base: dict[str, Any] = {
            "n_kv_head": n_head, "head_dim": max(64, _head_dim(n_embd, n_head)),
            "n_ffn": 3 * n_embd,
            "norm": "rmsnorm", "position": "rotary", "mlp": "swiglu", "bias": False,
            "qk_norm": True,
        }  # fmt: skip
        return cls(vocab_size, block_size, n_layer, n_head, n_embd=n_embd, **{**base, **switches})


def _head_dim(n_embd: int, n_head: int) -> int:
    """Return n_embd / n_head. Raises `UserError` if that is not a whole number."""
    if n_head < 1 or n_embd % n_head:
        raise UserError(f"n_embd {n_embd} is not divisible by n_head {n_head}; change one of them")
    return n_embd // n_head


# ---- norm ----


class RMSNorm(nn.Module):
    """Compute x / rms(x) * gain over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467).

    The rms (root mean square) is the typical size of the vector's numbers. Every block adds to the
    vectors, so they grow from block to block. A norm gives each layer an input of the same size;
    without norms, a deep model is hard to train. The gain, a learnt factor for each number of the
    vector, lets the model choose sizes of its own. LayerNorm, the older form, also subtracts the
    mean and can add a bias.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))  # the gain, by PyTorch's name
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., width) -> (..., width)
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def make_norm(config: GPTConfig) -> nn.Module:
    """Return a fresh norm over n_embd numbers."""
    if config.norm == "rmsnorm":
        return RMSNorm(config.n_embd, config.norm_eps)
    return nn.LayerNorm(config.n_embd, eps=config.norm_eps, bias=config.bias)


# ---- rotary positions ----

# Attention without a mask sees a set of tokens and no order (test_attention_by_itself_sees_a_set);
# the causal mask tells earlier from later, but not how far. GPT-2 adds a learnt vector for its
# position to each token. Rotary positions turn queries and keys instead, so that a score depends on
# how far apart two tokens are.


def rope_frequencies(config: GPTConfig, device: torch.device) -> Tensor:
    """Return the angle by which each pair of dimensions turns per position, (D/2,).

    Pair i turns by theta^(-2i/D) radians. Fast pairs tell near tokens apart, and slow pairs tell
    far ones apart, as the fast and slow hands of a clock do.
    """
    exponents = -torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim
    return torch.pow(config.rope_theta, exponents)


def rope_cos_sin(positions: Tensor, config: GPTConfig) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine of each pair's angle at each position.

    Rotary position embedding (Su et al. 2021, arXiv:2104.09864): positions (B, T) -> two tensors
    (B, 1, T, D), in which dimensions i and i + D/2 are a pair and have the same angle.
    """
    frequency = rope_frequencies(config, positions.device)  # (D/2,)
    angle = positions[:, None, :, None].float() * frequency  # (B, 1, T, D/2)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + D/2]) of x (B, H, T, D) by its angle.

    A dot product depends on the lengths of two vectors and on the angle between them. Turning a
    query by m steps and a key by n steps leaves their lengths alone and changes the angle between
    them by m - n steps. So only the distance of two positions counts, and a pattern learnt at one
    place of a text works at every other (test_rotary_scores_depend_on_distance_only).
    """
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x.dtype)


# ---- attention ----


def naive_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute softmax(q k^T / sqrt(D)): how much each query takes from each key.

    Softmax, exp(score) / sum of all exp(scores), turns the scores of a query into positive weights
    with the sum 1, and lets a gradient flow to every score.

    Why sqrt(D): q k is a sum of D products. If the numbers of q and k are of size 1, the sum is of
    size sqrt(D). Divided by sqrt(D), scores are of size 1 for any D (test_scores_keep_their_size).
    Without the division, softmax would give nearly all weight to one token from the start, and
    would pass hardly any gradient.

    Args:
        q: (B, H, T, D).
        k: (B, H, S, D).
        mask: (..., T, S), True where a query may see a key; None: causal, each of the T = S tokens
            sees itself and the tokens before it.

    Returns (B, H, T, S).
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, T, S)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    # A score of -inf has the weight exp(-inf) = 0. Why add 0 or -inf, and not call masked_fill on
    # the scores? The backward pass of masked_fill reads all scores again; that of a sum is free.
    additive_mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -math.inf)
    weights: Tensor = (scores + additive_mask).softmax(dim=-1)
    return weights


def naive_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Compute softmax(q k^T / sqrt(D)) v step by step (Vaswani et al. 2017, arXiv:1706.03762).

    The result is a mean of the values v (B, H, S, D), weighted by `naive_weights`: (B, H, T, D).
    """
    return F.dropout(naive_weights(q, k, mask), dropout) @ v


# Up to this number of tokens the formula trains faster on a CPU than PyTorch's kernel: there the
# backward pass of the kernel is slow, up to three times slower in bfloat16. For longer sequences
# the (T, S) weights, which the formula stores, take too much memory.
NAIVE_UP_TO = 256


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Compute `naive_attention` in the faster of two ways: the formula, or PyTorch's kernel.

    Both give the same numbers up to rounding (test_naive_attention_is_the_kernel). The kernel never
    stores the (T, S) weights. Keys and values (B, Hk, S, D) may have fewer heads than queries
    (B, H, T, D): each key head then serves H / Hk neighbouring query heads, and the cache needs
    only Hk / H of the memory.
    """
    on_cpu, trains = q.device.type == "cpu", torch.is_grad_enabled()
    n_served = q.shape[1] // k.shape[1]
    # Copy key heads, so that each query head has its own: the formula needs that, and on a GPU the
    # kernels that accept fewer key heads accept no mask. The kernel for CPUs accepts fewer.
    if n_served > 1 and (trains or not on_cpu):
        k, v = (x.repeat_interleave(n_served, dim=1) for x in (k, v))
    if on_cpu and trains and q.shape[2] <= NAIVE_UP_TO:
        return naive_attention(q, k, v, mask, dropout)
    return F.scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal=mask is None, enable_gqa=k.shape[1] < q.shape[1]
    )


def heads(x: Tensor, head_dim: int) -> Tensor:
    """Cut the last axis into heads: (B, T, H D) -> (B, T, H, D)."""
    B, T, width = x.shape
    return x.view(B, T, width // head_dim, head_dim)


class Attention(nn.Module):
    """Let each token gather information from itself and the tokens before it.

    Each token has a query ("which information do I need?"), a key ("which do I have?") and a value
    (the information) per head. The better its query matches the key of another token, the more of
    that token's value it takes; no token sees a later one (test_no_token_sees_the_future).

    One head computes one weighted mean, in which the values of several tokens blur. Several heads,
    each with D numbers of its own, attend to several tokens at once: one to the name in the first
    line, another to the last word. `output` mixes the results of all heads.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c, self.config = config, config
        self.query = nn.Linear(c.n_embd, c.n_head * c.head_dim, bias=c.bias)
        self.key = nn.Linear(c.n_embd, c.n_kv_head * c.head_dim, bias=c.bias)
        self.value = nn.Linear(c.n_embd, c.n_kv_head * c.head_dim, bias=c.bias)
        self.output = nn.Linear(c.n_head * c.head_dim, c.n_embd, bias=c.bias)
        self.query_norm = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        cos_sin: tuple[Tensor, Tensor] | None,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Mix information between the tokens of x: (B, T, C) -> (B, T, C).

        Args:
            cos_sin: the result of `rope_cos_sin`; None: positions are not rotary.
            mask: (B, 1, T, S), True where a query may see a key; None: causal.
            cache: the keys and values of earlier tokens, to which those of x are added.
        """
        q, k, v = self.queries_keys_values(x, cos_sin)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, Hk, S, D)
        x = attention(q, k, v, mask, self.config.dropout if self.training else 0.0)
        x = self.output(x.transpose(1, 2).flatten(2))  # (B, T, H D) -> (B, T, C)
        return x

    def queries_keys_values(
        self, x: Tensor, cos_sin: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries (B, H, T, D), keys and values (B, Hk, T, D) of the tokens of x."""
        D = self.config.head_dim
        q = self.query_norm(heads(self.query(x), D)).transpose(1, 2)  # (B, H, T, D)
        k = self.key_norm(heads(self.key(x), D)).transpose(1, 2)  # (B, Hk, T, D)
        v = heads(self.value(x), D).transpose(1, 2)  # (B, Hk, T, D)
        if cos_sin is not None:
            q, k = apply_rope(q, *cos_sin), apply_rope(k, *cos_sin)
        return q, k, v


# ---- the block and the model ----


class MLP(nn.Module):
    """Transform the vector of each token by itself: widen it, bend it, narrow it again.

    The bend is a non-linear function of each number. Without it, the two matrices could compute no
    more than one matrix can. GPT-2 bends with GELU, which keeps numbers far above 0 and turns
    numbers far below 0 to nearly 0. SwiGLU (Shazeer 2020, arXiv:2002.05202) bends with a gate: a
    second widened vector g, from which silu(g) = g / (1 + e^-g) is computed and multiplied with the
    first vector. silu(g) is nearly 0 for g far below 0, which stops a number, and nearly g for g
    far above.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.up = nn.Linear(c.n_embd, c.n_ffn, bias=c.bias)
        self.gate = nn.Linear(c.n_embd, c.n_ffn, bias=c.bias) if c.mlp == "swiglu" else None
        self.down = nn.Linear(c.n_ffn, c.n_embd, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, M) -> (B, T, C)
        up = self.up(x)
        x = F.gelu(up, approximate="tanh") if self.gate is None else F.silu(self.gate(x)) * up
        x = self.down(x)
        return x


class Block(nn.Module):
    """Attend, then apply the MLP; both add their result to the residual stream x.

    Attention moves information between tokens, and the MLP works on it. They add to x and replace
    nothing: so a block only learns a change of x, information from the beginning stays, and the
    gradient reaches the first block through the sums, unweakened, however deep the model is. The
    norms before attention and MLP keep their inputs at the same size, whatever blocks have added.

    Dropout sets a share of the numbers to 0 at random, in training only, and scales up the others,
    so that their mean stays (test_dropout_acts_in_training_only). So the model cannot rely on any
    single number, and memorises less of a short text that it reads many times.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm, self.attention = make_norm(config), Attention(config)
        self.mlp_norm, self.mlp = make_norm(config), MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        cos_sin: tuple[Tensor, Tensor] | None,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.dropout(self.attention(self.attention_norm(x), cos_sin, mask, cache))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x


class GPT(nn.Module):
    """Predict each next token: ids (B, T) -> logits (B, T, V).

    The logits [b, t] score every token of the vocabulary as token t + 1 of sequence b, given its
    tokens 0 ... t. They may be any numbers; their softmax is the probability of each token.

    The embedding has a vector for each token as input, and lm_head a vector for each token as
    output. Tied, as in GPT-2, one matrix is both, which saves parameters: untied, GPT-2 would have
    31 % more. Untied (`tie_embeddings=False`, train.py's default), each matrix can do its own work,
    and the embedding can start larger, as `initialise` says. That costs memory, but no time: a tied
    matrix is multiplied just as often.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position = (
            nn.Embedding(config.block_size, config.n_embd) if config.position == "learned" else None
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = make_norm(config)
        self.lm_head: nn.Module | None = (
            None
            if config.tie_embeddings
            else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw small random weights, and set the matrices that add to the residual stream to zero.

        So a block adds nothing at first, and all tokens are about equally likely: the first loss is
        ln V (test_a_fresh_model_finds_all_tokens_equally_likely). In the first step, the zeros let
        no gradient pass: of a block only `output` and `down` learn. From the second step on, all
        weights learn (test_zeros_hold_back_gradients_for_one_step). The draw follows
        `torch.manual_seed`.

        A tied embedding is the output matrix too, so it must start small, or the first logits would
        be large and the first loss far above ln V. An untied one starts ten times larger: then each
        token's own vector is the largest part of the residual stream, so queries and keys see
        clearly which token it is, and attention soon learns to copy earlier tokens.
        """
        for name, p in self.named_parameters():
            if name.endswith(("output.weight", "down.weight", "bias")):
                nn.init.zeros_(p)
            elif name == "embedding.weight" and self.lm_head is not None:
                nn.init.normal_(p, std=0.2)
            elif name in ("embedding.weight", "position.weight", "lm_head.weight"):
                nn.init.normal_(p, std=0.02)
            elif p.ndim == 2:
                nn.init.normal_(p, std=0.5 / math.sqrt(p.shape[1]))

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        at: Tensor | None = None,
        kv_len: int | None = None,
        begins: Tensor | None = None,
    ) -> Tensor:
        """Return the logits (B, T, V) of ids (B, T).

        Args:
            cache: keys and values of earlier tokens, which `ids` continue; see `KVCache`.
            at: (B,), compute the logits of sequence b at index at[b] only; they are then (B, 1, V).
            kv_len: S, the number of cached positions to attend over, at least the length of the
                longest sequence after these T tokens; None: exactly that length, checked against
                block_size. A larger S changes no logit.
            begins: (B, T), the index at which the document of each token begins, where a sequence
                holds several. Each then gets the logits that it would get alone
                (test_packed_documents_do_not_see_each_other); None: a sequence is one document.

        Raises `ValueError` if `kv_len` is None and a sequence does not fit into block_size or into
        the cache, and for `begins` with a cache.
        """
        T = ids.shape[1]
        # In training there is no cache: positions are 0 to T - 1, and attention is causal.
        if kv_len is None:
            kv_len = self.length_after(T, cache)
        if cache is None:
            positions = torch.arange(T, device=ids.device)[None]  # (1, T)
            mask = None  # causal
            if begins is not None:  # causal, and not beyond the beginning of the own document
                key, query = positions[:, None, None, :], positions[:, None, :, None]
                mask = (key <= query) & (key >= begins[:, None, :, None])  # (B, 1, T, T)
                positions = positions - begins  # (B, T)
        elif begins is not None:
            raise ValueError("documents that share a sequence have no cache")
        else:
            positions = cache.positions(T)  # (B, T)
            # Into an empty cache: causal, for which PyTorch's kernel leaves out half of the scores.
            mask = None if kv_len == T else cache.mask(positions, kv_len)  # (B, 1, T, S)

        # Tokens become vectors. Each gets a position: a vector is added here (learned), or every
        # block turns its queries and keys by an angle (rotary).
        x = self.embedding(ids)  # (B, T, C)
        if self.position is not None:  # learned positions
            x = x + self.position(positions)
        rotary = self.config.position == "rotary"
        cos_sin = rope_cos_sin(positions, self.config) if rotary else None
        x = self.dropout(x)

        # Each block adds to the vectors.
        for layer, block in enumerate(self.blocks):
            past = None if cache is None else LayerCache(cache.kv[layer], positions, kv_len)
            x = block(x, cos_sin, mask, past)

        # Vectors become logits.
        if at is not None:
            x = x[torch.arange(len(x), device=x.device), at][:, None]  # (B, 1, C)
        return self.head(x)

    def head(self, x: Tensor) -> Tensor:  # (..., C) -> (..., V)
        """Return the logits of vectors of the residual stream."""
        x = self.norm(x)
        x = F.linear(x, self.embedding.weight) if self.lm_head is None else self.lm_head(x)
        return x

    def length_after(self, T: int, cache: KVCache | None) -> int:
        """Return the length of the longest sequence once T tokens are added to each.

        Raises `ValueError` if that length is above block_size or the capacity of the cache.
        """
        length, limit = T, self.config.block_size
        if cache is not None:
            length, limit = int(cache.lengths.max()) + T, min(cache.capacity, limit)
        if length > limit:
            raise ValueError(f"{length} tokens do not fit into {limit}")
        return length

    def n_parameters(self) -> int:
        """Return the number of weights; those of a tied head count once."""
        return sum(p.numel() for p in self.parameters())


# ---- the key-value cache ----


class KVCache:
    """Keep the keys and values of the tokens so far, so that `GPT.forward` reads new tokens only.

    No token sees a later one, so the keys and values of a token never change while the text grows:
    a pass with the cache gives the logits of a pass over everything (test_cached_is_uncached). An
    entry is right only while all tokens before its own are the same. If the beginning of a text is
    cut off, the entries of all layers but the first contain information from tokens that are gone,
    and with learned positions those of the first are wrong, too. Then the cache has to be computed
    again (`sampling.context_length`, test_generate_is_naive_generate in tests/test_sampling.py).

    The cache of sequence b holds `lengths[b]` tokens. `GPT.forward` writes the keys and values of T
    new tokens at positions lengths[b] ... lengths[b] + T - 1, and lets each new token see the
    positions up to its own. Then the caller adds the number of real tokens among the T to
    lengths[b]: shorter sequences are padded on the right with any id. Keys and values of padding
    lie after the end of the sequence: no token sees them, and the next tokens overwrite them.

    Args:
        batch: B, the number of sequences.
        capacity: the largest number of tokens in a sequence.
        dtype: the number format of the keys and values.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        # Keys, and after them values, so that one operation writes both:
        # (n_layer, B, 2 Hk, capacity, D)
        shape = (config.n_layer, batch, 2 * config.n_kv_head, capacity, config.head_dim)
        self.kv = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)  # (B,)

    @property
    def capacity(self) -> int:
        """The largest number of tokens in a sequence."""
        return self.kv.shape[3]

    def positions(self, T: int) -> Tensor:
        """Return the positions of the next T tokens of each sequence, (B, T)."""
        return self.lengths[:, None] + torch.arange(T, device=self.lengths.device)

    def mask(self, positions: Tensor, kv_len: int) -> Tensor:
        """Return the mask (B, 1, T, S) of queries at `positions` (B, T): none sees the future."""
        return torch.arange(kv_len, device=positions.device) <= positions[:, None, :, None]


@dataclass
class LayerCache:
    """One layer's part of a `KVCache`, and the positions of the new keys and values."""

    kv: Tensor  # (B, 2 Hk, capacity, D)
    positions: Tensor  # (B, T)
    kv_len: int  # S

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v (B, Hk, T, D) at `positions`; return the first S of each, (B, Hk, S, D)."""
        new = torch.cat((k, v), dim=1).to(self.kv.dtype)  # (B, 2 Hk, T, D)
        self.kv.scatter_(2, self.positions[:, None, :, None].expand_as(new), new)
        keys, values = self.kv[:, :, : self.kv_len].to(k.dtype).chunk(2, dim=1)
        return keys, values
