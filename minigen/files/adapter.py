"""Adapters of the library peft: low-rank matrices that are added to the weights of a base model.

A folder has an adapter if it has an adapter_config.json: beside the base model, or alone with the
name of the base model. For it, transformers computes W x + scale B A x. Here scale B A is added to
W when the model is loaded. As with config.json, each field is computed, has no effect on the
logits, or is refused.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from minigen.errors import UserError
from minigen.files.config_file import decide, shown, words
from minigen.files.safetensors_file import parse_json, plain, read_file
from minigen.files.weight_files import Weights, open_file, to_float

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")  # the first that exists is read
MAX_CONFIG = 1 << 20  # bytes

COMPUTED = (
    "base_model_name_or_path", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "target_modules",
)  # fmt: skip
ONLY: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_bias": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "use_bdlora": (None, False),
    # Other values change the base model, or give A and B values that the file does not have.
    "init_lora_weights": (True, "gaussian"),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "exclude_modules": (None, []),
    "layers_to_transform": (None, []),
    "layers_pattern": (None, [], ""),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
    "revision": (None,),
    "loftq_config": ({}, None),
    "eva_config": (None,),
    "corda_config": (None,),
    "lora_ga_config": (None,),
    "velora_config": (None,),
    "monteclora_config": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "megatron_config": (None,),
    "ensure_weight_tying": (False,),
}
HARMLESS = words("""
    # Which program wrote the adapter, and its purpose; dropout in training.
    task_type auto_mapping peft_version inference_mode runtime_config unsloth_version lora_dropout
    # peft sets it by the type of the layer.
    fan_in_fan_out
    # Only with use_qalora, and with megatron_config, which are refused.
    qalora_group_size megatron_core
    """)


def is_adapter(folder: Path) -> bool:
    """Return whether the folder holds an adapter, alone or beside a model."""
    return (folder / CONFIG).is_file()


def base_name(folder: Path) -> str | None:
    """Return the path, or the name on the hub, of an adapter's base model; None: not named."""
    name = _read(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str | None):
        raise UserError(
            f"{folder / CONFIG}: base_model_name_or_path is {shown(name)}; "
            "write the path or the name of the base model there"
        )
    return name


def add(
    folder: Path,
    weights: Weights,
    names: Mapping[str, str],
    transposed: Collection[str],
    stack: contextlib.ExitStack,
    base: Path,
) -> Weights:
    """Return the weights of a base model with the adapter of `folder` added to them.

    Matrices with an adapter become float32: in two bytes, rounding would lose small changes.

    Args:
        weights: of the base model.
        names: Hugging Face's name of each tensor of the model -> its name in `weights`.
        transposed: Hugging Face's names of the matrices that are stored as (in, out).
        stack: closes the file of the adapter.
        base: the folder of the base model, for an error.

    Raises `UserError` if the adapter has another method than LoRA, or does not fit the model.
    """
    where = folder / CONFIG
    config = _read(where)
    try:
        decide(config, COMPUTED, ONLY, HARMLESS, str(where))
        path = next((folder / n for n in FILES if (folder / n).is_file()), folder / FILES[0])
        adapter = open_file(path, stack)
        pairs = _pairs(config, adapter, weights, names, transposed, str(where))
    except UserError as error:
        raise UserError(
            f"{error} (on the model {base}; or merge the adapter with peft: merge_and_unload)"
        ) from None
    modules = {names[f"{module}.weight"]: module for module in pairs}

    def read(name: str) -> Tensor:
        tensor = weights.read(name)
        if name not in modules:
            return tensor
        module = modules[name]
        a, b = (to_float(adapter.read(part), part, str(path)).float() for part in pairs[module][:2])
        change = b @ a * pairs[module][2]  # (out, in)
        change = change.t() if f"{module}.weight" in transposed else change
        return to_float(tensor, name, str(folder)).float() + change

    return Weights(weights.shapes, read)


def _read(path: Path) -> dict[str, Any]:
    return parse_json(read_file(path, MAX_CONFIG), str(path))


def _pairs(
    config: Mapping[str, Any],
    adapter: Weights,
    weights: Weights,
    names: Mapping[str, str],
    transposed: Collection[str],
    where: str,
) -> dict[str, tuple[str, str, float]]:
    """Return the names of A and B and the scale of each module that has an adapter."""
    pairs = {}
    unused = set(adapter.shapes)
    for name in names:
        module = name.removesuffix(".weight")
        a, b = (f"base_model.model.{module}.lora_{part}.weight" for part in "AB")
        if not _is_target(config, module, where) or len(weights.shapes[names[name]]) != 2:
            continue
        if not {a, b} <= unused:
            raise UserError(f"{where}: target_modules name {module}, but its file has no {a}")
        unused -= {a, b}
        rank, alpha = (
            _number(config, kind, pattern, module, where)
            for kind, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern"))
        )
        shape = weights.shapes[names[name]]
        n_out, n_in = shape[::-1] if name in transposed else shape
        shapes = adapter.shapes[a], adapter.shapes[b]
        if shapes != ((rank, n_in), (n_out, rank)):
            raise UserError(
                f"{where}: A and B of {module} have the shapes {shapes[0]} and {shapes[1]}; with "
                f"rank {rank:g} they do not fit the model"
            )
        if type(by_root := config.get("use_rslora", False)) is not bool:
            raise UserError(f"{where}: use_rslora is {shown(by_root)}; it is true or false")
        # The scale is alpha / rank, so that a larger rank does not mean larger steps of W; rsLoRA
        # divides by the root of the rank (Kalajdzievski 2023, arXiv:2312.03732).
        pairs[module] = a, b, alpha / (math.sqrt(rank) if by_root else rank)
    if unused:
        raise UserError(f"{where}: its file has {plain(min(unused))}, which minigen does not use")
    return pairs


def _is_target(config: Mapping[str, Any], module: str, where: str) -> bool:
    targets = config.get("target_modules")
    if targets == "all-linear":
        return module.rpartition(".")[2].endswith(("_proj", "c_attn", "c_fc"))
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise UserError(f"{where}: target_modules is {shown(targets)}; minigen takes a list")
    return any(_ends(module, target) for target in targets)


def _number(
    config: Mapping[str, Any], kind: str, pattern: str, module: str, where: str
) -> int | float:
    """Return the rank or alpha of a module: of the first pattern that matches, else the default.

    Args:
        kind: the field with the default, `r` or `lora_alpha`.
        pattern: the field with the patterns.
    """
    patterns = config.get(pattern) or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{where}: {pattern} is {shown(patterns)}, not a JSON object")
    value = config.get(kind, 8)
    for key, special in reversed(patterns.items()):
        if not re.fullmatch(r"\^?[\w.]+", key):
            raise UserError(f"{where}: {pattern} has {shown(key)}; minigen takes plain names")
        if module == key[1:] if key.startswith("^") else _ends(module, key):
            value = special
    if type(value) not in (int, float) or not 0 < value < 1e6 or (kind == "r" and value % 1):
        raise UserError(f"{where}: {kind} of {module} is {shown(value)}; give a positive number")
    return value  # type: ignore[no-any-return]


def _ends(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")
