"""The transformer: token ids in, logits of the next token out.

One skeleton with five switches (norm, position, mlp, bias, qk_norm) spans the way from GPT-2 (2019)
to Qwen3 (2025): `GPTConfig.gpt2()` and `GPTConfig.modern()` name the two ends. The model is plain
PyTorch and knows nothing of text, files, optimisers or losses.

Shapes, everywhere in this file:
    B  sequences in the batch        V  vocab_size            H   n_head     (query heads)
    T  tokens of each sequence       C  n_embd                Hk  n_kv_head  (key and value heads)
    S  positions that can be seen    D  head_dim              M   n_hidden   (inside the MLP)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.errors import UserError


@dataclass(frozen=True)
class GPTConfig:
    """What fixes the model's shape and arithmetic. `UserError` if the numbers do not fit together.

    >>> GPTConfig.gpt2(vocab_size=50257).n_hidden
    3072
    """

    vocab_size: int
    block_size: int  # the longest sequence that the model can see, in tokens
    n_layer: int
    n_head: int
    n_kv_head: int  # fewer than n_head: several query heads share one key/value head
    n_embd: int
    head_dim: int
    n_hidden: int
    norm: Literal["layernorm", "rmsnorm"]
    position: Literal["learned", "rotary"]
    mlp: Literal["gelu", "swiglu"]
    bias: bool
    qk_norm: bool  # normalise queries and keys: keeps attention scores tame at high learning rates
    tied_head: bool = True  # the output matrix is the embedding matrix
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "block_size",
            "n_layer",
            "n_head",
            "n_kv_head",
            "n_embd",
            "head_dim",
            "n_hidden",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.n_head % self.n_kv_head:
            raise UserError(f"n_head {self.n_head} is not a multiple of n_kv_head {self.n_kv_head}")
        if self.position == "rotary" and self.head_dim % 2:
            raise UserError(
                f"head_dim {self.head_dim} is odd; rotary positions turn pairs, so make it even"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout is {self.dropout}; it must be at least 0 and below 1")

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
        """GPT-2 to the letter; the defaults are the 124M model."""
        base: dict[str, Any] = {
            "n_kv_head": n_head, "head_dim": _head_dim(n_embd, n_head), "n_hidden": 4 * n_embd,
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
        """Qwen3's arithmetic: RMSNorm, rotary positions, QK-norm, SwiGLU, no biases.

        With `qk_norm=False` it is Llama's.

        Heads are 64 wide even in a narrow model: with 16, it learns far later to look back.
        """
        base: dict[str, Any] = {
            "n_kv_head": n_head, "head_dim": max(64, _head_dim(n_embd, n_head)),
            "n_hidden": 3 * n_embd,
            "norm": "rmsnorm", "position": "rotary", "mlp": "swiglu", "bias": False,
            "qk_norm": True,
        }  # fmt: skip
        return cls(vocab_size, block_size, n_layer, n_head, n_embd=n_embd, **{**base, **switches})


def _head_dim(n_embd: int, n_head: int) -> int:
    if n_head < 1 or n_embd % n_head:
        raise UserError(f"n_embd {n_embd} is not divisible by n_head {n_head}; change one of them")
    return n_embd // n_head


class KVCache:
    """Keys and values of the tokens so far: with them a new token costs one row, not a whole pass.

    Row b holds `lengths[b]` tokens. `GPT.forward` writes the T tokens that it is given behind them,
    at positions lengths[b] ... lengths[b] + T - 1, and lets each look at the positions up to its
    own; the caller then adds to `lengths` how many of the T were real. So rows of unequal length
    are padded on the right with any id: what padding writes lies behind the row's end, is never
    looked at, and is overwritten by the row's next tokens.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        # Keys, and behind them values, to be written at once: (n_layer, B, 2 Hk, capacity, D)
        shape = (config.n_layer, batch, 2 * config.n_kv_head, capacity, config.head_dim)
        self.kv = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)  # (B,)

    @property
    def capacity(self) -> int:
        return self.kv.shape[3]

    def write(
        self, layer: int, positions: Tensor, k: Tensor, v: Tensor, end: int
    ) -> tuple[Tensor, Tensor]:
        """Put k, v (B, Hk, T, D) at `positions` (B, T); return all up to `end`, (B, Hk, end, D)."""
        new = torch.cat((k, v), dim=1).to(self.kv.dtype)  # (B, 2 Hk, T, D)
        self.kv[layer].scatter_(2, positions[:, None, :, None].expand_as(new), new)
        keys, values = self.kv[layer, :, :, :end].to(k.dtype).chunk(2, dim=1)
        return keys, values


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., width) -> (..., width)
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def make_norm(config: GPTConfig) -> nn.Module:
    if config.norm == "rmsnorm":
        return RMSNorm(config.n_embd, config.norm_eps)
    return nn.LayerNorm(config.n_embd, eps=config.norm_eps, bias=config.bias)


