"""The optimiser: the learning-rate schedule, and AdamW and Muon, which take PyTorch's steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from minigen.errors import UserError
from minigen.model import GPT, GPTConfig
from minigen.optim import Optimizer, lr_factor, newton_schulz


def test_lr_is_a_trapezoid() -> None:
    """The factor rises over the warm-up, stays at 1, falls over the cooldown, and is never 0."""
    rates = [lr_factor(s, max_steps=100, warmup_steps=10, cooldown=0.4) for s in range(100)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert set(rates[9:61]) == {1.0}
    assert rates[60:] == pytest.approx([(100 - s) / 40 for s in range(60, 100)])
    assert min(rates) > 0


def test_lr_where_warm_up_meets_cooldown() -> None:
    """If cooldown begins before the end of the warm-up, the lower of the two lines counts."""
    rates = [lr_factor(s, max_steps=20, warmup_steps=15, cooldown=0.9) for s in range(20)]
    rising, falling = [(s + 1) / 15 for s in range(20)], [(20 - s) / 18 for s in range(20)]
    assert rates == pytest.approx(rising[:9] + falling[9:])


def test_lr_before_the_number_of_steps_is_known() -> None:
    """The first steps have the same factor before and after the number of steps is known."""
    for step in range(40):
        known = lr_factor(step, max_steps=100, warmup_steps=10, cooldown=0.6)
        assert lr_factor(step, max_steps=0, warmup_steps=10, cooldown=0.6) == known


@pytest.mark.parametrize("steps, warmup, cooldown", [(1, 0, 0.0), (1, 20, 1.0), (5, 20, 0.6)])
def test_lr_of_the_shortest_runs(steps: int, warmup: int, cooldown: float) -> None:
    """Every step of a run has a factor above 0, even in a run of one step."""
    assert all(0 < lr_factor(s, steps, warmup, cooldown) <= 1 for s in range(steps))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 48), (2, 48, 16)])
def test_newton_schulz_makes_singular_values_about_1(shape: tuple[int, int, int]) -> None:
    """Singular values above 0.003 of the matrix's norm come into 0.68 to 1.21; directions stay."""
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    n = min(shape[1:])
    before = torch.logspace(-2.4, 0, n).expand(shape[0], n)  # 0.004 to 1
    before = before / before.norm(dim=-1, keepdim=True)
    before = before.clamp(min=0.0031)
    inside = u.mT @ newton_schulz(100 * u @ torch.diag_embed(before) @ vh) @ vh.mT
    after = inside.diagonal(dim1=-2, dim2=-1)
    assert after.min() > 0.68 and after.max() < 1.21
    assert (inside - torch.diag_embed(after)).abs().max() < 1e-3  # diagonal: the same directions


def test_newton_schulz_takes_each_matrix_by_itself() -> None:
    """The result for a batch of matrices is the result for each matrix alone, up to rounding."""
    torch.manual_seed(0)
    m = torch.randn(3, 16, 48)
    alone = torch.cat([newton_schulz(one[None]) for one in m])
    torch.testing.assert_close(newton_schulz(m), alone, rtol=1e-4, atol=1e-5)


def test_adamw_is_that_of_pytorch() -> None:
    """AdamW gives the weights of torch.optim.AdamW after 20 steps; only matrices decay."""
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = Optimizer(ours.named_parameters(), muon=False, weight_decay=0.1)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    for step in range(20):
        x = torch.randn(8, 6)
        for net in (ours, theirs):
            net.zero_grad()
            net(x).square().sum().backward()
        optimizer.step(0.01 * (step + 1) / 20)
        for group in reference.param_groups:
            group["lr"] = 0.01 * (step + 1) / 20
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_an_embedding_without_a_gradient_stays_as_it_is() -> None:
    """The vector of a token that no batch had does not decay, as PyTorch's does; the others do."""
    ours, theirs = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))
    optimizer = Optimizer([("embedding.weight", ours)], weight_decay=1.0)
    reference = torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.95), weight_decay=1.0)
    for _ in range(3):
        for table in (ours, theirs):
            table[:2].square().sum().backward()
        optimizer.step(0.1)
        reference.step()
        theirs.grad = None
    torch.testing.assert_close(ours[:2], theirs[:2])
    assert ours[2].eq(1).all() and theirs[2].lt(0.75).all()


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_adamw_takes_as_long_steps_for_small_gradients(size: float) -> None:
    """A weight whose gradients agree moves by a learning rate in each step, however small they are.

    The 1e-8 in the divisor shortens the steps of gradients of 1e-6 by 1 %.
    """
    weight = nn.Parameter(torch.tensor([3.0, -3.0]))
    optimizer = Optimizer([("weight", weight)], muon=False)
    for _ in range(10):
        before = weight.detach().clone()
        weight.grad = torch.tensor([size, -size])
        optimizer.step(0.01)
        assert (before - weight).tolist() == pytest.approx([0.01, -0.01], rel=0.02)


