"""Training and validation files of a corpus that a grammar writes, with the facts about them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from minigen.errors import UserError
from minigen.system.disk import write_atomically

BETWEEN = "\n\n"  # the separator of the documents


class Document(Protocol):
    """A text and its exact -log2 p."""

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
) -> dict[str, Any]:
    """Write train.txt, val.txt (blank lines between documents) and facts.json; return the facts.

    Each file has as many documents as fit into its bytes, at least one. None of val.txt is in
    train.txt. In the facts, `bits` is the sum of -log2 p over a file's documents, so
    `bits_per_byte` (of the documents' text) is the loss of a model that knows the grammar perfectly
    on that very file.

    Args:
        corpus: its name, which is also what the documents are called.
        streams: documents without end, by split.
        sizes: the most bytes of each split's file.
        facts: more facts for facts.json, before the splits.

    Raises UserError if the files cannot be written or a size has no room for a document.
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
        size = -1  # two newlines after each document, but one after the last
        for one in streams[split]:
            if one.text in seen and split == "val":
                continue
            size += len(one.text) + 2
            if size > n_bytes:
                break
            texts.append(one.text)
            bits.append(one.bits)
        if not texts:
            raise UserError(
                f"{split}_bytes is {n_bytes}; give 2000 or more, room for one of the {corpus}"
            )
        seen.update(texts)
        data = f"{BETWEEN.join(texts)}\n".encode("ascii")
        with write_atomically(folder / f"{split}.txt") as part:
            part.write_bytes(data)
        text_bytes = sum(map(len, texts))
        splits[split] = {
            "file": f"{split}.txt",
            "sha256": sha256(data),
            corpus: len(texts),
            "bytes": len(data),
            "text_bytes": text_bytes,
            "bits": round(math.fsum(bits), 3),
            "bits_per_byte": round(math.fsum(bits) / text_bytes, 6),
        }
    content = {"corpus": corpus, **facts, "splits": splits}
    with write_atomically(folder / "facts.json") as part:
        part.write_bytes(f"{json.dumps(content, indent=2)}\n".encode("ascii"))
    return content


def intact_facts(folder: Path, version: int) -> dict[str, Any] | None:
    """Return the facts of the files in a folder; None if one is missing or not as the facts say."""
    try:
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_bytes())
        if facts["version"] == version and all(
            sha256((folder / f"{split}.txt").read_bytes()) == said["sha256"]
            for split, said in facts["splits"].items()
        ):
            return facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # not yet written, of an older version, or damaged
    return None


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
