"""Repetition in generated texts: of themselves, of each other, and of the training text."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from minigen.data import TokenStream
from minigen.tokenizer import Tokenizer

Hashes = npt.NDArray[np.uint64]  # one for each window of a text

MIN_LOOP_TIMES = 4  # copies of a piece that make a loop; a good tune may have three
MIN_LOOP_LENGTH = 48  # characters; `<<<<<< <<<<<<<`, a row of clear sky in a picture, is no loop

# Characters of scripts that put no blanks between words: Thai, Lao, Tibetan, Burmese and Khmer,
# Japanese syllables, Chinese characters.
UNSPACED = "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")


def ends_in_loop(text: str) -> bool:
    """Return True if a text ends in a loop: a piece that stands there at least 4 times in a row.

    The copies must have at least 48 characters in all.

    The smallest period of each tail comes from the failure function of Knuth, Morris and Pratt
    (1977) of the text read backwards.

    >>> ends_in_loop("Once upon a time " + "the end, " * 6)
    True
    >>> ends_in_loop("Once upon a time, the end.")
    False
    """
    backwards = text[::-1]
    # border[n]: the length of the longest proper prefix of the first n + 1 characters that is also
    # their suffix; n + 1 - border[n] is then the smallest period of these characters.
    border = [0] * len(text)
    for n in range(1, len(text)):
        k = border[n - 1]
        while k and backwards[n] != backwards[k]:
            k = border[k - 1]
        border[n] = k + (backwards[n] == backwards[k])
        length = n + 1
        if length >= MIN_LOOP_LENGTH and length >= MIN_LOOP_TIMES * (length - border[n]):
            return True
    return False


def duplicates(texts: Sequence[str]) -> list[bool]:
    """Return a flag for each text: True if another text is the same.

    >>> duplicates(["Ann", "Bob", "Ann"])
    [True, False, True]
    """
    times = Counter(texts)
    return [times[text] > 1 for text in texts]


def expected_duplicates(counts: Sequence[int], n: int) -> float:
    """Return the expected share of duplicates among `n` texts drawn from a list.

    A draw takes any entry of the list with the same probability, and leaves it there.

    Args:
        counts: how often the list has each different text.

    >>> expected_duplicates([1, 1], 2)
    0.5
    """
    total = sum(counts)
    times = Counter(counts)  # texts of the same count have the same chance: add them up at once
    return sum(m * c / total * (1 - (1 - c / total) ** (n - 1)) for c, m in times.items())


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Return all runs of n words.

    Words are separated by white space. In scripts without blanks, such as Chinese, each character
    is a word.

    >>> ngrams("a b a b", 2)
    [('a', 'b'), ('b', 'a'), ('a', 'b')]
    >>> ngrams("天地 OK", 1)
    [('天',), ('地',), ('OK',)]
    """
    words = WORD.findall(text)
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Return the share of distinct n-grams among all n-grams (Li et al. 2016, arXiv:1510.03055).

    A longer text has a lower share, so compare only texts of the same length. Returns None if there
    are no n-grams.

    >>> distinct(["a b a b"], 2)
    0.6666666666666666
    """
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def self_repetition(texts: Sequence[str], n: int = 4) -> float | None:
    """Return the share of n-grams that the same text had before; None if there are no n-grams.

    >>> self_repetition(["a b a b a", "a b c"], 2)
    0.3333333333333333
    """
    by_text = [ngrams(text, n) for text in texts]
    n_repeated = sum(len(grams) - len(set(grams)) for grams in by_text)
    n_grams = sum(map(len, by_text))
    return n_repeated / n_grams if n_grams else None


# ---- runs in common with the training text ----

MAX_SEARCHED = 64 << 20  # bytes of a training text
BORDER = b"\xff"  # byte before and after each document; UTF-8 never has it

# Constants of the hash function. Any numbers would do, if BASE is odd, so that it has an inverse
# modulo 2^64.
TABLE = np.random.PCG64(0).random_raw(256)
BASE = 0x9E3779B97F4A7C15
BLOCK = 1 << 18  # windows hashed at once, so that the hashes stay in the processor's cache
BITS = 22  # first bits of a hash, which a table of 4 MB sorts out quickly


class TrainingText:
    """A training text, in which runs of bytes of other texts are searched; lengths are in bytes.

    Each window of L bytes b has a hash: the sum of TABLE[b[j]] * BASE^(L - 1 - j) modulo 2^64 (Karp
    and Rabin 1987). Where hashes are equal, the bytes are compared, so results are exact.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content

    @classmethod
    def decoded(cls, tokens: TokenStream, tokenizer: Tokenizer) -> TrainingText:
        """Decode tokens, up to 64 MB of text, with a `BORDER` before and after each document."""
        content, place = bytearray(), 0
        while place < tokens.n_tokens and len(content) < MAX_SEARCHED:
            ids = tokens.read(place, min(1 << 16, tokens.n_tokens - place)).tolist()
            place += len(ids)
            content += b"".join(
                BORDER if id == tokens.end_of_text else tokenizer.token_bytes(id) for id in ids
            )
        content += BORDER
        return cls(bytes(content[:MAX_SEARCHED]))

    def has_document(self, content: bytes) -> bool:
        """Return True if a document of the text is exactly `content`."""
        return BORDER + content + BORDER in self.content

    def documents(self, n_bytes: int) -> list[bytes]:
        """Return the whole documents in the first `n_bytes`."""
        return self.content[:n_bytes].split(BORDER)[1:-1]

    def shares_run(self, length: int, texts: Sequence[bytes]) -> list[bool]:
        """Return a flag for each text: True if it shares a run of `length` >= 1 bytes with this."""
        hashes_of_texts = [window_hashes(text, length) for text in texts]
        wanted = np.unique(np.concatenate([*hashes_of_texts, np.empty(0, np.uint64)]))
        likely = np.zeros(1 << BITS, dtype=bool)  # by the first bits of a hash
        likely[wanted >> np.uint64(64 - BITS)] = True
        places: dict[int, int] = {}  # hash -> start of a window of this text with that hash
        for first in range(0, len(self.content) - length + 1, BLOCK):
            hashes = window_hashes(self.content[first : first + BLOCK + length - 1], length)
            at = np.flatnonzero(likely[hashes >> np.uint64(64 - BITS)])
            at = at[np.isin(hashes[at], wanted)]
            distinct_hashes, which = np.unique(hashes[at], return_index=True)
            places.update(zip(distinct_hashes.tolist(), (first + at[which]).tolist(), strict=True))

        def shares(text: bytes, hashes: Hashes) -> bool:
            return any(
                text[i : i + length] == self.content[places[hash] : places[hash] + length]
                for i, hash in enumerate(hashes.tolist())
                if hash in places
            )

        return [shares(text, hashes) for text, hashes in zip(texts, hashes_of_texts, strict=True)]

    def longest_run(self, texts: Sequence[bytes]) -> int:
        """Return the length of the longest run that any text shares with this one, by bisection."""
        length, too_long = 0, max(map(len, texts), default=0) + 1
        while too_long - length > 1:
            middle = (length + too_long) // 2
            have = self.shares_run(middle, texts)
            if any(have):
                length, texts = middle, [text for text, has in zip(texts, have, strict=True) if has]
            else:
                too_long = middle
        return length


