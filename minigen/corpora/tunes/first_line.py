"""The first line of a tune: what it can say, which lines training sees, and how one is read."""

from __future__ import annotations

import functools
import itertools
import re

from minigen.corpora.tunes.harmony import Key
from minigen.corpora.tunes.tables import DANCES, FORMS, KEYS, MOODS, PHRASE

NOUN = "tune"
# What the first line says, in its order.
FIELDS = {
    "mood": tuple(MOODS),
    "dance": tuple(DANCES),
    "key": (*KEYS["major"], *KEYS["minor"]),
    "bars": ("8", "12", "16"),
    "form": FORMS,
}
FIRST_LINE = "tune: a {mood} {dance} in {key}, {bars} bars, {form}"

# Moods and dances that never go together in training, so that a model can be asked for what it has
# not seen. Besides, one in eleven of all other first lines is kept back.
HELD_OUT = (("calm", "reel"), ("proud", "waltz"), ("sad", "march"), ("brave", "jig"))


@functools.cache
def every_first_line(held_out: bool) -> dict[str, int]:
    """Return all first lines that training may see, or those that it must not, with weights."""
    lines = {}
    for n, values in enumerate(itertools.product(*FIELDS.values())):
        mood, dance, key, bars, form = values
        if Key(key).mode == MOODS[mood].mode and int(bars) == PHRASE * len(form):
            kept = (mood, dance) in HELD_OUT or n % 11 == 0  # so that no field keeps to a rhythm
            if kept == held_out:
                line = FIRST_LINE.format(**dict(zip(FIELDS, values, strict=True)))
                lines[f"{line}\n"] = 1
    return lines


def read_first_line(line: str) -> tuple[dict[str, str], list[str]]:
    """Return the conditions of a first line, as far as it can be read, and complaints about it."""
    pattern = re.escape(FIRST_LINE).replace(r"\ ", " ")
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\w+)", pattern)
    found = re.fullmatch(pattern, line)
    if not found:
        return {}, [f'the first line is not of the form "{FIRST_LINE}"']
    complaints = [
        f"{field}: {value} in the first line is none of {', '.join(FIELDS[field])}"
        for field, value in found.groupdict().items()
        if value not in FIELDS[field]
    ]
    known = {field: v for field, v in found.groupdict().items() if v in FIELDS[field]}
    if not complaints:
        mood, key = known["mood"], Key(known["key"])
        if MOODS[mood].mode != key.mode:
            return known, [f"a {mood} tune is in a {MOODS[mood].mode} key, not in {key.name}"]
    return known, complaints
