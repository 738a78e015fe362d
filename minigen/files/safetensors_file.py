"""A .safetensors file: read or written a tensor at a time, and believed only after it is checked.

    8 bytes   the length of the header, little-endian
    header    JSON: {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
    data      the tensors' bytes, one behind the other

https://github.com/huggingface/safetensors#format. That library checks the structure, but not the
content, does not flush to the disk, and maps files into memory, where one that shrinks ends the
process. So here a file is hashed while it is written and while it is read, and read plainly.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigen.errors import UserError
from minigen.system.disk import flush

# How such a file calls the formats of numbers.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
    "I16": torch.int16, "I8": torch.int8, "U16": torch.uint16, "U32": torch.uint32,
    "U64": torch.uint64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu, "C64": torch.complex64,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Room for some 10,000 tensors. JSON made for that takes up to 40 times as much memory when read.
MAX_HEADER = 1 << 20
PIECE = 1 << 23  # bytes that are hashed, written or read at once
LAG = 16  # pieces that may wait to be hashed, and be in memory for that, while a file is written


@dataclass(frozen=True)
class Fact:
    """What a file is known by."""

    bytes: int
    sha256: str


class TensorFile:
    """A file that is open for reading, its header checked. `UserError` names what is wrong with it.

    Nothing is allocated for the tensors until one is read, so `shapes` can be judged before.
    """

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self.path = path
        try:
            if path.exists() and not path.is_file():  # as in `read_file`
                raise ValueError("it is not a file")
            self.file = stack.enter_context(path.open("rb"))
            self.size = os.fstat(self.file.fileno()).st_size
            self.start = self.file.read(8)
            n_header = int.from_bytes(self.start, "little")
            if n_header > min(self.size - 8, MAX_HEADER):
                raise ValueError(f"its header has {n_header} bytes, of {self.size} in all")
            self.start += self.file.read(n_header)
            header = json.loads(self.start[8:], object_pairs_hook=_no_duplicates)
            header.pop("__metadata__", None)
            self.facts = _laid_out(header, self.size - len(self.start))
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}; restore or replace it"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged or no safetensors file: {plain(error)}; restore or replace it"
            ) from None
        self.shapes = {name: tuple(fact["shape"]) for name, fact in self.facts.items()}

    def read(self, name: str) -> Tensor:
        """One tensor."""
        tensor, pieces = self._read(name)
        for _ in pieces:
            pass
        return tensor

    def read_all(self) -> tuple[dict[str, Tensor], Fact]:
        """All tensors, and what the file is known by: made of the very bytes that they consist of.

        A thread hashes what was read, while this one reads on.
        """
        digest, tensors = hashlib.sha256(self.start), {}
        with ThreadPoolExecutor(1) as hasher:
            for name in self.facts:
                tensors[name], pieces = self._read(name)
                for piece in pieces:
                    hasher.submit(digest.update, piece)
        return tensors, Fact(self.size, digest.hexdigest())

    def _read(self, name: str) -> tuple[Tensor, Iterator[memoryview]]:
        """A tensor, and the pieces of its memory, which is filled as they are asked for."""
        fact = self.facts[name]
        begin, end = fact["data_offsets"]
        dtype, shape = DTYPES[fact["dtype"]], fact["shape"]
        if begin == end:
            return torch.empty(shape, dtype=dtype), iter(())
        try:
            # Pages of its own, which go back to the system at once when a tensor was only needed to
            # be transposed; between others on the heap, it would leave a hole.
            memory = mmap.mmap(-1, end - begin)
        except OSError:
            raise UserError(f"{self.path} does not fit into memory") from None
        if hasattr(mmap, "MADV_HUGEPAGE"):  # fewer and larger pages are faster to get
            with contextlib.suppress(OSError):  # advice, which a kernel without such pages refuses
                memory.madvise(mmap.MADV_HUGEPAGE)
        tensor = torch.frombuffer(memory, dtype=dtype).view(shape)
        return tensor, self._fill(memoryview(memory), len(self.start) + begin)

    def _fill(self, memory: memoryview, place: int) -> Iterator[memoryview]:
        try:
            self.file.seek(place)
            for at in range(0, len(memory), PIECE):
                piece = memory[at : at + PIECE]
                if self.file.readinto(piece) < len(piece):
                    raise UserError(
                        f"{self.path} was cut short while it was read; restore or replace it"
                    )
                yield piece
        except OSError as error:
            raise UserError(
                f"cannot read {self.path}: {error.strerror}; restore or replace it"
            ) from None


def write(path: Path, tensors: Mapping[str, Tensor]) -> Fact:
    """Write tensors to a new file, and flush it to the disk; raises `OSError`.

    Each is made contiguous and brought to the CPU when it is its turn. A thread hashes what this
    one writes and flushes, so neither waits long for the other.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # which transformers insists on
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise UserError(f"cannot save {path}: {len(tensors):,} tensors are too many")
    digest, waiting, unflushed = hashlib.sha256(), deque[Future[None]](), 0
    with path.open("xb") as file, ThreadPoolExecutor(1) as hasher:
        for piece in _pieces(len(text).to_bytes(8, "little") + text, (tensors[n] for n in names)):
            waiting.append(hasher.submit(digest.update, piece))
            file.write(piece)
            unflushed += len(piece)
            if unflushed >= 8 * PIECE:  # while the disk is busy, so is the other thread
                flush(file)
                unflushed = 0
            if len(waiting) > LAG:
                waiting.popleft().result()
        flush(file)
    return Fact(8 + len(text) + end, digest.hexdigest())


