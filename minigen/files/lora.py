"""LoRA: train a small adapter beside each large matrix, which itself is frozen.

W x becomes W x + scale B A x, with A (rank, in) and B (out, rank): Hu et al. 2021,
arXiv:2106.09685.

- Why a product of two thin matrices? Fine-tuning changes W by a matrix that is nearly of low rank,
  and B A is any matrix of rank at most `rank`, made of rank * (in + out) numbers instead of
  in * out: with rank 8, 12,288 instead of 589,824 for a matrix of GPT-2's attention. So gradients,
  the optimiser's averages and checkpoints are small (test_less_than_a_hundredth_of_gpt2).
- Why does B start at zero? Then B A is zero, and training starts from the base model itself
  (test_a_new_adapter_changes_nothing). A is random: if it were zero as well, the gradients of both
  would be zero, and neither would ever change.
- Why a scale? scale = alpha / rank multiplies the change of W. Dividing by the rank lets one
  learning rate serve several ranks. minigen trains with alpha = rank, so with scale 1:
  --learning_rate alone sets the size of the change.
- Is the model slower afterwards? No: B A is added to W (`merge`), and the result is a model with
  the same matrices as before (test_the_adapter_adds_b_a).

An adapter is saved in the format of the library peft, so transformers loads it with its base model
(test_peft_loads_it).
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
    """Yield the matrices that get an adapter: query, key, value and output of each attention."""
    for module in model.modules():
        if isinstance(module, Attention):
            yield from (module.query, module.key, module.value, module.output)


def add(model: GPT, rank: int) -> None:
    """Freeze the model, and add A and B, which are trained, to each of its `matrices`.

    Raises `UserError` if the rank is not between 1 and the width of the matrices.
    """
    model.requires_grad_(False)
    for matrix in matrices(model):
        (n_out, n_in), like = matrix.weight.shape, matrix.weight
        if not 1 <= rank <= min(n_out, n_in):
            raise UserError(f"--lora_rank is {rank}; give 1 to {min(n_out, n_in)} for this model")
        a = torch.randn(rank, n_in, device=like.device) / math.sqrt(n_in)
        matrix.register_parameter("lora_a", nn.Parameter(a.to(like.dtype)))
        matrix.register_parameter("lora_b", nn.Parameter(like.new_zeros(n_out, rank)))
        matrix.register_forward_hook(_add_product)


def _add_product(matrix: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Return W x + B A x: PyTorch calls this hook after each call of a matrix with an adapter.

    Args:
        matrix: it has A (rank, in) and B (out, rank), its `pair`.
        inputs: the arguments of the call, which are one: x, (..., in).
        output: W x, (..., out).
    """
    a, b = pair(matrix)
    # Two thin products, because B A itself would be as large as W.
    return output + F.linear(F.linear(inputs[0], a), b)  # (..., in) -> (..., rank) -> (..., out)


def pair(matrix: nn.Module) -> tuple[Tensor, Tensor]:
    """Return A and B of a matrix that has an adapter."""
    return matrix.get_parameter("lora_a"), matrix.get_parameter("lora_b")


def is_added(model: GPT) -> bool:
    """Return whether the model has an adapter that is not merged."""
    return any(hasattr(matrix, "lora_a") for matrix in matrices(model))


@torch.no_grad()
def merge(model: GPT) -> None:
    """Add B A to W, and remove A and B. A model without an adapter does not change."""
    for matrix in matrices(model) if is_added(model) else ():
        a, b = pair(matrix)
        matrix.weight += b @ a
        del matrix.lora_a, matrix.lora_b
        matrix._forward_hooks.clear()
    model.requires_grad_(True)


# ---- as files ----


def _places(model: GPT) -> Iterator[tuple[str, list[nn.Module]]]:
    """Yield Hugging Face's name of each matrix with an adapter, and minigen's matrices in it."""
    with_adapter = set(matrices(model))
    for name, rule in huggingface.rules(model.config).items():
        parts = [model.get_submodule(part.rpartition(".")[0]) for part in rule.minigen_names]
        if name.endswith(".weight") and with_adapter.issuperset(parts):
            yield name.removesuffix(".weight"), parts


def to_peft(model: GPT, base: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the content of adapter_config.json and of adapter_model.safetensors.

    A matrix of Hugging Face may stack several matrices of minigen. Then the adapter's A stacks
    their A, and its B has their B as blocks on the diagonal, so that each part of the output
    depends on its own A only.

    Args:
        base: a path or a name from which transformers can load the base model.
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
        "lora_alpha": min(ranks.values()),  # the scale, alpha / r, is 1
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "target_modules": list(ranks),
        "fan_in_fan_out": model_type(model.config) == "gpt2",
        "inference_mode": True,
    }
    return config, tensors


def fit(model: GPT, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Add a new adapter whose rank is that of a saved adapter.

    Args:
        model: the base model.
        shapes: of the tensors that `to_peft` wrote, by name.

    Raises `UserError` if the shapes are those of an adapter of another model.
    """
    name, parts = next(_places(model))
    first = shapes.get(f"base_model.model.{name}.lora_A.weight") or (0,)
    add(model, first[0] // len(parts))
    if {k: tuple(t.shape) for k, t in to_peft(model, "")[1].items()} != shapes:
        raise UserError("the adapter does not fit its base model: its tensors have other shapes")


@torch.no_grad()
def from_peft(model: GPT, tensors: Mapping[str, Tensor]) -> None:
    """Add the adapter that `to_peft` wrote to its base model.

    Raises `UserError` if the adapter is of another model.
    """
    fit(model, {name: tuple(t.shape) for name, t in tensors.items()})
    for name, parts in _places(model):
        a = tensors[f"base_model.model.{name}.lora_A.weight"].chunk(len(parts))
        b = tensors[f"base_model.model.{name}.lora_B.weight"]
        row = column = 0
        for part, down in zip(parts, a, strict=True):
            part_a, part_b = pair(part)
            n_out, rank = part_b.shape
            part_a.copy_(down)
            part_b.copy_(b[row : row + n_out, column : column + rank])
            row, column = row + n_out, column + rank


def fingerprint(model: GPT) -> str:
    """Return the SHA-256, in hex, of the base model's weights, which identifies the base model."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if ".lora_" not in name:
            # The head's former name, so that adapters that were saved under it still match
            # (test_a_checkpoint_with_former_names_resumes_to_the_same_bits).
            digest.update(name.replace("lm_head.", "head.").encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
