"""The tokenizers of other people's models, read as transformers reads them.

A folder has a tokenizer.json, or the older vocab.json and merges.txt, and a tokenizer_config.json
that may overrule it. Which of its fields do depends on the class that this file names, and on the
version of transformers. So transformers itself reads the folder, and what it makes of it is again
a tokenizer.json, which the library `tokenizers` computes: each part that cuts, changes or joins a
text. What is not byte-level byte-pair encoding is refused by its name.

    folder --transformers--> tokenizer.json --tokenizers--> `HubTokenizer`
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from minigen.errors import UserError
from minigen.files.companions import Companions
from minigen.files.safetensors_file import plain, read_file
from minigen.system.shell import install
from minigen.tokenizer import (
    BYTES,
    END_OF_TEXT,
    Tokenizer,
    read_own,
    spells_bytes,
    token_of_name,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FILES = ("tokenizer.json", "vocab.json", "merges.txt")  # the first, or both others
MOST_BYTES = 1 << 27  # of a tokenizer.json; those of 250,000 tokens have some 3e7
MOST_TOKENS = 1 << 22  # of a model, as of its embedding
NEAR = 1000  # characters on either side of a place, of which it depends whether it may be cut

# What shows whether two programs read alike: spaces, marks, digits, NFD, breaks of lines.
PROBES = (
    "It's 12345 , isn't it ? Do not , I 'm sure .\r\n\n  \n\tdef f(x):  # ½ ² ﬁ Ⅷ \uff11\uff12",
    "나는 밥을 먹는다\u1112\u1161\u11ab cafe\u0301 İstanbul 漢字、カナ。 🙂🇰🇷 \u200b\xa0 x\n",
    " Two\n\n\nlines!\n\n",
    "a",
    "",
)

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
        _refuse(saved, name)
        if saved.get("truncation") is not None or saved.get("padding") is not None:
            saved |= {"truncation": None, "padding": None}
            content = json.dumps(saved, ensure_ascii=False).encode("utf-8")
        self._theirs = _guarded(lambda: tokenizers.Tokenizer.from_str(content.decode("utf-8")))
        self._theirs.encode_special_tokens = True  # untrusted text spells letters only
        vocab = self._theirs.get_vocab(with_added_tokens=True)
        if max(vocab.values(), default=0) >= MOST_TOKENS:
            raise ValueError("an id is too large")
        known = {id: _bytes(token) for token, id in vocab.items()}
        if missing := sorted(set(BYTES) - set(known.values())):
            raise UserError(
                f"{name} is not byte-level: it has no token for the byte {missing[0].hex()}; "
                "minigen reads byte-level BPE"
            )
        self.kind, self.n_vocab = "hub", max(vocab.values()) + 1
        self._tokens = [known.get(id, b"") for id in range(self.n_vocab)]
        self._ids = {token: id for id, token in known.items()}
        added = {token["id"]: token for token in saved["added_tokens"]}
        self.controls = {id: token["content"] for id, token in added.items() if token["special"]}
        around = _guarded(lambda: self._theirs.encode("").ids)  # what is put around each text
        # In a file whose ids have gaps, `tokenizers` gives other ids than it says, or one twice.
        counted = self._theirs.get_added_tokens_decoder().keys() == added.keys()
        if not counted or len(known) < len(vocab) or max(around, default=0) >= self.n_vocab:
            raise UserError(f"{name} is damaged: the ids of its tokens have gaps; make it anew")
        if shared := sorted(self.controls.keys() & self._of_bytes()):
            raise UserError(
                f"{name} is damaged: its special token {plain(self.controls[shared[0]])} is that "
                "of a byte; make it anew"
            )
        parting = {name: id for id, name in self.controls.items()}
        found = parting.get(END_OF_TEXT, parting.get(end) if isinstance(end, str) else end)
        if found not in self.controls:
            raise UserError(
                f"{name} is a tokenizer without {END_OF_TEXT}, and no other special token is named "
                "that ends a text; name its eos_token in tokenizer_config.json"
            )
        self.end_of_text = found
        self.ends = frozenset([found])
        self.begin = found  # what is read instead of an empty text
        self.bare = not around
        self._content, self._name = content, name

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

    def _of_bytes(self) -> set[int]:
        """The ids of single bytes."""
        return {self._ids[byte] for byte in BYTES}

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
        other = HubTokenizer(self._content, self._name, self.end_of_text)
        other.ends, other.begin = self.ends, self.begin
        return other

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self._content)
        if self.controls[self.end_of_text] != END_OF_TEXT:
            digest.update(f"parted by {self.end_of_text}".encode())
        return digest.hexdigest()

    def to_json(self) -> bytes:
        return self._content


def _bytes(name: str) -> bytes:
    """The bytes that a token of this name decodes to."""
    return token_of_name(name) if spells_bytes(name) else name.encode("utf-8")


def _guarded(work: Callable[[], T]) -> T:
    """What `work` returns; ValueError for any failure, also a "panic" in Rust, no Exception."""
    try:
        return work()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(str(error)) from None


def _refuse(saved: dict[str, Any], name: str) -> None:
    """UserError if a tokenizer.json asks for what is no byte-level BPE, or is drawn by chance."""
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


# ---- folders ----


def is_in(folder: Path) -> bool:
    """Return whether a folder has a tokenizer, in one file or in the two older ones."""
    files = {name for name in FILES if (folder / name).is_file()}
    return FILES[0] in files or files.issuperset(FILES[1:])


def read(folder: Path, companions: Companions) -> Tokenizer | None:
    """The tokenizer of a model's folder, as transformers reads it; None if the folder has none.

    `UserError` if it is not byte-level BPE, or transformers would be needed and is not installed.
    """
    path = folder / "tokenizer.json"
    if "auto_map" in companions.tokenizer:
        raise UserError(
            f"{folder}/tokenizer_config.json: auto_map says that the tokenizer needs code of its "
            "folder, which minigen does not run; take that out to have it read without"
        )
    content = read_file(path, MOST_BYTES) if path.is_file() else b""
    if content:
        try:
            saved = json.loads(content)
            if (own := read_own(saved)) is not None and _says_nothing_new(companions, own):
                return _with_ends(own, companions)
            if own is None:  # refuse what is no byte-level BPE before transformers is asked
                _refuse(saved, str(path))
        except UserError:
            raise
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return Tokenizer.from_json(content, str(path))  # it says what is wrong
    elif not is_in(folder):
        others = ("tokenizer.model", "spiece.model", "vocab.txt", "tekken.json")
        if other := next((name for name in others if (folder / name).is_file()), None):
            raise UserError(
                f"{folder} has its tokenizer in {other}; minigen reads byte-level BPE, in a "
                "tokenizer.json"
            )
        return None
    theirs = _transformers_reads(folder)
    effective = theirs.backend_tokenizer.to_str().encode("utf-8")
    if content and effective == _settled(content, str(path)):
        effective = content  # the file as it is, so that it is known again
    tokenizer = Tokenizer.from_json(effective, str(path), theirs.eos_token or companions.end)
    for text in (*PROBES, *(f"a {name} b" for name in [*tokenizer.controls.values()][:8])):
        _compare(tokenizer, theirs, text, path)
    return _with_ends(tokenizer, companions)


def _with_ends(tokenizer: Tokenizer, companions: Companions) -> Tokenizer:
    """The tokenizer, with the ends of a text that the model's files name."""
    tokenizer.ends = companions.ends
    begin = companions.generation.get("bos_token_id")
    if isinstance(tokenizer, HubTokenizer) and type(begin) is int:
        tokenizer.begin = begin if 0 <= begin < tokenizer.n_vocab else tokenizer.begin
    return tokenizer


