"""Start a run: a new one, one that resumes, or one that fine-tunes a model."""

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

import torch
from torch import Tensor

from minigen import corpora
from minigen.errors import UserError
from minigen.files import checkpoint, lora
from minigen.files.chat_template import with_template
from minigen.files.checkpoint import Checkpoint
from minigen.files.named_tokenizer import find_tokenizer
from minigen.inference.engine import Engine, load
from minigen.model import GPT
from minigen.optim import Optimizer
from minigen.run import distributed, recipe
from minigen.run.clock import Clock
from minigen.run.compile import compile_blocks, compiling_pays
from minigen.run.config import (
    as_utf8,
    check_ranges,
    fit_to,
    merge,
    new_shape,
    resolve,
    separator_of,
)
from minigen.run.log import Report
from minigen.run.memory import count_micro_batches, keep_freed_memory
from minigen.run.run import Run, Stopped
from minigen.run.schedule import Schedule
from minigen.run.signals import StopSignal
from minigen.run.speed import first_micro_batch, seconds_of_step
from minigen.run.text import find_text
from minigen.system.device import autocast
from minigen.system.shell import command
from minigen.system.threads import threads
from minigen.tokenizer import KINDS

if TYPE_CHECKING:
    from train import TrainConfig


@contextlib.contextmanager
def start(
    flags: TrainConfig, started: float | None = None, handler: type[StopSignal] = StopSignal
) -> Iterator[Run]:
    """Yield a run that is ready for its first step; at the end unlock its folder.

    Args:
        flags: as the user gave them; a value is chosen here for each flag that was not given.
        started: when the command started, by `time.perf_counter`; None: now.
        handler: of the signals that stop the run.

    Raises `UserError` for a fault that the user can mend, if possible before the run has a folder.
    `Stopped`, which ends a run early, becomes the run's exit code.
    """
    clock = Clock(time.perf_counter() if started is None else started)
    check_ranges(flags)
    if flags.minutes is not None and flags.max_steps is not None:
        raise UserError("--minutes and --max_steps both say how long to train; give one of them")
    with contextlib.ExitStack() as cleanup:
        # While a gradient is 0, the optimiser's averages of it shrink, at last to denormal numbers,
        # below 1e-38. Processors are slow with these: with 38,000 of them a step took ten times as
        # long. So the processor rounds them to 0, in this thread and in those that it starts later.
        torch.set_flush_denormal(True)
        cleanup.callback(torch.set_flush_denormal, False)
        signals = handler(cleanup)
        run = _prepare(as_utf8(flags), clock, signals, cleanup)
        try:
            yield run
        except Stopped as stop:
            run.exit_code = stop.code
        except KeyboardInterrupt:  # only `Interrupt` raises it, before the steps or after
            if signals.defer or not run.is_saved:
                raise
            run.exit_code = 128 + signals.number
        except checkpoint.NotSavedError:
            raise
        except UserError:
            run.save_before_error()
            raise


@dataclass
class Origin:
    """The model that a run starts from: a checkpoint to resume, a model to fine-tune, or none."""

    folder: Path | None = None  # of the run that resumes
    last: Checkpoint | None = None  # the checkpoint that resumes
    base: Engine | None = None  # the model to fine-tune
    base_name: str = ""  # the base model's name on the hub, or its path

    @property
    def state(self) -> dict[str, Any] | None:
        """The state of the checkpoint that resumes."""
        return None if self.last is None else dict(self.last.state)


