"""Probabilistic grammars whose every text has an exactly known probability.

A grammar is a table of rules. A rule is a list of templates, one of which is drawn, each with the
same chance; a template is text with `{slots}` that name other rules. As a table for `parse_rules`:

    animal: fox owl
    size: big old tiny
    sound by animal:
      fox: barked | yelped
      owl: hooted
    start:
      {A size} {animal} {sound}.
      The {animal} slept, and {a size} moon shone.

- `{size}` writes what rule `size` draws; every mention draws anew, unless `size` is remembered.
- A *remembered* rule is drawn once, before anything is written, and all its mentions repeat that
  word. Here `animal` must be remembered, because
- `sound by animal` has other templates for each remembered animal. In code: `By("animal", {...})`.
- `{a size}` puts "a" or "an" before the word; `{Size}` and `{A size}` begin with a capital. These
  are for rules that are plain lists of words.

All draws being uniform, a text that exactly one sequence of draws can write has probability
1 / (product of the numbers of options), an exact fraction. A `Grammar` draws texts, reads them
back, counts them, and knows their entropy without sampling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from minigen.corpora.dice import Dice


@dataclass(frozen=True)
class By:
    """Templates that depend on the remembered word `key`: one list of templates for each word."""

    key: str
    cases: Mapping[str, Sequence[str]]


Rule = Sequence[str] | By


@dataclass(frozen=True, slots=True)
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


ReadableTemplate = tuple[str | Slot | WordList, ...]


def article(word: str) -> str:
    """ "an" before a vowel letter, else "a"; so keep "hour" and "unicorn" out of the lists."""
    return "an" if word[0].lower() in "aeiou" else "a"


def parse_rules(table: str) -> dict[str, Rule]:
    """Read a table such as the one above. Lines that belong to the rule above them are indented.

    >>> parse_rules("size: big old\\ngreeting:\\n  good day\\n  hello, {a size} fox")
    {'size': ('big', 'old'), 'greeting': ('good day', 'hello, {a size} fox')}
    """
    rules: dict[str, Rule] = {}
    for block in re.split(r"\n(?=\S)", table.strip("\n")):
        head, *lines = block.splitlines()
        name, _, words = head.partition(":")
        name, _, key = name.partition(" by ")
        if key:
            cases: dict[str, tuple[str, ...]] = {}
            for line in lines:
                value, _, templates = line.strip().partition(": ")
                cases[value] = (*cases.get(value, ()), *templates.split(" | "))
            rules[name] = By(key, cases)
        elif words:
            rules[name] = tuple(" ".join([words, *lines]).split())
        else:
            rules[name] = tuple(line.strip() for line in lines)
    return rules


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

    A remembered rule is a plain list of words, or `By` an earlier one with as many words in each
    case. `By` looks at a remembered plain list and has a case for each of its words. In a plain
    list no word begins another, so that a text has at most one of them at a place. A `ValueError`
    says which of these does not hold, or which slot names no rule.
    """

    def __init__(
        self, rules: Mapping[str, Rule], remembered: Sequence[str], start: str = "start"
    ) -> None:
        self.remembered = tuple(remembered)
        self.start = start
        self.by_key: dict[str, str | None] = {}  # the word that a rule's `By` looks at
        self.cases: dict[str, dict[str, tuple[Template, ...]]] = {}
        for name, rule in rules.items():
            self.by_key[name] = rule.key if isinstance(rule, By) else None
            cases = rule.cases if isinstance(rule, By) else {"": rule}
            self.cases[name] = {v: tuple(map(parse_template, ts)) for v, ts in cases.items()}
        word_lists: dict[Slot, WordList] = {}
        for slot in {Slot(name, False, False) for name in rules} | set(self._all_slots()):
            if slot.name not in rules:
                raise ValueError(f"{{{slot.name}}} names no rule")
            if self._is_plain(slot.name):
                word_lists[slot] = self._word_list(slot)
            elif slot.article or slot.capital or slot.name in self.remembered:
                raise ValueError(f"rule {slot.name} is not a plain list of words")
        for name, key in self.by_key.items():
            if key and (key not in self.remembered or self.by_key[key]):
                raise ValueError(f"rule {name} is by {key}, which is not a remembered plain list")
            if key and self.cases[name].keys() != {str(word) for (word,) in self.cases[key][""]}:
                raise ValueError(f"rule {name} does not have one case for each {key}")
        for name in self.remembered:
            if len({len(templates) for templates in self.cases[name].values()}) > 1:
                raise ValueError(f"remembered rule {name} has cases that differ in size")
        self._keys = {name: self._find_keys(name) for name in rules}
        # The same templates for the parser, with the word lists in place of their slots.
        self.readable: dict[str, tuple[tuple[str, int, ReadableTemplate], ...]] = {
            name: tuple(
                (
                    value,
                    len(templates),
                    tuple(word_lists.get(i, i) if isinstance(i, Slot) else i for i in t),
                )
                for value, templates in cases.items()
                for t in templates
            )
            for name, cases in self.cases.items()
        }

    # ---- drawing -------------------------------------------------------------------------------

    def draw(self, dice: Dice) -> tuple[str, dict[str, str]]:
        """Draw a text; return it, and the remembered words."""
        memory: dict[str, str] = {}
        for name in self.remembered:
            memory[name] = self.draw_rule(name, memory, dice)
        return self.draw_rule(self.start, memory, dice), memory

    def draw_rule(self, name: str, memory: Mapping[str, str], dice: Dice) -> str:
        """Draw a text of the rule `name`, given the remembered words."""
        text = ""
        for item in dice.choose(self._templates(name, memory)):
            if isinstance(item, str):
                text += item
            elif item.name in memory:
                text += item.dress(memory[item.name])
            else:
                text += item.dress(self.draw_rule(item.name, memory, dice))
        return text

    # ---- reading -------------------------------------------------------------------------------

    def ways(self, text: str) -> int | None:
        """1 / the probability of a text that has one reading; None if the grammar cannot write it.

        >>> Grammar({"start": ("{pet} and {pet}",), "pet": ("cat", "dog")}, []).ways("cat and cat")
        4
        """
        for reading in Parser(self, text).readings(self.start):
            memory: dict[str, str] = {}
            agrees = all(memory.setdefault(m.name, m.value) == m.value for m in reading.mentions)
            if agrees and reading.end == len(text):
                return reading.ways * self._n_memories()
        return None

    # ---- measuring -----------------------------------------------------------------------------

    def entropy(self) -> float:
        """Mean of -log2 p(text) in bits: for each draw, log2(number of options) x its chance.

        H = -sum_x p(x) log2 p(x); by the chain rule it is a sum over draws (Shannon 1948, sec. 6).
        """
        return math.log2(self._n_memories()) + self._mean_bits(self.start, {})

    def _mean_bits(self, name: str, known: Mapping[str, str]) -> float:
        """Mean bits of a rule's draws, if the remembered words are `known` or still random."""
        key = self.by_key[name]
        values = self.cases[name] if key and key not in known else None
        if key and values:
            bits = [self._mean_bits(name, {**known, key: value}) for value in values]
            return math.fsum(bits) / len(bits)
        templates = self._templates(name, known)
        slots = [slot for template in templates for slot in self._draws(template)]
        bits = [self._mean_bits(slot.name, known) for slot in slots]
        return math.log2(len(templates)) + math.fsum(bits) / len(templates)

    def count(self) -> int:
        """The number of different texts, provided that each has one reading only."""
        keys = self._keys[self.start]
        words = [[str(template[0]) for template in self.cases[key][""]] for key in keys]
        counted: dict[tuple[str, ...], int] = {}
        counts = [
            self._count(self.start, dict(zip(keys, setting, strict=True)), counted)
            for setting in product(*words)
        ]
        return self._n_memories() // len(counts) * sum(counts)

    def _count(
        self, name: str, memory: Mapping[str, str], counted: dict[tuple[str, ...], int]
    ) -> int:
        memo = (name, *(memory[key] for key in self._keys[name]))
        if memo not in counted:
            counted[memo] = sum(
                math.prod(self._count(slot.name, memory, counted) for slot in self._draws(template))
                for template in self._templates(name, memory)
            )
        return counted[memo]

    def _n_memories(self) -> int:
        """The number of ways to draw all remembered words; they are equally likely."""
        return math.prod(len(next(iter(self.cases[name].values()))) for name in self.remembered)

    def _draws(self, template: Template) -> list[Slot]:
        """The slots that draw, rather than repeat a remembered word."""
        slots = [item for item in template if isinstance(item, Slot)]
        return [slot for slot in slots if slot.name not in self.remembered]

    # ---- the tables ----------------------------------------------------------------------------

    def _templates(self, name: str, memory: Mapping[str, str]) -> tuple[Template, ...]:
        cases, key = self.cases[name], self.by_key[name]
        return cases[memory[key]] if key else cases[""]

    def _all_slots(self) -> Iterator[Slot]:
        for cases in self.cases.values():
            for templates in cases.values():
                for template in templates:
                    yield from (item for item in template if isinstance(item, Slot))

    def _is_plain(self, name: str) -> bool:
        return all(
            len(template) == 1 and isinstance(template[0], str)
            for templates in self.cases[name].values()
            for template in templates
        )

    def _word_list(self, slot: Slot) -> WordList:
        meaning: dict[str, tuple[int, tuple[tuple[str, str], ...]]] = {}
        key = self.by_key[slot.name]
        for value, templates in self.cases[slot.name].items():
            for template in templates:
                word = str(template[0])
                remembered = slot.name in self.remembered
                said: tuple[tuple[str, str], ...] = ((key, value),) if key else ()
                if remembered:
                    said = (*said, (slot.name, word))
                if any(word.startswith(w) or w.startswith(word) for w in meaning):
                    raise ValueError(
                        f"{word!r} in list {slot.name} begins another word, or ends so"
                    )
                meaning[word] = (1 if remembered else len(templates), said)
        dressed = {slot.dress(word): means for word, means in meaning.items()}
        return WordList(re.compile("|".join(map(re.escape, dressed))), dressed)

    def _find_keys(self, name: str) -> tuple[str, ...]:
        """The remembered words that the texts of a rule depend on by `By`, directly or below."""
        key = self.by_key[name]
        keys = {key} if key else set()
        for templates in self.cases[name].values():
            for template in templates:
                for slot in self._draws(template):
                    keys.update(self._find_keys(slot.name))
        return tuple(sorted(keys))


