"""Train a transformer on a text: `python train.py`, or `python train.py --data my.txt`."""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # --minutes counts the whole command, the slow imports too

import os
import signal

if __name__ == "__main__":  # what ends the slow imports ends the process without a word
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))

import minigen  # noqa: F401  its first import measures, from here on, how busy the machine is

# isort: split

import contextlib
import dataclasses
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from minigen import corpora
from minigen.cli import parse
from minigen.data import TokenFile, notes_on_text, opening, prepare
from minigen.errors import UserError
from minigen.files import checkpoint, lora
from minigen.inference.engine import Engine, load
from minigen.loss import next_token_loss
from minigen.model import GPT, GPTConfig
from minigen.optim import Optimizer, Schedule
from minigen.run import distributed
from minigen.run.clock import Clock
from minigen.run.compile import as_written, compile_blocks, compiling_pays
from minigen.run.log import Report, far_from_done
from minigen.run.signals import StopSignal
from minigen.system.device import (
    arithmetic,
    choose_device,
    choose_dtype,
    is_out_of_memory,
    keep_memory,
)
from minigen.system.places import data_folder
from minigen.system.shell import command, cwd
from minigen.system.streams import decoded, one_line_errors, progress_bar
from minigen.system.threads import threads
from minigen.tokenizer import END_OF_TEXT, Tokenizer

# The most that the logits of a part of a batch may take; more at once is no faster.
LOGITS_BYTES = {"cpu": 2**28, "mps": 2**30, "cuda": 2**32}

