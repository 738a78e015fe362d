"""How well a model predicts a text: the loss, by position, and calibration."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignorant import ignorant

from minigen.evaluation.text import (
    N_BINS,
    calibration_sums,
    relative_to_entropy,
    text_metrics,
    unigram_loss,
)


def test_calibration_compares_probabilities_with_the_tokens_that_came() -> None:
    """The sums of two predictions of 0.72, 0.28 and 0 are those worked out by hand.

    The first token came after one of them, and the last token after the other.
    """
    p = torch.tensor([[0.72, 0.28, 0.0]] * 2)
    expected, observed, number = calibration_sums(p, torch.tensor([0, 2])).tolist()
    assert expected[14] == pytest.approx(1.44) and expected[5] == pytest.approx(0.56)
    assert observed[14] == 1 and observed[5] == 0 and observed[0] == 1
    assert number[14] == number[5] == number[0] == 2 and sum(number) == 6


@given(st.integers(2, 60), st.integers(0, 2**32))
def test_no_probability_is_lost_between_the_bins(n_vocab: int, seed: int) -> None:
    """The sums equal those of a loop that puts each probability into its bin by itself."""
    g = torch.Generator().manual_seed(seed)
    p = (4 * torch.randn(5, n_vocab, generator=g).double()).softmax(dim=-1)
    targets = torch.randint(n_vocab, (5,), generator=g)
    found = calibration_sums(p, targets)
    assert found.sum(dim=1).tolist() == pytest.approx([5, 5, 5 * n_vocab])
    for i in range(N_BINS):
        inside = ((p * N_BINS).long().clamp(max=N_BINS - 1) == i).nonzero().tolist()
        came = sum(int(targets[row]) == id for row, id in inside)
        assert found[:, i].tolist() == pytest.approx(
            [sum(float(p[row, id]) for row, id in inside), came, len(inside)], abs=1e-9
        )


def test_a_model_that_knows_nothing_has_the_loss_ln_v_everywhere(tmp_path: Path) -> None:
    """A uniform model has the loss ln V at each position, perplexity V, and is calibrated."""
    model, tokens = ignorant(tmp_path, "ab" * 100)
    n_vocab = model.config.vocab_size
    metrics = text_metrics(model, tokens, n_vocab, 32)
    assert metrics.n_tokens == 200 and metrics.loss == pytest.approx(math.log(n_vocab))
    assert metrics.perplexity == pytest.approx(n_vocab)
    assert [loss for _, loss in metrics.by_position] == pytest.approx([math.log(n_vocab)] * 16)
    assert [last for last, _ in metrics.by_position] == list(range(2, 33, 2))
    assert metrics.calibration_error == pytest.approx(0, abs=1e-9)
    assert metrics.calibration == [(pytest.approx(1 / n_vocab), 1 / n_vocab, 200 * n_vocab)]


def test_the_unigram_loss_is_the_entropy_of_token_frequencies(tmp_path: Path) -> None:
    """With many tokens, it is -sum p ln p over the frequencies p of the text's tokens."""
    model, tokens = ignorant(tmp_path, "ab" * 10000)  # and END_OF_TEXT once
    loss = unigram_loss(tokens, tokens, model.config.vocab_size)
    assert loss == pytest.approx(math.log(2), abs=0.02)


def test_a_loss_is_above_or_below_the_entropy_in_percent_of_the_entropy() -> None:
    """A loss on little text can be below the entropy of the text, by chance."""
    assert relative_to_entropy(0.75, 0.5) == "50.0% above the text's entropy of 0.5000"
    assert relative_to_entropy(0.5, 0.5) == "0.0% above the text's entropy of 0.5000"
    assert relative_to_entropy(0.45, 0.5) == "10.0% below the text's entropy of 0.5000, by chance"
    # Of answers, most of which are certain, a few may have hardly any surprise.
    assert relative_to_entropy(0.001, 0.003).endswith("0.0030, by chance")


def test_a_loss_far_below_the_entropy_is_not_called_chance() -> None:
    """Below four fifths of the entropy, the line says that the answers have leaked."""
    leaked = "the model has seen the tokens that it predicts"
    assert leaked in relative_to_entropy(0.0013, 0.1553)
    assert leaked in relative_to_entropy(0.39, 0.5)
    assert leaked not in relative_to_entropy(0.41, 0.5)
