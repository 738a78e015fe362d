"""Real text is cut like samples, and the metrics of both equal those worked out by hand."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from ignorant import ignorant

from minigen.corpora import genre, tales, tunes
from minigen.evaluation.continuations import Continuation, real_continuations
from minigen.evaluation.repetition import TrainingText
from minigen.evaluation.samples import (
    GenreMetrics,
    copy_length,
    copy_metrics,
    entropy,
    genre_metrics,
    sample_metrics,
)
from minigen.tokenizer import train_tokenizer

BYTE = train_tokenizer("byte", [])


def test_a_tale_is_cut_after_its_first_line(tmp_path: Path) -> None:
    """The prompt of a tale is its first line; the rest of a tale that the split cut is left out."""
    whole = [tales.tale(random.Random(5 + i)).text for i in range(3)]
    model, tokens = ignorant(tmp_path, "\n\n".join(["the rest of a tale.", *whole]))
    cut = real_continuations(tokens, BYTE, model.config.block_size, 20)
    assert [one.first_lines + one.text for one in cut] == whole
    for one in cut:
        assert one.first_lines.startswith("hero: ") and one.first_lines.endswith("\n")
        assert BYTE.decode([*one.prompt[1:], *one.ids[:-1]]) == one.first_lines + one.text
        assert one.prompt[0] == one.ids[-1] == tokens.end_of_text


def test_a_tune_may_be_cut_after_several_lines(tmp_path: Path) -> None:
    """The prompt has `n_lines` lines: eight are the header of a tune and its first phrase."""
    tune = next(tunes.documents(0)).text
    _, tokens = ignorant(tmp_path, f"{tune}\n\n{tune}")
    one, _ = real_continuations(tokens, BYTE, 256, 20, n_lines=8)
    assert one.first_lines + one.text == tune and one.first_lines.count("\n") == 8
    assert BYTE.decode(one.prompt[1:]) == one.first_lines and one.first_lines.endswith("|\n")


def test_other_text_is_cut_after_its_first_tokens(tmp_path: Path) -> None:
    """A long document gives several pieces with 16 tokens of prompt; a short one is one piece."""
    _, tokens = ignorant(tmp_path, "short\n\n" + "a longer text " * 9)
    short, *long = real_continuations(tokens, BYTE, block_size=64, max_new_tokens=24)
    assert BYTE.decode(short.prompt[1:]) + short.text == "short"
    assert {(len(one.prompt), len(one.ids)) for one in long} == {(16, 24)}
    assert all(one.first_lines == "" for one in [short, *long])


def test_chance_is_the_first_line_of_another_document() -> None:
    """Chance is the share of texts that follow another text's first line: 0 for tales."""
    documents = [tales.tale(random.Random(i)).text for i in range(6)]
    texts = [
        Continuation([0], [0], (line := genre.first_lines(text)), text.removeprefix(line))
        for text in documents
    ]
    right = GenreMetrics(well_formed=1, follows_prompt=1, valid=1, follows_other_prompt=0)
    assert genre_metrics(texts) == right
    assert genre_metrics([texts[0], *texts]) == right  # the same line is not another one
    exchanged = [
        replace(one, text=other.text)
        for one, other in zip(texts, [*texts[-1:], *texts[:-1]], strict=True)
    ]
    wrong = genre_metrics(exchanged)
    assert wrong.follows_prompt == 0 and wrong.well_formed == 1


def test_a_copy_is_a_longer_run_than_real_texts_share() -> None:
    """The length is doubled until at most 5 % of real texts have such a run in common."""
    content = "".join(map(chr, range(33, 127))) * 3
    real = [Continuation([0], [0], "", content[i : i + 70] + "\n") for i in range(10)]
    assert copy_length(TrainingText(content.encode()), real) == 120
    assert copy_length(TrainingText(b"nothing"), real) == 60


@pytest.fixture
def names(tmp_path: Path) -> tuple[list[Continuation], TrainingText]:
    """Return three names as continuations, and the training text that they are."""
    model, tokens = ignorant(tmp_path, "Ann\n\nBartholomew\n\nAnnika")
    texts = real_continuations(tokens, BYTE, model.config.block_size, 20)
    assert all(one.is_document and one.prompt == [tokens.end_of_text] for one in texts)
    return texts, TrainingText.decoded(tokens, BYTE)


Names = tuple[list[Continuation], TrainingText]


def test_short_documents_are_copied_as_a_whole(names: Names) -> None:
    """A name without prompt is a copy only if it is a whole name of the training text.

    "Annik", which is the beginning of one, is none, and neither is "Ann" without an end.
    """
    texts, training = names
    assert [one.text for one in texts] == ["Ann", "Bartholomew", "Annika"]
    nearly = [replace(texts[0], text="Annik"), texts[1], replace(texts[0], text="Ann", ids=[1])]
    assert copy_metrics(nearly, training, 60).copied_whole == 1 / 3


def test_a_metric_without_anything_to_count_is_none(names: Names) -> None:
    """Names have no loops, 4-grams, pairs of words or long runs; one name has no duplicates."""
    texts, training = names
    metrics = sample_metrics(texts, None, training, 60).by_name()
    assert metrics["identical"] == 0
    for name in ("loops", "self_repetition", "distinct_2", "copied_run"):
        assert metrics[name] is None
    assert sample_metrics(texts[:1], None, training, 60).repetition.identical is None


def test_metrics_that_do_not_apply_have_no_name() -> None:
    """Without a checker or a training text, evaluation.json has none of their keys."""
    texts = [Continuation([0], [0], "", text) for text in ("one two", "three")]
    metrics = sample_metrics(texts, 0.5, None, 0)
    assert metrics.by_name() == {**asdict(metrics.repetition), "entropy": 0.5}
    assert replace(metrics, different=0.75).by_name()["different"] == 0.75


def test_the_entropy_of_equal_probabilities_is_ln_v() -> None:
    """The entropy of V equal probabilities is ln V, and that of a certain prediction is 0."""
    assert entropy(torch.zeros(3, 7)).tolist() == pytest.approx([math.log(7)] * 3)
    assert float(entropy(torch.tensor([1e4, 0.0]))) == 0
