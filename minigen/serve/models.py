"""The models that a server has loaded, by the names under which programs ask for them."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.inference.engine import Engine, load
from minigen.serve.body import Body
from minigen.serve.worker import Worker

# Checkpoints of other steps stay loaded until their parameters are more than this; at least one
# does.
MAX_PARAMETERS = 50_000_000
MAX_STEP = 2**53 - 1  # the largest whole number that each program reads from JSON without rounding


@dataclass(frozen=True, eq=False)
class Served:
    """A model that the server answers with.

    id: the name by which a request asks for the model: of its run, its folder, or on the hub.
    run: the folder of the run that the model is from; None: the model is of no run.
    saved: when its checkpoint was saved (`checkpoint.saved_at`); None: the model is of no run.
    """

    id: str
    engine: Engine
    run: Path | None
    saved: int | None

    def describe(self) -> dict[str, Any]:
        """Return the facts of the model that the page shows."""
        engine = self.engine
        return {
            "id": self.id,
            "description": engine.description,
            "n_vocab": engine.n_vocab,
            "n_parameters": engine.model.n_parameters(),
            "is_run": self.run is not None,
            "kind": engine.tokenizer.kind,
            "opening": engine.state.get("opening", ""),
            "step": engine.state.get("step"),
            "no_chat": no_chat(engine),
            "config": {**engine.model.config.__dict__},
        }


def no_chat(engine: Engine) -> str | None:
    """Return the reason why a model answers no messages; None: the model answers them."""
    try:
        engine.find_chat_template()
    except UserError as error:
        return str(error)
    return None


class Models:
    """The served models. The first is the one that a request without a name gets.

    Args:
        sources: runs, folders or names on the hub, as `minigen.load` takes them; empty: the run in
            `out_dir` that was saved last. A model that is named twice is loaded once.
        device, dtype: as of `minigen.load`.

    Raises `UserError` for a source that is no model.
    """

    def __init__(
        self,
        sources: Sequence[str] = (),
        out_dir: str = "out",
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.device, self.dtype = device, dtype
        self.out_dir = Path(out_dir)
        self.served = dict[str, Served]()
        # Checkpoints of other steps, and when they were saved; the latest last.
        self.other_steps: OrderedDict[tuple[str, int], tuple[Engine, int | None]] = OrderedDict()
        self.lock = threading.Lock()  # of `other_steps`
        for source in sources or (None,):
            place = None if source is None else checkpoint.find(source, out_dir)
            engine = load(source, out_dir=out_dir, device=device, dtype=dtype)
            if any(engine.path.samefile(each.engine.path) for each in self):
                print(f"note: {source} is named twice and served once", file=sys.stderr)
                continue
            run = engine.path.parent if checkpoint.is_checkpoint(engine.path) else None
            base = place if isinstance(place, str) else (run or engine.path).resolve().name
            names = [base, *(f"{base}-{n}" for n in range(2, len(self.served) + 3))]
            id = next(name for name in names if name not in self.served)
            saved = None if run is None else checkpoint.saved_at(engine.path)
            self.served[id] = Served(id, engine, run, saved)

    def __iter__(self) -> Iterator[Served]:
        return iter(self.served.values())

    def get(self, id: str | None = None, step: int | None = None) -> Engine:
        """Return the engine of a model; None: of the first.

        A checkpoint that is deleted is answered from memory as long as it stays there. One that is
        saved again, as by a run that begins anew in the same folder, is loaded again.

        Args:
            step: the step of the checkpoint of its run; None: the one that is served.

        Raises `UserError` for a name that is not served, and for a step that is not saved.
        """
        if id is None:
            id = next(iter(self.served))
        if id not in self.served:
            raise UserError(
                f"there is no model {id!r} here; the models are {', '.join(self.served)}"
            )
        served = self.served[id]
        if step is None:
            return served.engine
        saved = checkpoint.saved_at(served.run / f"step-{step:06d}") if served.run else None
        if step == served.engine.state.get("step") and saved in (None, served.saved):
            return served.engine
        with self.lock:
            known = self.other_steps.pop((id, step), None)
            if known is None or saved not in (None, known[1]):
                known = self._load_step(served, step), saved
            self.other_steps[id, step] = known
            return known[0]

    async def named(self, body: Body, worker: Worker) -> Engine:
        """Return the engine that the fields `model` and `step` of a request name.

        A checkpoint is loaded in the thread of the models, so that the server answers meanwhile.
        Raises `UserError` as `get` does.
        """
        id, step = body.text("model", None), body.integer("step", None, 0, MAX_STEP)
        return self.get(id) if step is None else await worker.run(lambda: self.get(id, step))

    def _load_step(self, served: Served, step: int) -> Engine:
        """Return the engine of one checkpoint of a model's run, after making room for it."""
        paths = {
            int(p.name.removeprefix("step-")): p for p in checkpoint.steps(served.run or Path())
        }
        if served.run is None or step not in paths:
            steps = ", ".join(map(str, sorted(paths))) if served.run else "no steps"
            raise UserError(f"{served.id} has no checkpoint of step {step}; it has {steps}")
        n_more = served.engine.model.n_parameters()
        while self.other_steps and n_more + self._n_parameters() > MAX_PARAMETERS:
            self.other_steps.popitem(last=False)
        return load(paths[step], device=self.device, dtype=self.dtype)

    def _n_parameters(self) -> int:
        """Return the number of parameters of the checkpoints of other steps."""
        return sum(engine.model.n_parameters() for engine, _ in self.other_steps.values())
