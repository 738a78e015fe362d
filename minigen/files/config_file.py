"""config.json: every field of it is computed, changes no number, or is refused by its name.

A program that passes over a field computes another model than the one that was meant, and nobody
sees it. So the tables below decide about each field that transformers knows in GPT-2, Llama and
Qwen3, and about those that other programs add. A field that is in none of them is refused.
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
        computed: their name -> our name, and the value where the field is absent or, if that is
            None, derived from others.
        only: their name -> the values with which minigen computes the same; any other is refused.
        checked: fields that functions below look into.
        same: a second name of a field -> its first.
        switches: fields of ours that the model_type itself decides.
    """

    computed: Mapping[str, tuple[str, Any]]
    only: Mapping[str, tuple[Any, ...]]
    checked: tuple[str, ...]
    same: Mapping[str, str]
    switches: Mapping[str, Any]


# All of them are the tanh approximation; only the order of the operations differs.
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
        "bias": ("bias", True),  # ours: transformers' GPT-2 has biases always; then they are zero
    },
    only={
        "activation_function": GELU,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "sliding_window": (None,),  # GPT-2 has none, but the cache of transformers would obey it
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
    "attention_dropout": ("dropout", 0.0),  # in training, where minigen drops elsewhere too
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
    only=_ROTARY_ONLY | {"sliding_window": (None,)},  # as with GPT-2
    checked=_CHECKED,
    same={},
    switches={"qk_norm": False},
)
FIELDS = {"gpt2": GPT2, "llama": LLAMA, "qwen3": QWEN3}

