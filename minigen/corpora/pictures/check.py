"""The checker of pictures: compare the grid with the caption, and name each difference."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from minigen.corpora.genre import Verdict
from minigen.corpora.pictures.caption import Caption, Kind, read_caption
from minigen.corpora.pictures.tables import (
    BACKGROUND_OF,
    BACKGROUNDS,
    COLOUR_OF,
    FORMS,
    GLYPH_OF,
    GLYPHS,
    GROUND,
    GROUND_ROWS,
    HALVES,
    HEIGHT,
    HELD_OUT,
    LAYOUTS,
    LETTERS,
    N_DETAILS,
    P_PLAIN,
    PAIRS,
    RELATIONS,
    SIZES,
    TEXTURES,
    Box,
    Cell,
    Glyph,
    detailed_halves,
)
from minigen.errors import UserError


@dataclass(frozen=True)
class Thing:
    """A thing in the grid: cells of one colour that touch, at sides or corners."""

    colour: str
    cells: frozenset[Cell]
    glyph: Glyph | None  # None: no glyph has this outline
    texture: str | None  # None: no texture has this pattern of light and dark

    @property
    def left(self) -> int:
        return min(x for x, _ in self.cells)

    @property
    def right(self) -> int:
        return max(x for x, _ in self.cells)

    @property
    def top(self) -> int:
        return min(y for _, y in self.cells)

    @property
    def bottom(self) -> int:
        return max(y for _, y in self.cells)

    @property
    def kind(self) -> Kind | None:
        """The kind that a caption would name; None if no glyph has this outline."""
        return Kind(self.glyph.size, self.colour, self.glyph.shape) if self.glyph else None

    def lies(self, relation: str, other: Thing) -> bool:
        """Return whether all cells of this thing are above (below, ...) all cells of the other."""
        return {
            "above": self.bottom < other.top,
            "below": self.top > other.bottom,
            "left of": self.right < other.left,
            "right of": self.left > other.right,
        }[relation]


def check(text: str) -> Verdict:
    """Judge a text as a picture; blank lines before and after it do not count.

    The text is well-formed if it is a caption and a grid of 13 x 13 characters of the palette. It
    follows its prompt if the grid shows exactly the things, the relation and the background of the
    caption.

    >>> check("picture: a big red zebra, night").complaints[0]
    'the caption says "zebra", a word that no caption has'
    """
    line, *rows = text.strip("\n").split("\n")
    caption, complaints = None, []
    try:
        caption = read_caption(line)
        if not caption.background:
            complaints.append("the caption names no background")
    except UserError as error:
        complaints.append(str(error))
    complaints += _malformed(rows)
    conditions = caption.conditions() if caption else {}
    if complaints or caption is None:
        return Verdict(False, False, False, complaints, None, conditions)

    grid = [re.sub(r"[ \d]", "", row) for row in rows]
    things = find_things(grid)
    contradictions = _wrong_things(caption, things) + _wrong_background(caption.background, grid)
    irregularities = _irregularities(caption, things, grid)
    complaints = contradictions + irregularities
    bits = None if complaints else _bits(caption, things, grid)
    return Verdict(True, not contradictions, not complaints, complaints, bits, conditions)


def _malformed(rows: Sequence[str]) -> list[str]:
    """Return complaints if the lines are not 13 numbered rows of 6 and 7 letters of the palette."""
    complaints = []
    if len(rows) != HEIGHT:
        complaints.append(f"there are {len(rows)} rows instead of {HEIGHT}")
    for number, row in enumerate(rows, 1):
        *halves, ending = row.split(" ")
        widths = [len(half) for half in halves]
        if ending != str(number):
            complaints.append(f'row {number} ends with "{ending[:20]}" instead of its number')
        elif widths != [len(columns) for columns in HALVES]:
            counts = " and ".join(map(str, widths))
            complaints.append(f"row {number} has {counts} cells instead of 6 and 7")
        if unknown := sorted(set("".join(halves)) - LETTERS):
            complaints.append(
                f"row {number} has {' and '.join(map(repr, unknown))}, no letter of the palette"
            )
    return complaints


def find_things(grid: Sequence[str]) -> list[Thing]:
    """Return the things in the grid, in reading order."""
    colours = {
        (x, y): COLOUR_OF[letter.lower()]
        for y, row in enumerate(grid)
        for x, letter in enumerate(row)
        if letter.lower() in COLOUR_OF
    }
    things, seen = [], set[Cell]()
    for start, colour in colours.items():
        if start in seen:
            continue
        cells, unvisited = {start}, [start]  # a flood fill
        while unvisited:
            x, y = unvisited.pop()
            for cell in itertools.product((x - 1, x, x + 1), (y - 1, y, y + 1)):
                if colours.get(cell) == colour and cell not in cells:
                    cells.add(cell)
                    unvisited.append(cell)
        seen |= cells
        left, top = min(x for x, _ in cells), min(y for _, y in cells)
        outline = frozenset((x - left, y - top) for x, y in cells)
        height = 1 + max(y for _, y in outline)
        texture = next(
            (
                name
                for name, is_dark in TEXTURES.items()
                if all(grid[top + y][left + x].isupper() == is_dark(y, height) for x, y in outline)
            ),
            None,
        )
        things.append(Thing(colour, frozenset(cells), GLYPH_OF.get(outline), texture))
    return things


def _place(thing: Thing) -> str:
    return f"at row {thing.top + 1}, column {thing.left + 1}"


def _wrong_things(caption: Caption, things: Sequence[Thing]) -> list[str]:
    """Return complaints about differences between the things of the caption and of the grid."""
    complaints = [
        f"the {thing.colour} thing {_place(thing)} has no known shape; "
        f"it is most like a {_nearest_glyph(thing)}"
        for thing in things
        if not thing.glyph
    ]
    in_caption = Counter(caption.kind_of_each_thing())
    in_grid = Counter(thing.kind for thing in things if thing.kind)
    for kind in in_caption | in_grid:
        if in_grid[kind] > in_caption[kind]:
            complaints.append(f"there are more things like a {kind} than the caption has")
        elif in_grid[kind] < in_caption[kind]:
            complaints.append(f"a {kind} is missing")
    if not complaints and caption.form in RELATIONS:
        first, second = caption.kinds
        if not any(
            (a.kind, b.kind) == (first, second) and a.lies(caption.form, b)
            for a, b in itertools.permutations(things, 2)
        ):
            complaints.append(f"the {first} is not {caption.form} the {second}")
    return complaints


def _nearest_glyph(thing: Thing) -> str:
    """Return the size and shape of the glyph that differs from the thing in the fewest cells."""
    outline = {(x - thing.left, y - thing.top) for x, y in thing.cells}
    nearest = min(GLYPH_OF.values(), key=lambda glyph: len(glyph.cells ^ outline))
    return f"{nearest.size} {nearest.shape}"


def _wrong_background(background: str, grid: Sequence[str]) -> list[str]:
    """Return complaints about cells of other backgrounds than the caption's."""
    in_grid = {BACKGROUND_OF[cell] for row in grid for cell in row if cell in BACKGROUND_OF}
    return [
        f"there is {name} in the background, and the caption says {background}"
        for name in BACKGROUNDS
        if name in in_grid and name != background
    ]