class Parser:
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
        key = self.grammar.by_key[name]
        for value, n_templates, template in self.grammar.readable[name]:
            first = template[0] if template else ""
            if isinstance(first, str) and not self.text.startswith(first, before.end):
                self._fail(first, before.end)  # most templates end here: it pays to ask first
                continue
            reading = Reading(before.end, before.ways * n_templates, before.mentions)
            for after in self._read_items(template, 0, reading):
                if key:
                    said = (Mention(key, value, before.end, after.end),)
                    after = Reading(after.end, after.ways, after.mentions + said)
                yield after

    def _read_items(self, template: ReadableTemplate, i: int, before: Reading) -> Iterator[Reading]:
        """All ways to read `template[i:]` after what is read already."""
        end, ways, mentions = before.end, before.ways, before.mentions
        for j in range(i, len(template)):
            item = template[j]
            if isinstance(item, str):
                if not self.text.startswith(item, end):
                    self._fail(item, end)
                    return
                end += len(item)
            elif isinstance(item, WordList):
                found = item.pattern.match(self.text, end)
                if not found:
                    self._fail("", end)
                    return
                n, said = item.meaning[found[0]]
                ways *= n
                if said:
                    mentions += tuple(Mention(k, v, end, found.end()) for k, v in said)
                end = found.end()
            else:
                for after in self._read_rule(item.name, Reading(end, ways, mentions)):
                    yield from self._read_items(template, j + 1, after)
                return
        self._fail("", end)  # perhaps the text goes on, though it should not
        yield Reading(end, ways, mentions)

    def _fail(self, expected: str, end: int) -> None:
        """Note that the text is fine up to `end` at least, and does not continue as `expected`."""
        if end + len(expected) > self.furthest:
            while expected and self.text[end : end + 1] == expected[0]:
                end, expected = end + 1, expected[1:]
            self.furthest = max(self.furthest, end)
