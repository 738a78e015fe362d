"""Read and write config.json: each field is computed, has no effect on the logits, or is refused.

A program that ignores a field may compute another model than the one in the folder, and nobody
notices. So the tables below list each field that transformers knows in GPT-2, Llama and Qwen3, and
the fields that other programs add. A field that is in none of the tables is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from minigen.errors import UserError
from minigen.files.safetensors_file import plain
from minigen.model import GPTConfig


def words(table: str) -> frozenset[str]:
    """Return the words of a table, in which lines that begin with # are comments."""
    lines = [line for line in table.splitlines() if not line.lstrip().startswith("#")]
    return frozenset(" ".join(lines).split())


@dataclass(frozen=True)
class Fields:
    """The fields of one model_type.

    Args:
        computed: Hugging Face's name -> minigen's name, and the value where the field is absent;
            None: that value is derived from other fields.
        only: Hugging Face's name -> the values that minigen computes; any other is refused.
        checked: fields that functions of this module check.
        same: a second name of a field -> its first name.
        switches: fields of `GPTConfig` that follow from the model_type.
    """

    computed: Mapping[str, tuple[str, Any]]
    only: Mapping[str, tuple[Any, ...]]
    checked: tuple[str, ...]
    same: Mapping[str, str]
    switches: Mapping[str, Any]


# Each name means GELU's tanh approximation; only the order of the operations differs.
GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
SILU = ("silu", "swish")

GPT2 = Fields(
    computed={
        "vocab_size": ("vocab_size", 50257),
        "n_positions": ("block_size", 1024),
        "n_layer": ("n_layer", 12),
        "n_head": ("n_head", 12),
        "n_embd": ("n_embd", 768),
        "n_inner": ("n_ffn", None),  # 4 n_embd
        "layer_norm_epsilon": ("norm_eps", 1e-5),
        "tie_word_embeddings": ("tie_embeddings", True),
        "resid_pdrop": ("dropout", 0.1),
        "bias": ("bias", True),  # only minigen writes it: transformers' GPT-2 always has biases
    },
    only={
        "activation_function": GELU,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "sliding_window": (None,),  # GPT-2 has none, but the cache of transformers would use it
    },
    checked=("layer_types", "attn_pdrop", "embd_pdrop"),
    same={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    switches={},
)
_CHECKED = ("layer_types", "rope_parameters", "rope_scaling")
_ROTARY: dict[str, tuple[str, Any]] = {
    "tie_word_embeddings": ("tie_embeddings", False),
    "attention_dropout": ("dropout", 0.0),  # in training; minigen also drops in other places
    "rms_norm_eps": ("norm_eps", 1e-6),
    "rope_theta": ("rope_theta", 10_000.0),  # see `_rope_theta`
}
_ROTARY_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": SILU,
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False,),
}
QWEN3 = Fields(
    computed={
        "vocab_size": ("vocab_size", 151936),
        "max_position_embeddings": ("block_size", 32768),
        "num_hidden_layers": ("n_layer", 32),
        "num_attention_heads": ("n_head", 32),
        "num_key_value_heads": ("n_kv_head", 32),
        "hidden_size": ("n_embd", 4096),
        "head_dim": ("head_dim", 128),
        "intermediate_size": ("n_ffn", 22016),
        **_ROTARY,
    },
    only=_ROTARY_ONLY,
    checked=_CHECKED,
    same={},
    switches={"qk_norm": True},
)
LLAMA = Fields(
    computed={
        "vocab_size": ("vocab_size", 32000),
        "max_position_embeddings": ("block_size", 2048),
        "num_hidden_layers": ("n_layer", 32),
        "num_attention_heads": ("n_head", 32),
        "num_key_value_heads": ("n_kv_head", None),  # num_attention_heads
        "hidden_size": ("n_embd", 4096),
        "head_dim": ("head_dim", None),  # hidden_size / num_attention_heads
        "intermediate_size": ("n_ffn", 11008),
        **_ROTARY,
    },
    only=_ROTARY_ONLY | {"sliding_window": (None,)},  # as in GPT2 above
    checked=_CHECKED,
    same={},
    switches={"qk_norm": False},
)
FIELDS = {"gpt2": GPT2, "llama": LLAMA, "qwen3": QWEN3}

