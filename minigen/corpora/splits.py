"""Training and validation files of a corpus that a grammar writes, with what is known of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from minigen.errors import UserError
from minigen.system.disk import rename_file


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
    """Write train.txt, val.txt (blank lines between documents) and facts.json; returns the facts.

    Each file has as many documents as fit into its bytes, at least one. None of val.txt is in
    train.txt. In the facts, `bits` is the sum of -log2 p over a file's documents, so
    `bits_per_byte` (of the documents' text) is what a model that knows the grammar perfectly pays
    on that very file.

    Args:
        corpus: its name, which is also what the documents are called.
        streams: documents without end, by split.
        sizes: the most bytes of each split's file.
        facts: what else facts.json should say, before the splits.

    Raises UserError if the files cannot be written or a size has no room for a document.
    """
    splits: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
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
            data = ("\n\n".join(texts) + "\n").encode("ascii")
            _write_whole(folder / f"{split}.txt", data)
            text_bytes = sum(map(len, texts))
            splits[split] = {
                "file": f"{split}.txt",
                "sha256": hashlib.sha256(data).hexdigest(),
                corpus: len(texts),
                "bytes": len(data),
                "text_bytes": text_bytes,
                "bits": round(math.fsum(bits), 3),
                "bits_per_byte": round(math.fsum(bits) / text_bytes, 6),
            }
        content = {"corpus": corpus, **facts, "splits": splits}
        _write_whole(folder / "facts.json", (json.dumps(content, indent=2) + "\n").encode("ascii"))
    except OSError as error:
        raise UserError(f"cannot write {corpus} to {folder}: {error.strerror}") from error
    return content


def _write_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step, so that nobody ever sees half of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        rename_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
