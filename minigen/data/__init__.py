"""Text to tokens to batches, in constant memory; and batches as a pure function of (seed, step).

    files --read_text--> text --Text.pieces--> documents --write_tokens--> files of token ids
    files of token ids --TokenFile.batch(seed, step)--> inputs x and targets y

A stream of tokens is END_OF_TEXT, a document, END_OF_TEXT, a document, and so on. It lies in a
cache in shards, files of bounded size that are named by its content. So a text is tokenised once,
and if that is interrupted, it goes on behind the last whole shard.

Shapes: B windows in a batch, T = block_size tokens in a window.
"""

from __future__ import annotations

import bisect
import codecs
import contextlib
import functools
import hashlib
import io
import itertools
import json
import math
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from minigen.errors import UserError
from minigen.system.disk import write_atomically
from minigen.system.places import writable
from minigen.system.streams import progress_bar
from minigen.system.text_file import CONTROL_BYTES, container, likely, not_utf8, unreadable, utf16
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

FORMAT = 1  # raise it when the same text would give other tokens or shards: old ones do not fit
CHUNK = 1 << 20  # bytes to read, characters to encode at once: memory is a small multiple of it
STRIPE = 1 << 20  # characters that are read in a row of a text that is read in part
SHARD = 1 << 26  # characters in a file of tokens, or up to a chunk more
MOST_OPEN = 64  # files of tokens at once
# Characters to train a tokenizer on. Five times as many, of 100 MB of source code, made 1 to 2 %
# fewer tokens and took more than twice as long.
BPE_SAMPLE = 2_000_000
ROWS = (".csv", ".tsv", ".jsonl")  # endings of files in which a row of any length is a line
NOTED = 1 << 24  # bytes that are looked at to see whether each line is a document
SIGNS = {
    "\ufeff": "a byte order mark where files were joined; the model learns it as a letter",
    "\ufffd": "which stands where letters were lost when it was converted",
}
SHORT = 1 << 16  # characters: a text that takes no time to tokenise
MOST_CUTS = 1000  # places that are tried to cut a document
RARE = 20_000  # tokens of a document so long that few windows show where one begins


class Source(Protocol):
    """Where the text lies. `val` is empty where a part of `train` is to be held out."""

    @property
    def train(self) -> Sequence[Path]: ...
    @property
    def val(self) -> Sequence[Path]: ...
    @property
    def separator(self) -> str | None: ...


def prepare(
    source: Source,
    tokenizer: Tokenizer | None,
    kind: str,
    vocab_size: int,
    cache: Path,
    val_fraction: float = 0.1,
    block_size: int = 0,
    most_chars: int = 0,
) -> tuple[Tokenizer, TokenFile, TokenFile]:
    """Tokenise a corpus, or find that this was done before.

    Args:
        source: the files. Without `val` files, the last `val_fraction` of the characters of `train`
            are held out: of one file, text[: int(0.9 * n)] trains, text[int(0.9 * n) :] validates.
        tokenizer: the one to use; None trains one of `kind` on the training part.
        cache: the folder for the results; created if missing, and all in it can be made again.
        block_size: what windows are to hold, if that is known already. A short text that has not
            the tokens of one is refused before anything is written.
        most_chars: of a longer text about so many characters are read, in stripes from all over it;
            0: all are.

    Returns the tokenizer, the training stream and the validation stream.
    Raises UserError if the text cannot be read, is empty, or is no text.
    """
    train = scan(source.train, source.separator)
    if source.val:
        val = scan(source.val, source.separator)
    else:
        train, val = hold_out(train, val_fraction)
    if most_chars and not source.val:
        every = math.ceil((train.n_chars + val.n_chars) / most_chars)
        train, val = replace(train, every=every), replace(val, every=every)
    key = _key(train.sha256, train.stop, val.sha256, kind, vocab_size, *train.key)
    learnt, is_new = writable(cache) / f"{key}.tokenizer.json", False
    if tokenizer is None:
        tokenizer, is_new = _trained_tokenizer(train, val, kind, vocab_size, learnt)
    for text, name in ((train, "training text"), (val, "validation text")):
        if block_size and text.n_chars <= SHORT:
            parts = chunks(text.pieces(), CHUNK, tokenizer)
            n_tokens = sum(len(tokenizer.encode_documents(part.documents)) for part in parts)
            _check_length(n_tokens, name, block_size)
    if is_new:
        with write_atomically(learnt) as part:
            tokenizer.save(part)
    train_file = write_tokens(train, tokenizer, cache, "training text")
    return tokenizer, train_file, write_tokens(val, tokenizer, cache, "validation text")


