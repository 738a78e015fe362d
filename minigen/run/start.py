"""How a run begins: new, resumed, or from another model that it fine-tunes."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from minigen import corpora
from minigen.errors import UserError
from minigen.files import checkpoint, lora
from minigen.files.checkpoint import Checkpoint
from minigen.inference.engine import Engine, load
from minigen.loss import next_token_loss
from minigen.model import GPT
from minigen.optim import Optimizer
from minigen.run import distributed
from minigen.run.clock import Clock
from minigen.run.compile import compile_blocks, compiling_pays
from minigen.run.config import as_utf8, fit_to, merge, new_shape, resolve, separator_of
from minigen.run.log import Report
from minigen.run.memory import count_micro_batches
from minigen.run.run import Run, Stopped
from minigen.run.schedule import Schedule
from minigen.run.signals import StopSignal
from minigen.run.text import find_text
from minigen.system.device import autocast, disable_malloc_trim
from minigen.system.shell import command
from minigen.system.threads import threads

if TYPE_CHECKING:
    from train import TrainConfig

KEEPS_MEMORY = 2**22  # parameters; a larger model's steps take long anyway, and much memory


@contextlib.contextmanager
def start(flags: TrainConfig, started: float | None = None) -> Iterator[Run]:
    """Yield a run that is ready for its first step; afterwards free its folder for others.

    Args:
        flags: as they were given; whatever was left open is settled here.
        started: when the command began, by `time.perf_counter`; None: now.

    Raises `UserError` for a fault that the user can mend, before the run has a folder where that is
    possible. `Stopped`, which ends a run early, becomes the run's exit code.
    """
    clock = Clock(time.perf_counter() if started is None else started)
    if flags.minutes and flags.max_steps:
        raise UserError("--minutes and --max_steps both say how long to train; give one of them")
    with contextlib.ExitStack() as held:
        signals = StopSignal(held)
        run = _prepare(as_utf8(flags), clock, signals, held)
        try:
            yield run
        except Stopped as stop:
            run.exit_code = stop.code
        except checkpoint.NotSavedError:
            raise
        except UserError:
            run.save_before_error()
            raise


@dataclass
class Origin:
    """What a run begins from; a new run begins from nothing."""

    folder: Path | None = None  # of the run that resumes
    last: Checkpoint | None = None  # the checkpoint that resumes
    base: Engine | None = None  # the model to fine-tune
    base_name: str = ""  # where the base model is found again: its name on the hub, or its path

    @property
    def state(self) -> dict[str, Any] | None:
        """The state of the checkpoint that resumes."""
        return None if self.last is None else dict(self.last.state)


def _prepare(
    flags: TrainConfig, clock: Clock, signals: StopSignal, held: contextlib.ExitStack
) -> Run:
    """Return the run that the flags mean, with its text, its model and its optimiser."""
    distributed.join(flags.device)
    if not distributed.is_main_process():
        distributed.barrier()  # for rank 0, which makes the run's folder and the tokens

    # Where does the run begin?
    origin, asked = _find_origin(_restarted(flags), held)
    if asked.threads:
        threads.fix(asked.threads)

    # The text, as tokens, and the settings that depend on it.
    last, begins_with = origin.last, origin.last or origin.base
    settings = _settings_of_old_text(origin, asked)
    tokenizer = begins_with.tokenizer if begins_with else None
    text, config = find_text(asked, flags.block_size, tokenizer, origin.state, settings)
    n_vocab = text.tokenizer.n_vocab
    n_micro_batches = count_micro_batches(config, n_vocab)
    if last is not None and last.state["content"] != text.content:
        raise UserError(
            f"{origin.folder} was trained on another text; give its --data, or start a new run"
        )

    # The model and, once nothing can be refused any more, the run's folder.
    torch.manual_seed(config.seed)
    model, facts = _make_model(origin, config, n_vocab, settings)
    model.train()
    folder = _make_folder(origin, config, text.name, held)
    if distributed.is_main_process():
        distributed.barrier()
    step = last.step if last else 0
    if distributed.broadcast(step) != step:
        raise UserError(f"not all processes see the same {folder}; put --out_dir on a disk of all")
    ddp_model = distributed.distribute(model, config.device, config.dtype, config.fsdp)
    if model.n_parameters() < KEEPS_MEMORY:
        disable_malloc_trim()
    optimizer = _make_optimizer(model, config)
    n_skipped, thread_counts = 0, list[list[int]]()
    if last is not None:
        n_skipped, thread_counts = _resume(last, optimizer)
    schedule = _schedule(flags, config, last)
    further = last is not None and flags.minutes > 0 and not flags.max_steps
    if further or not schedule.max_steps:
        clock.seconds = 60 * config.minutes

    report = Report(
        folder,
        step,
        schedule.max_steps,
        n_vocab,
        text.val_tokens.bits_per_byte(text.separator_bytes),
        text.floor,
        silent=not distributed.is_main_process(),
    )
    run = Run(
        config=config,
        folder=folder,
        text=text,
        model=model,
        ddp_model=ddp_model,
        optimizer=optimizer,
        companions=begins_with.companions if begins_with else None,
        base=facts,
        report=report,
        clock=clock,
        signals=signals,
        step=step,
        schedule=schedule,
        n_micro_batches=n_micro_batches,
        n_skipped=n_skipped,
        thread_counts=thread_counts,
    )
    _settle_compile(run)
    _introduce(run)
    return run


# ---- where a run begins ----


def _restarted(flags: TrainConfig) -> TrainConfig:
    """Return the flags that resume the run of this launch, if torchrun starts its ranks again."""
    begun = distributed.find_launched_run(Path(flags.out_dir))
    if flags.init_from == "resume" or begun is None or not checkpoint.steps(begun):
        return flags
    print(f"{begun} was begun by this launch and goes on", file=sys.stderr)
    return type(flags)(
        out_dir=flags.out_dir, name=str(begun.absolute()), init_from="resume", fsdp=flags.fsdp
    )


def _find_origin(flags: TrainConfig, held: contextlib.ExitStack) -> tuple[Origin, TrainConfig]:
    """Find the model that --init_from names; return it with the configuration that fits it."""
    if flags.init_from == "scratch":
        return Origin(), resolve(flags)
    if flags.init_from == "resume":
        folder = checkpoint.find_run(flags.out_dir, flags.name)
        if distributed.is_main_process():
            held.enter_context(checkpoint.lock(folder))
        last = checkpoint.load_newest(folder)
        checkpoint.set_aside(folder, last.step)
        config = merge(flags, last.state["config"])
        began_in = last.state.get("folder", "")
        data, old_data = (corpora.given_in(began_in, d) for d in (config.data, config.old_data))
        found = dataclasses.replace(config, data=data, old_data=old_data)
        return Origin(folder, last), resolve(found)
    source = checkpoint.find(flags.init_from, flags.out_dir)
    base = load(source, flags.dropout or 0.0)
    if flags.lora_rank and (base.path / "adapter_config.json").exists():
        mend = command("export", base.path, "FOLDER")
        if not checkpoint.is_checkpoint(base.path):
            mend = "merge_and_unload() of peft"
        raise UserError(
            f"{base.path} is a correction already; first make it a part of its model: {mend}"
        )
    # A name on the hub loads everywhere, as no path does.
    name = source if isinstance(source, str) else str(base.path.resolve())
    return Origin(base=base, base_name=name), resolve(fit_to(flags, base))


def _settings_of_old_text(origin: Origin, config: TrainConfig) -> dict[str, Any]:
    """Return the configuration that the base model was trained with, for its text."""
    if origin.last is not None and "base_model" in origin.last.state:
        return dict(origin.last.state["base_model"].get("config", {}))
    settings = dict(origin.base.state.get("config", {})) if origin.base else {}
    settings["separator"] = separator_of(config.old_data, settings)
    return settings


def _make_model(
    origin: Origin, config: TrainConfig, n_vocab: int, settings: dict[str, Any]
) -> tuple[GPT, dict[str, Any] | None]:
    """Return the model to train, and facts about the base model if it is fine-tuned."""
    if origin.last is not None:
        return origin.last.model(), origin.last.state.get("base_model")
    if origin.base is None:
        return GPT(new_shape(n_vocab, config)), None
    model = origin.base.model.float()
    facts = {"path": origin.base_name, "sha256": lora.fingerprint(model), "config": settings}
    if config.lora_rank:
        lora.add(model, config.lora_rank)
    return model, facts


def _make_folder(
    origin: Origin, config: TrainConfig, corpus: str, held: contextlib.ExitStack
) -> Path:
    """Return the run's folder; a new one is made, and locked for this process."""
    if origin.folder is not None:
        return origin.folder
    folder = new_folder(Path(config.out_dir), config.name or corpus)
    if distributed.is_main_process():
        held.enter_context(checkpoint.lock(folder))
        distributed.record_launch(folder)
    return folder


