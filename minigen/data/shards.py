"""Token ids to files: chunks are encoded in threads and written to shards, files of bounded size.

A stream KEY lies in the files KEY.0000.bin, KEY.0001.bin, ..., which contain nothing but ids. The
index KEY.json describes each of them. A shard gets its name when it is complete, and is then added
to the index. So after an interruption, writing continues after the last complete shard
(test_killed_while_tokenising_it_continues_after_the_last_shard).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from minigen.data.text_range import TextRange, progress
from minigen.data.tokens import Chunk, cut_chunks
from minigen.errors import UserError
from minigen.system.disk import sha256_of, write_atomically
from minigen.system.parallel import map_in_threads
from minigen.tokenizer import Tokenizer

FORMAT = 1  # to be raised with each change of the code that changes the tokens or shards of a text
CHUNK = 1 << 20  # characters to encode at once: the memory that is needed is a few times that
SHARD = 1 << 26  # characters in a shard, or up to a chunk more


@dataclass(frozen=True)
class Shard:
    """The entry of the index for one file of a stream."""

    n_tokens: int  # with one END_OF_TEXT for each document
    # The bytes of the tokens; END_OF_TEXT and separators have none. A tokenizer from Hugging Face
    # may normalise a text, so these are not always the bytes of the documents.
    n_token_bytes: int
    n_chars: int
    n_documents: int  # documents that begin in this shard
    sha256: str  # of the file
    n_controls: int = 0  # how often the text spells a control token
    n_changed: int = 0  # chunks whose tokens decode to another text
    # Token ids that another program wrote are read where they are (token_files.py):
    file: str = ""  # the absolute path of its file; "": a file of minigen's own
    skip: int = 0  # bytes of that file before the first id

    def path(self, index: Path, number: int) -> Path:
        """Return the path of the file, given the path of the index."""
        return Path(self.file) if self.file else shard_path(index, number)

    def is_intact(self, index: Path, number: int, dtype: str) -> bool:
        """Return whether the file still has the ids with which this entry was made."""
        path, size = self.path(index, number), self.n_tokens * np.dtype(dtype).itemsize
        stop = self.skip + size if self.file else None
        with contextlib.suppress(OSError):
            return sha256_of(path, self.skip, stop) == self.sha256
        return False


def cache_key(*inputs: str | int | None) -> str:
    """Return a file name for a result that depends on these inputs alone."""
    return hashlib.sha256(json.dumps([FORMAT, *inputs]).encode("utf-8")).hexdigest()[:32]


def shard_path(path: Path, number: int) -> Path:
    """Return the path of a shard of minigen's own, given the path of the index."""
    return path.with_suffix(f".{number:04}.bin")


def token_dtype(tokenizer: Tokenizer) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """Return the type of the ids in shards: two bytes if all ids fit, else four."""
    return np.dtype("<u2") if tokenizer.n_vocab <= 1 << 16 else np.dtype("<u4")


def token_lengths(tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """Return the number of bytes of text in each token, (V,); control tokens have none."""
    lengths = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.n_vocab)])
    lengths[[*tokenizer.controls]] = 0
    return lengths


def encode(
    chunk: Chunk, tokenizer: Tokenizer, lengths: npt.NDArray[np.int64]
) -> tuple[bytes, dict[str, int]]:
    """Return the token ids of a chunk, as bytes for a shard, and its counts for the index.

    Args:
        lengths: (V,), as `token_lengths` returns them.
    """
    ids = tokenizer.encode_documents(chunk.documents)  # END_OF_TEXT before each
    if not chunk.begins:
        ids = ids[1:]
    counts = {
        "n_tokens": len(ids),
        "n_token_bytes": int(lengths.take(ids).sum()),
        "n_chars": chunk.n_chars,
        "n_documents": len(chunk.documents) - (not chunk.begins),
        "n_controls": tokenizer.count_controls(chunk.documents),
        "n_changed": tokenizer.count_changed(chunk.documents, ids),
    }
    return ids.astype(token_dtype(tokenizer)).tobytes(), counts