# ---- files to text ----


def read_text(path: Path) -> Iterator[str]:
    r"""The text of a file in chunks: strict UTF-8, no byte order mark, "\n" at the ends of lines.

    Raises UserError if it cannot be read, is not UTF-8, or holds bytes that no text holds.
    """
    # Both keep what is cut by a chunk's end for the next: half a character, and "\r" without "\n".
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    n_read, n_control, is_ascii = 0, 0, True
    try:
        with path.open("rb") as file:
            data = b"any"
            while data:
                data = file.read(CHUNK)
                if n_read == 0 and (found := utf16(data)):
                    raise not_utf8(path, found[1], found[0])
                if n_read == 0 and (known := container(data)):
                    raise UserError(f"{path} is {known[0]}, not text; {known[1]}, or leave it out")
                n_read += len(data)
                n_control += len(data) - len(data.translate(None, CONTROL_BYTES))
                if b"\0" in data or n_control > n_read / 2:
                    raise UserError(f"{path} is binary, not text; give UTF-8 text, or leave it out")
                if text := decoder.decode(data, final=not data):
                    is_ascii &= text.isascii()
                    yield text
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        # The decoder was given error.object, which ends where reading has come to.
        place = n_read - len(error.object) + error.start
        bad = f"byte {place} ({error.object[error.start]:#04x}) fits no character"
        # What was UTF-8 beyond ASCII up to there is damaged, and not in another encoding.
        encoding = likely(error.object, error.start) if is_ascii else None
        raise not_utf8(path, bad, encoding) from None


class Piece(NamedTuple):
    """A part of a document, never empty; `begins` is true for the document's first."""

    begins: bool
    text: str


def split_documents(chunks: Iterable[str], separator: str) -> Iterator[Piece]:
    r"""Split a text that comes in chunks at each `separator`.

    Newlines around a document are dropped (of those behind it, the last CHUNK), then documents
    without a character.

    >>> [piece.text for piece in split_documents(["one\n\ntwo\n", "\n\nthree\n"], "\n\n")]
    ['one', 'two', 'three']
    """
    begins, rest = True, ""
    for chunk in itertools.chain(chunks, [None]):
        *ended, rest = [rest, ""] if chunk is None else (rest + chunk).split(separator)
        for text in ended:
            text = text.rstrip("\n")
            if text := (text.lstrip("\n") if begins else text):
                yield Piece(begins, text)
            begins = True
        # What may be the beginning of a separator, and newlines that may be the document's last,
        # wait for the next chunk. Endless newlines must not fill the memory.
        sure = len(rest[: max(0, len(rest) - len(separator) + 1)].rstrip("\n"))
        sure = max(sure, len(rest) - CHUNK - len(separator))
        if text := (rest[:sure].lstrip("\n") if begins else rest[:sure]):
            yield Piece(begins, text)
            begins = False
        rest = rest[sure:]


