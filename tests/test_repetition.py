"""Repetition: a slow search by the definition confirms each fast one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.corpora import pictures, tales, tunes
from minigen.data import scan, write_tokens
from minigen.evaluation.repetition import (
    TrainingText,
    distinct,
    duplicates,
    ends_in_loop,
    expected_duplicates,
    self_repetition,
)
from minigen.tokenizer import train_tokenizer


def test_distinct_ngrams_are_counted_over_all_texts() -> None:
    """An n-gram has words; in scripts without blanks, it has characters."""
    assert distinct(["the cat and the dog", "the cat"], 1) == 4 / 7
    assert distinct(["the cat and the dog", "the cat"], 2) == 4 / 5
    assert distinct(["天地天地。"], 1) == 3 / 5
    assert distinct(["one", ""], 2) is None


def test_repeated_ngrams_are_counted_within_each_text() -> None:
    """A 4-gram that only another text has is not repeated."""
    assert self_repetition(["a b c d e", "a b c d"]) == 0
    assert self_repetition(["a b c d a b c d", "x"]) == 1 / 5
    assert self_repetition(["天地玄黄天地玄黄"]) == 1 / 5
    assert self_repetition(["a b c"]) is None


def test_duplicates_are_texts_that_occur_twice() -> None:
    """Each copy of a text is a duplicate, the first one, too."""
    assert duplicates(["a", "b", "a", ""]) == [True, False, True, False]


@given(st.text("ab c", min_size=1, max_size=30), st.integers(1, 60), st.text("abc", max_size=40))
def test_a_text_loops_if_its_end_is_one_piece_again_and_again(
    piece: str, times: int, before: str
) -> None:
    """The fast search agrees with one that tries all periods of all ends of a text."""
    text = before + "!" + piece * times
    tails = [text[-n:] for n in range(48, len(text) + 1)]
    smallest = [next(p for p in range(1, len(t) + 1) if t[p:] == t[:-p]) for t in tails]
    expected = any(len(t) >= 4 * p for t, p in zip(tails, smallest, strict=True))
    assert ends_in_loop(text) == expected
    if times >= 4 and len(piece) * times >= 48:
        assert expected


def test_a_loop_is_four_times_the_same_and_48_characters_long() -> None:
    """Three copies of a phrase are no loop, as in a good tune, nor are 47 characters."""
    phrase = "once upon a time ago"
    assert [ends_in_loop("well, " + phrase * n) for n in range(2, 6)] == [False, False, True, True]
    assert [ends_in_loop("x" * n) for n in (47, 48)] == [False, True]


@pytest.mark.parametrize("stream", [tales.documents, pictures.documents, tunes.documents])
def test_no_real_document_ends_in_loop(stream: Callable[[int], Any]) -> None:
    """No tale, picture or tune of the corpora ends in a loop, whole or cut at any place."""
    rng = random.Random(0)
    for _, one in zip(range(300), stream(7), strict=False):
        assert not ends_in_loop(one.text)
        assert not ends_in_loop(one.text[: rng.randrange(len(one.text))])


BYTES = st.text("ab", max_size=60).map(str.encode)


@given(BYTES, st.lists(BYTES, max_size=4), st.integers(1, 12))
def test_runs_in_common_are_those_that_a_search_finds(
    content: bytes, texts: list[bytes], length: int
) -> None:
    """The fast search and a naive one find the same shared runs and the same longest length."""

    def has(text: bytes, n: int) -> bool:
        return any(text[i : i + n] in content for i in range(len(text) - n + 1))

    training = TrainingText(content)
    assert training.shares_run(length, texts) == [has(text, length) for text in texts]
    longest = [n for n in range(1, 61) if any(has(text, n) for text in texts)]
    assert training.longest_run(texts) == max(longest, default=0)


def test_a_run_is_found_at_any_place() -> None:
    """A run is found at the beginning, at the end, and across the border of two blocks."""
    rng = random.Random(0)
    content = rng.randbytes(3 << 18)
    training = TrainingText(content)
    for place in (0, 1, (1 << 18) - 50, (2 << 18) - 1, len(content) - 100):
        text = rng.randbytes(30) + content[place : place + 100] + rng.randbytes(30)
        assert training.shares_run(100, [text]) == [True]
        assert 100 <= training.longest_run([text]) <= 102
    assert training.shares_run(20, [rng.randbytes(500)]) == [False]


def test_the_expected_share_of_duplicates_is_the_mean_over_many_draws() -> None:
    """Random draws from a list repeat as often as the formula says."""
    rng = random.Random(0)
    names = ["a"] * 5 + ["b"] * 3 + list("cdefgh")
    drawn = [rng.choices(names, k=6) for _ in range(4000)]
    counted = sum(sum(duplicates(texts)) for texts in drawn) / (6 * len(drawn))
    assert expected_duplicates([5, 3, 1, 1, 1, 1, 1, 1], 6) == pytest.approx(counted, abs=0.02)


def test_a_training_text_has_only_whole_documents(tmp_path: Path) -> None:
    """A text that is only the beginning or the end of a document is no document."""
    (tmp_path / "names.txt").write_text("Ann\n\nBartholomew\n\nAnnika", encoding="utf-8")
    tokenizer = train_tokenizer("byte", [])
    tokens = write_tokens(scan([tmp_path / "names.txt"], "\n\n"), tokenizer, tmp_path, "names")
    training = TrainingText.decoded(tokens, tokenizer)
    assert training.content == b"\xffAnn\xffBartholomew\xffAnnika\xff"
    assert training.documents(100) == [b"Ann", b"Bartholomew", b"Annika"]
    assert training.has_document(b"Ann") and training.has_document(b"Annika")
    assert not training.has_document(b"Annik") and not training.has_document(b"nika")
