"""A checkpoint: a folder that holds the whole state of a run at one step.

    out/tales/                    a run
        best -> step-000400       a link to the checkpoint with the lowest validation loss
        step-000400/              a checkpoint
            config.json           the model's shape and arithmetic
            model.safetensors     the model's weights
            tokenizer.json        text <-> ids
            tokenizer_config.json which tokens are special, for transformers
            ...                   other files of a base model that was fine-tuned (companions.py)
            optimizer.safetensors the optimiser's averages
            state.json            step, losses, and the training configuration
            MANIFEST.json         size and SHA-256 of each file above

The first four files are those that any model of Hugging Face has: `from_pretrained` and `pipeline`
of transformers load a checkpoint unchanged. A checkpoint of a run with LoRA has only the adapter,
adapter_model.safetensors instead of model.safetensors, in the format of the library peft.

A checkpoint is saved atomically: its files are written into a hidden folder and flushed to the
disk, then the folder is renamed. So each `step-` folder is complete, whatever ends the process
(test_kills.py). A checkpoint does not change after that. No file in it is ever executed: JSON and
safetensors hold data only.
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
from typing import Any, TypeVar

from torch import Tensor

from minigen.errors import UserError
from minigen.files import companions as companion_files
from minigen.files import huggingface, lora, safetensors_file, tokenizer_files
from minigen.files.companions import Companions
from minigen.files.config_file import read_config, write_config
from minigen.files.safetensors_file import FileDigest, TensorFile, parse_json, plain, read_file
from minigen.files.weight_files import Weights
from minigen.model import GPT, GPTConfig
from minigen.system import disk
from minigen.system.shell import as_path, command
from minigen.system.strict_json import to_json
from minigen.tokenizer import Tokenizer

Part = TypeVar("Part")

FORMAT = 2
WHOLE = ("config.json", "model.safetensors")
LORA = ("base_config.json", "adapter_model.safetensors", "adapter_config.json")  # not WHOLE
ONLY_MINIGEN = ("state.json", "optimizer.safetensors", "base_config.json")  # in no other model
STEP = r"step-(\d+)"  # the name of a checkpoint
BEST = "best"  # the name of the link
MAX_JSON = 1 << 20  # bytes of config.json, state.json and the like


class NotSavedError(UserError):
    """A checkpoint could not be written to the disk. Earlier checkpoints are untouched."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read and verified against its manifest."""

    path: Path
    config: GPTConfig
    weights: dict[str, Tensor]  # with LoRA, only the adapter's
    optimizer: dict[str, Tensor]
    tokenizer: Tokenizer
    state: Mapping[str, Any]
    companions: Companions = field(default_factory=Companions)

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def model(self, dropout: float | None = None, base: str | Path | None = None) -> GPT:
        """Return the model in evaluation mode; an adapter is added to it, but not merged.

        Args:
            dropout: None: the rate in the configuration.
            base: the base model of an adapter, a folder or a name on the hub; None: the one that
                the checkpoint names.

        Raises `UserError` if the base model of an adapter is missing or has other weights than when
        the adapter was trained.
        """
        config = self.config if dropout is None else replace(self.config, dropout=dropout)
        if any(".lora_A." in name for name in self.weights):
            return self._base_model_with_adapter(config, base)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        weights = Weights(shapes, self.weights.__getitem__)
        return huggingface.build(config, weights, str(self.path))

    def _base_model_with_adapter(self, config: GPTConfig, named: str | Path | None) -> GPT:
        base = self.state["base_model"]
        try:
            model = huggingface.load_model(named or base["path"], config.dropout).float()
        except UserError as error:
            raise UserError(f"{self.path} is an adapter without its base model: {error}") from None
        if lora.fingerprint(model) != base["sha256"]:
            if named is not None:
                raise UserError(
                    f"{self.path} is an adapter of another model than {named}: it was trained on "
                    f"{base['path']}; name that model, or the adapter alone"
                )
            raise UserError(
                f"{base['path']}, the base model of the adapter {self.path}, has changed; restore "
                "its weights"
            )
        lora.from_peft(model, self.weights)
        return model.eval()


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Lock the folder `run`, so that no other process trains in it; `UserError` if one does.

    The kernel holds the lock, and frees it when the process ends, however the process ends.
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
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def is_locked(run: Path) -> bool:
    """Return whether a process of this machine trains in the folder `run`, without taking its lock.

    A reader that took the lock, only to see whether it is free, could hinder a run from starting.
    So the process in the lock's file is looked up. A process that began after it was written
    there is another one, which has got the same number.
    """
    path = run / ".lock"
    try:
        import psutil

        number = read_file(path, 100).decode().removeprefix("process ")
        process, written = psutil.Process(int(number)), path.stat().st_mtime
        is_alive = process.status() != psutil.STATUS_ZOMBIE
        return is_alive and process.create_time() <= written + 2  # seconds, as clocks are coarse
    except Exception:  # no run has the folder, no such process, or a psutil that fails
        return False


