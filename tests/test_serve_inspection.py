"""The server shows the inside of a model with the numbers of minigen/inspect.py."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import random_model, save_untrained
from starlette.testclient import TestClient

from minigen.inspect import (
    attention_weights,
    head_scores,
    induction_scores,
    logit_lens,
    residual_stream,
    shapes,
)
from minigen.model import GPT, Attention, GPTConfig
from minigen.serve.app import application
from minigen.serve.inspection import CODE
from minigen.serve.models import Models
from minigen.serve.worker import Worker
from minigen.tokenizer import train_tokenizer

T, BLOCK_SIZE = 100, 128
IDS = [i * i % 250 for i in range(T)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, GPT]]:
    """Return a client of a server with a random model that reads bytes, and that model."""
    out = tmp_path_factory.mktemp("out")
    save_untrained(out / "bytes", train_tokenizer("byte", []))
    models, worker = Models(["bytes"], str(out), "cpu"), Worker()
    engine = models.get()
    config = GPTConfig.modern(
        engine.model.config.vocab_size, BLOCK_SIZE, n_layer=2, n_head=4, n_embd=32, n_kv_head=2
    )
    engine.model = random_model(config)
    with TestClient(application(models, worker)) as client:
        yield client, engine.model
    worker.close()


def ask(client: TestClient, address: str, **body: Any) -> Any:
    """Return the answer of an address, which must be 200."""
    answer = client.post(f"/api/{address}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json() if "json" in answer.headers["content-type"] else answer.content


def test_one_head_is_its_attention_weights(served: tuple[TestClient, GPT]) -> None:
    """A head's answer is its T x T weights in float32."""
    client, model = served
    got = np.frombuffer(ask(client, "attention", ids=IDS, layer=1, head=2), "<f4").reshape(T, T)
    assert np.array_equal(got, attention_weights(model, IDS)[1, 2].numpy())


