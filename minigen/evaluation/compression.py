"""Compare a loss with the size of the text when bzip2 compresses it: is my loss right?

A compressor is a language model, too, and a language model compresses: a byte to which it gives
the probability p needs -log2 p bits (Delétang et al. 2023, arXiv:2309.10668). bzip2 predicts a byte
from the bytes beside it, where they stood before. It learns no rule, so a model that has read the
same text should do better, in any language. No table of losses is needed, which would hold for
one kind of text only.
"""

from __future__ import annotations

import bz2

import numpy as np

from minigen.data import TokenStream
from minigen.tokenizer import Tokenizer

# bzip2 looks at 900,000 bytes at most at once: these many to read, and these many to predict.
TRAINING_BYTES, VALIDATION_BYTES = 780_000, 110_000
N_PIECES = 10  # of a longer text, from all over it


def bzip2_bits_per_byte(
    tokenizer: Tokenizer, training: TokenStream, validation: TokenStream
) -> float:
    """Return the bits that bzip2 adds for a byte of the validation text after the training text.

    Of a long text it reads pieces from all over it.
    """
    before = _bytes_from(training, tokenizer, TRAINING_BYTES)
    after = _bytes_from(validation, tokenizer, VALIDATION_BYTES)
    n_added = len(bz2.compress(before + after)) - len(bz2.compress(before))
    return 8 * max(n_added, 1) / len(after)  # a longer text may even have a shorter file


def relative_to_bzip2(bits_per_byte: float, bzip2: float) -> str:
    """Return how far a loss is below the bits per byte that bzip2 needs, in words.

    >>> relative_to_bzip2(2.0, 2.5)
    'bzip2 needs 2.5000, 25.0% more'
    >>> relative_to_bzip2(3.0, 2.4)
    'bzip2 needs 2.4000, 20.0% less'
    """
    more = "more" if bzip2 >= bits_per_byte else "less"
    return f"bzip2 needs {bzip2:.4f}, {abs(bzip2 / bits_per_byte - 1):.1%} {more}"


def _bytes_from(tokens: TokenStream, tokenizer: Tokenizer, n_bytes: int) -> bytes:
    """Return about `n_bytes` of a text, in pieces from all over it, or all of a shorter text."""
    n_tokens = int(n_bytes * tokens.n_tokens / tokens.n_bytes)
    if n_tokens >= tokens.n_tokens:
        return _text(tokens, tokenizer, 0, tokens.n_tokens)
    n_each = n_tokens // N_PIECES
    places = np.linspace(0, tokens.n_tokens - n_each, N_PIECES, dtype=np.int64)
    return b"".join(_text(tokens, tokenizer, int(place), n_each) for place in places)


def _text(tokens: TokenStream, tokenizer: Tokenizer, place: int, n: int) -> bytes:
    """Return the bytes of `n` tokens from `place` on; an END_OF_TEXT has none."""
    ids = tokens.read(place, n)
    return tokenizer.decode_bytes(ids[ids != tokens.end_of_text].tolist())
