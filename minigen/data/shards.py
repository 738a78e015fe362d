"""Token ids to files: chunks are encoded in threads and written to shards, files of bounded size.

A stream KEY lies in the files KEY.0000.bin, KEY.0001.bin, ..., which hold nothing but ids, and in
KEY.json, the facts about them. A shard takes its name when it is whole, and then the facts name it;
so after an interruption, writing continues after the last whole shard.
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

CHUNK = 1 << 20  # characters to encode at once: memory is a small multiple of it
SHARD = 1 << 26  # characters in a shard, or up to a chunk more


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


def shard_path(path: Path, number: int) -> Path:
    """Return the name of a shard; `path` is that of the facts."""
    return path.with_suffix(f".{number:04}.bin")


def token_dtype(tokenizer: Tokenizer) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """Return the type of the ids in shards: two bytes while all ids fit, or four."""
    return np.dtype("<u2") if tokenizer.n_vocab <= 1 << 16 else np.dtype("<u4")


def encode(
    chunk: Chunk, tokenizer: Tokenizer, token_lengths: npt.NDArray[np.int64]
) -> tuple[bytes, dict[str, int]]:
    """Return the token ids of a chunk, as a shard holds them, and its part of the shard's facts.

    Args:
        token_lengths: (V,), the bytes of each token; 0 for END_OF_TEXT.
    """
    ids = tokenizer.encode_documents(chunk.documents)  # END_OF_TEXT before each
    if not chunk.begins:
        ids = ids[1:]
    counts = {
        "n_tokens": len(ids),
        "n_token_bytes": int(token_lengths.take(ids).sum()),
        "n_chars": chunk.n_chars,
        "n_documents": len(chunk.documents) - (not chunk.begins),
        "n_controls": tokenizer.count_controls(chunk.documents),
        "n_changed": tokenizer.count_changed(chunk.documents, ids),
    }
    return ids.astype(token_dtype(tokenizer)).tobytes(), counts


def write_shards(text: TextRange, tokenizer: Tokenizer, path: Path) -> tuple[Shard, ...]:
    """Tokenise a text into shards; keep those that are there already.

    Args:
        path: of the facts; the shards lie beside them.

    Raises UserError if the text cannot be read or was changed, or the disk takes no file.
    """
    shards = find_shards(path)
    n_done = sum(shard.n_chars for shard in shards)
    if n_done == text.n_chars:
        return shards
    lengths = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.n_vocab)])
    lengths[tokenizer.end_of_text] = 0
    own = threading.local()  # tiktoken runs without Python's lock, if each thread has its tokenizer

    def encoded(numbered: tuple[int, Chunk]) -> tuple[int, tuple[bytes, dict[str, int]]]:
        if not hasattr(own, "tokenizer"):
            own.tokenizer = tokenizer.copy()
        number, chunk = numbered
        return number, encode(chunk, own.tokenizer, lengths)

    facts = {"dtype": token_dtype(tokenizer).str, "end_of_text": tokenizer.end_of_text}
    chunks = chunks_from(n_done, cut_chunks(text.parts(), CHUNK, tokenizer), path.parent)
    results = map_in_threads(encoded, chunks, torch.get_num_threads())
    with progress("tokenising", text.n_chars, "char", n_done) as bar:
        for _, parts in itertools.groupby(results, key=lambda result: result[0]):
            with write_atomically(shard_path(path, len(shards))) as temporary:
                shard = write_shard(temporary, (part for _, part in parts), bar)
                text.check_unchanged()
            shards = (*shards, shard)
            content = json.dumps({**facts, "shards": [asdict(one) for one in shards]}, indent=1)
            with write_atomically(path) as temporary:
                temporary.write_bytes(content.encode("utf-8"))
    text.check_unchanged()  # a text that became shorter may have left no shard to write
    return shards


def write_shard(
    path: Path, encoded: Iterable[tuple[bytes, dict[str, int]]], bar: tqdm[Any]
) -> Shard:
    """Write encoded chunks to a file; return the facts about it."""
    digest, totals = hashlib.sha256(), Counter[str]()
    with path.open("wb") as file:
        for ids, counts in encoded:
            file.write(ids)
            digest.update(ids)
            totals.update(counts)
            bar.update(counts["n_chars"])
    return Shard(**totals, sha256=digest.hexdigest())


def chunks_from(n_done: int, chunks: Iterable[Chunk], cache: Path) -> Iterator[tuple[int, Chunk]]:
    """Leave out the chunks of the first `n_done` characters; number the others by their shard."""
    place = 0
    for chunk in chunks:
        if place < n_done < place + chunk.n_chars:
            raise UserError(
                f"{cache} has the beginning of these tokens, cut otherwise by another minigen; "
                "remove that folder, whose files can all be made again"
            )
        if place >= n_done:
            yield place // SHARD, chunk
        place += chunk.n_chars


def find_shards(path: Path) -> tuple[Shard, ...]:
    """Return the facts at `path` of the first shards, up to the first that is damaged."""
    shards: list[Shard] = []
    # Facts that are missing, cut short or damaged name no shard; it is made again.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        for facts in json.loads(path.read_bytes())["shards"]:
            shard = Shard(**facts)
            if sha256_of(shard_path(path, len(shards))) != shard.sha256:
                break
            shards.append(shard)
    return tuple(shards)
