"""Train a transformer on a text: `python train.py`, or `python train.py --data my.txt`.

In reading order: the flags, of which a first reading needs none; `naive_train`, which is all of
training in a few lines; then the three parts of the real loop, which trains on any machine: the
gradient of a batch, the loss on text that the model never trains on, the loop itself. Everything
that keeps a run alive, and is no part of how a model learns, is in minigen/run/: how a run starts
and resumes, signals, memory, disks, the clock. The methods of `run` that the loop calls are in
minigen/run/run.py, in the order of the calls. Tests named in parentheses: tests/test_train.py.
"""

from __future__ import annotations

from minigen.system.early import STARTED  # first: Ctrl-C is quiet while PyTorch is imported

# isort: split

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from minigen import corpora
from minigen.cli import parse
from minigen.data import TokenStream
from minigen.evaluation.text import validation_windows
from minigen.loss import NOT_SCORED, next_token_loss
from minigen.model import GPT
from minigen.optim import Optimizer
from minigen.run import distributed
from minigen.run.run import Run
from minigen.run.start import start
from minigen.system.device import autocast
from minigen.system.places import data_folder
from minigen.system.streams import one_line_errors


@dataclass(frozen=True)
class TrainConfig:
    """Train a transformer on a text. `python train.py` alone trains on short tales."""

    # --- the text ---
    data: tuple[str, ...] = ("tales",)  # files, folders, globs; tales, pictures, tunes, shakespeare
    # Between documents in a file, where \n is a newline; auto: <|endoftext|>, where a file has it;
    # none: a file is one document.
    separator: str | None = corpora.AUTO
    tokenizer: Literal["bpe", "char", "byte", "gpt2"] = "bpe"  # how text is cut into tokens
    vocab_size: int = 2048  # the most tokens that bpe may make
    # --- the model ---
    size: Literal["auto", "tiny", "slim", "mini", "small", "gpt2"] = "auto"  # auto: mini or less
    architecture: Literal["modern", "gpt2"] = "modern"  # the arithmetic of Qwen3 or of GPT-2
    bias: bool = True  # gpt2's matrices and norms have biases; the modern ones never
    n_layer: int = 0  # blocks on top of each other; 0, here and below: as --size says
    n_head: int = 0  # attention heads in each block
    n_embd: int = 0  # width of the residual stream
    block_size: int = 0  # tokens that the model can look back on
    dropout: float | None = None  # none: 0.1 for a short text (0 in a tiny model), else 0
    # --- how long ---
    minutes: float = 0.0  # for the whole command; 0: 2; 3 for pictures or tunes; 6 for both
    max_steps: int = 0  # the number of steps; 0: all that fit into --minutes
    # --- how ---
    batch_size: int = 0  # sequences in a step
    gradient_accumulation_steps: int = 0  # micro-batches; 0: as few as memory takes
    optimizer: Literal["auto", "muon", "adamw"] = "auto"  # auto: muon, or adamw to fine-tune
    lora_rank: int = 0  # to fine-tune: train a LoRA adapter of this rank; 0: all weights
    learning_rate: float = 0.0  # the highest, after warm-up
    warmup_steps: int = 20  # steps until the learning rate is at its highest
    cooldown: float = 0.7  # share of the steps, at the end, over which it falls to zero
    weight_decay: float = 0.1  # pull of the weights towards zero
    grad_clip: float = 1.0  # a longer gradient is scaled down to this length; 0: never
    on_nan: Literal["stop", "skip"] = (
        "stop"  # a loss or gradient is not finite; skip: up to 20 steps
    )
    # --- where ---
    out_dir: str = "out"  # runs are kept in out_dir/name
    name: str | None = None  # of the run; none: after the data, or the last one to resume
    init_from: str = "scratch"  # resume: continue a run; a model's folder, or gpt2: fine-tune it
    old_data: tuple[str, ...] = ()  # to fine-tune: a text on which to measure forgetting
    eval_interval: int = 0  # steps between evaluations and checkpoints; 0: at most five in a run
    eval_tokens: int = 8192  # of the validation text, scored each time; at the end, all
    sample_prompt: str = ""  # how the sample of each evaluation begins; \n is a newline
    seed: int = 0  # everything random follows from it
    device: str = "auto"  # cuda, mps or cpu; auto: the fastest here
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of products; weights stay float32
    fsdp: bool = False  # with torchrun: shard a model that is too large for one GPU
    compile: Literal["auto", "yes", "no"] = "auto"  # auto: if the run is long enough to repay it
    threads: int = 0  # 0: one for each core that other programs leave free


def naive_train(model: GPT, tokens: TokenStream, optimizer: Optimizer, config: TrainConfig) -> None:
    """Train a model: the idea of this file, for one process and a batch that fits into memory.

    `train` takes the same steps (test_the_loop_takes_the_steps_of_naive_train). In addition it lets
    the learning rate rise and fall, scales down gradients that are too long, makes dropout
    repeatable, evaluates and saves.

    Args:
        config: the settings, all of them numbers, as `start` completes them.
    """
    for step in range(config.max_steps):
        # A batch: windows of text at random places. y is x moved by one, the next token of each.
        numbers = range(step * config.batch_size, (step + 1) * config.batch_size)
        x, y = tokens.windows(config.seed, numbers, config.block_size)  # (B, T) each
        # How surprising is the next token, in the mean over the batch?
        loss = next_token_loss(model(x), y) / y.numel()
        # Which way would each weight make the loss larger? Move the weight the other way.
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(config.learning_rate)  # and clear the gradients


