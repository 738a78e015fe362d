"""The tables of pictures: outlines, colours, backgrounds, and the layouts of things."""

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

# Each shape has two small and two big outlines, so that even one caption has many pictures. All 32
# outlines differ, so `check` recognises a thing by its outline
# (test_outlines_and_textures_are_distinct).
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
FORMS = (*NUMBERS, *RELATIONS)  # a caption has a number or a relation

# The patterns of details in half a row: the cells that have a detail, counted from the outer edge.
# There are few patterns, so that each is probable enough to survive a sampler that removes
# improbable tokens (--min_p).
DETAILS = {
    "dots": ({0}, {2}, {3}, {4}, {1, 5}),
    "streak": ({0, 1, 2}, {1, 2, 3}, {3, 4, 5}, {0, 1, 2, 3, 4}, {2, 3, 4, 5}),
}
N_DETAILS = 5  # patterns of dots, and of streaks


@dataclass(frozen=True)
class Zone:
    """The sky or the ground of a background."""

    plain: str  # the character of a cell without a detail
    detail: str  # the character of a detail
    patterns: str  # a key of DETAILS


@cache
def detailed_halves(zone: Zone, half: int) -> tuple[str, ...]:
    """Return the left (0) or the right (1) half of a row once with each pattern of details.

    The right half is mirrored, and one cell longer.
    """
    rows = (
        "".join(zone.detail if i in places else zone.plain for i in range(len(HALVES[half])))
        for places in DETAILS[zone.patterns]
    )
    return tuple(row[::-1] if half else row for row in rows)


@dataclass(frozen=True)
class Background:
    """A sky above the horizon, and a ground below it."""

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
P_PLAIN = 0.5  # the probability that half a row without things has no details

# For each texture, whether row y of a thing, counted from its top, is dark.
TEXTURES: dict[str, Callable[[int, int], bool]] = {
    "light": lambda y, height: False,
    "dark": lambda y, height: True,
    "striped": lambda y, height: y % 2 == 0,
    "shaded": lambda y, height: 2 * y >= height,
}

# Pairs of shape and colour that never occur together in the training text.
HELD_OUT = frozenset(
    {
        ("circle", "purple"), ("square", "orange"), ("triangle", "pink"), ("heart", "blue"),
        ("star", "red"), ("moon", "brown"), ("house", "green"), ("tree", "yellow"),
    }
)  # fmt: skip

Cell = tuple[int, int]  # (x, y), counted from 0: x to the right, y downwards


@dataclass(frozen=True)
class Glyph:
    """An outline of a shape; `cells` are counted from its top left corner."""

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
    """Parse OUTLINES: return the two glyphs of each shape and size."""
    glyphs: dict[tuple[str, str], tuple[Glyph, Glyph]] = {}
    for block in re.split(r"\n(?=\w)", table.strip("\n")):
        shape, *lines = block.splitlines()
        outlines = [
            frozenset(
                (x, y)
                for y, line in enumerate(lines)
                for x, character in enumerate(line[left : left + 6])
                if character == "#"
            )
            for left in (2, 8, 15, 23)
        ]
        for i, size in enumerate(SIZES):
            first, second = (Glyph(shape, size, cells) for cells in outlines[2 * i : 2 * i + 2])
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
    letter
    for background in BACKGROUNDS.values()
    for letter in (background.ground.plain, background.ground.detail)
}
LETTERS = {*COLOUR_OF, *map(str.upper, COLOUR_OF), *BACKGROUND_OF}

Pair = tuple[str, str]  # shape and colour


def _pairs(number: int, held_out: bool) -> tuple[tuple[Pair, ...], ...]:
    """Return all tuples of `number` pairs: those with a held-out pair, or those without one."""
    tuples = itertools.product(itertools.product(SHAPES, COLOURS), repeat=number)
    return tuple(pairs for pairs in tuples if held_out == any(p in HELD_OUT for p in pairs))


PAIRS = {(n, held_out): _pairs(n, held_out) for n in (1, 2) for held_out in (False, True)}


@dataclass(frozen=True)
class Box:
    """A box in which a thing lies: columns left to right - 1, and rows top to bottom - 1."""

    left: int
    right: int
    top: int
    bottom: int

    def columns(self, glyph: Glyph) -> range:
        """Return the columns in which the left edge of a glyph can be."""
        return range(self.left, self.right - glyph.width + 1)

    def rows(self, glyph: Glyph) -> range:
        """Return the rows in which the top edge of a glyph can be."""
        return range(self.top, self.bottom - glyph.height + 1)

    def n_places(self, glyph: Glyph) -> int:
        """Return the number of places in which a glyph fits into the box."""
        return len(self.columns(glyph)) * len(self.rows(glyph))


# The layouts of each form; a layout has a box for each thing, in the order of the caption. Row and
# column 6 lie between the boxes, so things never touch, and `check` can tell them apart
# (test_things_of_one_layout_never_touch).
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