# What --size stands for: about 0.3, 0.5, 1.4, 12 and 124 million parameters. Each of these can also
# be given by itself.
SIZES: dict[str, dict[str, int | float]] = {
    "tiny": {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 256, "batch_size": 4,
             "learning_rate": 1e-2},
    "slim": {"n_layer": 4, "n_head": 4, "n_embd": 64, "block_size": 256, "batch_size": 8,
             "learning_rate": 4e-3},
    "mini": {"n_layer": 4, "n_head": 2, "n_embd": 128, "block_size": 256, "batch_size": 4,
             "learning_rate": 1e-2},
    "small": {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "batch_size": 64,
              "learning_rate": 3e-3},
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "batch_size": 128,
             "learning_rate": 1e-3},
}  # fmt: skip


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
    dropout: float | None = None  # none: 0.1 for a short text, except in a tiny model, or 0
    # --- how long ---
    minutes: float = 0.0  # for the whole command; 0: 2, or 3 for pictures or tunes, 6 for several
    max_steps: int = 0  # the number of steps; 0: all that fit into --minutes
    # --- how ---
    batch_size: int = 0  # sequences in a step
    gradient_accumulation_steps: int = 0  # parts that a batch is cut into; 0: as memory asks for
    optimizer: Literal["auto", "muon", "adamw"] = "auto"  # auto: muon, or adamw to fine-tune
    lora_rank: int = 0  # to fine-tune: train corrections of this rank only; 0: all weights
    learning_rate: float = 0.0  # the highest, after warm-up
    warmup_steps: int = 20  # steps until the learning rate is at its highest
    cooldown: float = 0.7  # share of the steps, at the end, over which it falls to zero
    weight_decay: float = 0.1  # pull of the weights towards zero
    grad_clip: float = 1.0  # longest gradient that is believed; 0: no limit
    on_nan: Literal["stop", "skip"] = "stop"  # a loss or gradient is no number; skip: up to 20
    # --- where, and what it tells ---
    out_dir: str = "out"  # runs are kept in out_dir/name
    name: str | None = None  # of the run; none: after the data, or the last one to resume
    init_from: str = "scratch"  # resume: go on with a run; a model's folder, or gpt2: fine-tune it
    old_data: tuple[str, ...] = ()  # to fine-tune: a text to measure what the model forgets
    eval_interval: int = 0  # steps between evaluations, each with a checkpoint; 0: five in a run
    eval_tokens: int = 8192  # of the validation text, scored each time; after the last step all are
    sample_prompt: str = ""  # how the sample of each evaluation begins; \n is a newline
    seed: int = 0  # everything random follows from it
    device: str = "auto"  # cuda, mps or cpu; auto: the fastest here
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of products; weights stay float32
    fsdp: bool = False  # with torchrun: share out the model too, where it is too large for one GPU
    compile: Literal["auto", "yes", "no"] = "auto"  # auto: if the run is long enough to repay it
    threads: int = 0  # that compute; 0: one for each core that other programs leave free

    def fitted_to(self, base: Engine) -> TrainConfig:
        """To fine-tune `base`: its shape and tokenizer are fixed, and the rest is careful.

        The rate falls with the width, and is low enough not to wipe out what the model knows. A
        correction, which starts from nothing, takes ten times more.
        """
        fresh, shape = TrainConfig(), base.model.config
        settings = base.state.get("config", {})
        for name in ("n_layer", "n_head", "n_embd", "size", "architecture", "bias", "tokenizer",
                     "vocab_size"):  # fmt: skip
            if getattr(self, name) != getattr(fresh, name):
                raise UserError(f"--{name} is fixed by the model to fine-tune; leave it out")
        if self.block_size > shape.block_size:
            raise UserError(f"--block_size is {self.block_size}; the model sees {shape.block_size}")
        return dataclasses.replace(
            self,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            n_embd=shape.n_embd,
            block_size=self.block_size or min(shape.block_size, 256),
            batch_size=self.batch_size or 8,
            learning_rate=self.learning_rate or (0.8 if self.lora_rank else 0.08) / shape.n_embd,
            optimizer="adamw" if self.optimizer == "auto" else self.optimizer,
            old_data=self.old_data
            or corpora.given_in(base.state.get("folder", ""), settings.get("data", ("tales",))),
            separator=separator_of(self.data, settings)
            if self.separator == corpora.AUTO
            else self.separator,
        )

    def resolved(self) -> TrainConfig:
        """The same with nothing left open: sizes filled in, device and dtype chosen, checked."""
        written, minutes = corpora.written(self.data), self.minutes or 2
        if written == ("tales",) or (not written and minutes < 2):
            # Tales are simple, and in less time than that, more steps are worth more than weights.
            fitting = "tiny"
        elif not written:
            fitting = "mini"
        else:
            # Pictures and tunes repeat themselves far apart: to find that takes layers, not width.
            fitting, minutes = "slim", self.minutes or (3 if len(written) == 1 else 6)
        size = fitting if self.size == "auto" else self.size
        chosen: dict[str, Any] = {k: v for k, v in SIZES[size].items() if not getattr(self, k)}
        config = dataclasses.replace(self, **chosen | {"size": size, "minutes": minutes})
        if config.init_from == "scratch" and (config.lora_rank or config.old_data):
            raise UserError("--lora_rank and --old_data go with a trained model: give --init_from")
        if config.optimizer == "auto":
            config = dataclasses.replace(config, optimizer="muon")
        for name, least, most in (
            ("vocab_size", 1, math.inf), ("batch_size", 1, math.inf), ("eval_tokens", 1, math.inf),
            ("gradient_accumulation_steps", 0, config.batch_size), ("max_steps", 0, math.inf),
            ("eval_interval", 0, math.inf), ("warmup_steps", 0, math.inf), ("cooldown", 0, 0.9),
            ("weight_decay", 0, 10), ("grad_clip", 0, 1e9), ("minutes", 1e-9, 1e9),
            ("learning_rate", 1e-9, 1e9), ("lora_rank", 0, math.inf), ("seed", 0, 2**63 - 1),
            ("threads", 0, 4096),
        ):  # fmt: skip
            if not least <= getattr(config, name) <= most:
                limits = f"from {least:g} to {most:g}" if most < math.inf else f"{least:g} or more"
                raise UserError(f"--{name} is {getattr(config, name)}; give {limits}")
        if config.init_from == "scratch":
            shape_of(config.vocab_size, config)  # refuse what cannot be before a text is read
        device = choose_device(config.device)
        dtype: Any = choose_dtype(config.dtype, device)
        return dataclasses.replace(config, device=str(device), dtype=dtype)


# ---- what a step and an evaluation are ----


