"""Pictures by chance: drawn from the tables, and written as a corpus; entropy and number."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from minigen.corpora import splits
from minigen.corpora.dice import Dice
from minigen.corpora.pictures.caption import Caption, Kind
from minigen.corpora.pictures.tables import (
    BACKGROUNDS,
    COLOURS,
    FORMS,
    GLYPHS,
    GROUND_ROWS,
    HALVES,
    HEIGHT,
    LAYOUTS,
    N_DETAILS,
    PAIRS,
    PLAIN,
    RELATIONS,
    SIZES,
    TEXTURES,
    WIDTH,
    Box,
    detailed,
)

VERSION = 1  # of the text format: the same version and seed give the same bytes
SPLITS = ("train", "val", "held_out")
_TEXTURES, _BACKGROUNDS = tuple(TEXTURES), tuple(BACKGROUNDS)


@dataclass(frozen=True)
class Picture:
    """`bits` is -log2 of the picture's exact probability among those of its split."""

    text: str
    bits: float
    caption: Caption


def picture(rng: random.Random, split: str = "train") -> Picture:
    """Draw a picture; `split` says which pairs of shape and colour it may have."""
    dice = Dice(rng)
    form, background = dice.choose(FORMS), dice.choose(_BACKGROUNDS)
    pairs = dice.choose(PAIRS[2 if form in RELATIONS else 1, split == "held_out"])
    kinds = tuple(Kind(dice.choose(SIZES), colour, shape) for shape, colour in pairs)
    caption = Caption(form, kinds, background)

    grid = [[""] * WIDTH for _ in range(HEIGHT)]
    for kind, box in zip(caption.wanted(), dice.choose(LAYOUTS[form]), strict=True):
        glyph = dice.choose(GLYPHS[kind.shape, kind.size])
        left, top = dice.choose(box.columns(glyph)), dice.choose(box.rows(glyph))
        dark = TEXTURES[dice.choose(_TEXTURES)]
        light_letter, height = COLOURS[kind.colour], glyph.height
        for x, y in glyph.cells:
            letter = light_letter.upper() if dark(y, height) else light_letter
            grid[top + y][left + x] = letter

    horizon = HEIGHT - dice.choose(GROUND_ROWS)
    for y, row in enumerate(grid):
        zone = BACKGROUNDS[background].sky if y < horizon else BACKGROUNDS[background].ground
        for half, columns in enumerate(HALVES):
            if any(row[x] for x in columns):
                letters = "".join(row[x] or zone.plain for x in columns)
            elif dice.happens(PLAIN):
                letters = zone.plain * len(columns)
            else:
                letters = dice.choose(detailed(zone, half))
            row[columns.start : columns.stop] = letters
    rows = [f"{''.join(row[:6])} {''.join(row[6:])} {number}" for number, row in enumerate(grid, 1)]
    return Picture("\n".join([str(caption), *rows]), dice.bits, caption)


def documents(seed: int, split: str = "train") -> Iterator[Picture]:
    """Yield pictures without end; the k-th is a function of (seed, split, k), on every machine.

    Args:
        split: train, val, or held_out: at least one thing in each picture of held_out has a shape
            and colour that never come together in the other two.
    """
    for k in itertools.count():
        yield picture(random.Random(f"pictures/{seed}/{split}/{k}"), split)


def write(
    folder: Path,
    train_bytes: int = 8_000_000,
    val_bytes: int = 280_000,
    held_out_bytes: int = 140_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write train.txt, val.txt, held_out.txt and facts.json, as `splits.write` does."""
    return splits.write(
        Path(folder),
        "pictures",
        {split: documents(seed, split) for split in SPLITS},
        dict(zip(SPLITS, (train_bytes, val_bytes, held_out_bytes), strict=True)),
        {"version": VERSION, "seed": seed, "entropy_bits_per_picture": round(entropy(), 6)},
    )


def entropy() -> float:
    """Return the mean bits per picture of training: no model's mean loss on fresh ones is lower.

    A sum over the draws: of the caption, of the things, and of details in the half rows that are
    left, of which a thing takes as many as it is high.
    """
    n_pairs = Counter(shape for ((shape, _),) in PAIRS[1, False])
    details = -PLAIN * math.log2(PLAIN) - (1 - PLAIN) * math.log2((1 - PLAIN) / N_DETAILS)
    bits = math.log2(len(FORMS)) + math.log2(len(BACKGROUNDS)) + math.log2(len(GROUND_ROWS))
    bits += len(HALVES) * HEIGHT * details
    for form, layouts in LAYOUTS.items():
        n_kinds = 2 if form in RELATIONS else 1
        each = math.log2(len(PAIRS[n_kinds, False])) + n_kinds * math.log2(len(SIZES))
        each += math.log2(len(layouts))
        # In all layouts of a form the boxes are equally large.
        for box, ((shape, _), glyphs) in itertools.product(layouts[0], GLYPHS.items()):
            chance = n_pairs[shape] / n_pairs.total() / len(SIZES) / len(glyphs)
            for glyph in glyphs:
                of_one = math.log2(len(glyphs) * len(TEXTURES) * box.n_places(glyph))
                each += chance * (of_one - glyph.height * details)
        bits += each / len(FORMS)
    return bits


def count() -> int:
    """Return the number of different pictures, those with held-out pairs among them."""

    def ways(kind: tuple[str, str], box: Box) -> Fraction:
        looks = (
            Fraction(box.n_places(glyph), (1 + N_DETAILS) ** glyph.height) for glyph in GLYPHS[kind]
        )
        return len(TEXTURES) * sum(looks, Fraction())

    total = Fraction()
    for form, layouts in LAYOUTS.items():
        for boxes in layouts:
            if form in RELATIONS:
                things = (len(COLOURS) * sum(ways(kind, box) for kind in GLYPHS) for box in boxes)
                total += math.prod(things, start=Fraction(1))
            else:
                alike = (math.prod(ways(kind, box) for box in boxes) for kind in GLYPHS)
                total += len(COLOURS) * sum(alike, Fraction())
    total *= len(BACKGROUNDS) * len(GROUND_ROWS) * (1 + N_DETAILS) ** (len(HALVES) * HEIGHT)
    return int(total)
