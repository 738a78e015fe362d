"""minigen.inference.cpu: the decoder computes the logits of the model, from fewer bytes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import math
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from models import architectures, random_model
from torch import Tensor
from torch.nn import functional as F

from minigen.errors import UserError
from minigen.inference import cpu
from minigen.inference.cpu import CompactLinear, Decoder, quantise
from minigen.model import GPT, GPTConfig, KVCache
from minigen.optim import Optimizer
from minigen.sampling import PLAIN, generate

V, BLOCK = 97, 32
CONFIGS = architectures(V, BLOCK, n_embd=64)
DTYPES = ["float32", "bfloat16", "int8"]


def rounded(model: GPT, dtype: str) -> GPT:
    """Return a copy of the model in float32, its matrices rounded to the numbers of `dtype`."""
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
    """Return the logits (B, 9, V) after each prompt and after each of 8 more tokens.

    Args:
        ids: (B, block_size); the prompt of row b is its first lengths[b] tokens.
        dtype: of the weights of the `Decoder` that the cache is made for.
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
    """Return random ids (rows, length), the same at each call."""
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(1))


def distance(a: Tensor, b: Tensor) -> float:
    """Return the length of the difference, relative to the length of b."""
    return float((a - b).norm() / b.norm())


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """Compute without gradients in each test."""
    with torch.no_grad():
        yield


@pytest.fixture(params=CONFIGS, ids=str)
def config(request: pytest.FixtureRequest) -> GPTConfig:
    """Return each architecture in turn."""
    return CONFIGS[request.param]


