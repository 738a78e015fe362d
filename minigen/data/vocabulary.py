"""Train a tokenizer on a text that may be larger than memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from minigen.data.text_range import TextRange, progress
from minigen.data.tokens import cut_chunks
from minigen.tokenizer import Tokenizer, train_tokenizer

LEARNED = ("char", "bpe")  # the kinds of tokenizers that are trained on a text
# Characters to train bpe on. With five times that number, 100 MB of source code became 1 to 2 %
# fewer tokens, and training took more than twice as long.
BPE_SAMPLE = 2_000_000


def learn_tokenizer(train: TextRange, val: TextRange, kind: str, vocab_size: int) -> Tokenizer:
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


def sample(text: TextRange) -> Iterator[str]:
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
