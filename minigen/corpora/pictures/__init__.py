"""Pictures: scenes with captions on a small grid, so that a program can see what a picture shows.

A picture is a caption and 13 rows of 6 and 7 cells, each with its number behind it:

    picture: a small yellow moon left of a big blue house, night
    ..*... ....... 1
    ...... ..*.... 2
    ....*. ...BB.. 3
    .YY... ..bbbb. 4
    yy.... .BBBBBB 5
    YY.... .bb..bb 6
    .yy... .BB..BB 7
    ..*... ..*.... 8
    .*...* ......* 9
    ...... ......* 10
    ;;;::: :::;;;: 11
    ;;;;;: :;;;;:: 12
    :::::: :;;;;:: 13

Each cell is a letter. Letters of the alphabet are things, in a light or (capital) dark tone of a
colour; other signs are the background: sky, and below it ground, with details such as stars. The
caption decides on the things and the background. Where they are, their exact size, their texture
and all details are drawn by chance, with known probabilities. So -log2 p(picture) is an exact
number of bits; their mean, `entropy()`, is the floor under the loss of any model.

The format is made to be learnt. A tokenizer cuts a row where the kind of sign changes, so a token
is a run of cells; the blank keeps both halves apart, so that each adds up by itself; and the number
says how far the picture has come.

`check` looks at the grid alone to find out what is there: things are groups of cells that touch,
known by their outline. Then it compares that with the caption. Some pairs of shape and colour never
occur in the training text, so that one can see whether a model puts together what it never saw.

    python -m minigen.corpora.pictures --count 3       # look at some pictures
    python -m minigen.corpora.pictures --check FILE    # check pictures between blank lines or rules
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from minigen.corpora import splits
from minigen.corpora.pictures import render
from minigen.corpora.task import Verdict, check_file, draw, flags, known, save_text
from minigen.errors import UserError
from minigen.system.streams import shows_colours

VERSION = 1  # of the text format: the same version and seed give the same bytes

# ---- the tables ----------------------------------------------------------------------------------

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
    """What half a row looks like with details; the right half, with one cell more, is mirrored."""
    rows = (
        "".join(zone.detail if i in places else zone.plain for i in range(len(HALVES[half])))
        for places in DETAILS[zone.details]
    )
    return tuple(row[::-1] if half else row for row in rows)


@dataclass(frozen=True)
class Background:
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
    """For each shape and size, its two glyphs."""
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
SPLITS = ("train", "val", "held_out")


def _pairs(number: int, held_out: bool) -> tuple[tuple[Pair, ...], ...]:
    """All choices of so many pairs: without any that is held out, or with one at least."""
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
        """Where the thing's left edge may be."""
        return range(self.left, self.right - glyph.width + 1)

    def rows(self, glyph: Glyph) -> range:
        return range(self.top, self.bottom - glyph.height + 1)

    def places(self, glyph: Glyph) -> int:
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


# ---- captions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What a caption says of a thing."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Caption:
    """A number of things of one kind, or two kinds in a relation; and a background.

    >>> str(Caption("two", (Kind("big", "red", "moon"),), "night"))
    'picture: two big red moons, night'
    """

    form: str  # a number or a relation
    kinds: tuple[Kind, ...]
    background: str

    def __str__(self) -> str:
        if self.form in RELATIONS:
            first, second = self.kinds
            things = f"a {first} {self.form} a {second}"
        else:
            things = f"{self.form} {self.kinds[0]}" + ("s" if self.form != "a" else "")
        return f"picture: {things}, {self.background}"

    def wanted(self) -> tuple[Kind, ...]:
        """The kinds of all its things."""
        return self.kinds * NUMBERS.get(self.form, 1)

    def conditions(self) -> dict[str, str]:
        """The same as words by the names of `FIELDS`; only a relation has an other thing."""
        values = [word for kind in self.kinds for word in (kind.size, kind.colour, kind.shape)]
        names = [field for field in FIELDS if field not in ("form", "background")]
        things = dict(zip(names, values, strict=False))
        return {"form": self.form, **things, "background": self.background}


NOUN, ENDINGS, WHOLE = "picture", (".png", ".txt"), True
# What a caption says, and the words that it has for it.
FIELDS: dict[str, tuple[str, ...]] = {
    "form": FORMS,
    "size": SIZES,
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "other_size": SIZES,
    "other_colour": tuple(COLOURS),
    "other_shape": SHAPES,
    "background": tuple(BACKGROUNDS),
}