@pytest.fixture(params=["compiled", "as PyTorch has it"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with cpu.c, and once more as on a machine without a C compiler."""
    if request.param != "compiled":
        monkeypatch.setattr(cpu, "code", lambda: None)
    elif cpu.code() is None:
        pytest.skip("there is no C compiler here")
    return str(request.param)


@pytest.mark.parametrize("lengths", [[5, 9, 10], [9, 9, 9], [9, 16, 4]], ids=str)
def test_in_float32_the_decoder_gives_the_logits_of_the_model(
    config: GPTConfig, how: str, lengths: list[int]
) -> None:
    """This holds in prefill and in decoding, for prompts of equal and of unequal length."""
    model, ids = random_model(config), some_ids()
    expected = predictions(model, config, ids, lengths)
    decoded = predictions(Decoder(model, "float32"), config, ids, lengths)
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(predictions(model, config, ids, lengths), expected), "the model was changed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gpt2", "modern"])
def test_an_activation_of_a_large_negative_number_is_finite(name: str, dtype: str) -> None:
    """GELU and SiLU of -100 and less are nearly zero, as PyTorch has them, and never NaN."""
    config = CONFIGS[name]
    model = random_model(config)
    for block in model.blocks:
        for layer in (block.mlp.up, block.mlp.gate):
            if layer is not None:
                layer.weight *= 100
    expected = predictions(rounded(model, dtype), config, some_ids(), [5, 9, 10])
    decoder = Decoder(copy.deepcopy(model), dtype)
    logits = predictions(decoder, config, some_ids(), [5, 9, 10], dtype)
    assert distance(logits, expected) < (1e-5 if dtype == "float32" else 0.05)


@pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="needs ziglang")
def test_compiled_by_ziglang_the_decoder_gives_the_logits_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is so in each architecture and format, where no other compiler is installed."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("sys.pycache_prefix", str(tmp_path))  # the library is kept there
    monkeypatch.setattr(cpu, "code", functools.cache(cpu.code.__wrapped__))
    for config in CONFIGS.values():
        model, ids = random_model(config), some_ids()
        for dtype in DTYPES:
            expected = predictions(rounded(model, dtype), config, ids, [1, 2, 2], dtype)
            decoder = Decoder(copy.deepcopy(model), dtype)
            assert decoder.code is not None
            decoded = predictions(decoder, config, ids, [1, 2, 2], dtype)
            assert distance(decoded, expected) < (1e-5 if dtype == "float32" else 2e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [[1, 2, 2], [5, 9, 12]], ids=["short", "long"])
def test_a_decoder_of_fewer_bytes_is_the_model_with_rounded_weights(
    config: GPTConfig, how: str, dtype: str, lengths: list[int]
) -> None:
    """Only weights are rounded, except that PyTorch's products round vectors to bfloat16 too."""
    model, ids = random_model(config), some_ids()
    expected = predictions(rounded(model, dtype), config, ids, lengths, dtype)
    decoded = predictions(Decoder(model, dtype), config, ids, lengths, dtype)
    only_c = how == "compiled" and max(lengths) < 5
    assert distance(decoded, expected) < (1e-5 if dtype == "float32" else 2e-3 if only_c else 0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, length", [(6, 1), (6, 2), (2, 16), (16, 9)], ids=str)
def test_the_bits_of_a_row_do_not_depend_on_the_batch(
    config: GPTConfig, how: str, dtype: str, rows: int, length: int
) -> None:
    """Alone and in a batch a text has the same logits: bit for bit where cpu.c computes them.

    PyTorch, which computes a long prefill, adds in another order for another number of rows.
    """
    decoder, ids = Decoder(random_model(config), dtype), some_ids(rows)
    together = predictions(decoder, config, ids, [length] * rows, dtype)
    only_c = decoder.code is not None and (length == 1 or rows * length <= decoder.max_prefill)
    for row in range(rows):
        alone = predictions(decoder, config, ids[row : row + 1], [length], dtype)
        if only_c:
            assert torch.equal(alone[0], together[row])
        assert distance(alone[0], together[row]) < (1e-5 if dtype == "float32" else 0.02)


ODD_SHAPES = [(15, 3, 5, 7), (18, 3, 6, 22), (34, 1, 34, 2)]  # n_embd, n_head, head_dim, n_ffn


def odd(shape: tuple[int, int, int, int]) -> GPTConfig:
    """Return an architecture whose widths are no multiples of a vector register's length."""
    n_embd, n_head, head_dim, n_ffn = shape
    return GPTConfig.gpt2(V, BLOCK, 2, n_head, n_embd, head_dim=head_dim, n_ffn=n_ffn)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ODD_SHAPES, ids=str)
def test_any_width_is_computed_to_its_end(shape: tuple[int, int, int, int], dtype: str) -> None:
    """No number of a vector is left out or read twice, whatever the vector's length."""
    config, ids, lengths = odd(shape), some_ids(5), [1, 2, 2, 1, 2]
    expected = predictions(rounded(random_model(config), dtype), config, ids, lengths, dtype)
    decoded = predictions(Decoder(random_model(config), dtype), config, ids, lengths, dtype)
    assert distance(decoded, expected) < (1e-5 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ODD_SHAPES, ids=str)
def test_the_bits_do_not_depend_on_the_number_of_threads(
    shape: tuple[int, int, int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, two and three threads give the same logits, to texts in a batch and to one alone."""
    config, ids, lengths, found = odd(shape), some_ids(5), [1, 2, 2, 1, 2], []
    monkeypatch.setattr(cpu, "MIN_PRODUCTS_PER_THREAD", 1)
    for n_threads in (1, 2, 3):
        monkeypatch.setattr(cpu.threads, "adapt", lambda n=n_threads: n)
        decoder = Decoder(random_model(config), dtype)
        found.append(predictions(decoder, config, ids, lengths, dtype))
        if decoder.code is not None:
            alone = predictions(decoder, config, ids[:1], lengths[:1], dtype)
            assert torch.equal(alone, found[0][:1])
    assert all(torch.equal(logits, found[0]) for logits in found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["norm.weight", "embedding.weight", "blocks.1.mlp.up.weight"])
def test_a_nan_in_any_weight_is_an_error(how: str, dtype: str, name: str) -> None:
    """A NaN of any tensor reaches the logits, in each format, and is reported in one line."""
    config = CONFIGS["modern"]
    model = random_model(config)
    model.get_parameter(name).flatten()[0] = math.nan
    writer = Decoder(model, dtype)
    new_cache = lambda rows: KVCache(config, rows, BLOCK, dtype=writer.cache_dtype)  # noqa: E731
    with pytest.raises(UserError, match="predicts NaN"):
        list(generate(writer, new_cache, [[0]], PLAIN, n_vocab=V, max_new_tokens=2))


def test_unknown_ids_and_a_full_cache_are_refused(how: str) -> None:
    """The decoder raises the errors of the model, and touches no memory outside the tensors."""
    config = CONFIGS["gpt2"]
    writer = Decoder(random_model(config), "float32")
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
    """The logits stay right if all products of a row and the scores of attention are large."""
    config = dataclasses.replace(CONFIGS["gpt2"], n_ffn=1024)
    model, ids, lengths = random_model(config), some_ids(), [1, 2, 2]
    for block in model.blocks:
        block.get_parameter("attention.query.weight").mul_(30)
        block.get_parameter("mlp.up.weight").zero_()
        block.get_parameter("mlp.up.bias").fill_(7.0)
        # Of both signs: the norm would subtract a constant.
        block.get_parameter("mlp.down.weight").fill_(0.5)[::2] = -0.5
    expected = predictions(rounded(model, dtype), config, ids, lengths, dtype)
    decoded = predictions(Decoder(model, dtype), config, ids, lengths, dtype)
    assert distance(decoded, expected) < 0.02


def huge_kilobytes(tensor: Tensor) -> int:
    """Return the kilobytes of large pages in the piece of memory that holds the tensor."""
    is_here = False
    for line in Path("/proc/self/smaps").read_text(errors="replace").splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            is_here = int(found[1], 16) <= tensor.data_ptr() < int(found[2], 16)
        elif is_here and line.startswith("AnonHugePages:"):
            return int(line.split()[1])
    return 0


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists()
    or tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 1),
    reason="the system moves no memory to large pages",
)
def test_the_weights_move_to_large_pages_and_stay_the_same() -> None:
    """Linux moves the weights when a Decoder is made; their numbers and addresses stay."""
    model = random_model(dataclasses.replace(CONFIGS["gpt2"], vocab_size=1 << 16))  # 16 MB
    weight = model.embedding.weight
    address, numbers = weight.data_ptr(), weight.clone()
    if Decoder(model, "float32").code is None:
        pytest.skip("there is no C compiler here, and PyTorch computes")
    assert weight.data_ptr() == address and torch.equal(weight, numbers)
    assert huge_kilobytes(weight) >= 4096


def test_the_c_code_does_not_round_the_process_s_tiny_numbers_to_zero() -> None:
    """PyTorch still computes with denormal numbers, which -ffast-math could switch off for all."""
    Decoder(random_model(CONFIGS["gpt2"]), "float32")
    assert torch.tensor(1e-40).mul(2).item() > 0


def test_a_weight_moves_by_half_a_step_at_most() -> None:
    """Rounding to int8 moves each weight by half a step of its row at most; zero stays zero."""
    torch.manual_seed(0)
    weight = torch.randn(50, 200) * torch.logspace(-6, 4, 50)[:, None]
    weight[3] = 0
    q, scale = quantise(weight)
    assert q.dtype == torch.int8 and q.min() >= -127
    error = (q * scale.float()[:, None] - weight).abs()
    assert (error <= 0.5001 * scale.float()[:, None]).all()
    assert (q[3] == 0).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("n_vectors", [5, 15], ids=["few", "many"])
def test_a_compact_linear_layer_is_the_layer_with_rounded_weights(
    how: str, dtype: str, n_vectors: int
) -> None:
    """The result is that of rounded weights; 0.01 allows for an x rounded to bfloat16."""
    torch.manual_seed(0)
    for layer in (torch.nn.Linear(64, 48), torch.nn.Linear(64, 48, bias=False)):
        x, compact = torch.randn(2, n_vectors, 64), CompactLinear(layer, dtype)
        scale = 1 if compact.scale is None else compact.scale[:, None]
        layer.weight.copy_(compact.weight * scale)
        assert distance(compact(x), layer(x)) < 0.01
        assert distance(compact(x.transpose(0, 1)), layer(x.transpose(0, 1))) < 0.01


@pytest.fixture(scope="module")
def trained() -> tuple[GPT, Tensor]:
    """Return a model that has learnt a text, and three pieces (3, block_size) of the text.

    Half of the text's tokens follow from the token before; the other half are random.
    """
    torch.manual_seed(0)
    follower, text = torch.randperm(V), torch.randint(V, (6000,))
    for t in range(1, len(text)):
        if torch.rand(()) < 0.5:
            text[t] = follower[text[t - 1]]
    model = GPT(CONFIGS["modern"])
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
def test_fewer_bytes_cost_under_one_percent_of_the_loss(
    trained: tuple[GPT, Tensor], how: str, dtype: str
) -> None:
    """bfloat16 and int8 change the loss of a trained model, token by token, by less than 1 %."""
    model, ids = trained

    def loss(writer: Decoder) -> float:
        """Return the mean loss, in nats per token, of tokens that are read one by one."""
        cache, total = KVCache(model.config, len(ids), BLOCK, dtype=writer.cache_dtype), 0.0
        for t in range(BLOCK - 1):
            logits = writer(ids[:, t : t + 1], cache, torch.zeros(len(ids), dtype=torch.long))
            cache.lengths += 1
            total += float(F.cross_entropy(logits[:, 0].float(), ids[:, t + 1]))
        return total / (BLOCK - 1)

    exact = loss(Decoder(copy.deepcopy(model), "float32"))
    assert 1 < exact < 4, "the model should have learnt something, but not everything"
    assert abs(loss(Decoder(copy.deepcopy(model), dtype)) / exact - 1) < 0.01


def test_in_float32_the_decoder_writes_the_tokens_of_the_model(
    trained: tuple[GPT, Tensor], how: str
) -> None:
    """The texts of `generate` agree, several at once and far beyond the context."""
    model, ids = trained
    prompts, facts = [[1], [1], ids[0, :5].tolist()], {"n_vocab": V, "max_new_tokens": 60}

    def texts(writer: Any) -> list[list[int]]:
        """Return the ids that `generate` yields, step by step."""
        steps = generate(
            writer, lambda rows: KVCache(model.config, rows, BLOCK), prompts, PLAIN, **facts
        )
        return [[token.id for token in step if token is not None] for step in steps]

    assert texts(Decoder(model, "float32")) == texts(model)
