"""The functions of minigen/inspect.py show the numbers that the model computes with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models import architectures, random_model
from torch import Tensor
from torch.nn import functional as F

from minigen.files import huggingface
from minigen.inference.cpu import Decoder
from minigen.inspect import (
    attention_weights,
    first_token_score,
    head_scores,
    induction_scores,
    layer_weights,
    logit_lens,
    looking,
    previous_token_score,
    residual_stream,
    shapes,
    without_sink,
)
from minigen.model import GPT, GPTConfig

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
CONFIGS = architectures(vocab_size=16, block_size=32, n_embd=32)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> GPT:
    """Return a random model of each architecture."""
    return random_model(CONFIGS[request.param])


def attention_calls(model: GPT) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the input, the values (H, T, D) and the result of each attention that reads IDS."""
    calls = []
    with looking(model) as look_at:
        for block in model.blocks:
            look_at(block.attention, lambda module, args, y: calls.append((module, args[:2], y)))
        model(torch.tensor([IDS]))
    for module, args, y in calls:
        with torch.no_grad():
            v = module.queries_keys_values(*args)[2][0]
        yield args[0], v.repeat_interleave(module.config.n_head // len(v), dim=0), y


def test_weights_times_values_are_the_result_of_attention(model: GPT) -> None:
    """Weights times values, sent through `output`, are the result of attention."""
    calls = attention_calls(model)
    for block, weights, (_, v, y) in zip(
        model.blocks, attention_weights(model, IDS), calls, strict=True
    ):
        with torch.no_grad():
            mixed = block.attention.output((weights @ v).transpose(0, 1).flatten(1))
        torch.testing.assert_close(mixed, y[0], rtol=1e-4, atol=1e-4)


def test_each_row_of_weights_is_a_causal_mean(model: GPT) -> None:
    """The weights of a token have the sum 1, and none is on a later token."""
    weights = attention_weights(model, IDS)
    assert weights.shape == (2, 4, 8, 8) and weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 8))
    assert (weights.triu(1) == 0).all() and (weights >= 0).all()


def test_the_lens_ends_at_the_logits_and_begins_at_the_embedding(model: GPT) -> None:
    """The last layer of the lens is the model's logits; the first has no block in it."""
    stream = residual_stream(model, IDS)
    lens = torch.stack(list(logit_lens(model, stream.x)))
    with torch.no_grad():
        x = model.embedding(torch.tensor(IDS))
        if model.position is not None:
            x = x + model.position(torch.arange(len(IDS)))
        x = model.norm(x)
        first = F.linear(x, model.embedding.weight) if model.lm_head is None else model.lm_head(x)
        logits = model(torch.tensor([IDS]))[0]
    assert lens.shape == (3, 8, 16)
    torch.testing.assert_close(lens[0], first)
    torch.testing.assert_close(lens[-1], logits, rtol=1e-5, atol=1e-5)


def test_the_lens_of_some_positions_is_a_part_of_the_whole(model: GPT) -> None:
    """The lens of some layers and tokens has the numbers of the lens of all of them."""
    x = residual_stream(model, IDS).x
    whole = torch.stack(list(logit_lens(model, x)))
    part = torch.stack(list(logit_lens(model, x[1:, 5:])))
    torch.testing.assert_close(part, whole[1:, 5:], rtol=1e-5, atol=1e-5)