def _pieces(start: bytes, tensors: Iterator[Tensor]) -> Iterator[bytes | memoryview]:
    yield start
    for tensor in tensors:
        if tensor.numel():
            plain = tensor.detach().cpu().contiguous().view(-1)
            memory = memoryview(plain.view(torch.uint8).numpy().data)
            yield from (memory[at : at + PIECE] for at in range(0, len(memory), PIECE))


def read_file(path: Path, most: int) -> bytes:
    """The content of a small file; `UserError` if it cannot be read, or has more than `most` bytes.

    A pipe, which would be waited for, and a device, which never ends, are no files.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read {path}: it is not a file; restore or replace it")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; restore or replace it") from None
    if len(content) > most:
        raise UserError(f"{path} has more than {most:,} bytes; that is none; restore or replace it")
    return content


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object; `UserError` that begins with `where` if it is none, or names a key twice."""
    try:
        value = json.loads(content, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise UserError(f"{where} is damaged: it is not JSON; restore or replace it") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is damaged: it is not a JSON object; restore or replace it")
    return value


def plain(text: object) -> str:
    """A stranger's words as part of one line: short, and without what a terminal would obey."""
    shown = ascii(str(text))[1:-1]
    return shown if len(shown) <= 100 else f"{shown[:100]}..."


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _laid_out(header: Mapping[str, Any], n_bytes: int) -> dict[str, dict[str, Any]]:
    """The header in the order of the data, of which it must name each byte once."""
    facts = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    end = 0
    for name, fact in facts:
        (begin, stop), shape, dtype = fact["data_offsets"], fact["shape"], fact["dtype"]
        if dtype not in DTYPES:
            raise ValueError(f"{plain(name)} has the format {plain(dtype)}")
        if any(type(n) is not int or not 0 <= n < 2**62 for n in (begin, stop, *shape)):
            raise ValueError(f"{plain(name)} has no size")
        if (
            len(shape) > 8
            or begin != end
            or stop - begin != math.prod(shape) * DTYPES[dtype].itemsize
        ):
            raise ValueError(f"the place of {plain(name)} is wrong")
        end = stop
    if end != n_bytes:
        raise ValueError(f"it has {n_bytes} bytes of data, not {end}")
    return dict(facts)