def save(
    run: Path,
    model: GPT,
    tokenizer: Tokenizer,
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    companions: Companions | None = None,
) -> Path:
    """Save the checkpoint of step `state["step"]` in the folder `run`; return its folder.

    Args:
        state: with LoRA, `state["base_model"]` has the path of the base model and its SHA-256
            (`lora.fingerprint`).
        companions: of the model that is fine-tuned or resumed; None: the model is new.

    Raises `NotSavedError` if the disk does not take the checkpoint, and `UserError` if a tensor is
    not finite, because no run could resume from it.
    """
    companions = Companions() if companions is None else companions
    for name, tensor in {**model.state_dict(), **optimizer}.items():
        if tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
            raise UserError(
                f"step {state['step']} is not saved: {name} is not finite; lower --learning_rate"
            )
    target = run / f"step-{state['step']:06d}"
    folder = run / f".tmp-{target.name}"
    contents: dict[str, bytes | Mapping[str, Tensor]]
    if lora.is_added(model):
        adapter, weights = lora.to_peft(model, state["base_model"]["path"])
        contents = {"base_config.json": _config(model, tokenizer, companions)}
        contents["adapter_config.json"] = _json(adapter)
        contents["adapter_model.safetensors"] = weights
    else:
        contents = files_of_model(model, tokenizer, companions)
    contents |= files_of_tokenizer(model, tokenizer, companions)
    contents["optimizer.safetensors"] = optimizer
    contents["state.json"] = _json(state)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        digests = {name: write_file(folder / name, content) for name, content in contents.items()}
        files = {name: dataclasses.asdict(digest) for name, digest in digests.items()}
        write_file(folder / "MANIFEST.json", _json({"format": FORMAT, "files": files}))
        disk.flush_folder(folder)
        # Before this line there is no new checkpoint, after it there is a complete one.
        disk.rename_folder(folder, target, last="MANIFEST.json")
        _link_best(run)
        disk.flush_folder(run)
        disk.flush_folder(run.parent)  # the run itself may be new
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NotSavedError(
            f"cannot save {target}: {error.strerror}; earlier checkpoints are untouched"
        ) from error
    return target


def _link_best(run: Path) -> None:
    """Make `best` in a run's folder a symbolic link to the best checkpoint.

    The link is for other programs, which take a path. Where the file system has no links, or the
    name belongs to a file of the user, nothing happens.
    """
    link, new_link = run / BEST, run / f".tmp-{BEST}"
    with contextlib.suppress(OSError):
        if os.path.lexists(link) and not re.fullmatch(STEP, os.readlink(link)):
            return
        new_link.unlink(missing_ok=True)  # a process that was killed may have left it
        os.symlink(best_first(run)[0].name, new_link, target_is_directory=True)
        try:
            os.replace(new_link, link)  # atomic: `best` is always one of the two checkpoints
        finally:
            new_link.unlink(missing_ok=True)  # only if the file system renames no links


