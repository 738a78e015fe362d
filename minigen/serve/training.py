"""Runs, as they train or have trained, and their predictions at each of their checkpoints."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import torch
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.inference.engine import Engine, load
from minigen.run.follow import Follower, read_new_lines
from minigen.run.log import parse_metrics
from minigen.sampling import check_finite, context_length
from minigen.serve.body import Body, read_body
from minigen.serve.models import Models
from minigen.serve.worker import Worker
from minigen.system.strict_json import to_json

MAX_SAMPLES = 40  # the latest samples of a run in an answer
MAX_CHARS = 20_000  # of a text to predict; the longest context has fewer
N_NAMED = 24  # most probable tokens whose bytes an answer has
MAX_KEPT = 1 << 27  # parameters of the checkpoints in memory


class Training:
    """The answers about runs: those of the served models, and all in the folder of the runs.

    The id of a run is that of its model, or its place in the folder. A path is never made of an
    id: an id is only looked up.
    """

    def __init__(self, models: Models, worker: Worker) -> None:
        self.models, self.worker = models, worker
        self.followers: dict[Path, Follower] = {}
        # Of checkpoints, by path and time of saving; the one used latest is the last.
        self.engines: dict[tuple[Path, int], Engine] = {}
        self.lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Return the addresses that the page asks."""
        return [
            Route("/api/runs", self.list_runs),
            Route("/api/runs/{id:path}", self.show_run),
            Route("/api/replay", self.replay, methods=["POST"]),
        ]

    def runs(self) -> dict[str, Path]:
        """Return the folder of each run by its id; the runs of served models come first.

        A served model whose run is deleted is still served, but has no run.
        """
        found = {each.id: each.run for each in self.models if each.run and each.run.is_dir()}
        known = {path.resolve() for path in found.values()}
        out_dir = self.models.out_dir
        patterns = "*/metrics.jsonl", "*/*/metrics.jsonl"
        for path in sorted({log.parent for each in patterns for log in out_dir.glob(each)}):
            if path.resolve() not in known:
                name = path.relative_to(out_dir).as_posix()
                names = (name, *(f"{name}-{n}" for n in range(2, len(found) + 3)))
                found[next(name for name in names if name not in found)] = path
        return found

    def find(self, id: str) -> Path:
        """Return the folder of a run. Raises `UserError` for an id that is none of `runs`."""
        runs = self.runs()
        if id not in runs:
            raise UserError(f"there is no run {id[:100]!r} here; see /api/runs")
        return runs[id]

    def follow(self, path: Path) -> Follower:
        """Return what is known of a run now. Call it with the lock held."""
        follower = self.followers.setdefault(path, Follower(path))
        follower.catch_up()
        return follower

    async def list_runs(self, request: Request) -> Response:
        """Answer with the state of each run; those that train now first, then the latest."""

        def describe() -> list[dict[str, Any]]:
            served = {each.id for each in self.models}
            with self.lock:
                listed = [
                    {
                        "id": id,
                        "model": id if id in served else None,
                        **self.follow(path).describe(),
                        "changed": changed_at(path),
                    }
                    for id, path in self.runs().items()
                ]
            return sorted(listed, key=lambda run: (run["running"], run["changed"]), reverse=True)

        return answer({"runs": await run_in_threadpool(describe)})

    async def show_run(self, request: Request) -> Response:
        """Answer with a run's state, its samples, and its lines of metrics after a cursor.

        The cursor is the field `next` of an earlier answer, in the query as `after`. If `restarted`
        is true, the lines are the first ones: the run has resumed, and rewritten its file.
        """
        id, cursor = request.path_params["id"], request.query_params.get("after", "")

        def describe() -> dict[str, Any]:
            path = self.find(id)
            news = read_new_lines(path / "metrics.jsonl", parse_metrics, cursor)
            with self.lock:
                follower = self.follow(path)
                state = follower.describe()
                samples = follower.samples(MAX_SAMPLES)
            read = {"lines": news.lines, "next": news.cursor, "restarted": news.is_new}
            return {"id": id, **state, **read, "more": news.more, "samples": samples}

        return answer(await run_in_threadpool(describe))

    async def replay(self, request: Request) -> Response:
        """Answer with the logits of a checkpoint of a run for the token after a text.

        The logits are little-endian float32, in base64. `bytes` has the bytes of the most probable
        tokens, in hex. The text is given as `ids` or as `text`.
        """
        body = await read_body(request)
        id, step = body.text("run"), body.integer("step", None, 0, 2**62)

        def predict() -> dict[str, Any]:
            engine = self.engine(self.find(id), step)
            ids = text_of(body, engine)
            n = context_length(len(ids), engine.model.config.block_size)
            with torch.no_grad():
                logits = engine.model(torch.tensor([ids[-n:]]))[0, -1, : engine.n_vocab].float()
            check_finite(logits)
            top = logits.topk(min(N_NAMED, len(logits))).indices.tolist()
            return {
                "step": step,
                "n_truncated": len(ids) - n,
                "logits": base64.b64encode(logits.numpy().tobytes()).decode(),
                "bytes": {str(id): engine.tokenizer.token_bytes(id).hex() for id in top},
            }

        return answer(await self.worker.run(predict))

    def engine(self, run: Path, step: int | None) -> Engine:
        """Return the engine of a checkpoint, on the CPU. Raises `UserError` if there is none."""
        paths = {int(path.name[5:]): path for path in checkpoint.steps(run)}
        if step not in paths:
            raise UserError(f"the run has no checkpoint of step {step}; it has {sorted(paths)}")
        saved = checkpoint.saved_at(paths[step])
        if saved is None:
            raise UserError(f"the checkpoint of step {step} has just been deleted")
        key = paths[step], saved
        engine = self.engines.pop(key, None) or load(paths[step], device="cpu")
        self.engines[key] = engine
        while sum(each.model.n_parameters() for each in self.engines.values()) > MAX_KEPT:
            if len(self.engines) == 1:
                break
            del self.engines[next(iter(self.engines))]
        return engine


def text_of(body: Body, engine: Engine) -> list[int]:
    """Return the ids of a request: those in `ids`, or those that the model reads for `text`."""
    text: str = body.text("text")
    if len(text) > MAX_CHARS:
        raise UserError(f"text has {len(text):,} characters; give at most {MAX_CHARS:,}")
    return body.ids("ids", engine.n_vocab) or engine.encode(text)


def changed_at(run: Path) -> float:
    """Return when the run has logged last, in seconds; 0 if it has just been deleted."""
    try:
        return (run / "metrics.jsonl").stat().st_mtime
    except OSError:
        return 0.0


def answer(value: Any) -> Response:
    """Return a response with a value as JSON, in which a number that is not finite is null."""
    return Response(to_json(value), media_type="application/json")