# In each of the three: what transformers would obey, and minigen does not.
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
    "auto_map": (None, {}),  # code of the model's own
    "prefix": (None, ""),  # which transformers' pipeline puts before each prompt
}
HARMLESS = words("""
    # Who wrote the file, and with which program.
    model_type architectures _name_or_path name_or_path _commit_hash transformers_version
    unsloth_version unsloth_fixed transformers.js_config is_llama_config author created_date license
    # How the weights are stored, which their files say themselves.
    dtype torch_dtype use_bfloat16
    # Random starts, and the ways of other programs to train.
    initializer_range gradient_checkpointing loss_type tf_legacy_loss neftune_noise_alpha
    # Other results than logits, and other heads than that of the next token.
    output_hidden_states output_attentions output_past return_dict use_return_dict torchscript
    tie_last_hidden_states summary_type summary_use_proj summary_activation summary_first_dropout
    summary_last_dropout summary_proj_to_labels classifier_dropout hidden_dropout id2label label2id
    num_labels _num_labels problem_type finetuning_task task_specific_params is_decoder
    tie_encoder_decoder cross_attention_hidden_size
    # Other ways to the same numbers; and what only matters with use_sliding_window.
    use_cache _attn_implementation attn_implementation _attn_implementation_autoset
    _flash_attn_2_enabled _experts_implementation experts_implementation chunk_size_feed_forward
    reorder_and_upcast_attn pretraining_tp sliding_window max_window_layers
    # Second words, which no one reads any more, for n_positions and max_position_embeddings.
    n_ctx max_sequence_length
    # Tokens, and how to write with the model: after the logits. Not read here.
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

# The largest plausible value of each; a config with more is damaged, and nothing is allocated.
LIMITS = {
    "vocab_size": 2**22, "block_size": 2**24, "n_layer": 512, "n_head": 2**12, "n_kv_head": 2**12,
    "n_embd": 2**17, "head_dim": 2**14, "n_ffn": 2**20,
}  # fmt: skip
RANGES = {"norm_eps": (0, 1), "rope_theta": (1, 1e12), "dropout": (0, 1)}


def read_config(content: Mapping[str, Any], where: str) -> GPTConfig:
    """Return the `GPTConfig` that a config.json asks for.

    Args:
        content: the JSON object.
        where: the file, with which a complaint begins.

    Raises `UserError` that names the field of which minigen does not compute the value.
    """
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in FIELDS:
        *most, last = FIELDS
        known = f"{', '.join(most)} and {last}"
        raise UserError(f"{where}: model_type is {shown(kind)}; minigen computes {known}")
    fields = FIELDS[kind]
    content = _first_names(content, fields, where)
    computed = (*fields.computed, *fields.checked)
    decide(content, computed, {**ONLY, **fields.only}, HARMLESS, where)
    values = {}
    for theirs, (ours, absent) in fields.computed.items():
        value = content.get(theirs, absent)
        if theirs == "rope_theta":
            value = _rope_theta(content, where)
        if value is None and theirs in ("n_inner", "num_key_value_heads", "head_dim"):
            continue
        _check(theirs, ours, value, where)
        values[ours] = value
    _check_layers(content, values["n_layer"], where)
    try:
        if kind == "gpt2":
            return GPTConfig.gpt2(**values)
        values.setdefault("head_dim", values["n_embd"] // values["n_head"])
        return GPTConfig.modern(**values, **fields.switches)
    except UserError as error:
        raise UserError(f"{where}: {plain(error)}") from None


def decide(
    content: Mapping[str, Any],
    computed: Collection[str],
    only: Mapping[str, tuple[Any, ...]],
    harmless: Collection[str],
    where: str,
) -> None:
    """Raise `UserError` for a field with a value that is not in `only`, or that is unknown."""
    for name, value in content.items():
        if name in only and value not in only[name]:
            raise UserError(
                f"{where}: {name} is {shown(value)}; minigen computes {shown(only[name][0])}"
            )
        if name not in only and name not in computed and name not in harmless:
            raise UserError(
                f"{where}: minigen does not know the field '{plain(name)}', nor which numbers it "
                "changes; if it changes none, delete it from the file"
            )


def shown(value: object) -> str:
    """Return an untrusted value as part of one line, strings in quotes."""
    return f"'{plain(value)}'" if isinstance(value, str) else plain(value)


def _first_names(content: Mapping[str, Any], fields: Fields, where: str) -> dict[str, Any]:
    """Return the content with the first name of each field that has two."""
    renamed = dict(content)
    for second, first in fields.same.items():
        if second not in renamed:
            continue
        value = renamed.pop(second)
        if renamed.setdefault(first, value) != value:
            raise UserError(
                f"{where}: {first} is {shown(content[first])}, but {second}, which means the same, "
                f"is {shown(value)}; delete the wrong one"
            )
    return renamed


def _check(theirs: str, ours: str, value: Any, where: str) -> None:
    """Raise `UserError` if a computed field has a value of the wrong kind or size."""
    if ours in LIMITS:
        if type(value) is not int or not 1 <= value <= LIMITS[ours]:
            raise UserError(
                f"{where}: {theirs} is {shown(value)}; that is no model (1 to {LIMITS[ours]:,})"
            )
    elif ours in RANGES:
        least, most = RANGES[ours]
        if type(value) not in (int, float) or not least <= value <= most:
            raise UserError(
                f"{where}: {theirs} is {shown(value)}; that is no model ({least:g} to {most:g})"
            )
    elif type(value) is not bool:
        raise UserError(f"{where}: {theirs} is {shown(value)}; it is true or false")


def _rope_theta(content: Mapping[str, Any], where: str) -> Any:
    """Return theta as transformers finds it, in rotary positions that are not scaled.

    rope_scaling is the older name of rope_parameters, and counts more. In them, rope_type was once
    called type, and theta stood outside; where it stands in both places, the inner one counts.
    """
    outer = content.get("rope_theta", 10_000.0)
    for name in ("rope_scaling", "rope_parameters"):
        rope = content.get(name) or {}
        if not isinstance(rope, dict):
            raise UserError(f"{where} is damaged: {name} is {shown(rope)}, no JSON object")
        only = {"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1, None)}
        decide(rope, ("rope_theta",), only, (), f"{where}: {name}")
    rope = content.get("rope_scaling") or content.get("rope_parameters") or {}
    return rope.get("rope_theta", outer)


def _check_layers(content: Mapping[str, Any], n_layer: int, where: str) -> None:
    """Raise `UserError` if a layer is said to see less than all tokens before it."""
    types = content.get("layer_types")
    if types is None:
        return
    known = ("full_attention", "attention")  # the second is an older word for the first
    other = [kind for kind in types if kind not in known] if isinstance(types, list) else [types]
    if other:
        raise UserError(
            f"{where}: layer_types has {shown(other[0])}; minigen computes {known[0]!r}"
        )
    if len(types) != n_layer:
        raise UserError(f"{where}: layer_types has {len(types)} layers, not {n_layer}")


def say_of_dropout(content: Mapping[str, Any], where: str) -> None:
    """Say on stderr if GPT-2's three places of dropout, for which minigen has one rate, differ."""
    rates = {name: content.get(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if content.get("model_type") == "gpt2" and len(set(map(repr, rates.values()))) > 1:
        told = ", ".join(f"{name} {shown(rate)}" for name, rate in rates.items())
        print(f"warning: {where}: {told}; in training minigen takes the first", file=sys.stderr)


# ---- the other direction ----


def model_type(config: GPTConfig) -> str:
    """Return which of FIELDS computes what `config` asks for. `UserError` if none does."""
    switches = (config.norm, config.position, config.mlp, config.qk_norm)
    whole = config.n_head == config.n_kv_head and config.n_head * config.head_dim == config.n_embd
    if switches == ("layernorm", "learned", "gelu", False) and whole:
        return "gpt2"
    if switches == ("rmsnorm", "rotary", "swiglu", True) and not config.bias:
        return "qwen3"
    even = config.n_embd % config.n_head == 0  # on which transformers insists, whatever head_dim is
    if switches == ("rmsnorm", "rotary", "swiglu", False) and not config.bias and even:
        return "llama"
    raise UserError(
        "these switches together are none of GPT-2's, Llama's and Qwen3's, so no other program "
        "could load the model; GPTConfig.gpt2(...) and GPTConfig.modern(...) have theirs"
    )


def write_config(config: GPTConfig, end_of_text: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the content of a config.json from which transformers builds the same model."""
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
        "rope_theta": config.rope_theta,  # where transformers 4 looks for it; and 5:
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
    }
