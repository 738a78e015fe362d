"""The files of a synthetic corpus: training, validation and held-out text, and facts about them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from minigen.errors import UserError
from minigen.system.disk import write_atomically

BLANK_LINE = "\n\n"  # between two documents of a file


class Document(Protocol):
    """A text that a grammar wrote, and its exact -log2 p under that grammar."""

    @property
    def text(self) -> str: ...
    @property
    def bits(self) -> float: ...


def write(
    folder: Path,
    corpus: str,
    streams: Mapping[str, Iterator[Document]],
    sizes: Mapping[str, int],
    facts: Mapping[str, Any],
    ending: str = ".txt",
    between: str = BLANK_LINE,
    scored: Callable[[str], str] = lambda text: text,
) -> dict[str, Any]:
    """Write one file for each split, and facts.json; return the facts.

    A file has as many documents as fit into its size, and at least one. No document of val.txt is
    in train.txt, so that a model cannot know a document of val.txt by heart
    (test_no_document_is_in_training_and_validation).

    In the facts, `bits` is the sum of -log2 p over the documents of a file. `bits_per_byte` is this
    sum divided by the bytes of the documents that count: the entropy of the text (see
    `Corpus.entropy`).

    Args:
        corpus: the name of the corpus, which is also the plural noun for its documents.
        streams: an endless stream of documents for each split.
        sizes: the maximum size of each split's file in bytes.
        facts: more facts for facts.json, before the splits.
        ending: of the names of the files.
        between: the text between two documents of a file.
        scored: returns the part of a document that counts for the loss.

    Raises `UserError` if the files cannot be written or a size has no room for a document.
    """
    splits: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {corpus} to {folder}: {error.strerror}") from error
    for split, n_bytes in sizes.items():
        texts: list[str] = []
        bits: list[float] = []
        size = 1 - len(between)  # after the last document there is one newline
        for document in streams[split]:
            if document.text in seen and split == "val":
                continue
            size += len(document.text) + len(between)
            if size > n_bytes:
                break
            texts.append(document.text)
            bits.append(document.bits)
        if not texts:
            raise UserError(
                f"{split}_bytes is {n_bytes}, too few for one of the {corpus}; give 2000 or more"
            )
        seen.update(texts)
        data = f"{between.join(texts)}\n".encode("ascii")
        with write_atomically(folder / f"{split}{ending}") as part:
            part.write_bytes(data)
        text_bytes = sum(len(scored(text)) for text in texts)
        splits[split] = {
            "file": f"{split}{ending}",
            "sha256": sha256(data),
            corpus: len(texts),
            "bytes": len(data),
            "text_bytes": text_bytes,
            "bits": round(math.fsum(bits), 3),
            "bits_per_byte": round(math.fsum(bits) / text_bytes, 6),
        }
    all_facts = {"corpus": corpus, **facts, "splits": splits}
    with write_atomically(folder / "facts.json") as part:
        part.write_bytes(f"{json.dumps(all_facts, indent=2)}\n".encode("ascii"))
    return all_facts


def verified_facts(folder: Path, version: int) -> dict[str, Any] | None:
    """Return the facts in a folder, after checking the SHA-256 of each file.

    Returns None if a file is missing or damaged, or if another version of the grammar wrote it.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_bytes())
        if facts["version"] == version and all(
            sha256((folder / file["file"]).read_bytes()) == file["sha256"]
            for file in facts["splits"].values()
        ):
            return facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a file is missing, or facts.json is damaged
    return None


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
