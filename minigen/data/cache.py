"""Tokenise each text once: its tokenizer and tokens are kept, under a name made of its hash."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from minigen.data.notes import print_notes_on_tokens
from minigen.data.shards import CHUNK, cache_key, find_shards, token_dtype, write_shards
from minigen.data.text_range import CorpusFiles, TextRange, hold_out, scan
from minigen.data.token_files import are_token_files, ids_of_corpus, ids_of_files
from minigen.data.token_stream import TokenStream, check_length
from minigen.data.tokens import cut_chunks
from minigen.data.vocabulary import LEARNED, learn_tokenizer, vocabulary_size
from minigen.errors import UserError
from minigen.system.disk import write_atomically
from minigen.system.places import writable
from minigen.tokenizer import Tokenizer, train_tokenizer

SHORT = 1 << 16  # characters: a shorter text is tokenised in no time


def prepare(
    source: CorpusFiles,
    tokenizer: Tokenizer | None,
    kind: str,
    vocab_size: int | None,
    cache: Path,
    val_fraction: float = 0.1,
    block_size: int = 0,
    max_chars: int = 0,
) -> tuple[Tokenizer, TokenStream, TokenStream]:
    """Tokenise a corpus, or return the result of an earlier call.

    Args:
        source: the files. Without `val` files, the last `val_fraction` of the characters of `train`
            are held out: by default, text[: int(0.9 * n)] trains and the rest validates. Of files
            with token ids, it is the last `val_fraction` of the tokens.
        tokenizer: the tokenizer to use; None: train one of `kind` on the training text.
        vocab_size: of a bpe tokenizer that is trained; None: by the length of the text.
        cache: the folder for the results; created if missing. Its files can be made again.
        block_size: T of the windows, if it is known already. A short text with fewer than T + 1
            tokens is refused before anything is written.
        max_chars: of a longer text about this number of characters is read, in stripes from all
            over it; 0: the whole text is read.

    Returns the tokenizer, the training stream and the validation stream.
    Raises UserError if the text cannot be read, is empty, or is not text.
    """
    if are_token_files(source.train):
        if tokenizer is None and kind not in LEARNED:
            tokenizer = train_tokenizer(kind, [])
        return ids_of_corpus(source, tokenizer, cache, val_fraction, block_size)
    train = scan(source.train, source.separator)
    if source.val:
        val = scan(source.val, source.separator)
    else:
        train, val = hold_out(train, val_fraction)
    if max_chars:
        interval = math.ceil((train.n_chars + val.n_chars) / max_chars)
        train = replace(train, stripe_interval=interval)
        val = replace(val, stripe_interval=interval)

    # The key holds the number of tokens, not None: a later version may choose another number.
    n_vocab = vocab_size or vocabulary_size(train.n_chars)
    key = cache_key(train.sha256, train.stop, val.sha256, kind, n_vocab, *train.key)
    path, is_new = writable(cache) / f"{key}.tokenizer.json", False
    if tokenizer is None and kind in LEARNED:
        with contextlib.suppress(UserError):  # missing or damaged
            tokenizer = Tokenizer.load(path)
        is_new = tokenizer is None
    if tokenizer is None:
        tokenizer = learn_tokenizer(train, val, kind, n_vocab)

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
    """Tokenise a text, END_OF_TEXT before each document, and keep shards that exist already.

    Args:
        cache: the folder for the shards; another is used if this one cannot be written.
        name: of the text, for messages, such as "training text".

    Raises UserError if the text cannot be read or was changed, or if a file cannot be written.
    """
    key = cache_key(text.sha256, text.start, text.stop, tokenizer.fingerprint, *text.key)
    path = writable(cache) / f"{key}.json"
    shards = write_shards(text, tokenizer, path)
    dtype = token_dtype(tokenizer).str
    tokens = TokenStream(path, name, dtype, tokenizer.end_of_text, shards, text.stripe_interval)
    print_notes_on_tokens(tokens, tokenizer)
    return tokens


def tokens_of_files(
    files: Sequence[Path], separator: str | None, tokenizer: Tokenizer, cache: Path, name: str
) -> TokenStream:
    """Return the tokens of all text in the files, or the token ids that they hold.

    Args:
        separator, name: as in `scan` and in `write_tokens`.

    Raises UserError if a file cannot be read, or is neither text nor token ids.
    """
    if are_token_files(files):
        return ids_of_files(files, tokenizer, cache, name)
    return write_tokens(scan(files, separator), tokenizer, cache, name)


def find_tokens(stem: str, tokenizer: Tokenizer, cache: Path, name: str) -> TokenStream | None:
    """Return tokens that `write_tokens` has written; None if their files are not there.

    Args:
        stem: of the file's name: `path.stem` of the stream, as a checkpoint's state.json keeps it.
        tokenizer: of the tokens.
    """
    path = writable(cache) / f"{Path(stem).name}.json"
    shards = find_shards(path)
    dtype = token_dtype(tokenizer).str
    return TokenStream(path, name, dtype, tokenizer.end_of_text, shards) if shards else None