# In each of the three architectures: fields that transformers computes and minigen does not.
ONLY: dict[str, tuple[Any, ...]] = {
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "attention_chunk_size": (None,),
    "kv_sharing_modes": (None,),
    "per_layer_config": (None, {}),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "compression_config": (None,),
    "transformers_weights": (None,),  # the name of another file
    "fusion_config": (None,),
    "distributed_config": (None,),
    "auto_map": (None, {}),  # Python code in the model's folder
    "prefix": (None, ""),  # transformers' pipeline puts it before each prompt
}
HARMLESS = words("""
    # Who wrote the file, and with which program.
    model_type architectures _name_or_path name_or_path _commit_hash transformers_version
    unsloth_version unsloth_fixed transformers.js_config is_llama_config author created_date license
    # The number format of the weights, which their files name too.
    dtype torch_dtype use_bfloat16
    # Random initialisation, and settings for training in other programs.
    initializer_range gradient_checkpointing loss_type tf_legacy_loss neftune_noise_alpha
    # Other outputs than logits, and other heads than the one for the next token.
    output_hidden_states output_attentions output_past return_dict use_return_dict torchscript
    tie_last_hidden_states summary_type summary_use_proj summary_activation summary_first_dropout
    summary_last_dropout summary_proj_to_labels classifier_dropout hidden_dropout id2label label2id
    num_labels _num_labels problem_type finetuning_task task_specific_params is_decoder
    tie_encoder_decoder cross_attention_hidden_size
    # Other implementations with the same results; fields that matter only with use_sliding_window.
    use_cache _attn_implementation attn_implementation _attn_implementation_autoset
    _flash_attn_2_enabled _experts_implementation experts_implementation chunk_size_feed_forward
    reorder_and_upcast_attn pretraining_tp sliding_window max_window_layers
    # Former names of n_positions and max_position_embeddings, which no program reads any more.
    n_ctx max_sequence_length
    # Tokens and sampling, which come after the logits; companions.py reads them.
    bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id unk_token_id mask_token_id
    decoder_start_token_id tokenizer_class model_max_length predict_special_tokens
    max_length max_new_tokens min_length min_new_tokens do_sample early_stopping num_beams
    num_beam_groups diversity_penalty temperature top_k top_p min_p typical_p epsilon_cutoff
    eta_cutoff repetition_penalty encoder_repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens num_assistant_tokens
    num_assistant_tokens_schedule assistant_confidence_threshold assistant_lookbehind
    target_lookbehind
    """)

# The largest plausible value of each field. A larger one means damage, and is refused before any
# memory is allocated.
LIMITS = {
    "vocab_size": 2**22, "block_size": 2**24, "n_layer": 512, "n_head": 2**12, "n_kv_head": 2**12,
    "n_embd": 2**17, "head_dim": 2**14, "n_ffn": 2**20,
}  # fmt: skip
RANGES = {"norm_eps": (0, 1), "rope_theta": (1, 1e12), "dropout": (0, 1)}


