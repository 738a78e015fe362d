"""The files that a tokenizer is kept in, ours or other people's, read as transformers reads them.

A folder has a tokenizer.json, or the older vocab.json and merges.txt, and a tokenizer_config.json
that may overrule it. Which of its fields do depends on the class that this file names, and on the
version of transformers. So transformers itself reads the folder, and what it makes of it is again
a tokenizer.json. One that minigen wrote, and GPT-2's own, need neither of the two libraries.

    folder --transformers--> tokenizer.json --tokenizers--> `HubTokenizer`
    folder of ours --------> tokenizer.json --------------> `Tokenizer`
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

FILES = ("tokenizer.json", "vocab.json", "merges.txt")  # the first, or both others
MAX_BYTES = 1 << 27  # of a tokenizer.json; those of 250,000 tokens have some 3e7

# What shows whether two programs read alike: spaces, marks, digits, NFD, breaks of lines.
PROBES = (
    "It's 12345 , isn't it ? Do not , I 'm sure .\r\n\n  \n\tdef f(x):  # ½ ² ﬁ Ⅷ \uff11\uff12",
    "나는 밥을 먹는다\u1112\u1161\u11ab cafe\u0301 İstanbul 漢字、カナ。 🙂🇰🇷 \u200b\xa0 x\n",
    " Two\n\n\nlines!\n\n",
    "a",
    "",
)


def to_json(tokenizer: Tokenizer) -> bytes:
    """Return a tokenizer.json, which Hugging Face's `tokenizers` and `transformers` load too."""
    if isinstance(tokenizer, HubTokenizer):
        return tokenizer.content
    return tokenizer_json.to_json(tokenizer)


def from_json(
    content: bytes, name: str = "tokenizer.json", end: str | int | None = None
) -> Tokenizer:
    """Read what `to_json` wrote, or any byte-level tokenizer.json.

    Args:
        name: for messages.
        end: the token, or its id, that parts documents where there is no END_OF_TEXT.

    Raises UserError, naming `name`, if it is neither.
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
    """Read a tokenizer.json; raises UserError if the file is anything else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path} as a tokenizer: {error.strerror}; save it again"
        ) from None
    return from_json(content, str(path))


# ---- the folder of a model ----


def is_in(folder: Path) -> bool:
    """Return whether a folder has a tokenizer, in one file or in the two older ones."""
    files = {name for name in FILES if (folder / name).is_file()}
    return FILES[0] in files or files.issuperset(FILES[1:])


def read(folder: Path, companions: Companions) -> Tokenizer | None:
    """Read a model's folder as transformers reads it; None if the folder has no tokenizer.

    Raises `UserError` if it is not byte-level BPE, or needs transformers, which is not installed.
    """
    path = folder / "tokenizer.json"
    if "auto_map" in companions.tokenizer:
        raise UserError(
            f"{folder}/tokenizer_config.json: auto_map says that the tokenizer needs code of its "
            "folder, which minigen does not run; take that out to have it read without"
        )
    content = read_file(path, MAX_BYTES) if path.is_file() else b""
    if content:
        try:
            saved = json.loads(content)
            own = tokenizer_json.read_own(saved)
            if own is not None and _says_nothing_new(companions, own):
                return _with_ends(own, companions)
            if own is None:  # refuse what is no byte-level BPE before transformers is asked
                refuse(saved, str(path))
        except UserError:
            raise
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            return from_json(content, str(path))  # it says what is wrong
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
    tokenizer = from_json(effective, str(path), theirs.eos_token or companions.end)
    for text in (*PROBES, *(f"a {name} b" for name in [*tokenizer.controls.values()][:8])):
        _compare(tokenizer, theirs, text, path)
    return _with_ends(tokenizer, companions)


def _with_ends(tokenizer: Tokenizer, companions: Companions) -> Tokenizer:
    """Give a tokenizer the ends of a text that the model's files name."""
    tokenizer.ends = companions.ends
    begin = companions.generation.get("bos_token_id")
    if isinstance(tokenizer, HubTokenizer) and type(begin) is int:
        tokenizer.begin = begin if 0 <= begin < tokenizer.n_vocab else tokenizer.begin
    return tokenizer


def with_companions(content: bytes, name: str, companions: Companions) -> Tokenizer:
    """Read the tokenizer of a checkpoint, which has it as it was read once, and its companions."""
    return _with_ends(from_json(content, name, companions.end), companions)


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
    """Return whether a tokenizer.json of ours or of OpenAI's is all that there is to know."""
    told = dict(companions.tokenizer)
    if own.kind == "gpt2" and own.bare and told["tokenizer_class"] == "GPT2Tokenizer":
        del told["tokenizer_class"]  # which would cut in another way what is not GPT-2's
    return not {"special_tokens_map.json", "added_tokens.json"} & companions.files.keys() and all(
        name in NOTHING_NEW and (not NOTHING_NEW[name] or value in NOTHING_NEW[name])
        for name, value in told.items()
    )


def _settled(content: bytes, name: str) -> bytes:
    """Return a tokenizer.json as `tokenizers` writes it."""
    import tokenizers

    try:
        read = guarded(lambda: tokenizers.Tokenizer.from_str(content.decode("utf-8")))
    except ValueError:
        raise UserError(f"{name} is damaged; save it again") from None
    return str(read.to_str()).encode("utf-8")


def _transformers_reads(folder: Path) -> Any:
    """Return the tokenizer of transformers; no code of the folder runs, and no server is asked."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise UserError(f"to read the tokenizer of {folder}, first: {install('hf')}") from None
    try:
        with _silent():
            theirs = guarded(
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
    """Raise UserError if transformers reads or decodes a text otherwise."""
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
