"""What torchrun starts in test_distributed.py: train.py's main, with accidents on demand.

    torchrun ... one_of_several.py NOTES PLANS

PLANS is a list, as JSON, of trainings to do one after the other: their flags, and under "nan",
"stop" and "die" [rank, step, attempt] of an accident. What happens is noted in the folder NOTES, in
a file for each rank: sample ids, exit codes, times.
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

faulthandler.dump_traceback_later(300, exit=True)  # who waits in vain shows where, and ends
notes, plans = Path(sys.argv[1]), json.loads(sys.argv[2])
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
windows = TokenStream.windows
os.environ["MINIGEN_DATA"] = str(notes / "data")
make_brief()


def note(**what: Any) -> None:
    with open(notes / f"rank-{distributed.rank()}.jsonl", "a") as file:
        file.write(json.dumps({**what, "time": time.time()}) + "\n")


def noted_windows(self: TokenStream, seed: int, ids: Iterable[int], block_size: int) -> Any:
    note(ids=[int(id) for id in ids], run=plan["flags"])
    return windows(self, seed, ids, block_size)


def accident_prone(run: Run, compute: Callable[[], Any]) -> Any:
    here, model = [distributed.rank(), run.step, attempt], run.ddp_model
    if run.step == 0 and isinstance(model, DistributedDataParallel):
        model.register_forward_pre_hook(
            lambda model, args: note(adds_up=model.require_backward_grad_sync, run=plan["flags"])
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
        os.environ["TORCHELASTIC_RUN_ID"] += f"-{number}"  # as if each were a launch of its own
        began = time.perf_counter() - 100 * distributed.rank()  # clocks never agree
        note(code=train.main(plan["flags"].split(), began))
