"""The kinds of questions, and the tables that write them in the words of the tales.

A question has one step or two, and so has its kind: `reverse`, or `reverse first`, which says the
first word of the reversed ones.
"""

from __future__ import annotations

from minigen.corpora.grammar import By, Grammar, parse_rules
from minigen.corpora.tales.tables import CAST, FIELDS, LISTS, PARTS, PHRASES

# The question of each step.
STEPS = {
    "hero": "Who is the hero?",
    "friend": "Who is the friend?",
    "place": "Where are they?",
    "past": "Say it in the past.",
    "add": "How many do they have?",
    "first": "Say the first.",
    "last": "Say the last.",
    "any": "Say any.",
    "count": "Count them.",
    "reverse": "Say them backwards.",
    "sort": "Sort them.",
    "pirate": "Say it as a pirate.",
}
# The kinds of one step, and the weight of each in a draw: more for those that are hard to learn.
ONE_STEP = {
    "hero": 3, "friend": 3, "place": 3, "past": 4, "add": 12, "first": 3, "last": 3, "any": 3,
    "count": 6, "reverse": 10, "sort": 8,
}  # fmt: skip
# The second steps that can follow a first step. They are about its answer. The more of them a model
# has seen, the less it can learn each pair by heart instead of two steps one after the other: if
# "say the last" followed only names, the model would say an animal after any tale.
SECOND_STEPS = {
    **dict.fromkeys(
        ("hero", "friend", "place", "past", "reverse", "sort"),
        ("first", "last", "pirate", "reverse", "count"),
    ),
    **dict.fromkeys(("add", "first", "last", "any", "count"), ("first", "last", "pirate")),
}
# The kinds that no training text has: each of their steps is in other kinds, but not both together.
HELD_OUT = ("sort first", "reverse last", "place last", "hero pirate", "any pirate")
# The kinds of training and validation, with their weights.
TRAINED = ONE_STEP | {
    f"{first} {second}": 2
    for first, seconds in SECOND_STEPS.items()
    for second in seconds
    if f"{first} {second}" not in HELD_OUT
}

# Each verb as if a tale happened today, and as the tales have it.
PAST = {
    "hops": "hopped", "hurries": "hurried", "marches": "marched", "wanders": "wandered",
    "trots": "trotted", "skips": "skipped", "strolls": "strolled", "dances": "danced",
    "creeps": "crept", "races": "raced", "rolls": "rolled", "swims": "swam",
}  # fmt: skip


def _plain(name: str) -> tuple[str, ...]:
    """Return the words of a plain list of the tales."""
    rule = LISTS[name]
    assert not isinstance(rule, By)
    return tuple(rule)


NUMBERS = _plain("number")  # two to thirteen
WORDS = (*_plain("things"), *_plain("foods"), *_plain("clothes"))

# The texts that questions are about. "{title}" is drawn again at each mention, but depends on the
# hero's sex, so it is the same.
GRAMMAR = Grammar(
    {
        **FIELDS,
        **CAST,
        **LISTS,
        **PARTS,
        **PHRASES,
        **parse_rules("""
tale:
  {opening} {meeting}
  {opening} {finding}
goal:
  to the {worn} {spot}
"""),
    },
    remembered=[*FIELDS, *CAST],
    start="tale",
)
