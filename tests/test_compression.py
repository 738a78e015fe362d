"""The loss of bzip2, beside which a run puts its own."""

from __future__ import annotations

import bz2
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from minigen.corpora import find
from minigen.data import TokenStream, prepare
from minigen.evaluation import compression
from minigen.evaluation.compression import bzip2_bits_per_byte
from minigen.tokenizer import Tokenizer


@dataclass
class Tokens:
    """A text as tokens: its tokenizer, and what trains and validates."""

    tokenizer: Tokenizer
    training: TokenStream
    validation: TokenStream

    @property
    def bits_per_byte(self) -> float:
        """What bzip2 needs."""
        return bzip2_bits_per_byte(self.tokenizer, self.training, self.validation)


def tokens_of(folder: Path, *texts: str) -> Tokens:
    """Return the tokens of some documents."""
    path = folder / "text.txt"
    path.write_text("<|endoftext|>".join(texts), "utf-8")
    corpus = find((str(path),), folder, "auto")
    return Tokens(*prepare(corpus, None, "byte", None, folder / "cache"))


def letters(n: int, seed: int, alphabet: str = "abcdefghijklmnop") -> str:
    """Return `n` random letters."""
    return "".join(random.Random(seed).choices(alphabet, k=n))


def test_it_is_the_difference_of_two_sizes(tmp_path: Path) -> None:
    """A short text is compressed whole; random letters of 16 need 4 bits each."""
    text = letters(60_000, 1)
    before, after = text[:54_000].encode(), text[54_000:].encode()
    sizes = [len(bz2.compress(part)) for part in (before, before + after)]
    bits = tokens_of(tmp_path, text).bits_per_byte
    assert bits == 8 * (sizes[1] - sizes[0]) / len(after)
    assert 3.9 < bits < 4.3


def test_text_that_was_there_before_needs_few_bits(tmp_path: Path) -> None:
    """So the training text counts: the same page nine times, then once more to predict."""
    assert tokens_of(tmp_path, letters(3000, 2) * 10).bits_per_byte < 0.5


def test_the_end_of_a_document_has_no_bytes(tmp_path: Path) -> None:
    """A text in two documents needs what the joined text needs."""
    text = letters(5000, 3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    bits = tokens_of(whole, text).bits_per_byte
    assert tokens_of(parts, text[:2000], text[2000:]).bits_per_byte == pytest.approx(bits, rel=0.02)


def test_a_long_text_is_read_all_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first half is of other letters than its second: the pieces are of both."""
    monkeypatch.setattr(compression, "TRAINING_BYTES", 10_000)
    monkeypatch.setattr(compression, "VALIDATION_BYTES", 2000)
    tokens = tokens_of(tmp_path, letters(50_000, 4, "ab") + letters(50_000, 5, "cdefghij"))
    before = compression._bytes_from(tokens.training, tokens.tokenizer, 10_000).decode()
    assert len(before) == 9999  # and an END_OF_TEXT
    assert 4000 < sum(letter in "ab" for letter in before) < 7000
    after = compression._bytes_from(tokens.validation, tokens.tokenizer, 2000).decode()
    assert len(after) == 1999 and set(after) == set("cdefghij")


def test_a_text_that_repeats_needs_more_than_nothing(tmp_path: Path) -> None:
    """Where the file of bzip2 does not grow, the bits are few, and never negative."""
    for n in range(20_000, 20_400, 40):
        (tmp_path / str(n)).mkdir()
        assert tokens_of(tmp_path / str(n), "ab" * n).bits_per_byte > 0