def _irregularities(caption: Caption, things: Sequence[Thing], grid: Sequence[str]) -> list[str]:
    """Return complaints about faults in features that captions do not mention."""
    complaints = [
        f"the {thing.colour} thing {_place(thing)} has no known texture"
        for thing in things
        if not thing.texture
    ]
    kinds = Counter(thing.kind for thing in things)
    if kinds == Counter(caption.kind_of_each_thing()) and not _placements(caption, things):
        complaints.append("the things lie where the grammar never puts them")
    background = BACKGROUNDS[caption.background]
    # The kinds of cells in each row: {True} is ground, {False} is sky, {True, False} is a fault.
    is_ground = [{cell in GROUND for cell in row if cell in BACKGROUND_OF} for row in grid]
    for number, (row, values) in enumerate(zip(grid, is_ground, strict=True), 1):
        zone = background.ground if values == {True} else background.sky
        if len(values) > 1:
            complaints.append(f"row {number} has both sky and ground")
        elif values == {True} and {False} in is_ground[number:]:
            complaints.append(f"row {number} is ground above the sky")
        else:
            for half, columns in enumerate(HALVES):
                cells = row[columns.start : columns.stop]
                if any(map(str.isalpha, cells)):
                    is_regular = zone.detail not in cells
                else:
                    is_regular = cells in (zone.plain * len(columns), *detailed_halves(zone, half))
                if not is_regular:
                    complaints.append(f"row {number} has details where the grammar draws none")
    n_ground = is_ground.count({True})
    if not complaints and n_ground not in GROUND_ROWS:
        complaints.append(f"the ground has {n_ground} rows instead of 2 to 4")
    return complaints


def _placements(caption: Caption, things: Sequence[Thing]) -> list[tuple[tuple[Thing, Box], ...]]:
    """Return the ways to give each thing a box of one layout, in the order of the caption.

    There is exactly one way for a picture of the grammar, and none if a thing lies in no box.
    """
    return [
        tuple(zip(order, boxes, strict=True))
        for boxes in LAYOUTS[caption.form]
        for order in itertools.permutations(things)
        if all(
            thing.kind == kind
            and thing.glyph is not None
            and thing.left in box.columns(thing.glyph)
            and thing.top in box.rows(thing.glyph)
            for thing, kind, box in zip(order, caption.kind_of_each_thing(), boxes, strict=True)
        )
    ]


def _bits(caption: Caption, things: Sequence[Thing], grid: Sequence[str]) -> float:
    """Return -log2 p of a valid picture: the sum of -log2 p over the draws of `picture`."""
    (placement,) = _placements(caption, things)
    held_out = any((kind.shape, kind.colour) in HELD_OUT for kind in caption.kinds)
    options = [
        len(FORMS),
        len(BACKGROUNDS),
        len(PAIRS[len(caption.kinds), held_out]),
        len(SIZES) ** len(caption.kinds),
        len(LAYOUTS[caption.form]),
        len(GROUND_ROWS),
    ]
    for thing, box in placement:
        assert thing.glyph
        options += [len(GLYPHS[thing.glyph.shape, thing.glyph.size]), len(TEXTURES)]
        options += [box.n_places(thing.glyph)]
    probabilities = [1 / n for n in options]
    background = BACKGROUNDS[caption.background]
    for row, columns in itertools.product(grid, HALVES):
        cells = row[columns.start : columns.stop]
        if not any(map(str.isalpha, cells)):
            zone = background.ground if cells[0] in GROUND else background.sky
            has_details = zone.detail in cells
            probabilities.append((1 - P_PLAIN) / N_DETAILS if has_details else P_PLAIN)
    return -math.fsum(map(math.log2, probabilities))
