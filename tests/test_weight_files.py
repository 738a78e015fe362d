"""Weights are read from each layout of files that transformers reads; a fault is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    logging,
)

from minigen.errors import UserError
from minigen.files import checkpoint, huggingface

logging.set_verbosity_error()
logging.disable_progress_bar()
IDS = torch.randint(61, (1, 16), generator=torch.Generator().manual_seed(1))
Tensors = dict[str, Tensor]


def tiny(kind: str) -> Any:
    """Return a model of transformers, all of whose weights change the logits."""
    torch.manual_seed(0)
    model: Any
    if kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=61, n_positions=16, n_embd=16, n_layer=2, n_head=2)
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                        num_attention_heads=2, max_position_embeddings=16)
        )  # fmt: skip
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=0.3)
    return model.eval()


def parts(kind: str, folder: Path) -> Tensors:
    """Write the config.json of a tiny model; return its tensors."""
    model = tiny(kind)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(model.config.to_json_string())
    tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}
    if kind == "gpt2":
        del tensors["lm_head.weight"]
    return tensors


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.no_grad()
def assert_same(folder: Path) -> None:
    """Assert that minigen and transformers compute the same logits from a folder."""
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(IDS).logits
    actual = huggingface.load(folder).model.float()(IDS)
    assert (actual - reference).abs().max() / reference.abs().max() < 1e-5


def shards(folder: Path, tensors: Tensors, ending: str) -> dict[str, Any]:
    """Write the tensors into two files; return the index."""
    stem = "model" if ending == "safetensors" else "pytorch_model"
    files = [f"{stem}-0000{n}-of-00002.{ending}" for n in (1, 2)]
    for n, file in enumerate(files):
        part = {name: tensors[name] for name in sorted(tensors)[n::2]}
        if ending == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, {"format": "pt"})
    names = {name: files[n % 2] for n, name in enumerate(sorted(tensors))}
    return {"metadata": {}, "weight_map": names}


class Pieces(NamedTuple):
    """The weights of a model in two files."""

    index: Path
    weight_map: dict[str, str]  # name of a tensor -> file
    tensors: Tensors
    ending: str


@pytest.fixture(params=["safetensors", "bin"])
def pieces(request: pytest.FixtureRequest, tmp_path: Path) -> Pieces:
    """Write a tiny Llama in two files, with an index."""
    tensors = parts("llama", tmp_path)
    index = shards(tmp_path, tensors, request.param)
    stem = "model.safetensors" if request.param == "safetensors" else "pytorch_model.bin"
    path = tmp_path / f"{stem}.index.json"
    path.write_text(json.dumps(index))
    return Pieces(path, index["weight_map"], tensors, request.param)


def test_files_in_pieces_are_read(pieces: Pieces) -> None:
    """The files that an index names are one model, also if it has a tensor in the wrong file."""
    assert_same(pieces.index.parent)
    first, second = sorted(set(pieces.weight_map.values()))
    swapped = {key: second if home == first else first for key, home in pieces.weight_map.items()}
    pieces.index.write_text(json.dumps({"metadata": {}, "weight_map": swapped}))
    assert_same(pieces.index.parent)
    pieces.index.write_text(json.dumps({"weight_map": swapped}))  # transformers needs metadata
    huggingface.load(pieces.index.parent)


def test_a_wrong_index_is_refused(pieces: Pieces) -> None:
    """An index that is missing, or names a missing tensor or file, is refused in one line."""
    first = min(pieces.weight_map.values())
    for changes, complaint in (
        ({"ghost.weight": first}, "names the tensor ghost.weight"),
        ({"ghost.weight": "../" + first}, "not a file of weights in its folder"),
        ({"ghost.weight": "lost." + pieces.ending}, f"cannot read .*lost.{pieces.ending}"),
    ):
        pieces.index.write_text(json.dumps({"weight_map": pieces.weight_map | changes}))
        with pytest.raises(UserError, match=complaint):
            huggingface.load(pieces.index.parent)
    pieces.index.unlink()
    with pytest.raises(UserError, match=f"has .*-00001-of-00002.*but no {pieces.index.name}"):
        huggingface.load(pieces.index.parent)


def test_a_tensor_in_two_files_is_refused(pieces: Pieces) -> None:
    """A tensor that two files of an index hold is refused: the line names both files."""
    first, second = sorted(set(pieces.weight_map.values()))
    if pieces.ending == "bin":
        torch.save(pieces.tensors, pieces.index.parent / first)
    else:
        save_file(pieces.tensors, pieces.index.parent / first)
    with pytest.raises(UserError, match=f"is in two files, {first} and {second}"):
        huggingface.load(pieces.index.parent)


def test_a_single_file_takes_precedence(tmp_path: Path) -> None:
    """model.safetensors is read, and other files with weights in its folder are not."""
    tensors = parts("gpt2", tmp_path)
    stale = {name: torch.zeros_like(t) for name, t in tensors.items()}
    index = shards(tmp_path, stale, "safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.save(stale, tmp_path / "pytorch_model.bin")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert_same(tmp_path)


@pytest.mark.parametrize("whole", [True, False], ids=["zip", "of before 2020"])
def test_pytorch_files_are_read(whole: bool, tmp_path: Path) -> None:
    """pytorch_model.bin is read, zip archive or older; an object that is no tensor is refused."""
    tensors, path = parts("gpt2", tmp_path), tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=whole)
    assert_same(tmp_path)
    strange: list[Any] = [3, torch.ones(2, 2).to_sparse(), torch.empty(2, device="meta")]
    for value in strange:
        torch.save(tensors | {"epoch": value}, path, _use_new_zipfile_serialization=whole)
        with pytest.raises(UserError, match=r"epoch is not a plain tensor; .*state_dict"):
            huggingface.load(tmp_path)
    torch.save([1], path, _use_new_zipfile_serialization=whole)
    with pytest.raises(UserError, match="holds a list, not tensors"):
        huggingface.load(tmp_path)


@pytest.mark.parametrize("others", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_mixed_number_formats_are_not_rounded(others: torch.dtype, tmp_path: Path) -> None:
    """A model in several number formats gets one that represents each number exactly."""
    tensors = parts("llama", tmp_path)
    mixed = {name: t if "norm" in name else t.to(others) for name, t in tensors.items()}
    save_file(mixed, tmp_path / "model.safetensors", {"format": "pt"})
    assert_same(tmp_path)
    formats = {p.dtype for p in huggingface.load(tmp_path).model.parameters()}
    assert formats == {torch.promote_types(others, torch.float32)}


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.int8, torch.uint8], ids=str)
def test_quantised_numbers_are_refused_by_name(kind: torch.dtype, tmp_path: Path) -> None:
    """A quantised tensor is refused by name, as minigen does not read its scales."""
    tensors = parts("llama", tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(kind)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"{name} is {str(kind)[6:]}; .*not quantised"):
        huggingface.load(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_weights_that_are_not_finite_are_refused_by_name(
    value: float, kind: torch.dtype, tmp_path: Path
) -> None:
    """A tensor with NaN or an infinity is refused, as a model of it may predict wrong numbers."""
    tensors = {name: tensor.to(kind) for name, tensor in parts("llama", tmp_path).items()}
    name = "model.layers.1.self_attn.q_proj.weight"
    tensors[name][0, 0] = value
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"{name} is not finite: .*take another copy"):
        huggingface.load(tmp_path)


# ---- tensors that config.json does not announce ----


@pytest.mark.parametrize(
    "kind, word", [("gpt2", "transformer.wte"), ("llama", "model.embed_tokens")]
)
def test_an_untied_head_is_used(kind: str, word: str, tmp_path: Path) -> None:
    """A head in the file is used even if config.json ties it; an equal one is tied."""
    tensors = parts(kind, tmp_path)
    edit(tmp_path, tie_word_embeddings=True)
    embedding = f"{word}.weight"
    other = torch.randn_like(tensors[embedding])
    for head, tied in ((tensors[embedding].clone(), True), (other, False)):
        save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors")
        assert_same(tmp_path)
        assert huggingface.load(tmp_path).model.config.tie_embeddings == tied
    del tensors[embedding]  # the tied matrix has only its second name
    save_file(tensors | {"lm_head.weight": other}, tmp_path / "model.safetensors")
    assert_same(tmp_path)
    save_file(tensors | {"lm_head.weight": other[:9]}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"is \(9, 16\), not \(61, 16\)"):
        huggingface.load(tmp_path)


def test_biases_in_the_file_are_used(tmp_path: Path) -> None:
    """With "bias": false, biases in the file are used unless they are zero."""
    tensors = parts("gpt2", tmp_path)
    edit(tmp_path, bias=False)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, {"format": "pt"})
    assert_same(tmp_path)
    assert huggingface.load(tmp_path).model.config.bias
    zeros = {n: torch.zeros_like(t) if n.endswith("bias") else t for n, t in tensors.items()}
    bare = {name.removeprefix("transformer."): t for name, t in zeros.items()}
    for without_biases in (zeros, bare):
        save_file(without_biases, path, {"format": "pt"})
        assert_same(tmp_path)
        assert not huggingface.load(tmp_path).model.config.bias
    save_file(zeros | {"adapter.bias": torch.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"adapter\.bias is unexpected"):
        huggingface.load(tmp_path)


MASK = torch.ones(1, 1, 16, 16).tril()
THETAS = 10_000.0 ** (-torch.arange(0, 8, 2) / 8)
BUFFERS: list[tuple[str, str, Tensor, Tensor]] = [
    ("gpt2", "transformer.h.1.attn.bias", MASK, 1 - MASK),
    ("gpt2", "h.0.attn.bias", MASK.to(torch.uint8), torch.ones(1, 1, 16, 16)),
    ("gpt2", "transformer.h.0.attn.masked_bias", torch.tensor(-1e4), torch.tensor(0.0)),
    ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq", THETAS, THETAS / 4),
    ("llama", "model.rotary_emb.inv_freq", THETAS.bfloat16(), THETAS[:2].clone()),
]


@pytest.mark.parametrize("kind, name, right, wrong", BUFFERS, ids=[case[1] for case in BUFFERS])
def test_masks_and_angles_are_compared(
    kind: str, name: str, right: Tensor, wrong: Tensor, tmp_path: Path
) -> None:
    """Masks and angles in old files are ignored only if minigen computes the same ones."""
    tensors = parts(kind, tmp_path)
    save_file(tensors | {name: right}, tmp_path / "model.safetensors", {"format": "pt"})
    assert_same(tmp_path)
    save_file(tensors | {name: wrong}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"{name} is not .*which minigen computes"):
        huggingface.load(tmp_path)


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    """A tensor that a file has with and without its prefix is refused."""
    tensors = parts("gpt2", tmp_path)
    tensors["h.0.ln_1.weight"] = tensors["transformer.h.0.ln_1.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"h\.0\.ln_1\.weight are the same tensor"):
        huggingface.load(tmp_path)


# ---- folders with the name of a checkpoint ----


@pytest.mark.parametrize("name", ["step-1000", "step-000001", "checkpoint-500"])
def test_a_model_of_another_program_is_not_a_checkpoint(name: str, tmp_path: Path) -> None:
    """A model of transformers in a folder `step-…` is a model, not a checkpoint of a run."""
    folder = tmp_path / "models" / name
    folder.parent.mkdir()
    save_file(parts("gpt2", folder), folder / "model.safetensors", {"format": "pt"})
    assert not checkpoint.is_checkpoint(folder)
    assert checkpoint.steps(folder.parent) == [] and checkpoint.runs(tmp_path) == []
    assert checkpoint.find(str(folder)) == folder
    assert_same(folder)


def test_a_checkpoint_without_a_manifest_is_damaged(tmp_path: Path) -> None:
    """A folder `step-…` with files of a checkpoint, but no manifest, is a damaged checkpoint."""
    files: list[Callable[[Path], object]] = [
        lambda folder: (folder / "state.json").write_text("{}"),
        lambda folder: (folder / "optimizer.safetensors").touch(),
        lambda folder: (folder / "config.json").unlink(),
    ]
    for n, change in enumerate(files):
        folder = tmp_path / f"step-{n}"
        save_file(parts("gpt2", folder), folder / "model.safetensors")
        change(folder)
        assert checkpoint.is_checkpoint(folder)
        with pytest.raises(UserError, match="no MANIFEST"):
            checkpoint.load(folder)
