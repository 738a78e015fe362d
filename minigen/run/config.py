"""Complete the flags of a run: check their ranges, and choose a value for each missing flag.

Each function returns a new configuration and leaves its argument as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigen import corpora
from minigen.data.json_lines import is_json_lines
from minigen.errors import POSITIVE, UserError, check_range
from minigen.files.config_file import LIMITS
from minigen.inference.engine import Engine
from minigen.model import GPTConfig
from minigen.system.device import choose_device, choose_dtype
from minigen.system.streams import decoded

if TYPE_CHECKING:
    from train import TrainConfig

# The presets of --size. With a vocabulary of 2,048 tokens they have 401,984, 672,832, 790,560,
# 1,377,920, 13,080,192 and 95,179,008 parameters: 0.4, 0.7, 0.8, 1.4, 13 and 95 million. gpt2 with
# --architecture gpt2 and --tokenizer gpt2 is GPT-2, with 124 million. --size auto takes one of them
# by the text and by the speed of the machine: minigen/run/recipe.py says how.
SIZES: dict[str, dict[str, int | float]] = {
    "tiny": {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 256, "batch_size": 4,
             "learning_rate": 1e-2},
    "slim": {"n_layer": 4, "n_head": 4, "n_embd": 64, "block_size": 256, "batch_size": 8,
             "learning_rate": 4e-3},
    "light": {"n_layer": 3, "n_head": 2, "n_embd": 96, "block_size": 256, "batch_size": 8,
              "learning_rate": 1e-2},
    "mini": {"n_layer": 4, "n_head": 2, "n_embd": 128, "block_size": 256, "batch_size": 8,
             "learning_rate": 1e-2},
    "small": {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "batch_size": 64,
              "learning_rate": 3e-3},
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "batch_size": 128,
             "learning_rate": 1e-3},
}  # fmt: skip

# The least and the greatest value of each number. A batch has at least one sequence for each
# micro-batch, too; `resolve` checks that.
RANGES: dict[str, tuple[float, float]] = {
    # A model beyond these limits could not be loaded again.
    **{name: (1, LIMITS[name]) for name in ("vocab_size", "n_layer", "n_head", "n_embd")},
    "block_size": (1, LIMITS["block_size"]),
    "minutes": (POSITIVE, 10**9), "max_steps": (1, math.inf), "batch_size": (1, 2**24),
    "gradient_accumulation_steps": (1, 2**24), "lora_rank": (1, LIMITS["n_embd"]),
    "learning_rate": (POSITIVE, 10**9), "warmup_steps": (0, math.inf), "cooldown": (0, 0.9),
    "weight_decay": (0, 10), "grad_clip": (0, 10**9), "eval_interval": (1, math.inf),
    "eval_tokens": (1, math.inf), "seed": (0, 2**63 - 1), "threads": (1, 4096),
    "old_share": (0, 0.9),
}  # fmt: skip

# The flags that may change when a run resumes, as no weight depends on them before the next step:
# where its files are, how long it trains, how it is measured, and on which machine.
CHANGEABLE = {
    "data", "minutes", "max_steps", "out_dir", "name", "init_from", "device", "eval_interval",
    "eval_tokens", "sample_prompt", "old_data", "on_nan", "fsdp", "threads", "keep_checkpoints",
    "val_data",
}  # fmt: skip
# The flags that describe the base model, so that a run which fine-tunes it cannot choose them.
OF_BASE_MODEL = (
    "n_layer", "n_head", "n_embd", "size", "architecture", "bias", "tokenizer", "vocab_size",
)  # fmt: skip
# The flags that a saved configuration may hold as 0 where they were not given: earlier versions
# saved 0 for None, and --max_steps is saved as 0 until the clock has planned the number of steps.
SAVED_AS_0 = ("max_steps", "lora_rank", "eval_interval", "threads")


def check_ranges(config: TrainConfig) -> None:
    """Raise `UserError` if a number is outside its range in `RANGES`; None is in every range."""
    for name, (least, most) in RANGES.items():
        value = getattr(config, name)
        if value is not None:
            check_range(f"--{name}", value, least, most)


def as_utf8(flags: TrainConfig) -> TrainConfig:
    """Decode the flags that hold text, as the run may resume in another locale."""
    separator = flags.separator and decoded(flags.separator)
    return dataclasses.replace(
        flags, sample_prompt=decoded(flags.sample_prompt), separator=separator
    )


def from_saved(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved configuration with None for each flag that was not given, by today's rule."""
    return {
        name: None if name in SAVED_AS_0 and value == 0 else value for name, value in saved.items()
    }


