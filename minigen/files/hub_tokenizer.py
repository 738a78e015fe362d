"""Tokenizers of models from the hub, computed by Hugging Face's library `tokenizers`.

The library computes each step in a tokenizer.json: how a text is normalised, split, encoded and
decoded. A tokenizer that is not byte-level byte-pair encoding is refused with its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from minigen.errors import UserError
from minigen.files.safetensors_file import plain
from minigen.files.tokenizer_json import spells_bytes, token_of_name
from minigen.system.shell import install
from minigen.tokenizer import BYTES, END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_TOKENS = 1 << 22  # of a model, as in config_file.LIMITS
NEAR = 1000  # characters before and after a place that `can_cut` compares

PLAIN_DECODERS = {"ByteLevel", "Fuse", "Sequence"}  # they only join bytes

T = TypeVar("T")


class HubTokenizer(Tokenizer):
    """A tokenizer.json that the library `tokenizers` computes.

    If the file has a normalizer or adds a space before the text, `decode(encode(text))` is the
    changed text, as the model reads it.

    Args:
        content: the tokenizer.json. Its truncation and padding are ignored.
        name: the file, for an error.
        end: the token, or its id, that separates documents if there is no END_OF_TEXT.

    Raises `UserError` if `tokenizers` is not installed, or the file has a step that minigen does
    not compute; `ValueError` if the file is damaged.
    """

    def __init__(
        self, content: bytes, name: str = "tokenizer.json", end: str | int | None = None
    ) -> None:
        try:
            import tokenizers
        except ImportError:
            raise UserError(f"to read {name}, first: {install('hf')}") from None
        saved = json.loads(content)
        refuse(saved, name)
        if saved.get("truncation") is not None or saved.get("padding") is not None:
            saved |= {"truncation": None, "padding": None}
            content = json.dumps(saved, ensure_ascii=False).encode("utf-8")
        self._hub = guarded(lambda: tokenizers.Tokenizer.from_str(content.decode("utf-8")))
        self._hub.encode_special_tokens = True  # untrusted text spells letters only
        vocab = self._hub.get_vocab(with_added_tokens=True)
        if max(vocab.values(), default=0) >= MAX_TOKENS:
            raise ValueError("an id is too large")
        bytes_of = {id: _bytes(token) for token, id in vocab.items()}
        if missing := sorted(set(BYTES) - set(bytes_of.values())):
            raise UserError(
                f"{name} is not byte-level: it has no token for the byte {missing[0].hex()}; "
                "minigen reads byte-level BPE"
            )
        tokens = [bytes_of.get(id, b"") for id in range(max(vocab.values()) + 1)]
        added = {token["id"]: token for token in saved["added_tokens"]}
        controls = {id: token["content"] for id, token in added.items() if token["special"]}
        around = guarded(lambda: self._hub.encode("").ids)  # the tokens that surround each text
        # If the ids in the file have gaps, `tokenizers` gives tokens other ids than the file does,
        # or one id to two tokens.
        same_ids = self._hub.get_added_tokens_decoder().keys() == added.keys()
        if not same_ids or len(bytes_of) < len(vocab) or max(around, default=0) >= len(tokens):
            raise UserError(f"{name} is damaged: the ids of its tokens have gaps; save it again")
        if shared := [controls[id] for id in sorted(controls) if tokens[id] in BYTES]:
            raise UserError(
                f"{name} is damaged: its special token {plain(shared[0])} is also the token of a "
                "byte; save it again"
            )
        id_of = {name: id for id, name in controls.items()}
        end_id = id_of.get(END_OF_TEXT, id_of.get(end) if isinstance(end, str) else end)
        if end_id not in controls:
            raise UserError(
                f"{name} is a tokenizer without {END_OF_TEXT}, and no other special token is named "
                "that ends a text; name its eos_token in tokenizer_config.json"
            )
        super().__init__("hub", tokens, not around, controls, end_id)
        self.begin = self.end_of_text  # the token that is read instead of an empty text
        self.content, self._name = content, name

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        if not (special and isinstance(text, str)):
            return super().encode(text)
        return self._read(text, special=True, with_template=False)

    def encode_prompt(self, text: str, opening: str = "", special: bool = True) -> list[int]:
        if opening and not text:
            return self.encode(opening)
        return self._read(text, special, with_template=True) or [self.begin]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        import numpy as np

        ids = self._read(text, special=False, with_template=False)
        return np.array(ids, dtype=np.uint32)

    def _read(self, text: str, special: bool, with_template: bool) -> list[int]:
        """Return the ids of a text.

        Args:
            special: the name of a control token in the text becomes that token.
            with_template: add the tokens that the tokenizer puts before and after a text.
        """
        self._hub.encode_special_tokens = not special
        try:
            ids: list[int] = self._hub.encode(text, add_special_tokens=with_template).ids
        except (TypeError, UnicodeEncodeError):
            raise UserError("the text holds half of a surrogate pair; remove it") from None
        finally:
            self._hub.encode_special_tokens = True
        if not (special or with_template) and not self.controls.keys().isdisjoint(ids):
            return self._letters(text, ids)
        return ids

    def _letters(self, text: str, ids: list[int]) -> list[int]:
        """Return the ids of a text whose control tokens are read as letters.

        In some tokenizers, merges of letters end in a control token. So the text is split after the
        first letter of each name of a control token.

        Raises `UserError` if a control token is a single letter.
        """
        spelled = [self.controls[id] for id in ids if id in self.controls]
        name = next((name for name in spelled if len(name) > 1 and name in text), None)
        if name is None:
            raise UserError(
                f"the text has {plain(spelled[0])}, which this tokenizer cannot read as letters; "
                "remove it from the text"
            )
        first, *others = text.split(name)
        parts = [first, *(name[1:] + other for other in others)]
        parts = [part + name[0] for part in parts[:-1]] + parts[-1:]
        return [id for part in parts for id in self.encode(part)]

    def can_cut(self, text: str, at: int) -> bool:
        """Return whether the tokens near text[at] are the same if the text is split there."""
        if len(text) - at < min(NEAR, len(text) // 2):
            return False  # the following text is too short to compare
        before, after = text[max(0, at - NEAR) : at], text[at : at + NEAR]
        return [*self.encode(before), *self.encode(after)] == self.encode(before + after)

    def count_changed(self, documents: Iterable[str], ids: npt.NDArray[np.uint32]) -> int:
        """Return 1 if decoding `ids` does not give `documents`, else 0."""
        decoded = self.decode_bytes(id for id in ids.tolist() if id != self.end_of_text)
        return int(decoded != "".join(documents).encode("utf-8"))

    def copy(self) -> HubTokenizer:
        other = HubTokenizer(self.content, self._name, self.end_of_text)
        other.ends, other.begin = self.ends, self.begin
        return other

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.content)
        if self.controls[self.end_of_text] != END_OF_TEXT:
            digest.update(f"parted by {self.end_of_text}".encode())
        return digest.hexdigest()


def _bytes(name: str) -> bytes:
    """Return the bytes that a token of this name decodes to."""
    return token_of_name(name) if spells_bytes(name) else name.encode("utf-8")


def guarded(call: Callable[[], T]) -> T:
    """Return the result of `call()`. Raises `ValueError` for any failure, also a panic in Rust."""
    try:
        return call()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(str(error)) from None


def refuse(saved: dict[str, Any], name: str) -> None:
    """Raise `UserError` if a tokenizer.json is not byte-level BPE, or encodes at random.

    Args:
        saved: the JSON object.
        name: the file, for an error.
    """
    model = saved["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "Unigram")
    titles = {"Unigram": "Unigram (SentencePiece)", "WordPiece": "WordPiece (as in BERT)"}
    if kind != "BPE":
        raise UserError(
            f"{name} is a {titles.get(kind, plain(kind))} tokenizer; minigen reads byte-level BPE"
        )
    joins = set(_steps(saved["decoder"]))
    if "ByteLevel" not in {*_steps(saved["normalizer"]), *_steps(saved["pre_tokenizer"])}:
        why = "it has no byte-level step"
    elif others := sorted(joins - PLAIN_DECODERS):
        why = f"its decoder is {' and '.join(map(plain, others))}"
    else:
        why = "" if "ByteLevel" in joins else "it has no byte-level decoder"
    if why:
        raise UserError(f"{name} is not byte-level: {why}; minigen reads byte-level BPE")
    if model.get("dropout"):
        raise UserError(
            f"{name} is random (dropout {plain(model['dropout'])}); set dropout to null"
        )


def _steps(part: dict[str, Any] | None) -> Iterator[str]:
    """Yield the type of each step in a part of tokenizer.json."""
    if part is not None:
        yield str(part["type"])
        for inner in ("normalizers", "pretokenizers", "decoders"):
            for step in part.get(inner, ()):
                yield from _steps(step)
