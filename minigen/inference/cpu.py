"""The transformer on a CPU, for writing text as fast as memory delivers the weights.

Writing has two phases. *Prefill* reads the whole prompt at once: each weight that is loaded is
multiplied with many tokens, so arithmetic sets the speed, and PyTorch's matrix product is best.
*Decoding* reads one new token per text: each weight is loaded for one or a few products, and a core
multiplies faster than memory delivers, so the bytes of the weights set the speed. Hence decoding,
and the prefill of a short prompt, is one call of `cpu.c`, which reads each weight once, and the
weights may be kept in two bytes (bfloat16) or in one (int8). A longer prefill, and everything on a
machine without a C compiler, is left to the `GPT` itself, with the same weights.

int8 costs little accuracy: a weight moves by at most 1/254 of the largest weight of its row, some
up and some down, so in a sum of many products the errors mostly cancel
(test_a_weight_moves_by_half_a_step_at_most, test_fewer_bytes_cost_under_one_percent_of_the_loss).
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
from minigen.system.device import choose_dtype, use_large_pages
from minigen.system.threads import threads

# Threads wait for each other after each matrix; with less work than this, waiting costs more than
# another thread saves.
MIN_PRODUCTS_PER_THREAD = 500_000  # weights times vectors

# Up to this number of vectors `product` of cpu.c is faster than to convert weights for PyTorch.
FEW_VECTORS = 16


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers from -127 to 127 (out, in) and a scale per row (out,).

    Their product is the weight (out, in), rounded to 255 levels per row.

    >>> q, scale = quantise(torch.tensor([[0.25, -1.0], [254.0, 10.0]]))
    >>> q.tolist(), scale.tolist()
    ([[32, -127], [127, 5]], [0.007874015718698502, 2.0])
    """
    scale = weight.float().abs().amax(dim=1).clamp(min=1e-30) / 127
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


class CompactLinear(nn.Module):
    """A linear layer with weights in bfloat16 or int8: x (..., in) -> x W^T + bias (..., out).

    Only the weights are compact: the result is float32, and so is the bias. `cpu.c` multiplies few
    vectors, such as those that become the logits of a prompt. PyTorch multiplies many, and converts
    all weights first, unless the processor multiplies their format.
    """

    def __init__(self, layer: nn.Module, dtype: str) -> None:
        super().__init__()
        weight, bias = layer.get_parameter("weight").detach(), getattr(layer, "bias", None)
        self.scale: Tensor | None = None  # (out,)
        if dtype == "int8":
            self.weight, self.scale = quantise(weight)
        else:
            self.weight = weight.to(getattr(torch, dtype))
        self.bias = None if bias is None else bias.detach().float()
        # On a processor without instructions for bfloat16, PyTorch multiplies float32 far faster.
        self.product_dtype = getattr(torch, choose_dtype("auto", weight.device))

    def forward(self, x: Tensor) -> Tensor:
        n_vectors, n_in = x.numel() // x.shape[-1], x.shape[-1]
        converts = self.weight.dtype != self.product_dtype
        if converts and n_vectors <= FEW_VECTORS and n_in % 2 == 0 and (library := code()):
            x, y = x.float().contiguous(), torch.empty(*x.shape[:-1], len(self.weight))
            workspace = torch.empty(n_vectors * (n_in + 1))
            n_threads = 1 + n_vectors * self.weight.numel() // MIN_PRODUCTS_PER_THREAD
            library.product(
                matrix(self), n_vectors, x.data_ptr(), workspace.data_ptr(),
                min(torch.get_num_threads(), n_threads), y.data_ptr(),
            )  # fmt: skip
            return y
        y = F.linear(x.to(self.product_dtype), self.weight.to(self.product_dtype)).float()
        if self.scale is not None:
            y *= self.scale
        return y if self.bias is None else y.add_(self.bias)


def compact_matrices(model: GPT, dtype: str) -> None:
    """Replace each linear layer of the model by a `CompactLinear`; all else computes in float32."""
    head = model.embedding if model.lm_head is None else model.lm_head
    model.lm_head = CompactLinear(head, dtype)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, CompactLinear(child, dtype))
            elif isinstance(child, nn.Embedding):
                child.register_forward_hook(lambda table, ids, rows: rows.float())
            elif isinstance(child, RMSNorm | nn.LayerNorm):
                child.float()


