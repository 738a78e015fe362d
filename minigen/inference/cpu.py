"""The transformer once more, for writing text on a CPU at the speed of its memory.

A new token is little arithmetic, but it waits until every weight has come from memory. So weights
are kept in two bytes or one if wished, and a few tokens at once are one call of `cpu.c`, which
reads each weight once and else waits for nothing. Long prompts, and machines without a C compiler,
are left to the `GPT` itself, with the same weights.
"""

from __future__ import annotations

import ctypes
from functools import cache as only_once
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.inference.compile_c import compiled
from minigen.model import GPT, Block, KVCache, RMSNorm, rope_cos_sin
from minigen.system.device import choose_dtype
from minigen.system.threads import threads

# Threads wait for each other at each matrix, so each needs a share that is worth it.
WORTH_A_THREAD = 500_000  # weights times vectors


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 (out, in) and a scale for each row (out,): about weight.

    >>> q, scale = quantise(torch.tensor([[0.25, -1.0], [254.0, 10.0]]))
    >>> q.tolist(), scale.tolist()
    ([[32, -127], [127, 5]], [0.007874015718698502, 2.0])
    """
    scale = weight.float().abs().amax(dim=1).clamp(min=1e-30) / 127
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


class Matrix(nn.Module):
    """A linear layer with weights in fewer bytes: x (..., in) -> x W^T + bias (..., out)."""

    def __init__(self, layer: nn.Module, dtype: str) -> None:
        super().__init__()
        weight, bias = layer.get_parameter("weight").detach(), getattr(layer, "bias", None)
        self.scale: Tensor | None = None  # (out,)
        if dtype == "int8":
            self.weight, self.scale = quantise(weight)
        else:
            self.weight = weight.to(getattr(torch, dtype))
        self.bias = None if bias is None else bias.detach().float()
        # Where the processor has no products of bfloat16, PyTorch's are far slower than float32's.
        self.product = getattr(torch, choose_dtype("auto", weight.device))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.to(self.product), self.weight.to(self.product)).float()
        if self.scale is not None:
            y *= self.scale
        return y if self.bias is None else y.add_(self.bias)


def narrow(model: GPT, dtype: str) -> None:
    """Exchange each matrix of the model for a `Matrix`; all else computes in float32."""
    model.lm_head = Matrix(model.embedding if model.lm_head is None else model.lm_head, dtype)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Matrix(child, dtype))
            elif isinstance(child, nn.Embedding):
                child.register_forward_hook(lambda table, ids, rows: rows.float())
            elif isinstance(child, RMSNorm | nn.LayerNorm):
                child.float()


class Decoder:
    """A `GPT` in evaluation mode for `generate`: (ids (B, T), cache, at (B,)) -> (B, 1, V).

    dtype is the format of the weights: float32, bfloat16 or int8. The `GPT` is taken over: it
    computes in that format from then on. Its cache must be of the Decoder's `cache_dtype`.
    """

    def __init__(self, model: GPT, dtype: str) -> None:
        self.model, self.config, c = model, model.config, model.config
        self.cache_dtype = torch.float32 if dtype == "float32" else torch.bfloat16
        self.n_weights = model.n_parameters()
        # A longer prompt is faster as PyTorch's product, which is made for many tokens at once; and
        # sooner so where that need not change the format of the weights first.
        ready = dtype == "bfloat16" and choose_dtype("auto", torch.device("cpu")) == "bfloat16"
        self.short = 16 if ready else 32
        model.float() if dtype == "float32" else narrow(model, dtype)
        # cpu.c takes numbers of two bytes two by two.
        odd = any(n % 2 for n in (c.n_embd, c.head_dim, c.n_ffn))
        self.code = None if odd and dtype != "float32" else code()
        if self.code is not None:
            # Both are kept, because the C reads them by their addresses.
            self.turn = turn_table(model) if c.position == "rotary" else ()
            self.model_in_c = describe(model, self.turn, KINDS[self.cache_dtype])

    def __call__(self, ids: Tensor, cache: KVCache, at: Tensor) -> Tensor:
        B, T = ids.shape
        most_threads = threads.adapt()
        if self.code is None or (T > 1 and self.short < B * T):
            with torch.no_grad():
                logits: Tensor = self.model(ids, cache, at)
                return logits
        self.model.length_after(T, cache)  # it fits
        if cache.kv.shape[1] != B or cache.kv.dtype != self.cache_dtype:
            raise ValueError(f"the cache must have {B} rows of {self.cache_dtype}")
        cache.kv = cache.kv.contiguous()
        logits = torch.empty(B, 1, self.config.vocab_size)
        n_threads = min(most_threads, 1 + B * T * self.n_weights // WORTH_A_THREAD)
        room = torch.empty(self.code.room(self.model_in_c, B * T, cache.capacity, n_threads))
        ids, lengths, at = ids.contiguous(), cache.lengths.contiguous(), at.contiguous()
        known = self.code.step(
            self.model_in_c, B, T, ids.data_ptr(), lengths.data_ptr(), at.data_ptr(),
            cache.kv.data_ptr(), cache.capacity, room.data_ptr(), n_threads, logits.data_ptr(),
        )  # fmt: skip
        if not known:
            raise IndexError(f"an id is not one of the model's {self.config.vocab_size}")
        return logits


# ---- What cpu.c needs to know: where each tensor lies. ----

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # `enum kind` there


class CMatrix(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
        *((name, ctypes.c_int) for name in ("kind", "rows", "columns")),
    ]


class CNorm(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("gain", "shift")),
        ("centred", ctypes.c_int),
    ]


class CLayer(ctypes.Structure):
    _fields_ = [
        *((name, CNorm) for name in ("attention_norm", "query_norm", "key_norm", "mlp_norm")),
        *((name, CMatrix) for name in ("query", "key", "value", "output", "up", "gate", "down")),
    ]


class CModel(ctypes.Structure):
    _fields_ = [
        *((name, CMatrix) for name in ("embedding", "position", "head")),
        ("norm", CNorm),
        ("layers", ctypes.POINTER(CLayer)),
        *((name, ctypes.c_void_p) for name in ("cosine", "sine")),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("n_layer", "n_head", "n_kv_head", "head_dim")),
        ("cache_kind", ctypes.c_int),
    ]


@only_once
def code() -> ctypes.CDLL | None:
    """Return cpu.c, compiled; None without a C compiler."""
    found = compiled(Path(__file__).with_suffix(".c"))
    if found is not None:
        whole, address = ctypes.c_int, ctypes.c_void_p
        found.room.restype = ctypes.c_int64
        found.room.argtypes = [ctypes.POINTER(CModel), whole, ctypes.c_int64, whole]
        found.step.argtypes = [
            *(ctypes.POINTER(CModel), whole, whole, address, address, address),
            *(address, ctypes.c_int64, address, whole, address),
        ]
    return found


def describe(model: GPT, turn: tuple[Tensor, ...], cache_kind: int) -> CModel:
    """The model's tensors must live and stay where they are as long as this is used."""
    c, head = model.config, model.embedding if model.lm_head is None else model.lm_head
    return CModel(
        *map(matrix, (model.embedding, model.position, head)),
        norm(model.norm),
        (CLayer * c.n_layer)(*map(layer, model.blocks)),
        *(map(pointer, turn or (None, None))),
        c.norm_eps,
        *(c.n_layer, c.n_head, c.n_kv_head, c.head_dim),
        cache_kind,
    )


