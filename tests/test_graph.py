"""minigen.inference.cuda_graph: a replayed step gives the logits of the model's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import architectures, varied_model
from torch import Tensor

from minigen.inference import cuda_graph
from minigen.inference.cuda_graph import FIRST_STEPS, GraphDecoder
from minigen.model import GPT, KVCache
from minigen.sampling import PLAIN, Sampling, generate

V, BLOCK = 31, 24
PROMPTS = [[1], [1], [5, 9, 2, 8, 1, 1, 4], [3, 3]]


@pytest.fixture(params=["gpt2", "grouped queries"])
def model(request: pytest.FixtureRequest) -> GPT:
    """Return a random model of each of two architectures."""
    return varied_model(architectures(V, BLOCK, n_embd=16)[request.param])


def texts(writer: Any, model: GPT, device: str = "cpu") -> list[list[int]]:
    """Return the ids of each text of PROMPTS, in one batch and far beyond the context.

    Beyond the context the cache is a new one. Most rows end, each at another token.
    """
    steps = generate(
        writer, lambda rows: KVCache(model.config, rows, BLOCK, device), PROMPTS,
        Sampling(temperature=4, min_p=0), n_vocab=V, max_new_tokens=3 * BLOCK, end_of_text=7,
        seed=1,
    )  # fmt: skip
    rows = zip(*steps, strict=True)
    return [[token.id for token in row if token is not None] for row in rows]


Captured = tuple[Callable[[], None], Tensor]


def test_replayed_steps_write_what_the_model_writes(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The texts are equal, with a stand-in for the graph that computes each step once more.

    Like a graph, it reads and writes the same tensors at each replay.
    """
    replays: list[int] = []

    def capture(step: Callable[[], Tensor]) -> Captured:
        result = torch.empty_like(step())

        def replay() -> None:
            replays.append(len(result))
            result.copy_(step())

        return replay, result

    monkeypatch.setattr(cuda_graph, "capture", capture)
    replayed = texts(GraphDecoder(model), model)
    assert replayed == texts(model, model)
    lengths = sorted(map(len, replayed))
    assert lengths[0] < lengths[-1], "the rows should end at different tokens"
    assert len(replays) > 20 and len(set(replays)) > 1


def test_a_graph_is_captured_after_the_first_steps(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text of FIRST_STEPS tokens costs no capture; one more token costs one."""
    captures: list[int] = []

    def capture(step: Callable[[], Tensor]) -> Captured:
        captures.append(1)
        result = step()
        return lambda: None, result

    monkeypatch.setattr(cuda_graph, "capture", capture)
    for n, expected in ((FIRST_STEPS, 0), (FIRST_STEPS + 1, 1)):
        list(
            generate(
                GraphDecoder(model), lambda rows: KVCache(model.config, rows, BLOCK), [[1]],
                PLAIN, n_vocab=V, max_new_tokens=n,
            )
        )  # fmt: skip
        assert len(captures) == expected


def test_if_the_capture_fails_the_model_writes(
    model: GPT, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The texts stay the same, and one warning is printed."""

    def capture(step: Callable[[], Tensor]) -> Captured:
        raise RuntimeError("not supported\nand why")

    monkeypatch.setattr(cuda_graph, "capture", capture)
    assert texts(GraphDecoder(model), model) == texts(model, model)
    assert capsys.readouterr().err == "warning: no CUDA graph (not supported)\n"


@pytest.mark.gpu
def test_on_a_gpu_the_captured_graph_writes_what_the_model_writes(model: GPT) -> None:
    """On a real GPU the capture succeeds, and graph and model write equal texts."""
    model = model.to("cuda")
    decoder = GraphDecoder(model)
    assert texts(decoder, model, "cuda") == texts(model, model, "cuda")
    assert decoder.can_capture