@dataclass(frozen=True)
class Text:
    """The characters `start` to `stop` of the documents of some files, the files joined in order.

    Separators and the newlines around them belong to no document, and are not counted anywhere.
    """

    files: tuple[Path, ...]
    separator: str | None
    sha256: str  # of all documents, not only of those from `start` to `stop`
    states: tuple[tuple[int, int], ...]  # of the files: as long as these stay, so does the text
    start: int
    stop: int
    every: int = 1  # of so many stripes of STRIPE characters one is read, and the others are not

    @property
    def spans(self) -> Iterator[tuple[int, int]]:
        """The characters that are read, as (start, stop) pairs in order."""
        if self.every == 1:
            yield self.start, self.stop
        else:
            for start in range(self.start, self.stop, self.every * STRIPE):
                yield start, min(start + STRIPE, self.stop)

    @property
    def n_chars(self) -> int:
        """The number of characters that are read."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def key(self) -> tuple[int, ...]:
        """The part of this text's name in the cache that tells a text read in stripes."""
        return (self.every,) if self.every > 1 else ()

    def pieces(self) -> Iterator[Piece]:
        """The documents in pieces of at most some MB. One cut by a span's start begins there."""
        position, spans = 0, self.spans
        start, stop = next(spans)
        for begins, text in _pieces(self.files, self.separator):
            while start < position + len(text):
                if part := text[max(0, start - position) : stop - position]:
                    yield Piece(begins or position <= start, part)
                if stop > position + len(text):
                    break  # the span continues in the next piece
                if (span := next(spans, None)) is None:
                    return
                start, stop = span
            position += len(text)

    def check(self) -> None:
        """Raises UserError if a file is no longer what it was when it was scanned."""
        for path, was, now in zip(self.files, self.states, _states(self.files), strict=True):
            if was != now:
                raise UserError(f"{path} changed while it was read; start again")


def _states(files: Iterable[Path]) -> tuple[tuple[int, int], ...]:
    """The size of each file in bytes, and when it was changed, in ns."""
    states = []
    for path in files:
        try:
            found = path.stat()
        except OSError as error:
            raise unreadable(path, error) from None
        states.append((found.st_size, found.st_mtime_ns))
    return tuple(states)


def _pieces(files: Iterable[Path], separator: str | None) -> Iterator[Piece]:
    for path in files:
        if separator is not None:
            yield from split_documents(read_text(path), separator)
        else:
            for i, text in enumerate(read_text(path)):
                yield Piece(i == 0, text)


def scan(files: Sequence[Path], separator: str | None) -> Text:
    """Read all once: to see that it is text, to count its characters, to know it again."""
    states = _states(files)
    digest, n_chars = hashlib.sha256(), 0
    with _bar("reading", sum(size for size, _ in states), "B") as bar:
        for piece in _pieces(files, separator):
            content = piece.text.encode("utf-8")
            # 0xFF is in no UTF-8, so the digest also tells where the documents begin.
            digest.update(b"\xff" * piece.begins + content)
            n_chars += len(piece.text)
            bar.update(len(content))
    if n_chars == 0:
        named = ", ".join(map(str, files[:3])) + (" ..." if len(files) > 3 else "")
        raise UserError(f"no text in {named}; give a file that is not empty")
    return Text(tuple(files), separator, digest.hexdigest(), states, 0, n_chars)


def notes_on_text(source: Source) -> list[str]:
    """Return what to say of a text that may be read in another way than its owner means it."""
    return [*_notes_on_documents(source), *_notes_on_signs(source.train)]


def _notes_on_documents(source: Source) -> list[str]:
    """Return what to say of a separator that is nowhere, or of a text with one document a line.

    A book has blank lines or long ones, and a program has indented ones.
    """
    if source.separator is not None:
        if is_anywhere(source.separator, source.train):
            return []
        return [
            f"warning: the separator {source.separator!r} occurs nowhere in the text, so each file "
            "is one document; --separator gives another"
        ]
    n_bytes, n_lines, n_others, text, more = 0, 0, 0, "", ""
    longest = 1000 if all(path.suffix.lower() in ROWS for path in source.train) else 100
    for text in itertools.chain.from_iterable(map(read_text, source.train)):
        n_bytes += len(text.encode("utf-8"))  # of Chinese, a hundred characters are no short line
        n_lines += text.count("\n")
        n_others += text.count("\n\n") + text.count("\n ") + text.count("\n\t")
        if n_bytes >= CHUNK and n_bytes > longest * n_lines:  # do not read a long book again
            return []
        if n_bytes >= NOTED:
            more = "more than "
            break
    n_lines += not text.endswith("\n")
    if n_lines < 50 or n_bytes > longest * n_lines or 50 * n_others > n_lines:
        return []
    kind = "rows" if longest > 100 else "short lines"
    return [
        f"{more}{n_lines:,} {kind}; if each stands by itself, "
        '--separator "\\n" makes each a document'
    ]