def without_link(path: Path) -> Path:
    """Return the checkpoint that the link `best` points to; any other path as it is."""
    with contextlib.suppress(OSError, ValueError):  # no link; or no path, with a NUL character
        if re.fullmatch(STEP, target := os.readlink(path)):
            return path.with_name(target)
    return path


def load(path: Path, to_train: bool = True) -> Checkpoint:
    """Read a checkpoint, and compare each byte that is used with the manifest's SHA-256.

    Names and shapes of tensors are compared with the config before memory is allocated for them.

    Args:
        to_train: read the optimiser's averages too; they are not needed to generate text.

    Raises `UserError` that names the file that is missing or damaged.
    """
    path = without_link(path)
    digests = _read_manifest(path)
    small = _read_small_files(path, digests)
    config_name, weights_name, *_ = _names_of_kind(digests)
    where = str(path / config_name)
    config = read_config(parse_json(small[config_name], where), where)
    state = _read_state(path, small["state.json"])
    tokenizer, companions = _read_tokenizer(path, small)
    huggingface.check_size(tokenizer, config, str(path))

    tensors: dict[str, dict[str, Tensor]] = {"optimizer.safetensors": {}}
    with contextlib.ExitStack() as stack:
        files = [TensorFile(path / weights_name, stack)]
        files += [TensorFile(path / "optimizer.safetensors", stack)] if to_train else []
        _check_shapes(config, *files)
        for file in files:
            tensors[file.path.name], digest = file.read_all()
            _verify(file.path, digest, digests)
    averages = {_present_name(name): t for name, t in tensors["optimizer.safetensors"].items()}
    return Checkpoint(
        path, config, tensors[weights_name], averages, tokenizer, state, companions,
    )  # fmt: skip


def load_tokenizer(path: Path) -> Tokenizer:
    """Read only the tokenizer of a checkpoint. `UserError` if a file is missing or damaged."""
    path = without_link(path)
    return _read_tokenizer(path, _read_small_files(path, _read_manifest(path)))[0]


def load_best_tokenizer(run: Path) -> Tokenizer:
    """Read the tokenizer of a run's best checkpoint; name a damaged one, and take the next."""
    return _first_that_loads(run, best_first(run), load_tokenizer)


