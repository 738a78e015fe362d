"""Text to tokens to batches, in constant memory; and batches as a pure function of (seed, step).

    files --read_text--> text --Text.pieces--> documents --write_tokens--> a file of token ids
    a file of token ids --TokenFile.batch(seed, step)--> inputs x and targets y

A stream of tokens is END_OF_TEXT, a document, END_OF_TEXT, a document, and so on. It lies in a
cache file that is named by its content, so that a text is tokenised once.

Shapes: B windows in a batch, T = block_size tokens in a window.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import hashlib
import io
import itertools
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from minigen.errors import UserError
from minigen.tokenizer import Tokenizer, train_tokenizer

FORMAT = 1  # raise it when the same text would give other tokens, so that old caches are not used
CHUNK = 1 << 20  # bytes to read, characters to encode at once: memory is a small multiple of it
# Characters to train a tokenizer on. Five times as many, of 100 MB of source code, made 1 to 2 %
# fewer tokens and took more than twice as long.
BPE_SAMPLE = 2_000_000

CONTROL_BYTES = bytes({*range(32), 127} - set(b"\t\n\f\r\x1b"))


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
) -> tuple[Tokenizer, TokenFile, TokenFile]:
    """Tokenise a corpus, or find that this was done before.

    Args:
        source: the files. Without `val` files, the last `val_fraction` of the characters of `train`
            are held out: of one file, text[: int(0.9 * n)] trains, text[int(0.9 * n) :] validates.
        tokenizer: the one to use; None trains one of `kind` on the training part.
        cache: the folder for the results; created if missing, and all in it can be made again.

    Returns the tokenizer, the training stream and the validation stream.
    Raises UserError if the text cannot be read, is empty, or is no text.
    """
    train = scan(source.train, source.separator)
    if source.val:
        val = scan(source.val, source.separator)
    else:
        train, val = hold_out(train, val_fraction)
    if tokenizer is None:
        tokenizer = _trained_tokenizer(train, val, kind, vocab_size, cache)
    train_file = _token_file(train, tokenizer, cache, "training text")
    return tokenizer, train_file, _token_file(val, tokenizer, cache, "validation text")


# ---- files to text ----


def read_text(path: Path) -> Iterator[str]:
    r"""The text of a file in chunks: strict UTF-8, no byte order mark, "\n" at the ends of lines.

    Raises UserError if it cannot be read, is not UTF-8, or holds bytes that no text holds.
    """
    # Both keep what is cut by a chunk's end for the next: half a character, and "\r" without "\n".
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    n_read = n_control = 0
    try:
        with path.open("rb") as file:
            data = b"any"
            while data:
                data = file.read(CHUNK)
                n_read += len(data)
                n_control += len(data) - len(data.translate(None, CONTROL_BYTES))
                if b"\0" in data or n_control > n_read / 2:
                    raise UserError(f"{path} is binary, not text; give UTF-8 text, or leave it out")
                if text := decoder.decode(data, final=not data):
                    yield text
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; mend that or leave it out"
        ) from None
    except UnicodeDecodeError as error:
        # The decoder was given error.object, which ends where reading has come to.
        place = n_read - len(error.object) + error.start
        raise UserError(
            f"{path} is not UTF-8: byte {place} ({error.object[error.start]:#04x}) fits no "
            "character; convert it to UTF-8, or leave it out"
        ) from None


class Piece(NamedTuple):
    """A part of a document, never empty; `begins` is true for the document's first."""

    begins: bool
    text: str


