"""A checkpoint: a folder that holds all of a run at one step, written whole or not at all.

    out/tales/                    a run
        step-000400/              a checkpoint
            config.json           the model's shape and arithmetic
            model.safetensors     its weights
            tokenizer.json        text <-> ids
            tokenizer_config.json which tokens are special, for transformers
            ...                   of another's model that was fine-tuned, its other companions
            optimizer.safetensors the optimiser's averages
            state.json            step, losses, and the training configuration
            MANIFEST.json         size and sha256 of each file above

The first four make it a model of Hugging Face's kind: `AutoModelForCausalLM.from_pretrained` and
`pipeline` of transformers load a checkpoint as it is. Of a model with LoRA only the correction is
kept, adapter_model.safetensors instead of model.safetensors, in the form of the library peft.

A checkpoint is never changed once it has its name: it is written into a hidden folder beside it,
flushed to the disk, and renamed. So whatever ends the process, each `step-` folder is complete.
Nothing in it is ever executed: JSON and safetensors hold data only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from minigen.errors import UserError
from minigen.files import companions, huggingface, lora, safetensors_file, tokenizer_files
from minigen.files.companions import Companions
from minigen.files.config_file import read_config, write_config
from minigen.files.safetensors_file import Fact, TensorFile, parse_json, plain, read_file
from minigen.files.weight_files import Weights
from minigen.model import GPT, GPTConfig
from minigen.system import disk
from minigen.system.shell import as_path, command
from minigen.system.strict_json import to_json
from minigen.tokenizer import Tokenizer

FORMAT = 2
WHOLE = ("config.json", "model.safetensors")
LORA = ("base_config.json", "adapter_model.safetensors", "adapter_config.json")  # instead of those
COMMON = ("tokenizer.json", "tokenizer_config.json", "optimizer.safetensors", "state.json")
ONLY_OURS = ("state.json", "optimizer.safetensors", "base_config.json")
STEP = r"step-(\d+)"  # the name of a checkpoint
MAX_JSON = 1 << 20  # bytes of config.json, state.json and the like


class NotSavedError(UserError):
    """The disk did not take a checkpoint. Those of before are untouched."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read and verified."""

    path: Path
    config: GPTConfig
    weights: dict[str, Tensor]  # of a model with LoRA, only the correction
    optimizer: dict[str, Tensor]
    tokenizer: Tokenizer
    state: Mapping[str, Any]
    companions: Companions = field(default_factory=Companions)

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
        weights = Weights(shapes, self.weights.__getitem__)
        return huggingface.build(config, weights, str(self.path))

    def _corrected(self, config: GPTConfig) -> GPT:
        base = self.state["tuned"]
        try:
            model = huggingface.load_model(base["path"], config.dropout).float()
        except UserError as error:
            raise UserError(f"{self.path} only corrects another model: {error}") from None
        if lora.fingerprint(model) != base["sha256"]:
            raise UserError(f"{base['path']} is not what {self.path} corrects any more; restore it")
        lora.from_peft(model, self.weights)
        return model.eval()


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Be the only process that trains in the folder `run`; `UserError` if another one does.

    The kernel holds the lock and frees it when the process ends, however that comes about.
    """
    path = run / ".lock"
    try:
        file = disk.take_lock(path)
    except BlockingIOError:
        holder = plain(read_file(path, 100).decode(errors="replace")) or "another process"
        raise UserError(
            f"{run} is in use by {holder}; wait for it, or give another --name"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write in {run}: {error.strerror}; give another --out_dir"
        ) from None
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()}".encode())
        file.flush()
        yield


def save(
    run: Path,
    model: GPT,
    tokenizer: Tokenizer,
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    beside: Companions | None = None,
) -> Path:
    """Commit the checkpoint of `state["step"]` into the folder `run`, or raise `NotSavedError`.

    What is not finite is refused, with `UserError`: nobody could go on from there. Where the model
    has LoRA, `state["tuned"]` has the path and the sha256 (`lora.fingerprint`) of what it corrects.

    Args:
        beside: the companions of the model that is fine-tuned or resumed; None: the model is new.
    """
    beside = Companions() if beside is None else beside
    for name, tensor in {**model.state_dict(), **optimizer}.items():
        if tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
            raise UserError(
                f"step {state['step']} is not saved: {name} is not finite; lower --learning_rate"
            )
    target = run / f"step-{state['step']:06d}"
    folder = run / f".tmp-{target.name}"
    contents: dict[str, bytes | Mapping[str, Tensor]]
    if lora.is_added(model):
        adapter, weights = lora.to_peft(model, state["tuned"]["path"])
        contents = {"base_config.json": _config(model, tokenizer, beside)}
        contents["adapter_config.json"] = _json(adapter)
        contents["adapter_model.safetensors"] = weights
    else:
        contents = files_of_model(model, tokenizer, beside)
    contents |= files_of_tokenizer(model, tokenizer, beside)
    contents["optimizer.safetensors"] = optimizer
    contents["state.json"] = _json(state)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        facts = {name: write_file(folder / name, content) for name, content in contents.items()}
        files = {name: dataclasses.asdict(fact) for name, fact in facts.items()}
        write_file(folder / "MANIFEST.json", _json({"format": FORMAT, "files": files}))
        disk.flush_folder(folder)
        # The commit: before it the checkpoint is not there, after it, it is whole.
        disk.rename_folder(folder, target, last="MANIFEST.json")
        disk.flush_folder(run)
        disk.flush_folder(run.parent)  # the run itself may be new
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NotSavedError(
            f"cannot save {target}: {error.strerror}; earlier checkpoints are untouched"
        ) from error
    return target


def load(path: Path, to_train: bool = True) -> Checkpoint:
    """Read a checkpoint, using the very bytes that were checked. `UserError` if one is wrong.

    What the files say of themselves is held against the config before anything is allocated.

    Args:
        to_train: read the optimiser too. A model that only writes does not need it.
    """
    facts = _facts(path)
    config_name, weights_name, *others = LORA if LORA[1] in facts else WHOLE
    small: dict[str, bytes] = {}
    beside = [name for name in companions.NAMES if name in facts]
    most_of = dict.fromkeys(beside, companions.MAX_BYTES)
    most_of["tokenizer.json"] = tokenizer_files.MAX_BYTES
    for name in (config_name, *others, "tokenizer.json", "state.json", *beside):
        most = most_of.get(name, MAX_JSON)
        small[name] = read_file(path / name, most)
        _verify(path / name, _fact(small[name]), facts)
    where = path / config_name
    theirs = parse_json(small[config_name], str(where))
    config = read_config(theirs, str(where))
    state = _read_state(path, small["state.json"])
    where = path / "tokenizer.json"
    kept = companions.of({name: small[name] for name in beside}, theirs, str(path))
    tokenizer = tokenizer_files.with_companions(small["tokenizer.json"], str(where), kept)
    huggingface.check_size(tokenizer, config, str(path))

    tensors: dict[str, dict[str, Tensor]] = {"optimizer.safetensors": {}}
    with contextlib.ExitStack() as stack:
        files = [TensorFile(path / weights_name, stack)]
        files += [TensorFile(path / "optimizer.safetensors", stack)] if to_train else []
        _fit(config, *files)
        for file in files:
            tensors[file.path.name], fact = file.read_all()
            _verify(file.path, fact, facts)
    averages = {_present_name(name): t for name, t in tensors["optimizer.safetensors"].items()}
    return Checkpoint(
        path, config, tensors[weights_name], averages, tokenizer, state, kept,
    )  # fmt: skip


def _facts(path: Path) -> dict[str, Any]:
    """What the manifest says of each file."""
    name = path / "MANIFEST.json"
    if not os.path.isfile(name):
        raise UserError(
            f"{path} is not a checkpoint: it has no MANIFEST.json; name a step-… folder"
        )
    manifest = parse_json(read_file(name, MAX_JSON), str(name))
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {plain(manifest.get('format'))}; this minigen reads format {FORMAT}"
        )
    if not isinstance(facts := manifest.get("files"), dict):
        raise UserError(f"{name} is damaged: it names no files; use another checkpoint")
    return facts


def _verify(path: Path, fact: Fact, facts: Mapping[str, Any]) -> None:
    if facts.get(path.name) != dataclasses.asdict(fact):
        raise UserError(f"{path} is damaged: not what MANIFEST.json says; use another checkpoint")


def _fact(content: bytes) -> Fact:
    return Fact(len(content), hashlib.sha256(content).hexdigest())


def _read_state(path: Path, content: bytes) -> dict[str, Any]:
    """The training's facts, of which those that this file and sample.py use are what they are."""
    name = path / "state.json"
    state = parse_json(content, str(name))
    tuned, loss = state.get("tuned", {"path": "", "sha256": ""}), state.get("val_loss", 0.0)
    if not (
        type(state.get("step")) is int
        and state["step"] >= 0
        and isinstance(loss, int | float | None)
        and isinstance(tuned, dict)
        and all(isinstance(tuned.get(key), str) for key in ("path", "sha256"))
        and isinstance(state.get("config", {}), dict)
        and isinstance(state.get("opening", ""), str)
    ):
        raise UserError(f"{name} is damaged: no step, or no loss; use another checkpoint")
    if re.fullmatch(STEP, path.name) and _step(path) != state["step"]:
        raise UserError(f"{path} is of step {state['step']}; give it its own name back")
    return state


