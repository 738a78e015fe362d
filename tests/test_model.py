"""The transformer: no token sees the future, and each fast way computes the plain formula."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from models import architectures, random_model
from torch.nn import functional as F

from minigen import model as model_module
from minigen.errors import UserError
from minigen.model import (
    GPT,
    MLP,
    Block,
    GPTConfig,
    KVCache,
    RMSNorm,
    apply_rope,
    attention,
    naive_attention,
    rope_cos_sin,
)

CONFIGS = architectures(vocab_size=97, block_size=32, n_embd=32)


def some_ids(rows: int = 3, length: int = 20) -> torch.Tensor:
    """Return random ids (rows, length), the same at each call."""
    return torch.randint(97, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=CONFIGS, ids=str)
def config(request: pytest.FixtureRequest) -> GPTConfig:
    """Return each architecture in turn."""
    return CONFIGS[request.param]


def test_gpt2_has_the_parameters_of_gpt2() -> None:
    """Each of the four published sizes of GPT-2 has its number of parameters, exactly."""
    sizes = {(12, 12, 768): 124_439_808, (24, 16, 1024): 354_823_168,
             (36, 20, 1280): 774_030_080, (48, 25, 1600): 1_557_611_200}  # fmt: skip
    for (n_layer, n_head, n_embd), n_parameters in sizes.items():
        with torch.device("meta"):
            model = GPT(GPTConfig.gpt2(n_layer=n_layer, n_head=n_head, n_embd=n_embd))
        assert model.n_parameters() == n_parameters


def test_no_token_sees_the_future(config: GPTConfig) -> None:
    """The gradient of the logits at t is exactly 0 for the embedding of any later token."""
    model, ids, t = random_model(config), some_ids(), 11
    seen: list[torch.Tensor] = []
    model.embedding.register_forward_hook(lambda *args: seen.append(args[2]))
    logits = model(ids)
    (gradient,) = torch.autograd.grad(logits[:, t].square().sum(), seen)  # (B, T, C)
    assert (gradient[:, t + 1 :] == 0).all()
    assert (gradient[:, : t + 1].abs().sum(-1) > 0).all()  # and every token of the past matters


def test_every_parameter_matters(config: GPTConfig) -> None:
    """The loss has a gradient, which is not 0, for each parameter."""
    model, ids = random_model(config), some_ids(length=32)
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


def test_attention_by_itself_sees_a_set() -> None:
    """Without a mask and positions, attention does not change if keys and values change places."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 16) for n in (5, 9, 9))
    all_seen, order = torch.ones(5, 9, dtype=torch.bool), torch.randperm(9)
    shuffled = naive_attention(q, k[:, :, order], v[:, :, order], all_seen)
    torch.testing.assert_close(shuffled, naive_attention(q, k, v, all_seen))


@pytest.mark.parametrize("D", [4, 64, 1024])
def test_scores_keep_their_size(D: int) -> None:
    """For q and k of size 1, the weights are as spread out with 1,024 numbers a head as with 4.

    Each of the 400 values is a unit vector of its own, so the result of attention is its weights.
    """
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 400, D), torch.randn(1, 1, 400, D)
    weights = naive_attention(q, k, torch.eye(400)[None, None], torch.ones(400, 400).bool())
    scores = weights.log() - weights.log().mean(dim=-1, keepdim=True)
    assert 0.9 < scores.std() < 1.1
    assert weights.amax(dim=-1).mean() < 0.1


@pytest.mark.parametrize("T, S", [(1, 1), (7, 7), (64, 64), (1, 20), (5, 20)])
def test_naive_attention_is_the_kernel(T: int, S: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula and PyTorch's kernel agree, forwards and backwards, masked or causal."""
    monkeypatch.setattr(model_module, "NAIVE_UP_TO", 0)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 16, requires_grad=True) for n in (T, S, S))
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    for mask_or_none in (mask, None) if T == S else (mask,):
        results = []
        for attend in (naive_attention, attention):
            out = attend(q, k, v, mask_or_none)
            results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
        for naive, fast in zip(*results, strict=True):
            torch.testing.assert_close(naive, fast)


