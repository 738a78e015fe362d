"""Time a training step before a run begins, to plan what fits into its time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from minigen.data import Mixture, Pairs, TokenStream
from minigen.data.batches import Batch
from minigen.loss import next_token_loss
from minigen.model import GPT
from minigen.optim import Optimizer
from minigen.run import distributed
from minigen.system.device import autocast

if TYPE_CHECKING:
    from train import TrainConfig


def first_micro_batch(
    tokens: TokenStream | Pairs | Mixture, config: TrainConfig, n_micro_batches: int
) -> Batch:
    """Return a micro-batch, on the device of the run."""
    rows = np.arange(config.batch_size // n_micro_batches)
    return tokens.batch(config.seed, rows, config.block_size).to(config.device)


def seconds_of_step(
    model: GPT,
    tokens: TokenStream | Pairs | Mixture,
    config: TrainConfig,
    n_micro_batches: int,
    optimizer: Optimizer | None = None,
) -> float:
    """Return the seconds of a step, from the time of one micro-batch; no weight changes.

    Args:
        optimizer: takes a step of length 0, which is timed, too; None: its step is left out.
    """
    x, y, begins = first_micro_batch(tokens, config, n_micro_batches)
    began = time.perf_counter()
    with autocast(config.device, config.dtype):
        logits = model(x, begins=begins)
    loss = next_token_loss(logits, y)
    loss.backward()  # type: ignore[no-untyped-call]
    loss.item()  # waits for a GPU
    seconds = n_micro_batches / distributed.size() * (time.perf_counter() - began)
    if optimizer is None:
        model.zero_grad(set_to_none=True)
        return seconds
    began = time.perf_counter()
    optimizer.step(0.0)
    return seconds + time.perf_counter() - began
