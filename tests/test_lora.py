"""LoRA changes nothing at first, trains few weights, is saved small, and merges into its model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from models import architectures, random_model

from minigen.errors import UserError
from minigen.files import checkpoint, export, huggingface, lora
from minigen.inference.engine import load
from minigen.model import GPT, GPTConfig
from minigen.run.config import resolve
from minigen.tokenizer import train_tokenizer
from train import TrainConfig

TOKENIZER = train_tokenizer("byte", [])
CONFIGS = architectures(TOKENIZER.n_vocab, block_size=32, n_embd=16)
IDS = torch.randint(257, (2, 32), generator=torch.Generator().manual_seed(1))


def base(kind: str, folder: Path) -> Path:
    """Save a random model as a checkpoint; return its folder."""
    model = random_model(CONFIGS[kind], std=0.3)
    return checkpoint.save(folder, model, TOKENIZER, {}, {"step": 1})


def with_adapter(path: Path, rank: int = 3) -> GPT:
    """Return the model of a checkpoint with an adapter that changes its logits."""
    model = huggingface.load(path).model
    lora.add(model, rank)
    for matrix in lora.matrices(model):
        torch.nn.init.normal_(lora.pair(matrix)[1], std=0.3)
    return model


def test_an_adapter_in_bfloat16_is_not_compiled_on_a_cpu() -> None:
    """PyTorch's compiler gives it gradients that are NaN; in float32 it may be compiled."""
    flags = TrainConfig(init_from="base", lora_rank=2, learning_rate=1e-3, device="cpu")
    assert resolve(dataclasses.replace(flags, dtype="bfloat16")).compile == "no"
    assert resolve(dataclasses.replace(flags, dtype="float32")).compile == "auto"
    with pytest.raises(UserError, match="leave it out, or give --dtype float32"):
        resolve(dataclasses.replace(flags, dtype="bfloat16", compile="yes"))


@pytest.fixture(params=["gpt2", "grouped queries"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return base(request.param, tmp_path / "base")


def save(model: GPT, path: Path, run: Path) -> Path:
    base_model = {"path": str(path), "sha256": lora.fingerprint(model)}
    return checkpoint.save(run, model, TOKENIZER, {}, {"step": 2, "base_model": base_model})


def test_a_new_adapter_changes_nothing(path: Path) -> None:
    """With a new adapter the logits are those of the base model, bit for bit."""
    model = huggingface.load(path).model
    before = model(IDS)
    lora.add(model, 3)
    assert torch.equal(model(IDS), before)


def test_the_adapter_adds_b_a(path: Path) -> None:
    """The logits with an adapter, merged or not, are those of a model with B A added to W."""
    model, by_hand = with_adapter(path), huggingface.load(path).model
    for matrix, plain in zip(lora.matrices(model), lora.matrices(by_hand), strict=True):
        a, b = lora.pair(matrix)
        with torch.no_grad():
            plain.weight += b @ a
    unmerged = model(IDS)
    torch.testing.assert_close(unmerged, by_hand(IDS), rtol=1e-5, atol=1e-5)
    lora.merge(model)
    worst = (model(IDS) - unmerged).abs().max() / unmerged.abs().max()
    assert worst.item() < 1e-5
    assert not lora.is_added(model)
    assert model.state_dict().keys() == by_hand.state_dict().keys()
    assert all(p.requires_grad for p in model.parameters())


def test_only_the_adapter_trains(path: Path) -> None:
    """A and B of each matrix have gradients, and no other parameter has."""
    model = with_adapter(path)
    model(IDS).square().mean().backward()
    for name, p in model.named_parameters():
        trains = name.endswith(("lora_a", "lora_b"))
        assert p.requires_grad == trains and (p.grad is not None) == trains, name
        assert not trains or p.grad is None or p.grad.abs().max() > 0


def test_less_than_a_hundredth_of_gpt2() -> None:
    """With rank 8, less than a hundredth of the weights of GPT-2 is trained."""
    model = huggingface.empty_model(GPTConfig.gpt2())
    n_parameters = model.n_parameters()
    lora.add(model, 8)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) < 0.01 * n_parameters


def test_an_adapter_is_saved_alone_and_loads(path: Path, tmp_path: Path) -> None:
    """A checkpoint has A and B without the base model; both load bit for bit."""
    model = with_adapter(path)
    saved = save(model, path, tmp_path / "run")
    assert not (saved / "model.safetensors").exists()
    again = checkpoint.load(saved).model()
    state = again.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert torch.equal(again(IDS), model(IDS))
    torch.testing.assert_close(load(saved).model(IDS), model(IDS), rtol=1e-4, atol=1e-4)


def test_peft_loads_it(path: Path, tmp_path: Path) -> None:
    """transformers with peft computes minigen's logits from a checkpoint, and from its export."""
    import peft  # here, as peft and transformers take seconds
    import transformers

    model = with_adapter(path)
    saved = save(model, path, tmp_path / "run")
    by_path = transformers.AutoModelForCausalLM.from_pretrained(saved.parent / "best").eval()
    with_peft = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(path), saved
    ).eval()
    exported = tmp_path / "exported"
    export.main([str(saved.parent / "best"), str(exported)])
    merged = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    with torch.no_grad():
        expected = model(IDS)
        for other in (by_path, with_peft, merged):
            logits = other(IDS).logits
            assert ((expected - logits).abs().max() / logits.abs().max()).item() < 1e-5
    assert by_path.num_parameters() > merged.num_parameters()
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    assert tokenizer("né")["input_ids"] == TOKENIZER.encode_prompt("né")


def test_export_keeps_or_changes_the_format(path: Path, tmp_path: Path) -> None:
    """An export has the number format that is asked for; an existing folder is left alone."""
    for dtype in ("float32", "bfloat16"):
        folder = export.export(path.parent, tmp_path / dtype, getattr(torch, dtype))
        model = huggingface.load(folder).model
        assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}
    with pytest.raises(UserError, match="does not exist yet"):
        export.export(path.parent, tmp_path / "bfloat16")


def test_another_base_model_is_refused(path: Path, tmp_path: Path) -> None:
    """An adapter whose base model has changed or is missing is refused in one line."""
    saved = save(with_adapter(path), path, tmp_path / "run")
    model = huggingface.load(path).model
    with torch.no_grad():
        model.embedding.weight[0, 0] += 1
    checkpoint.save(path.parent, model, TOKENIZER, {}, {"step": 2})
    path.rename(path.with_name("old"))
    with pytest.raises(UserError, match="is an adapter without its base model"):
        checkpoint.load(saved).model()
    (path.parent / "step-000002").rename(path)
    with pytest.raises(UserError, match=r"the base model of the adapter .*, has changed"):
        checkpoint.load(saved).model()


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    """An adapter of a model with another number of layers is refused."""
    path = base("gpt2", tmp_path / "base")
    _, tensors = lora.to_peft(with_adapter(path), "")
    model = GPT(GPTConfig.gpt2(257, 32, 1, 2, 16))
    with pytest.raises(UserError, match="does not fit"):
        lora.from_peft(model, tensors)


@pytest.mark.parametrize("rank", [0, -1, 17, math.inf])
def test_an_impossible_rank_is_refused(rank: int, tmp_path: Path) -> None:
    """A rank below 1 or above the width of the matrices is refused with the limits."""
    model = GPT(CONFIGS["gpt2"])
    with pytest.raises(UserError, match=r"--lora_rank is .*; give 1 to 16"):
        lora.add(model, rank)