def test_the_wall_has_the_largest_weight_of_each_square(served: tuple[TestClient, GPT]) -> None:
    """Square (r, c) of the wall is the largest weight among its rows and columns, 0 to 255."""
    client, model = served
    got = ask(client, "attention", ids=IDS)
    assert [got[key] for key in ("T", "layers", "heads", "pooled")] == [T, 2, 4, 64]
    wall = np.frombuffer(base64.b64decode(got["wall"]), np.uint8).reshape(2, 4, 64, 64)
    weights = attention_weights(model, IDS).numpy()
    spans = [(i * T // 64, -(-(i + 1) * T // 64)) for i in range(64)]
    for r, c in ((0, 0), (63, 0), (63, 63), (40, 17), (5, 60)):
        (top, bottom), (left, right) = spans[r], spans[c]
        square = weights[:, :, top:bottom, left:right].max(axis=(2, 3))
        assert np.array_equal(wall[:, :, r, c], np.round(255 * square))
    scores = head_scores(model, IDS)
    for name in ("previous", "first"):
        assert got["scores"][name] == getattr(scores, name).tolist()
    assert np.shape(got["scores"]["induction"]) == (2, 4)


def test_a_short_text_has_a_square_for_each_weight(served: tuple[TestClient, GPT]) -> None:
    """The wall of a text of one token, and of three tokens, is not pooled."""
    client, model = served
    for n in (1, 3):
        got = ask(client, "attention", ids=IDS[:n])
        wall = np.frombuffer(base64.b64decode(got["wall"]), np.uint8).reshape(2, 4, n, n)
        expected = (255 * attention_weights(model, IDS[:n])).round().numpy()
        assert np.array_equal(wall, expected)


def test_the_lens_has_the_best_tokens_and_the_real_one(served: tuple[TestClient, GPT]) -> None:
    """The lens gives the best five tokens, and the probability and rank of the token that follows.

    Positions are the latest 64; ranks count from 1.
    """
    client, model = served
    got = ask(client, "lens", ids=IDS, next=7)
    assert got["layers"] == 3 and got["first"] == T - 64
    stream = residual_stream(model, IDS)
    n_vocab = 257
    for layer, logits in enumerate(logit_lens(model, stream.x)):
        p = logits[T - 64 :, :n_vocab].softmax(-1)
        for position in (0, 30, 63):
            order = p[position].argsort(descending=True)[:5].tolist()
            assert [id for id, _ in got["top"][layer][position]] == order
            real = [*IDS, 7][T - 64 + position + 1]
            probability, rank = got["next"][layer][position]
            assert probability == pytest.approx(p[position, real].item(), rel=1e-4)
            assert rank == 1 + int((p[position] > p[position, real]).sum())
    norms = stream.norms()
    for name, key in (("stream", "x"), ("attention", "attention"), ("mlp", "mlp")):
        assert got["norms"][name] == norms[key][:, T - 64 :].tolist()


def test_the_token_after_the_text_may_be_unknown(served: tuple[TestClient, GPT]) -> None:
    """Without `next`, the last position has no token that follows, also in a text of one token."""
    client, _ = served
    assert [len(layer) for layer in ask(client, "lens", ids=IDS[:5])["next"]] == [4, 4, 4]
    assert ask(client, "lens", ids=IDS[:1])["next"] == [[], [], []]


def test_only_the_context_is_read(served: tuple[TestClient, GPT]) -> None:
    """Of a text that is longer than the context, the tokens that the model sees are read."""
    client, _ = served
    long = [*range(100), *IDS]  # 200 tokens: 64 + (200 - 129) % 65 = 70 are seen
    for address in ("attention", "lens"):
        got, short = (ask(client, address, ids=ids) for ids in (long, long[-70:]))
        assert got.pop("n_truncated") == 130 and short.pop("n_truncated") == 0
        assert got == short


@pytest.mark.parametrize("name", CODE)
def test_the_code_is_that_of_the_function(served: tuple[TestClient, GPT], name: str) -> None:
    """Each name gives a source, which stands at that line of that file of the package."""
    got = ask(served[0], "code", name=name, ids=IDS)
    text = (Path(__file__).parents[1] / got["file"]).read_text(encoding="utf-8").splitlines()
    source = got["source"].splitlines()
    assert [line.strip() for line in text[got["line"] - 1 :][: len(source)]] == [
        line.strip() for line in source
    ]
    assert name.split(".")[-1] in source[0] + source[1]
    assert not Path(got["file"]).is_absolute()


def test_the_code_has_the_shapes_of_the_call(served: tuple[TestClient, GPT]) -> None:
    """The shapes beside a function are those of this text in this model."""
    client, model = served
    got = ask(client, "code", name="Attention.forward", ids=IDS)
    assert got["source"] == inspect.cleandoc("\n" + inspect.getsource(Attention.forward)) + "\n"
    found = {shape["name"]: shape["shape"] for shape in got["shapes"]}
    called = shapes(model, IDS)["blocks.0.attention.key"]
    assert found["blocks.0.attention.key input"] == [*called[0]] == [1, T, 32]
    assert found["blocks.0.attention.key result"] == [*called[1]] == [1, T, 128]
    c = model.config
    assert found["q"] == [1, c.n_head, T, c.head_dim]
    assert found["k"] == found["v"] == [1, c.n_kv_head, T, c.head_dim]
    assert found["weights"] == [1, *layer_shape(model)]
    others = {name for name in found if not name.startswith("blocks.0.attention")}
    assert others == {"q", "k", "v", "weights"}


def layer_shape(model: GPT) -> list[int]:
    """Return the shape of the attention weights of a layer."""
    return [*attention_weights(model, IDS)[0].shape]


def test_induction_is_computed_once(
    served: tuple[TestClient, GPT], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores that depend on the model alone are the same after another text, and are kept."""
    client, model = served
    first = ask(client, "attention", ids=IDS)["scores"]["induction"]
    assert first == induction_scores(model, 257).tolist()
    monkeypatch.setattr("minigen.serve.inspection.induction_scores", None)
    assert ask(client, "attention", ids=IDS[:9])["scores"]["induction"] == first


@pytest.mark.parametrize(
    ("address", "body", "message"),
    [
        ("attention", {"ids": []}, "ids is empty; give at least one token"),
        ("attention", {"ids": [1], "layer": 0}, "give both layer and head, or neither"),
        ("attention", {"ids": [1], "layer": 2, "head": 0}, "layer is 2; give a whole number"),
        ("lens", {"ids": [300]}, "ids has something else than token ids from 0 to"),
        ("lens", {"ids": [1], "next": -1}, "next is -1; give a whole number"),
        ("code", {"ids": [1], "name": "os.system"}, "there is no code named 'os.system' here"),
        ("code", {"ids": []}, "there is no code named '' here"),
    ],
)
def test_a_wrong_request_gets_one_sentence(
    served: tuple[TestClient, GPT], address: str, body: dict[str, Any], message: str
) -> None:
    """A wrong field is answered with 400 and a sentence that names it."""
    answer = served[0].post(f"/api/{address}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("part", "value", "refused"),
    [
        ("blocks.0.attention_norm", float("nan"), {"attention", "head", "lens"}),
        ("norm", float("nan"), {"lens"}),  # the stream is finite, and its predictions are not
        ("embedding", 1e30, {"lens"}),  # the stream is finite, and its lengths are not
    ],
)
def test_a_broken_model_is_a_sentence(
    served: tuple[TestClient, GPT], part: str, value: float, refused: set[str]
) -> None:
    """A model that computes NaN or an infinity is answered with 400, and not with broken JSON."""
    client, model = served
    weight = model.get_submodule(part).get_parameter("weight")
    before = weight.detach().clone()
    questions = {
        "attention": ("attention", {"ids": IDS}),
        "head": ("attention", {"ids": IDS, "layer": 0, "head": 1}),
        "lens": ("lens", {"ids": IDS}),
    }
    with torch.no_grad():
        weight[IDS[0]] = value
        answers = {
            name: client.post(f"/api/{address}", json=body)
            for name, (address, body) in questions.items()
        }
        weight.copy_(before)
    assert {name for name, answer in answers.items() if answer.status_code == 400} == refused
    assert {answer.status_code for answer in answers.values()} <= {200, 400}
    for name in refused:
        assert "NaN" in answers[name].json()["error"]["message"]
