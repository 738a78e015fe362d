"""Tales: a corpus of short stories from a grammar; the entropy of the text is known exactly.

A tale is a first line, which states its conditions, and a paragraph of 7 to 11 sentences:

    hero: Sir Fox, friend: little Owl, place: faraway forest, object: magic lantern, ...
    Nobody in the faraway forest had more socks than Sir Fox and little Owl. "I feel so sleepy, ...

Each word is drawn from a short list, in which all words are equally probable. So -log2 p(tale) is
an exact number of bits. `entropy()` is the mean of -log2 p of a tale under the grammar that wrote
it; no model can have a lower mean loss on new tales. `check` judges any text, such as a model's
sample: is it well-formed, does it follow its prompt, is it valid, and if not, why not?

    python -m minigen corpus tales --count 3          # print some tales
    python -m minigen corpus tales --check FILE       # check tales between blank lines or rules
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigen.corpora.genre import save_text
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

__all__ = [
    "ENDINGS",
    "FIELDS",
    "NOUN",
    "SHOWN_WHEN_COMPLETE",
    "SPLITS",
    "VERSION",
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

ENDINGS, SHOWN_WHEN_COMPLETE = (".txt",), False


def show(text: str) -> str:
    """Return the tale unchanged: it has no colours."""
    return text


def save(texts: Sequence[str], path: Path) -> None:
    """Write the tales as text. Raises `UserError` if the file cannot be written."""
    save_text(texts, path)
