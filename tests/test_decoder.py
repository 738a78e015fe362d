"""minigen.decoder: the model's numbers, from weights that are read faster."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minigen.decoder import Decoder, pack, quantise
from minigen.model import GPT, GPTConfig, KVCache
from minigen.optim import Optimizer
from minigen.sampling import Sampling, generate

V, BLOCK = 97, 32
SHAPE: dict[str, Any] = {
    "vocab_size": V,
    "block_size": BLOCK,
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 64,
}
CONFIGS = {
    "gpt2": GPTConfig.gpt2(**SHAPE),
    "modern": GPTConfig.modern(**SHAPE),
    "grouped queries": GPTConfig.modern(**SHAPE, n_kv_head=2, tied_head=False),
    "a mixture": GPTConfig.gpt2(**SHAPE, norm="rmsnorm", mlp="swiglu", bias=False, qk_norm=True),
}
DTYPES = ["float32", "bfloat16", "int8"]


def lively(config: GPTConfig) -> GPT:
    """A model whose every weight matters."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=1.0 if p.ndim == 1 else 0.0, std=0.2)
    return model


def rounded(model: GPT, dtype: str) -> GPT:
    """The model with each matrix as `dtype` can express it, in float32."""
    model = copy.deepcopy(model)
    if model.head is None:  # tokens are looked up in the embedding as it is
        model.head = torch.nn.Linear(*model.embedding.weight.shape[::-1], bias=False)
        model.head.weight = torch.nn.Parameter(model.embedding.weight.detach().clone())
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear) and dtype == "int8":
                q, scale = quantise(layer.weight)
                layer.weight.copy_(q * scale.float()[:, None])
            elif isinstance(layer, torch.nn.Linear):
                layer.weight.copy_(layer.weight.to(getattr(torch, dtype)))
    return model


def predictions(model: Any, config: GPTConfig, ids: Tensor, lengths: Sequence[int]) -> Tensor:
    """Logits (B, n, V) behind prompts of unequal length, and behind each of 8 tokens more."""
    cache, logits = KVCache(config, len(ids), BLOCK), []
    at, rows = torch.tensor(lengths), torch.arange(len(ids))
    logits.append(model(ids[:, : max(lengths)], cache, at - 1))
    cache.lengths += at
    for step in range(8):
        logits.append(model(ids[rows, at + step][:, None], cache, torch.zeros_like(at)))
        cache.lengths += 1
    return torch.cat(logits, dim=1)


def some_ids(rows: int = 3, length: int = BLOCK) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(params=CONFIGS, ids=str)
def config(request: pytest.FixtureRequest) -> GPTConfig:
    return CONFIGS[request.param]


