"""Fit a batch into memory: into how many micro-batches it is cut."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from minigen.errors import UserError
from minigen.run import distributed
from minigen.system.device import LOGITS_BYTES

if TYPE_CHECKING:
    from train import TrainConfig


def count_micro_batches(config: TrainConfig, n_vocab: int) -> int:
    """Return the number of micro-batches: as few as keep the logits of each within `LOGITS_BYTES`.

    Logits can take more memory than the model. Each rank computes equally many micro-batches, so
    their number, given or not, is a multiple of the number of ranks.

    Raises `UserError` if there are more micro-batches than sequences in a batch.
    """
    number, n_ranks = config.gradient_accumulation_steps, distributed.size()
    if not number:
        n_bytes = config.block_size * n_vocab * torch.float32.itemsize  # of one sequence
        n_rows = max(1, LOGITS_BYTES[torch.device(config.device).type] // n_bytes)
        number = math.ceil(config.batch_size / n_rows)
    number = math.ceil(number / n_ranks) * n_ranks
    if number > config.batch_size:
        raise UserError(
            f"--batch_size {config.batch_size} is too small for {number} micro-batches, equally "
            f"many for each of {n_ranks} processes; give a larger one, or start fewer"
        )
    return number


def count_finer(config: TrainConfig, number: int) -> int:
    """Return the number of micro-batches to try after `number` of them ran out of memory.

    Raises `UserError` if there is none, or if other ranks already wait for this micro-batch.
    """
    finer = 2 * number
    if distributed.size() > 1:
        raise UserError(f"out of memory; give --gradient_accumulation_steps {finer}")
    if finer > config.batch_size:
        raise UserError("not one sequence fits into memory; give a smaller --block_size or --size")
    return finer
