"""Train several runs as one rank of test_distributed.py, with accidents on demand.

    torchrun ... one_of_several.py NOTES PLANS

PLANS is a JSON list of runs to train one after the other. Each run has its flags and perhaps an
accident, [rank, step, attempt], under "nan", "stop" or "die". Each rank writes a file in the folder
NOTES, with the numbers of windows, exit codes and times.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from brief import make_brief
from steps import around_gradients
from torch.nn.parallel import DistributedDataParallel

import train
from minigen.data import TokenStream
from minigen.run import distributed
from minigen.run.run import Run
from minigen.system.streams import one_line_errors

faulthandler.dump_traceback_later(300, exit=True)  # a rank that hangs prints its stack and exits
notes, plans = Path(sys.argv[1]), json.loads(sys.argv[2])
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
windows = TokenStream.windows
os.environ["MINIGEN_DATA"] = str(notes / "data")
make_brief()


def note(**values: Any) -> None:
    """Append a line to this rank's file in NOTES."""
    with open(notes / f"rank-{distributed.rank()}.jsonl", "a") as file:
        file.write(json.dumps({**values, "time": time.time()}) + "\n")


def noted_windows(self: TokenStream, seed: int, numbers: Iterable[int], block_size: int) -> Any:
    """Return the result of `TokenStream.windows`, and note the numbers of the windows."""
    note(windows=[int(number) for number in numbers], run=plan["flags"])
    return windows(self, seed, numbers, block_size)


def accident_prone(run: Run, compute: Callable[[], Any]) -> Any:
    """Compute a gradient, with the accident that the plan has for this rank, step and attempt."""
    here, model = [distributed.rank(), run.step, attempt], run.ddp_model
    if run.step == 0 and isinstance(model, DistributedDataParallel):
        model.register_forward_pre_hook(
            lambda model, args: note(syncs=model.require_backward_grad_sync, run=plan["flags"])
        )
    if here == plan.get("stop"):
        os.kill(os.getpid(), signal.SIGTERM)
    if here in plan.get("die", []):
        note(died=run.step)
        os.kill(os.getpid(), signal.SIGKILL)
    if here == plan.get("nan"):
        handle = run.model.register_forward_hook(lambda model, args, logits: logits * math.nan)
        result = compute()
        handle.remove()
        return result
    return compute()


TokenStream.windows = noted_windows  # type: ignore[method-assign]
Run.within_memory = around_gradients(accident_prone)  # type: ignore[method-assign]
note(began=attempt)
with one_line_errors(), distributed.rank0_only():
    for number, plan in enumerate(plans):
        os.environ["TORCHELASTIC_RUN_ID"] += f"-{number}"  # each run is a launch of its own
        began = time.perf_counter() - 100 * distributed.rank()  # the clocks of ranks differ
        note(code=train.main(plan["flags"].split(), began))
