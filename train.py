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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from minigen import corpora
from minigen.cli import parse
from minigen.data import Mixture, Pairs, TokenStream
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

# The value of a flag that is not given. Before the first step `start` replaces it by a number that
# depends on --size and on the text, so all code below finds the number that the type promises.
UNSET: Any = None


@dataclass(frozen=True)
class TrainConfig:
    """Train a transformer on a text. `python train.py` alone trains on short tales."""

    # --- the text ---
    # files, folders or patterns such as "books/*.txt"; or tales, pictures, tunes, tasks,
    # shakespeare. A file is text, also in .gz, .jsonl or .parquet; pairs of a prompt and an answer,
    # in .jsonl; or token ids of nanoGPT or llm.c, in .bin
    data: tuple[str, ...] = ("tales",)
    # the text between documents in a file, where \n is a newline; none: a file is one document;
    # auto: <|endoftext|> if a file contains it, else none
    separator: str | None = corpora.AUTO
    # text to measure the loss on, as in --data, which is then trained on as a whole (default: the
    # last tenth of --data)
    val_data: tuple[str, ...] = ()
    # of pairs of a prompt and its answer, the tokens that the loss counts: those of the answer and
    # its end, or those of the prompt, too
    loss_on: Literal["answer", "all"] = "answer"
    # how text becomes tokens: bpe learns frequent pieces of words from the text; char: characters;
    # byte: bytes; gpt2: the pieces of GPT-2; or a tokenizer that exists: a tokenizer.json, a run,
    # the folder of a model, or a JSON list of characters
    tokenizer: str = "bpe"
    # bpe learns at most this number of different tokens (default: fewer from a short text than from
    # a long one, at most 2048; from 20 million characters on 4096)
    vocab_size: int = UNSET
    # --- the model ---
    # preset of n_layer, n_head, n_embd, block_size, batch_size and learning_rate; auto: tiny for
    # tales, slim with pictures or tunes, else the largest of tiny, light and mini that this machine
    # can train well in --minutes
    size: Literal["auto", "tiny", "slim", "light", "mini", "small", "gpt2"] = "auto"
    architecture: Literal["modern", "gpt2"] = "modern"  # the layers of Qwen3, or those of GPT-2
    bias: bool = True  # with gpt2 layers: linear layers and norms have biases
    n_layer: int = UNSET  # number of blocks (default: from --size)
    n_head: int = UNSET  # attention heads in each block (default: from --size)
    n_embd: int = UNSET  # width of the residual stream (default: from --size)
    # context length, in tokens (default: from --size; to fine-tune, the model's, at most 256; less
    # if the text is short)
    block_size: int = UNSET
    # fraction, 0 to below 1, of the numbers inside the model that are zeroed at random in training
    # (default: 0.2 if a text that has fewer tokens than the model has parameters is read at least
    # 80 times; else 0, as to fine-tune)
    dropout: float = UNSET
    # --- how long ---
    # minutes for the whole command (default: 2; 3 for pictures or tunes; 6 for several of tales,
    # pictures and tunes)
    minutes: float = UNSET
    # number of steps, instead of --minutes (default: all that fit into --minutes)
    max_steps: int | None = None
    # --- optimisation ---
    # sequences in a step (default: from --size; to fine-tune, that of the base model's run, at most
    # 8)
    batch_size: int = UNSET
    # micro-batches into which a batch is cut (default: as few as fit into memory)
    gradient_accumulation_steps: int | None = None
    # auto: muon; to fine-tune, that of the base model's run, or adamw for a model of another
    # program and for LoRA
    optimizer: Literal["auto", "muon", "adamw"] = "auto"
    # to fine-tune: train only a LoRA adapter of this rank (default: train all weights)
    lora_rank: int | None = None
    # peak of the learning rate, after warm-up (default: from --size; to fine-tune, that of the base
    # model's run, or 0.08 / n_embd for a model of another program; for LoRA 0.8 / n_embd)
    learning_rate: float = UNSET
    warmup_steps: int = 20  # number of first steps, in which the learning rate rises to its peak
    # fraction, 0 to 0.9, of the steps, at the end, in which the learning rate falls towards 0
    cooldown: float = 0.7
    # how strongly weights are pulled towards zero (default: 0.1, as to fine-tune; if a text has
    # fewer tokens than the model has parameters, 0.1 for each time that it is read, at most 4)
    weight_decay: float = UNSET
    grad_clip: float = 1.0  # a gradient longer than this is scaled down to this length; 0: never
    # if the loss or the gradient is not finite: stop the run, or skip the step, at most 20 times
    on_nan: Literal["stop", "skip"] = "stop"
    # --- the run ---
    out_dir: str = "out"  # a run is saved in the folder out_dir/name
    # name of the run (default: named after the text; to resume, the run that was saved last)
    name: str | None = None
    # scratch: a new model; resume: continue a run; a model's folder, or a name such as gpt2:
    # fine-tune that model
    init_from: str = "scratch"
    # to fine-tune: a text that the model knows, to measure how much the model forgets (default: the
    # text that it was trained on with minigen; tales for a model of another program)
    old_data: tuple[str, ...] = ()
    # to fine-tune: fraction, 0 to 0.9, of the sequences that are of this old text, so that the
    # model forgets less of it
    old_share: float = 0.0
    # number of steps between evaluations, each with a checkpoint (default: a fifth of the run, or
    # more if evaluations take long)
    eval_interval: int | None = None
    # keep the checkpoint of each evaluation, from step 0 on, so that the page of `python -m minigen
    # serve` can replay how the model learnt; else only the last two and the best are kept
    keep_checkpoints: bool = False
    # tokens of validation text in an evaluation; at the end all, or as many as --minutes allow
    eval_tokens: int = 8192
    # start of the text that each evaluation samples, where \n is a newline (default: nothing)
    sample_prompt: str = ""
    seed: int = 0  # start of all random numbers: the same seed gives the same run
    # --- the machine ---
    device: str = "auto"  # cuda, mps or cpu; auto: the fastest of them on this machine
    # number format of matrix products, while weights stay float32; auto: bfloat16 if the device
    # computes it fast, else float32
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    fsdp: bool = False  # with torchrun: split a model that is too large for one GPU among all
    # compile the model: slow once, faster in each step; auto: if the run is long enough to gain,
    # and not with dropout or, in bfloat16, LoRA on a CPU
    compile: Literal["auto", "yes", "no"] = "auto"
    # CPU threads (default: one for each core that other programs leave free)
    threads: int | None = None


