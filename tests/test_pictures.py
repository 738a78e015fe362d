"""Pictures: probabilities are exact, and the checker finds and names planted faults."""

from __future__ import annotations

import itertools
import math
import random
import re
import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from minigen.corpora import pictures
from minigen.corpora.pictures import generate
from minigen.corpora.pictures.caption import Caption, Kind, read_caption
from minigen.corpora.pictures.check import Thing, check, find_things
from minigen.corpora.pictures.tables import (
    BACKGROUND_OF,
    BACKGROUNDS,
    COLOURS,
    FORMS,
    GLYPH_OF,
    GLYPHS,
    GROUND_ROWS,
    HALVES,
    HELD_OUT,
    LAYOUTS,
    N_DETAILS,
    NUMBERS,
    SHAPES,
    SIZES,
    TEXTURES,
    Box,
    Cell,
    Glyph,
    detailed_halves,
)
from minigen.errors import UserError


@pytest.fixture(scope="module")
def sample() -> list[pictures.Picture]:
    """Return 3000 pictures of the training split."""
    return list(itertools.islice(pictures.documents(seed=11), 3000))


# ---- the tables ----------------------------------------------------------------------------------


def test_outlines_and_textures_are_distinct() -> None:
    """All 32 outlines differ, and so do all textures of an outline; each outline is one thing.

    So the cells of a thing show which shape, size and texture was drawn.
    """
    glyphs = [glyph for pair in GLYPHS.values() for glyph in pair]
    assert len(glyphs) == 32 and len(GLYPH_OF) == 32
    for glyph in glyphs:
        assert (min(x for x, _ in glyph.cells), min(y for _, y in glyph.cells)) == (0, 0)
        assert max(glyph.width, glyph.height) <= 6
        dark_cells = {
            frozenset((x, y) for x, y in glyph.cells if is_dark(y, glyph.height))
            for is_dark in TEXTURES.values()
        }
        assert len(dark_cells) == len(TEXTURES)
        thing = [["."] * glyph.width for _ in range(glyph.height)]
        for x, y in glyph.cells:
            thing[y][x] = "r"
        assert len(find_things(["".join(row) for row in thing])) == 1


def test_patterns_of_details_are_distinct() -> None:
    """Half a row without details and the halves with each pattern of details all differ."""
    for background, half in itertools.product(BACKGROUNDS.values(), (0, 1)):
        for zone in (background.sky, background.ground):
            rows = {zone.plain * len(HALVES[half]), *detailed_halves(zone, half)}
            assert len(rows) == 1 + N_DETAILS


def test_things_of_one_layout_never_touch() -> None:
    """A row or a column of cells lies between any two boxes of a layout."""
    for layouts in LAYOUTS.values():
        for boxes in layouts:
            for a, b in itertools.combinations(boxes, 2):
                apart = max(a.left - b.right, b.left - a.right, a.top - b.bottom, b.top - a.bottom)
                assert apart >= 1


def test_there_are_more_pictures_than_a_model_can_memorise() -> None:
    """There are at least 8 shapes, 8 colours and 10^9 pictures."""
    assert len(SHAPES) >= 8 and len(COLOURS) >= 8
    assert pictures.count() > 10**9
    assert {shape for shape, _ in HELD_OUT} <= set(SHAPES)


# ---- exactness -----------------------------------------------------------------------------------


def test_the_checker_computes_the_probability_of_a_drawn_picture(
    sample: list[pictures.Picture],
) -> None:
    """Every drawn picture is valid, and `check` gives it the bits with which it was drawn."""
    for one in sample:
        verdict = check(one.text)
        assert (verdict.well_formed, verdict.follows_prompt, verdict.complaints) == (True, True, [])
        assert verdict.valid and verdict.bits == pytest.approx(one.bits, abs=1e-9)
        assert verdict.conditions == one.caption.conditions()
    for one in itertools.islice(pictures.documents(11, "held_out"), 500):
        assert check(one.text).bits == pytest.approx(one.bits, abs=1e-9)


def test_entropy_is_the_mean_of_the_bits(sample: list[pictures.Picture]) -> None:
    """The mean of -log2 p over 3000 pictures is `entropy`, within four standard errors."""
    bits = [one.bits for one in sample]
    error = statistics.stdev(bits) / math.sqrt(len(bits))
    assert abs(statistics.mean(bits) - pictures.entropy()) < 4 * error
    assert error < 0.5
    # Jensen: were all pictures equally likely, their entropy would be log2(count).
    assert pictures.entropy() < math.log2(pictures.count())


