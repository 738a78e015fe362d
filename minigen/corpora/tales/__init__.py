"""Tales: a corpus of short stories from a grammar, so that the best possible loss is known exactly.

A tale is a header line and a paragraph of 7 to 11 sentences:

    hero: Sir Fox, friend: little Owl, place: faraway forest, object: magic lantern, ...
    One windy Friday, Sir Fox was counting red socks in the faraway forest. Along hopped ...

Every word is drawn uniformly from a short list, so -log2 p(tale) is an exact number of bits; their
mean, `entropy()`, is the floor under the loss of any model. The header says what the tale must be
about, and `check` reads any text (a model's sample) and says whether it is a tale, whether it
obeys its header, and if not, why.

    python -m minigen corpus tales --count 3          # read some tales
    python -m minigen corpus tales --check FILE       # check tales between blank lines or rules
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigen.corpora.tales.check import check
from minigen.corpora.tales.generate import (
    NOUN,
    SPLITS,
    VERSION,
    Tale,
    condition,
    count,
    documents,
    entropy,
    prompt,
    tale,
    write,
)
from minigen.corpora.tales.tables import FIELDS
from minigen.corpora.task import save_text

__all__ = [
    "ENDINGS",
    "FIELDS",
    "NOUN",
    "SPLITS",
    "VERSION",
    "WHOLE",
    "Tale",
    "check",
    "condition",
    "count",
    "documents",
    "entropy",
    "prompt",
    "save",
    "show",
    "tale",
    "write",
]

ENDINGS, WHOLE = (".txt",), False


def show(text: str) -> str:
    """Return the tale as it is."""
    return text


def save(texts: Sequence[str], path: Path) -> None:
    """Write the tales as text."""
    save_text(texts, path)