def is_anywhere(words: str, files: Iterable[Path]) -> bool:
    """Return whether a text holds these words, also where a chunk ends within them."""
    for path in files:
        rest = ""
        for chunk in read_text(path):
            rest += chunk
            if words in rest:
                return True
            rest = rest[-len(words) :]
    return False


def _notes_on_signs(files: Iterable[Path]) -> list[str]:
    """Return what to say of signs that programs leave in a text and that nobody reads."""
    found, n_bytes = Counter[str](), 0
    for text in itertools.chain.from_iterable(map(read_text, files)):
        found.update({sign: n for sign in SIGNS if (n := text.count(sign))})
        n_bytes += len(text)
        if n_bytes >= NOTED:
            break
    return [
        f"warning: the text holds U+{ord(sign):04X} {n:,} {'time' if n == 1 else 'times'}, {what}"
        for sign, what in SIGNS.items()
        if (n := found[sign])
    ]


def hold_out(text: Text, fraction: float) -> tuple[Text, Text]:
    """Cut off the last `fraction` of the characters for validation."""
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction is {fraction}; give a number between 0 and 1, such as 0.1")
    cut = int((1 - fraction) * text.stop)
    if not 0 < cut < text.stop:
        raise UserError(
            f"{text.files[0]}: {text.stop} characters are too few to hold some out; give more"
        )
    return replace(text, stop=cut), replace(text, start=cut)


# ---- text to tokens ----


class Chunk(NamedTuple):
    """Documents to encode at once, the first of which `begins` or goes on from the last chunk."""

    begins: bool
    documents: list[str]

    @property
    def n_chars(self) -> int:
        return sum(map(len, self.documents))


def chunks(
    pieces: Iterable[Piece], size: int, tokenizer: Tokenizer | None = None
) -> Iterator[Chunk]:
    """Gather and cut pieces to be encoded: `size` characters or up to twice as many.

    The tokens of a document's parts are those of the document, except where `size` characters have
    no place to cut, or none of the last MOST_CUTS. Other tokens may stand there, but the text stays
    the same.

    Args:
        tokenizer: what is to encode them; None: one that cuts as GPT-2's does.
    """
    chunk, length = Chunk(True, []), 0  # with END_OF_TEXT before each document
    for piece in pieces:
        if not piece.begins:
            chunk.documents[-1] += piece.text
        else:
            if length >= size:
                yield chunk
                chunk, length = Chunk(True, []), 0
            chunk.documents.append(piece.text)
            length += len(END_OF_TEXT)
        length += len(piece.text)
        while len(text := chunk.documents[-1]) >= size:
            cut = _last_cut(text, size, tokenizer)
            chunk.documents[-1] = text[:cut]
            yield chunk
            chunk, length = Chunk(False, [text[cut:]]), len(text) - cut
    if length:
        yield chunk


def _last_cut(text: str, size: int, tokenizer: Tokenizer | None) -> int:
    """The last place before `size` where no token crosses: between something and white space.

    White space stands only at the beginning of GPT-2's words, so one ends there whatever follows.
    Other tokenizers tell whether it is so.
    """
    ends = (i for i in range(size - 1, 0, -1) if text[i] in " \n" and not text[i - 1].isspace())
    for i in itertools.islice(ends, MOST_CUTS):
        if tokenizer is None or tokenizer.can_cut(text, i):
            return i
    return size


def _trained_tokenizer(
    train: Text, val: Text, kind: str, vocab_size: int, path: Path
) -> tuple[Tokenizer, bool]:
    """The tokenizer that `path` has, or a new one; and whether it is to be saved there."""
    if kind not in ("char", "bpe"):
        return train_tokenizer(kind, []), False  # not learned from text
    with contextlib.suppress(UserError):  # missing or damaged
        return Tokenizer.load(path), False
    if kind == "char":
        # Those of the validation text too: a character without an id could not be scored.
        known: set[str] = set()
        for piece in itertools.chain(train.pieces(), val.pieces()):
            known.update(piece.text)
        tokenizer = train_tokenizer("char", ["".join(known)])
    else:
        tokenizer = train_tokenizer("bpe", _sample(train), vocab_size)
    for text in (train, val):
        text.check()
    return tokenizer, True


