"""Text to token ids and back: characters, bytes, byte-pair encoding trained here, and GPT-2's own.

    kind   its tokens, in the order of the ids                              the text that it takes
    char   the characters of the training text, sorted                      these characters
    byte   the 256 bytes                                                    any
    bpe    the 256 bytes, then joins of two tokens, as training found them  any
    gpt2   the 50,256 tokens that OpenAI published with GPT-2               any

A tokenizer is three facts: its kind; the bytes of each token, in the order of the ids; and how a
model reads a text: with END_OF_TEXT before it, as in training, or bare, as other people's GPT-2
does, and a model of one book, which has hardly ever seen END_OF_TEXT. The last id is always
END_OF_TEXT, which separates documents. No training text encodes to it, but a prompt may.

The file begins with byte-pair encoding step by step: `naive_bpe` learns tokens, and `naive_encode`
spells a text with them. `train_bpe` learns the same tokens faster, and `Tokenizer.encode` gives the
same ids faster. The tokenizer.json that other programs read, and the tokenizers of other people's
models, are in `minigen/files/`.

>>> tokenizer = train_tokenizer("bpe", ["low lower lowest"], vocab_size=260)
>>> tokenizer.encode("lower")
[257, 101, 114]
>>> tokenizer.decode([257, 101, 114])
'lower'

See byte-pair encoding join the pieces of a word: `python -m minigen merges unbelievable`.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import heapq
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import regex
import tiktoken

from minigen.errors import UserError

if TYPE_CHECKING:  # NumPy takes longer to import than all the rest, so it waits for its first use
    import numpy as np
    import numpy.typing as npt

END_OF_TEXT = "<|endoftext|>"
KINDS = ("char", "byte", "bpe", "gpt2")
BYTES = tuple(bytes([byte]) for byte in range(256))

# GPT-2's cut of a text into chunks; tokens are joined within a chunk only. It is an English
# contraction; or letters, digits or other signs, with one space before them; or white space, less
# its last sign if a word follows. The bound is ours: a million blanks overflow tiktoken's stack.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s{1,100000}(?!\S)|\s"


# ---- byte-pair encoding, step by step ----


def naive_bpe(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    """Learn up to `n_tokens` tokens from `words`, each with the number of times that it occurs.

    Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) spells every word in single bytes,
    which are the first 256 tokens. Then it joins, again and again, the two neighbours that are most
    frequent; of several pairs, the one with the smallest ids. Each join is the next token. It stops
    when there are enough tokens, or no pair occurs twice.

    >>> naive_bpe({b"low": 2, b"lower": 1}, n_tokens=300)[256:]
    [b'lo', b'low']
    """
    tokens = list(BYTES)
    spellings = {word: list(word) for word in words}  # in ids; a byte's value is its id
    while len(tokens) < n_tokens:
        counts = Counter[tuple[int, int]]()
        for word, spelling in spellings.items():
            for pair in pairwise(spelling):
                counts[pair] += words[word]
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        for spelling in spellings.values():
            for i in range(len(spelling)):
                if tuple(spelling[i : i + 2]) == best:
                    spelling[i : i + 2] = [len(tokens)]
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return tokens


def naive_encode(text: str, tokens: Sequence[bytes]) -> list[int]:
    """Return the ids of `text`: cut it into chunks, spell each in bytes, and join neighbours.

    >>> naive_encode("lower", [*BYTES, b"lo", b"low"])
    [257, 101, 114]
    """
    id_of = {token: id for id, token in enumerate(tokens)}
    ids = []
    for chunk in regex.findall(PATTERN, text):
        pieces = spell(chunk)
        while (i := next_join(pieces, id_of)) is not None:
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        ids += [id_of[piece] for piece in pieces]
    return ids


def spell(chunk: str) -> list[bytes]:
    """Return the single bytes of a chunk of text."""
    return [bytes([byte]) for byte in chunk.encode("utf-8")]


def next_join(pieces: Sequence[bytes], id_of: Mapping[bytes, int]) -> int | None:
    """Return the index of the piece to join with its right neighbour; None if no two can be joined.

    Joins are made in the order in which training found them: of all neighbours that together are a
    token, join the two that make the token of smallest id, and of several such pairs the first.
    """
    joins = [(id_of[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in id_of]
    return min(joins)[1] if joins else None


# ---- the same tokens, learnt faster ----


def train_bpe(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    """Learn the tokens of `naive_bpe` without counting all words again for each token.

    Two facts make that possible.

    A join leaves everything else in its place. So the words lie in one list, in which each byte
    holds the id of its token. A join writes the new id over its bytes, between its neighbours:

        l o w e r     108 111 119 101 114
        lo is 256     256 256 119 101 114
        low is 257    257 257 257 101 114

    Each pair that a join makes has the new token in it, so an older pair can only become rarer. A
    pair is counted when it is found, and again when it comes to the top of a heap. If it has become
    rarer, it goes back with its new count; if not, no other pair occurs more often.
    """
    tokens = list(BYTES)
    gap = -1  # the id between words
    ids, times = [gap], [0]  # for each byte, its token and how often its word occurs
    for word, n_times in words.items():
        ids += [*word, gap]  # a byte's value is its id
        times += [n_times] * (len(word) + 1)

    heap: list[tuple[int, tuple[int, int], list[int]]] = []  # (-count, pair, where it starts)

    def push(found: Mapping[tuple[int, int], list[int]]) -> None:
        for pair, starts in found.items():
            count = sum([times[start] for start in starts])
            if count > 1:
                heapq.heappush(heap, (-count, pair, starts))

    found = defaultdict(list)
    for start, pair in enumerate(pairwise(ids)):
        if gap not in pair:
            found[pair].append(start)
    push(found)

    while heap and len(tokens) < n_tokens:
        _, pair, starts = heapq.heappop(heap)
        left, right = pair
        offset = len(tokens[left])
        still = [start for start in starts if ids[start] == left and ids[start + offset] == right]
        if len(still) < len(starts):
            push({pair: still})
            continue
        id = len(tokens)
        tokens.append(tokens[left] + tokens[right])
        length = len(tokens[id])
        found = defaultdict(list)
        for start in starts:
            if ids[start] == left:  # in "aaa" the first join takes the start of the second
                end = start + length
                ids[start:end] = [id] * length
                before, after = ids[start - 1], ids[end]
                if before != gap:
                    found[before, id].append(start - len(tokens[before]))
                if after != gap:
                    found[id, after].append(start)
        push(found)
    return tokens


# ---- the tokenizer ----


class Tokenizer:
    """Encode text as ids 0..n_vocab-1, and decode them: `decode(encode(text)) == text`.

    Args:
        kind: one of KINDS; or "hub", another model's, which only a subclass can encode.
        tokens: the bytes of each id's token, END_OF_TEXT's last. Smaller ids are joined earlier.
        bare: a model reads a text without END_OF_TEXT before it.
        controls: the control tokens, which no training text encodes to: {id: how a prompt spells
            it}; None: END_OF_TEXT is the only one.
        end_of_text: the id, one of `controls`, that separates documents; None: the last.

    Attributes, besides these:
        ends: the ids that end a text that the model writes: `end_of_text`, unless another model's
            files name others.

    Raises ValueError if these cannot be the tokens of that kind.
    """

    def __init__(
        self,
        kind: str,
        tokens: Sequence[bytes],
        bare: bool = False,
        controls: Mapping[int, str] | None = None,
        end_of_text: int | None = None,
    ) -> None:
        self.kind, self.tokens, self.bare = kind, list(tokens), bare
        self.n_vocab = len(tokens)
        self.end_of_text = self.n_vocab - 1 if end_of_text is None else end_of_text
        self.controls = dict({self.end_of_text: END_OF_TEXT} if controls is None else controls)
        self.ends = frozenset([self.end_of_text])
        self._ids = {token: id for id, token in enumerate(tokens) if id not in self.controls}
        if kind != "hub":
            _check_tokens(kind, tokens)

    def __len__(self) -> int:
        return self.n_vocab

    @functools.cached_property
    def _encoding(self) -> tiktoken.Encoding:
        """Return byte-pair encoding in Rust, for the kinds whose tokens are made of bytes."""
        return tiktoken.Encoding(
            self.kind,
            pat_str=PATTERN,
            mergeable_ranks=self._ids,
            special_tokens={END_OF_TEXT: self.end_of_text},
        )

    @property
    def stops(self) -> frozenset[int]:
        """Return the ids that end a text: `ends`, and the one that ends documents in training."""
        return self.ends | {self.end_of_text}

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        """Return the ids of `text`.

        In `bytes`, each part that is UTF-8 encodes as that text, and any other byte as itself.

        Args:
            special: False for training text: `<|endoftext|>` stays letters. True for a prompt, as
                in transformers: a control token that a `str` spells becomes that token.

        Raises UserError for a character that has no id: with char, an unknown one; with any kind, a
        lone surrogate.
        """
        ids: list[int] = []
        if isinstance(text, str):
            first, *others = text.split(END_OF_TEXT) if special else [text]
            ids = self.encode_array(first).tolist()
            for part in others:
                ids += [self.end_of_text, *self.encode(part)]
        elif self.kind == "char":
            try:
                ids = self.encode(text.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(f"{error}; a char tokenizer takes UTF-8, byte takes any") from None
        else:
            # surrogateescape puts U+DC80..U+DCFF for the bytes 0x80..0xFF that are not UTF-8.
            escaped = text.decode("utf-8", errors="surrogateescape")
            for part in re.split("([\udc80-\udcff])", escaped):
                if "\udc80" <= part <= "\udcff":
                    ids.append(self._ids[part.encode("utf-8", errors="surrogateescape")])
                else:
                    ids += self.encode(part)
        return ids

    def encode_prompt(self, text: str, opening: str = "", special: bool = True) -> list[int]:
        """Return the ids, at least one, that a model reads to continue `text`.

        Args:
            opening: the text that the model reads instead of an empty one.
            special: a control token that the text spells becomes that token, as in transformers.
        """
        if opening and not text:
            return self.encode(opening)
        ids = self.encode(text, special)
        return ids if self.bare and ids else [self.end_of_text, *ids]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        """Return the ids of `text` as an array (T,), fast enough for corpora of many MB.

        END_OF_TEXT written in the text is letters. Raises UserError as `encode` does.
        """
        import numpy as np

        try:
            if self.kind != "char":
                ids = self._encoding.encode_to_numpy(text, disallowed_special=())
                return ids.copy()  # tiktoken's array is read-only
            code_points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        except UnicodeEncodeError as error:
            raise _lone_surrogate(error) from None
        ids = self._id_of_code_point.take(code_points)
        unknown = [repr(chr(point)) for point in np.unique(code_points[ids == self.n_vocab])]
        if unknown:
            raise UserError(
                f"not among the {self.end_of_text} characters of this char tokenizer: "
                f"{' '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}; leave them out, "
                "or train with a byte or bpe tokenizer, which takes any text"
            )
        return ids

    def encode_documents(self, documents: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Return the ids of one or more documents, END_OF_TEXT before each, as an array (T,)."""
        import numpy as np

        if self.kind in ("char", "hub") or any(END_OF_TEXT in text for text in documents):
            end_of_text = np.array([self.end_of_text], np.uint32)
            parts = ((end_of_text, self.encode_array(text)) for text in documents)
            return np.concatenate([ids for part in parts for ids in part])
        # All documents as one text, in which END_OF_TEXT becomes its token: if they are short, that
        # takes half of the time.
        text = "".join(END_OF_TEXT + text for text in documents)
        return self._encoding.encode_to_numpy(text, allowed_special={END_OF_TEXT})

    @functools.cached_property
    def _id_of_code_point(self) -> npt.NDArray[np.uint32]:
        """Return the id of each code point for a char tokenizer, (0x110000,); n_vocab: no id."""
        import numpy as np

        ids = np.full(0x110000, self.n_vocab, dtype=np.uint32)
        for token, id in self._ids.items():
            ids[ord(token.decode("utf-8"))] = id
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, with U+FFFD for bytes that are not UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of `ids`: exactly those that were encoded."""
        return b"".join(map(self.token_bytes, ids))

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token. Raises UserError if there is no such id."""
        if not 0 <= id < self.n_vocab:
            raise UserError(
                f"token id {id} is not in this tokenizer's 0..{self.n_vocab - 1}; "
                "use the tokenizer that belongs to the ids or the model"
            )
        return self.tokens[id]

    def stream(self) -> StreamDecoder:
        """Return a decoder for ids that come one by one."""
        return StreamDecoder(self)

    def merges(self, word: str) -> list[list[bytes]]:
        """Return how `word` becomes tokens: its single bytes, and its pieces after each join.

        >>> train_tokenizer("bpe", ["low lower lowest"], vocab_size=260).merges("low")
        [[b'l', b'o', b'w'], [b'lo', b'w'], [b'low']]
        """
        ids = self.encode(word)
        if self.kind in ("char", "hub"):
            return [[self.token_bytes(id) for id in ids]]
        chunks = [spell(chunk) for chunk in regex.findall(PATTERN, word)]
        steps = [[piece for pieces in chunks for piece in pieces]]
        for pieces in chunks:
            while (i := next_join(pieces, self._ids)) is not None:
                pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
                steps.append([piece for pieces in chunks for piece in pieces])
        return steps

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of everything that decides which ids a text gets."""
        digest = hashlib.sha256(f"{self.kind} {PATTERN}".encode())
        for token in self.tokens:
            digest.update(len(token).to_bytes(4, "little") + token)
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file for `load`. Other programs read the one of `files.tokenizer_files`."""
        spelled = [token.decode("latin-1") for token in self.tokens]  # a character for each byte
        facts = {"kind": self.kind, "tokens": spelled, "bare": self.bare}
        content = json.dumps({**facts, "fingerprint": self.fingerprint})
        Path(path).write_text(content, encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a file that `save` wrote. Raises UserError if the file is anything else."""
        try:
            saved = json.loads(Path(path).read_text(encoding="utf-8"))
            tokens = [token.encode("latin-1") for token in saved["tokens"]]
            tokenizer = Tokenizer(saved["kind"], tokens, saved["bare"])
            if saved["kind"] in KINDS and tokenizer.fingerprint == saved["fingerprint"]:
                return tokenizer
            what = "damaged"
        except OSError as error:
            what = str(error.strerror)
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            what = "damaged"
        raise UserError(f"cannot read {path} as a tokenizer: {what}; save it again")

    # Encoding a corpus in parts (minigen/data/shards.py) needs these four. They are methods because
    # other people's tokenizers (minigen/files/hub_tokenizer.py) answer the first three otherwise.

    def copy(self) -> Tokenizer:
        """Return a copy for another thread.

        Two threads that share tiktoken's regular expression slow each other down.
        """
        return Tokenizer(self.kind, self.tokens, self.bare)

    def can_cut(self, text: str, at: int) -> bool:
        """Return whether cutting `text` before text[at] leaves its tokens as they are.

        It always does here, where text[at] is white space after another character.
        """
        return True

    def count_changed(self, documents: Iterable[str], ids: npt.NDArray[np.uint32]) -> int:
        """Return 1 if decoding `ids` does not give `documents`. Always 0 here."""
        return 0

    def count_controls(self, documents: Iterable[str]) -> int:
        """Return how often documents spell a control token, which `encode` reads as letters."""
        return sum(text.count(name) for text in documents for name in self.controls.values())


class StreamDecoder:
    """Decode ids that come one by one, and never show half a character.

    All that `push` and `finish` return, joined, is `Tokenizer.decode` of all the ids.

    >>> stream = train_tokenizer("byte", []).stream()
    >>> [stream.push(id) for id in "né".encode()], stream.finish()
    (['n', '', 'é'], '')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """Return the characters that this id completes; "" while a character is incomplete."""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def finish(self) -> str:
        """Return U+FFFD if the last character was never completed, else ""."""
        return self._decoder.decode(b"", final=True)


def train_tokenizer(kind: str, texts: Iterable[str], vocab_size: int = 1024) -> Tokenizer:
    """Make a tokenizer of `kind` from a corpus that comes in pieces.

    Args:
        kind: one of KINDS; byte and gpt2 need no training and ignore the other arguments.
        texts: the pieces. No token is learned across two pieces.
        vocab_size: for bpe, the number of ids: 256 bytes, END_OF_TEXT, and joins. There are fewer
            ids if the text runs out of pairs that occur twice.

    Raises UserError if there is no such kind, if `vocab_size` has no room for all bytes, if a text
    holds a lone surrogate, or if GPT-2's vocabulary cannot be downloaded.
    """
    if kind not in KINDS:
        raise UserError(f"there is no tokenizer {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "bpe" and vocab_size <= len(BYTES):
        raise UserError(f"vocab_size {vocab_size} has no room for all bytes; give 257 or more")
    tokens: Sequence[bytes] = BYTES
    try:
        if kind == "char":
            tokens = [char.encode("utf-8") for char in sorted(set().union(*texts))]
        elif kind == "bpe":
            words = Counter(word for text in texts for word in regex.findall(PATTERN, text))
            tokens = train_bpe({w.encode("utf-8"): n for w, n in words.items()}, vocab_size - 1)
        elif kind == "gpt2":
            tokens = _gpt2_tokens()
    except UnicodeEncodeError as error:
        raise _lone_surrogate(error) from None
    return Tokenizer(kind, [*tokens, END_OF_TEXT.encode()])


def _check_tokens(kind: str, tokens: Sequence[bytes]) -> None:
    """Raise ValueError if these cannot be the tokens of that kind."""
    *others, last = tokens
    if kind not in KINDS or last != END_OF_TEXT.encode() or len(set(tokens)) < len(tokens):
        raise ValueError(f"no {kind} tokenizer: tokens repeat or the last is not {END_OF_TEXT}")
    if kind == "char":
        if any(len(token.decode("utf-8")) != 1 for token in others):
            raise ValueError("no char tokenizer: a token is not one character")
    elif not set(others) >= set(BYTES) or (kind == "byte" and len(others) > len(BYTES)):
        raise ValueError(f"no {kind} tokenizer: a byte is missing, or byte has more than those")


def _gpt2_tokens() -> list[bytes]:
    """Return GPT-2's tokens but END_OF_TEXT, in the order of the ids. Raises UserError offline."""
    try:
        encoding = tiktoken.get_encoding("gpt2")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot get GPT-2's vocabulary ({type(error).__name__}); go online once, "
            "or set TIKTOKEN_CACHE_DIR to a folder where tiktoken keeps it"
        ) from None
    return [encoding.decode_single_token_bytes(id) for id in range(encoding.eot_token)]


def _lone_surrogate(error: UnicodeEncodeError) -> UserError:
    return UserError(
        f"the text holds {error.object[error.start]!r}, half of a surrogate pair and no character; "
        "remove it, or read the text as UTF-8"
    )
