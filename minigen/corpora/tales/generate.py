"""Draw tales from the grammar, write them as a corpus, and make first lines from conditions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.corpora import splits
from minigen.corpora.dice import Dice
from minigen.corpora.genre import parse_fields
from minigen.corpora.tales.tables import FIELDS, FIRST_LINE, GRAMMAR

VERSION = 6  # of the text format: the same version and seed give the same bytes
NOUN, SPLITS = "tale", ("train", "val")
TITLES = {"title": ("Sir", "Lady")}


@dataclass(frozen=True)
class Tale:
    """A tale, with the exact -log2 p of its text and the conditions of its first line."""

    text: str
    bits: float
    conditions: dict[str, str]


def tale(rng: random.Random) -> Tale:
    """Draw a tale."""
    dice = Dice(rng)
    text, memory = GRAMMAR.draw(dice)
    return Tale(text, dice.bits, {field: memory[field] for field in FIELDS})


def documents(seed: int, split: str = "train") -> Iterator[Tale]:
    """Yield tales without end; the k-th depends only on (seed, split, k), on every machine.

    Each tale has a random generator of its own, whose seed is a string. Python hashes the string
    with SHA-512 into the generator's state, so tales of neighbouring seeds are independent.
    """
    for k in itertools.count():
        yield tale(random.Random(f"{seed}/{split}/{k}"))


def entropy() -> float:
    """Return the entropy of the text: the mean of -log2 p of a tale, in bits per tale.

    No model can have a lower mean loss on new tales.
    """
    return GRAMMAR.entropy()


def count() -> int:
    """Return the number of different tales."""
    return GRAMMAR.count()


def write(
    folder: Path, train_bytes: int = 2_000_000, val_bytes: int = 200_000, seed: int = 0
) -> dict[str, Any]:
    """Write train.txt, val.txt and facts.json, as `splits.write` does; return the facts."""
    return splits.write(
        Path(folder),
        "tales",
        {split: documents(seed, split) for split in SPLITS},
        dict(zip(SPLITS, (train_bytes, val_bytes), strict=True)),
        {"version": VERSION, "seed": seed, "entropy_bits_per_tale": round(entropy(), 6)},
    )


def prompt(text: str, rng: random.Random) -> str:
    """Return the text unchanged: a tale may continue any words."""
    return text


def condition(conditions: Mapping[str, str], rng: random.Random) -> str:
    """Return a first line with its newline that states the conditions; draw the other fields.

    The title, Sir or Lady, is drawn, too.

    Raises `UserError` for a field that a tale lacks, or a value that the field cannot have.

    >>> condition({"hero": "fox"}, random.Random(0))[:15]
    'hero: Lady Fox,'
    """
    dice = Dice(rng)
    words = {name: dice.choose(options) for name, options in (FIELDS | TITLES).items()}
    return FIRST_LINE.format(**words | parse_fields(NOUN, FIELDS, conditions)) + "\n"