def _sample(text: Text) -> Iterator[str]:
    """Chunks from all over the text, of `BPE_SAMPLE` characters or a little more together."""
    share = min(1, BPE_SAMPLE / text.n_chars)
    seen = taken = 0
    with _bar("choosing a sample to learn tokens from", text.n_chars, "char") as bar:
        for chunk in chunks(text.pieces(), size=1 << 16):
            seen += chunk.n_chars
            bar.update(chunk.n_chars)
            if taken < share * seen:
                taken += chunk.n_chars
                yield from chunk.documents


def write_tokens(text: Text, tokenizer: Tokenizer, cache: Path, name: str) -> TokenFile:
    """Encode `text` into shards, END_OF_TEXT before each document, or what is missing of them.

    Each shard takes its place when it is whole, and then the file of facts that names it.
    """
    key = _key(text.sha256, text.start, text.stop, tokenizer.fingerprint, *text.key)
    path = writable(cache) / f"{key}.json"
    dtype = np.dtype("<u2" if tokenizer.n_vocab <= 1 << 16 else "<u4")
    shards = _whole_shards(path)
    file = TokenFile(path, name, dtype.str, tokenizer.end_of_text, shards, text.every)
    n_done = sum(shard.n_chars for shard in file.shards)
    if n_done == text.n_chars:
        _tell(file, tokenizer)
        return file
    encoded = _encode(text, tokenizer, dtype, n_done, cache)
    with _bar("tokenising", text.n_chars, "char", n_done) as bar:
        for _, parts in itertools.groupby(encoded, key=lambda part: part.shard):
            with write_atomically(_shard_path(path, len(file.shards))) as part:
                shard = _write_shard(part, parts, bar)
                text.check()
            file = replace(file, shards=(*file.shards, shard))
            facts = asdict(file)
            del facts["path"], facts["name"], facts["every"]
            with write_atomically(path) as part:
                part.write_bytes(json.dumps(facts, indent=1).encode("utf-8"))
    text.check()  # if it became shorter, there may have been no shard to commit
    _tell(file, tokenizer)
    return file


def _tell(file: TokenFile, tokenizer: Tokenizer) -> None:
    """Say how the model reads a text otherwise than it is written."""
    if n := sum(shard.n_controls for shard in file.shards):
        names = [*tokenizer.controls.values()]
        named = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        print(
            f"note: in the {file.name}, {n:,} control tokens of the model ({named}) are read as "
            "letters",
            file=sys.stderr,
        )
    if any(shard.n_changed for shard in file.shards):
        print(
            f"note: the model's tokenizer changes the {file.name}, as it did in the model's own "
            "training: its tokens do not decode to the very same text",
            file=sys.stderr,
        )


def _bar(what: str, total: int, unit: str, n_done: int = 0) -> tqdm[Any]:
    """Return a bar that shows itself after a second, and not where stderr is no terminal."""
    return progress_bar(
        desc=what, total=total, initial=n_done, unit=unit, unit_scale=True, delay=1, leave=False
    )


class Part(NamedTuple):
    """The ids of a chunk as bytes, the number of their shard, and what they add to its facts."""

    shard: int
    ids: bytes
    counts: dict[str, int]


