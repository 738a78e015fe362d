"""Train from a program or a notebook: `minigen.train` computes what `python train.py` computes."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from minigen.cli import parse
from minigen.errors import UserError
from minigen.inference.engine import Engine, load
from minigen.run.log import read_metrics
from minigen.run.signals import Interrupt
from minigen.run.start import start
from minigen.system.shell import script
from minigen.system.threads import threads
from minigen.tokenizer import Tokenizer

PathName = str | os.PathLike[str]


@dataclass(frozen=True)
class TrainedRun:
    """A run that `train` has trained, or the part up to an interrupt."""

    folder: Path  # of the run: its checkpoints, metrics.jsonl, samples.jsonl and loss.png
    step: int  # the number of steps taken, those of a resumed run included
    interrupted: bool  # whether Ctrl-C ended the run, which then can resume

    @functools.cached_property
    def engine(self) -> Engine:
        """The best model, loaded at its first use, to sample from."""
        return load(self.folder)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, such as the losses (docs/metrics.md)."""
        return read_metrics(self.folder)

    @property
    def plot(self) -> Path:
        """The image of the losses, loss.png."""
        return self.folder / "loss.png"

    def _repr_png_(self) -> bytes | None:
        """Return the image that a notebook shows for a run."""
        return self.plot.read_bytes() if self.plot.exists() else None


def train(data: PathName | Sequence[PathName] | None = None, **flags: Any) -> TrainedRun:
    """Train a transformer on a text, in this process, and return the run.

    The weights are those of `python train.py` with the same flags. A notebook shows a bar with the
    loss, and lines about the run. The random numbers, the number of threads and the default dtype
    of PyTorch, and matplotlib's settings, are the same after the call as before.

    Ctrl-C, or "interrupt the kernel", ends the run after the step in progress: a checkpoint is
    saved, and the run is returned. Before the first step, and the second time, it raises
    `KeyboardInterrupt`. In a thread other than the main one, no signal is handled.

    Args:
        data: files, folders, patterns, or the name of a corpus; None: tales.
        flags: the other flags of train.py, without `--`, and with True and False for switches:
            `minutes=2`, `size="small"`, `keep_checkpoints=True`. None: not given.

    Raises `UserError` for a wrong flag or text, and if a loss is not finite.

    >>> run = minigen.train("my.txt", minutes=2)                      # doctest: +SKIP
    >>> "".join(run.engine.stream("It was"))                          # doctest: +SKIP
    ' a dark and stormy night'
    """
    command = _train_py()
    given = {"data": data, **flags}
    config = parse(command.TrainConfig, _argv(given, command.TrainConfig))
    with _pytorch_settings():
        run = command.complete(start(config, handler=Interrupt))
    if run.exit_code == 3:
        raise UserError("the loss is not finite; lower learning_rate, or give on_nan='skip'")
    return TrainedRun(run.folder.absolute(), run.step, bool(run.exit_code))


def _train_py() -> ModuleType:
    """Import train.py by its path, as the user may have another file of that name."""
    name = "minigen_train"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, script("train"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # `TrainConfig` looks its module up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _argv(flags: Mapping[str, Any], config_class: type[Any]) -> list[str]:
    """Return a command line of these flags, so that the call and the command check them alike.

    Raises `UserError` for a flag that does not exist, and for a tokenizer in place of its file.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
    argv = list[str]()
    for name, value in flags.items():
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            mend = f"did you mean {near[0]}?" if near else "python train.py --help lists all"
            raise UserError(f"train has no argument {name}; {mend}")
        if value == defaults[name] == ():
            continue
        if isinstance(value, bool):
            argv.append(f"--{name}" if value else f"--no_{name}")
        elif isinstance(value, list | tuple):
            paths = map(os.fspath, value)  # a path that begins with "-" would be a flag
            argv += [f"--{name}", *(f"./{path}" if path[:1] == "-" else path for path in paths)]
        elif isinstance(value, Tokenizer):
            raise UserError(f"{name} is a Tokenizer; give the path of the file that it saves")
        elif value is not None:
            argv.append(f"--{name}={value}")
    return argv


@contextlib.contextmanager
def _pytorch_settings() -> Iterator[None]:
    """Set PyTorch up as in a new process; then put the program's own settings back."""
    dtype, gpus = torch.get_default_dtype(), range(torch.cuda.device_count())
    with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.enable_grad():
        try:
            torch.set_default_dtype(torch.float32)
            with threads.kept():
                yield
        finally:
            torch.set_default_dtype(dtype)
