"""A checkpoint: a folder that holds all of a run at one step, written whole or not at all.

    out/tales/                    a run
        step-000400/              a checkpoint
            config.json           the model's shape and arithmetic
            model.safetensors     its weights
            tokenizer.json        text <-> ids
            tokenizer_config.json which tokens are special, for transformers
            optimizer.safetensors the optimiser's averages
            state.json            step, losses, and the training configuration
            MANIFEST.json         size and sha256 of each file above

The first four make it a model of Hugging Face's kind: `AutoModelForCausalLM.from_pretrained` and
`pipeline` of transformers load a checkpoint as it is. Of a model with LoRA only the correction is
kept, adapter_model.safetensors instead of model.safetensors, in the form of the library peft.

    python -m minigen.checkpoint export out/tales my-model    # for others: only what they need

A checkpoint is never changed once it has its name: it is written into a hidden folder beside it,
flushed to the disk, and renamed. So whatever ends the process, each `step-` folder is complete.
Nothing in it is ever executed: JSON and safetensors hold data only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from minigen import lora, pretrained
from minigen.errors import UserError, one_line_errors
from minigen.model import GPT, GPTConfig
from minigen.tokenizer import Tokenizer

FORMAT = 2
WHOLE = ("config.json", "model.safetensors")
LORA = ("base_config.json", "adapter_model.safetensors", "adapter_config.json")  # instead of those
COMMON = ("tokenizer.json", "tokenizer_config.json", "optimizer.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read and verified."""

    path: Path
    config: GPTConfig
    weights: Mapping[str, Tensor]  # of a model with LoRA, only the correction
    optimizer: Mapping[str, Tensor]
    tokenizer: Tokenizer
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def model(self, dropout: float | None = None) -> GPT:
        """The model with its weights, in evaluation mode; LoRA stands beside them, not merged.

        Args:
            dropout: None: the same as before.
        """
        config = self.config if dropout is None else replace(self.config, dropout=dropout)
        if any(".lora_A." in name for name in self.weights):
            return self._corrected(config)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        weights = pretrained.Weights(shapes, self.weights.__getitem__)
        return pretrained.build(config, weights, str(self.path))

    def _corrected(self, config: GPTConfig) -> GPT:
        base = self.state["tuned"]
        try:
            model = pretrained.load(base["path"], config.dropout).model.float()
        except UserError as error:
            raise UserError(f"{self.path} only corrects another model: {error}") from None
        if lora.fingerprint(model) != base["sha256"]:
            raise UserError(f"{base['path']} is not what {self.path} corrects any more; restore it")
        lora.from_peft(model, self.weights)
        return model.eval()