def new_folder(out_dir: Path, name: str) -> Path:
    """Make a folder for a new run: out_dir/name, or name-2, name-3, ... where there are runs."""
    run, n = out_dir / name, 1
    parts = [part for part in Path(name).parts if re.fullmatch(checkpoint.STEP, part)]
    if Path(name).name in ("", "..") or parts or not name.isprintable():
        raise UserError(f"a run cannot be called {name!r}; give another --name")
    while checkpoint.steps(run) or checkpoint.is_checkpoint(run):
        n += 1
        run = out_dir / f"{name}-{n}"
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {run}: {error.strerror}; give another --out_dir") from None
    return run


# ---- its optimiser, its schedule, its speed ----


def _make_optimizer(model: GPT, config: TrainConfig) -> Optimizer:
    """Return the optimiser of all weights that train: with LoRA, of the adapter's."""

    def orthogonalise(matrices: Tensor) -> Tensor:
        with autocast(config.device, config.dtype):  # Muon multiplies matrices, as the model does
            return distributed.orthogonalise(matrices)

    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    is_muon = config.optimizer == "muon"
    return Optimizer(trained, is_muon, config.weight_decay, orthogonalise=orthogonalise)


def _resume(last: Checkpoint, optimizer: Optimizer) -> tuple[int, list[list[int]]]:
    """Continue with the optimiser and the threads that were saved.

    Returns the number of steps that were skipped, and from which step on how many threads computed.
    """
    n_skipped = last.state.get("skipped", 0)
    averages = distributed.shard_like(last.optimizer, optimizer.state)
    optimizer.load(averages, last.step - n_skipped)
    last.weights.clear()  # the model and the optimiser have them now
    last.optimizer.clear()
    saved = last.state.get("threads", threads.follow())
    if not threads.resume(saved):  # sums in another order differ in their last digits
        print(
            f"warning: this run was saved with {saved} threads, and now has "
            f"{threads.follow()}; for the same bits, give --threads {saved}",
            file=sys.stderr,
        )
    return n_skipped, [*last.state.get("thread_counts", [])]


