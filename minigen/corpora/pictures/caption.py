"""Captions: what a picture is to show, as words, as fields, and as a person asks for it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigen.corpora.dice import Dice
from minigen.corpora.pictures.tables import (
    BACKGROUNDS,
    COLOURS,
    FORMS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    SIZES,
)
from minigen.corpora.task import parse_fields
from minigen.errors import UserError


@dataclass(frozen=True)
class Kind:
    """A thing as a caption describes it."""

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
        """Return the kinds of all its things."""
        return self.kinds * NUMBERS.get(self.form, 1)

    def conditions(self) -> dict[str, str]:
        """Return the words by the names of `FIELDS`; only a relation has an other thing."""
        values = [word for kind in self.kinds for word in (kind.size, kind.colour, kind.shape)]
        names = [field for field in FIELDS if field not in ("form", "background")]
        things = dict(zip(names, values, strict=False))
        return {"form": self.form, **things, "background": self.background}


NOUN = "picture"
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
    r"""Return a caption of which some fields are given; the others are drawn.

    Raises UserError for a field or a word that is not in `FIELDS`, or another thing without a
    relation to it.

    >>> red = {"form": "two", "size": "big", "colour": "red", "shape": "moon"}
    >>> condition(red, random.Random(0))
    'picture: two big red moons, day\n'
    """
    given = parse_fields(NOUN, FIELDS, given)
    others = [field for field in given if field.startswith("other")]
    open_to = FIELDS | ({"form": RELATIONS} if others else {})
    dice = Dice(rng)
    words = {field: dice.choose(options) for field, options in open_to.items()} | given
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
    """Return the caption that a line is; its background is "" if the line ends before it.

    Raises UserError for a line that is no caption.

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
    r"""Return the caption that a person typed: without "picture: ", and perhaps a background.

    Raises UserError for words that are no caption.

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
