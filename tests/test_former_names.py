"""Runs that earlier versions saved, with former names in their files, load and resume."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from digests import trained

import train
from minigen.files import checkpoint, safetensors_file
from minigen.files.huggingface import load_model

SMALL = "--n_layer 1 --n_head 1 --n_embd 8 --block_size 16 --batch_size 2 --vocab_size 258"
PLAIN = "--device cpu --eval_tokens 50 --compile no --dtype float32 --data text.txt"


def former_fingerprint(path: str) -> str:
    """Return the hash of a base model's weights, with the former name of the head."""
    digest = hashlib.sha256()
    for name, tensor in load_model(path).float().state_dict().items():
        digest.update({"lm_head.weight": "head.weight"}.get(name, name).encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def give_former_names(folder: Path) -> set[str]:
    """Rewrite a checkpoint as an earlier version saved it; return the optimiser's names."""
    path = folder / "optimizer.safetensors"
    with ExitStack() as stack:
        tensors, _ = safetensors_file.TensorFile(path, stack).read_all()
    former = {r"^lm_head\.": "head.", r"\.exp_avg$": ".mean", r"\.exp_avg_sq$": ".square"}
    for pattern, name in former.items():
        tensors = {re.sub(pattern, name, old): tensor for old, tensor in tensors.items()}
    path.unlink()
    safetensors_file.write(path, tensors)
    state = json.loads((folder / "state.json").read_bytes())
    if "base_model" in state:
        state["tuned"] = state.pop("base_model")
        state["tuned"]["sha256"] = former_fingerprint(state["tuned"]["path"])
    (folder / "state.json").write_text(json.dumps(state))
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    for name in manifest["files"]:
        digest = checkpoint._digest((folder / name).read_bytes())
        manifest["files"][name] = dataclasses.asdict(digest)
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    return set(tensors)


@pytest.mark.usefixtures("signals", "text")
@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_checkpoint_with_former_names_resumes_to_the_same_bits(
    with_adapter: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose files have former names ends in the weights and averages of one that has not."""
    monkeypatch.chdir(tmp_path)
    flags = [*PLAIN.split(), "--max_steps", "2"]
    assert train.main([*SMALL.split(), *flags, "--name", "present"]) == 0
    if with_adapter:
        Path("out/present").rename("out/base")
        flags += ["--init_from", "base", "--lora_rank", "2"]
        assert train.main([*flags, "--name", "present"]) == 0
    shutil.copytree("out/present", "out/former", symlinks=True)
    for folder in checkpoint.steps(Path("out/former")):
        names = give_former_names(folder)
        assert with_adapter or {"head.weight.mean", "head.weight.square"} <= names
    for name in ("present", "former"):
        resume = ["--init_from", "resume", "--name", name, "--max_steps", "5", "--device", "cpu"]
        assert train.main(resume) == 0
        assert checkpoint.load_newest(Path("out", name)).step == 5
    assert trained(Path("out/present")) == trained(Path("out/former"))
