"""minigen and transformers load each other's models, and compute the same logits and tokens."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
import transformers
from gpt2_vocabulary import use_gpt2_cache
from models import random_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from minigen.errors import UserError
from minigen.files import checkpoint, config_file, huggingface
from minigen.files.safetensors_file import TensorFile
from minigen.inference import parity
from minigen.model import GPT, GPTConfig, KVCache
from minigen.sampling import Sampling, generate
from minigen.tokenizer import Tokenizer, train_tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SMALL: dict[str, Any] = {"vocab_size": 300, "n_positions": 64}
QWEN: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 64, "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}  # fmt: skip
LLAMA: dict[str, Any] = QWEN | {"head_dim": None}

# Each of GPT-2's sizes by its width and heads; the 124M whole too, the others with fewer layers.
MODELS: dict[str, Callable[[], Any]] = {
    "gpt2 124M": lambda: GPT2LMHeadModel(GPT2Config()),
    "gpt2 124M, 2 layers": lambda: GPT2LMHeadModel(GPT2Config(n_layer=2, n_positions=256)),
    "gpt2-medium": lambda: GPT2LMHeadModel(GPT2Config(n_embd=1024, n_head=16, n_layer=1, **SMALL)),
    "gpt2-large": lambda: GPT2LMHeadModel(GPT2Config(n_embd=1280, n_head=20, n_layer=1, **SMALL)),
    "gpt2-xl": lambda: GPT2LMHeadModel(GPT2Config(n_embd=1600, n_head=25, n_layer=1, **SMALL)),
    "gpt2 untied": lambda: GPT2LMHeadModel(
        GPT2Config(n_embd=24, n_head=2, n_layer=2, n_inner=50, tie_word_embeddings=False,
                   layer_norm_epsilon=1e-3, **SMALL)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN)),
    "qwen3 tied": lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN | {"tie_word_embeddings": True})),
    "qwen3 wide heads": lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN | {"head_dim": 24})),
    "qwen3 one key": lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN | {"num_key_value_heads": 1})),
    "qwen3 all keys": lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN | {"num_key_value_heads": 4})),
    "qwen3 theta": lambda: Qwen3ForCausalLM(
        Qwen3Config(**QWEN | {"rms_norm_eps": 1e-3,
                              "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}})
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "llama tied": lambda: LlamaForCausalLM(
        LlamaConfig(**LLAMA | {"tie_word_embeddings": True, "num_key_value_heads": None})
    ),
    "llama wide heads": lambda: LlamaForCausalLM(
        LlamaConfig(**LLAMA | {"head_dim": 24, "rms_norm_eps": 1e-3})
    ),
}  # fmt: skip


def make(name: str, folder: Path) -> Any:
    """Save a model of transformers with random weights, biases and gains; return it."""
    torch.manual_seed(0)
    model = MODELS[name]()
    for parameter_name, p in model.named_parameters():
        gain = p.ndim == 1 and parameter_name.endswith("weight")
        torch.nn.init.normal_(
            p, mean=float(gain), std=0.3 if p.ndim == 1 else 2 / p.shape[-1] ** 0.5
        )
    model.save_pretrained(folder)
    return model.eval()


each_model = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("gpt2 124M", "gpt2-xl") else ())
        for name in MODELS
    ],
)


@each_model
def test_the_check_finds_no_difference(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each architecture, logits, loss, greedy text and number of parameters agree."""
    if "gpt2" in name and name not in ("gpt2 124M", "gpt2 untied"):
        monkeypatch.setattr(parity, "N_GREEDY", 40)  # wide models take seconds for more
    make(name, tmp_path)
    found = parity.check(tmp_path)
    assert len(found) == 5
    assert all(finding.agrees for finding in found), found
    assert "relative" in found[1].verdict and parity.TOLERANCE == 1e-5


