"""The transformer once more, arranged for writing text on a CPU.

A new token is little arithmetic, but it waits until every weight has come from memory. So here
weights lie in the order in which they are read, in two bytes or one if wished; layers that look at
the same vector are one matrix; and nothing is left that only training needs. Vectors, attention and
the cache stay float32: they are small. What is computed stands in `minigen.model`, with its shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.model import GPT, Block, KVCache, RMSNorm, rotate, rotation

Function = Callable[[Tensor], Tensor]


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 (out, in) and a scale for each row (out,): about weight.

    >>> q, scale = quantise(torch.tensor([[0.5, -1.0], [254.0, 10.0]]))
    >>> q.tolist(), scale.tolist()
    ([[64, -127], [127, 5]], [0.00787353515625, 2.0])
    """
    largest = weight.float().abs().amax(dim=1).clamp(min=1e-30)
    scale = (largest / 127).bfloat16()  # rounded before it divides, so that its error cancels
    return (weight / scale[:, None].float()).round().clamp(-127, 127).to(torch.int8), scale


# Up to here many rows at once, the kernel for few is faster than one for many after unpacking.
FEW_ROWS = 32


def int8_product(weight: Tensor, bias: Tensor | None) -> Function:
    """x (N, in) -> x weight^T + bias (N, out), with weights of one byte; bfloat16 otherwise."""
    q, scale = quantise(weight)
    bias = None if bias is None else bias.bfloat16()

    def product(x: Tensor) -> Tensor:
        x = x.bfloat16()
        if len(x) > FEW_ROWS:  # q is exact in bfloat16
            y = F.linear(x, q.bfloat16()) * scale
        else:
            y = torch._weight_int8pack_mm(x, q, scale)
        return y if bias is None else y.add_(bias)

    return product


