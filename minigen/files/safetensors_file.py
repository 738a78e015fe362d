"""Read and write .safetensors files, a tensor at a time, with checks and SHA-256.

    8 bytes   the length of the header, little-endian
    header    JSON: {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
    data      the bytes of the tensors, one after another

https://github.com/huggingface/safetensors#format. The library safetensors checks the header but not
the data, does not flush to the disk, and maps files into memory: if another process shortens a
mapped file, the reader is killed. So this module hashes a file while it is written and read, and
does not map it.
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

# The names of the number formats in the header.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
    "I16": torch.int16, "I8": torch.int8, "U16": torch.uint16, "U32": torch.uint32,
    "U64": torch.uint64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}  # fmt: skip
if hasattr(torch, "float8_e8m0fnu"):  # since PyTorch 2.7
    DTYPES["F8_E8M0"] = torch.float8_e8m0fnu
NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Enough for 10,000 tensors. A hostile header can take 40 times its length in memory when parsed.
MAX_HEADER = 1 << 20
PIECE = 1 << 23  # bytes that are hashed, written or read at once
# Linux gives large pages only to private memory; Windows has no such distinction.
PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
MAX_WAITING = 16  # pieces in memory that wait to be hashed while a file is written


@dataclass(frozen=True)
class FileDigest:
    """The size and the SHA-256 of a file, as in MANIFEST.json."""

    bytes: int
    sha256: str


class TensorFile:
    """A file that is open for reading, with its header checked.

    No memory is allocated for a tensor until the tensor is read, so `shapes` can be checked before.

    Args:
        path: the file.
        stack: closes the file.

    Raises `UserError` that names the fault in the file.
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
            self.header = _checked_header(header, self.size - len(self.start))
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}; restore or replace it"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged or no safetensors file: {plain(error)}; restore or replace it"
            ) from None
        self.shapes = {name: tuple(entry["shape"]) for name, entry in self.header.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor."""
        tensor, pieces = self._read(name)
        for _ in pieces:
            pass
        return tensor

    def read_all(self) -> tuple[dict[str, Tensor], FileDigest]:
        """Return all tensors, and the digest of the file.

        The digest is computed from the memory of the tensors, not from a second read of the file,
        so it also verifies the read. Another thread computes it, during the read.
        """
        digest, tensors = hashlib.sha256(self.start), {}
        with ThreadPoolExecutor(1) as hasher:
            for name in self.header:
                tensors[name], pieces = self._read(name)
                for piece in pieces:
                    hasher.submit(digest.update, piece)
        return tensors, FileDigest(self.size, digest.hexdigest())

    def _read(self, name: str) -> tuple[Tensor, Iterator[memoryview]]:
        """Return a tensor, and an iterator that reads its memory from the file piece by piece."""
        entry = self.header[name]
        begin, end = entry["data_offsets"]
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        if begin == end:
            return torch.empty(shape, dtype=dtype), iter(())
        try:
            # Each tensor has its own pages, which return to the system as soon as the tensor is
            # freed, for example after it was transposed. On the heap a freed tensor would leave a
            # hole.
            memory = mmap.mmap(-1, end - begin, **PRIVATE)
        except OSError:
            raise UserError(f"{self.path} does not fit into memory") from None
        if hasattr(mmap, "MADV_HUGEPAGE"):  # fewer and larger pages are faster to get
            with contextlib.suppress(OSError):  # a kernel without such pages refuses
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


def write(path: Path, tensors: Mapping[str, Tensor]) -> FileDigest:
    """Write tensors to a new file, flush it to the disk, and return its digest.

    One tensor at a time is made contiguous and copied to the CPU. Another thread computes the
    digest during the write.

    Raises `OSError` if the file exists or cannot be written, and `UserError` for too many tensors.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers requires it
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
            if unflushed >= 8 * PIECE:  # so that the disk and the other thread work together
                flush(file)
                unflushed = 0
            if len(waiting) > MAX_WAITING:
                waiting.popleft().result()
        flush(file)
    return FileDigest(8 + len(text) + end, digest.hexdigest())


def _pieces(start: bytes, tensors: Iterator[Tensor]) -> Iterator[bytes | memoryview]:
    yield start
    for tensor in tensors:
        if tensor.numel():
            plain = tensor.detach().cpu().contiguous().view(-1)
            memory = memoryview(plain.view(torch.uint8).numpy().data)
            yield from (memory[at : at + PIECE] for at in range(0, len(memory), PIECE))


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a small file.

    Raises `UserError` if the file cannot be read or has more than `max_bytes` bytes, and for a pipe
    or a device, whose content may never end.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read {path}: it is not a file; restore or replace it")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; restore or replace it") from None
    if len(content) > max_bytes:
        raise UserError(f"{path} has more than {max_bytes:,} bytes; restore or replace it")
    return content


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object. Raises `UserError` if it is not one, or has a key twice.

    Args:
        where: the file, for an error.
    """
    try:
        value = json.loads(content, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise UserError(f"{where} is damaged: it is not JSON; restore or replace it") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is damaged: it is not a JSON object; restore or replace it")
    return value


def plain(text: object) -> str:
    """Return untrusted text for an error message: one short line without control characters."""
    shown = ascii(str(text))[1:-1]
    return shown if len(shown) <= 100 else f"{shown[:100]}..."


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    as_dict = dict(pairs)
    if len(as_dict) < len(pairs):
        raise ValueError("a name occurs twice")
    return as_dict


def _checked_header(header: Mapping[str, Any], n_bytes: int) -> dict[str, dict[str, Any]]:
    """Return the header in the order of the data.

    Raises `ValueError` if a tensor has a wrong format or size, or if the tensors overlap or do not
    cover the `n_bytes` of the data.
    """
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    end = 0
    for name, entry in entries:
        (begin, stop), shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
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
    return dict(entries)