def _fit(config: GPTConfig, weights: TensorFile, optimizer: TensorFile | None = None) -> None:
    """`UserError` if the tensors of the files are not those of such a model and its optimiser."""
    if weights.path.name in WHOLE:
        huggingface.fit(config, weights.shapes, str(weights.path))
        shapes = huggingface.parameter_shapes(config)
    else:
        model = huggingface.empty_model(config)
        lora.fit(model, weights.shapes)
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, shape in optimizer.shapes.items() if optimizer else ():
        if shapes.get(_present_name(name).rpartition(".")[0]) != shape:
            assert optimizer is not None
            raise UserError(f"{optimizer.path}: {plain(name)} {plain(shape)} is of another model")


def _present_name(name: str) -> str:
    """Return the present name of a tensor of an optimiser's state that has a former name."""
    parameter, _, average = name.rpartition(".")
    former = {"head.weight": "lm_head.weight", "mean": "exp_avg", "square": "exp_avg_sq"}
    return f"{former.get(parameter, parameter)}.{former.get(average, average)}"


def load_newest(run: Path) -> Checkpoint:
    """The newest whole checkpoint of a run; a damaged one is named on stderr and passed over."""
    return _load_first(run, steps(run)[::-1], to_train=True)


def load_best(run: Path) -> Checkpoint:
    """The whole checkpoint with the lowest validation loss, to write with, not to train."""
    return _load_first(run, best_first(run), to_train=False)


