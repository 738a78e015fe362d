"""Fit a batch into memory by cutting it into micro-batches; keep a small model's memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from minigen.errors import UserError
from minigen.run import distributed
from minigen.system.device import LOGITS_BYTES, disable_malloc_trim

if TYPE_CHECKING:
    from train import TrainConfig


# With fewer parameters than these the process keeps the memory that a step frees, so that the next
# step is faster. With more parameters, a step takes long anyway, and memory is scarce.
MAX_TO_KEEP_MEMORY = 2**22


def keep_freed_memory(n_parameters: int) -> None:
    """Keep the memory that a step frees for the next step, if the model is small."""
    if n_parameters < MAX_TO_KEEP_MEMORY:
        disable_malloc_trim()


def count_micro_batches(config: TrainConfig, n_vocab: int) -> int:
    """Return the number of micro-batches: the least that keeps their logits within `LOGITS_BYTES`.

    The logits, (sequences, tokens, vocabulary) in float32, can take more memory than the model.
    All ranks have to compute the same number of micro-batches, so the total is a multiple of the
    number of ranks, even if --gradient_accumulation_steps is not.

    Raises `UserError` if there are more micro-batches than sequences in a batch.
    """
    number, n_ranks = config.gradient_accumulation_steps, distributed.size()
    if number is None:
        n_bytes = config.block_size * n_vocab * torch.float32.itemsize  # of one sequence
        n_rows = max(1, LOGITS_BYTES[torch.device(config.device).type] // n_bytes)
        number = math.ceil(config.batch_size / n_rows)
    number = math.ceil(number / n_ranks) * n_ranks
    if number > config.batch_size:
        raise UserError(
            f"--batch_size {config.batch_size} is too small for {number} micro-batches on "
            f"{n_ranks} processes; give a larger one, or start fewer processes"
        )
    return number


def count_finer(config: TrainConfig, number: int) -> int:
    """Return a larger number of micro-batches, to try after memory ran out with `number`.

    Raises `UserError` if a micro-batch of one sequence was too large already, and with several
    ranks: the other ranks wait for this one's gradient, so it cannot compute the batch again.
    """
    finer = 2 * number
    if distributed.size() > 1:
        raise UserError(f"out of memory; give --gradient_accumulation_steps {finer}")
    if finer > config.batch_size:
        raise UserError("one sequence does not fit into memory; lower --block_size or --size")
    return finer