def test_the_stream_is_the_sum_of_the_additions(model: GPT) -> None:
    """Each block's stream is the one before it plus the vectors of attention and of the MLP."""
    stream = residual_stream(model, IDS)
    assert torch.equal(stream.x[1:], stream.x[:-1] + stream.attention + stream.mlp)
    norms = stream.norms()
    assert {name: tuple(norm.shape) for name, norm in norms.items()} == {
        "x": (3, 8), "attention": (2, 8), "mlp": (2, 8),
    }  # fmt: skip
    torch.testing.assert_close(norms["mlp"][1, 7], stream.mlp[1, 7].square().sum().sqrt())


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_model_with_compact_weights_can_be_inspected(model: GPT, dtype: str) -> None:
    """A model that a decoder keeps in fewer bytes is inspected with the weights that it has."""
    Decoder(model, dtype)
    lens = list(logit_lens(model, residual_stream(model, IDS).x))
    with torch.no_grad():
        torch.testing.assert_close(lens[-1], model(torch.tensor([IDS]))[0], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(attention_weights(model, IDS).sum(-1), torch.ones(2, 4, 8))
    assert shapes(model, IDS)["GPT"] == ((1, 8), (1, 1, 16))
    assert head_scores(model, IDS).induction.shape == (2, 4)


def look_back(offset: int, **switches: int) -> GPT:
    """Return a model with one head that looks `offset` tokens back, by learned positions alone."""
    n = 16
    model = random_model(GPTConfig.gpt2(8, n, 1, 1, n, bias=False, **switches))
    attention = model.blocks[0].attention
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.position.weight.copy_(torch.eye(n))
        attention.key.weight.copy_(100 * torch.eye(n))
        # The query of position i is the unit vector of position i - offset.
        attention.query.weight.copy_(torch.diag(torch.ones(n - offset), offset))
    return model


def test_a_head_that_looks_at_the_previous_token_has_the_score_one() -> None:
    """A head that is built to look one token back has the score 1, and no other score."""
    scores = head_scores(look_back(1), [0] * 16)
    assert scores.previous[0, 0] > 0.999
    assert scores.first[0, 0] < 0.1 and scores.induction[0, 0] < 0.1


def test_a_head_that_continues_a_repetition_has_the_induction_score_one() -> None:
    """A head that looks n - 1 tokens back scores 1 where n tokens are repeated."""
    assert induction_scores(look_back(7))[0, 0] > 0.999  # 8 tokens, twice
    assert induction_scores(look_back(6))[0, 0] < 0.01


def test_the_scores_are_means_of_named_weights() -> None:
    """The scores are the means of the weights on the previous token, and on the first."""
    w = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.125, 0.375]])
    assert previous_token_score(w).item() == (0.25 + 0.125) / 2
    assert first_token_score(w).item() == (0.25 + 0.5) / 2
    assert previous_token_score(w[:1, :1]).item() == first_token_score(w[:1, :1]).item() == 0


def test_without_the_sink_the_other_weights_have_the_sum_one() -> None:
    """Without token 0, the weights of the other tokens keep their ratios and have the sum 1."""
    w = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.125, 0.375]])
    assert without_sink(w).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0.25, 0.75]]
    assert w[0, 0] == 1


def test_the_shapes_are_those_of_the_call() -> None:
    """The shapes have the text's T, and the widths of the configuration."""
    seen = shapes(random_model(CONFIGS["grouped queries"]), IDS)
    assert seen["GPT"] == ((1, 8), (1, 1, 16))
    assert seen["embedding"] == ((1, 8), (1, 8, 32))
    assert seen["blocks.1.attention.key"] == ((1, 8, 32), (1, 8, 2 * 64))
    assert seen["blocks.1.mlp.up"] == ((1, 8, 32), (1, 8, 96))


def test_the_model_is_as_it_was(model: GPT) -> None:
    """Weights, modes and hooks are those of before, also if the model raises an error."""
    model.train()
    model.blocks[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for function in (attention_weights, residual_stream, shapes, head_scores):
        function(model, IDS)
        with pytest.raises(ValueError, match="33 tokens do not fit into 32"):
            function(model, [0] * 33)
        with pytest.raises(ValueError, match="no token"):
            function(model, [])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and not model.blocks[0].training and model.blocks[1].training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters()) and torch.is_grad_enabled()


def test_dropout_does_not_act() -> None:
    """A model in training mode is inspected without dropout."""
    config = GPTConfig.modern(16, 32, 2, 4, 32, dropout=0.5)
    model = random_model(config)
    expected = residual_stream(model, IDS).x
    assert torch.equal(residual_stream(model.train(), IDS).x, expected)
    next(layer_weights(model, IDS))
    assert model.training and torch.is_grad_enabled()


SIZE = {"vocab_size": 40, "attn_implementation": "eager"}
REFERENCES: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=24, n_layer=2, n_head=3, n_positions=32, **SIZE)
    ),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=32, **SIZE,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCES)
def test_transformers_has_the_weights_and_the_stream(name: str, tmp_path: Path) -> None:
    """transformers computes the same attention weights and the same residual stream."""
    torch.manual_seed(0)
    reference = REFERENCES[name]().eval()
    for p in reference.parameters():
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=0.3)
    reference.save_pretrained(tmp_path)
    model = huggingface.load_model(tmp_path)
    with torch.no_grad():
        expected = reference(torch.tensor([IDS]), output_attentions=True, output_hidden_states=True)
    weights, x = attention_weights(model, IDS), residual_stream(model, IDS).x
    torch.testing.assert_close(weights, torch.cat(expected.attentions), rtol=1e-4, atol=1e-5)
    # The last hidden state of transformers has gone through the last norm.
    with torch.no_grad():
        x = torch.cat((x[:-1], model.norm(x[-1:])))
    torch.testing.assert_close(x, torch.cat(expected.hidden_states), rtol=1e-4, atol=1e-4)
