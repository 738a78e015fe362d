"""Each field of a config.json is computed, has no effect, or is refused by name."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig, Qwen3Config
from transformers.generation import GenerationConfig

from minigen.errors import UserError
from minigen.files.config_file import FIELDS, HARMLESS, ONLY, read_config, warn_of_dropout
from minigen.model import GPTConfig

CLASSES = {"gpt2": GPT2Config, "llama": LlamaConfig, "qwen3": Qwen3Config}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 99, "n_positions": 16, "n_layer": 2, "n_head": 4, "n_embd": 32},
    "llama": {"vocab_size": 99, "max_position_embeddings": 16, "num_hidden_layers": 2,
              "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48},
}  # fmt: skip
SIZES["qwen3"] = SIZES["llama"] | {"num_key_value_heads": 2, "head_dim": 16}


def read(kind: str, **changes: Any) -> GPTConfig:
    """Return the config of a small config.json with some fields changed, or left out (`...`)."""
    content = {"model_type": kind} | SIZES[kind] | changes
    return read_config({k: v for k, v in content.items() if v is not ...}, "config.json")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_field_of_transformers_is_in_a_table(kind: str) -> None:
    """Each field that transformers reads from a config.json of this kind is in a table."""
    fields = FIELDS[kind]
    decided = {*fields.computed, *fields.only, *fields.checked, *fields.same, *ONLY, *HARMLESS}
    config = CLASSES[kind](**SIZES[kind])
    known = {
        *config.to_dict(),
        *config.attribute_map,
        *(f.name for f in dataclasses.fields(config)),
    }
    known |= set(GenerationConfig._get_default_generation_params())
    older = inspect.getsource(PreTrainedConfig.__post_init__)
    older += inspect.getsource(PreTrainedConfig.convert_rope_params_to_dict)
    known |= set(re.findall(r'kwargs\.(?:pop|get)\("(\w+)"', older))
    if kind == "gpt2":  # which has no rotary positions
        known -= {"rope_scaling", "rope_theta", "partial_rotary_factor"}
    known -= {"_attn_implementation_internal", "_experts_implementation_internal"}  # not read
    assert len(known) > 60
    assert known <= decided, known - decided


@pytest.mark.parametrize("kind", CLASSES)
def test_a_config_of_transformers_is_read(kind: str) -> None:
    """A config.json that transformers writes, with all fields or without the defaults, is read."""
    config = CLASSES[kind](**SIZES[kind])
    for content in (config.to_dict(), config.to_diff_dict()):
        assert read_config(content, "config.json") == read(kind)


ROPE = {"rope_type": "default", "rope_theta": 300.0}
COMPUTED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("gpt2", {"n_layer": ..., "num_hidden_layers": 3}, {"n_layer": 3}),
    ("gpt2", {"n_head": ..., "num_attention_heads": 8}, {"n_head": 8}),
    ("gpt2", {"n_embd": ..., "hidden_size": 64}, {"n_embd": 64, "n_ffn": 256}),
    ("gpt2", {"n_inner": None}, {"n_ffn": 128}),
    ("gpt2", {"tie_word_embeddings": ...}, {"tie_embeddings": True}),
    ("gpt2", {"activation_function": "gelu_fast"}, {"mlp": "gelu"}),
    ("gpt2", {"_num_labels": 1, "author": "me", "license": "MIT", "n_ctx": 8}, {"block_size": 16}),
    ("llama", {"tie_word_embeddings": ...}, {"tie_embeddings": False}),
    ("llama", {"head_dim": None}, {"head_dim": 8}),
    ("llama", {"head_dim": 24}, {"head_dim": 24}),
    ("llama", {"num_key_value_heads": None}, {"n_kv_head": 4}),
    ("llama", {"pretraining_tp": 2, "rope_scaling": None}, {"qk_norm": False}),
    ("qwen3", {"num_key_value_heads": None}, {"n_kv_head": 4}),
    ("qwen3", {"head_dim": ...}, {"head_dim": 128}),
    ("qwen3", {"rope_theta": ..., "rope_parameters": None}, {"rope_theta": 10_000.0}),
    ("qwen3", {"rope_theta": 500.0}, {"rope_theta": 500.0}),
    ("qwen3", {"rope_theta": 500.0, "rope_parameters": ROPE}, {"rope_theta": 300.0}),
    ("qwen3", {"rope_theta": 500.0, "rope_scaling": {"type": "default"}}, {"rope_theta": 500.0}),
    ("qwen3", {"rope_scaling": {"rope_type": "default"}, "rope_parameters": ROPE},
     {"rope_theta": 10_000.0}),
    ("qwen3", {"sliding_window": 8, "max_window_layers": 1}, {"n_layer": 2}),
    ("qwen3", {"layer_types": ["full_attention", "attention"]}, {"n_layer": 2}),
    ("qwen3", {"unsloth_version": "2026.1", "transformers.js_config": {}}, {"qk_norm": True}),
]  # fmt: skip


@pytest.mark.parametrize("kind, changes, wanted", COMPUTED, ids=str)
def test_other_spellings_give_the_same_config(
    kind: str, changes: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """Second names, old spellings, absent and empty values mean the same as in transformers."""
    config = read(kind, **changes)
    assert {name: getattr(config, name) for name in wanted} == wanted


YARN = {"factor": 4.0, "original_max_position_embeddings": 8}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"n_inner": 0}, "n_inner is 0"),
    ("gpt2", {"num_hidden_layers": 3}, "n_layer is 2, but num_hidden_layers, .* is 3"),
    ("gpt2", {"n_layer": True}, "n_layer is True"),
    ("gpt2", {"n_head": None}, "n_head is None"),
    ("gpt2", {"activation_function": "gelu"}, "activation_function is 'gelu'"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
    ("gpt2", {"tie_word_embeddings": None}, "tie_word_embeddings is None"),
    ("gpt2", {"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon is '1e-5'"),
    ("gpt2", {"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
    ("gpt2", {"sliding_window": 8}, "sliding_window is 8"),
    ("gpt2", {"rope_scaling": {"type": "linear"}}, "does not know the field 'rope_scaling'"),
    ("gpt2", {"is_causal": False}, "is_causal is False"),
    ("gpt2", {"is_causal": None}, "is_causal is None"),
    ("gpt2", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ("gpt2", {"quantization_config": {"load_in_8bit": True}}, "quantization_config"),
    ("gpt2", {"auto_map": {"AutoModelForCausalLM": "mine.Model"}}, "auto_map"),
    ("gpt2", {"prefix": "Once "}, "prefix is 'Once '"),
    ("gpt2", {"transformers_weights": "other.safetensors"}, "transformers_weights"),
    ("gpt2", {"per_layer_config": {"0": {"n_head": 2}}}, "per_layer_config"),
    ("gpt2", {"logit_scale": 0.1}, "does not know the field 'logit_scale'.*delete it"),
    ("gpt2", {"model_type": ["gpt2"]}, "model_type is"),
    ("llama", {"attention_bias": True}, "attention_bias is True"),
    ("llama", {"mlp_bias": True}, "mlp_bias is True"),
    ("llama", {"sliding_window": 8}, "sliding_window is 8"),
    ("llama", {"use_sliding_window": True}, "use_sliding_window is True"),
    ("llama", {"num_attention_heads": 0}, "num_attention_heads is 0"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ("llama", {"rope_interleaved": True}, "rope_interleaved is True"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type is 'dynamic'"),
    ("qwen3", {"rope_scaling": {"rope_type": "yarn", **YARN}}, "rope_type is 'yarn'"),
    ("qwen3", {"rope_parameters": {"type": "linear", "factor": 2.0}}, "type is 'linear'"),
    ("qwen3", {"rope_parameters": ROPE | {"factor": 2.0}}, "'factor'"),
    ("qwen3", {"rope_parameters": ROPE | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("qwen3", {"rope_parameters": {"full_attention": ROPE}}, "'full_attention'"),
    ("qwen3", {"rope_parameters": {"rope_theta": None}}, "rope_theta is None"),
    ("qwen3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
    ("qwen3", {"layer_types": ["full_attention"]}, "1 layers, not 2"),
    ("qwen3", {"attention_chunk_size": 4}, "attention_chunk_size"),
]  # fmt: skip


@pytest.mark.parametrize("kind, changes, complaint", REFUSED, ids=str)
def test_an_unsupported_field_is_refused(
    kind: str, changes: dict[str, Any], complaint: str
) -> None:
    """A value that minigen does not compute is refused: one line names file, field and value."""
    with pytest.raises(UserError, match=rf"^config\.json.*{complaint}") as caught:
        read(kind, **changes)
    assert "\n" not in str(caught.value)


def test_different_dropout_rates_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning lists the three dropout rates of a GPT-2 if they differ."""
    warn_of_dropout({"model_type": "gpt2"}, "config.json")
    assert capsys.readouterr().err == ""
    warn_of_dropout({"model_type": "gpt2", "attn_pdrop": 0.3}, "config.json")
    warning = "resid_pdrop 0.1, embd_pdrop 0.1, attn_pdrop 0.3; in training minigen takes the first"
    assert warning in capsys.readouterr().err
    assert read("gpt2", attn_pdrop=0.3, resid_pdrop=0.2).dropout == 0.2
