"""Probabilistic grammars whose every text has an exactly known probability.

A grammar is a table of rules. A rule is a list of templates, one of which is drawn, each with the
same chance; a template is text with `{slots}` that name other rules:

    rules = {
        "animal": ("fox", "owl"),
        "size": ("big", "old", "tiny"),
        "start": ("{A size} {animal} ran.", "The {animal} slept, and {a size} {animal} sang."),
    }

- `{size}` writes what rule `size` draws; every mention draws anew, unless `size` is remembered.
- A *remembered* rule is drawn once, before anything is written, and all its mentions repeat that
  word: were `animal` remembered, then the one that slept and the one that sang were the same.
- `By("animal", {"fox": (...), "owl": (...)})` draws from the templates for the remembered animal.
- `{a size}` puts "a" or "an" before the word; `{Size}` and `{A size}` begin with a capital. These
  are for rules that are plain lists of words.

All draws being uniform, a text that exactly one sequence of draws can write has probability
1 / (product of the numbers of options), an exact fraction. A `Grammar` draws texts, reads them back,
counts them, and knows their entropy without sampling.
"""

from __future__ import annotations

import math
import os.path
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class By:
    """Templates that depend on the remembered word `key`: one list of templates for each word."""

    key: str
    cases: Mapping[str, Sequence[str]]


Rule = Sequence[str] | By


@dataclass(frozen=True)
class Slot:
    """One `{mention}` of the rule `name` in a template."""

    name: str
    article: bool
    capital: bool

    def dress(self, word: str) -> str:
        if self.article:
            word = f"{article(word)} {word}"
        return word[0].upper() + word[1:] if self.capital else word


Template = tuple[str | Slot, ...]


@dataclass(frozen=True)
class Mention:
    """The text at `start:end` says that the remembered rule `name` is `value`."""

    name: str
    value: str
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """A way to read a text up to `end`; `ways` multiplies up the numbers of options drawn from."""

    end: int
    ways: int
    mentions: tuple[Mention, ...]


@dataclass(frozen=True)
class WordList:
    """How to read a slot of a plain list: one pattern; what each word's choice means."""

    pattern: re.Pattern[str]
    meaning: Mapping[str, tuple[int, tuple[tuple[str, str], ...]]]  # word: ways, (name, value)...


def article(word: str) -> str:
    """ "an" before a vowel letter, else "a"; so keep "hour" and "unicorn" out of the lists."""
    return "an" if word[0].lower() in "aeiou" else "a"


def parse_template(template: str) -> Template:
    """Split a template at its slots: "The {A size}" -> ("The ", Slot("size", True, True))."""
    items: list[str | Slot] = []
    end = 0
    for found in re.finditer(r"\{([aA] )?(\w+)\}", template):
        if found.start() > end:
            items.append(template[end : found.start()])
        name = found[2][0].lower() + found[2][1:]
        items.append(Slot(name, article=bool(found[1]), capital=found[0][1].isupper()))
        end = found.end()
    if end < len(template):
        items.append(template[end:])
    return tuple(items)