def naive_train(
    model: GPT, tokens: TokenStream, optimizer: Optimizer, config: TrainConfig, n_steps: int
) -> None:
    """Train a model: the idea of this file, for one process and a batch that fits into memory.

    `train` takes the same steps (test_the_loop_takes_the_steps_of_naive_train). In addition it lets
    the learning rate rise and fall, scales down gradients that are too long, makes dropout
    repeatable, evaluates and saves.

    Args:
        config: the settings, with a number in place of each UNSET, as `start` completes them.
    """
    for step in range(n_steps):
        # A batch: windows of text at random places. y is x moved by one, the next token of each.
        numbers = range(step * config.batch_size, (step + 1) * config.batch_size)
        x, y = tokens.windows(config.seed, numbers, config.block_size)  # (B, T) each
        # How surprising is the next token, as a mean over the batch?
        loss = next_token_loss(model(x), y) / y.numel()
        # In which direction does each weight raise the loss? Move the weight the other way.
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(config.learning_rate)  # and clear the gradients


# ---- the real loop, for any machine ----


def accumulate_gradients(
    model: nn.Module,
    tokens: TokenStream | Pairs | Mixture,
    config: TrainConfig,
    step: int,
    n_micro_batches: int,
) -> Tensor:
    """Add the gradient of a batch's mean loss to the parameters; return that loss, a scalar.

    The batch is computed in micro-batches, whose gradients add up. So a batch need not fit into
    memory; without dropout, any number of micro-batches gives the same result up to rounding
    (test_micro_batches_add_up_to_the_batch). With torchrun, several processes (ranks) each compute
    some of the micro-batches. All randomness follows from
    the seed, the step and the micro-batch: the windows of text and, through `manual_seed`, dropout.
    """
    numbers = np.arange(step * config.batch_size, (step + 1) * config.batch_size)  # of windows
    # Divide by the targets of the whole batch, not of the micro-batch: then the losses add up to
    # the batch's mean, and the gradients to its gradient. In running text each token is a target;
    # of pairs only the answers are, so the micro-batches have different numbers of targets.
    n_targets = tokens.n_targets(config.seed, numbers.tolist(), config.block_size)
    micro_batches = list(enumerate(np.array_split(numbers, n_micro_batches)))
    batch_loss = torch.zeros((), device=config.device)
    for number, part in distributed.micro_batches_of_rank(micro_batches, model):
        key = np.random.SeedSequence((config.seed, step, number)).generate_state(1)[0]
        torch.manual_seed(int(key))
        batch = tokens.batch(config.seed, part, config.block_size)
        x, y, begins = batch.to(config.device)  # (b, T) each; `begins` only of pairs
        with autocast(config.device, config.dtype):
            logits = model(x, begins=begins)  # (b, T, V)
        loss = next_token_loss(logits, y) / n_targets
        # PyTorch averages gradients over the ranks; times the number of ranks, that is their sum.
        (loss * distributed.size()).backward()  # type: ignore[no-untyped-call]
        batch_loss += loss.detach()
    return distributed.all_reduce_sum(batch_loss)


