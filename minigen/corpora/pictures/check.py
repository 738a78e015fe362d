"""The checker of pictures: whether a grid shows the things of its caption, and if not, why."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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
    PAIRS,
    PLAIN,
    RELATIONS,
    SIZES,
    TEXTURES,
    Box,
    Cell,
    Glyph,
    detailed,
)
from minigen.corpora.task import Verdict
from minigen.errors import UserError


@dataclass(frozen=True)
class Thing:
    """Cells of one colour that touch, also at corners. `glyph` is None for an unknown outline."""

    colour: str
    cells: frozenset[Cell]
    glyph: Glyph | None
    texture: str | None

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
        return Kind(self.glyph.size, self.colour, self.glyph.shape) if self.glyph else None

    def lies(self, relation: str, other: Thing) -> bool:
        """Return whether all of it lies above (or below, ...) all of the other thing."""
        return {
            "above": self.bottom < other.top,
            "below": self.top > other.bottom,
            "left of": self.right < other.left,
            "right of": self.left > other.right,
        }[relation]


def check(text: str) -> Verdict:
    """Look at a text as a picture; blank lines before and after it do not count.

    It is well-formed if it is a caption and a grid of 13 x 13 known letters, and obeys if the grid
    shows exactly the things that the caption asks for, where and in front of what it asks for.

    >>> check("picture: a big red zebra, night").complaints[0]
    'the caption says "zebra", a word that no caption has'
    """
    line, *lines = text.strip("\n").split("\n")
    caption, complaints = None, []
    try:
        caption = read_caption(line)
        if not caption.background:
            complaints.append("the caption names no background")
    except UserError as error:
        complaints.append(str(error))
    complaints += _malformed(lines)
    conditions = caption.conditions() if caption else {}
    if complaints or caption is None:
        return Verdict(False, False, False, complaints, None, conditions)

    grid = [re.sub(r"[ \d]", "", line) for line in lines]
    things = find_things(grid)
    denied = _contradictions(caption, things) + _wrong_background(caption.background, grid)
    irregular = _irregularities(caption, things, grid)
    bits = None if denied or irregular else _bits(caption, things, grid)
    return Verdict(True, not denied, bits is not None, denied + irregular, bits, conditions)


def _malformed(lines: Sequence[str]) -> list[str]:
    """Return complaints about a grid that is not 13 numbered rows of 6 and 7 known letters."""
    complaints = []
    if len(lines) != HEIGHT:
        complaints.append(f"there are {len(lines)} rows instead of {HEIGHT}")
    for number, row in enumerate(lines, 1):
        *halves, last = row.split(" ")
        cells = [len(half) for half in halves]
        if last != str(number):
            complaints.append(f'row {number} ends with "{last[:20]}" instead of its number')
        elif cells != [len(columns) for columns in HALVES]:
            counts = " and ".join(map(str, cells))
            complaints.append(f"row {number} has {counts} cells instead of 6 and 7")
        if unknown := sorted(set("".join(halves)) - LETTERS):
            complaints.append(
                f"row {number} has {' and '.join(map(repr, unknown))}, no letter of the palette"
            )
    return complaints


def find_things(grid: Sequence[str]) -> list[Thing]:
    """Return the things that the grid shows, in reading order."""
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
        cells, ahead = {start}, [start]
        while ahead:
            x, y = ahead.pop()
            for cell in itertools.product((x - 1, x, x + 1), (y - 1, y, y + 1)):
                if colours.get(cell) == colour and cell not in cells:
                    cells.add(cell)
                    ahead.append(cell)
        seen |= cells
        left, top = min(x for x, _ in cells), min(y for _, y in cells)
        moved = frozenset((x - left, y - top) for x, y in cells)
        height = 1 + max(y for _, y in moved)
        texture = next(
            (
                name
                for name, dark in TEXTURES.items()
                if all(grid[top + y][left + x].isupper() == dark(y, height) for x, y in moved)
            ),
            None,
        )
        things.append(Thing(colour, frozenset(cells), GLYPH_OF.get(moved), texture))
    return things


def _where(thing: Thing) -> str:
    return f"at row {thing.top + 1}, column {thing.left + 1}"


def _contradictions(caption: Caption, things: Sequence[Thing]) -> list[str]:
    """Return complaints about things that the caption has and the grid has not, or vice versa."""
    complaints = [
        f"the {thing.colour} thing {_where(thing)} has no known shape; "
        f"it is most like a {_most_like(thing)}"
        for thing in things
        if not thing.glyph
    ]
    wanted, found = Counter(caption.wanted()), Counter(t.kind for t in things if t.kind)
    for kind in wanted | found:
        if found[kind] > wanted[kind]:
            complaints.append(f"there are more things like a {kind} than the caption has")
        elif found[kind] < wanted[kind]:
            complaints.append(f"a {kind} is missing")
    if not complaints and caption.form in RELATIONS:
        first, second = caption.kinds
        if not any(
            (a.kind, b.kind) == (first, second) and a.lies(caption.form, b)
            for a, b in itertools.permutations(things, 2)
        ):
            complaints.append(f"the {first} is not {caption.form} the {second}")
    return complaints


def _most_like(thing: Thing) -> str:
    """Return the glyph that differs in the fewest cells, where both lie in one corner."""
    moved = {(x - thing.left, y - thing.top) for x, y in thing.cells}
    nearest = min(GLYPH_OF.values(), key=lambda glyph: len(glyph.cells ^ moved))
    return f"{nearest.size} {nearest.shape}"


def _wrong_background(background: str, grid: Sequence[str]) -> list[str]:
    """Return complaints about letters of other backgrounds."""
    shown = {BACKGROUND_OF[sign] for row in grid for sign in row if sign in BACKGROUND_OF}
    return [
        f"there is {name} in the background, and the caption says {background}"
        for name in BACKGROUNDS
        if name in shown and name != background
    ]


def _irregularities(caption: Caption, things: Sequence[Thing], grid: Sequence[str]) -> list[str]:
    """Return complaints about features that no caption mentions and all pictures have."""
    complaints = [
        f"the {thing.colour} thing {_where(thing)} has no known texture"
        for thing in things
        if not thing.texture
    ]
    kinds = Counter(thing.kind for thing in things)
    if kinds == Counter(caption.wanted()) and not _placements(caption, things):
        complaints.append("the things do not lie where pictures have them")
    background = BACKGROUNDS[caption.background]
    layers = [{sign in GROUND for sign in row if sign in BACKGROUND_OF} for row in grid]
    for number, (row, layer) in enumerate(zip(grid, layers, strict=True), 1):
        zone = background.ground if layer == {True} else background.sky
        if len(layer) > 1:
            complaints.append(f"row {number} has both sky and ground")
        elif layer == {True} and {False} in layers[number:]:
            complaints.append(f"row {number} is ground above the sky")
        else:
            for half, columns in enumerate(HALVES):
                letters = row[columns.start : columns.stop]
                if any(map(str.isalpha, letters)):
                    fits = zone.detail not in letters
                else:
                    fits = letters in (zone.plain * len(columns), *detailed(zone, half))
                if not fits:
                    complaints.append(f"row {number} has details where pictures have none")
    n_ground = layers.count({True})
    if not complaints and n_ground not in GROUND_ROWS:
        complaints.append(f"the ground has {n_ground} rows instead of 2 to 4")
    return complaints


def _placements(caption: Caption, things: Sequence[Thing]) -> list[tuple[tuple[Thing, Box], ...]]:
    """Return the ways to lay the things out like this: one for a drawn picture, else none."""
    return [
        tuple(zip(order, boxes, strict=True))
        for boxes in LAYOUTS[caption.form]
        for order in itertools.permutations(things)
        if all(
            thing.kind == kind
            and thing.glyph is not None
            and thing.left in box.columns(thing.glyph)
            and thing.top in box.rows(thing.glyph)
            for thing, kind, box in zip(order, caption.wanted(), boxes, strict=True)
        )
    ]


def _bits(caption: Caption, things: Sequence[Thing], grid: Sequence[str]) -> float:
    """Return -log2 of the chance to draw this picture."""
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
    chances = [1 / n for n in options]
    background = BACKGROUNDS[caption.background]
    for row, columns in itertools.product(grid, HALVES):
        letters = row[columns.start : columns.stop]
        if not any(map(str.isalpha, letters)):
            zone = background.ground if letters[0] in GROUND else background.sky
            chances.append((1 - PLAIN) / N_DETAILS if zone.detail in letters else PLAIN)
    return -math.fsum(map(math.log2, chances))
