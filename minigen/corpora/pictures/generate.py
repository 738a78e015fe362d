"""The grammar of pictures: draw pictures, write them as a corpus, compute their entropy."""

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
    P_PLAIN,
    PAIRS,
    RELATIONS,
    SIZES,
    TEXTURES,
    WIDTH,
    Box,
    detailed_halves,
)

VERSION = 1  # of the text format: the same version and seed give the same bytes
SPLITS = ("train", "val", "held_out")
_TEXTURES, _BACKGROUNDS = tuple(TEXTURES), tuple(BACKGROUNDS)


@dataclass(frozen=True)
class Picture:
    """A picture of the grammar."""

    text: str
    bits: float  # -log2 of the exact probability of the text in its split
    caption: Caption


def picture(rng: random.Random, split: str = "train") -> Picture:
    """Draw a picture. Only pictures of `held_out` have held-out pairs of shape and colour."""
    dice = Dice(rng)
    form, background = dice.choose(FORMS), dice.choose(_BACKGROUNDS)
    pairs = dice.choose(PAIRS[2 if form in RELATIONS else 1, split == "held_out"])
    kinds = tuple(Kind(dice.choose(SIZES), colour, shape) for shape, colour in pairs)
    caption = Caption(form, kinds, background)

    grid = [[""] * WIDTH for _ in range(HEIGHT)]
    for kind, box in zip(caption.kind_of_each_thing(), dice.choose(LAYOUTS[form]), strict=True):
        glyph = dice.choose(GLYPHS[kind.shape, kind.size])
        left, top = dice.choose(box.columns(glyph)), dice.choose(box.rows(glyph))
        is_dark = TEXTURES[dice.choose(_TEXTURES)]
        letter, height = COLOURS[kind.colour], glyph.height
        for x, y in glyph.cells:
            grid[top + y][left + x] = letter.upper() if is_dark(y, height) else letter

    horizon = HEIGHT - dice.choose(GROUND_ROWS)
    for y, row in enumerate(grid):
        zone = BACKGROUNDS[background].sky if y < horizon else BACKGROUNDS[background].ground
        for half, columns in enumerate(HALVES):
            if any(row[x] for x in columns):
                cells = "".join(row[x] or zone.plain for x in columns)
            elif dice.happens(P_PLAIN):
                cells = zone.plain * len(columns)
            else:
                cells = dice.choose(detailed_halves(zone, half))
            row[columns.start : columns.stop] = cells
    rows = [f"{''.join(row[:6])} {''.join(row[6:])} {number}" for number, row in enumerate(grid, 1)]
    return Picture("\n".join([str(caption), *rows]), dice.bits, caption)


def documents(seed: int, split: str = "train") -> Iterator[Picture]:
    """Yield pictures without end; the k-th depends only on (seed, split, k), on every machine.

    Args:
        split: train, val or held_out. Each picture of held_out has at least one thing with a pair
            of shape and colour that never occurs in train and val.
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
    """Write train.txt, val.txt, held_out.txt and facts.json with `splits.write`."""
    return splits.write(
        Path(folder),
        "pictures",
        {split: documents(seed, split) for split in SPLITS},
        dict(zip(SPLITS, (train_bytes, val_bytes, held_out_bytes), strict=True)),
        {"version": VERSION, "seed": seed, "entropy_bits_per_picture": round(entropy(), 6)},
    )


def entropy() -> float:
    """Return the entropy of the pictures in bits per picture: the mean of -log2 p in train and val.

    No model can have a lower mean loss on new pictures. The entropy is a sum over the draws: of the
    caption, of the things, and of the details. Only half rows without things can have details, and
    each row of a thing covers one half row.
    """
    n_colours = Counter(shape for ((shape, _),) in PAIRS[1, False])
    details = -P_PLAIN * math.log2(P_PLAIN) - (1 - P_PLAIN) * math.log2((1 - P_PLAIN) / N_DETAILS)
    bits = math.log2(len(FORMS)) + math.log2(len(BACKGROUNDS)) + math.log2(len(GROUND_ROWS))
    bits += len(HALVES) * HEIGHT * details
    for form, layouts in LAYOUTS.items():
        n_kinds = 2 if form in RELATIONS else 1
        bits_of_form = math.log2(len(PAIRS[n_kinds, False])) + n_kinds * math.log2(len(SIZES))
        bits_of_form += math.log2(len(layouts))
        # All layouts of a form have boxes of the same sizes, so the first stands for all of them.
        for box, ((shape, _), glyphs) in itertools.product(layouts[0], GLYPHS.items()):
            probability = n_colours[shape] / n_colours.total() / len(SIZES) / len(glyphs)
            for glyph in glyphs:
                bits_of_thing = math.log2(len(glyphs) * len(TEXTURES) * box.n_places(glyph))
                bits_of_form += probability * (bits_of_thing - glyph.height * details)
        bits += bits_of_form / len(FORMS)
    return bits


def count() -> int:
    """Return the number of different pictures, including those with held-out pairs."""

    def n_ways(shape_and_size: tuple[str, str], box: Box) -> Fraction:
        """Return the number of ways to draw a thing in a box.

        Each way is divided by the number of ways to draw the half rows that the thing covers.
        """
        places = (
            Fraction(box.n_places(glyph), (1 + N_DETAILS) ** glyph.height)
            for glyph in GLYPHS[shape_and_size]
        )
        return len(TEXTURES) * sum(places, Fraction())

    total = Fraction()
    for form, layouts in LAYOUTS.items():
        for boxes in layouts:
            if form in RELATIONS:  # each thing has a kind of its own
                things = (len(COLOURS) * sum(n_ways(key, box) for key in GLYPHS) for box in boxes)
                total += math.prod(things, start=Fraction(1))
            else:  # all things have one kind
                kinds = (math.prod(n_ways(key, box) for box in boxes) for key in GLYPHS)
                total += len(COLOURS) * sum(kinds, Fraction())
    total *= len(BACKGROUNDS) * len(GROUND_ROWS) * (1 + N_DETAILS) ** (len(HALVES) * HEIGHT)
    return int(total)