@pytest.mark.parametrize("longest_naive", [0, 256], ids=["kernel", "formula"])
def test_a_key_serves_neighbouring_query_heads(
    longest_naive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer key heads, head h is the attention of query head h and key head h // 3."""
    monkeypatch.setattr(model_module, "NAIVE_UP_TO", longest_naive)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 9, 16, requires_grad=True) for n in (6, 2, 2))
    out = attention(q, k, v)
    with torch.no_grad():  # the kernel itself then shares the key's head
        torch.testing.assert_close(attention(q, k, v), out)
    for head in range(6):
        q1, k1, v1 = q[:, [head]], k[:, [head // 3]], v[:, [head // 3]]
        torch.testing.assert_close(out[:, [head]], naive_attention(q1, k1, v1))


def test_model_is_the_same_with_either_attention(
    config: GPTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits are the same up to rounding, whether `attention` takes formula or kernel."""
    model, ids = random_model(config), some_ids()
    naive = model(ids)
    monkeypatch.setattr(model_module, "NAIVE_UP_TO", 0)
    torch.testing.assert_close(model(ids), naive)


def test_cached_is_uncached(config: GPTConfig) -> None:
    """Prompts of unequal length, then single tokens, give with a cache the logits of one pass."""
    model, ids, lengths = random_model(config), some_ids(), torch.tensor([5, 9, 12])
    rows = torch.arange(3)
    with torch.no_grad():
        whole = model(ids)  # (3, 20, V)
        cache = KVCache(config, batch=3, capacity=32)
        prompt = ids[:, :12].clone()
        prompt[0, 5:] = 96  # padding after a row's end may be anything
        logits = model(prompt, cache, at=lengths - 1)
        cache.lengths += lengths
        for step in range(8):
            torch.testing.assert_close(logits[:, 0], whole[rows, lengths + step - 1])
            logits = model(ids[rows, lengths + step][:, None], cache)
            cache.lengths += 1


def test_pieces_of_a_text_are_the_text(config: GPTConfig) -> None:
    """Prompts of unequal length, then pieces of four tokens, give with a cache one pass's logits.

    Each token of a piece sees the cached tokens, and those of its piece up to itself.
    """
    model, ids, lengths = random_model(config), some_ids(), torch.tensor([5, 9, 12])
    rows = torch.arange(3)[:, None]
    with torch.no_grad():
        whole = model(ids)  # (3, 20, V)
        cache = KVCache(config, batch=3, capacity=32)
        model(ids[:, :12], cache)  # what comes after a row's end is overwritten
        cache.lengths += lengths
        for _ in range(2):
            positions = cache.positions(4)
            logits = model(ids[rows, positions], cache)
            torch.testing.assert_close(logits, whole[rows, positions])
            cache.lengths += 4


def test_a_cache_may_have_fewer_bits() -> None:
    """With keys and values cached in bfloat16, logits are those of float32 up to its rounding."""
    model, ids = random_model(CONFIGS["modern"]), some_ids()
    with torch.no_grad():
        cache = KVCache(model.config, batch=3, capacity=32, dtype=torch.bfloat16)
        model(ids[:, :12], cache)
        cache.lengths += 12
        logits, whole = model(ids[:, 12:], cache), model(ids)[:, 12:]
    assert logits.dtype == whole.dtype
    assert 0 < (logits - whole).abs().max() < 0.05 * whole.std()


def test_a_fresh_model_finds_all_tokens_equally_likely(config: GPTConfig) -> None:
    """The first loss is ln V within 2 %."""
    torch.manual_seed(0)
    model, ids = GPT(config), some_ids(16, 32)
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert abs(loss.item() / math.log(97) - 1) < 0.02


def test_zeros_hold_back_gradients_for_one_step(config: GPTConfig) -> None:
    """Of a block, only `output` and `down` have a gradient in step 1; in step 2 all weights do."""
    torch.manual_seed(0)
    model, ids = GPT(config), some_ids()

    def without_gradient() -> set[str]:
        model.zero_grad()
        F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        return {name for name, p in model.named_parameters() if not p.grad.any()}  # type: ignore

    first = {name for name, _ in model.named_parameters() if name.startswith("blocks.")}
    first -= {name for name in first if ".output." in name or ".down." in name}
    assert without_gradient() == first
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad  # type: ignore[operator]
    assert without_gradient() == set()


def test_rotary_scores_depend_on_distance_only() -> None:
    """A query and a key have the same score at any two positions that are equally far apart."""
    config = GPTConfig.modern(97, head_dim=8)
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    positions = torch.arange(10)[None]
    cos, sin = rope_cos_sin(positions, config)  # (1, 1, 10, 8)
    scores = (apply_rope(q, cos, sin) @ apply_rope(k, cos, sin).mT)[0, 0]  # (10, 10)
    for distance in range(-9, 10):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[0].std() > 0.01


def test_rotary_positions_multiply_complex_numbers() -> None:
    """Each pair is a complex number, and turns by its product with e^(i angle); bfloat16 stays."""
    config, positions = GPTConfig.modern(97, head_dim=8), torch.arange(10)[None]
    x = torch.randn(1, 3, 10, 8, generator=torch.Generator().manual_seed(0))
    left, right = x.chunk(2, dim=-1)
    angle = torch.arange(10.0)[:, None] * 10_000.0 ** (-torch.arange(4) / 4)  # (T, D/2)
    turned = torch.complex(left, right) * torch.polar(torch.ones(10, 4), angle)
    cos, sin = rope_cos_sin(positions, config)
    result = apply_rope(x, cos, sin)
    torch.testing.assert_close(result, torch.cat((turned.real, turned.imag), dim=-1))
    assert apply_rope(x.bfloat16(), cos, sin).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e3])
def test_rms_norm_is_that_of_pytorch(size: float) -> None:
    """RMSNorm gives the numbers of torch.nn.RMSNorm, for vectors of any size."""
    torch.manual_seed(0)
    norm, reference, x = RMSNorm(24, 1e-6), torch.nn.RMSNorm(24, 1e-6), size * torch.randn(5, 24)
    torch.nn.init.normal_(norm.weight)
    reference.weight = norm.weight
    torch.testing.assert_close(norm(x), reference(x))


def test_rms_norm_does_not_overflow() -> None:
    """Numbers whose squares are too large for float16 are normalised as all others are."""
    x = torch.full((1, 8), 1000.0, dtype=torch.float16)
    torch.testing.assert_close(RMSNorm(8, 1e-6)(x), torch.ones(1, 8))


def test_swiglu_is_its_formula() -> None:
    """The MLP narrows u g / (1 + e^-g), of each number u and its gate g, computed one by one."""
    torch.manual_seed(0)
    mlp, x = MLP(CONFIGS["modern"]), torch.randn(32)
    assert isinstance(mlp.gate, torch.nn.Linear)
    up, gate = ((matrix.weight @ x).tolist() for matrix in (mlp.up, mlp.gate))
    bent = torch.tensor([u * g / (1 + math.exp(-g)) for u, g in zip(up, gate, strict=True)])
    torch.testing.assert_close(mlp(x[None, None])[0, 0], mlp.down.weight @ bent)


def test_a_closed_gate_stops_all_numbers() -> None:
    """A gate of -100 makes the result of SwiGLU zero, and a gate of 100 multiplies it by 100."""
    torch.manual_seed(0)
    mlp, x = MLP(CONFIGS["modern"]), torch.rand(1, 3, 32)
    x = x / x.sum(-1, keepdim=True)  # so that each gate below is the number that fills its matrix
    assert isinstance(mlp.gate, torch.nn.Linear)
    for gate, factor in ((-100.0, 0.0), (100.0, 100.0)):
        torch.nn.init.constant_(mlp.gate.weight, gate)
        torch.testing.assert_close(mlp(x), factor * mlp.down(mlp.up(x)))


def test_a_block_of_gpt2_is_a_layer_of_pytorch() -> None:
    """A block of GPT-2 gives the numbers of torch.nn.TransformerEncoderLayer."""
    config = CONFIGS["gpt2"]
    block = random_model(config).blocks[0]
    assert isinstance(block, Block)
    a, mlp = block.attention, block.mlp
    parts = {"self_attn.out_proj": a.output, "linear1": mlp.up, "linear2": mlp.down,
             "norm1": block.attention_norm, "norm2": block.mlp_norm}  # fmt: skip
    weights = {f"{n}.{k}": t for n, part in parts.items() for k, t in part.state_dict().items()}
    for kind in ("weight", "bias"):  # PyTorch's layer has one matrix for the three
        three = [getattr(part, kind) for part in (a.query, a.key, a.value)]
        weights[f"self_attn.in_proj_{kind}"] = torch.cat(three)
    layer = torch.nn.TransformerEncoderLayer(
        config.n_embd, config.n_head, config.n_ffn, dropout=0.0, norm_first=True, batch_first=True,
        activation=lambda x: F.gelu(x, approximate="tanh"), layer_norm_eps=config.norm_eps,
    )  # fmt: skip
    layer.load_state_dict(weights)
    x, hidden = torch.randn(2, 9, config.n_embd), torch.ones(9, 9).triu(1).bool()
    torch.testing.assert_close(block(x, None), layer(x, src_mask=hidden))


def test_a_block_only_adds(config: GPTConfig) -> None:
    """If attention and MLP give zeros, or are dropped, a block returns its input bit for bit."""
    torch.manual_seed(0)
    fresh, dropping = GPT(config).blocks[0], random_model(config).train().blocks[0]
    assert isinstance(dropping, Block)
    dropping.dropout.p = 1.0
    x = torch.randn(2, 9, config.n_embd)
    cos_sin = rope_cos_sin(torch.arange(9)[None], config) if config.position == "rotary" else None
    for block in (fresh, dropping):  # the matrices of a fresh block that add are zeros
        assert torch.equal(block(x, cos_sin), x)


def test_dropout_acts_in_training_only() -> None:
    """Dropout changes no logit in evaluation mode; in training mode it changes them at random."""
    config, ids = CONFIGS["gpt2"], some_ids()
    model = random_model(dataclasses.replace(config, dropout=0.5))
    torch.testing.assert_close(model(ids), random_model(config)(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_at_selects_one_position_of_each_row(config: GPTConfig) -> None:
    """The logits at the positions `at` are the logits of a pass without `at`, one per row."""
    model, ids, at = random_model(config), some_ids(), torch.tensor([0, 19, 7])
    torch.testing.assert_close(model(ids, at=at)[:, 0], model(ids)[torch.arange(3), at])


def test_too_long_a_sequence_is_refused(config: GPTConfig) -> None:
    """A sequence of block_size tokens fits, one more does not; tokens in the cache count too."""
    model = GPT(config)
    model(some_ids(1, 32))
    with pytest.raises(ValueError, match="33 tokens do not fit into 32"):
        model(some_ids(1, 33))
    cache = KVCache(config, batch=1, capacity=32)
    cache.lengths += 30
    with pytest.raises(ValueError, match="33 tokens do not fit into 32"):
        model(some_ids(1, 3), cache)


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"n_embd": 30}, "n_embd 30 is not divisible by n_head 4"),
        ({"n_head": 0}, "n_head"),
        ({"n_layer": -1}, "n_layer is -1"),
        ({"n_kv_head": 3}, "n_head 4 is not a multiple of n_kv_head 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
    ],
)
def test_numbers_that_do_not_fit_are_named(change: dict[str, Any], complaint: str) -> None:
    """A config that makes no model is refused in one line, which names the number."""
    with pytest.raises(UserError, match=complaint) as caught:
        GPTConfig.modern(**{"vocab_size": 97, **change})
    assert "\n" not in str(caught.value)


def test_packed_documents_do_not_see_each_other(config: GPTConfig) -> None:
    """Documents in one sequence get the logits that each gets alone, whatever the others are."""
    model, lengths = random_model(config), (5, 1, 7, 3)
    ids = some_ids(2, sum(lengths))
    begins = torch.tensor([sum(lengths[:n]) for n, m in enumerate(lengths) for _ in range(m)])
    packed = model(ids, begins=begins.expand(2, -1))
    parts = [model(part) for part in ids.split(lengths, dim=1)]
    torch.testing.assert_close(packed, torch.cat(parts, dim=1), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="no cache"):
        model(ids, KVCache(config, 2, 16), begins=begins.expand(2, -1))