def save(
    run: Path,
    model: GPT,
    tokenizer: Tokenizer,
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> Path:
    """Commit the checkpoint of `state["step"]` into the folder `run`, or raise `UserError`.

    Weights that are not numbers are refused: nobody could go on from there. Where the model has
    LoRA, `state["tuned"]` has the path and the sha256 (`lora.fingerprint`) of what it corrects.
    """
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"not saved: {broken[0]} is not finite; lower --learning_rate")
    target = run / f"step-{state['step']:06d}"
    folder = run / f".tmp-{target.name}"
    if lora.is_added(model):
        adapter, weights = lora.to_peft(model, state["tuned"]["path"])
        contents = {"base_config.json": _config(model, tokenizer)}
        contents["adapter_config.json"] = _json(adapter)
        contents["adapter_model.safetensors"] = safetensors.torch.save(weights)
    else:
        contents = _model_files(model, tokenizer)
    contents |= _tokenizer_files(model, tokenizer)
    contents["optimizer.safetensors"] = safetensors.torch.save(_plain(optimizer))
    contents["state.json"] = _json(state)
    facts = {
        name: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()}
        for name, b in contents.items()
    }
    contents["MANIFEST.json"] = _json({"format": FORMAT, "files": facts})
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, content in contents.items():
            with open(folder / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(folder)
        os.rename(
            folder, target
        )  # the commit: before it the checkpoint is not there, after it, it is whole
        _sync(run)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"cannot save {target}: {error.strerror}; earlier checkpoints are untouched"
        ) from error
    return target


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, using the very bytes that were checked. `UserError` if one is wrong."""
    if not (path / "MANIFEST.json").is_file():
        raise UserError(
            f"{path} is not a checkpoint: it has no MANIFEST.json; name a step-… folder"
        )
    manifest = _parse(path / "MANIFEST.json", _read(path / "MANIFEST.json"))
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {manifest.get('format')!r}; this minigen reads format {FORMAT}"
        )
    contents = {}
    kind = LORA if LORA[1] in manifest.get("files", {}) else WHOLE
    config, weights = kind[:2]
    for name in (*kind, *COMMON):
        content, fact = _read(path / name), manifest.get("files", {}).get(name)
        if fact != {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}:
            raise UserError(
                f"{path / name} is damaged: not what MANIFEST.json says; use another checkpoint"
            )
        contents[name] = content
    try:
        return Checkpoint(
            path=path,
            config=pretrained.read_config(
                _parse(path / config, contents[config]), str(path / config)
            ),
            weights=safetensors.torch.load(contents[weights]),
            optimizer=safetensors.torch.load(contents["optimizer.safetensors"]),
            tokenizer=Tokenizer.from_json(contents["tokenizer.json"]),
            state=_parse(path / "state.json", contents["state.json"]),
        )
    except (TypeError, UnicodeDecodeError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read: {str(error).splitlines()[0]}; use another checkpoint"
        ) from error


def load_newest(run: Path) -> Checkpoint:
    """The newest whole checkpoint of a run; a damaged one is named on stderr and passed over."""
    return _load_first(run, sorted(steps(run), key=_step, reverse=True))


def load_best(run: Path) -> Checkpoint:
    """The whole checkpoint with the lowest validation loss; the newest of those without any."""
    return _load_first(run, sorted(steps(run), key=lambda path: (_val_loss(path), -_step(path))))


def _load_first(run: Path, paths: list[Path]) -> Checkpoint:
    for path in paths:
        try:
            return load(path)
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
    raise UserError(f"{run} has no checkpoint that can be read")


def set_aside(run: Path, step: int) -> None:
    """Rename what comes after `step`, which could not be read: the run will get there again."""
    for path in steps(run):
        if _step(path) > step:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def steps(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = (
        [path for path in run.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
        if run.is_dir()
        else []
    )
    return sorted(found, key=_step)


def prune(run: Path) -> None:
    """Keep the last two checkpoints and the best one; drop the others."""
    paths = steps(run)
    keep = {*paths[-2:], min(paths, key=_val_loss)} if paths else set()
    for path in paths:
        if path not in keep:
            # Without its manifest a half-deleted folder is no checkpoint, so that goes first.
            (path / "MANIFEST.json").unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def find_run(out_dir: Path, name: str | None = None) -> Path:
    """The run folder `out_dir/name`, or the one saved last. `UserError` if there is none."""
    runs = [path for path in out_dir.glob("*") if steps(path)] if out_dir.is_dir() else []
    if name is not None:
        if out_dir / name not in runs:
            known = (
                ", ".join(sorted(path.name for path in runs))
                or "none yet; train one: python train.py"
            )
            raise UserError(f"no run {name!r} in {out_dir}; runs there: {known}")
        return out_dir / name
    if not runs:
        raise UserError(f"no run in {out_dir} yet; train one: python train.py")
    return max(runs, key=lambda path: steps(path)[-1].stat().st_mtime)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _val_loss(path: Path) -> float:
    try:
        loss = json.loads((path / "state.json").read_text(encoding="utf-8")).get("val_loss")
        return float("inf") if loss is None else float(loss)
    except (OSError, ValueError, AttributeError):
        return float("inf")


def export(source: Path, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write the model of a run or of a checkpoint as one for others, LoRA merged; its folder."""
    found = load_best(source) if steps(source) else load(source)
    model = found.model()
    lora.merge(model)
    model.to(dtype)
    contents = _model_files(model, found.tokenizer) | _tokenizer_files(model, found.tokenizer)
    try:
        folder.mkdir(parents=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}; name a folder that is not there yet"
        ) from None
    return folder


def _model_files(model: GPT, tokenizer: Tokenizer) -> dict[str, bytes]:
    weights = pretrained.to_theirs(model)
    return {
        "config.json": _config(model, tokenizer),
        "model.safetensors": safetensors.torch.save(weights, {"format": "pt"}),
    }


def _config(model: GPT, tokenizer: Tokenizer) -> bytes:
    dtype = next(model.parameters()).dtype
    return _json(pretrained.write_config(model.config, tokenizer.end_of_text, dtype))


def _tokenizer_files(model: GPT, tokenizer: Tokenizer) -> dict[str, bytes]:
    config = pretrained.tokenizer_config(model.config.block_size)
    return {"tokenizer.json": tokenizer.to_json(), "tokenizer_config.json": _json(config)}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: it is not JSON; use another checkpoint") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it is not a JSON object; use another checkpoint")
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; use another checkpoint") from error


def _sync(folder: Path) -> None:
    """Flush a folder's list of names to the disk, so that a rename survives a power cut."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m minigen.checkpoint")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("export", help="write a model as a folder for transformers")
    command.add_argument("source", type=Path, help="a run (its best checkpoint), or a checkpoint")
    command.add_argument("folder", type=Path, help="the new folder")
    command.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of weights")
    options = parser.parse_args(argv)
    dtype = getattr(torch, options.dtype) if options.dtype else None
    print(export(options.source, options.folder, dtype))


if __name__ == "__main__":
    with one_line_errors():
        main()
