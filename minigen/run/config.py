"""The flags of a run made complete: sizes filled in, ranges checked, device and dtype chosen.

Each function returns a new configuration; none changes the one that it is given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minigen import corpora
from minigen.errors import UserError, check_range
from minigen.inference.engine import Engine
from minigen.model import GPTConfig
from minigen.system.device import choose_device, choose_dtype
from minigen.system.streams import decoded

if TYPE_CHECKING:
    from train import TrainConfig

# The meaning of --size. With the default tokenizer these are about 0.3, 0.7, 1.4, 13 and 95 million
# parameters; gpt2 with GPT-2's architecture and tokenizer has 124. Each number can also be given by
# itself.
SIZES: dict[str, dict[str, int | float]] = {
    "tiny": {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 256, "batch_size": 4,
             "learning_rate": 1e-2},
    "slim": {"n_layer": 4, "n_head": 4, "n_embd": 64, "block_size": 256, "batch_size": 8,
             "learning_rate": 4e-3},
    "mini": {"n_layer": 4, "n_head": 2, "n_embd": 128, "block_size": 256, "batch_size": 4,
             "learning_rate": 1e-2},
    "small": {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "batch_size": 64,
              "learning_rate": 3e-3},
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "batch_size": 128,
             "learning_rate": 1e-3},
}  # fmt: skip

# The flags that a resumed run may change: how long it trains, and how it is measured and shown.
FREE = {
    "data", "minutes", "max_steps", "out_dir", "name", "init_from", "device", "eval_interval",
    "eval_tokens", "sample_prompt", "old_data", "on_nan", "fsdp", "threads",
}  # fmt: skip
# The flags that the base model of a fine-tuned run decides on.
FIXED = (
    "n_layer", "n_head", "n_embd", "size", "architecture", "bias", "tokenizer", "vocab_size",
)  # fmt: skip


def as_utf8(flags: TrainConfig) -> TrainConfig:
    """Decode the flags that hold text, as the run may resume in another locale."""
    separator = flags.separator and decoded(flags.separator)
    return dataclasses.replace(
        flags, sample_prompt=decoded(flags.sample_prompt), separator=separator
    )


def merge(flags: TrainConfig, saved: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration that a resumed run was saved with, changed by the flags in `FREE`.

    Raises `UserError` for a flag that would make it another run.
    """
    texts = {name: tuple(saved.get(name, ())) for name in ("data", "old_data")}
    if unknown := sorted(saved.keys() - {field.name for field in dataclasses.fields(flags)}):
        raise UserError(
            f"this run was begun by a later minigen, with --{unknown[0]}; update this one"
        )
    began = type(flags)(**{**saved, **texts})
    changes: dict[str, Any] = {"fsdp": flags.fsdp}  # a run may resume without it
    for field in dataclasses.fields(flags):
        value, was = getattr(flags, field.name), getattr(began, field.name)
        if value in (field.default, was):
            continue
        if field.name not in FREE:
            raise UserError(
                f"--{field.name} {value}, but this run began with {was}; "
                "leave the flag out, or start a new run"
            )
        changes[field.name] = value
    return dataclasses.replace(began, **changes)


def fit_to(flags: TrainConfig, base: Engine) -> TrainConfig:
    """Return the configuration that fine-tunes the model `base`, whose shape and tokenizer stay.

    The learning rate falls with the width, and is low enough for the model to keep what it has
    learnt. A LoRA adapter, which starts from zero, takes ten times more.

    Raises `UserError` for a flag that the base model decides on.
    """
    fresh, shape = type(flags)(), base.model.config
    settings = base.state.get("config", {})
    for name in FIXED:
        if getattr(flags, name) != getattr(fresh, name):
            raise UserError(f"--{name} is fixed by the model to fine-tune; leave it out")
    if flags.block_size > shape.block_size:
        raise UserError(f"--block_size is {flags.block_size}; the model sees {shape.block_size}")
    old_data = corpora.relocate(base.state.get("folder", ""), settings.get("data", ("tales",)))
    separator = flags.separator
    if separator == corpora.AUTO:
        separator = separator_of(flags.data, settings)
    return dataclasses.replace(
        flags,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_embd=shape.n_embd,
        block_size=flags.block_size or min(shape.block_size, 256),
        batch_size=flags.batch_size or 8,
        learning_rate=flags.learning_rate or (0.8 if flags.lora_rank else 0.08) / shape.n_embd,
        optimizer="adamw" if flags.optimizer == "auto" else flags.optimizer,
        old_data=flags.old_data or old_data,
        separator=separator,
    )


