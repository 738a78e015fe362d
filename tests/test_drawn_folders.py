"""A random folder is computed as in transformers, or refused by name."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

from minigen.errors import UserError
from minigen.files import huggingface

ABSENT = object()
# Other names in an error: a tensor that does not fit any more, a field that is contradicted.
ALSO_NAMED = (".weight", ".bias", "rope_theta", "n_layer", "n_head", "n_embd", "n_positions",
              "num_key_value_heads", "num_attention_heads", "n_kv_head", "head_dim",
              "intermediate_size", "hidden_size", "model_type")  # fmt: skip
V, T = 61, 24  # tokens of the vocabulary, and of a text

SHARED: dict[str, Any] = {
    "vocab_size": V, "initializer_range": 0.3, "tie_word_embeddings": False, "dtype": "float32",
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
ROTARY: dict[str, Any] = SHARED | {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}  # fmt: skip
SIZES = {
    "gpt2": SHARED | {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "llama": ROTARY,
    "qwen3": ROTARY,
}

# For each field: unusual and former values, wrong types, and spellings of other programs.
POOL: dict[str, list[Any]] = {
    "tie_word_embeddings": [True, False, None, ABSENT],
    "vocab_size": [60, 62, ABSENT],
    "model_type": ["gpt2", "llama", "qwen3", "mistral"],
    "architectures": [["GPT2Model"], ["Qwen3ForSequenceClassification"], None],
    "dtype": ["float16", "bfloat16", ABSENT],
    "torch_dtype": ["float16", "bfloat16"],
    "use_cache": [False],
    "is_causal": [False, True, None],
    "is_decoder": [True],
    "is_encoder_decoder": [True],
    "add_cross_attention": [True],
    "pad_token_id": [3, -1, 70],
    "eos_token_id": [[0, 1], None],
    "repetition_penalty": [1.5],
    "quantization_config": [None, {"quant_method": "bitsandbytes", "load_in_8bit": True}],
    "auto_map": [{"AutoModelForCausalLM": "mine.Model"}, {}],
    "attn_implementation": ["eager", "sdpa"],
    "output_attentions": [True],
    "chunk_size_feed_forward": [4],
    "pruned_heads": [{}, {"0": [0]}],
    "per_layer_config": [{}, {"0": {"n_inner": 8}}, {"0": {"intermediate_size": 8}}],
    "transformers_weights": ["other.safetensors"],
    "layer_types": [["full_attention"] * 2, ["full_attention", "sliding_attention"],
                    ["attention"] * 2, ["full_attention"], None],
    "sliding_window": [4, None],
    "use_sliding_window": [True, False],
    "attention_chunk_size": [4],
    "logit_scale": [2.0],
    "unsloth_version": ["2026.1"],
    "task_specific_params": [{"text-generation": {"do_sample": True}}],
    "rope_theta": [300.0, 10_000, None, "1e4"],
    "partial_rotary_factor": [0.5, 1.0],
    "rope_scaling": [
        None, {"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0},
        {"type": "dynamic", "factor": 2.0}, {"rope_type": "default", "rope_theta": 300.0},
        {"type": "default"}, {"rope_type": "default", "type": "linear", "factor": 2.0},
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8},
    ],
}  # fmt: skip
GPT2 = {
    "n_layer": [1, 3, None, ABSENT],
    "num_hidden_layers": [1, 2, 3],
    "n_head": [1, 4, 3, ABSENT],
    "num_attention_heads": [2, 4, 1],
    "n_embd": [8, ABSENT],
    "hidden_size": [16, 8],
    "n_inner": [64, 40, 0, None],
    "n_positions": [16, 64, ABSENT],
    "max_position_embeddings": [32, 16],
    "n_ctx": [32, 16],
    "activation_function": ["gelu", "relu", "gelu_fast", "gelu_pytorch_tanh", "silu",
                            "gelu_python_tanh", "gelu_accurate", "quick_gelu", ABSENT],
    "layer_norm_epsilon": [1e-3, 0.5, 0, "1e-5", ABSENT],
    "resid_pdrop": [0.0, 0.5],
    "attn_pdrop": [0.0, 0.5, None],
    "scale_attn_weights": [False, True],
    "scale_attn_by_inverse_layer_idx": [True, False],
    "reorder_and_upcast_attn": [True],
    "bias": [False, True],
    "head_dim": [4, 8],
    "summary_type": ["mean"],
}  # fmt: skip
LLAMA_AND_QWEN3 = {
    "num_hidden_layers": [1, 3, ABSENT],
    "num_attention_heads": [2, 8, 3, ABSENT],
    "num_key_value_heads": [1, 4, 3, None, ABSENT],
    "head_dim": [4, 16, 7, None, ABSENT],
    "hidden_size": [32, 8],
    "intermediate_size": [16, ABSENT],
    "max_position_embeddings": [24, 64, ABSENT],
    "hidden_act": ["gelu", "swish", "relu", ABSENT],
    "rms_norm_eps": [1e-3, 0.5, 0, "1e-6", ABSENT],
    "attention_bias": [True, False, None],
    "mlp_bias": [True, False],
    "attention_dropout": [0.5],
    "max_window_layers": [0, 1, 2],
    "pretraining_tp": [2],
    "rope_interleaved": [True, False],
    "rope_parameters": [
        None, ABSENT, {}, {"rope_theta": 300.0}, {"rope_type": "default"},
        {"type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
        {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        {"rope_type": "default", "rope_theta": None}, {"full_attention": {"rope_theta": 300.0}},
    ],
}  # fmt: skip


def drawn(draw: random.Random, folder: Path) -> set[str]:
    """Write a random model; return the names of its changed fields and tensors."""
    kind = draw.choice(list(SIZES))
    pool = POOL | (GPT2 if kind == "gpt2" else LLAMA_AND_QWEN3)
    tied = draw.random() < 0.4
    sizes = SIZES[kind] | {"tie_word_embeddings": tied}
    model = transformers_model(kind, sizes, draw.randrange(1000))
    content = model.config.to_diff_dict() | sizes | {"model_type": kind}
    changed = draw.sample(sorted(pool), draw.randint(1, 3))
    for name in changed:
        content[name] = draw.choice(pool[name])
    if draw.random() < 0.8:  # a model with the changed config, if there is one
        asked = {name: v for name, v in content.items() if v is not ABSENT}
        with contextlib.suppress(Exception):
            model = transformers_model(kind, asked, 1)
    (folder / "config.json").write_text(
        json.dumps({name: v for name, v in content.items() if v is not ABSENT})
    )
    tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}
    return {*changed, *write(draw, kind, tensors, folder)}


def transformers_model(kind: str, content: dict[str, Any], seed: int) -> Any:
    """Return a model of transformers whose parameters are all random."""
    import transformers

    torch.manual_seed(seed)
    cls = getattr(transformers, CLASSES[kind])
    config = cls.config_class.from_dict(copy.deepcopy(content))  # transformers changes it
    check_size(config)
    model = cls(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=float(p.ndim == 1) / 2, std=0.3)
    return model.eval()


def check_size(config: Any) -> None:
    """Raise `ValueError` for a model that is too large for a test, before it takes memory."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if sum(p.numel() for p in model.parameters()) > 1e7:
        raise ValueError("too large")


