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
    above_entropy,
    calibration_sums,
    text_metrics,
    unigram_loss,
)


def test_calibration_compares_what_was_said_with_what_came() -> None:
    """Two predictions of 0.72, 0.28 and 0.0; the first token came once and the last once."""
    p = torch.tensor([[0.72, 0.28, 0.0]] * 2)
    expected, observed, number = calibration_sums(p, torch.tensor([0, 2])).tolist()
    assert expected[14] == pytest.approx(1.44) and expected[5] == pytest.approx(0.56)
    assert observed[14] == 1 and observed[5] == 0 and observed[0] == 1
    assert number[14] == number[5] == number[0] == 2 and sum(number) == 6


@given(st.integers(2, 60), st.integers(0, 2**32))
def test_no_probability_is_lost_between_the_bins(n_vocab: int, seed: int) -> None:
    """The same sums as when each probability is put into its bin by itself."""
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
    """It is calibrated all the same, and the text's own frequencies are as they are counted."""
    model, tokens = ignorant(tmp_path, "ab" * 100)
    n_vocab = model.config.vocab_size
    found = text_metrics(model, tokens, n_vocab, 32)
    assert found.n_tokens == 200 and found.loss == pytest.approx(math.log(n_vocab))
    assert [loss for _, loss in found.by_position] == pytest.approx([math.log(n_vocab)] * 16)
    assert [place for place, _ in found.by_position] == list(range(2, 33, 2))
    assert unigram_loss(tokens, tokens, n_vocab) > math.log(2)  # END_OF_TEXT, too
    assert found.calibration_error == pytest.approx(0, abs=1e-9)
    assert found.calibration == [(pytest.approx(1 / n_vocab), 1 / n_vocab, 200 * n_vocab)]


def test_a_loss_is_above_the_entropy_in_percent_of_the_entropy() -> None:
    """A loss on little text can be below the entropy, by chance."""
    assert above_entropy(0.75, 0.5) == "50.0% above the text's entropy"
    assert above_entropy(0.45, 0.5) == "-10.0% above the text's entropy"
