"""The first lines of tunes: their fields, the held-out ones, and a parser."""

from __future__ import annotations

import functools
import itertools
import re

from minigen.corpora.tunes.harmony import Key
from minigen.corpora.tunes.tables import BARS_PER_PHRASE, DANCES, FORMS, KEYS, MOODS

NOUN = "tune"
# The fields of a first line, in their order, and the values that each can have.
FIELDS = {
    "mood": tuple(MOODS),
    "dance": tuple(DANCES),
    "key": (*KEYS["major"], *KEYS["minor"]),
    "bars": ("8", "12", "16"),
    "form": FORMS,
}
FIRST_LINE = "tune: a {mood} {dance} in {key}, {bars} bars, {form}"

# Pairs of mood and dance that never occur together in the training text. They show whether a model
# can combine words that it has never read together. One in eleven of all other first lines is held
# out, too.
HELD_OUT = (("calm", "reel"), ("proud", "waltz"), ("sad", "march"), ("brave", "jig"))


@functools.cache
def first_lines(held_out: bool) -> dict[str, int]:
    """Return the first lines of the training text, or the held-out ones, each with the weight 1."""
    lines = {}
    for n, values in enumerate(itertools.product(*FIELDS.values())):
        mood, dance, key, bars, form = values
        if Key(key).mode == MOODS[mood].mode and int(bars) == BARS_PER_PHRASE * len(form):
            # 11 has no factor in common with the number of values of any field, so that every value
            # of a field is held out (test_every_value_of_a_field_is_in_both_kinds_of_first_lines).
            is_held_out = (mood, dance) in HELD_OUT or n % 11 == 0
            if is_held_out == held_out:
                line = FIRST_LINE.format(**dict(zip(FIELDS, values, strict=True)))
                lines[f"{line}\n"] = 1
    return lines


def read_first_line(line: str) -> tuple[dict[str, str], list[str]]:
    """Parse a first line: return its conditions, and complaints about its faults."""
    pattern = re.escape(FIRST_LINE).replace(r"\ ", " ")
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\w+)", pattern)
    match = re.fullmatch(pattern, line)
    if not match:
        return {}, [f'the first line is not of the form "{FIRST_LINE}"']
    complaints = [
        f"{field}: {value} in the first line is none of {', '.join(FIELDS[field])}"
        for field, value in match.groupdict().items()
        if value not in FIELDS[field]
    ]
    conditions = {field: v for field, v in match.groupdict().items() if v in FIELDS[field]}
    if not complaints:
        mood, key = conditions["mood"], Key(conditions["key"])
        if MOODS[mood].mode != key.mode:
            complaints.append(f"a {mood} tune is in a {MOODS[mood].mode} key, not in {key.name}")
    return conditions, complaints