def test_count_is_the_number_of_all_pictures_of_a_small_grammar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`count` is right for a grammar of two dots, each of which is one or two cells wide."""
    left, right = Box(0, 3, 0, 12), Box(7, 9, 1, 13)
    glyphs = [Glyph("dot", "big", frozenset((x, 0) for x in range(n))) for n in (1, 2)]
    monkeypatch.setattr(generate, "LAYOUTS", {"two": ((left, right),)})
    monkeypatch.setattr(generate, "GLYPHS", {("dot", "big"): tuple(glyphs)})
    by_hand = 0
    for _ in itertools.product(range(12), range(1, 13)):  # the rows of both dots
        places = (3 + 2) * (2 + 1)  # the columns for both widths, in a box of 3 and one of 2
        tones = len(COLOURS) * len(TEXTURES) ** 2
        for _ in itertools.product(BACKGROUNDS, GROUND_ROWS):
            by_hand += places * tones * 6 ** (26 - 2)  # half rows without a dot
    assert pictures.count() == by_hand


def test_every_option_is_drawn_equally_often(sample: list[pictures.Picture]) -> None:
    """By chi-squared tests, the words of captions and the textures are uniform."""
    things = [(thing, one) for one in sample[:1500] for thing in find_things(grid_of(one.text))]
    for drawn, options in (
        ([one.caption.form for one in sample], len(FORMS)),
        ([one.caption.background for one in sample], len(BACKGROUNDS)),
        ([one.caption.kinds[0].size for one in sample], len(SIZES)),
        ([(k.shape, k.colour) for one in sample for k in one.caption.kinds], 64 - len(HELD_OUT)),
        ([thing.texture for thing, _ in things], len(TEXTURES)),
    ):
        counts = Counter(drawn)
        expected = len(drawn) / options
        chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
        assert len(counts) == options
        assert chi2 < options - 1 + 5 * math.sqrt(2 * options)


def test_held_out_pairs_are_in_their_own_split_only(sample: list[pictures.Picture]) -> None:
    """Held-out pairs of shape and colour are in each picture of held_out, and in no other one.

    Each word of a held-out pair is in the training split, together with other words.
    """

    def has_pair(one: pictures.Picture) -> bool:
        return any((kind.shape, kind.colour) in HELD_OUT for kind in one.caption.kinds)

    assert not any(map(has_pair, sample))
    assert not any(map(has_pair, itertools.islice(pictures.documents(0, "val"), 500)))
    assert all(map(has_pair, itertools.islice(pictures.documents(0, "held_out"), 500)))
    words = {word for one in sample for word in re.findall(r"\w+", str(one.caption))}
    for pair in HELD_OUT:
        assert words.issuperset(pair)


# ---- the text ------------------------------------------------------------------------------------


def test_reading_a_caption_undoes_writing_it(sample: list[pictures.Picture]) -> None:
    """`read_caption` of the text of a caption is that caption."""
    for one in sample:
        assert read_caption(str(one.caption)) == one.caption


def test_a_prompt_needs_no_noun_article_or_background() -> None:
    """A prompt gets "picture: " and "a" if they are missing, and a comma before a background."""
    short = "a big green star left of a small yellow moon"
    rng = random.Random(0)
    assert pictures.prompt(f"A{short[1:]}", rng) == f"picture: {short},"
    assert pictures.prompt(f" {short[2:]}, day\n", rng) == f"picture: {short}, day\n"


def test_a_caption_with_a_relation_has_two_kinds() -> None:
    """`read_caption` returns the kinds in their order, the relation and the background."""
    caption = read_caption("picture: a big green star left of a small yellow moon, day")
    star, moon = Kind("big", "green", "star"), Kind("small", "yellow", "moon")
    assert caption == Caption("left of", (star, moon), "day")


def test_conditions_are_in_the_caption_and_the_rest_is_drawn() -> None:
    """A caption states all conditions that `condition` gets, and its other words are drawn."""
    rng = random.Random(0)
    conditions = {"shape": "star", "other_colour": "red", "background": "day"}
    lines = [pictures.condition(conditions, rng) for _ in range(200)]
    assert len(set(lines)) > 150
    for line in lines:
        caption = read_caption(line.removesuffix("\n"))
        assert caption.conditions().items() >= conditions.items()
    drawn = [read_caption(pictures.condition({}, rng).strip()) for _ in range(200)]
    assert {caption.form for caption in drawn} == set(FORMS)


@pytest.mark.parametrize(
    ("conditions", "complaint"),
    [
        ({"hat": "red"}, "a picture has no 'hat'; it has form, size"),
        ({"colour": "beige"}, "colour is 'beige'; give one of red, orange"),
        ({"form": "two", "other_size": "big"}, "other_size is of a second thing"),
    ],
)
def test_conditions_of_no_picture_are_refused(conditions: dict[str, str], complaint: str) -> None:
    """Conditions that no caption can state raise a `UserError` that names the wrong condition."""
    with pytest.raises(UserError, match=complaint):
        pictures.condition(conditions, random.Random(0))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "a big green zebra",
            'the caption says "zebra", a word that no caption has. .*house, tree',
        ),
        ("a green star", "not of the form"),
        ("two big green star", "not of the form"),
        ("three big red heartss", 'says "heartss"'),
        ("a big green star above", "not of the form"),
    ],
)
def test_words_of_no_caption_are_refused(text: str, complaint: str) -> None:
    """A prompt that is no caption raises a `UserError` that names the wrong word or the form."""
    with pytest.raises(UserError, match=complaint):
        pictures.prompt(text, random.Random(0))


# ---- planted faults ------------------------------------------------------------------------------

Fault = Callable[[pictures.Picture, random.Random], "tuple[str, str] | None"]
FAULTS: dict[str, Fault] = {}  # each returns a faulty text, and a pattern of the complaint about it
BREAKS_PROMPT: set[str] = set()  # faults after which a picture no longer follows its prompt


def fault(make: Fault) -> Fault:
    """Register a function that plants a fault after which a picture does not follow its prompt."""
    FAULTS[make.__name__] = make
    BREAKS_PROMPT.add(make.__name__)
    return make


def grid_of(text: str) -> list[str]:
    """Return the 13 cells of each row."""
    return [re.sub(r"[ \d]", "", row) for row in text.split("\n")[1:]]


def edit(one: pictures.Picture, changes: dict[Cell, str], caption: str = "") -> str:
    """Return the text of a picture with other characters in some cells, or another caption."""
    rows = [list(row) for row in grid_of(one.text)]
    for (x, y), letter in changes.items():
        rows[y][x] = letter
    lines = [f"{''.join(row[:6])} {''.join(row[6:])} {y}" for y, row in enumerate(rows, 1)]
    return "\n".join([caption or str(one.caption), *lines])


def some_thing(one: pictures.Picture, rng: random.Random) -> Thing:
    return rng.choice(find_things(grid_of(one.text)))


def plain(one: pictures.Picture, y: int) -> str:
    """Return the character of the background without details in row y."""
    background = BACKGROUNDS[one.caption.background]
    ground = {background.ground.plain, background.ground.detail}
    zone = background.ground if ground & set(grid_of(one.text)[y]) else background.sky
    return zone.plain


def erase(one: pictures.Picture, cells: frozenset[Cell]) -> dict[Cell, str]:
    """Return the changes that replace cells by the background."""
    return {(x, y): plain(one, y) for x, y in cells}


def redraw(
    one: pictures.Picture, thing: Thing, glyphs: list[Glyph], rng: random.Random
) -> str | None:
    """Replace a thing by one of the glyphs at its place; None if each would touch another thing."""
    grid = grid_of(one.text)
    rng.shuffle(glyphs)
    for glyph in glyphs:
        cells = {(thing.left + x, thing.top + y) for x, y in glyph.cells}
        around = {(x + i, y + j) for x, y in cells for i in (-1, 0, 1) for j in (-1, 0, 1)}
        if max(max(cell) for cell in cells) < 13 and not any(
            grid[y][x].isalpha() for x, y in around - thing.cells if 0 <= x < 13 and 0 <= y < 13
        ):
            letter = COLOURS[thing.colour]
            return edit(one, erase(one, thing.cells) | dict.fromkeys(cells, letter))
    return None


@fault
def wrong_colour(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    thing = some_thing(one, rng)
    new = rng.choice([colour for colour in COLOURS if colour != thing.colour])
    letter = COLOURS[new]
    grid = grid_of(one.text)
    changes = {(x, y): letter.upper() if grid[y][x].isupper() else letter for x, y in thing.cells}
    return edit(one, changes), f"a {thing.kind} is missing"


@fault
def wrong_shape(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    thing = some_thing(one, rng)
    assert thing.glyph
    others = [
        glyph
        for (shape, size), pair in GLYPHS.items()
        for glyph in pair
        if shape != thing.glyph.shape and size == thing.glyph.size
    ]
    text = redraw(one, thing, others, rng)
    return (text, f"a {thing.kind} is missing") if text else None


@fault
def wrong_size(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    thing = some_thing(one, rng)
    assert thing.glyph
    size = "big" if thing.glyph.size == "small" else "small"
    text = redraw(one, thing, list(GLYPHS[thing.glyph.shape, size]), rng)
    return (text, f"more things like a {size} ") if text else None


@fault
def missing_thing(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    thing = some_thing(one, rng)
    return edit(one, erase(one, thing.cells)), f"a {thing.kind} is missing"


@fault
def extra_thing(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    """Copy a thing to a place where it touches nothing; None if no place is found."""
    thing = some_thing(one, rng)
    taken = {cell for other in find_things(grid_of(one.text)) for cell in other.cells}
    letter = COLOURS[thing.colour]
    for _ in range(60):
        right, down = rng.randrange(-12, 13), rng.randrange(-12, 13)
        cells = {(x + right, y + down) for x, y in thing.cells}
        around = {(x + i, y + j) for x, y in cells for i in (-1, 0, 1) for j in (-1, 0, 1)}
        inside = all(0 <= x < 13 and 0 <= y < 13 for x, y in cells)
        if inside and not around & taken:
            changed = edit(one, dict.fromkeys(cells, letter))
            return changed, f"more things like a {thing.kind} than the caption has"
    return None


@fault
def relation_swapped(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    swapped = {"above": "below", "left of": "right of"}
    swapped |= {new: old for old, new in swapped.items()}
    first, second = (*one.caption.kinds, None)[:2]
    if second is None or first == second:  # for equal things the opposite is true, too
        return None
    new = swapped[one.caption.form]
    caption = Caption(new, one.caption.kinds, one.caption.background)
    return edit(one, {}, str(caption)), f"the {first} is not {new} the {second}"


@fault
def things_exchanged(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    first, second = (*one.caption.kinds, None)[:2]
    if second is None or first == second:
        return None
    caption = Caption(one.caption.form, (second, first), one.caption.background)
    return edit(one, {}, str(caption)), f"is not {one.caption.form} the"


@fault
def wrong_number(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    if one.caption.form not in NUMBERS:
        return None
    new = rng.choice([number for number in NUMBERS if number != one.caption.form])
    caption = Caption(new, one.caption.kinds, one.caption.background)
    return edit(one, {}, str(caption)), "is missing|than the caption has"


@fault
def wrong_background(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    old = one.caption.background
    new = rng.choice([name for name in BACKGROUNDS if name != old])
    caption = Caption(one.caption.form, one.caption.kinds, new)
    complaint = f"there is {old} in the background, and the caption says {new}"
    return edit(one, {}, str(caption)), complaint


@fault
def foreign_background_cell(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    new = rng.choice([name for name in BACKGROUNDS if name != one.caption.background])
    cell = random_cell(one, rng)
    changed = edit(one, {cell: BACKGROUNDS[new].sky.plain})
    return changed, f"there is {new} in the background"


def random_cell(one: pictures.Picture, rng: random.Random) -> Cell:
    """Return a random cell of the background."""
    grid = grid_of(one.text)
    return rng.choice([(x, y) for y in range(13) for x in range(13) if grid[y][x] in BACKGROUND_OF])


@fault
def hole_in_a_thing(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    thing = some_thing(one, rng)
    gone = rng.choice(sorted(thing.cells))
    left = min(x for x, _ in thing.cells - {gone})
    top = min(y for _, y in thing.cells - {gone})
    if frozenset((x - left, y - top) for x, y in thing.cells - {gone}) in GLYPH_OF:
        return None  # the rest has the outline of another glyph
    return edit(one, erase(one, frozenset({gone}))), "has no known shape; it is most like"


@fault
def stray_cell(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    x, y = random_cell(one, rng)
    letter = rng.choice(list(COLOURS.values()))
    thing = next(t for t in find_things(grid_of(edit(one, {(x, y): letter}))) if (x, y) in t.cells)
    return (edit(one, {(x, y): letter}), "has no known shape") if not thing.glyph else None


@fault
def row_too_short(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    lines = one.text.split("\n")
    y, x = rng.randrange(1, 14), rng.randrange(14)
    lines[y] = lines[y][:x] + lines[y][x + 1 :]
    return "\n".join(lines), rf"row {y} has (13|\d and \d) cells instead of 6 and 7"


@fault
def row_too_long(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    lines = one.text.split("\n")
    y, x = rng.randrange(1, 14), rng.randrange(14)
    lines[y] = lines[y][:x] + lines[y][x] + lines[y][x:]
    return "\n".join(lines), rf"row {y} has (\d and 0|\d) and \d cells instead of 6 and 7"


@fault
def blank_moved(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    lines = one.text.split("\n")
    y, x = rng.randrange(1, 14), rng.choice([5, 7, 8])
    row = grid_of(one.text)[y - 1]
    lines[y] = f"{row[:x]} {row[x:]} {y}"
    return "\n".join(lines), f"row {y} has {x} and {13 - x} cells instead of 6 and 7"


@fault
def wrong_number_of_a_row(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    lines = one.text.split("\n")
    y, number = rng.randrange(1, 14), rng.choice(["", " 0", " 14", " x"])
    lines[y] = re.sub(r" \d+$", number, lines[y])
    return "\n".join(lines), f"row {y} ends with .* instead of its number"


@fault
def row_missing(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    lines = one.text.split("\n")
    del lines[rng.randrange(1, 14)]
    return "\n".join(lines), "there are 12 rows instead of 13"


@fault
def row_doubled(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    lines = one.text.split("\n")
    y = rng.randrange(1, 14)
    return "\n".join([*lines[: y + 1], *lines[y:]]), "there are 14 rows instead of 13"


@fault
def unknown_letter(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    x, y = rng.randrange(13), rng.randrange(13)
    letter = rng.choice("axzQ?!")
    complaint = f"row {y + 1} has {re.escape(repr(letter))}, no letter of the palette"
    return edit(one, {(x, y): letter}), complaint


@fault
def breaks_off(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    end = rng.randrange(one.text.index("\n"), len(one.text) - 1)
    return one.text[:end], r"there are \d+ rows instead|ends with .* instead"


@fault
def no_caption(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    return one.text.partition("\n")[2], "^the caption "


@fault
def word_missing(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    words = str(one.caption).split(" ")
    del words[rng.randrange(len(words))]
    return edit(one, {}, " ".join(words)), "^the caption (is not of|names no background)"


@fault
def unknown_word(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    words = str(one.caption).split(" ")
    words[rng.randrange(1, len(words))] = "zebra"
    return edit(one, {}, " ".join(words)), '^the caption says "zebra"'


def irregular_texture(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    """Change the tone of one cell. Captions do not mention tones."""
    thing = some_thing(one, rng)
    x, y = rng.choice(sorted(thing.cells))
    faulty = edit(one, {(x, y): grid_of(one.text)[y][x].swapcase()})
    if all(thing.texture for thing in find_things(grid_of(faulty))):
        return None  # the cells have another texture
    return faulty, "thing at row .* has no known texture"


def ground_in_the_sky(one: pictures.Picture, rng: random.Random) -> tuple[str, str]:
    background = BACKGROUNDS[one.caption.background]
    grid = grid_of(one.text)
    ground = {background.ground.plain, background.ground.detail}
    cells = [(x, y) for x, y in itertools.product(range(13), range(9)) if not grid[y][x].isalpha()]
    x, y = rng.choice([(x, y) for x, y in cells if not ground & {grid[y][x]}])
    return edit(one, {(x, y): background.ground.plain}), (
        rf"row {y + 1} has both sky and ground|row {y + 1} is ground above the sky"
    )


def ground_too_high(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    grid = grid_of(one.text)
    background = BACKGROUNDS[one.caption.background]
    new = {
        (x, y): background.ground.plain
        for x, y in itertools.product(range(13), range(8, 13))
        if grid[y][x] in BACKGROUND_OF
    }
    return edit(one, new), "the ground has 5 rows instead of 2 to 4"


def detail_beside_a_thing(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    """Add a detail to the half row in which a thing is."""
    thing = some_thing(one, rng)
    y, row = thing.top, grid_of(one.text)[thing.top]
    columns = HALVES[thing.left > 6]
    free = [x for x in columns if not row[x].isalpha()]
    background = BACKGROUNDS[one.caption.background]
    zone = background.sky if plain(one, y) == background.sky.plain else background.ground
    complaint = f"row {y + 1} has details where the grammar draws none"
    return (edit(one, {(rng.choice(free), y): zone.detail}), complaint) if free else None


def unknown_details(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    grid = grid_of(one.text)
    free = [y for y in range(9) if not any(letter.isalpha() for letter in grid[y])]
    if not free:
        return None
    y = rng.choice(free)
    sky = BACKGROUNDS[one.caption.background].sky
    columns = rng.choice(HALVES)
    new = {(x, y): sky.detail if x % 2 else sky.plain for x in columns}
    return edit(one, new), f"row {y + 1} has details where the grammar draws none"


def out_of_place(one: pictures.Picture, rng: random.Random) -> tuple[str, str] | None:
    """Move a thing into row 6, which no box has; the picture still follows its prompt."""
    if one.caption.form not in ("above", "below"):
        return None
    upper, lower = sorted(find_things(grid_of(one.text)), key=lambda thing: thing.top)
    if lower.top < 8:
        return None
    cells = {(x, y + 6 - upper.bottom) for x, y in upper.cells}
    letter = COLOURS[upper.colour]
    moved = edit(one, erase(one, upper.cells) | dict.fromkeys(cells, letter))
    return moved, "the things lie where the grammar never puts them"


for _irregularity in (
    irregular_texture,
    ground_in_the_sky,
    ground_too_high,
    detail_beside_a_thing,
    unknown_details,
    out_of_place,
):
    FAULTS[_irregularity.__name__] = _irregularity


@pytest.mark.parametrize("kind", list(FAULTS))
def test_planted_faults_are_found_and_named(kind: str, sample: list[pictures.Picture]) -> None:
    """A picture with a planted fault is not valid, and a complaint of `check` names the fault.

    A picture with a fault in a feature that captions do not mention still follows its prompt.
    """
    rng = random.Random(kind)
    n_tried = 0
    for one in sample:
        planted = FAULTS[kind](one, rng)
        if planted is None:
            continue
        faulty, complaint = planted
        verdict = check(faulty)
        assert not verdict.valid and verdict.bits is None
        assert any(re.search(complaint, each) for each in verdict.complaints), verdict.complaints
        assert verdict.follows_prompt == (kind not in BREAKS_PROMPT)
        n_tried += 1
        if n_tried == 50:
            break
    assert n_tried == 50


@pytest.mark.slow
def test_ten_thousand_pictures_are_valid_and_990_of_1000_faults_are_found() -> None:
    """All of 10,000 drawn pictures are valid; of 1,000 with one kind of fault, at most 10 are."""
    sample = [*itertools.islice(pictures.documents(seed=12), 10_000)]
    assert sum(check(one.text).valid for one in sample) == len(sample)
    for kind, plant in FAULTS.items():
        rng = random.Random(kind)
        faulty = (planted[0] for one in sample if (planted := plant(one, rng)))
        n_found = sum(not check(text).valid for text in itertools.islice(faulty, 1000))
        assert n_found >= 990, (kind, n_found)


def test_any_text_gets_a_verdict() -> None:
    """`check` raises no error for any text, and a text that is no picture has complaints."""
    rows = "\n".join(f"...... ....... {y}" for y in range(1, 14))
    for text in ("", "\n", "picture:", rows, "\n\n\n", "x" * 5000, "\n" * 99, "é \x00 \ud800"):
        verdict = check(text)
        assert not verdict.valid and not verdict.follows_prompt and verdict.complaints
    assert check(f"picture: a big red moon, night\n{rows}").complaints == [
        "a big red moon is missing",
        "the ground has 0 rows instead of 2 to 4",
    ]
