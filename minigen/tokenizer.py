"""Text to token ids and back: characters, bytes, byte-pair encoding trained here, and GPT-2's own.

    kind   its tokens, in the order of the ids                     the text that it encodes
    char   the characters of the training text, sorted             text of these characters
    byte   the 256 bytes                                           any
    bpe    the 256 bytes, then merges of two tokens, as learnt     any
    gpt2   the 50,256 tokens that OpenAI published with GPT-2      any

A model reads and predicts numbers, so a text is cut into tokens, pieces of a fixed list, and each
token has a number. Why not characters? A text has several times as many characters as tokens: a
token of the tales holds 4.7 bytes. So a window of T tokens shows the model more than four times as
much text as a window of T bytes, for the same work. Why not words? The list would be long, most of
its words would be too rare to learn, and a new text always has words that are not in the list: 1 of
22 in the last tenth of tiny Shakespeare. Tokens are between the two. A frequent word is one token,
and a rare word is several.

A tokenizer that is trained here has three properties: its kind; the bytes of each token, in the
order of the ids; and whether a model reads END_OF_TEXT before a text. A `bare` tokenizer puts none
there: GPT-2 of Hugging Face reads a text bare, and so does a model of a single book, which has
hardly ever seen END_OF_TEXT. The id after the learnt tokens is END_OF_TEXT. It stands before each
document, so a model learns where a text ends, and that the text before it says nothing about the
text after it. No training text encodes to it
(test_end_of_text_is_the_last_id_and_no_text_encodes_to_it), but a prompt may. Special tokens of
one's own, such as `<|user|>`, follow END_OF_TEXT and obey the same rule.

The file begins with byte-pair encoding step by step: `naive_bpe` learns tokens, and `naive_encode`
spells a text with them. `train_bpe` learns the same tokens faster, and `Tokenizer.encode` gives the
same ids faster. The tokenizer.json that other programs read, and the tokenizers of models from
Hugging Face, are in `minigen/files/`.

>>> tokenizer = train_tokenizer("bpe", ["low lower lowest"], vocab_size=260)
>>> tokenizer.encode("lower")
[257, 101, 114]
>>> tokenizer.decode([257, 101, 114])
'lower'

Watch byte-pair encoding merge the pieces of a word: `python -m minigen merges unbelievable`.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import heapq
import itertools
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
PIECE = 1 << 16  # characters of a long text that are encoded at once
MAX_CUTS = 1000  # places where a cut of a long text is tried

# GPT-2's split of a text into words, within which bytes are merged. A word is an English
# contraction ('s, 'll); or letters, or digits, or other signs, with at most one space before them;
# or white space, without its last character if a word follows. The bound of 100,000 is minigen's: a
# million blanks in a row overflow tiktoken's stack (test_a_million_blanks_before_a_word_encode).
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s{1,100000}(?!\S)|\s"


# ---- byte-pair encoding, step by step ----


def naive_bpe(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    """Learn up to `n_tokens` tokens from `words`, each with the number of times that it occurs.

    Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) spells every word in single bytes,
    which are the first 256 tokens. Then it merges, again and again, the two neighbours that are
    most frequent; of several such pairs, the one with the smallest first id, then second. Each
    merge is the next token. Learning stops when there are enough tokens, or no pair occurs twice.

    Why bytes at first? Every text is bytes in UTF-8, so nothing is unknown
    (test_decode_inverts_encode_for_any_text). Why the most frequent pair? A merge makes the text
    one token shorter wherever the pair occurs, so this merge makes it shortest
    (test_the_first_merge_is_the_one_that_shortens_the_text_most). Why words? A pair is counted only
    within a word. Else the tokens would go to frequent phrases, "of the", and to each word once
    more for every sign after it: "dog.", "dog!", "dog?" (test_no_token_crosses_two_words).

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
            for i in range(len(spelling)):  # a spelling becomes shorter; past its end, no pair fits
                if tuple(spelling[i : i + 2]) == best:
                    spelling[i : i + 2] = [len(tokens)]
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return tokens


