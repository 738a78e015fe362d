"""The transformer on an NVIDIA GPU, without the CPU: a token's kernels are recorded, then replayed.

For one token more a small GPU kernel is done before Python has asked for the next: the GPU waits.
A CUDA graph holds all kernels of a step with their arguments, and starts with one call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from minigen.model import GPT, KVCache

# Steps on a cache before it is recorded: they bring the kernels up, and short texts need no graph.
FIRST_STEPS = 4


def record(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What does the same step again, and the tensor in which its result then is."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, result


class GraphDecoder:
    """A `GPT` in evaluation mode for `generate`: (ids (B, T), cache, at (B,)) -> (B, 1, V).

    A graph fits one cache, because it knows its tensors by their addresses. The result of a step
    is overwritten by the next.
    """

    def __init__(self, model: GPT) -> None:
        self.model, self.config = model, model.config
        self.cache: tuple[int, int, torch.Size] | None = None  # that the steps below belong to
        self.n_steps = 0
        self.ids = self.logits = torch.empty(0)  # where a graph reads and writes
        self.replay: Callable[[], None] | None = None
        self.can_record = True

    @torch.no_grad()
    def __call__(self, ids: Tensor, cache: KVCache, at: Tensor) -> Tensor:
        if ids.shape[1] > 1:
            logits: Tensor = self.model(ids, cache, at)
            return logits
        same = (cache.kv.data_ptr(), cache.lengths.data_ptr(), cache.kv.shape)
        if same != self.cache:
            self.cache, self.n_steps, self.replay = same, 0, None
        self.n_steps += 1
        if self.replay is None and self.n_steps > FIRST_STEPS and self.can_record:
            self.ids = ids.clone()
            try:
                self.replay, self.logits = record(lambda: self.step(self.ids, cache))
            except RuntimeError as error:  # whatever a driver cannot do: slower, but the same
                self.can_record = False
                print(f"warning: no CUDA graph ({str(error).splitlines()[0]})", file=sys.stderr)
        if self.replay is None:
            return self.step(ids, cache)
        self.ids.copy_(ids)
        self.replay()
        return self.logits

    def step(self, ids: Tensor, cache: KVCache) -> Tensor:
        # All of the cache is in sight, and the mask hides what is empty: shapes never change, and
        # the CPU need not wait for the GPU to learn how long the texts are. No `at`: T is 1.
        logits: Tensor = self.model(ids, cache, kv_len=cache.capacity)
        return logits