def condition(given: Mapping[str, str], rng: random.Random) -> str:
    r"""A caption of which some fields are given; the others are drawn.

    Raises UserError for a field or a word that is not in `FIELDS`, or another thing without a
    relation to it.

    >>> red = {"form": "two", "size": "big", "colour": "red", "shape": "moon"}
    >>> condition(red, random.Random(0))
    'picture: two big red moons, day\n'
    """
    given = known(NOUN, FIELDS, given)
    others = [field for field in given if field.startswith("other")]
    open_to = FIELDS | ({"form": RELATIONS} if others else {})
    words = {field: draw(options, rng) for field, options in open_to.items()} | given
    if others and words["form"] not in RELATIONS:
        raise UserError(f"{others[0]} is of a second thing; form must be {', '.join(RELATIONS)}")
    kinds = (
        Kind(words["size"], words["colour"], words["shape"]),
        Kind(words["other_size"], words["other_colour"], words["other_shape"]),
    )
    n_kinds = 2 if words["form"] in RELATIONS else 1
    return f"{Caption(words['form'], kinds[:n_kinds], words['background'])}\n"


def _either(words: Sequence[str] | Mapping[str, Any]) -> str:
    return f"({'|'.join(words)})"


_KIND = f"{_either(SIZES)} {_either(COLOURS)} {_either(SHAPES)}"
_CAPTION = re.compile(
    f"picture: (?:{_either(tuple(NUMBERS))} {_KIND}(s?)"
    f"|a {_KIND} {_either(RELATIONS)} a {_KIND})"
    f"(?:, {_either(BACKGROUNDS)})?"
)
_WORDS = set(re.findall(r"\w+", " ".join([_KIND, *FORMS, *BACKGROUNDS, "picture"])))
_WORDS |= {f"{shape}s" for shape in SHAPES}
FORM_OF_CAPTION = (
    "picture: NUMBER SIZE COLOUR SHAPE, BACKGROUND or "
    "picture: a SIZE COLOUR SHAPE RELATION a SIZE COLOUR SHAPE, BACKGROUND"
)


def read_caption(line: str) -> Caption:
    """The caption that a line is; its background is "" if the line ends before it.

    Raises UserError for a line that is none.

    >>> read_caption("picture: two big red moons, night").kinds
    (Kind(size='big', colour='red', shape='moon'),)
    """
    found = _CAPTION.fullmatch(line)
    if found:
        number, *one = found.groups()[:5]
        two, background = found.groups()[5:12], found.groups()[12] or ""
        if number is None:
            kinds = (Kind(*two[:3]), Kind(*two[4:]))
            return Caption(two[3], kinds, background)
        if (number == "a") == (one[3] == ""):
            return Caption(number, (Kind(*one[:3]),), background)
    for word in re.findall(r"\w+", line):
        if word not in _WORDS:
            raise UserError(f'the caption says "{word}", a word that no caption has')
    raise UserError(f"the caption is not of the form {FORM_OF_CAPTION}")


def prompt(text: str, rng: random.Random) -> str:
    r"""A caption as a person types it: without "picture: ", and a background if one is wanted.

    Raises UserError for what is no caption.

    >>> prompt("a big green star left of a small yellow moon", random.Random(0))
    'picture: a big green star left of a small yellow moon,'
    >>> prompt("three small red trees, winter", random.Random(0))
    'picture: three small red trees, winter\n'
    """
    words = text.strip().lower().strip(" ,")
    line = f"picture: {'a ' if words.startswith(SIZES) else ''}{words}"
    try:
        caption = read_caption(line)
    except UserError as error:
        known_words = "; ".join(
            f"{field}: {', '.join(options)}"
            for field, options in FIELDS.items()
            if not field.startswith("other")
        )
        raise UserError(f"{error}. Its words are {known_words}") from None
    return f"{line}\n" if caption.background else f"{line},"


def show(text: str) -> str:
    """The picture in the colours of a terminal."""
    return render.terminal(text)


def save(texts: Sequence[str], path: Path) -> None:
    """Write the texts, or a PNG: of one picture, or a sheet of several."""
    if path.suffix.lower() == ".txt":
        save_text(texts, path)
    else:
        render.save(texts, path)


# ---- drawing pictures ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """`bits` is -log2 of the picture's exact probability among those of its split."""

    text: str
    bits: float
    caption: Caption


T = TypeVar("T")


class Dice:
    """Draws with known probabilities; `bits` is -log2 of the chance of all draws so far.

    random() is the one method whose numbers Python promises to keep for ever.
    """

    def __init__(self, rng: random.Random) -> None:
        self.random = rng.random
        self.bits = 0.0

    def choose(self, options: Sequence[T]) -> T:
        self.bits += math.log2(len(options))
        return options[int(self.random() * len(options))]

    def happens(self, chance: float) -> bool:
        happened = self.random() < chance
        self.bits -= math.log2(chance if happened else 1 - chance)
        return happened