class Grammar:
    """`rules`; the names of the `remembered` ones, in the order in which they are drawn; a start.

    A remembered rule is a plain list, or `By` an earlier one with as many words in each case. In a
    plain list no word begins another, so that a text has at most one of them at a place. Breaking
    these is a `ValueError`, and so is a slot that names no rule.
    """

    def __init__(
        self, rules: Mapping[str, Rule], remembered: Sequence[str], start: str = "start"
    ) -> None:
        self.remembered = tuple(remembered)
        self.start = start
        self._key: dict[str, str | None] = {}  # the word that a rule's `By` looks at
        self._cases: dict[str, dict[str, tuple[Template, ...]]] = {}
        for name, rule in rules.items():
            self._key[name] = rule.key if isinstance(rule, By) else None
            cases = rule.cases if isinstance(rule, By) else {"": rule}
            self._cases[name] = {v: tuple(map(parse_template, ts)) for v, ts in cases.items()}
        self._words: dict[Slot, WordList] = {}
        for slot in {Slot(name, False, False) for name in rules} | set(self._all_slots()):
            if slot.name not in rules:
                raise ValueError(f"{{{slot.name}}} names no rule")
            if self._is_plain(slot.name):
                self._words[slot] = self._word_list(slot)
            elif slot.article or slot.capital or slot.name in self.remembered:
                raise ValueError(f"rule {slot.name} is not a plain list of words")
        for name in self.remembered:
            if len({len(templates) for templates in self._cases[name].values()}) > 1:
                raise ValueError(f"remembered rule {name} has cases that differ in size")
        self._keys = {name: self._find_keys(name) for name in rules}

    # ---- writing -------------------------------------------------------------------------------

    def write(self, rng: random.Random) -> tuple[str, int, dict[str, str]]:
        """Draw a text. Returns it, 1 / its probability, and the remembered words."""
        memory: dict[str, str] = {}
        ways = 1
        for name in self.remembered:
            word, n = self._write(name, memory, rng)
            memory[name] = word
            ways *= n
        text, n = self._write(self.start, memory, rng)
        return text, ways * n, memory

    def _write(self, name: str, memory: Mapping[str, str], rng: random.Random) -> tuple[str, int]:
        templates = self._templates(name, memory)
        ways = len(templates)
        text = ""
        # random() is the one method whose numbers Python promises to keep for ever.
        for item in templates[int(rng.random() * ways)]:
            if isinstance(item, str):
                text += item
            elif item.name in memory:
                text += item.dress(memory[item.name])
            else:
                word, n = self._write(item.name, memory, rng)
                text += item.dress(word)
                ways *= n
        return text, ways

    # ---- reading -------------------------------------------------------------------------------

    def memory_ways(self, memory: Mapping[str, str]) -> int:
        """The product of the numbers of options of the remembered words' own draws."""
        return math.prod(len(self._templates(name, memory)) for name in self.remembered)

    def ways(self, text: str) -> int | None:
        """1 / the probability of a text that has one reading; None if the grammar cannot write it.

        >>> Grammar({"start": ("{pet} and {pet}",), "pet": ("cat", "dog")}, []).ways("cat and cat")
        4
        """
        for reading in Reader(self, text).readings(self.start):
            memory: dict[str, str] = {}
            agrees = all(memory.setdefault(m.name, m.value) == m.value for m in reading.mentions)
            if agrees and reading.end == len(text):
                return reading.ways * self.memory_ways(memory)
        return None

    # ---- measuring -----------------------------------------------------------------------------

    def entropy(self) -> float:
        """Mean of -log2 p(text) in bits: for each draw, log2(number of options) x its chance.

        H = -sum_x p(x) log2 p(x); the chain rule makes it a sum over draws (Shannon 1948, section 6).
        """
        measures = [bits for _, bits in self._worlds()]
        cast = math.log2(
            math.prod(len(next(iter(self._cases[n].values()))) for n in self.remembered)
        )
        return cast + math.fsum(measures) / len(measures)

    def count(self) -> int:
        """The number of different texts, provided that each has one reading only."""
        counts = [count for count, _ in self._worlds()]
        casts = math.prod(len(next(iter(self._cases[n].values()))) for n in self.remembered)
        return casts // len(counts) * sum(counts)

    def _worlds(self) -> Iterator[tuple[int, float]]:
        """Number of texts and entropy for each (equally likely) setting of the words used by `By`."""
        keys = self._keys[self.start]
        measured: dict[tuple[str, ...], tuple[int, float]] = {}
        words = [[str(template[0]) for template in self._cases[key][""]] for key in keys]
        for setting in product(*words):
            yield self._measure(self.start, dict(zip(keys, setting, strict=True)), measured)

    def _measure(
        self,
        name: str,
        world: Mapping[str, str],
        measured: dict[tuple[str, ...], tuple[int, float]],
    ) -> tuple[int, float]:
        memo = (name, *(world[key] for key in self._keys[name]))
        if memo not in measured:
            count, bits = 0, 0.0
            templates = self._templates(name, world)
            for template in templates:
                parts = [
                    self._measure(slot.name, world, measured)
                    for slot in template
                    if isinstance(slot, Slot) and slot.name not in self.remembered
                ]
                count += math.prod(n for n, _ in parts)
                bits += math.fsum(b for _, b in parts)
            measured[memo] = count, math.log2(len(templates)) + bits / len(templates)
        return measured[memo]

    # ---- the tables ----------------------------------------------------------------------------

    def _templates(self, name: str, memory: Mapping[str, str]) -> tuple[Template, ...]:
        key = self._key[name]
        return self._cases[name][memory[key] if key else ""]

    def _all_slots(self) -> Iterator[Slot]:
        for cases in self._cases.values():
            for templates in cases.values():
                for template in templates:
                    yield from (item for item in template if isinstance(item, Slot))

    def _is_plain(self, name: str) -> bool:
        return all(
            len(template) == 1 and isinstance(template[0], str)
            for templates in self._cases[name].values()
            for template in templates
        )

    def _word_list(self, slot: Slot) -> WordList:
        meaning: dict[str, tuple[int, tuple[tuple[str, str], ...]]] = {}
        key = self._key[slot.name]
        for value, templates in self._cases[slot.name].items():
            for template in templates:
                word = str(template[0])
                remembered = slot.name in self.remembered
                said = ((key, value),) if key else ()
                said += ((slot.name, word),) if remembered else ()
                if any(word.startswith(w) or w.startswith(word) for w in meaning):
                    raise ValueError(
                        f"{word!r} in list {slot.name} begins another word, or ends so"
                    )
                meaning[word] = (1 if remembered else len(templates), said)
        dressed = {slot.dress(word): means for word, means in meaning.items()}
        return WordList(re.compile("|".join(map(re.escape, dressed))), dressed)

    def _find_keys(self, name: str) -> tuple[str, ...]:
        """The remembered words that the texts of a rule depend on by `By`, directly or below."""
        key = self._key[name]
        keys = {key} if key else set()
        for templates in self._cases[name].values():
            for template in templates:
                for item in template:
                    if isinstance(item, Slot) and item.name not in self.remembered:
                        keys.update(self._find_keys(item.name))
        return tuple(sorted(keys))


