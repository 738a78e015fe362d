"""Where the arithmetic runs: the device, its number format, and whether compiling pays."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import sys

import torch
from torch import Tensor

from minigen.errors import UserError
from minigen.model import GPT


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


def arithmetic(device: str, dtype: str) -> contextlib.AbstractContextManager[None]:
    """A context in which matrix products run in `dtype`, while the weights stay as they are."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, getattr(torch, dtype))


def keep_memory() -> None:
    """Let this process keep the memory that it frees, so that the next step finds it at once.

    Linux's C library gives large blocks back to the system, which hands out new ones page by page,
    each filled with zeros: a fifth of the time that a small model's step takes on a CPU.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # as malloc.h has them
    with contextlib.suppress(AttributeError, TypeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def compiling_pays(device: str, seconds: float) -> bool:
    """Whether a run of `seconds` is long enough to earn back the time that compiling takes."""
    kind = torch.device(device).type
    has_compiler = kind == "cuda" or any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    return kind != "mps" and has_compiler and seconds >= 240


def compile_blocks(model: GPT, ids: Tensor, dtype: str) -> bool:
    """Compile the model block by block (all share one piece of code) and try it on ids (B, T).

    A failure is one warning, and the model is as before.
    """
    try:
        for block in model.blocks:
            block.compile(dynamic=False)
        with arithmetic(str(ids.device), dtype):
            loss = model(ids).float().logsumexp(-1).mean()
        loss.backward()
        return True
    except Exception as error:  # whatever a compiler can do wrong: the run goes on without it
        for block in model.blocks:
            block._compiled_call_impl = None
        reason = str(error).splitlines()[0]
        print(
            f"warning: torch.compile failed ({reason[:100]}); going on without it",
            file=sys.stderr,
        )
        return False
    finally:
        model.zero_grad(set_to_none=True)


def as_written(compiled: str) -> contextlib.AbstractContextManager[None]:
    """A context in which a compiled model runs as it was written, for shapes that change."""
    if compiled != "yes":
        return contextlib.nullcontext()  # the compiler takes a second to import
    context: contextlib.AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return context


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an exception of its own for it; CPUs and Macs only a text."""
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in str(error)
        or "can't allocate memory" in str(error)
    )
