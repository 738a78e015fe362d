"""LoRA: learn a small correction beside each large matrix, which itself stays as it is.

W x becomes W x + B A x, with A (rank, in) and B (out, rank): Hu et al. 2021, arXiv:2106.09685. Of
the 589,824 numbers of a matrix of GPT-2's attention, rank 8 trains 12,288. B begins at zero, so at
first nothing has changed; and in the end B A can be added to W, so that nothing is slower.

A correction is kept as the library peft keeps it, so transformers loads it beside its model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.errors import UserError
from minigen.files import huggingface
from minigen.files.config_file import model_type
from minigen.model import GPT, Attention


def matrices(model: GPT) -> Iterator[nn.Linear]:
    """The four of each attention, as in the paper."""
    for module in model.modules():
        if isinstance(module, Attention):
            yield from (module.query, module.key, module.value, module.output)


def add(model: GPT, rank: int) -> None:
    """Freeze the model, and put A and B, which train, beside each of its `matrices`."""
    model.requires_grad_(False)
    for matrix in matrices(model):
        (n_out, n_in), like = matrix.weight.shape, matrix.weight
        if not 1 <= rank <= min(n_out, n_in):
            raise UserError(f"--lora_rank is {rank}; give 1 to {min(n_out, n_in)} for this model")
        a = torch.randn(rank, n_in, device=like.device) / math.sqrt(n_in)
        matrix.register_parameter("lora_a", nn.Parameter(a.to(like.dtype)))
        matrix.register_parameter("lora_b", nn.Parameter(like.new_zeros(n_out, rank)))
        matrix.register_forward_hook(_corrected)


def _corrected(matrix: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    a, b = pair(matrix)
    return output + F.linear(F.linear(inputs[0], a), b)  # (..., in) -> (..., rank) -> (..., out)


def pair(matrix: nn.Module) -> tuple[Tensor, Tensor]:
    """A and B of a matrix that has them."""
    return matrix.get_parameter("lora_a"), matrix.get_parameter("lora_b")


def is_added(model: GPT) -> bool:
    """Whether the model has LoRA beside its matrices, not merged."""
    return any(hasattr(matrix, "lora_a") for matrix in matrices(model))


@torch.no_grad()
def merge(model: GPT) -> None:
    """Make B A a part of W; the model is then one like any other. Without LoRA, nothing changes."""
    for matrix in matrices(model) if is_added(model) else ():
        a, b = pair(matrix)
        matrix.weight += b @ a
        del matrix.lora_a, matrix.lora_b
        matrix._forward_hooks.clear()
    model.requires_grad_(True)


# ---- as files ----


def _places(model: GPT) -> Iterator[tuple[str, list[nn.Module]]]:
    """Their name of each tensor that is corrected, and the matrices of ours that it stacks."""
    corrected = set(matrices(model))
    for name, rule in huggingface.rules(model.config).items():
        parts = [model.get_submodule(ours.rpartition(".")[0]) for ours in rule.ours]
        if name.endswith(".weight") and corrected.issuperset(parts):
            yield name.removesuffix(".weight"), parts


def to_peft(model: GPT, base: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of adapter_config.json and of adapter_model.safetensors.

    Where their matrix stacks n of ours, its A stacks the n of ours, and its B has ours as blocks on
    its diagonal.

    Args:
        base: a path or a name from which transformers can load the model without the correction.
    """
    tensors, ranks = {}, {}
    for name, parts in _places(model):
        down, up = zip(*map(pair, parts), strict=True)
        a, b = torch.cat(down), torch.block_diag(*up)  # type: ignore[no-untyped-call]
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.detach()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.detach()
        ranks[".".join(name.split(".")[-2:])] = len(a)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": min(ranks.values()),
        "lora_alpha": min(ranks.values()),  # alpha / r scales B A: here, not at all
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "target_modules": list(ranks),
        "fan_in_fan_out": model_type(model.config) == "gpt2",
        "inference_mode": True,
    }
    return config, tensors


def fit(model: GPT, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Add LoRA of the rank of what `to_peft` made; `UserError` if that was of another model."""
    name, parts = next(_places(model))
    first = shapes.get(f"base_model.model.{name}.lora_A.weight") or (0,)
    add(model, first[0] // len(parts))
    if {k: tuple(t.shape) for k, t in to_peft(model, "")[1].items()} != shapes:
        raise UserError("the LoRA does not fit the model that it names; it is that of another one")


@torch.no_grad()
def from_peft(model: GPT, tensors: Mapping[str, Tensor]) -> None:
    """Add to the model what `to_peft` made of it; `UserError` if it was another model."""
    fit(model, {name: tuple(t.shape) for name, t in tensors.items()})
    for name, parts in _places(model):
        a = tensors[f"base_model.model.{name}.lora_A.weight"].chunk(len(parts))
        b = tensors[f"base_model.model.{name}.lora_B.weight"]
        row = column = 0
        for part, down in zip(parts, a, strict=True):
            ours_a, ours_b = pair(part)
            n_out, rank = ours_b.shape
            ours_a.copy_(down)
            ours_b.copy_(b[row : row + n_out, column : column + rank])
            row, column = row + n_out, column + rank


def fingerprint(model: GPT) -> str:
    """SHA-256, in hex, of the weights without LoRA, to know again what a correction belongs to."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if ".lora_" not in name:
            # The head's former name, so that adapters of runs from before it changed still match.
            digest.update(name.replace("lm_head.", "head.").encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