def best_first(run: Path) -> list[Path]:
    """The checkpoints of a run by their validation loss; those without any last, newest first."""
    return sorted(steps(run), key=lambda path: (_val_loss(path), -_step(path)))


def _load_first(run: Path, paths: list[Path], to_train: bool) -> Checkpoint:
    for path in paths:
        try:
            return load(path, to_train)
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
    raise UserError(f"{run} has no checkpoint that can be read")


def set_aside(run: Path, step: int) -> None:
    """Rename what comes after `step`, which could not be read: the run will get there again."""
    for path in steps(run):
        if _step(path) > step:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            disk.rename_folder(path, aside, last="MANIFEST.json")


def steps(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = (
        [path for path in run.glob("step-*") if re.fullmatch(STEP, path.name) and is_one(path)]
        if os.path.isdir(run)
        else []
    )
    return sorted(found, key=_step)


def is_one(folder: Path) -> bool:
    """Return whether a folder is a checkpoint; also one that lost its manifest, which is damage.

    Other programs have folders named `step-1000` too. One with a model, and without any of the
    files that only a checkpoint has, is theirs.
    """
    named = bool(re.fullmatch(STEP, folder.name)) and os.path.isdir(folder)
    theirs = _has(folder, "config.json", "adapter_config.json") and not _has(folder, *ONLY_OURS)
    return _has(folder, "MANIFEST.json") or (named and not theirs)


def _has(folder: Path, *names: str) -> bool:
    """Return whether one of the files is in the folder."""
    return any(os.path.isfile(folder / name) for name in names)


def prune(run: Path) -> None:
    """Keep the last two checkpoints and the best; drop the others, and what was left unfinished.

    They lose their names first, so that a checkpoint that is half deleted is none.
    """
    keep = {*steps(run)[-2:], *best_first(run)[:1]}
    with contextlib.suppress(OSError):  # the next time, then
        for path in steps(run):
            if path not in keep:
                _give_up(path)
        for path in run.glob(".tmp-step-*"):
            shutil.rmtree(path, ignore_errors=True)


def _give_up(path: Path) -> None:
    try:
        path.rename(path.with_name(f".tmp-{path.name}"))
    except OSError:  # no folder can be renamed here: without its manifest it is none either
        (path / "MANIFEST.json").unlink(missing_ok=True)
        shutil.rmtree(path)


def find(name: str | Path, out_dir: str | Path = "out") -> Path | str:
    """Return the model that `name` means: a folder, or as a string a name on the hub.

    Args:
        name: as a string, a run's name in `out_dir` (`tales`), the path of a run, of a checkpoint
            or of another folder with a model (`out/tales`, `out/tales/step-000400`), or a name on
            the hub (`gpt2`). A `Path` is a path only.
        out_dir: where the runs are.

    `UserError` if there is no such model, with the nearest name and the runs that are there, or if
    the name means two.
    """
    if isinstance(name, Path):
        return _folder(name)
    if not name:
        raise UserError(f"the name of a run is empty; {_known(Path(out_dir))}")
    here, there = Path(name), Path(out_dir) / name
    if os.path.lexists(here) and (there == here or os.path.dirname(name)):
        return _folder(here)  # a path: it, or nothing
    found = [path for path in (here, there) if _holds_model(path)]
    if len(found) == 2 and not here.samefile(there):
        raise UserError(
            f"{name!r} may be {as_path(here)} or {as_path(there)}; give one of these paths"
        )
    if found == [there] and name in huggingface.HUB_NAMES:
        raise UserError(
            f"{name!r} may be your {as_path(there)} or {huggingface.HUB_NAMES[name]} of "
            "huggingface.co; give one of these names"
        )
    if found:
        return found[0]
    owner = os.path.dirname(name)
    group = bool(owner) and bool(runs(Path(out_dir, owner)))
    misspelt = os.path.isdir(owner) or group or owner == str(out_dir)  # a path, no name on the hub
    if huggingface.is_hub_name(name) and not misspelt:
        return name
    if os.path.lexists(there):
        return _folder(there)
    if os.path.lexists(here):
        return _folder(here)
    parent = Path(owner) if owner else Path(out_dir)
    if not owner or parent == Path(out_dir):
        raise UserError(f"no run {here.name!r} in {parent}; {_known(parent, here.name)}")
    if not parent.is_dir():  # a folder of runs
        parent = Path(out_dir) / parent
    inside = [str(path.relative_to(parent)) for path in (*runs(parent), *steps(parent))]
    near = difflib.get_close_matches(here.name, inside, n=1)
    raise UserError(
        f"there is no run, checkpoint or model {name}; "
        + (f"did you mean {parent / near[0]}? " if near else "")
        + _known(Path(out_dir))
    )


def find_run(out_dir: str | Path, name: str | None = None) -> Path:
    """Return the run that `name` means, as `find` does, or the run in `out_dir` saved last.

    `UserError` if there is none.
    """
    if name is None:
        if not (found := runs(Path(out_dir))):
            raise UserError(f"no run in {out_dir} yet; {_known(Path(out_dir))}")
        return max(found, key=lambda path: steps(path)[-1].stat().st_mtime)
    if name in huggingface.HUB_NAMES and steps(Path(out_dir) / name):
        return Path(out_dir) / name  # a name on the hub is no run
    run = find(name, out_dir)
    if isinstance(run, str):
        raise UserError(f"no run {name!r} in {out_dir}; {_known(Path(out_dir), name)}")
    if not steps(run):
        inside = is_one(run) and steps(run.absolute().parent)
        hint = f"name its run: {run.parent}" if inside else _known(Path(out_dir))
        raise UserError(f"{run} is {'a checkpoint' if is_one(run) else 'a model'}, no run; {hint}")
    return run


def runs(out_dir: Path) -> list[Path]:
    """The folders in `out_dir` that hold checkpoints, by name, also in folders of runs there."""
    if not os.path.isdir(out_dir):
        return []
    found = [path for path in out_dir.glob("*") if steps(path)]
    inside = {path.parent for path in out_dir.glob("*/*/step-*")}
    return sorted([*found, *(path for path in inside if steps(path))])


def _holds_model(folder: Path) -> bool:
    models = ("config.json", "adapter_config.json")
    return bool(steps(folder)) or is_one(folder) or _has(folder, *models)


def _folder(path: Path) -> Path:
    """The path itself; `UserError` if it is no folder with a model."""
    if _holds_model(path):
        return path
    if not os.path.lexists(path):
        raise UserError(f"there is no folder {path}; give that of a run, a checkpoint or a model")
    if not os.path.isdir(path):
        raise UserError(f"{path} is a file; give the folder of a run, a checkpoint or a model")
    if inside := runs(path):
        raise UserError(f"{path} is a folder of runs; give one: {_listed(inside, str)}")
    raise UserError(
        f"{path} holds no model: no step-… folder, no config.json; {_known(path.parent)}"
    )


def _known(out_dir: Path, name: str = "") -> str:
    """What a line about a run that is not there can offer: the nearest one, and all."""
    found = runs(out_dir)
    if not found:
        return f"train one: {command('train')}"
    names = {path: str(path.relative_to(out_dir)) for path in found}
    near = difflib.get_close_matches(name, names.values(), n=1)
    listed = f"runs there: {_listed(found, names.__getitem__)}"
    return f"did you mean {near[0]}? {listed}" if near else listed


def _listed(paths: list[Path], form: Callable[[Path], str], most: int = 12) -> str:
    names = [form(path) for path in paths]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" * (len(names) > most))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _val_loss(path: Path) -> float:
    try:
        state = parse_json(read_file(path / "state.json", MAX_JSON), "")
        return float(state.get("val_loss", "inf"))
    except (UserError, ValueError, TypeError):
        return float("inf")


def files_of_model(
    model: GPT, tokenizer: Tokenizer, beside: Companions
) -> dict[str, bytes | Mapping[str, Tensor]]:
    return {
        "config.json": _config(model, tokenizer, beside),
        "model.safetensors": huggingface.to_theirs(model),
    }


def _config(model: GPT, tokenizer: Tokenizer, beside: Companions) -> bytes:
    dtype = next(model.parameters()).dtype
    config = write_config(model.config, tokenizer.end_of_text, dtype)
    return _json({**config, **beside.kept})


def files_of_tokenizer(
    model: GPT, tokenizer: Tokenizer, beside: Companions
) -> dict[str, bytes | Mapping[str, Tensor]]:
    end = tokenizer.controls[tokenizer.end_of_text]
    config = _json(huggingface.tokenizer_config(model.config.block_size, end))
    content = tokenizer_files.to_json(tokenizer)
    return {"tokenizer.json": content, "tokenizer_config.json": config, **beside.files}


def _json(value: Any) -> bytes:
    return (to_json(value, indent=2) + "\n").encode()


def write_file(path: Path, content: bytes | Mapping[str, Tensor]) -> Fact:
    """Write a new file and flush it to the disk."""
    if not isinstance(content, bytes):
        return safetensors_file.write(path, content)
    with path.open("xb") as file:
        file.write(content)
        disk.flush(file)
    return _fact(content)
