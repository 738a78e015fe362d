"""The tokenizers of other people's models, computed by Hugging Face's library `tokenizers`.

It computes each part of a tokenizer.json that cuts, changes or joins a text. What is not byte-level
byte-pair encoding is refused by its name.
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

MAX_TOKENS = 1 << 22  # of a model, as of its embedding
NEAR = 1000  # characters on either side of a place, of which it depends whether it may be cut

PLAIN_DECODERS = {"ByteLevel", "Fuse", "Sequence"}  # what joins bytes and does no more

T = TypeVar("T")


class HubTokenizer(Tokenizer):
    """Another model's tokenizer, as `tokenizers` reads its tokenizer.json.

    Where the file asks for a normalizer or a space before the text, `decode(encode(text))` is the
    text as the model reads it, not as it was written.

    Args:
        content: the tokenizer.json. How it cuts off and fills up texts is left out.
        name: of the file, for messages.
        end: the token, or its id, that parts documents where there is no END_OF_TEXT.

    Raises UserError if `tokenizers` is not installed, or the file asks for what is not computed;
    ValueError if it is damaged.
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
        self._theirs = guarded(lambda: tokenizers.Tokenizer.from_str(content.decode("utf-8")))
        self._theirs.encode_special_tokens = True  # untrusted text spells letters only
        vocab = self._theirs.get_vocab(with_added_tokens=True)
        if max(vocab.values(), default=0) >= MAX_TOKENS:
            raise ValueError("an id is too large")
        known = {id: _bytes(token) for token, id in vocab.items()}
        if missing := sorted(set(BYTES) - set(known.values())):
            raise UserError(
                f"{name} is not byte-level: it has no token for the byte {missing[0].hex()}; "
                "minigen reads byte-level BPE"
            )
        tokens = [known.get(id, b"") for id in range(max(vocab.values()) + 1)]
        added = {token["id"]: token for token in saved["added_tokens"]}
        controls = {id: token["content"] for id, token in added.items() if token["special"]}
        around = guarded(lambda: self._theirs.encode("").ids)  # what is put around each text
        # In a file whose ids have gaps, `tokenizers` gives other ids than it says, or one twice.
        counted = self._theirs.get_added_tokens_decoder().keys() == added.keys()
        if not counted or len(known) < len(vocab) or max(around, default=0) >= len(tokens):
            raise UserError(f"{name} is damaged: the ids of its tokens have gaps; make it anew")
        if shared := [controls[id] for id in sorted(controls) if tokens[id] in BYTES]:
            raise UserError(
                f"{name} is damaged: its special token {plain(shared[0])} is that of a byte; make "
                "it anew"
            )
        parting = {name: id for id, name in controls.items()}
        found = parting.get(END_OF_TEXT, parting.get(end) if isinstance(end, str) else end)
        if found not in controls:
            raise UserError(
                f"{name} is a tokenizer without {END_OF_TEXT}, and no other special token is named "
                "that ends a text; name its eos_token in tokenizer_config.json"
            )
        super().__init__("hub", tokens, not around, controls, found)
        self.begin = self.end_of_text  # what is read instead of an empty text
        self.content, self._name = content, name

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        if not (special and isinstance(text, str)):
            return super().encode(text)
        return self._read(text, special=True, whole=False)

    def encode_prompt(self, text: str, opening: str = "", special: bool = True) -> list[int]:
        if opening and not text:
            return self.encode(opening)
        return self._read(text, special, whole=True) or [self.begin]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        import numpy as np

        ids = self._read(text, special=False, whole=False)
        return np.array(ids, dtype=np.uint32)

    def _read(self, text: str, special: bool, whole: bool) -> list[int]:
        """The ids of a text; `whole`: with what the file puts before and after it."""
        self._theirs.encode_special_tokens = not special
        try:
            ids: list[int] = self._theirs.encode(text, add_special_tokens=whole).ids
        except (TypeError, UnicodeEncodeError):
            raise UserError("the text holds half of a surrogate pair; remove it") from None
        finally:
            self._theirs.encode_special_tokens = True
        if not (special or whole) and not self.controls.keys().isdisjoint(ids):
            return self._letters(text, ids)
        return ids

    def _letters(self, text: str, ids: list[int]) -> list[int]:
        """The ids of a text in which joins of letters lead to a control token: it is cut there."""
        found = [self.controls[id] for id in ids if id in self.controls]
        name = next((name for name in found if len(name) > 1 and name in text), None)
        if name is None:
            raise UserError(
                f"the text spells {plain(found[0])}, which this tokenizer cannot read as letters; "
                "leave it out"
            )
        first, *others = text.split(name)
        parts = [first, *(name[1:] + other for other in others)]
        parts = [part + name[0] for part in parts[:-1]] + parts[-1:]
        return [id for part in parts for id in self.encode(part)]

    def can_cut(self, text: str, at: int) -> bool:
        """Whether the tokens around text[at] are the same if it is cut there."""
        if len(text) - at < min(NEAR, len(text) // 2):
            return False  # too little is known of what follows
        before, after = text[max(0, at - NEAR) : at], text[at : at + NEAR]
        return [*self.encode(before), *self.encode(after)] == self.encode(before + after)

    def count_changed(self, documents: Iterable[str], ids: npt.NDArray[np.uint32]) -> int:
        """1 if the ids of texts do not hold the texts' bytes."""
        held = self.decode_bytes(id for id in ids.tolist() if id != self.end_of_text)
        return int(held != "".join(documents).encode("utf-8"))

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
    """The bytes that a token of this name decodes to."""
    return token_of_name(name) if spells_bytes(name) else name.encode("utf-8")


def guarded(work: Callable[[], T]) -> T:
    """Return what `work` returns; ValueError for any failure, also a "panic" in Rust."""
    try:
        return work()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(str(error)) from None


def refuse(saved: dict[str, Any], name: str) -> None:
    """Raise UserError if a tokenizer.json is no byte-level BPE, or is drawn by chance."""
    model = saved["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "Unigram")
    told = {"Unigram": "Unigram (SentencePiece)", "WordPiece": "WordPiece (as of BERT)"}
    if kind != "BPE":
        raise UserError(
            f"{name} is a {told.get(kind, plain(kind))} tokenizer; minigen reads byte-level BPE"
        )
    joins = set(_steps(saved["decoder"]))
    if "ByteLevel" not in {*_steps(saved["normalizer"]), *_steps(saved["pre_tokenizer"])}:
        why = "no step of it takes a text as bytes"
    elif others := sorted(joins - PLAIN_DECODERS):
        why = f"it decodes by {' and '.join(map(plain, others))}"
    else:
        why = "" if "ByteLevel" in joins else "it has no byte-level decoder"
    if why:
        raise UserError(f"{name} is not byte-level: {why}; minigen reads byte-level BPE")
    if model.get("dropout"):
        raise UserError(
            f"{name} is drawn by chance (dropout {plain(model['dropout'])}); set it null"
        )


def _steps(part: dict[str, Any] | None) -> Iterator[str]:
    """The types of the steps of a part of tokenizer.json."""
    if part is not None:
        yield str(part["type"])
        for inner in ("normalizers", "pretokenizers", "decoders"):
            for step in part.get(inner, ()):
                yield from _steps(step)