class Decoder:
    """A `GPT` in evaluation mode for `generate`: (ids (B, T), cache, at (B,)) -> logits (B, 1, V).

    Where `cpu.c` computes, a text gets the same bits alone and in a batch: in each decoding step,
    and in a prefill if the rows times the tokens of the longest prompt are at most `max_prefill`
    (test_the_bits_of_a_row_do_not_depend_on_the_batch). Elsewhere PyTorch computes, which adds in
    another order for another number of rows, so the logits may differ by rounding.

    Args:
        model: the Decoder takes it over and changes the format of its weights.
        dtype: the format of the weights: float32, bfloat16 or int8. The cache that a call is given
            must have the `cache_dtype` of the Decoder.

    Raises `IndexError` for an id outside the vocabulary, and `ValueError` for a cache that does not
    fit.
    """

    def __init__(self, model: GPT, dtype: str) -> None:
        self.model, self.config, c = model, model.config, model.config
        self.cache_dtype = torch.float32 if dtype == "float32" else torch.bfloat16
        self.n_weights = model.n_parameters()
        # PyTorch's product is made for many tokens at once. It pays off sooner where PyTorch need
        # not convert the weights first.
        multiplies_weights_as_they_are = (
            dtype == "bfloat16" and choose_dtype("auto", torch.device("cpu")) == "bfloat16"
        )
        self.max_prefill = 16 if multiplies_weights_as_they_are else 32  # tokens of all rows
        model.float() if dtype == "float32" else compact_matrices(model, dtype)
        # cpu.c reads numbers of fewer bytes in pairs.
        is_odd = any(n % 2 for n in (c.n_embd, c.head_dim, c.n_ffn))
        self.code = None if is_odd and dtype != "float32" else code()
        if self.code is not None:
            # Kept as attributes, because the C code reads both at their addresses.
            self.cos_sin = cos_sin_table(model) if c.position == "rotary" else ()
            self.model_in_c = describe(model, self.cos_sin, KINDS[self.cache_dtype])
            weights = (getattr(module, "weight", None) for module in model.modules())
            use_large_pages(x for x in weights if isinstance(x, Tensor))

    def __call__(self, ids: Tensor, cache: KVCache, at: Tensor) -> Tensor:
        B, T = ids.shape
        max_threads = threads.adapt()
        if self.code is None or (T > 1 and self.max_prefill < B * T):
            with torch.no_grad():
                logits: Tensor = self.model(ids, cache, at)
                return logits
        self.model.length_after(T, cache)  # raises an error if the tokens do not fit
        if cache.kv.shape[1] != B or cache.kv.dtype != self.cache_dtype:
            raise ValueError(f"the cache must have {B} rows of {self.cache_dtype}")
        cache.kv = cache.kv.contiguous()
        logits = torch.empty(B, 1, self.config.vocab_size)
        n_threads = min(max_threads, 1 + B * T * self.n_weights // MIN_PRODUCTS_PER_THREAD)
        size = self.code.workspace_size(self.model_in_c, B * T, cache.capacity, n_threads)
        workspace = torch.empty(size)
        ids, lengths, at = ids.contiguous(), cache.lengths.contiguous(), at.contiguous()
        ids_are_valid = self.code.step(
            self.model_in_c, B, T, ids.data_ptr(), lengths.data_ptr(), at.data_ptr(),
            cache.kv.data_ptr(), cache.capacity, workspace.data_ptr(), n_threads, logits.data_ptr(),
        )  # fmt: skip
        if not ids_are_valid:
            raise IndexError(f"an id is outside the model's vocabulary of {self.config.vocab_size}")
        return logits


# ---- The structures of cpu.c, which hold the address and the shape of each tensor. ----

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # `enum kind` in cpu.c


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
        *((name, CMatrix) for name in ("embedding", "position", "lm_head")),
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
    library = compiled(Path(__file__).with_suffix(".c"))
    if library is not None:
        number, address = ctypes.c_int, ctypes.c_void_p
        library.workspace_size.restype = ctypes.c_int64
        library.workspace_size.argtypes = [
            *(ctypes.POINTER(CModel), number, ctypes.c_int64, number),
        ]
        library.product.argtypes = [
            *(ctypes.POINTER(CMatrix), number, address, address, number, address),
        ]
        library.product.restype = None
        library.step.argtypes = [
            *(ctypes.POINTER(CModel), number, number, address, address, address),
            *(address, ctypes.c_int64, address, number, address),
        ]
    return library


def describe(model: GPT, cos_sin: tuple[Tensor, ...], cache_kind: int) -> CModel:
    """Return the model as cpu.c reads it.

    The result holds addresses. So the model's tensors and `cos_sin` must neither be freed nor move
    while it is in use.
    """
    c, head = model.config, model.embedding if model.lm_head is None else model.lm_head
    return CModel(
        *map(matrix, (model.embedding, model.position, head)),
        norm(model.norm),
        (CLayer * c.n_layer)(*map(layer, model.blocks)),
        *(map(pointer, cos_sin or (None, None))),
        c.norm_eps,
        *(c.n_layer, c.n_head, c.n_kv_head, c.head_dim),
        cache_kind,
    )


def layer(block: nn.Module) -> CLayer:
    """Return a block of the model as cpu.c reads it."""
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
    """Return a linear layer or an embedding as cpu.c reads it."""
    if module is None:
        return CMatrix()
    weight = module.weight
    assert isinstance(weight, Tensor)
    tensors = (weight, getattr(module, "scale", None), getattr(module, "bias", None))
    return CMatrix(*map(pointer, tensors), KINDS[weight.dtype], *weight.shape)


def norm(module: nn.Module) -> CNorm:
    """Return a norm, or the identity in its place, as cpu.c reads it."""
    if isinstance(module, nn.Identity):
        return CNorm()
    gain, shift = module.get_parameter("weight"), getattr(module, "bias", None)
    return CNorm(pointer(gain), pointer(shift), isinstance(module, nn.LayerNorm))


def pointer(tensor: Tensor | None) -> int | None:
    """Return the address of a tensor's first number; None for no tensor."""
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def cos_sin_table(model: GPT) -> tuple[Tensor, ...]:
    """Return the cosines and the sines of rotary positions, each (block_size, D / 2)."""
    positions = torch.arange(model.config.block_size)[None]
    half = model.config.head_dim // 2
    return tuple(t[0, 0, :, :half].contiguous() for t in rope_cos_sin(positions, model.config))
