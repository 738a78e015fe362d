"""Text to token ids and back: characters, bytes, byte-pair encoding trained here, and GPT-2's own.

    kind   its tokens, in the order of the ids                              the text that it takes
    char   the characters of the training text, sorted                      these characters
    byte   the 256 bytes                                                    any
    bpe    the 256 bytes, then joins of two tokens, as training found them  any
    gpt2   the 50,256 tokens that OpenAI published with GPT-2               any

A tokenizer is two facts: its kind, and the bytes of each token in the order of the ids. The last id
is always END_OF_TEXT, which parts documents; no text encodes to it, but a prompt may. A third fact
is how a model reads a text: with END_OF_TEXT before it, as in training, or bare, as other people's
GPT-2 and a model of a book, which has hardly ever seen END_OF_TEXT.

Tokenizers of other models are read by Hugging Face's library: `minigen/files/hub_tokenizer.py`.

>>> tokenizer = train_tokenizer("bpe", ["low lower lowest"], vocab_size=260)
>>> tokenizer.encode("lower")
[257, 101, 114]
>>> tokenizer.decode([257, 101, 114])
'lower'

See byte-pair encoding join the pieces of a word: `python -m minigen.tokenizer unbelievable`.
"""

from __future__ import annotations

import argparse
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
from typing import TYPE_CHECKING, Any

import regex
import tiktoken

import minigen
from minigen.errors import UserError
from minigen.system.streams import decoded, one_line_errors

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