def _prepare(
    flags: TrainConfig, clock: Clock, signals: StopSignal, cleanup: contextlib.ExitStack
) -> Run:
    """Return the run that the flags describe, with its text, its model and its optimiser."""
    distributed.join(flags.device, flags.fsdp)
    with distributed.rank_0_first():  # it writes the tokens, which the others then find
        # The model that the run starts from, and the settings that do not depend on the text.
        origin, config = _find_origin(_restarted(flags), cleanup)
        if config.threads is not None:
            threads.fix(config.threads)

        # The text, as tokens, and the settings that depend on it.
        last, earlier_model = origin.last, origin.last or origin.base
        base_settings = _settings_of_old_text(origin, config)
        tokenizer = earlier_model.tokenizer if earlier_model else None
        if tokenizer is None and config.tokenizer not in KINDS:
            try:
                tokenizer = find_tokenizer(config.tokenizer, config.out_dir)
            except UserError as error:
                raise UserError(f"--tokenizer: {error}; or give {', '.join(KINDS)}") from None
        companions = earlier_model.companions if earlier_model else None
        text, config = find_text(
            config, flags.block_size, tokenizer, origin.state, base_settings, companions
        )
        if text.has_messages:
            companions = with_template(companions, text.tokenizer)
        n_vocab = text.tokenizer.n_vocab
        if last is not None and last.state["content"] != text.cache_names:
            raise UserError(
                f"{origin.folder} was trained on another text; give its --data, or start a new run"
            )
        if last is not None and last.state.get("old_content") != text.old_cache_name:
            raise UserError(
                f"{origin.folder} was trained with another old text; give its --old_data, or start "
                "a new run"
            )

    # The settings that depend on the text and on the speed of the machine.
    if earlier_model is None:
        seconds_left = 60 * config.minutes - (time.perf_counter() - clock.began)
        config = recipe.choose(flags, config, text, seconds_left)
    n_micro_batches = count_micro_batches(config, n_vocab)

    with distributed.rank_0_first():  # it makes the folder
        # The model and, after all errors that a user can mend, the run's folder.
        torch.manual_seed(config.seed)
        model, base_model = _make_model(origin, config, n_vocab, base_settings)
        model.train()
        folder = _make_folder(origin, config, text.name, cleanup)
    step = last.step if last else 0
    if distributed.broadcast(step) != step:
        raise UserError(
            f"the processes do not see the same {folder}; put --out_dir on a disk that they share"
        )
    ddp_model = distributed.distribute(model, config.device, config.dtype, config.fsdp)
    keep_freed_memory(model.n_parameters())
    optimizer = _make_optimizer(model, config)
    n_skipped, thread_counts = 0, list[list[int]]()
    if last is not None:
        n_skipped, thread_counts = _resume(last, optimizer)
    schedule = _schedule(flags, config, last)
    is_timed_again = last is not None and flags.minutes is not None
    if is_timed_again or not schedule.max_steps:
        clock.seconds = 60 * config.minutes

    report = Report(
        folder,
        step,
        schedule.max_steps,
        n_vocab,
        text.val_tokens.bits_per_byte(text.separator_bytes),
        text.entropy,
        config.batch_size * config.block_size,
        silent=not distributed.is_main_process(),
    )
    cleanup.callback(report.close)
    run = Run(
        config=config,
        folder=folder,
        text=text,
        model=model,
        ddp_model=ddp_model,
        optimizer=optimizer,
        companions=companions,
        base=base_model,
        report=report,
        clock=clock,
        signals=signals,
        step=step,
        schedule=schedule,
        n_micro_batches=n_micro_batches,
        n_skipped=n_skipped,
        thread_counts=thread_counts,
    )
    _compile_if_it_pays(run)
    _report_start(run)
    return run


# ---- the model that a run starts from ----


def _restarted(flags: TrainConfig) -> TrainConfig:
    """Return the flags that resume the run of this launch, if torchrun has restarted its ranks.

    After a crash torchrun starts all ranks again with the same flags, which mean a new run.
    """
    folder = distributed.find_launched_run(Path(flags.out_dir))
    if flags.init_from == "resume" or folder is None or not checkpoint.steps(folder):
        return flags
    print(f"{folder} was started by this launch and resumes", file=sys.stderr)
    return type(flags)(
        out_dir=flags.out_dir, name=str(folder.absolute()), init_from="resume", fsdp=flags.fsdp
    )