@pytest.mark.parametrize("name", ["gpt2 untied", "qwen3", "llama"])
def test_the_check_sees_any_single_number(name: str, tmp_path: Path) -> None:
    """The check of the logits fails if any tensor differs in one number by a tenth."""
    reference = make(name, tmp_path)
    loaded = huggingface.load(tmp_path).model
    ids = torch.randint(300, (1, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = reference(ids).logits[0]
        assert parity._compare_logits(loaded(ids)[0], exact).agrees
        for key, tensor in loaded.state_dict().items():
            if key.endswith("attention.key.bias"):
                continue  # it adds the same to a query's score of each key, so softmax cancels it
            number = tensor[ids[0, 3]] if key == "embedding.weight" else tensor.view(-1)
            number[1] += 0.1 * tensor.abs().max()
            assert not parity._compare_logits(loaded(ids)[0], exact).agrees, key
            number[1] -= 0.1 * tensor.abs().max()


@each_model
def test_a_model_is_written_as_it_was_read(name: str, tmp_path: Path) -> None:
    """A model that is loaded and written again has the same tensors, bit for bit."""
    reference = make(name, tmp_path)
    loaded = huggingface.load(tmp_path)
    written = huggingface.to_hugging_face(loaded.model)
    state = {
        k: v for k, v in reference.state_dict().items() if k != "lm_head.weight" or k in written
    }
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)
    config = config_file.write_config(loaded.model.config, 299, torch.float32)
    assert config_file.read_config(config, "config.json") == loaded.model.config
    assert reference.num_parameters() == loaded.model.n_parameters()


def test_number_formats_and_tied_heads_are_kept(tmp_path: Path) -> None:
    """A bfloat16 model with a tied head stays one when it is loaded, saved and loaded again."""
    make("qwen3 tied", tmp_path).bfloat16().save_pretrained(tmp_path)
    model = huggingface.load(tmp_path).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} and model.lm_head is None
    tokenizer = train_tokenizer("byte", [])
    path = checkpoint.save(tmp_path / "run", model, tokenizer, {}, {"step": 1})
    reference = transformers.AutoModelForCausalLM.from_pretrained(path)
    assert reference.dtype == torch.bfloat16 and reference.config.tie_word_embeddings
    assert reference.lm_head.weight.data_ptr() == reference.model.embed_tokens.weight.data_ptr()


def test_each_layout_of_files_gives_the_same_model(tmp_path: Path) -> None:
    """Shards, pytorch_model.bin, names without prefix, and old masks give the same model."""
    make("gpt2 untied", tmp_path)
    whole = huggingface.load(tmp_path).model.state_dict()
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    old = {key.removeprefix("transformer."): t for key, t in tensors.items()}
    old |= {
        "h.0.attn.bias": torch.ones(1, 1, 64, 64).tril(),
        "h.1.attn.masked_bias": torch.tensor(-1e4),
    }

    variants = {}
    for kind in ("shards", "pickle", "bare"):
        variants[kind] = tmp_path / kind
        variants[kind].mkdir()
        shutil.copy(tmp_path / "config.json", variants[kind])
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in parts.items():
        safetensors.torch.save_file({k: tensors[k] for k in keys}, variants["shards"] / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (variants["shards"] / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.save(old, variants["pickle"] / "pytorch_model.bin")
    safetensors.torch.save_file(old, variants["bare"] / "model.safetensors")
    for folder in variants.values():
        state = huggingface.load(folder).model.state_dict()
        assert state.keys() == whole.keys()
        assert all(torch.equal(state[key], whole[key]) for key in whole)

    (variants["shards"] / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot read .*b\.safetensors"):
        huggingface.load(variants["shards"])


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        change(tensors)
        safetensors.torch.save_file(tensors, folder / "model.safetensors")

    return rewrite


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def pickle_in_disguise(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Touch(folder / "was here")))


def pickle_with_code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"x": Touch(folder / "was here")}, folder / "pytorch_model.bin")


class Touch:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (self.path,)