def layer(block: nn.Module) -> CLayer:
    assert isinstance(block, Block)
    attention, mlp = block.attention, block.mlp
    return CLayer(
        *map(
            norm, (block.attention_norm, attention.query_norm, attention.key_norm, block.mlp_norm)
        ),
        *map(matrix, (attention.query, attention.key, attention.value, attention.output)),
        *map(matrix, (mlp.up, mlp.gate, mlp.down)),
    )


def matrix(module: nn.Module | None) -> CMatrix:
    if module is None:
        return CMatrix()
    weight = module.weight
    assert isinstance(weight, Tensor)
    tensors = (weight, getattr(module, "scale", None), getattr(module, "bias", None))
    return CMatrix(*map(pointer, tensors), KINDS[weight.dtype], *weight.shape)


def norm(module: nn.Module) -> CNorm:
    if isinstance(module, nn.Identity):
        return CNorm()
    gain, shift = module.get_parameter("weight"), getattr(module, "bias", None)
    return CNorm(pointer(gain), pointer(shift), isinstance(module, nn.LayerNorm))


def pointer(tensor: Tensor | None) -> int | None:
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def turn_table(model: GPT) -> tuple[Tensor, ...]:
    """Cosine and sine of rotary positions, (block_size, D / 2)."""
    positions = torch.arange(model.config.block_size)[None]
    half = model.config.head_dim // 2
    return tuple(t[0, 0, :, :half].contiguous() for t in rope_cos_sin(positions, model.config))
