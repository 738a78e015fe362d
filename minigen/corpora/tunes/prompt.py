"""Prompts for tunes: from conditions, from words, and from the beginning of a melody."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from minigen.corpora.dice import Dice
from minigen.corpora.task import parse_fields
from minigen.corpora.tunes.first_line import (
    FIELDS,
    FIRST_LINE,
    NOUN,
    every_first_line,
    read_first_line,
)
from minigen.corpora.tunes.generate import draw_text, header
from minigen.corpora.tunes.tables import KEYS, MOODS, PHRASE, REPEATED
from minigen.errors import UserError


def condition(given: Mapping[str, str], rng: random.Random) -> str:
    """Return a first line with these values; the other fields are drawn.

    Raises UserError if no first line says that.

    >>> sad = {"mood": "sad", "dance": "waltz", "key": "Am", "bars": "8", "form": "AA"}
    >>> condition(sad, random.Random(0))
    'tune: a sad waltz in Am, 8 bars, AA\\n'
    """
    given = parse_fields(NOUN, FIELDS, given)
    lines = [*every_first_line(held_out=False), *every_first_line(held_out=True)]
    fitting = [line for line in lines if given.items() <= read_first_line(line.strip())[0].items()]
    if not fitting and "form" in given and "bars" in given:
        raise UserError(
            f"a tune of the form {given['form']} has {PHRASE * len(given['form'])} bars"
        )
    if not fitting:
        mode = MOODS[given["mood"]].mode
        raise UserError(
            f"a {given['mood']} tune is in a {mode} key; give one of {', '.join(KEYS[mode])}"
        )
    return Dice(rng).choose(fitting)


def prompt(text: str, rng: random.Random) -> str:
    """Return a first line of these words; after a colon, they may have a melody to begin with.

    Where the form asks for its phrase again, a model repeats that melody. Raises UserError for
    other words, or if no first line says that.

    >>> prompt("a sad waltz in Am", random.Random(0))
    'tune: a sad waltz in Am,'
    >>> print(prompt('a calm waltz in G, 8 bars, AA: "G" g2 g', random.Random(1)))
    tune: a calm waltz in G, 8 bars, AA
    X:1
    T:The Clever Fox's Waltz
    M:3/4
    L:1/4
    K:G
    P:A
    "G" g2 g
    """
    words, _, opening = text.strip().partition(":")
    given: dict[str, str] = {}
    field_of = {word.lower(): field for field, options in FIELDS.items() for word in options}
    for word in re.findall(r"\w+", re.sub(r"^[Aa] ", "", words)):  # an article, no key
        if word.lower() in field_of:
            given[field_of[word.lower()]] = word
        elif word.lower() not in ("in", "bars"):
            options = "; ".join(f"{field}: {', '.join(FIELDS[field])}" for field in FIELDS)
            raise UserError(f"no tune is asked for by the word {word!r}. The words are {options}")
    line = condition(given, rng)
    asked, _ = read_first_line(line.strip())
    if opening:
        headers = draw_text(header(asked), Dice(rng))
        begin = "|:" * (asked["form"] == REPEATED)
        return f"{line}{headers}P:A\n{begin}{opening.strip().rstrip(' |')}"
    rest = list(FIELDS)[len(given) :]
    if not rest or any(field in given for field in rest):
        return line
    # Nothing was left out in between: the model itself says how the line goes on.
    return FIRST_LINE[: FIRST_LINE.index(f"{{{rest[0]}}}")].format(**asked).rstrip()