def with_companions(content: bytes, name: str, companions: Companions) -> Tokenizer:
    """The tokenizer of a checkpoint, which has it as it was read once, and its companions."""
    return _with_ends(Tokenizer.from_json(content, name, companions.end), companions)


# What a tokenizer_config.json may say beside a tokenizer.json of ours or of OpenAI's: any value, or
# one of these.
NOTHING_NEW: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": ("PreTrainedTokenizerFast", "TokenizersBackend"),
    "bos_token": (END_OF_TEXT,),
    "eos_token": (END_OF_TEXT,),
    "model_max_length": (),
    "clean_up_tokenization_spaces": (),  # transformers does not do so for BPE
    "chat_template": (),
}


def _says_nothing_new(companions: Companions, own: Tokenizer) -> bool:
    """Whether a tokenizer.json of ours or of OpenAI's is all that there is to know."""
    told = dict(companions.tokenizer)
    if own.kind == "gpt2" and own.bare and told["tokenizer_class"] == "GPT2Tokenizer":
        del told["tokenizer_class"]  # which would cut in another way what is not GPT-2's
    return not {"special_tokens_map.json", "added_tokens.json"} & companions.files.keys() and all(
        name in NOTHING_NEW and (not NOTHING_NEW[name] or value in NOTHING_NEW[name])
        for name, value in told.items()
    )


def _settled(content: bytes, name: str) -> bytes:
    """A tokenizer.json as `tokenizers` writes it."""
    import tokenizers

    try:
        read = _guarded(lambda: tokenizers.Tokenizer.from_str(content.decode("utf-8")))
    except ValueError:
        raise UserError(f"{name} is damaged; save it again") from None
    return str(read.to_str()).encode("utf-8")


def _transformers_reads(folder: Path) -> Any:
    """The tokenizer of transformers; no code of the folder is run, and no server is asked."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise UserError(f"to read the tokenizer of {folder}, first: {install('hf')}") from None
    try:
        with _silent():
            theirs = _guarded(
                lambda: AutoTokenizer.from_pretrained(
                    folder, trust_remote_code=False, local_files_only=True
                )
            )
    except ValueError as error:
        said = (str(error).strip().splitlines() or ["it fails"])[0]
        raise UserError(
            f"{folder}: transformers cannot read the tokenizer, and says: {plain(said)}; save it "
            "anew with its save_pretrained"
        ) from None
    where = f"{folder}/tokenizer_config.json"
    if not hasattr(theirs, "backend_tokenizer"):
        raise UserError(
            f"{where}: {type(theirs).__name__} is computed in Python by transformers; minigen "
            "reads byte-level BPE of the library tokenizers"
        )
    for name in (
        "split_special_tokens",
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    ):
        if getattr(theirs, name, False):
            raise UserError(f"{where}: {name} is true; minigen does not compute that")
    if "attention_mask" not in theirs.model_input_names:
        raise UserError(
            f"{where}: model_input_names lacks attention_mask, so that transformers hides some "
            "tokens from the model; add it"
        )
    return theirs


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep transformers from giving advice about its own use."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(40)  # errors only
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _compare(ours: Tokenizer, theirs: Any, text: str, path: Path) -> None:
    """UserError if transformers reads or decodes a text otherwise."""
    try:
        mine = ours.encode_prompt(text)
    except UserError:  # a character that a char tokenizer has not
        return
    with _silent():
        ids = theirs(text)["input_ids"]
        again = theirs.decode(ids)
    if ids and (mine != ids or ours.decode(ids) != again):
        raise UserError(
            f"{path} with its tokenizer_config.json asks for what minigen does not compute: "
            f"transformers reads {plain(repr(text))} otherwise"
        )