def gradients(model: nn.Module, tokens: TokenFile, config: TrainConfig, step: int) -> Tensor:
    """Leave the gradient of the batch's mean loss in the parameters; return that loss, a scalar.

    The batch is taken in parts whose gradients add up, so memory does not bound its size, and
    several processes can share it. All that is random follows from (seed, step, part): the windows
    of text and, through `manual_seed`, dropout.
    """
    samples = np.arange(step * config.batch_size, (step + 1) * config.batch_size)
    total = torch.zeros((), device=config.device)
    parts = list(enumerate(np.array_split(samples, config.gradient_accumulation_steps)))
    last, _ = distributed.share(parts)[-1]
    for part, ids in distributed.share(parts):
        key = np.random.SeedSequence((config.seed, step, part)).generate_state(1)[0]
        torch.manual_seed(int(key))
        x, y = tokens.windows(config.seed, ids, config.block_size)  # (b, T) each
        with arithmetic(config.device, config.dtype), distributed.adding_up(model, part == last):
            logits = model(x.to(config.device))  # (b, T, V)
        n_targets = config.batch_size * config.block_size
        loss = next_token_loss(logits, y.to(config.device)) / n_targets
        # Over processes gradients become their mean, but here it is their sum that is meant.
        (loss * distributed.size()).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return distributed.total(total)


def is_finite(loss: Tensor, norm: Tensor) -> bool:
    """Whether the loss and the norm of the gradient are numbers, so that a step may be taken.

    Both are of the whole batch, so all processes give the same answer.
    """
    return bool((loss.isfinite() & norm.isfinite()).item())