def split_documents(chunks: Iterable[str], separator: str) -> Iterator[Piece]:
    r"""Split a text that comes in chunks at each `separator`.

    Newlines around a document are dropped, then documents without a character.

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
        # wait for the next chunk.
        sure = len(rest[: max(0, len(rest) - len(separator) + 1)].rstrip("\n"))
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
    start: int
    stop: int

    def pieces(self) -> Iterator[Piece]:
        """The documents in pieces of at most some MB. One cut by `start` begins there."""
        position = 0
        for begins, text in _pieces(self.files, self.separator):
            if position >= self.stop:
                return
            if part := text[max(0, self.start - position) : self.stop - position]:
                yield Piece(begins or position <= self.start, part)
            position += len(text)


def _pieces(files: Iterable[Path], separator: str | None) -> Iterator[Piece]:
    for path in files:
        if separator is not None:
            yield from split_documents(read_text(path), separator)
        else:
            for i, text in enumerate(read_text(path)):
                yield Piece(i == 0, text)


def scan(files: Sequence[Path], separator: str | None) -> Text:
    """Read all once: to see that it is text, to count its characters, to know it again."""
    digest, n_chars = hashlib.sha256(), 0
    for piece in _pieces(files, separator):
        # 0xFF is in no UTF-8, so the digest also tells where the documents begin.
        digest.update(b"\xff" * piece.begins + piece.text.encode("utf-8"))
        n_chars += len(piece.text)
    if n_chars == 0:
        named = ", ".join(map(str, files[:3])) + (" ..." if len(files) > 3 else "")
        raise UserError(f"no text in {named}; give a file that is not empty")
    return Text(tuple(files), separator, digest.hexdigest(), 0, n_chars)


def hold_out(text: Text, fraction: float) -> tuple[Text, Text]:
    """Cut off the last `fraction` of the characters for validation."""
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction is {fraction}; give a number between 0 and 1, such as 0.1")
    cut = int((1 - fraction) * text.stop)
    if not 0 < cut < text.stop:
        raise UserError(
            f"{text.files[0]}: {text.stop} characters are too few to hold some out; give more text"
        )
    return replace(text, stop=cut), replace(text, start=cut)


# ---- text to tokens ----


def chunks(pieces: Iterable[Piece], size: int) -> Iterator[Piece]:
    """Gather and cut pieces to be encoded one by one: a document, or up to `size` characters of it.

    The tokens of the chunks are those of the document, except where `size` characters have no place
    to cut (see `_last_cut`). Other tokens may stand there, but the text stays the same.
    """
    begins, text = True, ""
    for piece in pieces:
        if piece.begins:
            if text:
                yield Piece(begins, text)
            begins, text = True, ""
        text += piece.text
        while len(text) >= size:
            cut = _last_cut(text[:size])
            yield Piece(begins, text[:cut])
            begins, text = False, text[cut:]
    if text:
        yield Piece(begins, text)


def _last_cut(text: str) -> int:
    """The last place where no token crosses: between something and the white space after it.

    White space stands only at the beginning of GPT-2's words, so one ends there whatever follows.
    """
    for i in range(len(text) - 1, 0, -1):
        if text[i] in " \n" and not text[i - 1].isspace():
            return i
    return len(text)


def _trained_tokenizer(
    train: Text, val: Text, kind: str, vocab_size: int, cache: Path
) -> Tokenizer:
    if kind not in ("char", "bpe"):
        return train_tokenizer(kind, [])  # not learned from text
    path = cache / f"{_key(train.sha256, train.stop, val.sha256, kind, vocab_size)}.tokenizer.json"
    with contextlib.suppress(UserError):  # missing or damaged
        return Tokenizer.load(path)
    if kind == "char":
        # Those of the validation text too: a character without an id could not be scored.
        known: set[str] = set()
        for piece in itertools.chain(train.pieces(), val.pieces()):
            known.update(piece.text)
        tokenizer = train_tokenizer("char", ["".join(known)])
    else:
        tokenizer = train_tokenizer("bpe", _sample(train), vocab_size)
    with _written(path) as part:
        tokenizer.save(part)
    return tokenizer


def _sample(text: Text) -> Iterator[str]:
    """Chunks from all over the text, of `BPE_SAMPLE` characters or a little more together."""
    share = min(1, BPE_SAMPLE / (text.stop - text.start))
    seen = taken = 0
    for _, chunk in chunks(text.pieces(), size=1 << 16):
        seen += len(chunk)
        if taken < share * seen:
            taken += len(chunk)
            yield chunk


def _token_file(text: Text, tokenizer: Tokenizer, cache: Path, name: str) -> TokenFile:
    key = _key(text.sha256, text.start, text.stop, tokenizer.fingerprint)
    path = cache / f"{key}.bin"
    facts_path = cache / f"{key}.json"
    # Missing, cut short, damaged, or no facts of ours: it is made again.
    with contextlib.suppress(OSError, ValueError, TypeError):
        file = TokenFile(path=path, name=name, **json.loads(facts_path.read_bytes()))
        if _sha256(path) == file.sha256:
            return file
    with _written(path) as part:
        file = write_tokens(text, tokenizer, part)
    facts = asdict(file)
    del facts["path"], facts["name"]
    with _written(facts_path) as part:  # last: what has its facts is whole
        part.write_bytes(json.dumps(facts, indent=1).encode("utf-8"))
    return replace(file, path=path, name=name)


def write_tokens(text: Text, tokenizer: Tokenizer, path: Path) -> TokenFile:
    """Encode `text` into the file `path`: END_OF_TEXT before each document, little-endian ids."""
    dtype = np.dtype("<u2" if tokenizer.n_vocab <= 1 << 16 else "<u4")
    digest = hashlib.sha256()
    n_tokens = n_bytes = n_chars = n_documents = 0
    with (
        path.open("wb") as file,
        # Shows itself after a second, and not where stderr is no terminal.
        tqdm(
            desc="tokenising",
            total=text.stop - text.start,
            unit="char",
            unit_scale=True,
            delay=1,
            disable=None,
            leave=False,
        ) as bar,
    ):
        for begins, chunk in chunks(text.pieces(), size=CHUNK):
            ids = tokenizer.encode_array(chunk)
            if begins:
                ids = np.concatenate([np.array([tokenizer.end_of_text], ids.dtype), ids])
            data = ids.astype(dtype).tobytes()
            file.write(data)
            digest.update(data)
            n_tokens += len(ids)
            n_bytes += len(chunk.encode("utf-8"))
            n_chars += len(chunk)
            n_documents += begins
            bar.update(len(chunk))
    if n_chars != text.stop - text.start:
        raise UserError(f"{text.files[0]}: the text changed while it was read; start again")
    return TokenFile(
        path, "text", n_tokens, n_bytes, n_chars, n_documents, dtype.str, digest.hexdigest()
    )


def _key(*facts: str | int) -> str:
    return hashlib.sha256(json.dumps([FORMAT, *facts]).encode("utf-8")).hexdigest()[:32]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A file to write that becomes `path` when it is whole, and vanishes if it does not get so far.

    Two processes may do this at once: each writes its own file, and the later one takes the place.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room or mend that") from None
    finally:
        with contextlib.suppress(OSError):  # it is `path` now, or was never begun
            part.unlink()


# ---- tokens to batches ----


@dataclass(frozen=True)
class TokenFile:
    """A stream of token ids on disk, and the facts about its text.

    It is read window by window with plain reads: a memory map would kill the process without a word
    if the file were cut short.
    """

    path: Path
    name: str  # for messages
    n_tokens: int  # with one END_OF_TEXT for each document
    n_bytes: int  # of the documents as UTF-8, without separators and END_OF_TEXT
    n_chars: int
    n_documents: int
    dtype: str  # "<u2" or "<u4"
    sha256: str  # of the file

    def n_windows(self, block_size: int) -> int:
        """Windows in an epoch. Raises UserError if there are not the T + 1 tokens of one."""
        if self.n_tokens < block_size + 1:
            raise UserError(
                f"the {self.name} has only {self.n_tokens} tokens, and --block_size {block_size} "
                f"needs {block_size + 1}; give a smaller --block_size or more text"
            )
        return self.n_tokens // block_size

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
        starts = []
        for id in ids:
            epoch, place = divmod(int(id), n_windows)
            first, order = _epoch(seed, epoch, self.n_tokens, n_windows)
            start = (first + int(order[place]) * block_size) % self.n_tokens
            begin, end = self._document(start)
            starts.append(begin if end - begin <= block_size else start)
        return self._read(starts, block_size)

    def sliding(
        self, block_size: int, batch_size: int, stride: int | None = None, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every token but the first as a target once, in order, with context before it.

        A window scores the targets that no earlier one has. The next begins `stride` (default
        T // 2) tokens later, or where the document begins whose tokens it is to score, and the last
        one so that it ends with the stream. So each token is predicted from its document's
        beginning on, or from at least T - stride tokens.

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
            x, y = self._read([start for start, _, _ in batch], block_size)
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
                begin, _ = self._document(scored)  # a target's document began before it
                start = max(begin, scored - (block_size - stride))
                start = min(start, n_targets - block_size)
                yield start, scored, last
                scored = start + block_size

    def _document(self, place: int) -> tuple[int, int]:
        """Where the document of the token at `place` begins, and where the next one does."""
        begins = _documents(self.path, self.dtype, self.sha256)
        i = int(np.searchsorted(begins, place, side="right"))
        return int(begins[i - 1]), int(begins[i]) if i < len(begins) else self.n_tokens

    def _read(self, starts: Sequence[int], block_size: int) -> tuple[Tensor, Tensor]:
        """The windows that begin at `starts`; after the stream's last token comes its first."""
        dtype = np.dtype(self.dtype)
        tokens = np.empty((len(starts), block_size + 1), np.int64)  # (B, T + 1)
        try:
            with self.path.open("rb", buffering=0) as file:
                for row, start in zip(tokens, starts, strict=True):
                    file.seek(start * dtype.itemsize)
                    data = file.read(row.size * dtype.itemsize)
                    if (over := start + row.size - self.n_tokens) > 0:
                        file.seek(0)
                        data += file.read(over * dtype.itemsize)
                    if len(data) < row.size * dtype.itemsize:
                        raise UserError(f"{self.path} was cut short; start again to make it anew")
                    row[:] = np.frombuffer(data, dtype)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}; start again") from None
        windows = torch.from_numpy(tokens)
        return windows[:, :-1].clone(), windows[:, 1:].clone()  # (B, T) and (B, T)


@functools.lru_cache(maxsize=4)
def _documents(path: Path, dtype: str, sha256: str) -> npt.NDArray[np.int64]:
    """Where the documents of a stream begin: at each END_OF_TEXT, which is its first token."""
    end_of_text, found, n_read = None, [], 0
    try:
        with path.open("rb") as file:
            while len(tokens := np.fromfile(file, dtype, CHUNK)):
                end_of_text = tokens[0] if end_of_text is None else end_of_text
                found.append(np.flatnonzero(tokens == end_of_text) + n_read)
                n_read += len(tokens)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; start again") from None
    return np.concatenate(found)


@functools.lru_cache(maxsize=2)  # a batch may span two epochs
def _epoch(
    seed: int, epoch: int, n_tokens: int, n_windows: int
) -> tuple[int, npt.NDArray[np.int64]]:
    """Where an epoch's first window begins, and the order of its windows.

    Only the generator's raw numbers are used. numpy keeps those the same for ever, but not what it
    makes of them (NEP 19), and a run should go on as it began after numpy was updated.
    """
    raw = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(1 + n_windows)
    return int(raw[0]) % n_tokens, np.argsort(raw[1:], kind="stable")
