"""The inside of a model for the page: attention, the logit lens, and the code of each stage."""

from __future__ import annotations

import ast
import base64
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor
from torch.nn import functional as F

import minigen
from minigen import model as lesson
from minigen import optim, sampling, tokenizer
from minigen.errors import UserError
from minigen.inference.engine import Engine
from minigen.inspect import (
    first_token_score,
    induction_scores,
    layer_weights,
    logit_lens,
    previous_token_score,
    queries_keys_values,
    residual_stream,
    shapes,
)
from minigen.loss import next_token_loss
from minigen.model import GPT
from minigen.serve.body import Body, read_body
from minigen.serve.models import Models
from minigen.serve.worker import Worker
from minigen.system import shell

SIDE = 64  # the most squares of a small attention matrix, and the most positions of the lens
BROKEN = "the model computes NaN: its weights are broken; use an earlier one"
MOST = 1024  # the most tokens that are read: T x T weights of each head must fit into memory

ATTENTION = "blocks.0.attention"
# The code that the page shows: its name, and the module whose shapes belong to it, as
# `minigen.inspect.shapes` names it. A name alone is a function of train.py, which is no module.
CODE: dict[str, tuple[Callable[..., Any] | str, str | None]] = {
    "Tokenizer.encode": (tokenizer.Tokenizer.encode, None),
    "naive_encode": (tokenizer.naive_encode, None),
    "next_merge": (tokenizer.next_merge, None),
    "GPT.forward": (lesson.GPT.forward, "GPT"),
    "GPT.head": (lesson.GPT.head, "norm"),
    "Block.forward": (lesson.Block.forward, "blocks.0"),
    "Attention.forward": (lesson.Attention.forward, ATTENTION),
    "naive_weights": (lesson.naive_weights, ATTENTION),
    "naive_attention": (lesson.naive_attention, ATTENTION),
    "apply_rope": (lesson.apply_rope, ATTENTION),
    "RMSNorm.forward": (lesson.RMSNorm.forward, "norm"),
    "MLP.forward": (lesson.MLP.forward, "blocks.0.mlp"),
    "KVCache": (lesson.KVCache, None),
    "filter_steps": (sampling.filter_steps, None),
    "repetition_penalty": (sampling.repetition_penalty, None),
    "temperature": (sampling.temperature, None),
    "top_k": (sampling.top_k, None),
    "top_p": (sampling.top_p, None),
    "min_p": (sampling.min_p, None),
    "uniform": (sampling.uniform, None),
    "inverse_cdf": (sampling.inverse_cdf, None),
    "context_length": (sampling.context_length, None),
    "naive_generate": (sampling.naive_generate, None),
    "next_token_loss": (next_token_loss, None),
    "naive_train": ("naive_train", None),
    "train": ("train", None),
    "Optimizer": (optim.Optimizer, None),
}


@dataclass(frozen=True)
class Inspection:
    """The answers about the inside of a model; each reads the tokens that the model can see.

    Of a text with more than MOST tokens in sight, only the latest MOST are read.
    """

    models: Models
    worker: Worker

    def routes(self) -> list[Route]:
        """Return the addresses that the page asks."""
        return [
            Route("/api/attention", self.attention, methods=["POST"]),
            Route("/api/lens", self.lens, methods=["POST"]),
            Route("/api/code", self.code, methods=["POST"]),
        ]

    async def text(self, body: Body) -> tuple[Engine, list[int], int]:
        """Return an engine, the ids that its model sees of the text, and how many it does not."""
        engine = await self.models.named(body, self.worker)
        ids = body.ids("ids", engine.n_vocab)
        if not ids:
            raise UserError("ids is empty; give at least one token")
        n = min(MOST, sampling.context_length(len(ids), engine.model.config.block_size))
        return engine, ids[-n:], len(ids) - n

    async def attention(self, request: Request) -> Response:
        """Answer with all heads as small pictures and their scores, or with one head's weights."""
        body = await read_body(request)
        engine, ids, n_truncated = await self.text(body)
        c = engine.model.config
        layer = body.integer("layer", None, 0, c.n_layer - 1)
        head = body.integer("head", None, 0, c.n_head - 1)
        if (layer is None) != (head is None):
            raise UserError("give both layer and head, or neither")
        if layer is not None:
            content = await self.worker.run(lambda: one_head(engine.model, ids, layer, head))
            return Response(
                content,
                media_type="application/octet-stream",
                headers={"x-truncated": str(n_truncated)},
            )
        facts = await self.worker.run(lambda: all_heads(engine, ids))
        return JSONResponse({**facts, "n_truncated": n_truncated})

    async def lens(self, request: Request) -> Response:
        """Answer with each layer's best five tokens at the latest positions, and with norms."""
        body = await read_body(request)
        engine, ids, n_truncated = await self.text(body)
        following = body.integer("next", None, 0, engine.n_vocab - 1)
        facts = await self.worker.run(lambda: all_layers(engine, ids, following))
        return JSONResponse({**facts, "n_truncated": n_truncated})

    async def code(self, request: Request) -> Response:
        """Answer with the source of a function or class, and the shapes of a call with the ids."""
        body = await read_body(request)
        name = body.text("name")
        if name not in CODE:
            raise UserError(f"there is no code named {name!r} here; give {', '.join(CODE)}")
        engine, ids, _ = await self.text(body)
        part, module = CODE[name]
        called = (
            []
            if module is None
            else await self.worker.run(lambda: live_shapes(engine.model, ids, module))
        )
        return JSONResponse({"name": name, **source(part), "shapes": called})


