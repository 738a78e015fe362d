"""The files of a model's weights: find and read the files that transformers would read."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minigen.errors import UserError
from minigen.files.safetensors_file import TensorFile, parse_json, plain, read_file

# In transformers' order: only the first of these files that exists is read.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
MAX_INDEX = 1 << 20  # bytes
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Weights:
    """Tensors by name; their shapes are known before a tensor is read."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor]
    ) -> None:
        self.shapes, self.read = shapes, read


def open_weights(folder: Path, stack: contextlib.ExitStack) -> Weights:
    """Open the weights of a folder: one file or several with an index, of safetensors or PyTorch.

    Args:
        stack: closes the files.

    Raises `UserError` that names the file or tensor that is missing, damaged or duplicated.
    """
    for name in NAMES:
        path = folder / name
        if path.is_file():
            return _open_index(path, stack) if name.endswith(".json") else open_file(path, stack)
    if pieces := sorted(path.name for path in folder.glob("*-of-*.*") if path.is_file()):
        index = NAMES[1] if pieces[0].endswith(".safetensors") else NAMES[3]
        raise UserError(
            f"{folder} has {plain(pieces[0])}, but no {index}, which lists the pieces; download "
            "it too"
        )
    raise UserError(f"{folder} has no weights: no {NAMES[0]}, no {NAMES[2]}; download them")


def open_file(path: Path, stack: contextlib.ExitStack) -> Weights:
    """Open one file of safetensors or, by its name, of PyTorch. `UserError` if it is damaged."""
    if path.name.endswith(".safetensors"):
        file = TensorFile(path, stack)
        return Weights(file.shapes, file.read)
    return _open_pickle(path)


def _open_index(path: Path, stack: contextlib.ExitStack) -> Weights:
    """Open the files that an index names. Each tensor is read from the file that has it."""
    weight_map = parse_json(read_file(path, MAX_INDEX), str(path)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path} is damaged: it has no weight_map; download it again")
    names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if Path(name).name != name or not name.endswith((".safetensors", ".bin")):
            raise UserError(
                f"{path} names '{plain(name)}', which is not a file of weights in its folder; "
                "download the index again"
            )
    parts = [(name, open_file(path.parent / name, stack)) for name in names]
    weights = _together(parts, path)
    if absent := sorted(weight_map.keys() - weights.shapes.keys()):
        raise UserError(
            f"{path} names the tensor {plain(absent[0])}, which is in none of its files; "
            "download them again"
        )
    return weights


def _together(parts: Sequence[tuple[str, Weights]], index: Path) -> Weights:
    home: dict[str, tuple[str, Weights]] = {}
    for file, part in parts:
        for name in part.shapes:
            if name in home:
                raise UserError(
                    f"{plain(name)} is in two files, {plain(home[name][0])} and {plain(file)}; "
                    f"remove the wrong file from {index}"
                )
            home[name] = file, part
    shapes = {name: part.shapes[name] for name, (_, part) in home.items()}
    return Weights(shapes, lambda name: home[name][1].read(name))


def _open_pickle(path: Path) -> Weights:
    """Open a file of PyTorch, which may hold tensors only: `weights_only` runs no code in it."""
    if not path.is_file():
        raise UserError(f"cannot read {path}: the file does not exist; download it again")
    try:
        # Files from before 2020 are not zip archives, and cannot be mapped into memory.
        mapped = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # of many types; each means that the file is not usable
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{path} is damaged or holds more than tensors ({plain(reason)}); take a model with "
            "safetensors"
        ) from None
    if not isinstance(state, dict):
        raise UserError(
            f"{path} holds a {type(state).__name__}, not tensors by name; save the model's "
            "state_dict()"
        )
    for name, tensor in state.items():
        usable = (
            isinstance(name, str)
            and isinstance(tensor, Tensor)
            and tensor.layout == torch.strided
            and tensor.device.type == "cpu"
            and not tensor.is_quantized
        )
        if not usable:
            raise UserError(
                f"{path}: {plain(name)} is not a plain tensor; save only the model's state_dict()"
            )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return Weights(shapes, lambda name: state[name].detach().clone())


def to_float(tensor: Tensor, name: str, where: str) -> Tensor:
    """Return a tensor of finite floating-point numbers as it is.

    Raises `UserError` if it is quantised, or has NaN or an infinity: PyTorch's attention on CPUs
    computes numbers from such weights that look right.

    Args:
        name: the tensor's name, for an error.
        where: the file or folder, for an error.
    """
    if tensor.dtype not in FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(
            f"{where}: {plain(name)} is {kind}; minigen computes with float32, bfloat16 and "
            "float16: take the model that is not quantised"
        )
    if tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
        raise UserError(
            f"{where}: {plain(name)} is not finite: the weights are broken; take another copy"
        )
    return tensor