def write(draw: random.Random, kind: str, tensors: dict[str, Tensor], folder: Path) -> set[str]:
    """Write the tensors in a random layout of files; return the names of changed tensors."""
    base = "transformer" if kind == "gpt2" else "model"
    embedding = f"{base}.wte.weight" if kind == "gpt2" else f"{base}.embed_tokens.weight"
    touched = set()
    way = draw.choice(["as it is"] * 12 + ["own head", "equal head", "no head", "only head"])
    if way != "as it is":
        touched = {"lm_head.weight", embedding}
        head = tensors.pop("lm_head.weight", tensors[embedding])
        if way == "own head":
            tensors["lm_head.weight"] = torch.randn_like(head)
        elif way == "equal head":
            tensors["lm_head.weight"] = tensors[embedding].clone()
        elif way == "only head":
            tensors["lm_head.weight"] = tensors.pop(embedding)
    formats = draw.choice(["float32", "bfloat16", "float16", "float64", "mixed"] * 3 + ["float8"])
    for name, tensor in tensors.items():
        if formats == "mixed":
            tensors[name] = tensor.to(draw.choice([torch.float32, torch.bfloat16, torch.float16]))
        elif formats != "float32" and formats != "float8":
            tensors[name] = tensor.to(getattr(torch, formats))
    if formats == "float8":
        name = draw.choice(sorted(tensors))
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        touched.add(name)
    if draw.random() < 0.2:
        tensors = {name.removeprefix(f"{base}."): t for name, t in tensors.items()}
    extra = draw.choice([None] * 20 + ["mask", "wrong mask", "angles", "extra", "less"])
    if extra == "mask" or extra == "wrong mask":
        mask = torch.ones(1, 1, 32, 32).tril()
        tensors[f"{base}.h.0.attn.bias"] = mask if extra == "mask" else 1 - mask
    elif extra == "angles":
        theta = draw.choice([1e4, 300.0])
        tensors["model.rotary_emb.inv_freq"] = theta ** (-torch.arange(0, 8, 2) / 8)
    elif extra == "extra":
        tensors["score.weight"] = torch.ones(2, 16)
    elif extra == "less":
        touched.add(name := draw.choice(sorted(tensors)))
        del tensors[name]
    tensors = {name: t.clone().contiguous() for name, t in tensors.items()}  # without shared memory

    files = draw.choice(["safetensors"] * 3 + ["pieces", "bin", "old bin", "bin pieces"])
    if files == "safetensors":
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    elif files in ("bin", "old bin"):
        zipped = files == "bin"
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    else:
        stem, ending = ("model", "safetensors") if files == "pieces" else ("pytorch_model", "bin")
        home = {name: f"{stem}-{draw.randint(1, 3)}-of-3.{ending}" for name in tensors}
        for file in set(home.values()):
            part = {name: t for name, t in tensors.items() if home[name] == file}
            if ending == "bin":
                torch.save(part, folder / file)
            else:
                save_file(part, folder / file, {"format": "pt"})
        index = json.dumps({"metadata": {}, "weight_map": home})
        name = "model.safetensors" if files == "pieces" else "pytorch_model.bin"
        (folder / f"{name}.index.json").write_text(index)
    return touched | {"h.0.attn.bias", "inv_freq", "score.weight"}


