"""Tokenise each text once: files that are named by their content keep its tokenizer and tokens."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

from minigen.data.notes import print_notes_on_tokens
from minigen.data.shards import CHUNK, token_dtype, write_shards
from minigen.data.text_range import Source, TextRange, hold_out, scan
from minigen.data.token_stream import TokenStream, check_length
from minigen.data.tokens import cut_chunks
from minigen.data.vocabulary import LEARNED, learn_tokenizer
from minigen.errors import UserError
from minigen.system.disk import write_atomically
from minigen.system.places import writable
from minigen.tokenizer import Tokenizer

FORMAT = 1  # raise it when the same text would give other tokens or shards: old ones do not fit
SHORT = 1 << 16  # characters: a text that takes no time to tokenise


def prepare(
    source: Source,
    tokenizer: Tokenizer | None,
    kind: str,
    vocab_size: int,
    cache: Path,
    val_fraction: float = 0.1,
    block_size: int = 0,
    most_chars: int = 0,
) -> tuple[Tokenizer, TokenStream, TokenStream]:
    """Tokenise a corpus, or find that this was done before.

    Args:
        source: the files. Without `val` files, the last `val_fraction` of the characters of `train`
            are held out: of one file, text[: int(0.9 * n)] trains, text[int(0.9 * n) :] validates.
        tokenizer: the one to use; None: learn one of `kind` from the training part.
        cache: the folder for the results; created if missing, and all in it can be made again.
        block_size: T of the windows, if it is known already. A short text with fewer than T + 1
            tokens is refused before anything is written.
        most_chars: of a longer text about this number of characters is read, in stripes from all
            over it; 0: all are.

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

    key = cache_key(train.sha256, train.stop, val.sha256, kind, vocab_size, *train.key)
    path, is_new = writable(cache) / f"{key}.tokenizer.json", False
    if tokenizer is None and kind in LEARNED:
        with contextlib.suppress(UserError):  # missing or damaged
            tokenizer = Tokenizer.load(path)
        is_new = tokenizer is None
    if tokenizer is None:
        tokenizer = learn_tokenizer(train, val, kind, vocab_size)

    for text, name in ((train, "training text"), (val, "validation text")):
        if block_size and text.n_chars <= SHORT:
            chunks = cut_chunks(text.parts(), CHUNK, tokenizer)
            n_tokens = sum(len(tokenizer.encode_documents(chunk.documents)) for chunk in chunks)
            check_length(n_tokens, name, block_size)
    if is_new:
        with write_atomically(path) as temporary:
            tokenizer.save(temporary)
    train_tokens = write_tokens(train, tokenizer, cache, "training text")
    return tokenizer, train_tokens, write_tokens(val, tokenizer, cache, "validation text")


def write_tokens(text: TextRange, tokenizer: Tokenizer, cache: Path, name: str) -> TokenStream:
    """Tokenise a text, END_OF_TEXT before each document; keep shards that are there already.

    Args:
        cache: the folder for the shards; another is taken if it cannot be written.
        name: of the text, for messages.
    """
    key = cache_key(text.sha256, text.start, text.stop, tokenizer.fingerprint, *text.key)
    path = writable(cache) / f"{key}.json"
    shards = write_shards(text, tokenizer, path)
    dtype = token_dtype(tokenizer).str
    tokens = TokenStream(path, name, dtype, tokenizer.end_of_text, shards, text.every)
    print_notes_on_tokens(tokens, tokenizer)
    return tokens


def cache_key(*facts: str | int) -> str:
    """Return a name for files that are made of these facts alone."""
    return hashlib.sha256(json.dumps([FORMAT, *facts]).encode("utf-8")).hexdigest()[:32]