def merge(flags: TrainConfig, saved: Mapping[str, Any]) -> TrainConfig:
    """Return the saved configuration of a run that resumes, with the `CHANGEABLE` flags replaced.

    Raises `UserError` for a flag that would make it a different run.
    """
    if unknown := sorted(saved.keys() - {field.name for field in dataclasses.fields(flags)}):
        raise UserError(
            f"this run was started by a later minigen, with --{unknown[0]}; update this one"
        )
    tuples = {name: tuple(saved.get(name, ())) for name in ("data", "val_data", "old_data")}
    original = type(flags)(**{**from_saved(saved), **tuples})
    changes: dict[str, Any] = {"fsdp": flags.fsdp}  # a run may resume without it
    for field in dataclasses.fields(flags):
        value, old_value = getattr(flags, field.name), getattr(original, field.name)
        if value in (field.default, old_value):
            continue
        if field.name not in CHANGEABLE:
            raise UserError(
                f"--{field.name} {value}, but this run was started with "
                f"{'none' if old_value is None else old_value}; leave the flag out, or start a "
                "new run"
            )
        changes[field.name] = value
    return dataclasses.replace(original, **changes)


def fit_to(flags: TrainConfig, base: Engine) -> TrainConfig:
    """Return the configuration that fine-tunes the model `base`, whose shape and tokenizer stay.

    A model that minigen has trained learns on as it has learnt so far: with the optimiser, the
    learning rate and, up to 8, the batch size of its own run. Of a model of another program these
    are not known. It gets AdamW, with a rate inversely proportional to the width: in a wider model
    each output sums more weights, so the same step changes it more. That rate is far below the one
    for a new model, because large steps would destroy the knowledge of the base model. A LoRA
    adapter starts at zero and leaves the base model as it is, so its rate is ten times higher.

    Raises `UserError` for a flag that the base model decides on.
    """
    defaults, shape = type(flags)(), base.model.config
    settings = base.state.get("config", {})
    for name in OF_BASE_MODEL:
        if getattr(flags, name) != getattr(defaults, name):
            raise UserError(f"--{name} is fixed by the model to fine-tune; leave it out")
    block_size = min(shape.block_size, 256) if flags.block_size is None else flags.block_size
    if block_size > shape.block_size:
        raise UserError(
            f"--block_size is {block_size}; the model to fine-tune has a context of "
            f"{shape.block_size} tokens: give at most that"
        )
    is_lora = flags.lora_rank is not None
    own = {} if is_lora or settings.get("lora_rank") else settings
    batch_size = min(own.get("batch_size", 8), 8)
    learning_rate = own.get("learning_rate", (0.8 if is_lora else 0.08) / shape.n_embd)
    optimizer = own.get("optimizer", "adamw")
    separator = flags.separator
    if separator == corpora.AUTO:
        separator = separator_of(flags.data, settings)
    if flags.old_share and not flags.old_data and "data" not in settings:
        raise UserError(
            "--old_share needs a text that the model knows, which is not known; give --old_data"
        )
    old_data = corpora.relocate(base.state.get("folder", ""), settings.get("data", ("tales",)))
    return dataclasses.replace(
        flags,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_embd=shape.n_embd,
        block_size=block_size,
        batch_size=batch_size if flags.batch_size is None else flags.batch_size,
        learning_rate=learning_rate if flags.learning_rate is None else flags.learning_rate,
        optimizer=optimizer if flags.optimizer == "auto" else flags.optimizer,
        dropout=0.0 if flags.dropout is None else flags.dropout,
        weight_decay=0.1 if flags.weight_decay is None else flags.weight_decay,
        old_data=flags.old_data or old_data,
        separator=separator,
    )