@torch.no_grad()
def outcome(seed: int) -> str:
    """Compare a random folder in both programs.

    Returns "same", "refused", "only minigen" or "neither"; any other word is a fault.
    """
    draw = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    try:
        changed = drawn(draw, folder)
        ids = torch.randint(V - 1, (1, T - 6), generator=torch.Generator().manual_seed(seed))
        reference, text = None, []
        with contextlib.suppress(Exception):  # any error of transformers
            check_size(AutoConfig.from_pretrained(folder))
            other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            reference, text = other(ids).logits, greedy(other, ids)
        try:
            model = huggingface.load(folder).model.float()
        except UserError as error:
            named = any(name in str(error) for name in (*changed, *ALSO_NAMED))
            if reference is None:
                return "neither"
            return "refused" if named else f"refused without a name: {error}"
        if reference is None:
            return "only minigen"
        logits, own = model(ids), ids
        for _ in range(6):
            own = torch.cat((own, model(own)[:, -1:].argmax(-1)), dim=1)
        off = ((logits - reference).abs().max() / reference.abs().max()).item()
        if not off <= 1e-4:
            return f"logits off by {off:.1e}"
        return "same" if own[0].tolist() == text else "another greedy text"
    finally:
        shutil.rmtree(folder)


def greedy(model: Any, ids: Tensor) -> list[int]:
    """Return the ids with the six tokens that transformers adds greedily, with its cache."""
    plain = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=6, min_new_tokens=6, use_cache=True,
        temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0, eos_token_id=None,
        pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model.generation_config = plain
    mask = torch.ones_like(ids)
    written = model.generate(ids, attention_mask=mask, generation_config=plain)
    return list(written[0].tolist())


def outcomes(seeds: range) -> Counter[str]:
    """Count the outcomes of random folders, and assert that none is a fault."""
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    found = {seed: outcome(seed) for seed in seeds}
    right = ("same", "refused", "only minigen", "neither")
    wrong = {seed: what for seed, what in found.items() if what not in right}
    assert not wrong, wrong
    return Counter(found.values())


def test_random_folders_are_computed_or_refused() -> None:
    """Of 20 random folders none is computed differently; some agree, and some are refused."""
    found = outcomes(range(20))
    assert found["same"] >= 3 and found["refused"] >= 3, found


@pytest.mark.slow
def test_many_random_folders_are_computed_or_refused() -> None:
    """Of 300 random folders none is computed differently; many agree, and many are refused."""
    found = outcomes(range(1000, 1300))
    print(dict(found))
    assert found["same"] >= 60 and found["refused"] >= 60, found
