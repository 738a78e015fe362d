"""The device that computes: its choice, its number format, and its memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import sys
import time
from collections.abc import Iterable

import torch
from torch import Tensor

from minigen.errors import UserError
from minigen.system.threads import threads

# The most bytes that the float32 logits of one forward pass may take, by device. A larger batch is
# computed in micro-batches, which is as fast.
LOGITS_BYTES = {"cpu": 2**28, "mps": 2**30, "cuda": 2**32}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of this name; for "auto", the first of cuda, mps and cpu that is available.

    Raises `UserError` if there is no such device, or if this machine does not have it.
    """
    is_available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, has in is_available.items() if has))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is not a device; choose auto, cuda, mps or cpu") from None
    if not is_available.get(device.type, False):
        available = ", ".join(kind for kind, has in is_available.items() if has)
        raise UserError(f"--device {name} is not on this machine; it has: {available}")
    return device


def choose_dtype(name: str, device: torch.device) -> str:
    """Return the number format of this name; for "auto", the fastest one on the device.

    That is "bfloat16" where the hardware multiplies bfloat16 faster than float32; else "float32".
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        fast = has and cpu_gains_from_bfloat16()
    else:
        fast = False
    return "bfloat16" if fast else "float32"


@functools.cache
def cpu_gains_from_bfloat16() -> bool:
    """Return whether this processor multiplies matrices in bfloat16 faster than in float32.

    Having the instructions does not decide it: with those of AVX-512, an AMD EPYC gains, and an
    Intel Xeon takes twice as long as in float32 (docs/notebook.md). So one product is timed in both
    formats, in turns, and the shortest times count: other programs can only lengthen a time. One
    thread computes, because several wait for each other where other programs are busy.
    """
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    with threads.kept():
        threads.fix(1)
        for _ in range(10):
            for dtype, shortest in seconds.items():
                x, weight = torch.ones(256, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
                began = time.perf_counter()
                torch.nn.functional.linear(x, weight)
                seconds[dtype] = min(shortest, time.perf_counter() - began)
    return seconds[torch.bfloat16] < seconds[torch.float32]


def autocast(device: str, dtype: str) -> contextlib.AbstractContextManager[None]:
    """Return a context in which matrix products are computed in `dtype`; the weights keep theirs.

    For "float32" the context does nothing.
    """
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, getattr(torch, dtype))


def disable_malloc_trim() -> None:
    """Let this process keep the memory that it frees, so that the next step can use it at once.

    Linux's C library returns large blocks to the system. The system then hands out new blocks page
    by page, and fills each page with zeros: a fifth of the time of a small model's step on a CPU.
    With another C library this does nothing.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # the values in glibc's malloc.h
    with contextlib.suppress(AttributeError, TypeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def use_large_pages(tensors: Iterable[Tensor]) -> None:
    """Let Linux move tensors on the CPU to pages of 2 MB; their numbers and addresses stay.

    A processor looks the place of each page up, and by itself fetches ahead only within a page. So
    it reads weights up to a fifth faster from large pages (docs/notebook.md). By default, many
    systems use pages of 4 KB. Linux before 6.1 and other systems leave the tensors where they are.
    """
    size, madv_collapse = 2 << 20, 25  # the value in Linux's mman.h
    numbers = {
        number
        for tensor in tensors
        for number in range(
            tensor.data_ptr() // size, (tensor.data_ptr() + tensor.nbytes) // size + 1
        )
    }
    if sys.platform == "linux":
        madvise = ctypes.CDLL(None).madvise
        for number in sorted(numbers):  # one by one, as a page may be impossible to move
            madvise(ctypes.c_void_p(number * size), ctypes.c_size_t(size), madv_collapse)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error of PyTorch means that memory has run out.

    CUDA has its own class of exception; on a CPU and on "mps" only the message says it.
    """
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in str(error)
        or "can't allocate memory" in str(error)
    )