def write_shards(text: TextRange, tokenizer: Tokenizer, path: Path) -> tuple[Shard, ...]:
    """Tokenise a text into shards, and keep the shards that exist already.

    Args:
        path: of the index; the shards lie beside it.

    Raises UserError if the text cannot be read or was changed, or if a file cannot be written.
    """
    shards = find_shards(path)
    n_done = sum(shard.n_chars for shard in shards)
    if n_done == text.n_chars:
        return shards
    lengths = token_lengths(tokenizer)
    own = threading.local()  # a tokenizer for each thread: tiktoken runs without Python's lock

    def encoded(numbered: tuple[int, Chunk]) -> tuple[int, tuple[bytes, dict[str, int]]]:
        if not hasattr(own, "tokenizer"):
            own.tokenizer = tokenizer.copy()
        number, chunk = numbered
        return number, encode(chunk, own.tokenizer, lengths)

    chunks = chunks_from(n_done, cut_chunks(text.parts(), CHUNK, tokenizer), path.parent)
    results = map_in_threads(encoded, chunks, torch.get_num_threads())
    with progress("tokenising", text.n_chars, "char", n_done) as bar:
        for _, parts in itertools.groupby(results, key=lambda result: result[0]):
            with write_atomically(shard_path(path, len(shards))) as temporary:
                shard = write_shard(temporary, (part for _, part in parts), bar)
                text.check_unchanged()
            shards = (*shards, shard)
            write_index(path, shards, tokenizer)
    text.check_unchanged()  # if the text became shorter, the loop may have written no shard
    return shards


def write_index(
    path: Path, shards: tuple[Shard, ...], tokenizer: Tokenizer, dtype: str | None = None
) -> None:
    """Write the index of a stream, which describes its shards.

    Args:
        dtype: of the numbers in the shards; None: that of the tokenizer's ids.
    """
    dtype = token_dtype(tokenizer).str if dtype is None else dtype
    index = {"dtype": dtype, "end_of_text": tokenizer.end_of_text}
    index_json = json.dumps({**index, "shards": [asdict(one) for one in shards]}, indent=1)
    with write_atomically(path) as temporary:
        temporary.write_bytes(index_json.encode("utf-8"))


def write_shard(
    path: Path, encoded: Iterable[tuple[bytes, dict[str, int]]], bar: tqdm[Any]
) -> Shard:
    """Write encoded chunks to a file, and return its entry for the index."""
    digest, totals = hashlib.sha256(), Counter[str]()
    with path.open("wb") as file:
        for ids, counts in encoded:
            file.write(ids)
            digest.update(ids)
            totals.update(counts)
            bar.update(counts["n_chars"])
    return Shard(**dict[str, Any](totals), sha256=digest.hexdigest())


def chunks_from(n_done: int, chunks: Iterable[Chunk], cache: Path) -> Iterator[tuple[int, Chunk]]:
    """Skip the chunks of the first `n_done` characters, and yield the others with their shard."""
    place = 0
    for chunk in chunks:
        if place < n_done < place + chunk.n_chars:
            raise UserError(
                f"{cache} has the beginning of these tokens, which another version of minigen cut "
                "at other places; remove that folder, whose files can all be made again"
            )
        if place >= n_done:
            yield place // SHARD, chunk
        place += chunk.n_chars


def find_shards(path: Path) -> tuple[Shard, ...]:
    """Return the shards in the index at `path`, up to the first that is missing or damaged."""
    shards: list[Shard] = []
    # If the index is missing or damaged, there are no shards, and they are made again.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        index = json.loads(path.read_bytes())
        for entry in index["shards"]:
            shard = Shard(**entry)
            if not shard.is_intact(path, len(shards), index["dtype"]):
                break
            shards.append(shard)
    return tuple(shards)
