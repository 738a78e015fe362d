"""Compile a model with torch.compile, where the run is long enough to repay it."""

from __future__ import annotations

import contextlib
import shutil
import sys

import torch
from torch import Tensor

from minigen.model import GPT
from minigen.system.device import autocast


def compiling_pays(device: str, seconds: float) -> bool:
    """Return whether a run of `seconds` is long enough to earn back the time of compiling."""
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
        with autocast(str(ids.device), dtype):
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


def eager(is_compiled: bool) -> contextlib.AbstractContextManager[None]:
    """Return a context in which a compiled model runs without its compiled code.

    Compiled code is made for one shape of a batch, and evaluation has others.
    """
    if not is_compiled:
        return contextlib.nullcontext()  # the compiler takes a second to import
    context: contextlib.AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return context