def read_config(saved: Mapping[str, Any], where: str) -> GPTConfig:
    """Return the `GPTConfig` that a config.json describes.

    Args:
        saved: the JSON object.
        where: the file, for an error.

    Raises `UserError` that names a field with a value that minigen does not compute.
    """
    kind = saved.get("model_type")
    if not isinstance(kind, str) or kind not in FIELDS:
        *first, last = FIELDS
        kinds = f"{', '.join(first)} and {last}"
        raise UserError(f"{where}: model_type is {shown(kind)}; minigen computes {kinds}")
    fields = FIELDS[kind]
    saved = _first_names(saved, fields, where)
    computed = (*fields.computed, *fields.checked)
    decide(saved, computed, {**ONLY, **fields.only}, HARMLESS, where)
    values = {}
    for hugging_face_name, (minigen_name, absent) in fields.computed.items():
        value = saved.get(hugging_face_name, absent)
        if hugging_face_name == "rope_theta":
            value = _rope_theta(saved, where)
        if value is None and hugging_face_name in ("n_inner", "num_key_value_heads", "head_dim"):
            continue
        _check(hugging_face_name, minigen_name, value, where)
        values[minigen_name] = value
    _check_layers(saved, values["n_layer"], where)
    try:
        if kind == "gpt2":
            return GPTConfig.gpt2(**values)
        values.setdefault("head_dim", values["n_embd"] // values["n_head"])
        return GPTConfig.modern(**values, **fields.switches)
    except UserError as error:
        raise UserError(f"{where}: {plain(error)}") from None


def decide(
    saved: Mapping[str, Any],
    computed: Collection[str],
    only: Mapping[str, tuple[Any, ...]],
    harmless: Collection[str],
    where: str,
) -> None:
    """Raise `UserError` for an unknown field, and for one with a value that is not in `only`.

    Args:
        saved: the JSON object.
        computed: fields that minigen computes.
        only: field -> the values that minigen computes.
        harmless: fields without effect on the logits.
        where: the file, for an error.
    """
    for name, value in saved.items():
        if name in only and value not in only[name]:
            raise UserError(
                f"{where}: {name} is {shown(value)}; minigen computes {shown(only[name][0])}"
            )
        if name not in only and name not in computed and name not in harmless:
            raise UserError(
                f"{where}: minigen does not know the field '{plain(name)}', which may change the "
                "logits; if it does not, delete it from the file"
            )


def shown(value: object) -> str:
    """Return an untrusted value as part of one line, with quotes around a string."""
    return f"'{plain(value)}'" if isinstance(value, str) else plain(value)


def _first_names(saved: Mapping[str, Any], fields: Fields, where: str) -> dict[str, Any]:
    """Return the fields; a field with two names gets its first name."""
    renamed = dict(saved)
    for second, first in fields.same.items():
        if second not in renamed:
            continue
        value = renamed.pop(second)
        if renamed.setdefault(first, value) != value:
            raise UserError(
                f"{where}: {first} is {shown(saved[first])}, but {second}, another name of that "
                f"field, is {shown(value)}; delete the wrong one"
            )
    return renamed


def _check(hugging_face_name: str, minigen_name: str, value: Any, where: str) -> None:
    """Raise `UserError` if a computed field has a value of the wrong type or size."""
    complaint = f"{where}: {hugging_face_name} is {shown(value)}"
    if minigen_name in LIMITS:
        limit = LIMITS[minigen_name]
        if type(value) is not int or not 1 <= value <= limit:
            raise UserError(f"{complaint}; it must be from 1 to {limit:,}")
    elif minigen_name in RANGES:
        low, high = RANGES[minigen_name]
        if type(value) not in (int, float) or not low <= value <= high:
            raise UserError(f"{complaint}; it must be from {low:g} to {high:g}")
    elif type(value) is not bool:
        raise UserError(f"{complaint}; it is true or false")


def _rope_theta(saved: Mapping[str, Any], where: str) -> Any:
    """Return the base of the rotary positions, theta, where transformers finds it.

    Raises `UserError` for rotary positions that are scaled.

    rope_scaling is the older name of rope_parameters, and takes precedence. Its field rope_type was
    once called type, and theta was a field of config.json itself; the inner theta takes precedence.
    """
    outer = saved.get("rope_theta", 10_000.0)
    for name in ("rope_scaling", "rope_parameters"):
        rope = saved.get(name) or {}
        if not isinstance(rope, dict):
            raise UserError(f"{where} is damaged: {name} is {shown(rope)}, not a JSON object")
        only = {"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1, None)}
        decide(rope, ("rope_theta",), only, (), f"{where}: {name}")
    rope = saved.get("rope_scaling") or saved.get("rope_parameters") or {}
    return rope.get("rope_theta", outer)


def _check_layers(saved: Mapping[str, Any], n_layer: int, where: str) -> None:
    """Raise `UserError` if a layer does not attend to all earlier tokens."""
    types = saved.get("layer_types")
    if types is None:
        return
    full = ("full_attention", "attention")  # the second is an older name of the first
    other = [kind for kind in types if kind not in full] if isinstance(types, list) else [types]
    if other:
        raise UserError(f"{where}: layer_types has {shown(other[0])}; minigen computes {full[0]!r}")
    if len(types) != n_layer:
        raise UserError(f"{where}: layer_types has {len(types)} layers, not {n_layer}")


def warn_of_dropout(saved: Mapping[str, Any], where: str) -> None:
    """Warn if the three dropout rates of a GPT-2 differ: minigen has only one rate."""
    rates = {name: saved.get(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if saved.get("model_type") == "gpt2" and len(set(map(repr, rates.values()))) > 1:
        listed = ", ".join(f"{name} {shown(rate)}" for name, rate in rates.items())
        print(f"warning: {where}: {listed}; in training minigen takes the first", file=sys.stderr)


# ---- the other direction ----


def model_type(config: GPTConfig) -> str:
    """Return the model_type of FIELDS that computes this model. Raises `UserError` if none does."""
    switches = (config.norm, config.position, config.mlp, config.qk_norm)
    full = config.n_head == config.n_kv_head and config.n_head * config.head_dim == config.n_embd
    if switches == ("layernorm", "learned", "gelu", False) and full:
        return "gpt2"
    if switches == ("rmsnorm", "rotary", "swiglu", True) and not config.bias:
        return "qwen3"
    divides = config.n_embd % config.n_head == 0  # transformers requires it, whatever head_dim is
    if switches == ("rmsnorm", "rotary", "swiglu", False) and not config.bias and divides:
        return "llama"
    raise UserError(
        "no architecture of GPT-2, Llama and Qwen3 has these switches, so no other program could "
        "load the model; take the switches of GPTConfig.gpt2(...) or GPTConfig.modern(...)"
    )


def write_config(config: GPTConfig, end_of_text: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the content of a config.json for this model, which transformers loads.

    Args:
        end_of_text: the id of the token that begins and ends a text.
        dtype: the number format of the weights.
    """
    shared = {
        "model_type": model_type(config),
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
    }
    if shared["model_type"] == "gpt2":
        return shared | {
            "architectures": ["GPT2LMHeadModel"],
            "n_positions": config.block_size,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "n_inner": config.n_ffn,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_eps,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
            "bias": config.bias,
        }
    return shared | {
        "architectures": ["Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"],
        "max_position_embeddings": config.block_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "hidden_size": config.n_embd,
        "head_dim": config.head_dim,
        "intermediate_size": config.n_ffn,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "attention_bias": False,
        "attention_dropout": config.dropout,
        "rope_theta": config.rope_theta,  # where transformers 4 finds it
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},  # and 5
    }