FC = "transformer.h.0.mlp.c_fc.weight"
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "not JSON"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "architecture": (
        change_config(model_type="mistral"), "'mistral'; minigen computes gpt2, llama and qwen3"
    ),
    "activation": (change_config(activation_function="relu"), "activation_function is 'relu'"),
    "scaling": (change_config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse"),
    "absurd layers": (change_config(n_layer=10**9), "n_layer is 1000000000"),
    "absurd width": (change_config(n_embd=2**40, n_inner=8), "n_embd"),
    "negative": (change_config(n_layer=-1), "n_layer is -1"),
    "a word for a number": (change_config(n_layer="two"), "config.json"),
    "heads": (change_config(n_head=7), "n_head 7"),
    "other width": (change_config(n_embd=48), r"transformer.wte.weight is \(300, 24\), not"),
    "more layers": (change_config(n_layer=3), r"transformer.h.2.ln_1.weight is missing"),
    "a tensor lost": (
        change_tensors(lambda t: t.pop("transformer.ln_f.bias")), "transformer.ln_f.bias is missing"
    ),
    "a tensor more": (
        change_tensors(lambda t: t.update(extra=torch.ones(2))), "extra is unexpected"
    ),
    "a tensor transposed": (
        change_tensors(lambda t: t.update({FC: t[FC].t().contiguous()})),
        r"c_fc.weight is \(50, 24\), not \(24, 50\)",
    ),
    "cut": (cut, "damaged"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
    "pickle in disguise": (pickle_in_disguise, "damaged or no safetensors"),
    "pickle with code": (pickle_with_code, "damaged or holds more than tensors"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_fault_in_a_model_is_one_line(what: str, tmp_path: Path) -> None:
    """One line names the wrong file, field or tensor; no code in the folder runs."""
    make("gpt2 untied", tmp_path)
    damage, complaint = BAD[what]
    damage(tmp_path)
    with pytest.raises(UserError, match=complaint) as caught:
        huggingface.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ({"rope_scaling": {"rope_type": "linear"}, "rope_parameters": None}, "'linear'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": 7}, "damaged"),
    ],
)
def test_unsupported_features_of_qwen3_are_refused(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    """A Qwen3 with a feature that minigen does not compute is refused by name."""
    make("qwen3", tmp_path)
    change_config(**changes)(tmp_path)
    with pytest.raises(UserError, match=complaint):
        huggingface.load(tmp_path)


def test_a_wrong_header_is_refused(tmp_path: Path) -> None:
    """A header with overlaps, gaps, doubled names or negative sizes is refused before a read."""
    good = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}}  # fmt: skip
    texts = [
        json.dumps(good | {"b": {"dtype": "F32", "shape": [1], "data_offsets": at}})
        for at in ([4, 8], [9, 13], [8, 16], [8], [12, 8])
    ]
    for dtype, shape in (("F99", [1]), ("F32", [2]), ("F32", [-1]), ("F32", [-1, -1])):
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [8, 12]}
        texts.append(json.dumps(good | {"b": entry}))
    texts += ['{"a": 1}', "[]", json.dumps(good)[:-1] + ', "a": {}}']
    path = tmp_path / "x.safetensors"
    for text in [*texts, json.dumps(good)]:
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + b"\0" * 12)
        with contextlib.ExitStack() as stack:
            if text == json.dumps(good):
                assert TensorFile(path, stack).read("a").tolist() == [0, 0]
            else:
                with pytest.raises(UserError, match=r"x\.safetensors is damaged"):
                    TensorFile(path, stack)


