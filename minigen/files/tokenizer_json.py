"""Write and read minigen's tokenizers as tokenizer.json, the file of Hugging Face's `tokenizers`.

`to_json` writes each kind of `minigen.tokenizer`. `read_own` reads a file only if `to_json` would
write exactly that file, so that no step in a file is ignored; or if it is the file of GPT-2, which
programs save in several spellings.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from minigen.tokenizer import END_OF_TEXT, KINDS, PATTERN, Tokenizer

# How each kind splits a text. No two kinds split alike, so this also identifies the kind of a file.
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
_BYTES_ONLY = {**_BYTE_LEVEL, "use_regex": False}
_PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "char": {**_SPLIT, "pattern": {"Regex": r"[\s\S]"}},
    "byte": _BYTES_ONLY,
    "bpe": {
        "type": "Sequence",
        "pretokenizers": [{**_SPLIT, "pattern": {"Regex": PATTERN}}, _BYTES_ONLY],
    },
    "gpt2": {**_BYTE_LEVEL, "use_regex": True},  # GPT-2's pattern is built in
}

# JSON has no bytes, so each byte is written as a character. GPT-2's rule: a printable byte of
# Latin-1 is written as itself; the others, in order, as U+0100, U+0101, ... A space is U+0120.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _PRINTABLE]
_CHAR_OF_BYTE = {byte: byte for byte in _PRINTABLE} | {b: 256 + n for n, b in enumerate(_HIDDEN)}
_BYTE_OF_CHAR = {char: byte for byte, char in _CHAR_OF_BYTE.items()}


def _name(kind: str, token: bytes) -> str:
    """Return the spelling of `token` in tokenizer.json."""
    return token.decode() if kind == "char" else name_of_token(token)


def _token(kind: str, name: str) -> bytes:
    """Return the token that tokenizer.json spells `name`."""
    return name.encode() if kind == "char" else token_of_name(name)


def name_of_token(token: bytes) -> str:
    """Return the name of a token in GPT-2's characters, one for each byte."""
    return token.decode("latin-1").translate(_CHAR_OF_BYTE)


def token_of_name(name: str) -> bytes:
    """Return the bytes that a name in GPT-2's characters spells.

    Raises UnicodeEncodeError if a character stands for no byte.
    """
    if not spells_bytes(name):
        raise UnicodeEncodeError("latin-1", name, 0, len(name), "a character stands for no byte")
    return name.translate(_BYTE_OF_CHAR).encode("latin-1")


def spells_bytes(name: str) -> bool:
    """Return whether each character of `name` stands for a byte."""
    return all(ord(char) in _BYTE_OF_CHAR for char in name)


# GPT-2 is recognised by the fingerprint of its tokens, and by the SHA-256 of OpenAI's merges.
_GPT2 = "b4ef56d20c4773bacf9c3e8aa6d30e0c9188d4f8fb3b9e57981e2ec8c964256e"
_GPT2_MERGES = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"


def to_json(tokenizer: Tokenizer) -> bytes:
    """Return the content of a tokenizer.json for a tokenizer of `minigen.tokenizer`."""
    return json.dumps(_content(tokenizer), ensure_ascii=False).encode("utf-8")


def read_own(saved: dict[str, Any]) -> Tokenizer | None:
    """Return minigen's or GPT-2's tokenizer in a tokenizer.json; None for any other tokenizer.

    Truncation and padding are ignored: transformers also sets both again at each call.
    """
    saved = {**saved, "truncation": None, "padding": None}
    if saved["model"].get("type", "BPE") not in ("BPE", "WordLevel"):
        return None
    return _read_minigen(saved) or _read_gpt2(saved)


def _read_minigen(saved: dict[str, Any]) -> Tokenizer | None:
    kind = next((kind for kind in KINDS if _PRE_TOKENIZERS[kind] == saved["pre_tokenizer"]), None)
    if kind is None:
        return None
    vocab = saved["model"]["vocab"]
    bare = saved["post_processor"] is None
    # The file must equal the one that `to_json` writes for these tokens. So no part of it is
    # damaged, and it has no step that `Tokenizer` does not compute.
    try:
        tokens = [_token(kind, token) for token in sorted(vocab, key=vocab.__getitem__)]
        special_tokens = [token["content"] for token in saved["added_tokens"][1:]]
        tokenizer = Tokenizer(kind, tokens, bare, special_tokens=special_tokens)
    except ValueError:
        return None
    return tokenizer if saved == _content(tokenizer) else None


def _read_gpt2(saved: dict[str, Any]) -> Tokenizer | None:
    """Return GPT-2's tokenizer if `saved` is one, in any spelling; None if it is not."""
    if len(vocab := saved["model"]["vocab"]) != 50257:
        return None
    names = sorted(vocab, key=vocab.__getitem__)
    try:
        gpt2 = Tokenizer("gpt2", [_token("gpt2", name) for name in names], bare=True)
    except ValueError:
        return None
    return gpt2 if gpt2.fingerprint == _GPT2 and _has_gpt2_steps(saved, gpt2) else None


def _has_gpt2_steps(saved: dict[str, Any], gpt2: Tokenizer) -> bool:
    """Return whether a file with GPT-2's tokens has the steps of OpenAI's file, and no others."""
    model, added = saved["model"], saved["added_tokens"]
    cut, begin = saved["pre_tokenizer"] or {}, saved["post_processor"] or {"type": "ByteLevel"}
    decoder = saved["decoder"] or {}
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    own = [" ".join(m) for m in json.loads(to_json(gpt2))["model"]["merges"]]
    digest = hashlib.sha256("\n".join(merges).encode()).hexdigest()
    return (
        (cut.get("type"), cut.get("add_prefix_space")) == ("ByteLevel", False)
        and cut.get("use_regex", True)
        and saved["normalizer"] is None
        # ByteLevel adds no token to a text, nor does a template of the text alone.
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


def _content(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the content of tokenizer.json.

    A special token of one's own is not in the vocabulary of the model, where only the characters of
    bytes may stand, but among the added tokens.
    """
    kind, tokens = tokenizer.kind, tokenizer.tokens[: tokenizer.end_of_text + 1]
    names = {token: _name(kind, token) for token in tokens}
    model: dict[str, Any] = {"vocab": {name: id for id, name in enumerate(names.values())}}
    if kind == "char":
        # A list of words, each one character. "<unk>" is not in the list on purpose: so an unknown
        # character is an error in `tokenizers` too, while a BPE would drop it silently.
        model |= {"type": "WordLevel", "unk_token": "<unk>"}
    else:
        model |= {"type": "BPE", "fuse_unk": False, "byte_fallback": False}
        model |= dict.fromkeys(("dropout", "unk_token"))
        model |= dict.fromkeys(_AFFIXES)
        # tiktoken encodes a chunk that is a token as this token, and merges any two neighbours that
        # form a token; `tokenizers` merges only listed pairs. So list each way to halve a token.
        model["ignore_merges"] = True
        model["merges"] = [
            [names[token[:i]], names[token[i:]]]
            for token in tokens[:-1]
            for i in range(1, len(token))
            if token[:i] in names and token[i:] in names
        ]
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": id, "content": content, "special": True, **plain}
        for id, content in tokenizer.controls.items()
    ]
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
        "post_processor": None if tokenizer.bare else begin,
        "added_tokens": added,
        "pre_tokenizer": _PRE_TOKENIZERS[kind],
        "model": model,
        "decoder": {"type": "Fuse"} if kind == "char" else {**_BYTE_LEVEL, "use_regex": True},
    }
