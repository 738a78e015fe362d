"""Compile a model with torch.compile, if the run is long enough to earn back the time."""

from __future__ import annotations

import contextlib
import shutil
import sys

import torch

from minigen.data.batches import Batch
from minigen.model import GPT
from minigen.system.device import autocast


def has_cpp_compiler() -> bool:
    """Return whether there is a compiler that `torch.compile` can use on a CPU."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def compiling_pays(device: str, dropout: float, seconds: float) -> bool:
    """Return whether a run of `seconds` is long enough to earn back the time of compiling.

    On a CPU that needs a C++ compiler, too, and no dropout, which is slower in compiled code. On
    "mps" nothing is compiled.
    """
    kind = torch.device(device).type
    is_faster = kind == "cuda" or (kind == "cpu" and has_cpp_compiler() and not dropout)
    return is_faster and seconds >= 240


def compile_blocks(model: GPT, batch: Batch, dtype: str) -> bool:
    """Compile each block of the model, and try it on a batch; return whether that succeeded.

    Blocks have equal shapes, so the compiler generates code once and all blocks run it. If it
    fails, one warning says so, and the model runs without compiled code.
    """
    try:
        for block in model.blocks:
            block.compile(dynamic=False)
        with autocast(str(batch.x.device), dtype):
            loss = model(batch.x, begins=batch.begins).float().logsumexp(-1).mean()
        loss.backward()
        return True
    except Exception as error:  # a compiler can fail in any way, and training does not need it
        for block in model.blocks:
            block._compiled_call_impl = None  # undo `block.compile`
        reason = str(error).splitlines()[0]
        print(
            f"warning: torch.compile failed ({reason[:100]}); training continues without it",
            file=sys.stderr,
        )
        return False
    finally:
        model.zero_grad(set_to_none=True)


def eager(is_compiled: bool) -> contextlib.AbstractContextManager[None]:
    """Return a context in which a compiled model runs without its compiled code.

    Compiled code is made for one batch shape. Evaluation has other shapes, and each of them would
    be compiled anew.
    """
    if not is_compiled:
        return contextlib.nullcontext()  # because the import of the compiler takes a second
    context: contextlib.AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return context