def _find_origin(flags: TrainConfig, cleanup: contextlib.ExitStack) -> tuple[Origin, TrainConfig]:
    """Find the model that --init_from names; return it with the run's resolved configuration."""
    if flags.init_from == "scratch":
        return Origin(), resolve(flags)
    if flags.init_from == "resume":
        folder = checkpoint.find_run(flags.out_dir, flags.name)
        if distributed.is_main_process():
            cleanup.enter_context(checkpoint.lock(folder))
        last = checkpoint.load_newest(folder)
        checkpoint.set_aside(folder, last.step)
        config = merge(flags, last.state["config"])
        started_in = last.state.get("folder", "")
        paths = {name: getattr(config, name) for name in ("data", "val_data", "old_data")}
        paths = {name: corpora.relocate(started_in, data) for name, data in paths.items()}
        config = dataclasses.replace(config, **paths)
        return Origin(folder, last), resolve(config)
    source = checkpoint.find(flags.init_from, flags.out_dir)
    base = load(source, flags.dropout or 0.0)
    if flags.lora_rank is not None and (base.path / "adapter_config.json").exists():
        mend = command("export", base.path, "FOLDER")
        if not checkpoint.is_checkpoint(base.path):
            mend = "merge_and_unload() of peft"
        raise UserError(f"{base.path} is a LoRA adapter; first merge it into its model: {mend}")
    # A name on the hub loads on every machine, and a path only on this one.
    name = source if isinstance(source, str) else str(base.path.resolve())
    return Origin(base=base, base_name=name), resolve(fit_to(flags, base))


def _settings_of_old_text(origin: Origin, config: TrainConfig) -> dict[str, Any]:
    """Return the configuration that the base model was trained with, which describes its text."""
    if origin.last is not None and "base_model" in origin.last.state:
        settings = dict(origin.last.state["base_model"].get("config", {}))
        started_in = origin.last.state.get("folder", "")
        return settings | {"val_data": corpora.relocate(started_in, settings.get("val_data", ()))}
    settings = dict(origin.base.state.get("config", {})) if origin.base else {}
    settings["separator"] = separator_of(config.old_data, settings)
    # The validation text of the base model's text, not of another text that --old_data names.
    started_in = origin.base.state.get("folder", "") if origin.base else ""
    is_own = config.old_data == corpora.relocate(started_in, settings.get("data", ()))
    val_data = settings.get("val_data", ()) if is_own else ()
    return settings | {"val_data": corpora.relocate(started_in, val_data)}


def _make_model(
    origin: Origin, config: TrainConfig, n_vocab: int, base_settings: dict[str, Any]
) -> tuple[GPT, dict[str, Any] | None]:
    """Return the model to train; with a base model, also its path, its hash and its settings."""
    if origin.last is not None:
        return origin.last.model(), origin.last.state.get("base_model")
    if origin.base is None:
        return GPT(new_shape(n_vocab, config)), None
    model = origin.base.model.float()
    sha256 = lora.fingerprint(model)
    if config.lora_rank is not None:
        lora.add(model, config.lora_rank)
    return model, {"path": origin.base_name, "sha256": sha256, "config": base_settings}


def _make_folder(
    origin: Origin, config: TrainConfig, corpus: str, cleanup: contextlib.ExitStack
) -> Path:
    """Return the folder of the run; make and lock the folder of a new run."""
    if origin.folder is not None:
        return origin.folder
    folder = new_folder(Path(config.out_dir), config.name or corpus)
    if distributed.is_main_process():
        cleanup.enter_context(checkpoint.lock(folder))
        distributed.record_launch(folder)
    return folder


def new_folder(out_dir: Path, name: str) -> Path:
    """Make and return a folder for a new run: out_dir/name, or name-2, name-3, ... if taken.

    Raises `UserError` for a name that cannot be a run's, and if the folder cannot be made.
    """
    folder, n = out_dir / name, 1
    is_step = any(re.fullmatch(checkpoint.STEP, part) for part in Path(name).parts)
    if Path(name).name in ("", "..") or is_step or not name.isprintable():
        raise UserError(f"a run cannot be called {name!r}; give another --name")
    while checkpoint.steps(folder) or checkpoint.is_checkpoint(folder):
        n += 1
        folder = out_dir / f"{name}-{n}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; give another --out_dir") from None
    return folder


# ---- its optimiser, its schedule, its speed ----