def frequencies(config: GPTConfig, device: torch.device) -> Tensor:
    """Return by which angle each pair of dimensions is turned at each position, (D/2,)."""
    pairs: Tensor = config.rope_theta ** (
        -torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim
    )
    return pairs


def rotation(positions: Tensor, config: GPTConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of rotary position embedding (Su et al. 2021, arXiv:2104.09864).

    Dimension pair i of a head at position p is turned by the angle p * theta^(-2i/D): fast clocks
    for near tokens, slow ones for far. positions (B, T) -> two tensors (B, 1, T, D).
    """
    frequency = frequencies(config, positions.device)  # (D/2,)
    angle = positions[:, None, :, None].float() * frequency  # (B, 1, T, D/2)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x[i], x[i + D/2]) of x (B, H, T, D); then q.k depends on distance only."""
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x.dtype)


def written_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, as a formula (Vaswani et al. 2017, arXiv:1706.03762).

    q (B, H, T, D), k and v (B, H, S, D), mask (..., T, S), True where a query may look
    -> (B, H, T, D).
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, T, S)
    # Added, and not filled in, because the gradient of a sum costs nothing.
    hidden = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -math.inf)
    weights = (scores + hidden).softmax(dim=-1)
    return F.dropout(weights, dropout) @ v


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """The same in one kernel that never stores the (T, S) weights. No mask: no future."""
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=mask is None)


# On CPUs the fused kernel's backward pass is slow, in bfloat16 most of all: written out, attention
# trains up to three times faster. Longer sequences would need much memory for (T, S) weights.
WRITTEN_UP_TO = 256


class Attention(nn.Module):
    """Each token asks (query), all up to it answer (key) with what they have to give (value)."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        c, self.config, self.layer = config, config, layer
        self.query = nn.Linear(c.n_embd, c.n_head * c.head_dim, bias=c.bias)
        self.key = nn.Linear(c.n_embd, c.n_kv_head * c.head_dim, bias=c.bias)
        self.value = nn.Linear(c.n_embd, c.n_kv_head * c.head_dim, bias=c.bias)
        self.output = nn.Linear(c.n_head * c.head_dim, c.n_embd, bias=c.bias)
        self.query_norm = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else nn.Identity()

    def forward(self, x: Tensor, view: View) -> Tensor:  # (B, T, C) -> (B, T, C)
        c, (B, T, _) = self.config, x.shape
        q = self.query_norm(self.query(x).view(B, T, c.n_head, c.head_dim)).transpose(
            1, 2
        )  # (B, H, T, D)
        k = self.key_norm(self.key(x).view(B, T, c.n_kv_head, c.head_dim)).transpose(
            1, 2
        )  # (B, Hk, T, D)
        v = self.value(x).view(B, T, c.n_kv_head, c.head_dim).transpose(1, 2)
        if view.turn is not None:
            q, k = rotate(q, *view.turn), rotate(k, *view.turn)
        if view.cache is not None:
            k, v = view.cache.write(self.layer, view.positions, k, v, view.end)  # (B, Hk, S, D)
        if c.n_kv_head < c.n_head:  # each key/value head serves H / Hk query heads in a row
            k = k.repeat_interleave(c.n_head // c.n_kv_head, dim=1)  # (B, H, S, D)
            v = v.repeat_interleave(c.n_head // c.n_kv_head, dim=1)
        dropout = c.dropout if self.training else 0.0
        if x.device.type == "cpu" and torch.is_grad_enabled() and T <= WRITTEN_UP_TO:
            mixed = written_attention(q, k, v, view.mask, dropout)
        else:
            mixed = fused_attention(q, k, v, view.mask if view.cache is not None else None, dropout)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(B, T, c.n_head * c.head_dim))
        return out


class MLP(nn.Module):
    """Each token alone: widen, bend, narrow. SwiGLU (Shazeer 2020, arXiv:2002.05202) has a gate."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.up = nn.Linear(c.n_embd, c.n_hidden, bias=c.bias)
        self.gate = nn.Linear(c.n_embd, c.n_hidden, bias=c.bias) if c.mlp == "swiglu" else None
        self.down = nn.Linear(c.n_hidden, c.n_embd, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, M) -> (B, T, C)
        up = self.up(x)
        bent = F.gelu(up, approximate="tanh") if self.gate is None else F.silu(self.gate(x)) * up
        narrowed: Tensor = self.down(bent)
        return narrowed