@pytest.mark.parametrize("lengths", [[5, 9, 12], [9, 9, 9]], ids=["uneven", "even"])
def test_in_float32_it_is_the_model(config: GPTConfig, lengths: list[int]) -> None:
    """Rows of equal and of unequal length, a prompt and then token by token."""
    model, ids = lively(config), some_ids()
    ours = predictions(Decoder(model, "float32"), config, ids, lengths)
    torch.testing.assert_close(ours, predictions(model, config, ids, lengths), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_its_weights_are_the_model_s_rounded(config: GPTConfig, dtype: str) -> None:
    """It is the model with rounded weights, but for vectors rounded to bfloat16 in products."""
    model, ids, lengths = lively(config), some_ids(), [5, 9, 12]
    ours = predictions(Decoder(model, dtype), config, ids, lengths).float()
    theirs = predictions(rounded(model, dtype), config, ids, lengths)
    assert distance(ours, theirs) < (1e-5 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_is_the_same_alone_and_in_a_batch(config: GPTConfig, dtype: str) -> None:
    """Within rounding: kernels for one row and for several add in different orders."""
    decoder, ids = Decoder(lively(config), dtype), some_ids(16)
    together = predictions(decoder, config, ids, [9] * 16).float()
    for row in (0, 7, 15):
        alone = predictions(decoder, config, ids[row : row + 1], [9]).float()
        assert distance(alone[0], together[row]) < (1e-5 if dtype == "float32" else 0.02)


def test_a_weight_moves_by_half_a_step_at_most() -> None:
    """Integers are symmetric, zero stays zero, and the largest of a row is kept within a step."""
    torch.manual_seed(0)
    weight = torch.randn(50, 200) * torch.logspace(-6, 4, 50)[:, None]
    weight[3] = 0
    q, scale = quantise(weight)
    assert q.dtype == torch.int8 and q.min() >= -127
    error = (q * scale.float()[:, None] - weight).abs()
    assert (error <= 0.5001 * scale.float()[:, None]).all()
    assert (q[3] == 0).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 16, 32, 33, 200])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_is_the_product(dtype: str, rows: int) -> None:
    """Of layers side by side, for any number of rows, with a kernel for few and one for many."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, n) for n in (48, 16, 7)]
    x = torch.randn(rows, 64)
    for layer in layers:
        kept = layer.weight.to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)
        if dtype == "int8":
            q, scale = quantise(layer.weight)
            kept = q * scale.float()[:, None]
        layer.weight.copy_(kept)
    wanted = torch.cat([layer(x) for layer in layers], dim=1)
    tolerance = 1e-6 if dtype == "float32" else 0.01
    assert distance(pack(layers, dtype)(x).float(), wanted) < tolerance


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_a_packed_kernel_the_numbers_are_the_same(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, x = [torch.nn.Linear(64, 48)], torch.randn(3, 64)
    packed = pack(layers, dtype)(x).float()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert distance(pack(layers, dtype)(x).float(), packed) < (1e-6 if dtype == "float32" else 0.01)


@pytest.fixture(scope="module")
def trained() -> tuple[GPT, Tensor]:
    """A model that has learnt what there is to learn of a text, and some of the text.

    Half of its tokens follow from the one before, the other half are random.
    """
    torch.manual_seed(0)
    follower, text = torch.randperm(V), torch.randint(V, (6000,))
    for t in range(1, len(text)):
        if torch.rand(()) < 0.5:
            text[t] = follower[text[t - 1]]
    model = GPT(GPTConfig.modern(**SHAPE))
    optimizer = Optimizer(model.named_parameters())
    draw = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(100):
            starts = torch.randint(len(text) - BLOCK, (16,), generator=draw).tolist()
            ids = torch.stack([text[start : start + BLOCK] for start in starts])
            logits = model(ids[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step(3e-3)
    return model.eval(), torch.stack([text[start : start + BLOCK] for start in (0, 1100, 4700)])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_fewer_bytes_cost_less_than_one_percent_of_the_loss(
    trained: tuple[GPT, Tensor], dtype: str
) -> None:
    """On a text that the model half knows, read token by token."""
    model, ids = trained

    def loss(decoder: Decoder) -> float:
        cache, total = KVCache(model.config, len(ids), BLOCK), 0.0
        for t in range(BLOCK - 1):
            logits = decoder(ids[:, t : t + 1], cache, torch.zeros(len(ids), dtype=torch.long))
            cache.lengths += 1
            total += float(F.cross_entropy(logits[:, 0].float(), ids[:, t + 1]))
        return total / (BLOCK - 1)

    whole = loss(Decoder(model, "float32"))
    assert 1 < whole < 4, "it should know something, but not all"
    assert abs(loss(Decoder(model, dtype)) / whole - 1) < 0.01


def test_it_writes_what_the_model_writes(trained: tuple[GPT, Tensor]) -> None:
    """Through `generate`, far beyond the context, several samples at once."""
    model, ids = trained
    prompts, facts = [[1], [1], ids[0, :5].tolist()], {"n_vocab": V, "max_new_tokens": 60}

    def text(writer: Any) -> list[list[int]]:
        steps = generate(
            writer, lambda rows: KVCache(model.config, rows, BLOCK), prompts, Sampling(), **facts
        )
        return [[token.id for token in step if token is not None] for step in steps]

    assert text(Decoder(model, "float32")) == text(model)
