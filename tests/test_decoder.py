"""minigen.inference.cpu: the model's numbers, from weights that are read faster."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minigen.errors import UserError
from minigen.inference import cpu
from minigen.inference.cpu import Decoder, Matrix, quantise
from minigen.model import GPT, GPTConfig, KVCache
from minigen.optim import Optimizer
from minigen.sampling import PLAIN, generate

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
    "grouped queries": GPTConfig.modern(**SHAPE, n_kv_head=2, tie_embeddings=False),
    "llama": GPTConfig.modern(**SHAPE, n_kv_head=2, qk_norm=False),
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
    if model.lm_head is None:  # tokens are looked up in the embedding as it is
        model.lm_head = torch.nn.Linear(*model.embedding.weight.shape[::-1], bias=False)
        model.lm_head.weight = torch.nn.Parameter(model.embedding.weight.detach().clone())
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear) and dtype == "int8":
                q, scale = quantise(layer.weight)
                layer.weight.copy_(q * scale.float()[:, None])
            elif isinstance(layer, torch.nn.Linear):
                layer.weight.copy_(layer.weight.to(getattr(torch, dtype)))
    return model


def predictions(
    model: Any, config: GPTConfig, ids: Tensor, lengths: Sequence[int], dtype: str = "float32"
) -> Tensor:
    """Logits (B, n, V) behind prompts of unequal length, and behind each of 8 tokens more.

    The cache is as a `Decoder` of this dtype wants it.
    """
    number = torch.float32 if dtype == "float32" else torch.bfloat16
    cache, logits = KVCache(config, len(ids), BLOCK, dtype=number), []
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


@pytest.fixture(params=["compiled", "as PyTorch has it"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With cpu.c, and as where there is no compiler."""
    if request.param != "compiled":
        monkeypatch.setattr(cpu, "code", lambda: None)
    elif cpu.code() is None:
        pytest.skip("there is no C compiler here")
    return str(request.param)