def naive_encode(text: str, tokens: Sequence[bytes]) -> list[int]:
    """Return the ids of `text`: split it into words, spell each in bytes, and merge neighbours.

    The merges are made in the order in which training learnt them. So a word gets the spelling that
    it had at the end of training, and a model meets the tokens that it was trained on
    (test_a_word_is_spelled_by_the_merges_of_training_in_their_order).

    >>> naive_encode("lower", [*BYTES, b"lo", b"low"])
    [257, 101, 114]
    """
    id_of = {token: id for id, token in enumerate(tokens)}
    ids = []
    for word in regex.findall(PATTERN, text):
        pieces = single_bytes(word)
        while (i := next_merge(pieces, id_of)) is not None:
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        ids += [id_of[piece] for piece in pieces]
    return ids


def single_bytes(word: str) -> list[bytes]:
    """Return the bytes of a word in UTF-8, one by one."""
    return [bytes([byte]) for byte in word.encode("utf-8")]


def next_merge(pieces: Sequence[bytes], id_of: Mapping[bytes, int]) -> int | None:
    """Return the index of the piece to merge with its right neighbour; None if no pair is a token.

    Of all pairs of neighbours that together are a token, this is the pair whose token was learnt
    first, the one with the smallest id; of several such pairs, it is the leftmost.
    """
    merges = [(id_of[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in id_of]
    return min(merges)[1] if merges else None


# ---- the same tokens, learnt faster ----


def train_bpe(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    """Learn the tokens of `naive_bpe` without counting all words again for each token.

    Two observations make that possible (test_incremental_training_is_naive_training).

    All words lie in one list, with an entry for each byte: the id of the byte's token. A merge
    writes the new id over the entries of its bytes, and moves nothing else:

        l o w e r     108 111 119 101 114
        lo is 256     256 256 119 101 114
        low is 257    257 257 257 101 114

    Every pair that a merge makes contains the new token, so an older pair can only become rarer. A
    pair is counted when it appears, and again when it comes to the top of a heap. If it has become
    rarer, it goes back with its new count; if not, no other pair occurs more often.
    """
    tokens = list(BYTES)
    gap = -1  # stands between words, in place of an id
    ids, times = [gap], [0]  # for each byte, its token and how often its word occurs
    for word, n_times in words.items():
        ids += [*word, gap]  # a byte's value is its id
        times += [n_times] * (len(word) + 1)

    heap: list[tuple[int, tuple[int, int], list[int]]] = []  # (-count, pair, where it starts)

    def push(starts_of: Mapping[tuple[int, int], list[int]]) -> None:
        for pair, starts in starts_of.items():
            count = sum([times[start] for start in starts])
            if count > 1:
                heapq.heappush(heap, (-count, pair, starts))

    starts_of = defaultdict(list)
    for start, pair in enumerate(pairwise(ids)):
        if gap not in pair:
            starts_of[pair].append(start)
    push(starts_of)

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
        starts_of = defaultdict(list)
        for start in starts:
            if ids[start] == left:  # in "aaa" the first merge takes the start of the second
                end = start + length
                ids[start:end] = [id] * length
                before, after = ids[start - 1], ids[end]
                if before != gap:
                    starts_of[before, id].append(start - len(tokens[before]))
                if after != gap:
                    starts_of[id, after].append(start)
        push(starts_of)
    return tokens


# ---- the tokenizer ----


class Tokenizer:
    """Encode text as ids 0..n_vocab-1, and decode them: `decode(encode(text)) == text`.

    Args:
        kind: one of KINDS; or "hub", the tokenizer of a model from Hugging Face, which only a
            subclass can encode.
        tokens: the bytes of each token, in the order of the ids; END_OF_TEXT is the last. A token
            with a smaller id is merged earlier.
        bare: a model reads a text without END_OF_TEXT before it.
        controls: the control tokens of a "hub" tokenizer, which no training text encodes to, each
            with its spelling in a prompt: {id: spelling}. Other kinds have END_OF_TEXT and
            `special_tokens`.
        end_of_text: the id, one of `controls`, that separates documents; None: that of the last of
            `tokens`.
        special_tokens: control tokens of one's own. Their ids follow END_OF_TEXT, in this order, so
            all other ids stay as they are.

    Attributes, besides these arguments:
        tokens: all tokens, also the special ones.
        ends: the ids that end a text which the model writes: `end_of_text`, unless the files of a
            model from Hugging Face name others.

    Raises UserError if a special token cannot be one; ValueError if `tokens` cannot be the tokens
    of that kind.

    >>> tokenizer = train_tokenizer("byte", [], special_tokens=("<|user|>", "<|end|>"))
    >>> tokenizer.encode("<|user|>", special=True) + tokenizer.encode("Hi<|end|>")
    [257, 72, 105, 60, 124, 101, 110, 100, 124, 62]
    >>> tokenizer.controls
    {256: '<|endoftext|>', 257: '<|user|>', 258: '<|end|>'}
    """

    def __init__(
        self,
        kind: str,
        tokens: Sequence[bytes],
        bare: bool = False,
        controls: Mapping[int, str] | None = None,
        end_of_text: int | None = None,
        special_tokens: Sequence[str] = (),
    ) -> None:
        if kind != "hub":
            _check_tokens(kind, tokens)
            _check_special_tokens(special_tokens, tokens)
        self.kind, self.bare, self.special_tokens = kind, bare, tuple(special_tokens)
        self.tokens = [*tokens, *(name.encode("utf-8") for name in special_tokens)]
        self.n_vocab = len(self.tokens)
        self.end_of_text = len(tokens) - 1 if end_of_text is None else end_of_text
        if controls is None:
            controls = dict(enumerate((END_OF_TEXT, *special_tokens), start=self.end_of_text))
        self.controls = dict(controls)
        self.ends = frozenset([self.end_of_text])
        self._ids = {token: id for id, token in enumerate(self.tokens) if id not in self.controls}

    def __len__(self) -> int:
        return self.n_vocab

    @functools.cached_property
    def _encoding(self) -> tiktoken.Encoding:
        """Byte-pair encoding in Rust, for the kinds whose tokens are made of bytes."""
        return tiktoken.Encoding(
            self.kind,
            pat_str=PATTERN,
            mergeable_ranks=self._ids,
            special_tokens={END_OF_TEXT: self.end_of_text},
        )

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids at which writing stops: `ends`, and the id that separates training documents."""
        return self.ends | {self.end_of_text}

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        """Return the ids of `text`.

        In `bytes`, each part that is UTF-8 is encoded as text. Any other byte is its own token
        (test_a_byte_that_is_not_utf8_is_its_own_token).

        Args:
            special: False for text of others, such as a training text or the words of a user: a
                written `<|endoftext|>` is encoded as letters, so no text can end a document. True
                for a text of one's own and for a prompt, as in transformers: a control token that a
                `str` spells becomes that token. No token crosses a control token, so parts that are
                encoded one by one, each in its own way, add up to the ids of a whole
                (test_trusted_and_untrusted_parts_add_up).

        Raises UserError for a character that has no id: an unknown character if the kind is char; a
        lone surrogate with any kind.
        """
        ids: list[int] = []
        if isinstance(text, str):
            first, *others = self._control_names.split(text) if special else [text]
            ids = self.encode_array(first).tolist()
            for name, part in zip(others[::2], others[1::2], strict=True):
                ids += [self._id_of_name[name], *self.encode(part)]
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
            opening: the text that the model reads if `text` is empty.
            special: a control token that the text spells becomes that token, as in transformers.
        """
        if opening and not text:
            return self.encode(opening)
        ids = self.encode(text, special)
        return ids if self.bare and ids else [self.end_of_text, *ids]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        """Return the ids of `text` as an array (T,), fast enough for corpora of many MB.

        A written END_OF_TEXT is encoded as letters. Raises UserError for a character without an id.
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

    def encode_iterable(self, chunks: Iterable[str]) -> Iterator[int]:
        """Yield the ids of a text that does not fit into memory, such as the lines of an open file.

        They are the ids that `encode` gives for the joined text, wherever one chunk ends and the
        next begins (test_the_ids_of_chunks_are_those_of_the_joined_text). About PIECE characters
        are in memory at a time; more only as long as they have no place where no token crosses,
        which is a blank or a newline after another character.

        Raises UserError for a character that has no id, when its turn comes.

        >>> tokenizer = train_tokenizer("bpe", ["low lower lowest"], vocab_size=260)
        >>> list(tokenizer.encode_iterable(["lo", "we", "r"])) == tokenizer.encode("lower")
        True
        """
        parts, length, size = list[str](), 0, PIECE
        for chunk in chunks:
            for start in range(0, len(chunk), PIECE):  # a chunk itself may be long
                parts.append(chunk[start : start + PIECE])
                length += len(parts[-1])
                while length >= size:
                    text = "".join(parts)
                    cut = last_cut(text, size, self)
                    if cut is None:
                        size *= 2  # so that a text without a blank is not searched again and again
                        parts = [text]
                        continue
                    yield from self.encode(text[:cut])
                    parts, length, size = [text[cut:]], length - cut, PIECE
        yield from self.encode("".join(parts))

    def encode_documents(self, documents: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Return the ids of at least one document, END_OF_TEXT before each, as an array (T,)."""
        import numpy as np

        if self.kind in ("char", "hub") or any(END_OF_TEXT in text for text in documents):
            end_of_text = np.array([self.end_of_text], np.uint32)
            parts = ((end_of_text, self.encode_array(text)) for text in documents)
            return np.concatenate([ids for part in parts for ids in part])
        # All documents as one text, in which END_OF_TEXT becomes its token. That takes half of the
        # time if documents are short.
        text = "".join(END_OF_TEXT + text for text in documents)
        return self._encoding.encode_to_numpy(text, allowed_special={END_OF_TEXT})

    @functools.cached_property
    def _id_of_name(self) -> dict[str, int]:
        """The id of each control token, by its spelling."""
        return {name: id for id, name in self.controls.items()}

    @functools.cached_property
    def _control_names(self) -> re.Pattern[str]:
        """A pattern of all control tokens; of two that begin alike, it finds the longer one."""
        longest_first = sorted(self.controls.values(), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @functools.cached_property
    def _id_of_code_point(self) -> npt.NDArray[np.uint32]:
        """The id of each code point for a char tokenizer, (0x110000,); n_vocab: it has no id."""
        import numpy as np

        ids = np.full(0x110000, self.n_vocab, dtype=np.uint32)
        for token, id in self._ids.items():
            ids[ord(token.decode("utf-8"))] = id
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, with U+FFFD in the place of bytes that are not UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of `ids`, which are exactly the bytes that were encoded."""
        return b"".join(map(self.token_bytes, ids))

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token. Raises UserError if the id is not in the vocabulary."""
        if not 0 <= id < self.n_vocab:
            raise UserError(
                f"token id {id} is not in this tokenizer's 0..{self.n_vocab - 1}; "
                "use the tokenizer that belongs to the ids or the model"
            )
        return self.tokens[id]

    def stream(self) -> StreamDecoder:
        """Return a decoder that takes ids one by one."""
        return StreamDecoder(self)

    def merges(self, word: str) -> list[list[bytes]]:
        """Return the steps from `word` to its tokens: its bytes, and its pieces after each merge.

        >>> train_tokenizer("bpe", ["low lower lowest"], vocab_size=260).merges("low")
        [[b'l', b'o', b'w'], [b'lo', b'w'], [b'low']]
        """
        ids = self.encode(word)
        if self.kind in ("char", "hub"):
            return [[self.token_bytes(id) for id in ids]]
        spellings = [single_bytes(part) for part in regex.findall(PATTERN, word)]
        steps = [[piece for pieces in spellings for piece in pieces]]
        for pieces in spellings:
            while (i := next_merge(pieces, self._ids)) is not None:
                pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
                steps.append([piece for pieces in spellings for piece in pieces])
        return steps

    @property
    def fingerprint(self) -> str:
        """The SHA-256, in hex, of everything on which the ids of a text depend."""
        digest = hashlib.sha256(f"{self.kind} {PATTERN}".encode())
        for token in self.tokens:
            digest.update(len(token).to_bytes(4, "little") + token)
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file for `load`. `files.tokenizer_files` writes the file for other programs."""
        tokens = self.tokens[: self.end_of_text + 1]
        spelled = [token.decode("latin-1") for token in tokens]  # a character for each byte
        saved: dict[str, object] = {"kind": self.kind, "tokens": spelled, "bare": self.bare}
        if self.special_tokens:
            saved["special_tokens"] = self.special_tokens
        saved_json = json.dumps({**saved, "fingerprint": self.fingerprint})
        Path(path).write_text(saved_json, encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a file that `save` wrote. Raises UserError for any other file, or for none."""
        try:
            saved = json.loads(Path(path).read_text(encoding="utf-8"))
            tokens = [token.encode("latin-1") for token in saved["tokens"]]
            special_tokens = saved.get("special_tokens", ())
            tokenizer = Tokenizer(
                saved["kind"], tokens, saved["bare"], special_tokens=special_tokens
            )
            if saved["kind"] in KINDS and tokenizer.fingerprint == saved["fingerprint"]:
                return tokenizer
            reason = "damaged"
        except OSError as error:
            reason = str(error.strerror)
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            reason = "damaged"
        raise UserError(f"cannot read {path} as a tokenizer: {reason}; save it again")

    # minigen/data/shards.py encodes a corpus in chunks, in threads, with these four methods. The
    # HubTokenizer of minigen/files/hub_tokenizer.py has the first three of its own.

    def copy(self) -> Tokenizer:
        """Return a copy for another thread.

        Two threads that share one tokenizer slow each other down in tiktoken's regular expressions.
        """
        tokens = self.tokens[: self.end_of_text + 1]
        return Tokenizer(self.kind, tokens, self.bare, special_tokens=self.special_tokens)

    def can_cut(self, text: str, at: int) -> bool:
        """Return whether the parts text[:at] and text[at:] have the same tokens as `text`.

        Args:
            at: text[at] is white space and text[at - 1] is not. With GPT-2's words, no token then
                crosses the cut (test_tokens_of_chunks_are_tokens_of_the_whole).
        """
        return True

    def count_changed(self, documents: Iterable[str], ids: npt.NDArray[np.uint32]) -> int:
        """Return 1 if `ids` do not decode to `documents`, else 0: here always 0."""
        return 0

    def count_controls(self, documents: Iterable[str]) -> int:
        """Return how often documents spell a control token, which `encode` takes for letters."""
        return sum(text.count(name) for text in documents for name in self.controls.values())


def last_cut(text: str, size: int, tokenizer: Tokenizer | None) -> int | None:
    """Return the last place before `size` that no token crosses; None if none is found.

    It is before white space that follows another character. GPT-2's words have white space only at
    their beginning, so a word ends there, whatever follows. Tokenizers with other words answer for
    themselves (`Tokenizer.can_cut`). Among characters or bytes, any place will do.

    Args:
        tokenizer: the tokenizer that will encode the parts; None: one with the words of GPT-2.
    """
    ends = (i for i in range(size - 1, 0, -1) if text[i] in " \n" and not text[i - 1].isspace())
    for i in itertools.islice(ends, MAX_CUTS):
        if tokenizer is None or tokenizer.can_cut(text, i):
            return i
    return size if tokenizer is not None and tokenizer.kind in ("char", "byte") else None


class StreamDecoder:
    """A decoder of ids that come one by one, which never shows half a character.

    The results of `push` and `finish` add up to `Tokenizer.decode` of all the ids
    (test_a_stream_adds_up_to_decode).

    >>> stream = train_tokenizer("byte", []).stream()
    >>> [stream.push(id) for id in "né".encode()], stream.finish()
    (['n', '', 'é'], '')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._incomplete = b""  # the bytes of a character that is not whole yet

    def push(self, id: int) -> str:
        """Return the characters that `id` completes; "" while a character is incomplete."""
        content = self._incomplete + self._tokenizer.token_bytes(id)
        characters, n_bytes = codecs.utf_8_decode(content, "replace")
        self._incomplete = content[n_bytes:]
        return characters

    def breaks(self, id: int) -> bool:
        """Return whether an incomplete character before `id` becomes U+FFFD, as `id` ends it."""
        try:
            codecs.utf_8_decode(self._incomplete + self._tokenizer.token_bytes(id)[:1])
        except UnicodeDecodeError:
            return len(self._incomplete) > 0
        return False

    def finish(self) -> str:
        """Return U+FFFD if the last character is still incomplete, else ""."""
        characters, self._incomplete = self._incomplete.decode(errors="replace"), b""
        return characters


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int = 1024, special_tokens: Sequence[str] = ()
) -> Tokenizer:
    """Train a tokenizer of `kind` on a corpus that comes in parts.

    Args:
        kind: one of KINDS; byte and gpt2 need no training and ignore the other arguments.
        texts: the parts. No token is learnt across two parts.
        vocab_size: for bpe, the number of ids: 256 bytes, merges, END_OF_TEXT, and the special
            tokens. There are fewer ids if the text runs out of pairs that occur twice.
        special_tokens: of any kind, control tokens of one's own, such as `<|user|>`. The text is
            learnt as letters where it spells one.

    Raises UserError if the kind is unknown, if `vocab_size` has no room for all bytes, if a special
    token cannot be one, if a text contains a lone surrogate, or if GPT-2's vocabulary cannot be
    downloaded.
    """
    if kind not in KINDS:
        raise UserError(f"there is no tokenizer {kind!r}; choose one of {', '.join(KINDS)}")
    _check_special_tokens(special_tokens, ())  # before a text is read
    n_tokens = vocab_size - 1 - len(special_tokens)
    if kind == "bpe" and n_tokens < len(BYTES):
        least = len(BYTES) + 1 + len(special_tokens)
        raise UserError(f"vocab_size {vocab_size} has no room for all bytes; give {least} or more")
    tokens: Sequence[bytes] = BYTES
    try:
        if kind == "char":
            tokens = [char.encode("utf-8") for char in sorted(set().union(*texts))]
        elif kind == "bpe":
            words = Counter(word for text in texts for word in regex.findall(PATTERN, text))
            tokens = train_bpe({w.encode("utf-8"): n for w, n in words.items()}, n_tokens)
        elif kind == "gpt2":
            tokens = _gpt2_tokens()
    except UnicodeEncodeError as error:
        raise _lone_surrogate(error) from None
    return Tokenizer(kind, [*tokens, END_OF_TEXT.encode()], special_tokens=special_tokens)


def _check_tokens(kind: str, tokens: Sequence[bytes]) -> None:
    """Raise ValueError if `tokens` cannot be the tokens of `kind`."""
    *others, last = tokens
    if kind not in KINDS or last != END_OF_TEXT.encode() or len(set(tokens)) < len(tokens):
        raise ValueError(f"no {kind} tokenizer: tokens repeat or the last is not {END_OF_TEXT}")
    if kind == "char":
        if any(len(token.decode("utf-8")) != 1 for token in others):
            raise ValueError("no char tokenizer: a token is not one character")
    elif not set(others) >= set(BYTES) or (kind == "byte" and len(others) > len(BYTES)):
        raise ValueError(f"no {kind} tokenizer: a byte is missing, or byte has a 257th token")


def _check_special_tokens(names: Sequence[str], tokens: Sequence[bytes]) -> None:
    """Raise UserError if a name cannot be a special token beside `tokens`.

    The characters U+00A1..U+0143 stand for bytes in a tokenizer.json (files/tokenizer_json.py), so
    other programs would decode a special token with one of them to another text.
    """
    if isinstance(names, str):
        raise UserError(f"special_tokens is the text {names!r}; give a list: [{names!r}]")
    for n, name in enumerate(names):
        if not isinstance(name, str) or not name:
            why = "is not text" if name != "" else "is empty"
        elif name == END_OF_TEXT:
            why = "is always a token"
        elif name in names[:n]:
            why = "is there twice"
        elif char := re.search("[\xa1-\u0143\ud800-\udfff]", name):
            why = f"has {char[0]!r}, which tokenizer.json cannot spell"
        elif name.encode("utf-8") in tokens:
            why = "is a token of the text, too"
        else:
            continue
        raise UserError(f"the special token {name!r} {why}; leave it out, or give e.g. '<|user|>'")


def _gpt2_tokens() -> list[bytes]:
    """Return GPT-2's tokens without END_OF_TEXT, in the order of the ids.

    Raises UserError if tiktoken has them neither on disk nor from the network.
    """
    try:
        encoding = tiktoken.get_encoding("gpt2")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot get GPT-2's vocabulary ({type(error).__name__}); go online once, "
            "or set TIKTOKEN_CACHE_DIR to a folder where tiktoken keeps it"
        ) from None
    return [encoding.decode_single_token_bytes(id) for id in range(encoding.eot_token)]


def _lone_surrogate(error: UnicodeEncodeError) -> UserError:
    """Return the error for a text that contains half of a surrogate pair."""
    return UserError(
        f"the text holds {error.object[error.start]!r}, half of a surrogate pair and no character; "
        "remove it, or read the text as UTF-8"
    )