def _encode(
    text: Text, tokenizer: Tokenizer, dtype: np.dtype[Any], n_done: int, cache: Path
) -> Iterator[Part]:
    """What comes behind the first `n_done` characters, in order, by as many threads as torch uses.

    Threads do, since tiktoken works without Python's lock. Each has a tokenizer of its own.
    """
    own, lengths = threading.local(), _lengths(tokenizer)

    def begin() -> None:
        own.tokenizer = tokenizer.copy()

    def encode(shard: int, chunk: Chunk) -> Part:
        ids = own.tokenizer.encode_documents(chunk.documents)
        ids = ids if chunk.begins else ids[1:]
        counts = {
            "n_tokens": len(ids),
            "n_token_bytes": int(lengths.take(ids).sum()),
            "n_chars": chunk.n_chars,
            "n_documents": len(chunk.documents) - (not chunk.begins),
            "n_controls": own.tokenizer.count_controls(chunk.documents),
            "n_changed": own.tokenizer.count_changed(chunk.documents, ids),
        }
        return Part(shard, ids.astype(dtype).tobytes(), counts)

    n_threads, place = torch.get_num_threads(), 0
    waiting: deque[Future[Part]] = deque()
    with ThreadPoolExecutor(n_threads, initializer=begin) as pool:
        for chunk in chunks(text.pieces(), CHUNK, tokenizer):
            if place < n_done < place + chunk.n_chars:
                raise UserError(
                    f"{cache} has the beginning of these tokens, cut otherwise by another minigen; "
                    "remove that folder, whose files can all be made again"
                )
            if place >= n_done:
                waiting.append(pool.submit(encode, place // SHARD, chunk))
            place += chunk.n_chars
            if len(waiting) > n_threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _lengths(tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """The number of bytes of each token, shape (V,); END_OF_TEXT holds none."""
    lengths = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.n_vocab)])
    lengths[tokenizer.end_of_text] = 0
    return lengths


def _write_shard(path: Path, parts: Iterable[Part], bar: tqdm[Any]) -> Shard:
    digest, counts = hashlib.sha256(), Counter[str]()
    with path.open("wb") as file:
        for part in parts:
            file.write(part.ids)
            digest.update(part.ids)
            counts.update(part.counts)
            bar.update(part.counts["n_chars"])
    return Shard(**counts, sha256=digest.hexdigest())


def _whole_shards(path: Path) -> tuple[Shard, ...]:
    """The first shards that the facts at `path` name, as many as lie there undamaged."""
    shards: list[Shard] = []
    # Missing, cut short, damaged, or no facts of ours: those from there on are made again.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        for facts in json.loads(path.read_bytes())["shards"]:
            shard = Shard(**facts)
            if _sha256(_shard_path(path, len(shards))) != shard.sha256:
                break
            shards.append(shard)
    return tuple(shards)


def _shard_path(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number:04}.bin")


def _key(*facts: str | int) -> str:
    return hashlib.sha256(json.dumps([FORMAT, *facts]).encode("utf-8")).hexdigest()[:32]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


# ---- tokens to batches ----


@dataclass(frozen=True)
class Shard:
    """The facts about one file of a stream."""

    n_tokens: int  # with one END_OF_TEXT for each document
    # Not always those of the documents: a model's own tokenizer may normalise what it reads.
    n_token_bytes: int  # that the tokens hold; END_OF_TEXT and separators hold none
    n_chars: int
    n_documents: int  # that begin in it
    sha256: str  # of the file
    n_controls: int = 0  # control tokens of the model that its text spells
    n_changed: int = 0  # of its chunks that decode to another text than was read