def separator_of(data: tuple[str, ...], settings: Mapping[str, Any]) -> str | None:
    """Return the separator for a text on which a model is fine-tuned.

    The model ends a document at the separator that it was trained with. Corpora that grammars write
    have a separator of their own.

    Args:
        data: the text, as in --data.
        settings: the configuration that the model was trained with; empty: it is not known.
    """
    separator: str | None = settings.get("separator")
    return corpora.AUTO if corpora.synthetic(data) or separator is None else separator


def resolve(flags: TrainConfig) -> TrainConfig:
    """Fill in everything that does not depend on the text, and check the ranges.

    Raises `UserError` for a value out of its range, and for flags that exclude each other.
    """
    written, minutes = corpora.synthetic(flags.data), flags.minutes or 2
    if written == ("tales",) or (not written and minutes < 2):
        # Tales are simple, and in less than two minutes more steps are worth more than weights.
        fitting = "tiny"
    elif not written:
        fitting = "mini"
    else:
        # Pictures and tunes repeat themselves far apart: to find that takes layers, not width.
        fitting, minutes = "slim", flags.minutes or (3 if len(written) == 1 else 6)
    size = fitting if flags.size == "auto" else flags.size
    chosen: dict[str, Any] = {k: v for k, v in SIZES[size].items() if not getattr(flags, k)}
    chosen |= {"size": size, "minutes": minutes}
    chosen["optimizer"] = "muon" if flags.optimizer == "auto" else flags.optimizer
    device = choose_device(flags.device)
    chosen |= {"device": str(device), "dtype": choose_dtype(flags.dtype, device)}
    config = dataclasses.replace(flags, **chosen)
    if config.init_from == "scratch" and (config.lora_rank or config.old_data):
        raise UserError("--lora_rank and --old_data go with a trained model: give --init_from")
    for name, least, most in (
        ("vocab_size", 1, math.inf), ("batch_size", 1, math.inf), ("eval_tokens", 1, math.inf),
        ("gradient_accumulation_steps", 0, config.batch_size), ("max_steps", 0, math.inf),
        ("eval_interval", 0, math.inf), ("warmup_steps", 0, math.inf), ("cooldown", 0, 0.9),
        ("weight_decay", 0, 10), ("grad_clip", 0, 1e9), ("minutes", 1e-9, 1e9),
        ("learning_rate", 1e-9, 1e9), ("lora_rank", 0, math.inf), ("seed", 0, 2**63 - 1),
        ("threads", 0, 4096),
    ):  # fmt: skip
        check_range(f"--{name}", getattr(config, name), least, most)
    if config.init_from == "scratch":
        new_shape(config.vocab_size, config)  # refuse an impossible shape before a text is read
    return config


def new_shape(vocab_size: int, config: TrainConfig) -> GPTConfig:
    """Return the shape of a new model. Raises `UserError` if there is no such model."""
    size = (vocab_size, config.block_size, config.n_layer, config.n_head, config.n_embd)
    if config.architecture == "gpt2":
        return GPTConfig.gpt2(*size, dropout=config.dropout or 0.0, bias=config.bias)
    # Qwen3's small models tie the head to the embedding; ours learn faster with one of their own.
    return GPTConfig.modern(*size, dropout=config.dropout or 0.0, tie_embeddings=False)