@torch.no_grad()
def evaluate(
    model: GPT,
    tokens: TokenStream | Pairs,
    config: TrainConfig,
    n_micro_batches: int,
    limit: int | None = None,
) -> float:
    """Return the mean loss in nats/token on a text, or on about `limit` tokens from all over it.

    The training loss can fall because the model memorises its text. Only text that the model never
    trains on shows whether it learns rules that hold for other text, too. If the loss on such text
    rises while the training loss falls, the model overfits: it needs more text, dropout, or fewer
    weights.

    A window slides over the text by half its length, so that each scored token has at least
    block_size / 2 tokens of context, or all of its document so far. `n_rows` windows are read at
    once, the number of windows in a micro-batch. Of pairs, each example is read once.
    """
    model.eval()
    total, count = 0.0, 0
    block_size = min(config.block_size, tokens.n_tokens - 1)  # the text may be shorter than a block
    n_rows = max(1, config.batch_size // n_micro_batches)
    batches = validation_windows(tokens, block_size, n_rows, limit)
    for batch in distributed.split_over_ranks(batches):
        x, y, begins = batch.to(config.device)  # (B, T) each
        with autocast(config.device, config.dtype):
            logits = model(x, begins=begins)  # (B, T, V)
        total += next_token_loss(logits, y).item()
        count += int((y != NOT_SCORED).sum())  # the other tokens are only context
    model.train()
    sums = distributed.all_reduce_sum(torch.tensor((total, count), dtype=torch.float64))
    return float(sums[0] / sums[1])


def train(run: Run) -> None:
    """Take steps that lower the loss; now and then evaluate the model and save it."""
    config, model, tokens = run.config, run.model, run.text.training

    for step in run.steps():  # all of --max_steps, or as many as fit into --minutes, or to Ctrl-C
        # How wrong is the model on this batch, and which way does each weight have to move?
        # `within_memory` adds the argument n_micro_batches; ddp_model is the model on all ranks.
        loss = run.within_memory(accumulate_gradients, run.ddp_model, tokens, config, step)

        # Clip: scale down a gradient that is far longer than usual, or one odd batch would outweigh
        # all others in the optimiser's running averages for many steps.
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
    return complete(start(flags, started)).exit_code


def complete(starting: AbstractContextManager[Run]) -> Run:
    """Train a run from its first step to its last, and return it; `minigen.train` does it, too."""
    with starting as run:  # run.config: the flags, with every default settled
        run.begin(evaluate)
        train(run)
        run.finish(evaluate)  # not if Ctrl-C, or a loss that is not finite, has ended `train`
    return run


if __name__ == "__main__":
    with one_line_errors(), distributed.rank0_only():
        code = main(started=STARTED)
    sys.exit(code)  # after all ranks have reached the end
