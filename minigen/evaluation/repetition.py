"""What a text repeats: itself, other texts, and the text that a model was trained on."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]  # one for each window of a text

LEAST_TIMES = 4  # that a loop goes round; a tune may well play a phrase three times
LEAST_LOOP = 48  # characters: `<<<<<< <<<<<<<`, a row of clear sky, is no loop

# Characters of scripts that put no blanks between words: Thai, Lao, Tibetan, Burmese and Khmer,
# Japanese syllables, Chinese characters.
UNSPACED = "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")


def loops(text: str) -> bool:
    """Whether it ends in a loop: 48 characters or more that are one piece four times or more.

    The smallest period of each tail comes from the failure function of Knuth, Morris and Pratt
    (1977) of the text read backwards.

    >>> loops("Once upon a time " + "the end, " * 6), loops("Once upon a time, the end.")
    (True, False)
    """
    backwards = text[::-1]
    border = [0] * len(text)  # of the first n + 1: the longest beginning that is an end of it, too
    for n in range(1, len(text)):
        k = border[n - 1]
        while k and backwards[n] != backwards[k]:
            k = border[k - 1]
        border[n] = k + (backwards[n] == backwards[k])
        length = n + 1
        if length >= LEAST_LOOP and length >= LEAST_TIMES * (length - border[n]):
            return True
    return False


def drawn_twins(counts: Sequence[int], n: int) -> float:
    """The share of twins to expect among n texts drawn from a list that has each so many times.

    Each text is drawn with its share of the list, and put back.

    >>> drawn_twins([1, 1], 2)
    0.5
    """
    total = sum(counts)
    times = Counter(counts)  # texts that come equally often have the same chance
    return sum(m * c / total * (1 - (1 - c / total) ** (n - 1)) for c, m in times.items())


def twins(texts: Sequence[str]) -> list[bool]:
    """Which of the texts are also another of them."""
    times = Counter(texts)
    return [times[text] > 1 for text in texts]


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """All n words that follow each other.

    A word is a text between white space; in scripts without blanks, such as Chinese, a character.

    >>> ngrams("a b a b", 2)
    [('a', 'b'), ('b', 'a'), ('a', 'b')]
    >>> ngrams("天地 OK", 1)
    [('天',), ('地',), ('OK',)]
    """
    words = WORD.findall(text)
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Different n-grams over all n-grams of the texts (Li et al. 2016, arXiv:1510.03055).

    More text has fewer: only figures of as much text compare. None where there are no n-grams.

    >>> distinct(["a b a b"], 2)
    0.6666666666666666
    """
    every = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(every)) / len(every) if every else None


def self_repetition(texts: Sequence[str], n: int = 4) -> float | None:
    """The share of n-grams of the texts that the same text had before; None without n-grams.

    >>> self_repetition(["a b a b a", "a b c"], 2)
    0.3333333333333333
    """
    every = [ngrams(text, n) for text in texts]
    again = sum(len(grams) - len(set(grams)) for grams in every)
    n_grams = sum(map(len, every))
    return again / n_grams if n_grams else None


# ---- runs in common with a long text ----

# Any numbers would do, if the second is odd and so has an inverse modulo 2^64.
TABLE = np.random.PCG64(0).random_raw(256)
BASE = 0x9E3779B97F4A7C15
BLOCK = 1 << 18  # windows at once: their hashes stay in the processor's cache
BITS = 22  # of a hash, compared at first


class LongText:
    """A text to find parts of others in; all lengths are in bytes.

    Each window of L bytes b has a hash, the sum of TABLE[b[j]] * BASE^(L - 1 - j) modulo 2^64 (Karp
    and Rabin 1987). Hashes only propose: what is found was compared byte by byte.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content

    def has_run(self, length: int, texts: Sequence[bytes]) -> list[bool]:
        """Which of the texts have so many bytes in a row that this text has, too; length >= 1."""
        theirs = [window_hashes(text, length) for text in texts]
        wanted = np.unique(np.concatenate([*theirs, np.empty(0, np.uint64)]))
        likely = np.zeros(1 << BITS, dtype=bool)
        likely[wanted >> np.uint64(64 - BITS)] = True
        places: dict[int, int] = {}  # where this text has a window of a hash that is wanted
        for first in range(0, len(self.content) - length + 1, BLOCK):
            hashes = window_hashes(self.content[first : first + BLOCK + length - 1], length)
            at = np.flatnonzero(likely[hashes >> np.uint64(64 - BITS)])
            at = at[np.isin(hashes[at], wanted)]
            found, which = np.unique(hashes[at], return_index=True)
            places.update(zip(found.tolist(), (first + at[which]).tolist(), strict=True))

        def shares(text: bytes, hashes: Hashes) -> bool:
            return any(
                text[i : i + length] == self.content[places[hash] : places[hash] + length]
                for i, hash in enumerate(hashes.tolist())
                if hash in places
            )

        return [shares(text, hashes) for text, hashes in zip(texts, theirs, strict=True)]

    def longest_run(self, texts: Sequence[bytes]) -> int:
        """The most bytes in a row that one of the texts and this text have; by bisection."""
        length, too_long = 0, max(map(len, texts), default=0) + 1
        while too_long - length > 1:
            middle = (length + too_long) // 2
            have = self.has_run(middle, texts)
            if any(have):
                length, texts = middle, [text for text, has in zip(texts, have, strict=True) if has]
            else:
                too_long = middle
        return length


def window_hashes(text: bytes, length: int) -> Hashes:
    """Of each window of so many bytes, in order: (len(text) - length + 1,), or none."""
    powers, inverses = _powers(max(len(text), 2 * BLOCK))
    # Running sums of TABLE[b] / BASE^place; the difference of two is the hash but for a power.
    sums = np.cumsum(TABLE[np.frombuffer(text, np.uint8)] * inverses[: len(text)])
    windows = sums[length - 1 :].copy()
    windows[1:] -= sums[: max(0, len(windows) - 1)]
    return windows * powers[length - 1 : len(text)]


@functools.lru_cache(maxsize=1)
def _powers(n: int) -> tuple[Hashes, Hashes]:
    """BASE to the powers 0 to n - 1, and 1 over them, modulo 2^64."""
    up, down = (
        np.cumprod(np.array([1, *[base] * (n - 1)], np.uint64), dtype=np.uint64)
        for base in (BASE, pow(BASE, -1, 1 << 64))
    )
    return up, down
