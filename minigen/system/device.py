"""Where the arithmetic runs: the device, its number format, and its memory."""

from __future__ import annotations

import contextlib
import ctypes

import torch

from minigen.errors import UserError

# The most bytes that the float32 logits of one forward pass may take, by device: a larger batch is
# computed part by part, which is as fast.
LOGITS_BYTES = {"cpu": 2**28, "mps": 2**30, "cuda": 2**32}


def choose_device(name: str = "auto") -> torch.device:
    """The named device, or the fastest here. `UserError` if the named one is not here."""
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, here in found.items() if here))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is not a device; choose auto, cuda, mps or cpu") from None
    if not found.get(device.type, False):
        here = ", ".join(kind for kind, is_here in found.items() if is_here)
        raise UserError(f"--device {name} is not on this machine; it has: {here}")
    return device


def choose_dtype(name: str, device: torch.device) -> str:
    """bfloat16 where the hardware multiplies it (elsewhere it is slow), or as named."""
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        fast = False
    return "bfloat16" if fast else "float32"


def autocast(device: str, dtype: str) -> contextlib.AbstractContextManager[None]:
    """A context in which matrix products run in `dtype`, while the weights stay as they are."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, getattr(torch, dtype))


def disable_malloc_trim() -> None:
    """Let this process keep the memory that it frees, so that the next step finds it at once.

    Linux's C library gives large blocks back to the system, which hands out new ones page by page,
    each filled with zeros: a fifth of the time that a small model's step takes on a CPU.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # as malloc.h has them
    with contextlib.suppress(AttributeError, TypeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an exception of its own for it; CPUs and Macs only a text."""
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in str(error)
        or "can't allocate memory" in str(error)
    )
