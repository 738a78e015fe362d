"""Prompts for tunes: from conditions, or from words and the beginning of a melody."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from minigen.corpora.dice import Dice
from minigen.corpora.genre import parse_fields
from minigen.corpora.tunes.first_line import (
    FIELDS,
    FIRST_LINE,
    NOUN,
    first_lines,
    read_first_line,
)
from minigen.corpora.tunes.generate import draw_text, header
from minigen.corpora.tunes.tables import BARS_PER_PHRASE, FORM_WITH_REPEATS, KEYS, MOODS
from minigen.errors import UserError


def condition(conditions: Mapping[str, str], rng: random.Random) -> str:
    """Return a first line with its newline that states the conditions; draw the other fields.

    Raises `UserError` if no first line has all of the conditions.

    >>> sad = {"mood": "sad", "dance": "waltz", "key": "Am", "bars": "8", "form": "AA"}
    >>> condition(sad, random.Random(0))
    'tune: a sad waltz in Am, 8 bars, AA\\n'
    """
    conditions = parse_fields(NOUN, FIELDS, conditions)
    lines = [
        line
        for line in (*first_lines(held_out=False), *first_lines(held_out=True))
        if conditions.items() <= read_first_line(line.strip())[0].items()
    ]
    if lines:
        return Dice(rng).choose(lines)
    if (form := conditions.get("form")) and "bars" in conditions:
        raise UserError(f"a tune of the form {form} has {BARS_PER_PHRASE * len(form)} bars")
    mood = conditions["mood"]
    mode = MOODS[mood].mode
    raise UserError(f"a {mood} tune is in a {mode} key; give one of {', '.join(KEYS[mode])}")


def prompt(text: str, rng: random.Random) -> str:
    """Return the prompt for words as a user types them: a first line, or its beginning.

    The model completes a line that breaks off; a field that is missing between the words is drawn.
    The words can end with a colon and a melody. Then the prompt has a complete first line and ends
    with the melody, and a model repeats the melody where the form repeats the first phrase.

    Raises `UserError` for a word that no first line has, and if no first line has all of the words.

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
    words, _, melody = text.strip().partition(":")
    conditions: dict[str, str] = {}
    field_of = {word.lower(): field for field, options in FIELDS.items() for word in options}
    for word in re.findall(r"\w+", re.sub(r"^[Aa] ", "", words)):  # the article, not the key of A
        if word.lower() in field_of:
            conditions[field_of[word.lower()]] = word
        elif word.lower() not in ("in", "bars"):
            options = "; ".join(f"{field}: {', '.join(FIELDS[field])}" for field in FIELDS)
            raise UserError(
                f"no first line of a tune has the word {word!r}. The words are {options}"
            )
    line = condition(conditions, rng)
    all_conditions, _ = read_first_line(line.strip())
    if melody:
        headers = draw_text(header(all_conditions), Dice(rng))
        repeat_sign = "|:" * (all_conditions["form"] == FORM_WITH_REPEATS)
        return f"{line}{headers}P:A\n{repeat_sign}{melody.strip().rstrip(' |')}"
    rest = list(FIELDS)[len(conditions) :]
    if not rest or any(field in conditions for field in rest):
        return line
    # The words are the first fields, without a gap: the model completes the line.
    return FIRST_LINE[: FIRST_LINE.index(f"{{{rest[0]}}}")].format(**all_conditions).rstrip()
