"""minigen/loss.py: the loss is -ln p(target), of a text as of its tokens, for any logits."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from minigen.loss import NOT_SCORED, next_token_loss, token_losses

B, T, V = 3, 4, 7


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random logits (B, T, V) and targets (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(B, T, V, generator=generator)
    return logits, torch.randint(V, (B, T), generator=generator)


def test_a_model_that_knows_nothing_has_a_loss_of_ln_v_a_token() -> None:
    """If all logits are equal, each token has a loss of ln V, whatever the targets are."""
    _, targets = drawn()
    for logit in (0.0, -5.0):
        loss = next_token_loss(torch.full((B, T, V), logit), targets)
        assert loss.item() == pytest.approx(B * T * math.log(V))


def test_the_loss_is_ln_of_one_over_the_probability_of_each_target() -> None:
    """Each loss is ln of the sum of all e^logit over e^logit of the target; they add up."""
    logits, targets = drawn()
    expected = torch.zeros(B, T)
    for place in itertools.product(range(B), range(T)):
        row = logits[place].tolist()
        expected[place] = math.log(sum(map(math.exp, row)) / math.exp(row[targets[place]]))
    torch.testing.assert_close(token_losses(logits, targets), expected)
    torch.testing.assert_close(next_token_loss(logits, targets), expected.sum())


def test_the_losses_of_parts_add_up_to_that_of_the_whole() -> None:
    """The loss of a batch is the sum of the losses of its rows, of one or several at a time."""
    logits, targets = drawn()
    parts = [next_token_loss(logits[rows], targets[rows]) for rows in (slice(1), slice(1, None))]
    torch.testing.assert_close(sum(parts), next_token_loss(logits, targets))


def test_a_token_that_is_not_scored_costs_nothing() -> None:
    """Where the target is NOT_SCORED, the loss is 0, and the logits have no gradient."""
    logits, targets = drawn()
    targets[0, 1] = targets[2] = NOT_SCORED
    scored = targets != NOT_SCORED
    logits.requires_grad_()
    loss = next_token_loss(logits, targets)
    loss.backward()
    torch.testing.assert_close(loss, next_token_loss(logits[scored][None], targets[scored][None]))
    assert logits.grad is not None and not logits.grad[~scored].any()
    assert not token_losses(logits, targets)[~scored].any()


def test_logits_of_thousands_give_a_finite_loss() -> None:
    """A logit of 1000 beside a target's logit of -1000 costs 2000 nats, and a sure target none."""
    logits = torch.tensor([[[1000.0, -1000.0], [1000.0, -1000.0]]])
    assert token_losses(logits, torch.tensor([[1, 0]])).tolist() == [[2000, 0]]
    assert next_token_loss(logits, torch.tensor([[1, 0]])).item() == 2000


def test_logits_in_bfloat16_are_added_up_in_float32() -> None:
    """Logits in bfloat16 give the losses that the numbers give in float32."""
    logits, targets = drawn()
    logits = logits.bfloat16()
    for loss in (next_token_loss, token_losses):
        found = loss(logits, targets)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(logits.float(), targets))


def test_the_gradient_is_the_probability_less_1_at_the_target() -> None:
    """A step against the gradient lowers each token by its probability, and raises the target."""
    logits, targets = drawn()
    logits.requires_grad_()
    next_token_loss(logits, targets).backward()
    expected = logits.detach().softmax(-1)
    expected.scatter_add_(-1, targets[..., None], -torch.ones(B, T, 1))
    torch.testing.assert_close(logits.grad, expected)
