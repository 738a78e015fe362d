"""Train a tokenizer on a text that may be larger than memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Protocol

from minigen.data.text import DocumentPart
from minigen.data.text_range import progress
from minigen.data.tokens import cut_chunks
from minigen.tokenizer import BYTES, Tokenizer, train_tokenizer

LEARNED = ("char", "bpe")  # the kinds of tokenizers that are trained on a text
# Characters to train bpe on. With five times that number, 100 MB of source code became 1 to 2 %
# fewer tokens, and training took more than twice as long.
BPE_SAMPLE = 2_000_000
# Of bpe, if the number of tokens is not given. A long text has this number of characters or more.
CHARS_PER_MERGE, LARGEST_VOCABULARY = 500, 2048
LONG_TEXT, VOCABULARY_OF_LONG_TEXT = 20_000_000, 4096


class TextInParts(Protocol):
    """A text in files: a `TextRange`, or the pairs of a `PairRange`."""

    @property
    def n_chars(self) -> int: ...
    def parts(self) -> Iterator[DocumentPart]: ...
    def check_unchanged(self) -> None: ...


def vocabulary_size(n_chars: int) -> int:
    """Return the number of bpe tokens that suits a text of `n_chars` characters.

    With more tokens, each holds more text, so a model reads faster and sees further back. But a
    model learns a token from the places where it stands. A short text has few places for each of
    many tokens, so the model could only memorise them. One merge for 500 characters was best, or
    nearly, for 10,000, 100,000 and 1,000,000 characters of plays, where 4,096 tokens are too many.
    For 50 MB of several kinds of text they are better than 2,048 (docs/notebook.md).
    """
    if n_chars >= LONG_TEXT:
        return VOCABULARY_OF_LONG_TEXT
    return min(len(BYTES) + 1 + n_chars // CHARS_PER_MERGE, LARGEST_VOCABULARY)


def learn_tokenizer(train: TextInParts, val: TextInParts, kind: str, vocab_size: int) -> Tokenizer:
    """Train a tokenizer of `kind` on a text in files, as `train_tokenizer` does.

    Raises UserError if a file cannot be read or changes meanwhile.
    """
    if kind not in LEARNED:
        return train_tokenizer(kind, [])
    if kind == "char":
        # The characters of the validation text too: one without an id could not be scored.
        characters: set[str] = set()
        for part in itertools.chain(train.parts(), val.parts()):
            characters.update(part.text)
        tokenizer = train_tokenizer("char", ["".join(characters)])
    else:  # bpe never sees the validation text: its tokens would fit that text better than new text
        tokenizer = train_tokenizer("bpe", sample(train), vocab_size)
    for text in (train, val):
        text.check_unchanged()
    return tokenizer


def sample(text: TextInParts) -> Iterator[str]:
    """Yield parts from all over the text, with about `BPE_SAMPLE` characters in total."""
    fraction = min(1, BPE_SAMPLE / text.n_chars)
    n_read = n_taken = 0
    with progress("choosing a sample to learn tokens from", text.n_chars, "char") as bar:
        for chunk in cut_chunks(text.parts(), size=1 << 16):
            n_read += chunk.n_chars
            bar.update(chunk.n_chars)
            if n_taken < fraction * n_read:
                n_taken += chunk.n_chars
                yield from chunk.documents