class Reader:
    """Reads one text. `furthest` is how far any reading came: where a faulty text goes wrong.

    A mention of a remembered rule may be any of its words here, and the readings list what they
    say, so that a text that contradicts itself can still be read, and the contradiction named.
    """

    def __init__(self, grammar: Grammar, text: str) -> None:
        self.grammar = grammar
        self.text = text
        self.furthest = 0

    def readings(self, name: str, start: int = 0) -> Iterator[Reading]:
        """All ways to read a beginning of `text[start:]` as a text of the rule `name`."""
        return self._read_rule(name, Reading(start, 1, ()))

    def _read_rule(self, name: str, before: Reading) -> Iterator[Reading]:
        key = self.grammar._key[name]
        for value, templates in self.grammar._cases[name].items():
            for template in templates:
                reading = Reading(before.end, before.ways * len(templates), before.mentions)
                for after in self._read_items(template, 0, reading):
                    if key:
                        said = (Mention(key, value, before.end, after.end),)
                        after = Reading(after.end, after.ways, after.mentions + said)
                    yield after

    def _read_items(self, template: Template, i: int, before: Reading) -> Iterator[Reading]:
        end, ways, mentions = before.end, before.ways, before.mentions
        for i in range(i, len(template)):
            item = template[i]
            if isinstance(item, str):
                if not self.text.startswith(item, end):
                    if end + len(item) > self.furthest:
                        rest = self.text[end : end + len(item)]
                        came = end + len(os.path.commonprefix([item, rest]))
                        self.furthest = max(self.furthest, came)
                    return
                end += len(item)
            elif words := self.grammar._words.get(item):
                found = words.pattern.match(self.text, end)
                self.furthest = max(self.furthest, end)
                if not found:
                    return
                n, said = words.meaning[found[0]]
                ways *= n
                if said:
                    mentions += tuple(Mention(k, v, end, found.end()) for k, v in said)
                end = found.end()
            else:
                for after in self._read_rule(item.name, Reading(end, ways, mentions)):
                    yield from self._read_items(template, i + 1, after)
                return
        self.furthest = max(self.furthest, end)
        yield Reading(end, ways, mentions)