_TEXTURES, _BACKGROUNDS = tuple(TEXTURES), tuple(BACKGROUNDS)


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
        light_letter = COLOURS[kind.colour]
        for x, y in glyph.cells:
            letter = light_letter.upper() if dark(y, glyph.height) else light_letter
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


def pictures(seed: int, split: str = "train") -> Iterator[Picture]:
    """Pictures without end; the k-th is a function of (seed, split, k), on every machine.

    Args:
        split: train, val, or held_out: at least one thing in each picture of held_out has a shape
            and colour that never come together in the other two.
    """
    for k in itertools.count():
        yield picture(random.Random(f"pictures/{seed}/{split}/{k}"), split)


# ---- measuring -----------------------------------------------------------------------------------


def entropy() -> float:
    """Mean bits per picture of the training text: no model's mean loss on fresh ones can be lower.

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
                of_one = math.log2(len(glyphs) * len(TEXTURES) * box.places(glyph))
                each += chance * (of_one - glyph.height * details)
        bits += each / len(FORMS)
    return bits


def count() -> int:
    """How many different pictures there are, those with held-out pairs among them."""

    def ways(kind: tuple[str, str], box: Box) -> Fraction:
        looks = (
            Fraction(box.places(glyph), (1 + N_DETAILS) ** glyph.height) for glyph in GLYPHS[kind]
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


# ---- the corpus on disk --------------------------------------------------------------------------


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
        {split: pictures(seed, split) for split in SPLITS},
        dict(zip(SPLITS, (train_bytes, val_bytes, held_out_bytes), strict=True)),
        {"version": VERSION, "seed": seed, "entropy_bits_per_picture": round(entropy(), 6)},
    )


# ---- checking pictures ---------------------------------------------------------------------------


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
        """Does all of it lie above (or below, ...) all of the other?"""
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
    complaints += _misshapen(lines)
    conditions = caption.conditions() if caption else {}
    if complaints or caption is None:
        return Verdict(False, False, False, complaints, None, conditions)

    grid = [re.sub(r"[ \d]", "", line) for line in lines]
    things = find_things(grid)
    denied = _denied(caption, things) + _wrong_background(caption.background, grid)
    irregular = _irregular(caption, things, grid)
    bits = None if denied or irregular else _bits(caption, things, grid)
    return Verdict(True, not denied, bits is not None, denied + irregular, bits, conditions)


def _misshapen(lines: Sequence[str]) -> list[str]:
    """Complaints about a grid that is not 13 rows of 6 and 7 known letters, with their numbers."""
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
    """What is there to see, in reading order."""
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


def _denied(caption: Caption, things: Sequence[Thing]) -> list[str]:
    """What the caption says of the things and the grid does not show, or the other way round."""
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
    """The glyph that differs in the fewest cells, where both lie in one corner."""
    moved = {(x - thing.left, y - thing.top) for x, y in thing.cells}
    nearest = min(GLYPH_OF.values(), key=lambda glyph: len(glyph.cells ^ moved))
    return f"{nearest.size} {nearest.shape}"


def _wrong_background(background: str, grid: Sequence[str]) -> list[str]:
    """Complaints about letters of other backgrounds."""
    shown = {BACKGROUND_OF[sign] for row in grid for sign in row if sign in BACKGROUND_OF}
    return [
        f"there is {name} in the background, and the caption says {background}"
        for name in BACKGROUNDS
        if name in shown and name != background
    ]


def _irregular(caption: Caption, things: Sequence[Thing], grid: Sequence[str]) -> list[str]:
    """Complaints about what no caption speaks of, but all pictures have."""
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
    """The ways in which the things can have been laid out: one for what was drawn, else none."""
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
    """-log2 of the chance to draw this picture, from what is seen in it."""
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
        options += [box.places(thing.glyph)]
    chances = [1 / n for n in options]
    background = BACKGROUNDS[caption.background]
    for row, columns in itertools.product(grid, HALVES):
        letters = row[columns.start : columns.stop]
        if not any(map(str.isalpha, letters)):
            zone = background.ground if letters[0] in GROUND else background.sky
            chances.append((1 - PLAIN) / N_DETAILS if zone.detail in letters else PLAIN)
    return -math.fsum(map(math.log2, chances))


# ---- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    parser = flags(NOUN)
    parser.add_argument("--split", choices=SPLITS, default="train", help="with which pairs")
    parser.add_argument("--save", metavar="FILE", help="draw them as a PNG instead")
    options = parser.parse_args(arguments)
    if options.check is None:
        drawn = itertools.islice(pictures(options.seed, options.split), max(0, options.count))
        texts = [one.text for one in drawn]
        if options.save and texts:
            render.save(texts, Path(options.save))
        elif not options.save:
            shown = map(render.terminal, texts) if shows_colours() else texts
            print("\n\n".join(shown))
        return
    check_file(options.check, NOUN, check)