@torch.no_grad()
def evaluate(model: GPT, tokens: TokenFile, config: TrainConfig, limit: int | None = None) -> float:
    """Mean loss in nats/token over the whole text, or over about `limit` tokens from all over it.

    A window slides over the text by half its length, so that each token has half a block of
    context.
    """
    model.eval()
    total, count = 0.0, 0
    rows = max(1, config.batch_size // config.gradient_accumulation_steps)
    batches = tokens.sliding(config.block_size, rows, limit=limit)
    n = min(limit or tokens.n_tokens, tokens.n_tokens) // distributed.size()
    with progress_bar(total=n, desc=tokens.name, delay=1, leave=False) as bar:
        for x, y in distributed.shared(batches):  # (B, T) each
            threads.follow()
            with arithmetic(config.device, config.dtype), as_written(config.compile):
                logits = model(x.to(config.device))  # (B, T, V)
            total += next_token_loss(logits, y.to(config.device)).item()
            n_targets = int((y >= 0).sum())
            count += n_targets
            bar.update(n_targets)
    model.train()
    sums = distributed.total(torch.tensor((total, count), dtype=torch.float64))
    return float(sums[0] / sums[1])


def live_sample(
    model: GPT, tokenizer: Tokenizer, config: TrainConfig, start: str = "", limit: int = 60
) -> str:
    """How the model goes on from --sample_prompt; the random numbers are the same at each call."""
    prompt = corpora.typed(config.sample_prompt)
    engine = Engine(
        model, tokenizer, state={"opening": start}, block_size=config.block_size, backend=model
    )
    model.eval()
    dtype = config.dtype if config.fsdp else "float32"  # FSDP gathers weights for its products
    with as_written(config.compile), arithmetic(config.device, dtype):
        text = "".join(engine.stream(prompt, max_new_tokens=limit, seed=config.seed))
    model.train()
    return prompt + text


def separator_of(data: tuple[str, ...], settings: Mapping[str, Any]) -> str | None:
    """Return the separator for a text, if the model to fine-tune was trained with these settings.

    The model ends a document there; corpora that grammars write have a separator of their own.
    """
    separator: str | None = settings.get("separator")
    return corpora.AUTO if corpora.written(data) or separator is None else separator


def old_text(
    config: TrainConfig, tokenizer: Tokenizer, settings: Mapping[str, Any], most_chars: int
) -> TokenFile:
    """Return the held-out part of --old_data: text that a model knew before it was fine-tuned.

    Args:
        settings: the configuration that the model was trained with; empty: it is another's model.
        most_chars: of a longer text about so many characters are read; 0: all are.
    """
    try:
        separator = None if corpora.written(config.old_data) else settings.get("separator")
        old = corpora.find(config.old_data, data_folder(), separator)
        _, _, held_out = prepare(
            old, tokenizer, "", 0, data_folder() / "cache", most_chars=most_chars
        )
    except UserError as error:
        raise UserError(f"the model's old text: {error}; --old_data names another") from None
    return held_out


def knowledge(
    model: GPT, old_tokens: TokenFile, tokenizer: Tokenizer, config: TrainConfig, start: str
) -> dict[str, Any]:
    """What fine-tuning changes: how a model writes, and its loss on a text of before."""
    block = min(config.block_size, old_tokens.n_tokens - 1)  # a short old text limits no training
    old_loss = evaluate(
        model, old_tokens, dataclasses.replace(config, block_size=block), config.eval_tokens
    )
    return {"sample": live_sample(model, tokenizer, config, start), "old_loss": old_loss}


# ---- around the loop ----


def shape_of(vocab_size: int, config: TrainConfig) -> GPTConfig:
    """The shape of a new model. Raises `UserError` if there is no such model."""
    size = (vocab_size, config.block_size, config.n_layer, config.n_head, config.n_embd)
    if config.architecture == "gpt2":
        return GPTConfig.gpt2(*size, dropout=config.dropout or 0.0, bias=config.bias)
    # Qwen3's small models tie the head to the embedding; ours learn faster with one of their own.
    return GPTConfig.modern(*size, dropout=config.dropout or 0.0, tied_head=False)


def new_run(out_dir: Path, name: str) -> Path:
    """A folder for a new run: out_dir/name, or name-2, name-3, ... where there are checkpoints."""
    run, n = out_dir / name, 1
    parts = [part for part in Path(name).parts if re.fullmatch(checkpoint.STEP, part)]
    if Path(name).name in ("", "..") or parts or not name.isprintable():
        raise UserError(f"a run cannot be called {name!r}; give another --name")
    while checkpoint.steps(run):
        n += 1
        run = out_dir / f"{name}-{n}"
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {run}: {error.strerror}; give another --out_dir") from None
    return run


def in_parts(config: TrainConfig, n_vocab: int) -> TrainConfig:
    """The batch in so many parts that the logits of each, which can outgrow a model, stay small.

    Each process gets as many; so the number of parts, given or not, becomes a multiple of theirs.
    """
    parts, n_processes = config.gradient_accumulation_steps, distributed.size()
    if not parts:
        n_bytes = config.block_size * n_vocab * torch.float32.itemsize  # of one sequence
        n_rows = max(1, LOGITS_BYTES[torch.device(config.device).type] // n_bytes)
        parts = math.ceil(config.batch_size / n_rows)
    parts = math.ceil(parts / n_processes) * n_processes
    if parts > config.batch_size:
        raise UserError(
            f"--batch_size {config.batch_size} is too small for {parts} parts, as many for each of "
            f"{n_processes} processes; give a larger one, or start fewer"
        )
    return dataclasses.replace(config, gradient_accumulation_steps=parts)


def resumed(given: TrainConfig, saved: dict[str, Any]) -> TrainConfig:
    """What a run goes on with: what it began with. Flags may change how long, but not what."""
    texts = {name: tuple(saved.get(name, ())) for name in ("data", "old_data")}
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown := sorted(saved.keys() - known):
        raise UserError(
            f"this run was begun by a later minigen, with --{unknown[0]}; update this one"
        )
    began = TrainConfig(**saved | texts)
    free = {"data", "minutes", "max_steps", "out_dir", "name", "init_from", "device"}
    free |= {"eval_interval", "eval_tokens", "sample_prompt", "old_data", "on_nan", "fsdp"}
    free |= {"threads"}
    changes: dict[str, Any] = {"fsdp": given.fsdp}  # a run may go on without it
    for field in dataclasses.fields(TrainConfig):
        value, was = getattr(given, field.name), getattr(began, field.name)
        if value in (field.default, was):
            continue
        if field.name not in free:
            raise UserError(
                f"--{field.name} {value}, but this run began with {was}; "
                "leave the flag out, or start a new run"
            )
        changes[field.name] = value
    return dataclasses.replace(began, **changes)


def gradients_that_fit(
    model: nn.Module, tokens: TokenFile, config: TrainConfig, step: int
) -> tuple[Tensor, TrainConfig]:
    """`gradients`; but where memory runs out, the batch is cut finer from now on."""
    while True:
        try:
            return gradients(model, tokens, config, step), config
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        model.zero_grad(set_to_none=True)
        parts = 2 * config.gradient_accumulation_steps
        if distributed.size() > 1:  # the others wait for this part already
            raise UserError(f"out of memory; give --gradient_accumulation_steps {parts}")
        if parts > config.batch_size:
            raise UserError(
                "not one sequence fits into memory; give a smaller --block_size or --size"
            )
        config = dataclasses.replace(config, gradient_accumulation_steps=parts)
        print(
            f"out of memory: going on with --gradient_accumulation_steps {parts}, the same batch",
            file=sys.stderr,
        )


def settle_compile(model: GPT, tokens: TokenFile, config: TrainConfig) -> TrainConfig:
    """Decide once whether the run is compiled, and compile; a resumed run then does the same."""
    if config.compile == "auto":
        seconds = 60 * config.minutes
        if config.max_steps:  # how long that will be, only a trial can tell
            began = time.perf_counter()
            _, config = gradients_that_fit(model, tokens, config, step=0)
            model.zero_grad(set_to_none=True)
            seconds = config.max_steps * (time.perf_counter() - began)
        pays = distributed.from_first(compiling_pays(config.device, seconds))
        config = dataclasses.replace(config, compile="yes" if pays else "no")
    if config.compile == "yes":
        n_rows = config.batch_size // config.gradient_accumulation_steps
        x, _ = tokens.windows(config.seed, np.arange(n_rows), config.block_size)
        if not compile_blocks(model, x.to(config.device), config.dtype):
            config = dataclasses.replace(config, compile="no")
    return config


# Of a longer text a part is read by a run by the clock, as reading all would take too much of the
# time. Two slow cores tokenise 12 million characters a second, and train on less than 0.1 million:
# so this is four times as much as they train on.
CHARS_A_MINUTE = 25_000_000
MOST_SKIPPED = 20  # steps of a run without finite gradients, with --on_nan skip
SHOWING = 0.5  # seconds that an evaluation takes besides: a sample, a plot, a checkpoint


def scheduled(
    given: TrainConfig, config: TrainConfig, last: checkpoint.Checkpoint | None
) -> Schedule:
    """Return the learning-rate schedule of a new run, or of one that resumes at `last`.

    --max_steps or --minutes that are `given` train a run further; without them it ends as planned.
    """
    if last is None:
        return Schedule(config.max_steps, config.cooldown, config.warmup_steps)
    began = last.state["config"]
    planned = Schedule(began["max_steps"], began["cooldown"], began["warmup_steps"])
    if "schedule" in last.state:
        planned = Schedule(**last.state["schedule"])
    further = given.minutes > 0 or given.max_steps > last.step
    if 0 < planned.max_steps <= last.step and further:
        planned = dataclasses.replace(planned, max_steps=0)
        if planned.cooldown:  # else the rate has not fallen
            planned = planned.again(last.step, began["cooldown"])
    return planned.ending_at(given.max_steps, last.step) if given.max_steps else planned


def main(argv: list[str] | None = None, started: float | None = None) -> int:
    """Train. Returns the exit code: 0, 3 if the loss is no number, 128 + n if signal n ended it.

    Args:
        started: when the command began, by `time.perf_counter`; None: now.
    """
    clock = Clock(time.perf_counter() if started is None else started)
    with contextlib.ExitStack() as held:
        return train(parse(TrainConfig, argv, words="data"), clock, held)


def train(config: TrainConfig, clock: Clock, held: contextlib.ExitStack) -> int:
    """The same for flags that were parsed; `held` holds the run's lock until it ends."""
    # As UTF-8, for a run may resume in another locale.
    words: dict[str, Any] = {"sample_prompt": decoded(config.sample_prompt)}
    words["separator"] = config.separator and decoded(config.separator)
    config = dataclasses.replace(config, **words)
    stop, given, last, base = StopSignal(held), config, None, None
    if given.minutes and given.max_steps:
        raise UserError("--minutes and --max_steps both say how long to train; give one of them")
    distributed.join(config.device)
    if not distributed.is_first():  # it makes the run's folder and the tokens; then they are there
        distributed.wait()

    # The run: a new one, one that goes on, or one that begins with a trained model.
    block_size = config.block_size  # 0: a short text may make it smaller
    begun = distributed.begun(Path(config.out_dir))
    if config.init_from != "resume" and begun and checkpoint.steps(begun):
        print(f"{begun} was begun by this launch and goes on", file=sys.stderr)
        config = TrainConfig(
            out_dir=config.out_dir, name=str(begun.absolute()), init_from="resume", fsdp=config.fsdp
        )
    if config.init_from == "resume":
        run = checkpoint.find_run(config.out_dir, config.name)
        if distributed.is_first():
            held.enter_context(checkpoint.lock(run))
        last = checkpoint.load_newest(run)
        checkpoint.set_aside(run, last.step)
        config = resumed(config, last.state["config"])
        folder = last.state.get("folder", "")
        data, old_data = (corpora.given_in(folder, d) for d in (config.data, config.old_data))
        config = dataclasses.replace(config, data=data, old_data=old_data)
    elif config.init_from != "scratch":
        source = checkpoint.find(config.init_from, config.out_dir)
        base = load(source, config.dropout or 0.0)
        if config.lora_rank and (base.path / "adapter_config.json").exists():
            mend = command("minigen", "export", base.path, "FOLDER")
            if not checkpoint.is_one(base.path):
                mend = "merge_and_unload() of peft"
            raise UserError(
                f"{base.path} is a correction already; first make it a part of its model: {mend}"
            )
        config = config.fitted_to(base)
    config = config.resolved()
    if config.threads:
        threads.fix(config.threads)

    # The text, as tokens.
    links = last is None or last.state.get("links", False)  # not in runs of before
    corpus = corpora.find(config.data, data_folder(), config.separator, links)
    if config.separator == corpora.AUTO and corpus.separator == END_OF_TEXT:
        config = dataclasses.replace(config, separator=END_OF_TEXT)
    begun_with = last or base
    known = begun_with.tokenizer if begun_with else None
    most_chars = 0  # that are read of a text; 0: all
    if last is not None:
        most_chars = last.state.get("most_chars", 0)
    elif not config.max_steps and config.device == "cpu":
        most_chars = math.ceil(CHARS_A_MINUTE * config.minutes)
    tokenizer, train_tokens, val_tokens = prepare(
        corpus, known, config.tokenizer, config.vocab_size, data_folder() / "cache",
        block_size=block_size, most_chars=most_chars,
    )  # fmt: skip
    notes = [] if last else [*corpus.notes, *notes_on_text(corpus)]
    if train_tokens.every > 1 and last is None:
        read, size = (train_tokens.n_bytes + val_tokens.n_bytes) / 1e6, corpus.n_bytes / 1e6
        notes.append(
            f"of {size:,.0f} MB of text {read:,.0f} MB are read, from all over it, which is more "
            f"than {config.minutes:g} minutes can train on; with --max_steps all is read"
        )
    room = min(train_tokens.n_tokens, val_tokens.n_tokens) - 1
    if not block_size and room < config.block_size:
        notes.append(f"a short text, so --block_size is {room}: its held-out part fills no more")
        config = dataclasses.replace(config, block_size=room)
    for tokens in (train_tokens, val_tokens):
        tokens.n_windows(config.block_size)  # refuse what is too short before there is a run
    start = opening(train_tokens, tokenizer)
    if start and known is None:
        tokenizer.bare = True
    tokenizer.encode_prompt(corpora.typed(config.sample_prompt))  # refuse unknown characters now
    settings = dict(base.state.get("config", {})) if base else {}
    settings["separator"] = separator_of(config.old_data, settings)
    if last and "tuned" in last.state:
        settings = last.state["tuned"].get("config", {})
    old_tokens = val_tokens
    if config.old_data:
        old_tokens = old_text(config, tokenizer, settings, most_chars)
    config = in_parts(config, tokenizer.n_vocab)
    if config.dropout is None:  # a short text is read often; keep it from being learnt by heart
        often = base is None and config.size != "tiny" and train_tokens.n_tokens < 1_000_000
        config = dataclasses.replace(config, dropout=0.1 if often else 0.0)
    content = [train_tokens.path.stem, val_tokens.path.stem]  # made of the text and the tokenizer
    if last is not None and last.state["content"] != content:
        raise UserError(f"{run} was trained on another text; give its --data, or start a new run")

    # The model and its optimiser.
    torch.manual_seed(config.seed)
    tuned = last.state.get("tuned") if last else None  # the model that is fine-tuned, if one is
    if last is not None:
        model = last.model()
    elif base is not None:
        model = base.model.float()
        # A name on the hub loads everywhere, as no path does.
        origin = source if isinstance(source, str) else str(base.path.resolve())
        tuned = {"path": origin, "sha256": lora.fingerprint(model), "config": settings}
        if config.lora_rank:
            lora.add(model, config.lora_rank)
    else:
        model = GPT(shape_of(tokenizer.n_vocab, config))
    model.train()

    # The run's folder, once nothing can be refused any more.
    if last is None:
        run = new_run(Path(config.out_dir), config.name or corpus.name)
        if distributed.is_first():
            held.enter_context(checkpoint.lock(run))
            distributed.sign(run)
    if distributed.is_first():
        distributed.wait()
    step = last.step if last else 0
    if distributed.from_first(step) != step:
        raise UserError(f"not all processes see the same {run}; put --out_dir on a disk of all")

    trainee = distributed.distribute(model, config.device, config.dtype, config.fsdp)
    if model.n_parameters() < 2**22:  # of a large model, steps take long anyway, and much memory
        keep_memory()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = Optimizer(
        trained,
        config.optimizer == "muon",
        config.weight_decay,
        orthogonalise=distributed.orthogonalise,
    )
    skipped, counts = 0, list[list[int]]()  # counts: from which step on how many threads computed
    if last is not None:
        skipped = last.state.get("skipped", 0)
        optimizer.load(distributed.scatter(last.optimizer, optimizer.state), step - skipped)
        last.weights.clear()  # the model and the optimiser have them now
        last.optimizer.clear()
        counts = [*last.state.get("thread_counts", [])]
        saved = last.state.get("threads", threads.follow())
        if not threads.resume(saved):  # sums in another order differ in their last digits
            print(
                f"warning: this run was saved with {saved} threads, and now has "
                f"{threads.follow()}; for the same bits, give --threads {saved}",
                file=sys.stderr,
            )
    config = settle_compile(model, train_tokens, config)
    schedule = scheduled(given, config, last)
    if not schedule.max_steps or (last is not None and given.minutes and not given.max_steps):
        clock.seconds = 60 * config.minutes

    report = Report(
        run,
        step,
        schedule.max_steps,
        tokenizer.n_vocab,
        val_tokens.bits_per_byte(corpus.separator_bytes),
        corpus.floor,
        silent=not distributed.is_first(),
    )
    for note in notes:
        report.say(note)
    n_trained = sum(p.numel() for _, p in trained)
    part = f", of which {n_trained:,} train" if config.lora_rank else ""
    report.say(
        f"{run}: {model.n_parameters():,} parameters{part}, {train_tokens.n_tokens:,} tokens of "
        f"text, {tokenizer.n_vocab} different ones; {config.device}, {config.dtype}"
    )

    if 0 < schedule.max_steps <= step:
        more = command("train.py", "--init_from", "resume", "--name", run, "--minutes", "3")
        report.say(f"{run} had ended at step {step}; to train it further: {more}")
    if schedule.origin and schedule.origin == step:
        report.say(f"{run} had ended at step {step}: the learning rate rises and falls once more")

    def measure() -> float:
        """The loss on text that was never trained on, and, by the way, the time that it took."""
        began = time.perf_counter()
        val_loss = evaluate(model, val_tokens, config, config.eval_tokens)
        clock.evaluating = time.perf_counter() - began
        return val_loss

    def look() -> float:
        """Measure, and show what the model writes by now."""
        val_loss = measure()
        report.evaluation(step, val_loss, live_sample(model, tokenizer, config, start))
        return val_loss

    def save(**losses: float) -> None:
        """Commit a checkpoint. If the disk is full, but the run goes on, so does training."""
        now = dataclasses.replace(config, max_steps=schedule.max_steps)
        facts = {"step": step, "config": dataclasses.asdict(now), "content": content, **losses}
        facts |= {"schedule": dataclasses.asdict(schedule), "skipped": skipped, "opening": start}
        facts |= {"threads": torch.get_num_threads(), "thread_counts": counts}
        # How the text is found again: `folder` is where its paths begin.
        facts |= {"most_chars": most_chars, "folder": cwd(), "links": links}
        facts |= {"tuned": tuned} if tuned else {}
        complete, state = distributed.gather(model, optimizer.state)
        try:
            if distributed.is_first():
                beside = begun_with.companions if begun_with else None
                checkpoint.save(run, complete, tokenizer, state, facts, beside)
                checkpoint.prune(run)
        except checkpoint.NotSavedError as error:
            if stopped or step == schedule.max_steps:
                raise
            report.say(f"warning: {error}; training goes on")
        distributed.wait()  # who leaves before it is saved makes torchrun end the first, too

    if step == 0:
        look()
    if tuned and "before" not in tuned:
        tuned["before"] = knowledge(model, old_tokens, tokenizer, config, start)
    if clock.seconds is not None:
        measure()  # for its time: the first one was slow
        clock.pause = clock.evaluating + SHOWING
    n_parts = val_tokens.n_tokens / min(val_tokens.n_tokens, config.eval_tokens)
    stop.waits, stopped, evaluated = True, 0, 0
    while not schedule.max_steps or step < schedule.max_steps:
        began = time.perf_counter()
        number = threads.follow()
        if not counts or counts[-1][1] != number:
            counts.append([step, number])
            report.threads(step, number, threads)
        share = schedule.share(step)
        try:
            loss, config = gradients_that_fit(trainee, train_tokens, config, step)
        except UserError:  # the text cannot be read any more, but what was learnt can be saved
            if distributed.size() == 1 and not (run / f"step-{step:06d}").exists():
                save()
            raise
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
        norm = distributed.whole(norm)
        if finite := is_finite(loss, norm):
            with arithmetic(config.device, config.dtype):  # Muon multiplies matrices too
                optimizer.step(share * config.learning_rate)
        else:  # before the weights are spoilt
            skipped += 1
            what = f"step {step} has loss {loss.item():g} and a gradient of {norm.item():g}"
            if config.on_nan == "stop" or skipped > MOST_SKIPPED:
                report.say(f"error: {what}; nothing of it was learnt; lower --learning_rate")
                return 3
            report.say(f"warning: {what}; skipped, as {skipped} of at most {MOST_SKIPPED}")
            model.zero_grad(set_to_none=True)
        step += 1
        seconds = time.perf_counter() - began
        clock.stepped(seconds)
        speed = config.batch_size * config.block_size / seconds
        if finite:
            report.step(step, loss.item(), norm.item(), share * config.learning_rate, speed)

        # Several processes decide together, which takes a while.
        if clock.seconds is not None and (distributed.size() == 1 or step % 10 == 0):
            last_step = clock.last_step(step, schedule.max_steps, config.eval_interval, n_parts)
            last_step = int(distributed.from_first(last_step))
            if last_step != schedule.max_steps:
                schedule = schedule.ending_at(last_step, step)
                report.plan(last_step)
        interval = config.eval_interval or clock.interval(schedule.max_steps)
        if clock.seconds is not None:  # clocks differ, and all processes evaluate together
            interval = int(distributed.from_first(interval))
        stopped = distributed.highest(stop.number)  # once: it may come in between, to any process
        due = interval and step % interval == 0
        if due and not config.eval_interval:  # none right after another, or right before the last
            due = min(step - evaluated, schedule.max_steps - step) >= interval / 2
        if step == schedule.max_steps or due:
            evaluated, began = step, time.perf_counter()
            save(val_loss=look())
            clock.pause = time.perf_counter() - began
        elif stopped:
            save()
        if stopped:
            again = command("train.py", "--init_from", "resume", "--name", run)
            report.say(f"stopped and saved at step {step}. To go on: {again}")
            return 128 + stopped
    stop.waits = False

    # The result is the model that did best, and its loss on all of the validation text.
    best = checkpoint.load_best(run)
    model = best.model()
    distributed.distribute(model, config.device, config.dtype, config.fsdp)
    n_parts = distributed.from_first(clock.affordable(n_parts))
    limit = round(n_parts * config.eval_tokens)
    report.final(best.step, evaluate(model, val_tokens, config, limit), limit, val_tokens.n_tokens)
    if tuned:
        after = knowledge(model, old_tokens, tokenizer, config, start)
        report.before_and_after(best.step, tuned["before"], after)
    if clock.seconds is not None:
        epochs = step * config.batch_size * config.block_size / train_tokens.n_tokens
        if found := far_from_done(clock.n_steps, epochs, clock.seconds / 60, report.busy):
            further = ("--init_from", "resume", "--name", run, "--minutes", str(found[1]))
            report.say(f"{found[0]}. More time would help: {command('train.py', *further)}")
    now = command("sample.py", "--run", run)
    report.say(f"done: {best.path}, {run / 'loss.png'}. Now: {now}")
    report.close()
    return 0


if __name__ == "__main__":
    with one_line_errors(), distributed.one_voice():
        code = main(started=STARTED)
    sys.exit(code)
