"""The tables of pictures: outlines, colours, backgrounds, and where things may lie."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

WIDTH = HEIGHT = 13
HALVES = (range(0, 6), range(6, WIDTH))  # the columns on both sides of the blank

COLOURS = {
    "red": "r", "orange": "o", "yellow": "y", "green": "g",
    "blue": "b", "purple": "p", "pink": "k", "brown": "n",
}  # fmt: skip

# Each shape twice small and twice big. No two of these outlines are the same.
OUTLINES = """
circle
  .#.   .##.   .###.   .####.
  ###   ####   #####   ######
  .#.   ####   #####   ######
        .##.   #####   ######
               .###.   ######
                       .####.
square
  ###   ####   #####   ######
  ###   ####   #####   ######
  ###   ####   #####   ######
        ####   #####   ######
               #####   ######
                       ######
triangle
  .#.   .##.   ..#..   ..##..
  ###   ####   .###.   .####.
               #####   ######
heart
  #.#   #..#   .#.#.   .#..#.
  ###   ####   #####   ######
  .#.   ####   #####   ######
        .##.   .###.   .####.
               ..#..   ..##..
star
  .#.   .##.   ..#..   ..##..
  ###   ####   #####   ######
  #.#   .##.   .###.   .####.
        #..#   ##.##   .####.
                       ##..##
moon
  .##   .##    .###    ..###
  ##.   ##.    ###.    .###.
  .##   ##.    ##..    ###..
        .##    ###.    ###..
               .###    .###.
                       ..###
house
  .#.   .##.   ..#..   ..##..
  ###   ####   .###.   .####.
  ###   ####   #####   ######
        #..#   ##.##   ##..##
               ##.##   ##..##
tree
  .#.   .##.   .###.   .####.
  ###   ####   #####   ######
  ###   ####   #####   ######
  .#.   .##.   ..#..   .####.
        .##.   ..#..   ..##..
                       ..##..