def test_an_unknown_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing path, and a hub name without a network, are each refused in one line."""
    with pytest.raises(UserError, match="neither a folder nor"):
        huggingface.load(tmp_path / "nothing")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot get openai-community/gpt2 .*go online once") as e:
        huggingface.load("gpt2")
    assert "\n" not in str(e.value)


# ---- a checkpoint is a model of transformers ----

TEXT = "the cat sat on the mat, 나는 밥을 먹는다. and so on.\n"


class Saved(NamedTuple):
    """A random model and its tokenizer, and the checkpoint in which they are saved."""

    model: GPT
    tokenizer: Tokenizer
    path: Path


SHAPES = ("gpt2", "gpt2 without bias", "modern", "modern tied", "llama")


@pytest.fixture(
    scope="module",
    params=[
        # GPT-2's vocabulary takes five seconds each time, and does not depend on the shape.
        pytest.param((kind, shape), marks=pytest.mark.slow if kind == "gpt2" and n else ())
        for kind in ("char", "byte", "bpe", "gpt2")
        for n, shape in enumerate(SHAPES)
    ],
    ids=str,
)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Save a random model with each kind of tokenizer and each architecture."""
    kind, shape = request.param
    with pytest.MonkeyPatch.context() as patch:
        if kind == "gpt2":
            use_gpt2_cache(patch)
        tokenizer = train_tokenizer(kind, [TEXT * 9], vocab_size=280)
    size = (tokenizer.n_vocab, 48, 2, 2, 16)
    config = {
        "gpt2": GPTConfig.gpt2(*size),
        "gpt2 without bias": GPTConfig.gpt2(*size, bias=False),
        "modern": GPTConfig.modern(*size, n_kv_head=1, tie_embeddings=False),
        "modern tied": GPTConfig.modern(*size),
        "llama": GPTConfig.modern(*size, n_kv_head=1, tie_embeddings=False, qk_norm=False),
    }[shape]
    model = random_model(config, std=0.4)
    run = tmp_path_factory.mktemp("run")
    return Saved(model, tokenizer, checkpoint.save(run, model, tokenizer, {}, {"step": 1}))


def test_a_checkpoint_of_each_architecture_loads_bit_for_bit(saved: Saved) -> None:
    """A checkpoint of each architecture loads with the same config and weights."""
    loaded = checkpoint.load(saved.path)
    assert loaded.config == saved.model.config
    state = loaded.model().state_dict()
    assert all(torch.equal(t, state[key]) for key, t in saved.model.state_dict().items())


def test_transformers_computes_the_logits_of_a_checkpoint(saved: Saved) -> None:
    """transformers loads the link `best`, and computes minigen's logits."""
    reference = transformers.AutoModelForCausalLM.from_pretrained(saved.path.parent / "best")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(saved.tokenizer.n_vocab, (2, 48), generator=generator)
    with torch.no_grad():
        a, b = saved.model(ids), reference(ids).logits
    assert ((a - b).abs().amax() / b.abs().amax()).item() < 1e-5


def test_transformers_writes_the_greedy_text_of_a_checkpoint(saved: Saved) -> None:
    """transformers' pipeline continues a prompt with minigen's greedy text."""
    tokenizer, prompt = saved.tokenizer, "the cat sat"
    steps = generate(
        saved.model,
        lambda rows: KVCache(saved.model.config, rows, 48),
        [tokenizer.encode_prompt(prompt)],
        Sampling(temperature=0),
        n_vocab=tokenizer.n_vocab,
        max_new_tokens=30,
        end_of_text=tokenizer.end_of_text,
    )
    ids = [token.id for (token,) in steps if token]
    pipe = transformers.pipeline("text-generation", model=str(saved.path))
    (out,) = pipe(prompt, do_sample=False, max_new_tokens=30)
    assert out["generated_text"] == prompt + tokenizer.decode(
        id for id in ids if id != tokenizer.end_of_text
    )


def test_transformers_reads_the_tokenizer_of_a_checkpoint(saved: Saved) -> None:
    """transformers' tokenizer of a checkpoint gives minigen's ids."""
    reference = transformers.AutoTokenizer.from_pretrained(saved.path)
    for text in (TEXT, " the  mat\n\n"):
        assert reference(text)["input_ids"] == saved.tokenizer.encode_prompt(text)


def test_an_architecture_of_no_other_program_is_refused(tmp_path: Path) -> None:
    """A model whose switches no architecture of transformers has is not saved."""
    model = GPT(GPTConfig.modern(257, 8, 1, 1, 8, bias=True))
    with pytest.raises(UserError, match="no architecture of GPT-2, Llama and Qwen3 has these"):
        checkpoint.save(tmp_path, model, train_tokenizer("byte", []), {}, {"step": 1})
