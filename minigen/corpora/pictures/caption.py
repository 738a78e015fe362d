"""Captions of pictures: as text, as conditions, and as a user types them in a prompt."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigen.corpora.dice import Dice
from minigen.corpora.genre import parse_fields
from minigen.corpora.pictures.tables import (
    BACKGROUNDS,
    COLOURS,
    FORMS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    SIZES,
)
from minigen.errors import UserError


@dataclass(frozen=True)
class Kind:
    """A kind of thing, in the words of a caption."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Caption:
    """A number of things of one kind, or two things in a relation; and a background.

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

    def kind_of_each_thing(self) -> tuple[Kind, ...]:
        """Return a kind for each thing: for "two big red moons", the same kind twice."""
        return self.kinds * NUMBERS.get(self.form, 1)

    def conditions(self) -> dict[str, str]:
        """Return the words of the caption by their fields.

        Only a caption with a relation has the fields that begin with `other_`.
        """
        values = [word for kind in self.kinds for word in (kind.size, kind.colour, kind.shape)]
        names = [field for field in FIELDS if field not in ("form", "background")]
        things = dict(zip(names, values, strict=False))
        return {"form": self.form, **things, "background": self.background}


NOUN = "picture"
# The fields of a caption, and the words that each can have.
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


def condition(conditions: Mapping[str, str], rng: random.Random) -> str:
    r"""Return a caption with its newline that states the conditions; draw the other fields.

    Raises `UserError` for a field or a word that is not in `FIELDS`, and for conditions of a second
    thing together with a number: only a relation has a second thing.

    >>> red = {"form": "two", "size": "big", "colour": "red", "shape": "moon"}
    >>> condition(red, random.Random(0))
    'picture: two big red moons, day\n'
    """
    conditions = parse_fields(NOUN, FIELDS, conditions)
    others = [field for field in conditions if field.startswith("other")]
    options = FIELDS | ({"form": RELATIONS} if others else {})
    dice = Dice(rng)
    words = {field: dice.choose(choices) for field, choices in options.items()} | conditions
    if others and words["form"] not in RELATIONS:
        raise UserError(f"{others[0]} is of a second thing; form must be {', '.join(RELATIONS)}")
    kinds = (
        Kind(words["size"], words["colour"], words["shape"]),
        Kind(words["other_size"], words["other_colour"], words["other_shape"]),
    )
    n_kinds = 2 if words["form"] in RELATIONS else 1
    return f"{Caption(words['form'], kinds[:n_kinds], words['background'])}\n"


def _any_of(words: Sequence[str] | Mapping[str, Any]) -> str:
    return f"({'|'.join(words)})"


_KIND = f"{_any_of(SIZES)} {_any_of(COLOURS)} {_any_of(SHAPES)}"
_CAPTION = re.compile(
    f"picture: (?:{_any_of(tuple(NUMBERS))} {_KIND}(s?)"
    f"|a {_KIND} {_any_of(RELATIONS)} a {_KIND})"
    f"(?:, {_any_of(BACKGROUNDS)})?"
)
_WORDS = set(re.findall(r"\w+", " ".join([_KIND, *FORMS, *BACKGROUNDS, "picture"])))
_WORDS |= {f"{shape}s" for shape in SHAPES}
CAPTION_FORMAT = (
    "picture: NUMBER SIZE COLOUR SHAPE, BACKGROUND or "
    "picture: a SIZE COLOUR SHAPE RELATION a SIZE COLOUR SHAPE, BACKGROUND"
)


def read_caption(line: str) -> Caption:
    """Parse the line of a caption; the background is "" if the line ends before it.

    Raises `UserError` if the line is no caption.

    >>> read_caption("picture: two big red moons, night").kinds
    (Kind(size='big', colour='red', shape='moon'),)
    """
    match = _CAPTION.fullmatch(line)
    if match:
        number, *single, plural = match.groups()[:5]
        *first, relation, size, colour, shape = match.groups()[5:12]
        background = match.groups()[12] or ""
        if number is None:
            return Caption(relation, (Kind(*first), Kind(size, colour, shape)), background)
        if (number == "a") == (plural == ""):
            return Caption(number, (Kind(*single),), background)
    for word in re.findall(r"\w+", line):
        if word not in _WORDS:
            raise UserError(f'the caption says "{word}", a word that no caption has')
    raise UserError(f"the caption is not of the form {CAPTION_FORMAT}")


def prompt(text: str, rng: random.Random) -> str:
    r"""Return the prompt for the words of a caption as a user types them.

    "picture: " may be missing, and so may the background: then the model chooses it. Raises
    `UserError` for words that are no caption.

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
        vocabulary = "; ".join(
            f"{field}: {', '.join(options)}"
            for field, options in FIELDS.items()
            if not field.startswith("other")
        )
        raise UserError(f"{error}. Its words are {vocabulary}") from None
    return f"{line}\n" if caption.background else f"{line},"
