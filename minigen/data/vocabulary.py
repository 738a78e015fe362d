"""Learn a tokenizer from a text that may be larger than memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from minigen.data.text_range import TextRange, progress
from minigen.data.tokens import cut_chunks
from minigen.tokenizer import Tokenizer, train_tokenizer

LEARNED = ("char", "bpe")  # the kinds of tokenizers that are learned from a text
# Characters to train a tokenizer on. Five times that, of 100 MB of source code, made 1 to 2 % fewer
# tokens and took more than twice as long.
BPE_SAMPLE = 2_000_000


def learn_tokenizer(train: TextRange, val: TextRange, kind: str, vocab_size: int) -> Tokenizer:
    """Learn a tokenizer of a kind, as `train_tokenizer` does, from a text in files.

    Raises UserError if a file cannot be read or changes meanwhile.
    """
    if kind not in LEARNED:
        return train_tokenizer(kind, [])
    if kind == "char":
        # Those of the validation text too: a character without an id could not be scored.
        known: set[str] = set()
        for part in itertools.chain(train.parts(), val.parts()):
            known.update(part.text)
        tokenizer = train_tokenizer("char", ["".join(known)])
    else:
        tokenizer = train_tokenizer("bpe", sample(train), vocab_size)
    for text in (train, val):
        text.check_unchanged()
    return tokenizer


def sample(text: TextRange) -> Iterator[str]:
    """Yield chunks from all over the text, with about `BPE_SAMPLE` characters in total."""
    share = min(1, BPE_SAMPLE / text.n_chars)
    seen = taken = 0
    with progress("choosing a sample to learn tokens from", text.n_chars, "char") as bar:
        for chunk in cut_chunks(text.parts(), size=1 << 16):
            seen += chunk.n_chars
            bar.update(chunk.n_chars)
            if taken < share * seen:
                taken += chunk.n_chars
                yield from chunk.documents
