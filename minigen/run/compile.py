"""Compile a model with torch.compile, where the run is long enough to repay it."""

from __future__ import annotations

import contextlib
import shutil
import sys

import torch
from torch import Tensor

from minigen.model import GPT
from minigen.system.device import arithmetic


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