@pytest.mark.parametrize("lengths", [[5, 9, 10], [9, 9, 9], [9, 16, 4]], ids=str)
def test_in_float32_it_is_the_model(config: GPTConfig, how: str, lengths: list[int]) -> None:
    """Rows of equal and of unequal length, prompts short and long, and then token by token."""
    model, ids = lively(config), some_ids()
    wanted = predictions(model, config, ids, lengths)
    ours = predictions(Decoder(model, "float32"), config, ids, lengths)
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(predictions(model, config, ids, lengths), wanted), "it was changed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [[1, 2, 2], [5, 9, 12]], ids=["short", "long"])
def test_its_weights_are_the_model_s_rounded(
    config: GPTConfig, how: str, dtype: str, lengths: list[int]
) -> None:
    """It is the model with rounded weights; PyTorch's products round vectors to bfloat16 too."""
    model, ids = lively(config), some_ids()
    theirs = predictions(rounded(model, dtype), config, ids, lengths, dtype)
    ours = predictions(Decoder(model, dtype), config, ids, lengths, dtype)
    only_c = how == "compiled" and max(lengths) < 5
    assert distance(ours, theirs) < (1e-5 if dtype == "float32" else 2e-3 if only_c else 0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, length", [(6, 2), (16, 9)], ids=["short", "long"])
def test_a_row_is_the_same_alone_and_in_a_batch(
    config: GPTConfig, how: str, dtype: str, rows: int, length: int
) -> None:
    """Bit for bit where all is compiled; PyTorch adds in another order for more rows."""
    model, ids = Decoder(lively(config), dtype), some_ids(rows)
    together = predictions(model, config, ids, [length] * rows, dtype)
    for row in range(rows):
        alone = predictions(model, config, ids[row : row + 1], [length], dtype)
        if how == "compiled" and length == 2:
            assert torch.equal(alone[0], together[row])
        assert distance(alone[0], together[row]) < (1e-5 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_widths_and_any_number_of_threads(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing divides by two, for more threads than there are heads; bit for bit the same."""
    for n_embd, n_head, head_dim, n_ffn in ((15, 3, 5, 7), (18, 3, 6, 22), (34, 1, 34, 2)):
        config = GPTConfig.gpt2(
            **{**SHAPE, "n_embd": n_embd, "n_head": n_head}, head_dim=head_dim, n_ffn=n_ffn
        )
        ids, lengths, found = some_ids(5), [1, 2, 2, 1, 2], []
        for n_threads in (1, 2, 3):
            monkeypatch.setattr(cpu, "WORTH_A_THREAD", 1)
            monkeypatch.setattr(cpu.threads, "follow", lambda n=n_threads: n)
            model = Decoder(lively(config), dtype)
            found.append(predictions(model, config, ids, lengths, dtype))
            found.append(predictions(model, config, ids[:1], lengths[:1], dtype))
        theirs = predictions(rounded(lively(config), dtype), config, ids, lengths, dtype)
        assert distance(found[0], theirs) < (1e-5 if dtype == "float32" else 0.02)
        for ours in found:
            compiled = model.code is not None  # PyTorch adds in another order for one row
            assert torch.equal(ours, found[0][: len(ours)]) or not compiled


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["norm.weight", "embedding.weight", "blocks.1.mlp.up.weight"])
def test_broken_weights_are_noticed(how: str, dtype: str, name: str) -> None:
    """A NaN in any tensor reaches the logits, in whatever format, and is one line."""
    config = CONFIGS["modern"]
    model = lively(config)
    model.get_parameter(name).flatten()[0] = math.nan
    writer = Decoder(model, dtype)
    new_cache = lambda rows: KVCache(config, rows, BLOCK, dtype=writer.cache_dtype)  # noqa: E731
    with pytest.raises(UserError, match="predicts NaN"):
        list(generate(writer, new_cache, [[0]], PLAIN, n_vocab=V, max_new_tokens=2))


def test_what_does_not_fit_is_refused(how: str) -> None:
    """As by the model: nothing is read or written beside the tensors."""
    config = CONFIGS["gpt2"]
    writer = Decoder(lively(config), "float32")
    cache, at = KVCache(config, 1, 8), torch.tensor([0])
    with pytest.raises(IndexError):
        writer(torch.tensor([[V]]), cache, at)
    with pytest.raises(IndexError):
        writer(torch.tensor([[-1]]), cache, at)
    cache.lengths += 6
    with pytest.raises(ValueError, match="9 tokens do not fit into 8"):
        writer(torch.zeros(1, 3, dtype=torch.long), cache, at)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_sums_and_scores_do_not_overflow(dtype: str) -> None:
    """Where all products of a row are as large as they can be, and attention is very sure."""
    config = GPTConfig.gpt2(**SHAPE, n_ffn=1024)
    model, ids, lengths = lively(config), some_ids(), [1, 2, 2]
    for block in model.blocks:
        block.get_parameter("attention.query.weight").mul_(30)
        block.get_parameter("mlp.up.weight").zero_()
        block.get_parameter("mlp.up.bias").fill_(7.0)
        block.get_parameter("mlp.down.weight").fill_(0.5)[::2] = -0.5  # no norm takes that away
    theirs = predictions(rounded(model, dtype), config, ids, lengths, dtype)
    ours = predictions(Decoder(model, dtype), config, ids, lengths, dtype)
    assert distance(ours, theirs) < 0.02


def test_tiny_numbers_stay_numbers() -> None:
    """Compiled code could make the whole process round them to zero."""
    Decoder(lively(CONFIGS["gpt2"]), "float32")
    assert torch.tensor(1e-40).mul(2).item() > 0


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


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_matrix_is_the_layer_rounded(dtype: str) -> None:
    """With and without a bias; where the processor multiplies bfloat16, x is rounded to it."""
    torch.manual_seed(0)
    for layer in (torch.nn.Linear(64, 48), torch.nn.Linear(64, 48, bias=False)):
        x, matrix = torch.randn(2, 5, 64), Matrix(layer, dtype)
        layer.weight.copy_(matrix.weight * (1 if matrix.scale is None else matrix.scale[:, None]))
        assert distance(matrix(x), layer(x)) < 0.01


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
    trained: tuple[GPT, Tensor], how: str, dtype: str
) -> None:
    """On a text that the model half knows, read token by token."""
    model, ids = trained

    def loss(writer: Decoder) -> float:
        cache, total = KVCache(model.config, len(ids), BLOCK, dtype=writer.cache_dtype), 0.0
        for t in range(BLOCK - 1):
            logits = writer(ids[:, t : t + 1], cache, torch.zeros(len(ids), dtype=torch.long))
            cache.lengths += 1
            total += float(F.cross_entropy(logits[:, 0].float(), ids[:, t + 1]))
        return total / (BLOCK - 1)

    whole = loss(Decoder(copy.deepcopy(model), "float32"))
    assert 1 < whole < 4, "it should know something, but not all"
    assert abs(loss(Decoder(copy.deepcopy(model), dtype)) / whole - 1) < 0.01


def test_it_writes_what_the_model_writes(trained: tuple[GPT, Tensor], how: str) -> None:
    """Through `generate`, far beyond the context, several samples at once."""
    model, ids = trained
    prompts, facts = [[1], [1], ids[0, :5].tolist()], {"n_vocab": V, "max_new_tokens": 60}

    def text(writer: Any) -> list[list[int]]:
        steps = generate(
            writer, lambda rows: KVCache(model.config, rows, BLOCK), prompts, PLAIN, **facts
        )
        return [[token.id for token in step if token is not None] for step in steps]

    assert text(Decoder(model, "float32")) == text(model)