@dataclass(frozen=True)
class TokenFile:
    """A stream of token ids on disk, in shards, and the facts about its text.

    It is read window by window with plain reads: a memory map would kill the process without a word
    if a file were cut short.
    """

    path: Path  # of the facts; the shards lie beside it
    name: str  # for messages
    dtype: str  # "<u2" or "<u4"
    end_of_text: int
    shards: tuple[Shard, ...]
    every: int = 1  # one of this number of stripes of the text was read

    @functools.cached_property
    def n_tokens(self) -> int:
        return sum(shard.n_tokens for shard in self.shards)

    @functools.cached_property
    def n_bytes(self) -> int:
        return sum(shard.n_token_bytes for shard in self.shards)

    @functools.cached_property
    def n_documents(self) -> int:
        return sum(shard.n_documents for shard in self.shards)

    def n_windows(self, block_size: int) -> int:
        """Windows in an epoch. Raises UserError if there are not the T + 1 tokens of one."""
        _check_length(self.n_tokens, self.name, block_size)
        return self.n_tokens // block_size

    def bits_per_byte(self, separator_bytes: int) -> float:
        """A loss of 1 nat/token in bits/byte, where END_OF_TEXT stands for so many bytes."""
        n_bytes = self.n_bytes + (self.n_documents - 1) * separator_bytes
        return (self.n_tokens - 1) / n_bytes / math.log(2)  # the first END_OF_TEXT is no target

    def batch(
        self, seed: int, step: int, batch_size: int, block_size: int
    ) -> tuple[Tensor, Tensor]:
        """Inputs (B, T) and targets (B, T) of a training step: one value for one seed and step."""
        return self.windows(seed, range(step * batch_size, (step + 1) * batch_size), block_size)

    def windows(self, seed: int, ids: Iterable[int], block_size: int) -> tuple[Tensor, Tensor]:
        """The samples `ids` of an endless random order; a share of a batch is a share of its ids.

        The stream is a circle, its end followed by its first END_OF_TEXT. In an epoch it is cut at
        a random place and from there on every T tokens, and each of the n_windows windows is one
        sample; the last n_tokens % T tokens are left over, others in each epoch. Sample id is the
        window number id % n_windows of the shuffled epoch id // n_windows.

        A window that would begin inside a document of at most T tokens begins with that document
        instead. What comes later in a short document is learnt far sooner if its beginning can be
        seen, and if no other document is in the way.

        Returns x and y, int64 of shape (B, T): y[b, t] is the token that follows x[b, t].
        """
        n_windows = self.n_windows(block_size)
        rows = []
        for id in ids:
            epoch, place = divmod(int(id), n_windows)
            first, order = _epoch(seed, epoch, self.n_tokens, n_windows)
            start = first + int(order[place]) * block_size
            around = self.read(start - block_size, 2 * block_size + 1)  # the middle is at `start`
            begins = np.flatnonzero(around == self.end_of_text)
            before, after = begins[begins <= block_size], begins[begins > block_size]
            is_short = len(before) and len(after) and after[0] - before[-1] <= block_size
            begin = before[-1] if is_short else block_size
            rows.append(around[begin : begin + block_size + 1])
        return _inputs_and_targets(rows)

    def sliding(
        self, block_size: int, batch_size: int, stride: int | None = None, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every token but the first as a target once, in order, with context before it.

        A window scores the targets that no earlier one has. The next begins `stride` (default
        T // 2) tokens later, or where the document begins whose tokens it is to score, and the last
        one so that it ends with the stream. So each token is predicted from its document's
        beginning on, always in one of at most T tokens, or from at least T - stride tokens.

        Args:
            limit: score only about so many: as many windows as it takes, spread evenly over the
                whole stream, that score `stride` targets each. One place would not stand for all.

        Yields x (B, T) and y (B, T), int64; y is -1 where a target is not to be scored.
        """
        self.n_windows(block_size)  # is there one?
        stride = max(1, block_size // 2) if stride is None else stride
        if not 1 <= stride <= block_size:
            raise ValueError(f"stride {stride} is not in 1..{block_size}")
        windows = self._sliding_windows(block_size, stride, limit)
        while batch := list(itertools.islice(windows, batch_size)):
            x, y = _inputs_and_targets([self.read(s, block_size + 1) for s, _, _ in batch])
            for row, (start, scored, last) in zip(y, batch, strict=True):
                row[: scored - start] = -1
                row[last - start :] = -1
            yield x, y

    def _sliding_windows(
        self, block_size: int, stride: int, limit: int | None
    ) -> Iterator[tuple[int, int, int]]:
        """Where each window of `sliding` begins, the last target before its own, and its last."""
        n_targets = self.n_tokens - 1
        spans = [(0, n_targets)]  # the targets to score: those after the first place, to the second
        if limit is not None and (n := math.ceil(limit / stride)) * stride < n_targets:
            spans = [(i * n_targets // n, i * n_targets // n + stride) for i in range(n)]
        for scored, last in spans:
            while scored < last:
                # The last token before the targets is of the first one's document.
                first = max(0, scored + 1 - block_size)
                near = self.read(first, min(2 * block_size, self.n_tokens - first))
                begins = first + np.flatnonzero(near == self.end_of_text)
                begin = int(max(begins[begins <= scored], default=0))
                end = int(min(begins[begins > scored], default=first + len(near)))
                if end - begin > block_size:
                    begin = max(begin, scored - (block_size - stride))
                start = min(begin, n_targets - block_size)
                yield start, scored, last
                scored = start + block_size

    def read(self, place: int, n: int) -> npt.NDArray[np.int64]:
        """The `n` tokens from `place` on. The stream is a circle: its first follows its last."""
        dtype, parts = np.dtype(self.dtype), []
        while n:
            place %= self.n_tokens
            number = bisect.bisect(self._begins, place) - 1
            skip = place - self._begins[number]
            take = min(n, self.shards[number].n_tokens - skip)
            try:
                file, stamp = self._open(number)
                file.seek(skip * dtype.itemsize)
                ids = file.read(take * dtype.itemsize)
            except OSError as error:
                path = _shard_path(self.path, number)
                raise UserError(f"cannot read {path}: {error.strerror}; start again") from None
            if stamp != _stamp(file) or len(ids) < take * dtype.itemsize:
                raise UserError(
                    f"{_shard_path(self.path, number)} was cut short or written over; "
                    "start again to make it anew"
                )
            parts.append(np.frombuffer(ids, dtype))
            place, n = place + take, n - take
        return np.concatenate(parts, dtype=np.int64)

    @functools.cached_property
    def _opened(self) -> dict[int, tuple[io.FileIO, tuple[int, int]]]:
        """Shards, kept open: they stay readable when their names are removed or given away."""
        return {}

    def _open(self, number: int) -> tuple[io.FileIO, tuple[int, int]]:
        """A shard's file, and what tells whether it was changed since then."""
        if number not in self._opened:
            if len(self._opened) == MOST_OPEN:
                self._opened.clear()
            file = io.FileIO(_shard_path(self.path, number))
            self._opened[number] = file, _stamp(file)
        return self._opened[number]

    @functools.cached_property
    def _begins(self) -> list[int]:
        """The place of each shard's first token."""
        return list(itertools.accumulate((s.n_tokens for s in self.shards), initial=0))[:-1]


def _check_length(n_tokens: int, name: str, block_size: int) -> None:
    if n_tokens < block_size + 1:
        raise UserError(
            f"the {name} has only {n_tokens} tokens, and --block_size {block_size} "
            f"needs {block_size + 1}; give a smaller --block_size or more text"
        )


def opening(tokens: TokenFile, tokenizer: Tokenizer) -> str:
    """The end of a line or paragraph, to go on from without a prompt; "" if documents begin often.

    A model sees a book's only END_OF_TEXT a few times, or none. After it, such a model writes the
    book's first words by heart, or begins in mid-word. A line's end it has seen everywhere.
    """
    if tokens.n_documents > 1 and tokens.n_tokens < RARE * tokens.n_documents:
        return ""
    ids = tokens.read(0, min(tokens.n_tokens, 1 << 16)).tolist()
    text = tokenizer.decode(id for id in ids if id != tokens.end_of_text)
    if 50 * text.count("\n\n") > text.count("\n"):
        return "\n\n"
    return "\n" if "\n" in text else ""


def _stamp(file: io.FileIO) -> tuple[int, int]:
    """What changes when a file does."""
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


def _inputs_and_targets(rows: Sequence[npt.NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """x and y, (B, T) each, of B rows of T + 1 tokens."""
    windows = torch.from_numpy(np.stack(rows))  # (B, T + 1)
    return windows[:, :-1].clone(), windows[:, 1:].clone()


@functools.lru_cache(maxsize=2)  # a batch may span two epochs
def _epoch(
    seed: int, epoch: int, n_tokens: int, n_windows: int
) -> tuple[int, npt.NDArray[np.int64]]:
    """Where an epoch's first window begins, and the order of its windows.

    It takes 8 bytes of memory a window, and 20 while it is made; 5 GB of text have 6 million.

    Only the generator's raw numbers are used. numpy keeps those the same for ever, but not what it
    makes of them (NEP 19), and a run should go on as it began after numpy was updated.
    """
    raw = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(1 + n_windows)
    return int(raw[0]) % n_tokens, np.argsort(raw[1:], kind="stable")
