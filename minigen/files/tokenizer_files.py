"""Read and write the files of a tokenizer, with the same result as in transformers.

A folder has a tokenizer.json, or the older vocab.json and merges.txt, and a tokenizer_config.json
that may overrule it. Which of its fields overrule depends on the tokenizer's class and on the
version of transformers. So transformers itself reads the folder, and its result is written as a
tokenizer.json again. A tokenizer.json of minigen or of GPT-2 needs neither transformers nor
`tokenizers`.

    folder of the hub --transformers--> tokenizer.json --tokenizers--> `HubTokenizer`
    folder of minigen ----------------> tokenizer.json --------------> `Tokenizer`
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigen.errors import UserError
from minigen.files import tokenizer_json
from minigen.files.companions import Companions
from minigen.files.hub_tokenizer import HubTokenizer, guarded, refuse
from minigen.files.safetensors_file import plain, read_file
from minigen.system.shell import install
from minigen.tokenizer import END_OF_TEXT, Tokenizer

FILES = ("tokenizer.json", "vocab.json", "merges.txt")  # the first, or the second and the third
MAX_BYTES = 1 << 27  # of a tokenizer.json; one of 250,000 tokens has about 3e7

# Texts that two programs may encode differently: spaces, marks, digits, NFD, line breaks.
PROBES = (
    "It's 12345 , isn't it ? Do not , I 'm sure .\r\n\n  \n\tdef f(x):  # ½ ² ﬁ Ⅷ \uff11\uff12",
    "나는 밥을 먹는다\u1112\u1161\u11ab cafe\u0301 İstanbul 漢字、カナ。 🙂🇰🇷 \u200b\xa0 x\n",
    " Two\n\n\nlines!\n\n",
    "a",
    "",
)


def to_json(tokenizer: Tokenizer) -> bytes:
    """Return the content of a tokenizer.json, which `tokenizers` and `transformers` load too."""
    if isinstance(tokenizer, HubTokenizer):
        return tokenizer.content
    return tokenizer_json.to_json(tokenizer)


def from_json(
    content: bytes, name: str = "tokenizer.json", end: str | int | None = None
) -> Tokenizer:
    """Return the tokenizer of any byte-level tokenizer.json.

    Args:
        name: the file, for an error.
        end: the token, or its id, that separates documents if there is no END_OF_TEXT.

    Raises `UserError` if the content is not a byte-level tokenizer.json.
    """
    try:
        return tokenizer_json.read_own(json.loads(content)) or HubTokenizer(content, name, end)
    except UserError:
        raise
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise UserError(
            f"{name} is damaged or not a byte-level tokenizer.json; save it again"
        ) from None


def load(path: Path) -> Tokenizer:
    """Read a byte-level tokenizer.json, a file of `Tokenizer.save`, or a JSON list of characters.

    The characters are in the order of their ids. Raises `UserError` if the file is none of them.
    """
    with contextlib.suppress(UserError):
        return Tokenizer.load(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path} as a tokenizer: {error.strerror}; save it again"
        ) from None
    if content.lstrip().startswith(b"["):
        return _of_characters(content, path)
    return from_json(content, str(path))


def _of_characters(content: bytes, path: Path) -> Tokenizer:
    """Return the char tokenizer of a JSON list of characters."""
    with contextlib.suppress(AttributeError, RecursionError, ValueError):
        if characters := json.loads(content):
            tokens = [character.encode("utf-8") for character in characters]
            return Tokenizer("char", [*tokens, END_OF_TEXT.encode("utf-8")])
    raise UserError(
        f'{path} is no list of different characters; give a tokenizer.json or ["a", "b", ...]'
    )


# ---- the folder of a model ----


def is_in(folder: Path) -> bool:
    """Return whether a folder has a tokenizer, in tokenizer.json or in the two older files."""
    files = {name for name in FILES if (folder / name).is_file()}
    return FILES[0] in files or files.issuperset(FILES[1:])


def read(folder: Path, companions: Companions) -> Tokenizer | None:
    """Return the tokenizer that transformers reads from a folder; None if the folder has none.

    Raises `UserError` if the tokenizer is not byte-level BPE, or needs transformers, which is not
    installed.
    """
    path = folder / "tokenizer.json"
    if "auto_map" in companions.tokenizer:
        raise UserError(
            f"{folder}/tokenizer_config.json: with auto_map the tokenizer needs code in its "
            "folder, which minigen does not run; delete auto_map to read the tokenizer without it"
        )
    content = read_file(path, MAX_BYTES) if path.is_file() else b""
    if content:
        try:
            saved = json.loads(content)
            own = tokenizer_json.read_own(saved)
            if own is not None and _is_unchanged(companions, own):
                return _with_ends(own, companions)
            if own is None:  # another kind of tokenizer is refused before transformers is imported
                refuse(saved, str(path))
        except UserError:
            raise
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return from_json(content, str(path))  # which raises `UserError`
    elif not is_in(folder):
        others = ("tokenizer.model", "spiece.model", "vocab.txt", "tekken.json")
        if other := next((name for name in others if (folder / name).is_file()), None):
            raise UserError(
                f"{folder} has its tokenizer in {other}; minigen reads byte-level BPE, in a "
                "tokenizer.json"
            )
        return None
    from_transformers = _transformers_reads(folder)
    effective = from_transformers.backend_tokenizer.to_str().encode("utf-8")
    if content and effective == _settled(content, str(path)):
        effective = content  # unchanged, so that its fingerprint is that of the file
    tokenizer = from_json(effective, str(path), from_transformers.eos_token or companions.end)
    for text in (*PROBES, *(f"a {name} b" for name in [*tokenizer.controls.values()][:8])):
        _compare(tokenizer, from_transformers, text, path)
    return _with_ends(tokenizer, companions)


def _with_ends(tokenizer: Tokenizer, companions: Companions) -> Tokenizer:
    """Set the ids that begin and end a text as the model's files name them."""
    tokenizer.ends = companions.ends
    begin = companions.generation.get("bos_token_id")
    if isinstance(tokenizer, HubTokenizer) and type(begin) is int:
        tokenizer.begin = begin if 0 <= begin < tokenizer.n_vocab else tokenizer.begin
    return tokenizer


