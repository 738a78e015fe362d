"""An adapter of peft is computed as in peft, or refused by name; it is never ignored."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_weight_files import IDS, tiny
from transformers import AutoModelForCausalLM

from minigen.errors import UserError
from minigen.files import adapter, checkpoint, huggingface
from minigen.inference import parity


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save tiny models of transformers; return their folders by architecture."""
    folders = {}
    for kind in ("gpt2", "llama"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        tiny(kind).save_pretrained(folders[kind])
    return folders


def adapted(base: Path, folder: Path, **settings: Any) -> Path:
    """Save an adapter, all of whose weights change the logits; return its folder."""
    torch.manual_seed(1)
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 3, "lora_alpha": 7, **settings}),
    )
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.4)
    model.save_pretrained(folder)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.no_grad()
def logits(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of minigen and of transformers for a folder."""
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(IDS).logits
    return huggingface.load(folder).model.float()(IDS), reference


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference of `a` and `b`, relative to the largest number of `b`."""
    return ((a - b).abs().max() / b.abs().max()).item()


SAME: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "use_rslora": True}),
    ("gpt2", {"target_modules": ["c_attn", "mlp.c_proj"], "rank_pattern": {"c_attn": 2, "attn": 1},
              "alpha_pattern": {"mlp.c_proj": 20}}),
    ("llama", {"target_modules": "all-linear", "lora_dropout": 0.3}),
    ("llama", {"target_modules": ["q_proj", "down_proj"], "init_lora_weights": "gaussian"}),
    ("llama", {"target_modules": ["layers.1.mlp.down_proj"], "lora_alpha": 1}),
]  # fmt: skip


@pytest.mark.parametrize("kind, settings", SAME, ids=str)
def test_the_logits_are_those_of_peft(
    kind: str, settings: dict[str, Any], bases: dict[str, Path], tmp_path: Path
) -> None:
    """With an adapter, alone or in its base model's folder, the logits are those of peft."""
    alone = adapted(bases[kind], tmp_path / "alone", **settings)
    actual, reference = logits(alone)
    assert off(actual, reference) < 1e-5
    with torch.no_grad():
        assert off(huggingface.load(bases[kind]).model(IDS), reference) > 1e-2
    beside = tmp_path / "beside"
    shutil.copytree(bases[kind], beside)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(alone / file, beside)
    assert off(*logits(beside)) < 1e-5
    old = beside / "adapter_model.safetensors"
    torch.save(load_file(old), beside / "adapter_model.bin")
    old.unlink()
    with torch.no_grad():
        assert off(huggingface.load(beside).model(IDS), reference) < 1e-5
    assert all(finding.agrees for finding in parity.check(alone)[:-1])
    assert checkpoint.find(str(alone)) == alone and not checkpoint.is_checkpoint(alone)


def test_an_adapter_is_not_rounded_away(bases: dict[str, Path], tmp_path: Path) -> None:
    """A bfloat16 model with an adapter becomes float32, so that small changes are not lost."""
    base = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(bases["llama"]).bfloat16().save_pretrained(base)
    folder = adapted(base, tmp_path / "alone", lora_alpha=0.01)
    assert off(*logits(folder)) < 1e-5
    assert {p.dtype for p in huggingface.load(folder).model.parameters()} == {torch.float32}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"bias": "all"}, "bias is 'all'"),
    ({"use_dora": True}, "use_dora is True"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"layers_to_transform": [0]}, "layers_to_transform"),
    ({"target_modules": r".*\.c_attn"}, "target_modules is .*takes a list"),
    ({"target_modules": ["c_attn", "c_fc"]}, "target_modules name .*c_fc, but its file has no"),
    ({"target_modules": ["c_fc"]}, "target_modules name|its file has .*c_attn"),
    ({"rank_pattern": {".*attn": 2}}, "rank_pattern has '[.][*]attn'"),
    ({"rank_pattern": {"c_attn": 2}}, "with rank 2 they do not fit"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ({"new_way": 1}, "does not know the field 'new_way'"),
    ({"lora_alpha": "7"}, "lora_alpha of .* is '7'"),
    ({"r": 0}, "r of .* is 0"),
    ({"use_rslora": 1}, "use_rslora is 1"),
]


def test_an_unsupported_adapter_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    """An adapter that minigen does not compute is refused: one line names the field or tensor."""
    folder = adapted(bases["gpt2"], tmp_path / "adapter", target_modules=["c_attn"])
    whole = (folder / "adapter_config.json").read_text()
    for changes, complaint in REFUSED:
        edit(folder, **changes)
        with pytest.raises(UserError, match=f"adapter_config.json.*({complaint})") as caught:
            huggingface.load(folder)
        assert "merge_and_unload" in str(caught.value) and "\n" not in str(caught.value)
        (folder / "adapter_config.json").write_text(whole)

    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector"
    save_file(tensors | {name: torch.ones(48)}, path)
    with pytest.raises(UserError, match="lora_magnitude_vector, which minigen does not use"):
        huggingface.load(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*adapter_model\.safetensors"):
        huggingface.load(folder)


def test_an_adapter_without_a_base_model_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    """An adapter whose base model is missing, not named, or an adapter is refused in one line."""
    first = adapted(bases["gpt2"], tmp_path / "first")
    second = tmp_path / "second"
    shutil.copytree(first, second)
    for name, complaint in (
        (str(tmp_path / "nothing"), "is an adapter without its base model: .*nothing is neither"),
        (None, "base_model_name_or_path is None"),
        (str(first), ", an adapter too"),
    ):
        edit(second, base_model_name_or_path=name)
        with pytest.raises(UserError, match=complaint):
            huggingface.load(second)


def test_every_field_of_peft_is_in_a_table() -> None:
    """Each field of peft's LoraConfig is computed, restricted to values, or harmless."""
    decided = {*adapter.COMPUTED, *adapter.ONLY, *adapter.HARMLESS}
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert len(fields) > 30
    assert fields | set(peft.LoraConfig().to_dict()) <= decided