@dataclass
class View:
    """What every layer needs to know of the positions; made once per forward pass."""

    positions: Tensor  # (B, T)
    mask: Tensor  # (B or 1, 1, T, S), True where a query may look
    turn: tuple[Tensor, Tensor] | None  # cosine and sine for rotary positions
    cache: KVCache | None
    end: int  # S


class Block(nn.Module):
    """Attention moves information between tokens, the MLP works on it; both add to the stream x."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = make_norm(config), Attention(config, layer)
        self.mlp_norm, self.mlp = make_norm(config), MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, view: View) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.dropout(self.attention(self.attention_norm(x), view))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x


class GPT(nn.Module):
    """ids (B, T) -> logits (B, T, V): [b, t] scores each possible token t + 1 of sequence b."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position = (
            nn.Embedding(config.block_size, config.n_embd) if config.position == "learned" else None
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = make_norm(config)
        self.head: nn.Module | None = (
            None if config.tied_head else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Small random weights; zeros where a block adds to the stream: at first it adds nothing.

        Then every token starts out about equally likely (first loss = ln V), and gradients reach
        all layers from the first step on. The draw follows `torch.manual_seed`.

        A tied embedding is the output matrix too, so it must start small. An untied one starts
        ten times larger: the token itself is then the loudest thing in the stream, which is what
        attention needs to find out early that it can look back and copy.
        """
        for name, p in self.named_parameters():
            if name.endswith(("output.weight", "down.weight", "bias")):
                nn.init.zeros_(p)
            elif name == "embedding.weight" and self.head is not None:
                nn.init.normal_(p, std=0.2)
            elif name in ("embedding.weight", "position.weight", "head.weight"):
                nn.init.normal_(p, std=0.02)
            elif p.ndim == 2:
                nn.init.normal_(p, std=0.5 / math.sqrt(p.shape[1]))

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        at: Tensor | None = None,
        end: int | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of ids (B, T); with `at` (B,) only those at index at[b]: (B, 1, V).

        With a cache, ids are the tokens that follow those in it; see `KVCache`. `end` is where the
        longest sequence then ends; None: found out, and checked. A higher one changes no number.
        `ValueError` when a sequence does not fit into block_size.
        """
        view = self.look(ids, cache, end)
        x = self.embedding(ids)  # (B, T, C)
        if self.position is not None:
            x = x + self.position(view.positions)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, view)
        if at is not None:
            x = x[torch.arange(len(x), device=x.device), at][:, None]  # (B, 1, C)
        x = self.norm(x)
        return F.linear(x, self.embedding.weight) if self.head is None else self.head(x)

    def look(self, ids: Tensor, cache: KVCache | None, end: int | None = None) -> View:
        """Where each token stands, and where it may look: at every position up to its own."""
        (_, T), config = ids.shape, self.config
        start = (
            torch.zeros(1, dtype=torch.long, device=ids.device) if cache is None else cache.lengths
        )
        end = self.reach(T, cache) if end is None else end
        positions = start[:, None] + torch.arange(T, device=ids.device)  # (B or 1, T)
        mask = (
            torch.arange(end, device=ids.device) <= positions[:, None, :, None]
        )  # (B or 1, 1, T, S)
        turn = rotation(positions, config) if config.position == "rotary" else None
        return View(positions, mask, turn, cache, end)

    def reach(self, T: int, cache: KVCache | None) -> int:
        """Where the longest sequence ends with T tokens more. `ValueError` if they do not fit."""
        end = T if cache is None else int(cache.lengths.max()) + T
        limit = (
            self.config.block_size if cache is None else min(cache.capacity, self.config.block_size)
        )
        if end > limit:
            raise ValueError(f"{end} tokens do not fit into {limit}")
        return end

    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())