def with_companions(content: bytes, name: str, companions: Companions) -> Tokenizer:
    """Return the tokenizer of a checkpoint, whose tokenizer.json overrules its companions.

    Args:
        content: the tokenizer.json.
        name: the file, for an error.
    """
    return _with_ends(from_json(content, name, companions.end), companions)


# Fields of tokenizer_config.json that do not change a tokenizer of minigen or of GPT-2, and the
# values for which this holds; (): any value.
NO_CHANGE: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": ("PreTrainedTokenizerFast", "TokenizersBackend"),
    "bos_token": (END_OF_TEXT,),
    "eos_token": (END_OF_TEXT,),
    "model_max_length": (),
    "clean_up_tokenization_spaces": (),  # transformers cleans up no text of BPE
    "chat_template": (),
}


def _is_unchanged(companions: Companions, own: Tokenizer) -> bool:
    """Return whether no companion changes a tokenizer of minigen or of GPT-2."""
    fields = dict(companions.tokenizer)
    if own.kind == "gpt2" and own.bare and fields["tokenizer_class"] == "GPT2Tokenizer":
        del fields["tokenizer_class"]  # this class splits a text as GPT-2 does
    return not {"special_tokens_map.json", "added_tokens.json"} & companions.files.keys() and all(
        name in NO_CHANGE and (not NO_CHANGE[name] or value in NO_CHANGE[name])
        for name, value in fields.items()
    )


def _settled(content: bytes, name: str) -> bytes:
    """Return a tokenizer.json in the spelling of `tokenizers`."""
    import tokenizers

    try:
        parsed = guarded(lambda: tokenizers.Tokenizer.from_str(content.decode("utf-8")))
    except ValueError:
        raise UserError(f"{name} is damaged; save it again") from None
    return str(parsed.to_str()).encode("utf-8")


def _transformers_reads(folder: Path) -> Any:
    """Return the tokenizer that transformers reads from a folder.

    No code of the folder runs, and no server is asked. Raises `UserError` if transformers cannot
    read the folder, or computes more than minigen.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise UserError(f"to read the tokenizer of {folder}, first: {install('hf')}") from None
    try:
        with _silent():
            from_transformers = guarded(
                lambda: AutoTokenizer.from_pretrained(
                    folder, trust_remote_code=False, local_files_only=True
                )
            )
    except ValueError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(
            f"{folder}: transformers cannot read the tokenizer ({plain(reason)}); save it again "
            "with save_pretrained"
        ) from None
    where = f"{folder}/tokenizer_config.json"
    if not hasattr(from_transformers, "backend_tokenizer"):
        raise UserError(
            f"{where}: transformers computes {type(from_transformers).__name__} in Python; minigen "
            "reads byte-level BPE that the library tokenizers computes"
        )
    for name in (
        "split_special_tokens",
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    ):
        if getattr(from_transformers, name, False):
            raise UserError(f"{where}: {name} is true; minigen does not compute this setting")
    if "attention_mask" not in from_transformers.model_input_names:
        raise UserError(
            f"{where}: model_input_names lacks attention_mask, so that transformers hides some "
            "tokens from the model; add it"
        )
    return from_transformers


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence the warnings of transformers, which are for its own users."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(40)  # errors only
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _compare(tokenizer: Tokenizer, from_transformers: Any, text: str, path: Path) -> None:
    """Raise `UserError` if transformers encodes or decodes a text differently."""
    try:
        ids = tokenizer.encode_prompt(text)
    except UserError:  # the vocabulary of a char tokenizer lacks a character
        return
    with _silent():
        expected_ids = from_transformers(text)["input_ids"]
        expected_text = from_transformers.decode(expected_ids)
    if expected_ids and (ids != expected_ids or tokenizer.decode(expected_ids) != expected_text):
        raise UserError(
            f"{path} with its tokenizer_config.json has a step that minigen does not compute: "
            f"transformers encodes {plain(repr(text))} differently"
        )