def separator_of(data: tuple[str, ...], settings: Mapping[str, Any]) -> str | None:
    """Return the separator for a text on which a model is fine-tuned.

    It is the separator of the base model's text, because there the model has learnt to end a
    document. A corpus that a grammar writes has its own separator, and JSON Lines need none.

    Args:
        data: the text, as in --data.
        settings: the configuration that the base model was trained with; empty if unknown.
    """
    separator: str | None = settings.get("separator")
    has_own = corpora.synthetic_names(data, corpora.WRITTEN) or all(
        is_json_lines(Path(path)) for path in data
    )
    return corpora.AUTO if has_own or separator is None else separator


def resolve(flags: TrainConfig) -> TrainConfig:
    """Choose a value for each missing flag that does not depend on the text; check the ranges.

    Raises `UserError` for a value outside its range, and for flags that exclude each other.
    """
    names, minutes = corpora.synthetic_names(flags.data), flags.minutes
    if minutes is None:
        minutes = 3 if names in (("pictures",), ("tunes",)) else 6 if len(names) > 1 else 2
    size = flags.size
    if size == "auto" and names == ("tales",):
        size = "tiny"  # tales are simple: more steps are worth more than more weights
    elif size == "auto" and names:
        # Pictures and tunes repeat rows and phrases over a long distance. To find a repetition,
        # a model needs several layers, one after another, rather than wide ones.
        size = "slim"
    # Of other text, `recipe.choose` knows the best size once the text and the speed are known.
    preset = SIZES["tiny" if size == "auto" else size]
    values: dict[str, Any] = {k: v for k, v in preset.items() if getattr(flags, k) is None}
    values |= {"size": size, "minutes": minutes}
    values["optimizer"] = "muon" if flags.optimizer == "auto" else flags.optimizer
    device = choose_device(flags.device)
    values |= {"device": str(device), "dtype": choose_dtype(flags.dtype, device)}
    config = dataclasses.replace(flags, **values)
    if config.lora_rank is not None and (device.type, config.dtype) == ("cpu", "bfloat16"):
        # PyTorch 2.13 then computes gradients of A and B that are NaN: tried with two cores, in
        # float32 and without an adapter they are right.
        if config.compile == "yes":
            raise UserError(
                "--compile yes gives gradients that are NaN with --lora_rank in bfloat16 on a CPU; "
                "leave it out, or give --dtype float32"
            )
        config = dataclasses.replace(config, compile="no")
    if config.init_from == "scratch":
        for name in ("lora_rank", "old_data", "old_share"):
            if getattr(config, name):
                raise UserError(f"--{name} needs a model to fine-tune; give --init_from")
    check_ranges(config)
    if config.gradient_accumulation_steps is not None:
        n_micro_batches = config.gradient_accumulation_steps
        check_range("--gradient_accumulation_steps", n_micro_batches, 1, config.batch_size)
    if config.init_from == "scratch":
        new_shape(
            config.vocab_size or 1, config
        )  # refuse an impossible shape before a text is read
    return config


def new_shape(vocab_size: int, config: TrainConfig) -> GPTConfig:
    """Return the shape of a new model. Raises `UserError` if no model can have this shape."""
    size = (vocab_size, config.block_size, config.n_layer, config.n_head, config.n_embd)
    if config.architecture == "gpt2":
        return GPTConfig.gpt2(*size, dropout=config.dropout or 0.0, bias=config.bias)
    # Small models of Qwen3 tie lm_head to the embedding, which saves parameters. Here an lm_head of
    # its own learns faster.
    return GPTConfig.modern(*size, dropout=config.dropout or 0.0, tie_embeddings=False)