def _schedule(given: TrainConfig, config: TrainConfig, last: Checkpoint | None) -> Schedule:
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


def _settle_compile(run: Run) -> None:
    """Decide whether the run is compiled, and compile it; a resumed run is compiled if it was."""
    config = run.config

    def first_rows(n_micro_batches: int) -> tuple[Tensor, Tensor]:
        n_rows = config.batch_size // n_micro_batches
        x, y = run.text.train_tokens.windows(config.seed, np.arange(n_rows), config.block_size)
        return x.to(config.device), y.to(config.device)

    def seconds_of_step(n_micro_batches: int) -> float:
        began, (x, y) = time.perf_counter(), first_rows(n_micro_batches)
        with autocast(config.device, config.dtype):
            logits = run.model(x)
        next_token_loss(logits, y).backward()  # type: ignore[no-untyped-call]
        run.model.zero_grad(set_to_none=True)
        return n_micro_batches / distributed.size() * (time.perf_counter() - began)

    wanted = config.compile == "yes"
    if config.compile == "auto":
        seconds = 60 * config.minutes
        if config.max_steps:  # only a trial can tell how long that takes
            seconds = config.max_steps * run.within_memory(seconds_of_step)
        wanted = bool(distributed.broadcast(compiling_pays(config.device, seconds)))
    if wanted:
        x, _ = first_rows(run.n_micro_batches)
        run.is_compiled = compile_blocks(run.model, x, config.dtype)


def _introduce(run: Run) -> None:
    """Report what is trained, on what."""
    config, report, text = run.config, run.report, run.text
    for note in text.notes:
        report.say(note)
    n_trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    part = f", of which {n_trained:,} train" if config.lora_rank else ""
    report.say(
        f"{run.folder}: {run.model.n_parameters():,} parameters{part}, "
        f"{text.train_tokens.n_tokens:,} tokens of text, {text.tokenizer.n_vocab} different ones; "
        f"{config.device}, {config.dtype}"
    )
    if 0 < run.max_steps <= run.step:
        again = ("--init_from", "resume", "--name", run.folder, "--minutes", "3")
        report.say(
            f"{run.folder} had ended at step {run.step}; to train it further: "
            f"{command('train', *again)}"
        )
    if run.schedule.origin and run.schedule.origin == run.step:
        report.say(
            f"{run.folder} had ended at step {run.step}: the learning rate rises and falls once "
            "more"
        )