def one_head(model: GPT, ids: Sequence[int], layer: int, head: int) -> bytes:
    """Return the weights (T, T) of one head as little-endian float32."""
    weights = next(islice(layer_weights(model, ids), layer, None))[head]
    refuse_broken(weights)
    return bytes(weights.cpu().numpy().astype("<f4").tobytes())


def all_heads(engine: Engine, ids: Sequence[int]) -> dict[str, Any]:
    """Return a picture of at most SIDE x SIDE bytes and three scores of each head."""
    model, T = engine.model, len(ids)
    side = min(T, SIDE)
    wall, previous, first = list[Tensor](), list[Tensor](), list[Tensor]()
    for weights in layer_weights(model, ids):  # (H, T, T)
        # A square shows the largest weight in it: a mean would hide a single strong one.
        pooled = F.adaptive_max_pool2d(weights, side)
        wall.append((255 * pooled).round().to(torch.uint8))
        previous.append(previous_token_score(weights))
        first.append(first_token_score(weights))
    scores = {
        "previous": torch.stack(previous),
        "first": torch.stack(first),
        "induction": induction(engine),
    }
    refuse_broken(*scores.values())
    return {
        "T": T,
        "layers": model.config.n_layer,
        "heads": model.config.n_head,
        "pooled": side,
        "wall": base64.b64encode(torch.stack(wall).cpu().numpy().tobytes()).decode(),
        "scores": {name: score.tolist() for name, score in scores.items()},
    }


# Of each model that was looked at. They depend on the model alone, and cost as much as its wall.
INDUCTION: WeakKeyDictionary[GPT, Tensor] = WeakKeyDictionary()


def induction(engine: Engine) -> Tensor:
    """Return the induction scores (L, H) of a model, which are computed once."""
    if engine.model not in INDUCTION:
        INDUCTION[engine.model] = induction_scores(engine.model, engine.n_vocab)
    return INDUCTION[engine.model]


def all_layers(engine: Engine, ids: Sequence[int], following: int | None) -> dict[str, Any]:
    """Return the predictions of each layer at the latest SIDE positions, and the norms there.

    Args:
        following: the token after the text; None: it is not known yet.
    """
    stream = residual_stream(engine.model, ids)
    first = max(0, len(ids) - SIDE)
    targets = [*ids[first + 1 :], *([] if following is None else [following])]
    top, after = [], []
    for logits in logit_lens(engine.model, stream.x[:, first:]):
        p = logits[:, : engine.n_vocab].softmax(dim=-1)  # (positions, n_vocab)
        refuse_broken(p)
        best = p.topk(min(5, engine.n_vocab))
        top.append(
            [
                [*map(list, zip(i, v, strict=True))]
                for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        )
        n = len(targets)
        real = p[:n].gather(1, torch.tensor(targets, device=p.device).long()[:, None])  # (n, 1)
        rank = (p[:n] > real).sum(dim=-1) + 1
        after.append([*map(list, zip(real[:, 0].tolist(), rank.tolist(), strict=True))])
    norms = stream.norms()
    refuse_broken(*norms.values())
    x, attention, mlp = (norms[name][:, first:].tolist() for name in ("x", "attention", "mlp"))
    return {
        "layers": len(stream.x),
        "first": first,
        "top": top,
        "next": after,
        "norms": {"stream": x, "attention": attention, "mlp": mlp},
    }


def refuse_broken(*found: Tensor) -> None:
    """Raise `UserError` if one of the tensors has NaN or an infinity, which JSON does not have."""
    if not all(each.isfinite().all() for each in found):
        raise UserError(BROKEN)


def source(part: Callable[..., Any] | str) -> dict[str, Any]:
    """Return the text of a function or class, or of a function of train.py, and its place."""
    if isinstance(part, str):
        path = shell.script("train")
        text = path.read_text(encoding="utf-8")
        parts = {getattr(node, "name", None): node for node in ast.parse(text).body}
        line, end = parts[part].lineno, parts[part].end_lineno
        lines = text.splitlines(keepends=True)[line - 1 : end]
    else:
        path = Path(inspect.getfile(part))
        lines, line = inspect.getsourcelines(part)
    file = path.relative_to(Path(minigen.__file__).parents[1])
    return {"file": file.as_posix(), "line": line, "source": textwrap.dedent("".join(lines))}


def live_shapes(model: GPT, ids: Sequence[int], module: str) -> list[dict[str, Any]]:
    """Return the shapes of the input and the result of a module, and of its parts.

    Of attention, the shapes of queries, keys, values and weights too, which no module returns.
    """
    inside = f"{module}."
    found = [
        (name + end, shape)
        for name, called in shapes(model, ids).items()
        if name == module or name.startswith(inside) or module == "GPT"
        for end, shape in zip((" input", " result"), called, strict=True)
    ]
    if module == ATTENTION:
        q, k, v = queries_keys_values(model, ids)[0]
        found += [(name, (1, *x.shape)) for name, x in (("q", q), ("k", k), ("v", v))]
        found.append(("weights", (1, len(q), len(ids), len(ids))))
    return [{"name": name, "shape": list(shape)} for name, shape in found]