"""

SIZES = ("small", "big")
NUMBERS = {"a": 1, "two": 2, "three": 3, "four": 4}
RELATIONS = ("above", "below", "left of", "right of")
FORMS = (*NUMBERS, *RELATIONS)  # of a caption

# The cells with details in half a row, counted from its outer edge. They are few, so that each is
# probable enough to be drawn even where a sampler leaves out what is improbable.
DETAILS = {
    "dots": ({0}, {2}, {3}, {4}, {1, 5}),
    "streak": ({0, 1, 2}, {1, 2, 3}, {3, 4, 5}, {0, 1, 2, 3, 4}, {2, 3, 4, 5}),
}
N_DETAILS = 5  # of each


@dataclass(frozen=True)
class Zone:
    """A part of a background: the letters of plain cells and of details, and where these are."""

    plain: str
    detail: str
    details: str


@cache
def detailed(zone: Zone, half: int) -> tuple[str, ...]:
    """Return half a row with each of its details; the right half, a cell longer, is mirrored."""
    rows = (
        "".join(zone.detail if i in places else zone.plain for i in range(len(HALVES[half])))
        for places in DETAILS[zone.details]
    )
    return tuple(row[::-1] if half else row for row in rows)


@dataclass(frozen=True)
class Background:
    """The sky above the horizon, and the ground below it."""

    sky: Zone
    ground: Zone


BACKGROUNDS = {
    "night": Background(Zone(".", "*", "dots"), Zone(":", ";", "streak")),  # stars, bushes
    "day": Background(Zone("-", "=", "streak"), Zone(",", '"', "dots")),  # clouds, tufts
    "sunset": Background(Zone("/", "|", "streak"), Zone("~", "^", "streak")),  # haze, waves
    "winter": Background(Zone("<", "+", "dots"), Zone("_", "%", "streak")),  # flakes, hollows
    "desert": Background(Zone("(", ")", "streak"), Zone("#", "@", "streak")),  # haze, ripples
}
GROUND_ROWS = (2, 3, 4)
PLAIN = 0.5  # of the half rows without things; the others have details

# Of a thing's row y, counted from its top: is it dark?
TEXTURES: dict[str, Callable[[int, int], bool]] = {
    "light": lambda y, height: False,
    "dark": lambda y, height: True,
    "striped": lambda y, height: y % 2 == 0,
    "shaded": lambda y, height: 2 * y >= height,
}

# Never together in the training text.
HELD_OUT = frozenset(
    {
        ("circle", "purple"), ("square", "orange"), ("triangle", "pink"), ("heart", "blue"),
        ("star", "red"), ("moon", "brown"), ("house", "green"), ("tree", "yellow"),
    }
)  # fmt: skip

Cell = tuple[int, int]  # x to the right, y down, from 0


@dataclass(frozen=True)
class Glyph:
    """One outline of a shape."""

    shape: str
    size: str
    cells: frozenset[Cell]

    @property
    def width(self) -> int:
        return 1 + max(x for x, _ in self.cells)

    @property
    def height(self) -> int:
        return 1 + max(y for _, y in self.cells)


def _read_outlines(table: str) -> dict[tuple[str, str], tuple[Glyph, Glyph]]:
    """Return the two glyphs of each shape and size."""
    glyphs: dict[tuple[str, str], tuple[Glyph, Glyph]] = {}
    for block in re.split(r"\n(?=\w)", table.strip("\n")):
        shape, *lines = block.splitlines()
        four = [
            frozenset(
                (x, y)
                for y, line in enumerate(lines)
                for x, sign in enumerate(line[begin : begin + 6])
                if sign == "#"
            )
            for begin in (2, 8, 15, 23)
        ]
        for i, size in enumerate(SIZES):
            first, second = (Glyph(shape, size, cells) for cells in four[2 * i : 2 * i + 2])
            glyphs[shape, size] = (first, second)
    return glyphs


GLYPHS = _read_outlines(OUTLINES)
SHAPES = tuple(dict.fromkeys(shape for shape, _ in GLYPHS))
GLYPH_OF = {glyph.cells: glyph for pair in GLYPHS.values() for glyph in pair}
COLOUR_OF = {letter: colour for colour, letter in COLOURS.items()}
BACKGROUND_OF = {
    letter: name
    for name, background in BACKGROUNDS.items()
    for zone in (background.sky, background.ground)
    for letter in (zone.plain, zone.detail)
}
GROUND = {
    letter for one in BACKGROUNDS.values() for letter in (one.ground.plain, one.ground.detail)
}
LETTERS = {*COLOUR_OF, *map(str.upper, COLOUR_OF), *BACKGROUND_OF}

Pair = tuple[str, str]  # shape and colour


def _pairs(number: int, held_out: bool) -> tuple[tuple[Pair, ...], ...]:
    """Return all choices of `number` pairs: without a held-out pair, or with one at least."""
    every = itertools.product(itertools.product(SHAPES, COLOURS), repeat=number)
    return tuple(pairs for pairs in every if held_out == any(p in HELD_OUT for p in pairs))


PAIRS = {(n, held_out): _pairs(n, held_out) for n in (1, 2) for held_out in (False, True)}


@dataclass(frozen=True)
class Box:
    """Columns left..right-1 and rows top..bottom-1, in which a thing is to lie."""

    left: int
    right: int
    top: int
    bottom: int

    def columns(self, glyph: Glyph) -> range:
        """Return the columns where the thing's left edge may be."""
        return range(self.left, self.right - glyph.width + 1)

    def rows(self, glyph: Glyph) -> range:
        """Return the rows where the thing's top may be."""
        return range(self.top, self.bottom - glyph.height + 1)

    def n_places(self, glyph: Glyph) -> int:
        """Return in how many places the thing fits into the box."""
        return len(self.columns(glyph)) * len(self.rows(glyph))


# For each form, the layouts that are drawn from: a box for each thing, in the caption's order. Row
# and column 6 part the boxes, so that things never touch, and each lies in one half.
_LEFT, _RIGHT = Box(0, 6, 0, HEIGHT), Box(7, WIDTH, 0, HEIGHT)
_QUARTERS = [Box(left, left + 6, top, top + 6) for top in (0, 7) for left in (0, 7)]
_ABOVE = (tuple(_QUARTERS[::2]), tuple(_QUARTERS[1::2]))
_BESIDE = (Box(0, 6, 2, 11), Box(7, 13, 2, 11))
LAYOUTS: dict[str, tuple[tuple[Box, ...], ...]] = {
    "a": ((_LEFT,), (_RIGHT,)),
    "two": tuple(itertools.combinations(_QUARTERS, 2)),
    "three": tuple(itertools.combinations(_QUARTERS, 3)),
    "four": (tuple(_QUARTERS),),
    "above": _ABOVE,
    "below": tuple(boxes[::-1] for boxes in _ABOVE),
    "left of": (_BESIDE,),
    "right of": (_BESIDE[::-1],),
}
