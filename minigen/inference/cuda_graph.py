"""Decoding on an NVIDIA GPU: the kernels of one step are captured as a CUDA graph, then replayed.

One new token is so little work that a GPU finishes a kernel before Python has launched the next,
and waits. A CUDA graph holds all kernels of a step with their arguments; one call launches them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from minigen.model import GPT, KVCache

# Decoding steps on a cache before its graph is captured. They make CUDA load the kernels, as a
# capture requires; and for a shorter text a capture would not pay off.
FIRST_STEPS = 4


def capture(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Capture `step` as a CUDA graph. Return a function that replays it, and its output tensor.

    A replay reads and writes the same tensors as the captured step, so its inputs are copied into
    these tensors first, and each replay overwrites the output.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, result


class GraphDecoder:
    """A `GPT` in evaluation mode for `generate`: (ids (B, T), cache, at (B,)) -> logits (B, 1, V).

    A graph belongs to one cache, because it holds the addresses of the cache's tensors. Each step
    overwrites the logits of the step before. Where CUDA captures no graph, one warning is printed,
    and the model computes each step by itself.
    """

    def __init__(self, model: GPT) -> None:
        self.model, self.config = model, model.config
        # Addresses and shape of the current cache.
        self.cache: tuple[int, int, torch.Size] | None = None
        self.n_steps = 0  # decoding steps on this cache
        self.ids = self.logits = torch.empty(0)  # the tensors that the graph reads and writes
        self.replay: Callable[[], None] | None = None
        self.can_capture = True

    @torch.no_grad()
    def __call__(self, ids: Tensor, cache: KVCache, at: Tensor) -> Tensor:
        if ids.shape[1] > 1:
            logits: Tensor = self.model(ids, cache, at)
            return logits
        identity = (cache.kv.data_ptr(), cache.lengths.data_ptr(), cache.kv.shape)
        if identity != self.cache:
            self.cache, self.n_steps, self.replay = identity, 0, None
        self.n_steps += 1
        if self.replay is None and self.n_steps > FIRST_STEPS and self.can_capture:
            self.ids = ids.clone()
            try:
                self.replay, self.logits = capture(lambda: self.step(self.ids, cache))
            except (
                RuntimeError
            ) as error:  # not each driver can capture; then the model itself computes
                self.can_capture = False
                print(f"warning: no CUDA graph ({str(error).splitlines()[0]})", file=sys.stderr)
        if self.replay is None:
            return self.step(ids, cache)
        self.ids.copy_(ids)
        self.replay()
        return self.logits

    def step(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Return the logits (B, 1, V) after one new token of each row, ids (B, 1)."""
        # Attend over the whole capacity of the cache; the mask hides its empty part. So the
        # shapes never change, as a graph requires, and the CPU need not wait to learn the lengths.
        logits: Tensor = self.model(ids, cache, kv_len=cache.capacity)
        return logits