# ---- the real loop, for any machine ----


def accumulate_gradients(
    model: nn.Module, tokens: TokenStream, config: TrainConfig, step: int, n_micro_batches: int
) -> Tensor:
    """Add the gradient of a batch's mean loss to the parameters; return that loss, a scalar.

    The batch is computed in micro-batches, whose gradients add up. So a batch may be larger than
    memory is, and the result is the same (test_micro_batches_add_up_to_the_batch). With torchrun,
    several processes (ranks) each compute some of the micro-batches. All randomness follows from
    the seed, the step and the micro-batch: the windows of text and, through `manual_seed`, dropout.
    """
    numbers = np.arange(step * config.batch_size, (step + 1) * config.batch_size)  # of windows
    micro_batches = list(enumerate(np.array_split(numbers, n_micro_batches)))
    batch_loss = torch.zeros((), device=config.device)
    for number, part in distributed.micro_batches_of_rank(micro_batches, model):
        key = np.random.SeedSequence((config.seed, step, number)).generate_state(1)[0]
        torch.manual_seed(int(key))
        x, y = tokens.windows(config.seed, part, config.block_size)  # (b, T) each
        with autocast(config.device, config.dtype):
            logits = model(x.to(config.device))  # (b, T, V)
        # Divide by the targets of the whole batch, not of the micro-batch: then the losses add up
        # to the batch's mean, and the gradients to its gradient.
        n_targets = config.batch_size * config.block_size
        loss = next_token_loss(logits, y.to(config.device)) / n_targets
        # PyTorch averages gradients over the ranks; times the number of ranks, that is their sum.
        (loss * distributed.size()).backward()  # type: ignore[no-untyped-call]
        batch_loss += loss.detach()
    return distributed.all_reduce_sum(batch_loss)


@torch.no_grad()
def evaluate(
    model: GPT,
    tokens: TokenStream,
    config: TrainConfig,
    n_micro_batches: int,
    limit: int | None = None,
) -> float:
    """Return the mean loss in nats/token on a whole text, or on about `limit` tokens from all over.

    The training loss can fall because the model memorises its text. Only text that it never trains
    on shows whether it learns what holds for other text, too: where that loss rises while the
    training loss falls, the model overfits, and needs more text, dropout, or fewer weights.

    A window slides over the text by half its length, so that each scored token has at least half a
    block of context, or all of its document so far. Windows are read n at a time, the number of
    windows in a micro-batch.
    """
    model.eval()
    total, count = 0.0, 0
    block_size = min(config.block_size, tokens.n_tokens - 1)  # the text may be shorter than a block
    n_rows = max(1, config.batch_size // n_micro_batches)
    batches = validation_windows(tokens, block_size, n_rows, limit)
    for x, y in distributed.split_over_ranks(batches):  # (B, T) each
        with autocast(config.device, config.dtype):
            logits = model(x.to(config.device))  # (B, T, V)
        total += next_token_loss(logits, y.to(config.device)).item()
        count += int((y != NOT_SCORED).sum())  # the other tokens are only context
    model.train()
    sums = distributed.all_reduce_sum(torch.tensor((total, count), dtype=torch.float64))
    return float(sums[0] / sums[1])


def train(run: Run) -> None:
    """Take steps that lower the loss; now and then evaluate the model and save it."""
    config, model, tokens = run.config, run.model, run.text.train_tokens

    for step in run.steps():  # all of --max_steps, or as many as fit into --minutes, or to Ctrl-C
        # How wrong is the model on this batch, and which way does each weight have to move?
        # `within_memory` adds the argument n_micro_batches; ddp_model is the model on all ranks.
        loss = run.within_memory(accumulate_gradients, run.ddp_model, tokens, config, step)

        # Clip: scale down a gradient that is far longer than usual. The slope at one odd batch
        # holds for a short step only; a long one along it could undo what was learnt.
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)

        # A step: short at first (warm-up), then long, then shorter and shorter (cooldown);
        # minigen/optim.py says why.
        learning_rate = config.learning_rate * run.schedule.factor(step)
        if run.accepts(loss, grad_norm):  # if one is not finite, skip this step, or stop
            run.optimizer.step(learning_rate)  # and clear the gradients
        run.end_step(loss, grad_norm, learning_rate)  # run.step += 1; log; is an evaluation due?

        # Now and then: how wrong is the model on text that it never trains on? Save the weights.
        if run.is_evaluation_due:
            run.save(val_loss=run.validate(evaluate))


def main(argv: Sequence[str] | None = None, started: float | None = None) -> int:
    """Train. Return the exit code: 0, 3 after a loss that is not finite, 128 + n after signal n.

    Args:
        argv: the flags; None: those of this process.
        started: when the command began, by `time.perf_counter`; None: now.
    """
    note = f"Corpora and caches are kept in {data_folder()}; MINIGEN_DATA names another folder."
    flags = parse(TrainConfig, argv, words="data", note=note)
    with start(flags, started) as run:  # run.config: the flags, completed by what they depend on
        run.begin(evaluate)
        train(run)
        run.finish(evaluate)  # not if Ctrl-C, or a loss that is not finite, has ended `train`
    return run.exit_code


if __name__ == "__main__":
    with one_line_errors(), distributed.rank0_only():
        code = main(started=STARTED)
    sys.exit(code)  # after all ranks have reached the end
