"""Texts that are hard to cut, and token streams of them, for the tests of minigen.data."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigen.data import (
    TokenStream,
    notes,
    prepare,
    write_tokens,
)
from minigen.data import shards as sharding
from minigen.data import text as reading
from minigen.data.text_range import TextRange
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

BYTE = train_tokenizer("byte", [])
BPE = train_tokenizer(
    "bpe", ["the cat sat on the mat. the dog's bone\n\n\nit's 123   \n \n!\x1c! über\r\n"] * 9, 300
)

# Text that is hard to cut: all kinds of white space, wide characters, contractions, END_OF_TEXT.
BLANKS = [" ", "  ", "\n", "\n\n", "\t", "\r", "\r\n", "\x85", "\xa0", "\u3000", "\ufeff"]
WORDS = ["the", "cat", "it's", "dog's", "123", ".", "über", "漢字", "🙂", "e\u0301", END_OF_TEXT]
HARD = st.lists(st.sampled_from([*BLANKS, *WORDS, "a", "n", "é", "_"]), max_size=60).map("".join)
hard_text = given(text=HARD, chunk=st.integers(1, 40))
many = settings(max_examples=200, deadline=None, database=None, derandomize=True)
with_folder = settings(many, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Files:
    """A corpus of these files, without a name or notes."""

    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    separator: str | None = None


def newlines(text: str) -> str:
    r"""Return a text with "\n" at the end of each line."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def put(folder: Path, content: bytes | str, name: str = "text.txt") -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def shard_paths(stream: TokenStream) -> list[Path]:
    """Return the files of a stream, in order."""
    return [sharding.shard_path(stream.path, number) for number in range(len(stream.shards))]


def ids(stream: TokenStream) -> list[int]:
    """Return all token ids of a stream, read without its own code."""
    return [id for path in shard_paths(stream) for id in np.fromfile(path, stream.dtype).tolist()]


def train_stream(
    folder: Path, content: str, tokenizer: Tokenizer = BYTE, separator: str | None = None
) -> TokenStream:
    """Return the training stream of `content`; the validation text is another file."""
    train, val = put(folder, content), put(folder, "held out", "val.txt")
    source = Files((train,), (val,), separator)
    return prepare(source, tokenizer, "none", 0, folder / "cache")[1]


def encoded(text: TextRange, tokenizer: Tokenizer) -> list[int]:
    """Return the token ids of `text`, tokenised in an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        return ids(write_tokens(text, tokenizer, Path(cache), "text"))


@contextmanager
def in_chunks(chunk: int, shard: int = sharding.SHARD) -> Iterator[None]:
    """Read `chunk` bytes and encode `chunk` characters at once; end a shard after `shard`."""
    with (
        mock.patch.object(reading, "READ", chunk),
        mock.patch.object(sharding, "CHUNK", chunk),
        mock.patch.object(sharding, "SHARD", shard),
        mock.patch.object(notes, "BOOK", chunk),
    ):
        yield