def packed_product(weight: Tensor, bias: Tensor | None) -> Function:
    """x (N, in) -> x weight^T + bias (N, out), in the number format of `weight`.

    oneDNN wants a matrix in an order of its own. `F.linear` would bring it into that order for
    each product, or read it far slower than memory could give it.
    """
    dtype = weight.dtype
    fast = "AVX" in torch.backends.cpu.get_cpu_capability() and (
        dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    if not fast:
        return lambda x: F.linear(x.to(dtype), weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 16)  # for about so many rows
    linear = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: linear(x.to(dtype), packed, bias, "none", [], "")


def pack(layers: Sequence[nn.Linear | nn.Embedding | None], dtype: str) -> Function:
    """One product for all `layers`, which have the same input: x (N, in) -> (N, sum of out)."""
    weight = torch.cat([layer.weight.detach() for layer in layers if layer is not None])
    biases: list[Tensor] = [
        layer.bias.detach()
        for layer in layers
        if isinstance(layer, nn.Linear) and layer.bias is not None
    ]
    bias = torch.cat(biases) if biases else None
    if dtype == "int8":
        return int8_product(weight, bias)
    narrow = getattr(torch, dtype)
    return packed_product(weight.to(narrow), None if bias is None else bias.to(narrow))


def norm_function(norm: nn.Module) -> Function:
    """What the module computes, without the module."""
    if isinstance(norm, RMSNorm):
        weight = norm.weight.detach().float()
        return partial(F.rms_norm, normalized_shape=weight.shape, weight=weight, eps=norm.eps)
    assert isinstance(norm, nn.LayerNorm)
    weight = norm.weight.detach().float()
    bias = None if norm.bias is None else norm.bias.detach().float()
    shape = list(weight.shape)
    return partial(F.layer_norm, normalized_shape=shape, weight=weight, bias=bias, eps=norm.eps)


@dataclass
class Place:
    """Where the new tokens stand, and what they see; the same for every block."""

    positions: Tensor  # (B, T)
    start: int  # of the longest row
    end: int
    even: bool  # all rows are as long as that
    mask: Tensor | None  # (B, 1, T, S); a single token of even rows sees all before it
    turn: tuple[Tensor, Tensor] | None


class PackedBlock:
    """A `Block`: x (N, C), the layer's cache (B, 2 Hk, capacity, D) -> x, changed in place."""

    def __init__(self, block: Block, dtype: str) -> None:
        attention, mlp = block.attention, block.mlp
        self.config = attention.config
        self.attention_norm = norm_function(block.attention_norm)
        self.query_key_value = pack([attention.query, attention.key, attention.value], dtype)
        self.query_norm = norm_function(attention.query_norm) if self.config.qk_norm else None
        self.key_norm = norm_function(attention.key_norm) if self.config.qk_norm else None
        self.output = pack([attention.output], dtype)
        self.mlp_norm = norm_function(block.mlp_norm)
        self.up_gate = pack([mlp.up, mlp.gate], dtype)
        self.down = pack([mlp.down], dtype)

    def __call__(self, x: Tensor, kv: Tensor, place: Place) -> Tensor:
        x += self.output(self.attention(self.query_key_value(self.attention_norm(x)), kv, place))
        y = self.up_gate(self.mlp_norm(x))
        if self.config.mlp == "swiglu":
            up, gate = y.chunk(2, dim=-1)
            y = F.silu(gate) * up
        else:
            y = F.gelu(y, approximate="tanh")
        x += self.down(y)
        return x

    def attention(self, y: Tensor, kv: Tensor, place: Place) -> Tensor:
        """y (N, (H + 2 Hk) D), queries, keys and values -> what the heads found, (N, H D)."""
        (B, T), c = place.positions.shape, self.config
        y = y.float().view(B, T, c.n_head + 2 * c.n_kv_head, c.head_dim).transpose(1, 2)
        if self.query_norm is not None or place.turn is not None:
            q, k, v = torch.split(y, [c.n_head, c.n_kv_head, c.n_kv_head], dim=1)
            if self.query_norm is not None and self.key_norm is not None:
                q, k = self.query_norm(q), self.key_norm(k)
            if place.turn is not None:
                q, k = rotate(q, *place.turn), rotate(k, *place.turn)
            y = torch.cat((q, k, v), dim=1)
        q, new = y[:, : c.n_head], y[:, c.n_head :]  # (B, H, T, D) and (B, 2 Hk, T, D)
        if place.even:  # what `KVCache.write` does, but faster
            kv[:, :, place.start : place.end] = new
        else:
            kv[torch.arange(B)[:, None], :, place.positions] = new.transpose(1, 2)
        keys, values = kv[:, :, : place.end].chunk(2, dim=1)  # (B, Hk, S, D) each
        shared = c.n_kv_head < c.n_head
        mixed = F.scaled_dot_product_attention(q, keys, values, place.mask, enable_gqa=shared)
        return mixed.transpose(1, 2).reshape(B * T, c.n_head * c.head_dim)


class Decoder:
    """A `GPT` in evaluation mode for `generate`: (ids (B, T), cache, at (B,)) -> (B, 1, V).

    dtype is the format of the weights: float32, bfloat16 or int8. The cache is float32.
    The `GPT` is not needed any more; only its embedding is used, of which a token reads one row.
    """

    def __init__(self, model: GPT, dtype: str) -> None:
        self.config = model.config
        self.embedding = model.embedding.weight.detach()
        self.position = None if model.position is None else model.position.weight.detach()
        self.blocks = [PackedBlock(cast(Block, block), dtype) for block in model.blocks]
        self.norm = norm_function(model.norm)
        self.head = pack([model.embedding if model.head is None else model.head], dtype)

    @torch.no_grad()
    def __call__(self, ids: Tensor, cache: KVCache, at: Tensor) -> Tensor:
        B, T = ids.shape
        place = self.look(cache.lengths, T)
        x = self.embedding[ids.flatten()].float()  # (N, C), N = B * T
        if self.position is not None:
            x += self.position[place.positions.flatten()]
        for block, kv in zip(self.blocks, cache.kv, strict=True):
            x = block(x, kv, place)
        if T > 1:
            x = x.view(B, T, -1)[torch.arange(B), at]
        return self.head(self.norm(x))[:, None]

    def look(self, lengths: Tensor, T: int) -> Place:
        """`GPT.look`, for T tokens behind rows of these lengths (B,)."""
        lowest, highest = lengths.aminmax()
        start, even = int(highest), bool(lowest == highest)
        positions = lengths[:, None] + torch.arange(T)
        mask = None
        if T > 1 or not even:
            mask = torch.arange(start + T) <= positions[:, None, :, None]
        turn = rotation(positions, self.config) if self.config.position == "rotary" else None
        return Place(positions, start, start + T, even, mask, turn)
