"""Built-in corpora: four that grammars write on first use, and one that is downloaded once."""

from __future__ import annotations

import http.client
import math
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigen.corpora import genre, splits
from minigen.corpora.corpus import Corpus
from minigen.errors import UserError
from minigen.system import disk
from minigen.system.places import writable

NAMES = (*genre.WRITTEN, "shakespeare")

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_BYTES = 1_115_394
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def synthetic_corpus(names: Sequence[str], folder: Path) -> Corpus:
    """Return one corpus that joins several synthetic corpora; write those that are missing.

    Each name counts once. A small corpus is repeated as many times as it fits into the largest
    one, because a model learns little of a rare kind of text.
    """
    names = tuple(dict.fromkeys(names))
    written = [_write_if_missing(name, folder) for name in names]
    folders, facts = [place for place, _ in written], [facts["splits"] for _, facts in written]
    sizes = [files["train"]["bytes"] for files in facts]
    repeats = [max(sizes) // size for size in sizes]
    train = [f / "train.txt" for f, n in zip(folders, repeats, strict=True) for _ in range(n)]
    val = [f / "val.txt" for f in folders]
    # The entropy of the text is a mean over the documents of `val`, without the blank lines between
    # documents, which the tokens leave out, too: they have END_OF_TEXT instead. The loss counts
    # that token, but it adds no bits to the entropy, because after the last sentence of a tale or
    # the last row of a picture nothing else can follow. With several corpora, the choice of a
    # document's corpus is one more draw. Its probability is the share of that corpus in the
    # training documents (test_the_entropy_of_several_corpora_has_the_bits_of_their_choice).
    n_train = [
        n * files["train"][name] for name, files, n in zip(names, facts, repeats, strict=True)
    ]
    bits = math.fsum(
        files["val"]["bits"] + files["val"][name] * math.log2(sum(n_train) / n)
        for name, files, n in zip(names, facts, n_train, strict=True)
    )
    entropy = bits / sum(files["val"]["text_bytes"] for files in facts)
    return Corpus("+".join(names), tuple(train), tuple(val), splits.BLANK_LINE, entropy)


def tasks(folder: Path) -> Corpus:
    """Return the corpus of questions and answers; write it if it is missing."""
    place, facts = _write_if_missing("tasks", folder)
    files = facts["splits"]
    train, val = (place / files[split]["file"] for split in ("train", "val"))
    return Corpus("tasks", (train,), (val,), entropy=files["val"]["bits_per_byte"])


def _write_if_missing(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a corpus that a program writes, and its facts.

    If a file of the corpus is missing or damaged, all are written again; if `folder` is not
    writable, they are written into another folder.
    """
    corpus = genre.writer(name)
    if facts := splits.verified_facts(folder / name, corpus.VERSION):
        return folder / name, facts
    place = writable(folder / name)
    return place, splits.verified_facts(place, corpus.VERSION) or corpus.write(place)


def shakespeare(folder: Path) -> Path:
    """Return the file of "tiny Shakespeare"; download it if it is missing or damaged."""
    path = folder / "shakespeare" / "tinyshakespeare.txt"
    if not _is_shakespeare(path):
        path = writable(path.parent) / path.name
    if not _is_shakespeare(path):
        download(SHAKESPEARE_URL, path, SHAKESPEARE_BYTES, SHAKESPEARE_SHA256)
    return path


def _is_shakespeare(path: Path) -> bool:
    """Return whether a file is "tiny Shakespeare", to the byte."""
    return path.is_file() and splits.sha256(path.read_bytes()) == SHAKESPEARE_SHA256


def download(url: str, path: Path, n_bytes: int, sha256: str) -> None:
    """Download `url` to the file `path`, if the download has this size and this SHA-256.

    Else no file is stored. Raises `UserError` if the download fails, has another size or SHA-256,
    or cannot be stored.
    """
    by_hand = f"get the file in another way and save it as {path}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read(n_bytes + 1)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {url} ({error}); go online, or {by_hand}") from None
    if len(data) != n_bytes or splits.sha256(data) != sha256:
        raise UserError(f"{url} is not the text that minigen expects; {by_hand}")
    with disk.write_atomically(path) as part:
        part.write_bytes(data)
