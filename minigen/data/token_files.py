"""Token ids that another program has written: train.bin of nanoGPT, and the .bin files of llm.c.

    nanoGPT   the ids, of two bytes each, and nothing else
    llm.c     a header of 256 numbers of four bytes; then the ids

Such a file may be larger than memory, so one pass checks and counts the ids, and the stream reads
them where they are. It differs from the file at its ends only: minigen has END_OF_TEXT before each
document, and nanoGPT has it after, or nowhere. So END_OF_TEXT is put before the first id, and left
out after the last one. Then a model learns the same from the ids as from the text itself
(test_ids_train_the_model_that_their_text_trains).
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from minigen.data.shards import (
    Shard,
    cache_key,
    shard_path,
    token_dtype,
    token_lengths,
    write_index,
)
from minigen.data.text_range import CorpusFiles, file_stamps, progress
from minigen.data.token_stream import TokenStream, check_length
from minigen.errors import UserError
from minigen.system.disk import write_atomically
from minigen.system.places import writable
from minigen.system.shell import run_python
from minigen.system.text_file import find_container, is_binary, unreadable
from minigen.tokenizer import Tokenizer

ENDING = ".bin"
READ = 1 << 18  # ids to read at once; more do not fit into the cache of a processor
HEADER = 256  # numbers of 4 bytes in the header of llm.c: a date, a version, the number of ids, 0s
LLM_C = {(20240520, 1): "<u2", (20240801, 7): "<u4"}  # the ids after a header's date and version
# The characters of nanoGPT's meta.pkl, in the order of their ids.
READ_PICKLE = (
    'import json, pickle, sys; itos = pickle.load(open(sys.argv[1], "rb"))["itos"]; '
    'json.dump([itos[id] for id in range(len(itos))], open(sys.argv[2], "w"))'
)


@dataclass(frozen=True)
class IdRange:
    """Neighbouring token ids of a file."""

    path: Path
    skip: int  # bytes before the first id
    n_tokens: int


def are_token_files(files: Sequence[Path]) -> bool:
    """Return whether all files hold token ids, by their names."""
    return bool(files) and all(path.suffix.lower() == ENDING for path in files)


def ids_of_corpus(
    source: CorpusFiles,
    tokenizer: Tokenizer | None,
    cache: Path,
    val_fraction: float,
    block_size: int,
) -> tuple[Tokenizer, TokenStream, TokenStream]:
    """Return the streams of a corpus of token ids, as `prepare` does with text.

    Args:
        tokenizer: of the ids; None: not known, which is an error.
    """
    tokenizer = _check_tokenizer(source.train, tokenizer)
    train, val = (_find_ids(files, tokenizer) for files in (source.train, source.val))
    if not val:
        train, val = _hold_out(train, val_fraction, token_dtype(tokenizer).itemsize)
    train_tokens = _stream(train, tokenizer, cache, "training text", block_size)
    return tokenizer, train_tokens, _stream(val, tokenizer, cache, "validation text", block_size)


def ids_of_files(
    files: Sequence[Path], tokenizer: Tokenizer, cache: Path, name: str
) -> TokenStream:
    """Return the stream of all token ids in the files.

    Args:
        name: of the text, for messages, such as "training text".
    """
    return _stream(_find_ids(files, _check_tokenizer(files, tokenizer)), tokenizer, cache, name)


def _check_tokenizer(files: Sequence[Path], tokenizer: Tokenizer | None) -> Tokenizer:
    """Return the tokenizer; raise `UserError` if it is None, or cannot be that of the ids."""
    for path in files if tokenizer is None or tokenizer.kind != "char" else ():
        if (meta := path.with_name("meta.pkl")).is_file():
            vocabulary = meta.with_name("vocabulary.json")
            raise UserError(
                f"{path} holds ids of the characters that {meta} lists, a pickle, which minigen "
                f"never reads, as it can run any code; if you trust it, give --tokenizer "
                f"{vocabulary}, which this command writes: "
                f"{run_python('-c', READ_PICKLE, meta, vocabulary)}"
            )
    if tokenizer is None:
        raise UserError(
            f"{files[0]} holds token ids, and only their tokenizer tells which text they are; give "
            "it: --tokenizer gpt2, a tokenizer.json, or the run or model that has it"
        )
    return tokenizer


def _find_ids(files: Iterable[Path], tokenizer: Tokenizer) -> list[IdRange]:
    """Return the ids of each file. Raises `UserError` if a file holds no ids of the right size."""
    return [_ids_of_file(path, token_dtype(tokenizer)) for path in files]


def _ids_of_file(path: Path, dtype: np.dtype[Any]) -> IdRange:
    """Return the ids of a file. Raises `UserError` if it holds no ids of this type."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            beginning = file.read(1 << 16)
    except OSError as error:
        raise unreadable(path, error) from None
    if not beginning:
        raise UserError(f"{path} is empty; give a file with token ids")
    if container := find_container(beginning):
        raise UserError(f"{path} is {container[0]}, and holds no token ids; give train.bin")
    # Ids of letters, each with a byte that is zero, look like a text in UTF-16.
    if b"\0" not in beginning and not is_binary(beginning):
        with contextlib.suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder("utf-8")().decode(beginning)
            raise UserError(f"{path} is text, and {ENDING} stands for token ids; rename it to .txt")
    header = np.frombuffer(beginning[: min(size // 4, HEADER) * 4], "<i4")
    is_date = len(header) >= 3 and 20_200_000 < header[0] < 20_400_000
    if is_date and 0 <= header[1] < 100 and not header[HEADER // 2 :].any():
        date, version, n_tokens = map(int, header[:3])
        if (date, version) not in LLM_C:
            known = " or ".join(str(date) for date, _ in LLM_C)
            raise UserError(
                f"{path} is a file of llm.c of kind {date}, version {version}, which does not hold "
                f"the tokens of a text; give one of kind {known}"
            )
        kind, skip = np.dtype(LLM_C[date, version]), 4 * HEADER
        if kind != dtype:
            raise UserError(
                f"{path} has ids of {kind.itemsize} bytes, and the tokenizer needs "
                f"{dtype.itemsize}; give the --tokenizer that made the file"
            )
        if size != skip + n_tokens * dtype.itemsize:
            raise UserError(
                f"{path} has {size:,} bytes, which are not the {n_tokens:,} tokens of its header; "
                "it is cut short: get it again"
            )
        return IdRange(path, skip, n_tokens)
    if size % dtype.itemsize:
        raise UserError(
            f"{path} has {size:,} bytes, and an id has {dtype.itemsize}; it is cut short: get it "
            "again"
        )
    ids = np.frombuffer(beginning, dtype)
    if len(ids) >= 64 and not ids[1::2].any():
        raise UserError(
            f"every other id of {path} is 0, as if an id had {2 * dtype.itemsize} bytes, and "
            f"minigen reads {dtype.itemsize}; write it as {dtype.name}"
        )
    return IdRange(path, 0, size // dtype.itemsize)


def _hold_out(
    ranges: Sequence[IdRange], fraction: float, itemsize: int
) -> tuple[list[IdRange], list[IdRange]]:
    """Split ids into a part to train on and their last `fraction`, as `hold_out` splits a text."""
    rest = int((1 - fraction) * sum(part.n_tokens for part in ranges))
    train, val = list[IdRange](), list[IdRange]()
    for part in ranges:
        n = min(rest, part.n_tokens)
        rest -= n
        train.append(IdRange(part.path, part.skip, n))
        val.append(IdRange(part.path, part.skip + n * itemsize, part.n_tokens - n))
    return train, val


def _stream(
    ranges: Iterable[IdRange], tokenizer: Tokenizer, cache: Path, name: str, block_size: int = 0
) -> TokenStream:
    """Check all ids, and return the stream that reads them where they are.

    Args:
        cache: the folder for the index, and for END_OF_TEXT before the first id.
        name: of the text, for messages, such as "training text".
        block_size: T of the windows, if it is known already: fewer than T + 1 tokens are refused.

    Raises `UserError` if a file cannot be read or changes, or if an id is not in the vocabulary.
    """
    end, dtype, ranges = tokenizer.end_of_text, token_dtype(tokenizer), [*ranges]
    files = [part.path for part in ranges]
    stamps = file_stamps(files)
    ranges = [part for part in ranges if part.n_tokens]
    if ranges and _read(ranges[-1], ranges[-1].n_tokens - 1, 1, dtype)[0] == end:
        ranges[-1] = replace(ranges[-1], n_tokens=ranges[-1].n_tokens - 1)
    with progress("reading", sum(part.n_tokens for part in ranges), "token") as bar:
        lengths = token_lengths(tokenizer)
        shards = [_count(part, dtype, end, lengths, bar) for part in ranges if part.n_tokens]
    if not sum(shard.n_token_bytes for shard in shards):
        raise UserError(f"no text in the {name} of {files[0]}; give more tokens")
    end_id = np.array([end], dtype).tobytes()
    if _read(ranges[0], 0, 1, dtype)[0] != end:
        shards.insert(0, Shard(1, 0, 0, 1, hashlib.sha256(end_id).hexdigest()))
    check_length(sum(shard.n_tokens for shard in shards), name, block_size)

    key = [shard.sha256 for shard in shards]
    path = writable(cache) / f"{cache_key(*key, tokenizer.fingerprint)}.json"
    if not shards[0].file and not shards[0].is_intact(path, 0, dtype.str):
        with write_atomically(shard_path(path, 0)) as temporary:
            temporary.write_bytes(end_id)
    write_index(path, tuple(shards), tokenizer)
    tokens = TokenStream(path, name, dtype.str, end, tuple(shards))
    for place in itertools.accumulate((shard.n_tokens for shard in shards[:-1]), initial=0):
        tokens.read(place, 1)  # opens each file: from now on the stream notices any change
    if file_stamps(files) != stamps:
        raise UserError(f"{files[0]} or a file beside it changed while it was read; start again")
    return tokens


def _count(
    part: IdRange,
    dtype: np.dtype[Any],
    end: int,
    lengths: npt.NDArray[np.int64],
    bar: tqdm[Any],
) -> Shard:
    """Read ids once; return their entry for the index.

    Args:
        end: the id of END_OF_TEXT.
        lengths: (V,), the number of bytes of each token.

    Raises `UserError` if an id is not in 0..V-1.
    """
    digest, counts = hashlib.sha256(), np.zeros(len(lengths), np.int64)
    for first in range(0, part.n_tokens, READ):
        ids = _read(part, first, min(READ, part.n_tokens - first), dtype)
        if ids.max() >= len(lengths):
            place = int((ids >= len(lengths)).argmax())
            raise UserError(
                f"{part.path} has the id {ids[place]} at byte "
                f"{part.skip + (first + place) * dtype.itemsize}, and the tokenizer has 0 to "
                f"{len(lengths) - 1}; give the --tokenizer that made the file"
            )
        digest.update(ids.tobytes())
        counts += np.bincount(ids, minlength=len(lengths))
        bar.update(len(ids))
    n_bytes, path = int(counts @ lengths), str(part.path.absolute())
    n_documents, sha256 = int(counts[end]), digest.hexdigest()
    return Shard(part.n_tokens, n_bytes, 0, n_documents, sha256, file=path, skip=part.skip)


def _read(part: IdRange, first: int, n: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return `n` ids of a range, from the id `first` on."""
    try:
        ids = np.fromfile(part.path, dtype, n, offset=part.skip + first * dtype.itemsize)
    except OSError as error:
        raise unreadable(part.path, error) from None
    if len(ids) < n:
        raise UserError(f"{part.path} changed while it was read; start again")
    return ids