class Tokenizer:
    """Encodes text as ids 0..n_vocab-1 and decodes them: `decode(encode(text)) == text`.

    Args:
        kind: one of KINDS.
        tokens: the bytes of each id's token, END_OF_TEXT's last. Smaller ids are joined earlier.
        bare: a model reads a text without END_OF_TEXT before it.

    Attributes:
        end_of_text: the id that parts documents.
        controls: the ids that no text encodes to, and how a prompt spells each.
        ends: the ids that end a text that the model writes; another model's files may name others.

    Raises ValueError if these cannot be the tokens of that kind.
    """

    def __init__(self, kind: str, tokens: Sequence[bytes], bare: bool = False) -> None:
        self.kind = kind
        self.n_vocab = len(tokens)
        self.end_of_text = self.n_vocab - 1
        self.controls = {self.end_of_text: END_OF_TEXT}
        self.ends = frozenset(self.controls)
        self.bare = bare
        self._tokens = list(tokens)
        self._ids = {token: id for id, token in enumerate(tokens[:-1])}
        if (
            kind not in KINDS
            or tokens[-1] != END_OF_TEXT.encode()
            or len(set(tokens)) < len(tokens)
        ):
            raise ValueError(f"no {kind} tokenizer: tokens repeat or the last is not {END_OF_TEXT}")
        if kind == "char":
            if any(len(token.decode("utf-8")) != 1 for token in self._ids):
                raise ValueError("no char tokenizer: a token is not one character")
            return
        if not self._ids.keys() >= set(BYTES) or (kind == "byte" and len(self._ids) > len(BYTES)):
            raise ValueError(f"no {kind} tokenizer: a byte is missing, or byte has more than those")
        self._encoding = tiktoken.Encoding(
            kind,
            pat_str=PATTERN,
            mergeable_ranks=self._ids,
            special_tokens={END_OF_TEXT: self.end_of_text},
        )

    def __len__(self) -> int:
        return self.n_vocab

    @property
    def stops(self) -> frozenset[int]:
        """The ids that end a text, also one that ends as documents do in training."""
        return self.ends | {self.end_of_text}

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        """The ids of `text`; END_OF_TEXT written in it is plain text.

        Of `bytes`, the parts that are UTF-8 encode as the text they are, any other byte as itself.

        Args:
            special: read `controls` that a `str` spells as such. Of a stranger's text they are
                letters; of a prompt that you write they are what transformers reads.

        Raises UserError for what has no id: with char, an unknown character; a lone surrogate.
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
        """The ids that a model reads to go on after `text`; at least one.

        Args:
            opening: what the model reads instead of an empty text.
            special: read `controls` that the text spells as such, as transformers does.
        """
        if opening and not text:
            return self.encode(opening)
        ids = self.encode(text, special)
        return ids if self.bare and ids else [self.end_of_text, *ids]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        """The ids of `text` as an array of shape (T,), for corpora of many MB; see `encode`."""
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
        """The ids of one or more, END_OF_TEXT before each, as an array of shape (T,)."""
        import numpy as np

        if self.kind in ("char", "hub") or any(END_OF_TEXT in text for text in documents):
            end_of_text = np.array([self.end_of_text], np.uint32)
            parts = ((end_of_text, self.encode_array(text)) for text in documents)
            return np.concatenate([ids for part in parts for ids in part])
        # As one text, in which it stands for itself: many short documents take half of the time.
        text = "".join(END_OF_TEXT + text for text in documents)
        return self._encoding.encode_to_numpy(text, allowed_special={END_OF_TEXT})

    def can_cut(self, text: str, at: int) -> bool:
        """Whether no token crosses text[at], if that is the white space after something else."""
        return True

    def count_controls(self, documents: Iterable[str]) -> int:
        """How often texts spell one of `controls`, which `encode` reads as letters."""
        return sum(text.count(name) for text in documents for name in self.controls.values())

    def count_changed(self, documents: Iterable[str], ids: npt.NDArray[np.uint32]) -> int:
        """1 if the ids of texts do not hold the texts' bytes; 0 always, as `decode` gives all."""
        return 0

    def copy(self) -> Tokenizer:
        """One for another thread: two that share tiktoken's regular expression slow each other."""
        return Tokenizer(self.kind, self._tokens, self.bare)

    @functools.cached_property
    def _id_of_code_point(self) -> npt.NDArray[np.uint32]:
        """(0x110000,): for a char tokenizer, the id of each code point; n_vocab if it has none."""
        import numpy as np

        ids = np.full(0x110000, self.n_vocab, dtype=np.uint32)
        for token, id in self._ids.items():
            ids[ord(token.decode("utf-8"))] = id
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, with U+FFFD for bytes that are not UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`: exactly those that were encoded."""
        return b"".join(map(self.token_bytes, ids))

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; raises UserError if there is no such id."""
        if not 0 <= id < self.n_vocab:
            raise UserError(
                f"token id {id} is not in this tokenizer's 0..{self.n_vocab - 1}; "
                "use the tokenizer that belongs to the ids or the model"
            )
        return self._tokens[id]

    def stream(self) -> StreamDecoder:
        """A decoder for ids that come one by one."""
        return StreamDecoder(self)

    def merges(self, word: str) -> list[list[bytes]]:
        """How `word` becomes tokens: its pieces at the start, as single bytes, and after each step.

        A step joins two neighbours whose join is a token: of all such, the token of smallest id.

        >>> train_tokenizer("bpe", ["low lower lowest"], vocab_size=260).merges("low")
        [[b'l', b'o', b'w'], [b'lo', b'w'], [b'low']]
        """
        ids = self.encode(word)
        if self.kind in ("char", "hub"):
            return [[self.token_bytes(id) for id in ids]]
        steps = [[bytes([byte]) for byte in word.encode("utf-8")]]
        done = 0  # so many of the pieces are tokens of earlier chunks
        for chunk in regex.findall(PATTERN, word):
            n_pieces = len(chunk.encode("utf-8"))
            while True:
                pieces = steps[-1]
                neighbours = enumerate(pairwise(pieces[done : done + n_pieces]), start=done)
                joins = [(self._ids[a + b], i) for i, (a, b) in neighbours if a + b in self._ids]
                if not joins:
                    break
                id, i = min(joins)
                steps.append([*pieces[:i], self._tokens[id], *pieces[i + 2 :]])
                n_pieces -= 1
            done += n_pieces
        return steps

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that decides which ids a text gets."""
        digest = hashlib.sha256(f"{self.kind} {PATTERN}".encode())
        for token in self._tokens:
            digest.update(len(token).to_bytes(4, "little") + token)
        return digest.hexdigest()

    def to_json(self) -> bytes:
        """A tokenizer.json, which Hugging Face's `tokenizers` and `transformers` load too."""
        content = _hugging_face(self.kind, self._tokens, self.bare)
        return json.dumps(content, ensure_ascii=False).encode("utf-8")

    @classmethod
    def from_json(
        cls, content: bytes, name: str = "tokenizer.json", end: str | int | None = None
    ) -> Tokenizer:
        """Read what `to_json` wrote, or any byte-level tokenizer.json.

        Args:
            name: for messages.
            end: the token, or its id, that parts documents where there is no END_OF_TEXT.

        Raises UserError, naming `name`, if it is neither.
        """
        from minigen.files.hub_tokenizer import HubTokenizer  # not above: it imports this file

        try:
            return read_own(json.loads(content)) or HubTokenizer(content, name, end)
        except UserError:
            raise
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            raise UserError(
                f"{name} is damaged or not a byte-level tokenizer.json; save it again"
            ) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file."""
        Path(path).write_bytes(self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read what `save` wrote; raises UserError if the file is anything else."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read {path} as a tokenizer: {error.strerror}; save it again"
            ) from None
        return cls.from_json(content, str(path))


class StreamDecoder:
    """Decodes ids that come one by one, and never shows half a character.

    What `push` and `finish` return, joined, is `decode` of all the ids.

    >>> stream = train_tokenizer("byte", []).stream()
    >>> [stream.push(id) for id in "né".encode()], stream.finish()
    (['n', '', 'é'], '')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """The characters that this id completes; often "", as a character may need several ids."""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def finish(self) -> str:
        """The rest: U+FFFD if the last character was never completed, else ""."""
        return self._decoder.decode(b"", final=True)


def train_tokenizer(kind: str, texts: Iterable[str], vocab_size: int = 1024) -> Tokenizer:
    """Make a tokenizer of `kind` from a corpus that comes in pieces.

    Args:
        kind: one of KINDS; byte and gpt2 need no training and use nothing of the rest.
        texts: the pieces. No token is learned across two of them.
        vocab_size: for bpe, the number of ids: 256 bytes, END_OF_TEXT, the rest joins. It gets
            smaller if the text runs out of pairs that occur twice.
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


def train_bpe(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    """Learn up to `n_tokens` tokens from `words`, each with the number of times that it occurs.

    Byte-pair encoding (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909), told naively:

        spell every word in single bytes; these 256 are the first tokens
        repeat until there are enough tokens:
            count each pair of neighbours in all words
            take the pair with the highest count; of several, the one with the smallest ids
            stop if it occurs only once
            its two tokens, joined, are the next token; put it wherever the pair is

    To count all words again for each token is slow. Two facts spare it.

    A join leaves all else in its place. So the words lie in one list, in which each byte holds the
    id of its token. A join writes the new id over its bytes, and its neighbours lie beside them:

        l o w e r     108 111 119 101 114
        lo is 256     256 256 119 101 114
        low is 257    257 257 257 101 114

    A join makes no pairs but with the new token, so an older pair can only become rarer. A pair is
    counted when it is found, and again when it comes to the top of a heap. If it has become rarer,
    it goes back with its new count; if not, no other pair occurs more often.
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


def _gpt2_tokens() -> list[bytes]:
    """GPT-2's tokens but END_OF_TEXT, in the order of the ids."""
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


# The rest says all this to Hugging Face's `tokenizers`. First, how each kind cuts a text. No two
# cut alike, so this also tells `load` the kind.
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
_UNCUT = {**_BYTE_LEVEL, "use_regex": False}
_CUTS: dict[str, dict[str, Any]] = {
    "char": {**_SPLIT, "pattern": {"Regex": r"[\s\S]"}},
    "byte": _UNCUT,
    "bpe": {
        "type": "Sequence",
        "pretokenizers": [{**_SPLIT, "pattern": {"Regex": PATTERN}}, _UNCUT],
    },
    "gpt2": {**_BYTE_LEVEL, "use_regex": True},  # GPT-2's pattern is built in
}

# JSON holds no bytes, so a character stands for each. GPT-2's rule: the printable bytes of Latin-1
# stand for themselves, the others, in order, are U+0100, U+0101, ... A blank becomes U+0120.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _PRINTABLE]
_CHAR_OF_BYTE = {byte: byte for byte in _PRINTABLE} | {b: 256 + n for n, b in enumerate(_HIDDEN)}
_BYTE_OF_CHAR = {char: byte for byte, char in _CHAR_OF_BYTE.items()}


def _name(kind: str, token: bytes) -> str:
    """How tokenizer.json spells `token`."""
    return token.decode() if kind == "char" else token.decode("latin-1").translate(_CHAR_OF_BYTE)


def _token(kind: str, name: str) -> bytes:
    """The token that tokenizer.json spells `name`."""
    return name.encode() if kind == "char" else token_of_name(name)


def token_of_name(name: str) -> bytes:
    """The bytes that GPT-2's characters spell; UnicodeEncodeError if one is none of them."""
    if not spells_bytes(name):
        raise UnicodeEncodeError("latin-1", name, 0, len(name), "a character stands for no byte")
    return name.translate(_BYTE_OF_CHAR).encode("latin-1")


def spells_bytes(name: str) -> bool:
    """Whether each character stands for a byte."""
    return all(ord(char) in _BYTE_OF_CHAR for char in name)


# GPT-2's tokens, told by the fingerprint that they have with its way to cut, and the pairs that
# OpenAI's file joins to them.
_GPT2 = "b4ef56d20c4773bacf9c3e8aa6d30e0c9188d4f8fb3b9e57981e2ec8c964256e"
_GPT2_MERGES = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"


def read_own(saved: dict[str, Any]) -> Tokenizer | None:
    """The tokenizer whose `to_json` gives all of `saved`, or GPT-2's; None if it is another."""
    # How to cut off and to fill up texts is set anew at each call, by transformers too.
    saved = {**saved, "truncation": None, "padding": None}
    if saved["model"].get("type", "BPE") not in ("BPE", "WordLevel"):
        return None
    return _read_ours(saved) or _read_gpt2(saved)


def _read_ours(saved: dict[str, Any]) -> Tokenizer | None:
    kind = next((kind for kind in KINDS if _CUTS[kind] == saved["pre_tokenizer"]), None)
    if kind is None:
        return None
    vocab = saved["model"]["vocab"]
    bare = saved["post_processor"] is None
    # All of it must be what `to_json` writes for these tokens. So nothing is damaged, and nothing
    # asks for what `Tokenizer` does not do.
    try:
        tokens = [_token(kind, token) for token in sorted(vocab, key=vocab.__getitem__)]
        ours = Tokenizer(kind, tokens, bare)
    except ValueError:
        return None
    return ours if saved == _hugging_face(kind, tokens, bare) else None


def _read_gpt2(saved: dict[str, Any]) -> Tokenizer | None:
    """GPT-2's tokenizer, as others save it with the same content."""
    if len(vocab := saved["model"]["vocab"]) != 50257:
        return None
    names = sorted(vocab, key=vocab.__getitem__)
    try:
        ours = Tokenizer("gpt2", [_token("gpt2", name) for name in names], bare=True)
    except ValueError:
        return None
    return ours if ours.fingerprint == _GPT2 and _asks_for_no_more(saved, ours) else None


def _asks_for_no_more(saved: dict[str, Any], gpt2: Tokenizer) -> bool:
    """Whether a file with GPT-2's tokens also says of all else what OpenAI's says."""
    model, added = saved["model"], saved["added_tokens"]
    cut, begin = saved["pre_tokenizer"] or {}, saved["post_processor"] or {"type": "ByteLevel"}
    decoder = saved["decoder"] or {}
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    own = [" ".join(m) for m in json.loads(gpt2.to_json())["model"]["merges"]]
    digest = hashlib.sha256("\n".join(merges).encode()).hexdigest()
    return (
        (cut.get("type"), cut.get("add_prefix_space")) == ("ByteLevel", False)
        and cut.get("use_regex", True)
        and saved["normalizer"] is None
        # Neither adds a token.
        and (begin["type"] == "ByteLevel" or [*begin.get("single", ())] == [_TEXT])
        and decoder.get("type") == "ByteLevel"
        and model.get("type", "BPE") == "BPE"
        and not any(model.get(name) for name in ("dropout", *_AFFIXES, "byte_fallback"))
        and (digest == _GPT2_MERGES or merges == own)
        and len(added) == 1
        and (added[0]["content"], added[0]["id"]) == (END_OF_TEXT, gpt2.end_of_text)
        and added[0]["special"]
        and not any(added[0].get(name) for name in ("lstrip", "rstrip", "single_word"))
    )


_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
_TEXT = {"Sequence": {"id": "A", "type_id": 0}}  # of a template


def _hugging_face(kind: str, tokens: Sequence[bytes], bare: bool) -> dict[str, Any]:
    """The content of tokenizer.json."""
    names = {token: _name(kind, token) for token in tokens}
    model: dict[str, Any] = {"vocab": {name: id for id, name in enumerate(names.values())}}
    if kind == "char":
        # A list of words, each one character. "<unk>" is not one of them, on purpose: so an unknown
        # character is an error there too. It would vanish in silence from a BPE.
        model |= {"type": "WordLevel", "unk_token": "<unk>"}
    else:
        model |= {"type": "BPE", "fuse_unk": False, "byte_fallback": False}
        model |= dict.fromkeys(("dropout", "unk_token"))
        model |= dict.fromkeys(_AFFIXES)
        # tiktoken takes a chunk that is a token whole, and joins any two neighbours that make a
        # token; `tokenizers` joins only listed pairs. So list all ways to halve each token.
        model["ignore_merges"] = True
        model["merges"] = [
            [names[token[:i]], names[token[i:]]]
            for token in tokens[:-1]
            for i in range(1, len(token))
            if token[:i] in names and token[i:] in names
        ]
    end_of_text = {"id": len(tokens) - 1, "content": END_OF_TEXT, "special": True}
    end_of_text |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    name = {"id": END_OF_TEXT, "type_id": 0}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    begin = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": name}, _TEXT],
        "pair": [{"SpecialToken": name}, _TEXT, {"SpecialToken": name}, second],
        "special_tokens": {
            END_OF_TEXT: {"id": END_OF_TEXT, "ids": [len(tokens) - 1], "tokens": [END_OF_TEXT]}
        },
    }
    return {
        "version": "1.0",
        **dict.fromkeys(("truncation", "padding", "normalizer")),
        "post_processor": None if bare else begin,
        "added_tokens": [end_of_text],
        "pre_tokenizer": _CUTS[kind],
        "model": model,
        "decoder": {"type": "Fuse"} if kind == "char" else {**_BYTE_LEVEL, "use_regex": True},
    }


def main() -> None:
    """Print the merges of a word, a step a line."""
    parser = argparse.ArgumentParser(description="Show how a word becomes tokens, step by step.")
    parser.add_argument("--version", action="version", version=f"minigen {minigen.__version__}")
    parser.add_argument("word")
    parser.add_argument(
        "--tokenizer", help="a tokenizer.json that minigen saved, instead of GPT-2's"
    )
    args = parser.parse_args()
    path, word = args.tokenizer, decoded(args.word)
    tokenizer = Tokenizer.load(path) if path else train_tokenizer("gpt2", [])
    for pieces in tokenizer.merges(word):
        print(" | ".join(piece.decode("utf-8", errors="backslashreplace") for piece in pieces))
    print("ids:", *tokenizer.encode(word))


if __name__ == "__main__":
    with one_line_errors():
        main()