def test_muon_is_that_of_pytorch() -> None:
    """Muon's steps are those of torch.optim.Muon, as exactly as its bfloat16 rounds allow."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no torch.optim.Muon")
    torch.manual_seed(0)
    shapes = ((16, 16), (16, 48), (48, 16), (16, 48))  # two of one shape are one batched product
    ours, theirs = (nn.ParameterDict() for _ in range(2))
    for i, shape in enumerate(shapes):
        value = torch.randn(shape)
        for parameters in (ours, theirs):
            parameters[f"{i}"] = nn.Parameter(value.clone())
    optimizer = Optimizer(((f"blocks.{n}", p) for n, p in ours.items()), weight_decay=0.1)
    reference = torch.optim.Muon(
        theirs.parameters(), lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    for _ in range(10):
        before = [p.detach().clone() for p in ours.values()]
        for a, b, start in zip(ours.values(), theirs.values(), before, strict=True):
            b.data.copy_(start)  # each step from the same weights: errors do not pile up
            b.grad = torch.randn(start.shape)
            a.grad = b.grad.clone()
        optimizer.step(0.02)
        reference.step()
        for a, b, start in zip(ours.values(), theirs.values(), before, strict=True):
            moved, apart = (b - start).norm(), (a - b).norm()
            assert apart < 0.05 * moved


def tiny() -> GPT:
    """Return an untrained model of two narrow blocks, the same at each call."""
    torch.manual_seed(0)
    return GPT(GPTConfig.modern(50, block_size=8, n_layer=2, n_head=2, n_embd=16))


@pytest.mark.parametrize(
    ("tied", "muon", "times"), [(False, True, 2), (True, True, 1), (False, False, 1)]
)
def test_an_untied_embedding_takes_steps_twice_as_long(tied: bool, muon: bool, times: int) -> None:
    """With Muon, an embedding that is not lm_head moves two learning rates in its first step."""
    torch.manual_seed(0)
    model = GPT(GPTConfig.modern(50, 8, 2, 2, 16, tie_embeddings=tied))
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    descend(model, Optimizer(model.named_parameters(), muon=muon, weight_decay=0.0), 1)
    for name, p in model.named_parameters():
        if name in ("embedding.weight", "lm_head.weight"):
            moved = (p.detach() - before[name]).abs().max() / 0.01  # AdamW's first step is one rate
            assert moved == pytest.approx(times if name == "embedding.weight" else 1, rel=1e-3)


def descend(model: GPT, optimizer: Optimizer, steps: int) -> None:
    """Train on random tokens, which depend on the number of steps that were taken before."""
    generator = torch.Generator().manual_seed(optimizer.step_count)
    for _ in range(steps):
        ids = torch.randint(50, (4, 9), generator=generator)
        nn.functional.cross_entropy(
            model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
        ).backward()
        optimizer.step(0.01)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    """Each parameter has one of two methods; a step of Muon is about 0.2 learning rates (rms)."""
    model = tiny()
    optimizer = Optimizer(model.named_parameters(), muon=True, weight_decay=0.0)
    by_muon = {name for group in optimizer.muon.values() for name in group}
    assert by_muon == {n for n, p in model.named_parameters() if p.ndim == 2 and "blocks" in n}
    assert by_muon | set(optimizer.adamw) == {n for n, _ in model.named_parameters()}
    assert not by_muon & set(optimizer.adamw)
    for p in model.parameters():  # a fresh model's zeros would hold gradients back
        nn.init.normal_(p, std=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    descend(model, optimizer, 1)
    for name, p in model.named_parameters():
        moved = (p - before[name]).norm() / p.numel() ** 0.5  # root mean square
        if name in by_muon:
            assert 0.001 < moved < 0.0026, name  # 0.2 of the rate, within the iteration's tolerance


def test_state_moves_to_another_optimiser() -> None:
    """Ten steps give the bits of four steps, a load of the state, and six steps."""
    whole, parts = tiny(), tiny()
    straight = Optimizer(whole.named_parameters())
    descend(whole, straight, 4)
    first = Optimizer(parts.named_parameters())
    descend(parts, first, 4)
    second = Optimizer(parts.named_parameters())
    second.load({name: t.clone() for name, t in first.state.items()}, first.step_count)
    descend(whole, straight, 6)
    descend(parts, second, 6)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_state_of_another_model_is_refused() -> None:
    """A state with other names or shapes cannot be loaded."""
    model = tiny()
    adamw, muon = (Optimizer(model.named_parameters(), muon=m) for m in (False, True))
    longer = {name: torch.zeros(2, *t.shape) for name, t in muon.state.items()}
    for state in (adamw.state, longer):
        with pytest.raises(UserError, match="not that of this model"):
            muon.load(state, 1)


@pytest.mark.parametrize("muon", [True, False])
def test_a_frozen_parameter_is_passed_over(muon: bool) -> None:
    """A frozen parameter keeps its bits, and all others move; the state of both is loaded."""
    torch.manual_seed(0)
    model = GPT(GPTConfig.modern(20, 8, n_layer=2, n_head=2, n_embd=8))
    frozen = {"embedding.weight", "blocks.0.mlp.down.weight", "blocks.1.mlp_norm.weight"}
    for name, p in model.named_parameters():
        nn.init.normal_(p).requires_grad_(name not in frozen)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Optimizer(model.named_parameters(), muon)
    for _ in range(2):
        model(torch.randint(20, (2, 8))).logsumexp(-1).mean().backward()
        optimizer.step(0.01)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - frozen
    again = Optimizer(model.named_parameters(), muon)
    again.load(optimizer.state, 2)
    assert all(torch.equal(t, optimizer.state[name]) for name, t in again.state.items())