def _names_of_kind(digests: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the config, the weights and, with LoRA, the adapter's config."""
    return LORA if LORA[1] in digests else WHOLE


def _read_small_files(path: Path, digests: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the content of each file without tensors, after a check of its SHA-256."""
    config_name, _, *others = _names_of_kind(digests)
    companions = [name for name in companion_files.NAMES if name in digests]
    limits = dict.fromkeys(companions, companion_files.MAX_BYTES)
    limits["tokenizer.json"] = tokenizer_files.MAX_BYTES
    small = {}
    for name in (config_name, *others, "tokenizer.json", "state.json", *companions):
        small[name] = read_file(path / name, limits.get(name, MAX_JSON))
        _verify(path / name, _digest(small[name]), digests)
    return small


def _read_tokenizer(path: Path, small: Mapping[str, bytes]) -> tuple[Tokenizer, Companions]:
    config_name = next(name for name in (LORA[0], WHOLE[0]) if name in small)
    config = parse_json(small[config_name], str(path / config_name))
    files = {name: small[name] for name in companion_files.NAMES if name in small}
    companions = companion_files.from_files(files, config, str(path))
    where = str(path / "tokenizer.json")
    return tokenizer_files.with_companions(small["tokenizer.json"], where, companions), companions


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of each file in the manifest, by the file's name."""
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
    if not isinstance(digests := manifest.get("files"), dict):
        raise UserError(f"{name} is damaged: it names no files; use another checkpoint")
    return digests


def _verify(path: Path, digest: FileDigest, digests: Mapping[str, Any]) -> None:
    if digests.get(path.name) != dataclasses.asdict(digest):
        raise UserError(
            f"{path} is damaged: MANIFEST.json has another SHA-256 or size; use another checkpoint"
        )


def _digest(content: bytes) -> FileDigest:
    return FileDigest(len(content), hashlib.sha256(content).hexdigest())


def _read_state(path: Path, content: bytes) -> dict[str, Any]:
    """Parse state.json, and check the types of the fields that this file and sample.py use."""
    name = path / "state.json"
    state = parse_json(content, str(name))
    if "tuned" in state:  # the former name
        state["base_model"] = state.pop("tuned")
    base, loss = state.get("base_model", {"path": "", "sha256": ""}), state.get("val_loss", 0.0)
    if not (
        type(state.get("step")) is int
        and state["step"] >= 0
        and isinstance(loss, int | float | None)
        and isinstance(base, dict)
        and all(isinstance(base.get(key), str) for key in ("path", "sha256"))
        and isinstance(state.get("config", {}), dict)
        and isinstance(state.get("opening", ""), str)
    ):
        raise UserError(
            f"{name} is damaged: its step, its loss or its base model is not valid; use another "
            "checkpoint"
        )
    if re.fullmatch(STEP, path.name) and _step(path) != state["step"]:
        raise UserError(
            f"{path} holds step {state['step']}; rename the folder to step-{state['step']:06d}"
        )
    return state


def _check_shapes(
    config: GPTConfig, weights: TensorFile, optimizer: TensorFile | None = None
) -> None:
    """Raise `UserError` if the files do not have the tensors of this model and its optimiser."""
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
            raise UserError(
                f"{optimizer.path}: {plain(name)} {plain(shape)} is a tensor of another model; "
                "use another checkpoint"
            )


def _present_name(name: str) -> str:
    """Return the present name of a tensor in optimizer.safetensors.

    Earlier versions had other names (test_a_checkpoint_with_former_names_resumes_to_the_same_bits).
    """
    parameter, _, average = name.rpartition(".")
    former = {"head.weight": "lm_head.weight", "mean": "exp_avg", "square": "exp_avg_sq"}
    return f"{former.get(parameter, parameter)}.{former.get(average, average)}"


def load_newest(run: Path) -> Checkpoint:
    """Return the newest intact checkpoint of a run; warn of each damaged one, and skip it."""
    return _first_that_loads(run, steps(run)[::-1], load)


def load_best(run: Path) -> Checkpoint:
    """Return the intact checkpoint with the lowest validation loss, without its optimiser."""
    return _first_that_loads(run, best_first(run), lambda path: load(path, to_train=False))


def best_first(run: Path) -> list[Path]:
    """Return the checkpoints of a run, the lowest validation loss first; without a loss, last.

    Of checkpoints with equal losses, the newest comes first.
    """
    return sorted(steps(run), key=lambda path: (_val_loss(path), -_step(path)))


def _first_that_loads(run: Path, paths: list[Path], read: Callable[[Path], Part]) -> Part:
    """Return the result of `read` for the first checkpoint that is intact; name the others."""
    for path in paths:
        try:
            return read(path)
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
    raise UserError(f"{run} has no checkpoint that can be read")


def set_aside(run: Path, step: int) -> None:
    """Rename the checkpoints after `step`, which are damaged: the run will save these steps again.

    The new name is `damaged-step-…`, so that nothing is lost.
    """
    for path in steps(run):
        if _step(path) > step:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            disk.rename_folder(path, aside, last="MANIFEST.json")
    _link_best(run)


def steps(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    if not os.path.isdir(run):
        return []
    folders = [path for path in run.glob("step-*") if re.fullmatch(STEP, path.name)]
    return sorted(filter(is_checkpoint, folders), key=_step)


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint, intact or damaged.

    Other programs have folders named `step-1000` too. A folder with a model, and without any of the
    files that only a checkpoint has, belongs to another program.
    """
    folder = without_link(folder)
    named = bool(re.fullmatch(STEP, folder.name)) and os.path.isdir(folder)
    model = _has(folder, "config.json", "adapter_config.json")
    other_program = model and not _has(folder, *ONLY_MINIGEN)
    return _has(folder, "MANIFEST.json") or (named and not other_program)


def _has(folder: Path, *names: str) -> bool:
    """Return whether one of the files is in the folder."""
    return any(os.path.isfile(folder / name) for name in names)


def saved_at(folder: Path) -> int | None:
    """Return when a checkpoint was saved, in nanoseconds; None: it is incomplete, or deleted."""
    try:
        return (folder / "MANIFEST.json").stat().st_mtime_ns
    except OSError:
        return None


def prune(run: Path, keep_all: bool = False) -> None:
    """Delete all checkpoints but the last two and the best, and the folders of unfinished saves.

    A checkpoint is renamed before it is deleted, so that a half-deleted folder is not a checkpoint.

    Args:
        keep_all: delete the folders of unfinished saves only.
    """
    keep = {*steps(run)[-2:], *best_first(run)[:1]}
    with contextlib.suppress(OSError):  # the next save deletes them
        for path in steps(run):
            if not (keep_all or path in keep):
                _delete(path)
        for path in run.glob(".tmp-step-*"):
            shutil.rmtree(path, ignore_errors=True)


def _delete(path: Path) -> None:
    try:
        path.rename(path.with_name(f".tmp-{path.name}"))
    except OSError:  # this file system renames no folder: the manifest goes first
        (path / "MANIFEST.json").unlink(missing_ok=True)
        shutil.rmtree(path)


def find(name: str | Path, out_dir: str | Path = "out") -> Path | str:
    """Return the model that `name` means: a folder as a `Path`, or a name on the hub as a string.

    Args:
        name: as a string, a run's name in `out_dir` (`tales`), the path of a run, of a checkpoint
            or of another folder with a model (`out/tales`, `out/tales/best`), or a name on the hub
            (`gpt2`). A `Path` is never a name.
        out_dir: the folder of the runs.

    Raises `UserError` if the name means no model, with the nearest name and a list of the runs, or
    if the name means two models.
    """
    if isinstance(name, Path):
        return _folder(name)
    if not name:
        raise UserError(f"the name of a run is empty; {_hint(Path(out_dir))}")
    here, there = Path(name), Path(out_dir) / name
    if os.path.lexists(here) and (there == here or os.path.dirname(name)):
        return _folder(here)  # a path that exists is neither a run's name nor a hub name
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
        return without_link(found[0])
    owner = os.path.dirname(name)
    group = bool(owner) and bool(runs(Path(out_dir, owner)) or steps(Path(out_dir, owner)))
    misspelt = os.path.isdir(owner) or group or owner == str(out_dir)  # a path, not a hub name
    if huggingface.is_hub_name(name) and not misspelt:
        return name
    if os.path.lexists(there):
        return _folder(there)
    if os.path.lexists(here):
        return _folder(here)
    parent = Path(owner) if owner else Path(out_dir)
    if not owner or parent == Path(out_dir):
        raise UserError(f"no run {here.name!r} in {parent}; {_hint(parent, here.name)}")
    if not parent.is_dir():  # `parent` may be a folder of runs in out_dir
        parent = Path(out_dir) / parent
    inside = [str(path.relative_to(parent)) for path in (*runs(parent), *steps(parent))]
    near = difflib.get_close_matches(here.name, inside, n=1)
    raise UserError(
        f"there is no run, checkpoint or model {name}; "
        + (f"did you mean {parent / near[0]}? " if near else "")
        + _hint(Path(out_dir))
    )


def find_run(out_dir: str | Path, name: str | None = None) -> Path:
    """Return the folder of the run that `name` means; None: the run in `out_dir` saved last.

    Raises `UserError` if there is no such run.
    """
    if name is None:
        if not (found := runs(Path(out_dir))):
            raise UserError(f"no run in {out_dir} yet; {_hint(Path(out_dir))}")
        return max(found, key=lambda path: steps(path)[-1].stat().st_mtime)
    if name in huggingface.HUB_NAMES and steps(Path(out_dir) / name):
        return Path(out_dir) / name  # a name on the hub does not name a run
    run = find(name, out_dir)
    if isinstance(run, str):
        raise UserError(f"no run {name!r} in {out_dir}; {_hint(Path(out_dir), name)}")
    if not steps(run):
        inside = is_checkpoint(run) and steps(run.absolute().parent)
        hint = f"name its run: {run.parent}" if inside else _hint(Path(out_dir))
        kind = "checkpoint" if is_checkpoint(run) else "model"
        raise UserError(f"{run} is a {kind}, not a run; {hint}")
    return run


def runs(out_dir: Path) -> list[Path]:
    """Return the folders in `out_dir`, one or two levels deep, that hold checkpoints."""
    if not os.path.isdir(out_dir):
        return []
    inside = {path.parent for path in out_dir.glob("*/*/step-*")}
    return sorted(path for path in {*out_dir.glob("*"), *inside} if steps(path))


def _holds_model(folder: Path) -> bool:
    models = ("config.json", "adapter_config.json")
    return bool(steps(folder)) or is_checkpoint(folder) or _has(folder, *models)


def _folder(path: Path) -> Path:
    """Return the path, without a link `best`. Raises `UserError` if no model is there."""
    path = without_link(path)
    if _holds_model(path):
        return path
    if not os.path.lexists(path):
        raise UserError(
            f"there is no folder {path}; give the folder of a run, a checkpoint or a model"
        )
    if not os.path.isdir(path):
        raise UserError(f"{path} is a file; give the folder of a run, a checkpoint or a model")
    if inside := runs(path):
        raise UserError(f"{path} is a folder of runs; give one of them: {_listed(inside, str)}")
    raise UserError(
        f"{path} holds no model: no step-… folder, no config.json; {_hint(path.parent)}"
    )


def _hint(out_dir: Path, name: str = "") -> str:
    """Return the end of an error about a missing run: the nearest name, and all runs."""
    found = runs(out_dir)
    if not found:
        return f"train one: {command('train')}"
    names = {path: str(path.relative_to(out_dir)) for path in found}
    near = difflib.get_close_matches(name, names.values(), n=1)
    listed = f"runs there: {_listed(found, names.__getitem__)}"
    return f"did you mean {near[0]}? {listed}" if near else listed


def _listed(paths: list[Path], form: Callable[[Path], str], limit: int = 12) -> str:
    names = [form(path) for path in paths]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" * (len(names) > limit))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _val_loss(path: Path) -> float:
    try:
        state = parse_json(read_file(path / "state.json", MAX_JSON), "")
        return float(state.get("val_loss", "inf"))
    except (UserError, ValueError, TypeError):
        return float("inf")


def files_of_model(
    model: GPT, tokenizer: Tokenizer, companions: Companions
) -> dict[str, bytes | Mapping[str, Tensor]]:
    """Return the content of each file of a model in Hugging Face's format, by its name."""
    return {
        "config.json": _config(model, tokenizer, companions),
        "model.safetensors": huggingface.to_hugging_face(model),
    }


def _config(model: GPT, tokenizer: Tokenizer, companions: Companions) -> bytes:
    dtype = next(model.parameters()).dtype
    config = write_config(model.config, tokenizer.end_of_text, dtype)
    return _json({**config, **companions.kept})


def files_of_tokenizer(
    model: GPT, tokenizer: Tokenizer, companions: Companions
) -> dict[str, bytes | Mapping[str, Tensor]]:
    """Return the content of each file of a tokenizer, and of the model's companions."""
    end = tokenizer.controls[tokenizer.end_of_text]
    config = _json(huggingface.tokenizer_config(model.config.block_size, end))
    content = tokenizer_files.to_json(tokenizer)
    return {"tokenizer.json": content, "tokenizer_config.json": config, **companions.files}


def _json(value: Any) -> bytes:
    return (to_json(value, indent=2) + "\n").encode()


def write_file(path: Path, content: bytes | Mapping[str, Tensor]) -> FileDigest:
    """Write a new file, and flush it to the disk. Raises `OSError`, also if the file exists."""
    if not isinstance(content, bytes):
        return safetensors_file.write(path, content)
    with path.open("xb") as file:
        file.write(content)
        disk.flush(file)
    return _digest(content)
