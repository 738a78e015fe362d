"""Measure what a checkpoint of GPT-2 (124M) costs, compared with plain safetensors.

    python -m bench.checkpoint

The weights and AdamW's two averages are saved: 1.5 GB. minigen writes a folder, hashes each file
and flushes everything to the disk; "plain" is `safetensors.torch.save_file` and fsync. Both are
loaded into a model and an optimiser that could continue training. "cold" means: after the system
has dropped the files from its memory.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from bench.common import alternate, options, record, seconds_of, table
from minigen import GPT, GPTConfig
from minigen.files import checkpoint
from minigen.optim import Optimizer
from minigen.tokenizer import train_tokenizer


def peak_of(action: Callable[[], Any]) -> float:
    """Return the MB of memory that an action adds at its peak; 0 on a system other than Linux."""
    if not (clear_refs := Path("/proc/self/clear_refs")).exists():
        return 0.0
    clear_refs.write_text("5")  # resets VmHWM, the peak
    before = _memory("VmRSS")
    result = action()
    peak = _memory("VmHWM") - before
    del result
    return peak


def _memory(kind: str) -> float:
    """Return MB of this process's memory, by Linux's name of the figure, such as "VmRSS"."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{kind}:")[2].split()[0]) / 1024


class Contest:
    """One model and optimiser state, saved and loaded by minigen and by plain safetensors."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count(1)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.tokenizer = train_tokenizer("byte", [])
        self.model = GPT(GPTConfig.gpt2())
        optimizer = Optimizer(self.model.named_parameters(), muon=False)
        self.state = {name: torch.randn_like(t).abs_() for name, t in optimizer.state.items()}
        self.bytes = sum(t.nbytes for t in [*self.model.parameters(), *self.state.values()])
        self.save_plain()
        self.save_minigen()

    def save_plain(self) -> None:
        """Save with safetensors, and flush the files."""
        for name, tensors in (("model", self.weights()), ("optimizer", self.state)):
            path = self.folder / f"{name}.safetensors"
            path.unlink(missing_ok=True)
            safetensors.torch.save_file(tensors, path)
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    def save_minigen(self) -> None:
        """Save the next checkpoint of minigen, and delete the one before."""
        step = next(self.numbers)
        shutil.rmtree(self.folder / f"step-{step - 1:06d}", ignore_errors=True)
        self.saved = checkpoint.save(
            self.folder, self.model, self.tokenizer, self.state, {"step": step}
        )

    def weights(self) -> dict[str, Tensor]:
        """Return the model's weights by name."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def load_plain(self) -> Any:
        """Load with safetensors, without a random initialisation and without needless copies."""
        with torch.device("meta"):
            model = GPT(self.model.config)
        tensors = [
            {k: t.clone() for k, t in safetensors.torch.load_file(path).items()}
            for path in (self.folder / "model.safetensors", self.folder / "optimizer.safetensors")
        ]
        model.load_state_dict(tensors[0], assign=True)
        return model, tensors[1]

    def load_bytes(self) -> Any:
        """Load with safetensors from bytes that were read before."""
        names = ("model.safetensors", "optimizer.safetensors")
        return [safetensors.torch.load((self.folder / name).read_bytes()) for name in names]

    def load_minigen(self) -> Any:
        """Load minigen's checkpoint."""
        saved = checkpoint.load(self.saved)
        return saved.model(), saved.optimizer

    def cold(self, load: Callable[[], Any]) -> float:
        """Return the seconds of a load, after the system has dropped the files from its memory."""
        for path in self.folder.rglob("*.safetensors"):
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
        return seconds_of(load)


def main() -> None:
    """Run the benchmark, and print its table."""
    given = options(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    contest = Contest(given.cache / "checkpoint")
    loads = {
        "plain": contest.load_plain, "plain, from bytes": contest.load_bytes,
        "minigen": contest.load_minigen,
    }  # fmt: skip
    contenders: dict[str, Callable[[], float]] = {
        "save: plain": lambda: seconds_of(contest.save_plain),
        "save: minigen": lambda: seconds_of(contest.save_minigen),
    }
    for name, load in loads.items():
        contenders[f"load: {name}"] = functools.partial(seconds_of, load)
    if hasattr(os, "posix_fadvise"):
        for name, load in loads.items():
            contenders[f"load, cold: {name}"] = functools.partial(contest.cold, load)
    seconds = alternate(contenders, given.rounds)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    peaks = {
        "save: plain": peak_of(contest.save_plain), "save: minigen": peak_of(contest.save_minigen),
        **{f"load: {name}": peak_of(load) for name, load in loads.items()},
    }  # fmt: skip
    rows = []
    for name, median in medians.items():
        plain = medians[name.partition(":")[0] + ": plain"]
        peak = f"{peaks[name]:,.0f} MB" if name in peaks else ""
        rows.append((name, f"{median:.2f} s", f"{median / plain:.2f} x", peak))
    print(f"{contest.bytes / 1e6:,.0f} MB of tensors")
    table(("GPT-2 with AdamW", "median", "of plain", "added memory"), rows)
    record("checkpoint", {"seconds": seconds, "peaks": peaks}, given)
    shutil.rmtree(contest.folder)


if __name__ == "__main__":
    main()