def _make_optimizer(model: GPT, config: TrainConfig) -> Optimizer:
    """Return the optimiser of all weights that are trained: with LoRA, the adapter's only."""

    def orthogonalise(matrices: Tensor) -> Tensor:
        with autocast(config.device, config.dtype):  # Muon's matrix products can be in bfloat16 too
            return distributed.orthogonalise(matrices)

    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    is_muon = config.optimizer == "muon"
    return Optimizer(trained, is_muon, config.weight_decay, orthogonalise=orthogonalise)


def _resume(last: Checkpoint, optimizer: Optimizer) -> tuple[int, list[list[int]]]:
    """Load the saved state of the optimiser, and use as many threads as before.

    Returns the number of steps that were skipped, and pairs [first step, number of threads].
    """
    n_skipped = last.state.get("skipped", 0)
    optimizer_state = distributed.shard_like(last.optimizer, optimizer.state)
    optimizer.load(optimizer_state, last.step - n_skipped)
    last.weights.clear()  # copied by now; to keep them would double the memory
    last.optimizer.clear()
    n_threads = last.state.get("threads", threads.adapt())
    if not threads.resume(n_threads):  # sums in another order differ in their last digits
        print(
            f"warning: this run was saved with {n_threads} threads, and now has "
            f"{threads.adapt()}; for the same bits, give --threads {n_threads}",
            file=sys.stderr,
        )
    return n_skipped, [*last.state.get("thread_counts", [])]


def _schedule(flags: TrainConfig, config: TrainConfig, last: Checkpoint | None) -> Schedule:
    """Return the learning-rate schedule of a new run, or of a run that resumes at `last`.

    A run that resumes ends as planned, unless `flags` has --max_steps or --minutes. If it had ended
    already, its learning rate then rises and falls once more.
    """
    if last is None:
        return Schedule(config.max_steps or 0, config.cooldown, config.warmup_steps)
    saved = last.state["config"]
    schedule = Schedule(saved["max_steps"], saved["cooldown"], saved["warmup_steps"])
    if "schedule" in last.state:
        schedule = Schedule(**last.state["schedule"])
    max_steps = flags.max_steps
    is_further = flags.minutes is not None or (max_steps is not None and max_steps > last.step)
    if 0 < schedule.max_steps <= last.step and is_further:
        schedule = dataclasses.replace(schedule, max_steps=0)
        if schedule.cooldown:  # else the rate has not fallen
            schedule = schedule.warm_restart(last.step, saved["cooldown"])
    return schedule if max_steps is None else schedule.ending_at(max_steps, last.step)


def _compile_if_it_pays(run: Run) -> None:
    """Compile the model if --compile says so, or for auto if the run gains more than it costs.

    A resumed run is compiled exactly if it was before, so that its bits stay the same.
    """
    config, tokens = run.config, run.text.training
    is_wanted = config.compile == "yes"
    if config.compile == "auto":
        seconds = 60 * config.minutes
        if config.max_steps is not None:  # time one step, and multiply
            seconds = config.max_steps * run.within_memory(
                seconds_of_step, run.model, tokens, config
            )
        pays = compiling_pays(config.device, config.dropout, seconds)
        is_wanted = bool(distributed.broadcast(pays))
    if is_wanted:
        batch = first_micro_batch(tokens, config, run.n_micro_batches)
        run.is_compiled = compile_blocks(run.model, batch, config.dtype)


def _report_start(run: Run) -> None:
    """Report the model, its text and its device, and whether the run had ended before."""
    config, report, text = run.config, run.report, run.text
    for note in text.notes:
        report.print_line(note)
    n_trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    trained = "" if config.lora_rank is None else f", of which {n_trained:,} train"
    report.print_line(
        f"{run.folder}: {run.model.n_parameters():,} parameters{trained}, "
        f"{text.train_tokens.n_tokens:,} tokens of text, {text.tokenizer.n_vocab} different ones; "
        f"{config.device}, {config.dtype}"
    )
    if 0 < run.max_steps <= run.step:
        flags = ("--init_from", "resume", "--name", run.folder, "--minutes", "3")
        report.print_line(
            f"{run.folder} had ended at step {run.step}; to train it further: "
            f"{command('train', *flags)}"
        )
    if run.schedule.origin and run.schedule.origin == run.step:
        report.print_line(
            f"{run.folder} had ended at step {run.step}: the learning rate rises and falls once "
            "more"
        )