def window_hashes(text: bytes, length: int) -> Hashes:
    """Return the hash of each window of `length` bytes, in order: (len(text) - length + 1,).

    Equal windows have equal hashes, at any place:

    >>> hashes = window_hashes(b"abcab", 2).tolist()  # of ab, bc, ca, ab
    >>> hashes[0] == hashes[3], len(set(hashes))
    (True, 3)
    """
    powers, inverses = _powers(max(len(text), 2 * BLOCK))
    # sums[i] is the sum of TABLE[b[j]] / BASE^j for j <= i. So the window that begins at i has the
    # hash (sums[i + length - 1] - sums[i - 1]) * BASE^(i + length - 1).
    sums = np.cumsum(TABLE[np.frombuffer(text, np.uint8)] * inverses[: len(text)])
    windows = sums[length - 1 :].copy()
    windows[1:] -= sums[: max(0, len(windows) - 1)]
    return windows * powers[length - 1 : len(text)]


@functools.lru_cache(maxsize=1)
def _powers(n: int) -> tuple[Hashes, Hashes]:
    """Return BASE^0 ... BASE^(n - 1), and their inverses, modulo 2^64; (n,) each."""
    up, down = (
        np.cumprod(np.array([1, *[base] * (n - 1)], np.uint64), dtype=np.uint64)
        for base in (BASE, pow(BASE, -1, 1 << 64))
    )
    return up, down
