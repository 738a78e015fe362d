"""Each fault has its verdict, and real text with the same metrics has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minigen.evaluation import verdict as module
from minigen.evaluation.samples import (
    CopyMetrics,
    GenreMetrics,
    RepetitionMetrics,
    SampleMetrics,
)
from minigen.evaluation.text import TextMetrics
from minigen.evaluation.verdict import Comparison, Judgement, verdict


def metrics(
    stuck: float = 0.0,
    copied_run: float | None = 0.0,
    copied_whole: float = 0.0,
    genre: GenreMetrics | None = None,
) -> SampleMetrics:
    """Return the metrics of texts without any fault but the given ones."""
    return SampleMetrics(
        genre,
        RepetitionMetrics(0.0, None, stuck, None, None, None, None),
        CopyMetrics(copied_run, copied_whole, 0),
        0.5,
    )


ALL_RIGHT = GenreMetrics(well_formed=1.0, follows_prompt=1.0, valid=1.0, follows_other_prompt=0.0)
SOUND = metrics(genre=ALL_RIGHT)


def judged(
    samples: SampleMetrics = SOUND,
    real: SampleMetrics = SOUND,
    loss: float = 1.0,
    train_loss: float | None = 1.0,
    n_samples: int = 40,
    whole_documents: bool = False,
) -> list[str]:
    """Return the verdicts on a model with these metrics, without their numbers."""
    text = TextMetrics(1000, loss, 0.0, [], [])
    compared = Comparison(samples, real, n_samples, whole_documents, 60)
    judgement = Judgement("run", 1, {}, text, loss / 3, None, train_loss, 3.0, compared, {})
    return [line.split(":")[0] for line in verdict(judgement)]


def test_each_fault_of_samples_is_against_real_text() -> None:
    """A metric of samples is a fault only if real text is better in it."""
    spoilt = metrics(0.5, 0.5, 0.0, GenreMetrics(0.3, 0.2, 0.2, 0.1))
    assert judged(spoilt, spoilt) == judged() == ["healthy"]
    assert judged(spoilt, SOUND) == ["collapsed", "memorising"]
    assert judged(metrics(genre=replace(ALL_RIGHT, well_formed=0.3))) == ["undertrained"]
    assert judged(metrics(genre=replace(ALL_RIGHT, follows_other_prompt=0.9))) == [
        "ignores its prompt"
    ]


def test_each_fault_of_losses_is_against_training_and_token_frequencies() -> None:
    """A loss far above the training loss is memorising, and one near that of unigrams undertrained.

    A model that memorises is not called undertrained. Near the loss of unigrams, a ratio of 1.2
    instead of 1.5 to the training loss is enough for memorising.
    """
    malformed = metrics(genre=replace(ALL_RIGHT, well_formed=0.3))
    assert judged(train_loss=0.6) == ["memorising"]
    assert judged(loss=2.9, train_loss=2.9) == ["undertrained"]
    assert judged(malformed, loss=2.9, train_loss=1.9) == ["memorising"]
    assert judged(loss=2.9, train_loss=2.3) == ["memorising"]
    assert judged(loss=2.6, train_loss=2.1) == ["healthy"]


def test_a_short_document_of_training_is_a_copy_if_new_ones_are_less_probable() -> None:
    """A sample from the training list is no fault if the model finds new names as probable."""

    def verdicts(train_loss: float | None = 1.9, **more: Any) -> list[str]:
        copied, real = metrics(0.0, None, 0.4), metrics(0.0, None, 0.0)
        return judged(copied, real, 2.0, train_loss, **{"whole_documents": True, **more})

    assert verdicts() == verdicts(whole_documents=False, train_loss=1.7) == ["healthy"]
    assert verdicts(train_loss=1.7) == verdicts(train_loss=None) == ["memorising"]
    few = "no fault in the losses; 9 samples are too few to judge"
    assert verdicts(train_loss=1.7, n_samples=9) == [few]


@pytest.mark.parametrize(
    "name",
    ["collapsed", "memorising", "ignores its prompt", "undertrained", "healthy"],
)
def test_the_table_of_the_docstring_has_each_verdict(name: str) -> None:
    """The module's docstring has the condition of each verdict that the command prints."""
    assert f"\n    {name} " in (module.__doc__ or "")
