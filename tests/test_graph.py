"""CUDA graphs: a replayed step is the model's step, whatever becomes of the texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from minigen.inference import cuda_graph
from minigen.inference.cuda_graph import FIRST_STEPS, GraphDecoder
from minigen.model import GPT, GPTConfig, KVCache
from minigen.sampling import PLAIN, Sampling, generate

V, BLOCK = 31, 24
CONFIGS = {
    "gpt2": GPTConfig.gpt2(V, BLOCK, n_layer=2, n_head=2, n_embd=16),
    "grouped queries": GPTConfig.modern(V, BLOCK, n_layer=2, n_head=4, n_embd=16, n_kv_head=2),
}
PROMPTS = [[1], [1], [5, 9, 2, 8, 1, 1, 4], [3, 3]]


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> GPT:
    torch.manual_seed(0)
    gpt = GPT(CONFIGS[request.param]).eval()
    with torch.no_grad():
        for p in gpt.parameters():
            p.normal_(mean=1.0 if p.ndim == 1 else 0.0, std=0.4)
    return gpt


def texts(writer: Any, model: GPT, device: str = "cpu") -> list[list[int]]:
    """Beyond the context, where the cache is a new one; most rows end, at different tokens."""
    steps = generate(
        writer, lambda rows: KVCache(model.config, rows, BLOCK, device), PROMPTS,
        Sampling(temperature=4, min_p=0), n_vocab=V, max_new_tokens=3 * BLOCK, end_of_text=7,
        seed=1,
    )  # fmt: skip
    rows = zip(*steps, strict=True)
    return [[token.id for token in row if token is not None] for row in rows]


Recorded = tuple[Callable[[], None], Tensor]


def test_replayed_steps_write_what_the_model_writes(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a recorder that computes a step again, from and into the same tensors, as a GPU does."""
    replays: list[int] = []

    def record(step: Callable[[], Tensor]) -> Recorded:
        result = torch.empty_like(step())

        def replay() -> None:
            replays.append(len(result))
            result.copy_(step())

        return replay, result

    monkeypatch.setattr(cuda_graph, "record", record)
    ours = texts(GraphDecoder(model), model)
    assert ours == texts(model, model)
    lengths = sorted(map(len, ours))
    assert lengths[0] < lengths[-1], "the rows should end at different tokens"
    assert len(replays) > 20 and len(set(replays)) > 1


def test_a_short_text_needs_no_graph(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []

    def record(step: Callable[[], Tensor]) -> Recorded:
        recorded.append(1)
        result = step()
        return lambda: None, result

    monkeypatch.setattr(cuda_graph, "record", record)
    for n, wanted in ((FIRST_STEPS, 0), (FIRST_STEPS + 1, 1)):
        list(
            generate(
                GraphDecoder(model), lambda rows: KVCache(model.config, rows, BLOCK), [[1]],
                PLAIN, n_vocab=V, max_new_tokens=n,
            )
        )  # fmt: skip
        assert len(recorded) == wanted


def test_where_nothing_can_be_recorded_the_model_writes(
    model: GPT, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is tried once, and said once."""

    def record(step: Callable[[], Tensor]) -> Recorded:
        raise RuntimeError("not supported\nand why")

    monkeypatch.setattr(cuda_graph, "record", record)
    assert texts(GraphDecoder(model), model) == texts(model, model)
    assert capsys.readouterr().err == "warning: no CUDA graph (not supported)\n"


@pytest.mark.gpu
def test_on_a_gpu(model: GPT) -> None:
    ours = model.to("cuda")
    writer = GraphDecoder(ours)
    assert texts(writer, ours, "cuda") == texts(ours, ours, "cuda")
    assert writer.can_record
