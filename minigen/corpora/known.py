"""Corpora with names: those that grammars write on first use, and one that is downloaded once."""

from __future__ import annotations

import http.client
import math
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigen.corpora import splits, task
from minigen.corpora.corpus import Corpus
from minigen.errors import UserError
from minigen.system import disk
from minigen.system.places import writable

NAMES = (*task.SYNTHETIC, "shakespeare")

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_BYTES = 1_115_394
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def synthetic_corpus(names: Sequence[str], folder: Path) -> Corpus:
    """Return one corpus of several that grammars write; write those that are missing.

    Each name counts once. A small corpus is read as often as it fits into the largest one, as a
    model learns little of a rare kind of text.
    """
    names = tuple(dict.fromkeys(names))
    found = [_intact(name, folder) for name in names]
    folders, facts = [place for place, _ in found], [facts["splits"] for _, facts in found]
    sizes = [one["train"]["bytes"] for one in facts]
    times = [max(sizes) // size for size in sizes]
    train = [place / "train.txt" for place, n in zip(folders, times, strict=True) for _ in range(n)]
    val = [place / "val.txt" for place in folders]
    # Both sums leave out the blank lines between the documents, as the tokens do. END_OF_TEXT
    # stands there instead: a token that is scored, but after the last sentence of a tale or the
    # last row of a picture nothing else can come, so it costs a perfect model no bits. Of which
    # corpus the next document is, a perfect model can only guess, as often as training has each.
    documents = [n * one["train"][name] for name, one, n in zip(names, facts, times, strict=True)]
    bits = math.fsum(
        one["val"]["bits"] + one["val"][name] * math.log2(sum(documents) / n)
        for name, one, n in zip(names, facts, documents, strict=True)
    )
    floor = bits / sum(one["val"]["text_bytes"] for one in facts)
    return Corpus("+".join(names), tuple(train), tuple(val), splits.BETWEEN, floor)


def _intact(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the place of a synthetic corpus and its facts.

    Its files are written if they are missing or not as the facts say; where `folder` cannot be
    written, into another.
    """
    one = task.get(name)
    if facts := splits.intact_facts(folder / name, one.VERSION):
        return folder / name, facts
    place = writable(folder / name)
    return place, splits.intact_facts(place, one.VERSION) or one.write(place)


def shakespeare(folder: Path) -> Path:
    """Return the file of "tiny Shakespeare"; download it if it is missing or damaged."""
    path = folder / "shakespeare" / "tinyshakespeare.txt"
    if not _is_shakespeare(path):
        path = writable(path.parent) / path.name
    if not _is_shakespeare(path):
        download(SHAKESPEARE_URL, path, SHAKESPEARE_BYTES, SHAKESPEARE_SHA256)
    return path


def _is_shakespeare(path: Path) -> bool:
    return path.is_file() and splits.sha256(path.read_bytes()) == SHAKESPEARE_SHA256


def download(url: str, path: Path, n_bytes: int, sha256: str) -> None:
    """Store the content of `url` as `path`, all of it or nothing, if it has the right hash."""
    by_hand = f"get the file in another way and save it as {path}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            content = response.read(n_bytes + 1)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {url} ({error}); go online, or {by_hand}") from None
    if len(content) != n_bytes or splits.sha256(content) != sha256:
        raise UserError(f"{url} does not hold the text that was published there; {by_hand}")
    with disk.write_atomically(path) as part:
        part.write_bytes(content)
