"""Probabilistic grammars that compute the exact probability of each of their texts.

A grammar is a table of rules. A rule is a list of templates, of which one is drawn, each with the
same probability. A template is text with `{slots}` that name other rules. This is a table, as
`parse_rules` reads it:

    animal: fox owl
    size: big old tiny
    sound by animal:
      fox: barked | yelped
      owl: hooted
    start:
      {A size} {animal} {sound}.
      The {animal} slept, and {a size} moon shone.

- `{size}` writes a word that is drawn from rule `size`. Each mention draws again, unless `size` is
  remembered.
- A *remembered* rule is drawn once, before anything is written, and all its mentions repeat that
  word.
- `sound by animal` has other templates for each animal, so `animal` must be remembered here. In
  code, the rule is `By("animal", {...})`.
- `{a size}` writes "a" or "an" before the word; `{Size}` and `{A size}` begin with a capital. These
  forms are only for rules that are plain lists of words.

**Why the entropy is exact.** A *derivation* of a text is a sequence of draws that writes the text.
All draws are uniform, so a derivation has the probability 1 / (product of the numbers of options),
an exact fraction. An *ambiguous* text has several derivations, and their probabilities add up. So
the text is more probable than each of its derivations, and the entropy of the texts is lower than
that of the draws (test_probabilities_of_derivations_add_up). If each text has one derivation, both
entropies are the same, and a sum over the rules gives the entropy without sampling.

`Grammar` assumes that each text has one derivation. The conditions that it checks for word lists
help to keep this true, but do not prove it. So one test writes out all texts of a small grammar
(test_measures_agree_with_all_texts_of_a_grammar), and another counts the derivations of sampled
tales (test_a_tale_has_one_derivation).
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
    """Templates that depend on the remembered word of rule `key`: a list for each of its words."""

    key: str
    cases: Mapping[str, Sequence[str]]


Rule = Sequence[str] | By


@dataclass(frozen=True, slots=True)
class Slot:
    """A `{mention}` of the rule `name` in a template."""

    name: str
    article: bool
    capital: bool

    def format(self, word: str) -> str:
        """Return the word as this slot writes it: with its article and its capital."""
        if self.article:
            word = f"{article(word)} {word}"
        return word[0].upper() + word[1:] if self.capital else word


Template = tuple[str | Slot, ...]


@dataclass(frozen=True)
class Mention:
    """The place `start:end` of a text, which shows that `value` is the word of rule `name`."""

    name: str
    value: str
    start: int
    end: int


@dataclass(frozen=True)
class Parse:
    """A derivation of a text up to `end`, without the draws of the remembered words.

    inverse_p: 1 / the probability of its draws, which is the product of their numbers of options.
    mentions: the places that show the word of a remembered rule. They may contradict each other.
    """

    end: int
    inverse_p: int
    mentions: tuple[Mention, ...]


@dataclass(frozen=True)
class WordList:
    """A slot of a plain list, made ready to parse: one pattern for all words.

    choices: for each word, 1 / the probability of its draw, and the remembered words that it
        shows, as (name, value).
    """

    pattern: re.Pattern[str]
    choices: Mapping[str, tuple[int, tuple[tuple[str, str], ...]]]


ParserTemplate = tuple[str | Slot | WordList, ...]


def article(word: str) -> str:
    """Return "an" before a vowel letter, else "a"; "hour" and "unicorn" must be in no list."""
    return "an" if word[0].lower() in "aeiou" else "a"


def parse_rules(table: str) -> dict[str, Rule]:
    """Return the rules of a table; the docstring of this module shows the form of a table.

    An indented line belongs to the rule above it.

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
    """A table of rules: it draws texts, and computes the probability of a text and the entropy.

    Args:
        rules: the table. In a plain list, no word is the beginning of another word, so at most one
            word of a list fits at any place of a text. `By` names a remembered plain list, and has
            a case for each word of that list.
        remembered: the names of the remembered rules, in the order in which they are drawn. Each
            is a plain list, or is `By` an earlier one and has the same number of words in each
            case; so all combinations of remembered words are equally probable.
        start: the rule that writes a text.

    Raises `ValueError` if a rule does not fulfil these conditions, or a slot names no rule.
    """

    def __init__(
        self, rules: Mapping[str, Rule], remembered: Sequence[str], start: str = "start"
    ) -> None:
        self.remembered = tuple(remembered)
        self.start = start
        self.by_key: dict[str, str | None] = {}  # the remembered rule that a rule depends on
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
        # Templates for the parser: (remembered word, number of options, template with word lists).
        self.parser_templates: dict[str, tuple[tuple[str, int, ParserTemplate], ...]] = {
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
        """Draw a text. Return the text and the remembered words."""
        memory: dict[str, str] = {}
        for name in self.remembered:
            memory[name] = self.draw_rule(name, memory, dice)
        return self.draw_rule(self.start, memory, dice), memory

    def draw_rule(self, name: str, memory: Mapping[str, str], dice: Dice) -> str:
        """Draw a text of the rule `name`, with these remembered words."""
        text = ""
        for item in dice.choose(self._templates(name, memory)):
            if isinstance(item, str):
                text += item
            elif item.name in memory:
                text += item.format(memory[item.name])
            else:
                text += item.format(self.draw_rule(item.name, memory, dice))
        return text

    # ---- parsing -------------------------------------------------------------------------------

    def inverse_probability(self, text: str) -> int | None:
        """Return 1 / p(text) for a text with one derivation; None if the text has none.

        >>> pets = Grammar({"start": ("{pet} and {pet}",), "pet": ("cat", "dog")}, [])
        >>> pets.inverse_probability("cat and cat")
        4
        """
        for parse in Parser(self, text).parses(self.start):
            memory: dict[str, str] = {}
            agrees = all(memory.setdefault(m.name, m.value) == m.value for m in parse.mentions)
            if agrees and parse.end == len(text):
                return parse.inverse_p * self._n_memories()
        return None

    # ---- measuring -----------------------------------------------------------------------------

    def entropy(self) -> float:
        """Return the entropy of the text: the mean of -log2 p of a text, in bits per text.

        Each text must have one derivation. Then -log2 p(text) is the sum of log2(number of options)
        over the draws, and the mean of a sum is the sum of the means, whether or not the draws
        depend on each other (chain rule of entropy: Shannon 1948, section 6).
        """
        return math.log2(self._n_memories()) + self._mean_bits(self.start, {})

    def _mean_bits(self, name: str, memory: Mapping[str, str]) -> float:
        """Return the mean bits of a rule's draws, over all words that `memory` leaves open."""
        key = self.by_key[name]
        values = self.cases[name] if key and key not in memory else None
        if key and values:
            bits = [self._mean_bits(name, {**memory, key: value}) for value in values]
            return math.fsum(bits) / len(bits)
        templates = self._templates(name, memory)
        slots = [slot for template in templates for slot in self._drawing_slots(template)]
        bits = [self._mean_bits(slot.name, memory) for slot in slots]
        return math.log2(len(templates)) + math.fsum(bits) / len(templates)

    def count(self) -> int:
        """Return the number of derivations, which is the number of texts if each text has one."""
        keys = self._keys[self.start]
        words = [[str(template[0]) for template in self.cases[key][""]] for key in keys]
        cache: dict[tuple[str, ...], int] = {}
        counts = [
            self._count(self.start, dict(zip(keys, combination, strict=True)), cache)
            for combination in product(*words)
        ]
        return self._n_memories() // len(counts) * sum(counts)

    def _count(
        self, name: str, memory: Mapping[str, str], cache: dict[tuple[str, ...], int]
    ) -> int:
        """Return the number of derivations of a rule with these remembered words."""
        cache_key = (name, *(memory[key] for key in self._keys[name]))
        if cache_key not in cache:
            cache[cache_key] = sum(
                math.prod(
                    self._count(slot.name, memory, cache) for slot in self._drawing_slots(template)
                )
                for template in self._templates(name, memory)
            )
        return cache[cache_key]

    def _n_memories(self) -> int:
        """Return the number of combinations of remembered words; they are equally probable."""
        return math.prod(len(next(iter(self.cases[name].values()))) for name in self.remembered)

    def _drawing_slots(self, template: Template) -> list[Slot]:
        """Return the slots that draw, rather than repeat a remembered word."""
        slots = [item for item in template if isinstance(item, Slot)]
        return [slot for slot in slots if slot.name not in self.remembered]

    # ---- the table ----------------------------------------------------------------------------

    def _templates(self, name: str, memory: Mapping[str, str]) -> tuple[Template, ...]:
        """Return the templates of a rule with these remembered words."""
        cases, key = self.cases[name], self.by_key[name]
        return cases[memory[key]] if key else cases[""]

    def _all_slots(self) -> Iterator[Slot]:
        """Yield the slots of all templates."""
        for cases in self.cases.values():
            for templates in cases.values():
                for template in templates:
                    yield from (item for item in template if isinstance(item, Slot))

    def _is_plain(self, name: str) -> bool:
        """Return whether a rule is a plain list of words: no template has a slot."""
        return all(
            len(template) == 1 and isinstance(template[0], str)
            for templates in self.cases[name].values()
            for template in templates
        )

    def _word_list(self, slot: Slot) -> WordList:
        """Return the words that a slot of a plain list can write, ready to parse."""
        choices: dict[str, tuple[int, tuple[tuple[str, str], ...]]] = {}
        key = self.by_key[slot.name]
        for value, templates in self.cases[slot.name].items():
            for template in templates:
                word = str(template[0])
                remembered = slot.name in self.remembered
                shown: tuple[tuple[str, str], ...] = ((key, value),) if key else ()
                if remembered:
                    shown = (*shown, (slot.name, word))
                if any(word.startswith(w) or w.startswith(word) for w in choices):
                    raise ValueError(
                        f"{word!r} in list {slot.name} begins another word, or another begins it"
                    )
                choices[word] = (1 if remembered else len(templates), shown)
        formatted = {slot.format(word): choice for word, choice in choices.items()}
        return WordList(re.compile("|".join(map(re.escape, formatted))), formatted)

    def _find_keys(self, name: str) -> tuple[str, ...]:
        """Return the remembered rules that a rule depends on: by its own `By` or by a slot's."""
        key = self.by_key[name]
        keys = {key} if key else set()
        for templates in self.cases[name].values():
            for template in templates:
                for slot in self._drawing_slots(template):
                    keys.update(self._find_keys(slot.name))
        return tuple(sorted(keys))


class Parser:
    """A parser of one text, which finds its derivations.

    The parser takes any word of a remembered rule at each of its mentions, and a parse lists the
    word of each mention. So a text that contradicts itself has a parse, and `check` can name the
    contradiction
    (test_a_text_that_contradicts_itself_has_a_parse_but_no_probability).

    furthest: the end of the longest beginning that a parse reached. A faulty text is wrong there.
    """

    def __init__(self, grammar: Grammar, text: str) -> None:
        self.grammar = grammar
        self.text = text
        self.furthest = 0

    def parses(self, name: str, start: int = 0) -> Iterator[Parse]:
        """Yield all parses of a beginning of `text[start:]` as a text of the rule `name`."""
        return self._parse_rule(name, Parse(start, 1, ()))

    def _parse_rule(self, name: str, before: Parse) -> Iterator[Parse]:
        """Yield all parses that continue `before` with a text of the rule `name`."""
        key = self.grammar.by_key[name]
        for value, n_templates, template in self.grammar.parser_templates[name]:
            first = template[0] if template else ""
            if isinstance(first, str) and not self.text.startswith(first, before.end):
                # Most templates do not fit: a check here, before a generator is made, saves time.
                self._note_mismatch(first, before.end)
                continue
            parse = Parse(before.end, before.inverse_p * n_templates, before.mentions)
            for after in self._parse_items(template, 0, parse):
                if key:
                    mention = Mention(key, value, before.end, after.end)
                    after = Parse(after.end, after.inverse_p, (*after.mentions, mention))
                yield after

    def _parse_items(self, template: ParserTemplate, i: int, before: Parse) -> Iterator[Parse]:
        """Yield all parses that continue `before` with the items `template[i:]`."""
        end, inverse_p, mentions = before.end, before.inverse_p, before.mentions
        for j in range(i, len(template)):
            item = template[j]
            if isinstance(item, str):
                if not self.text.startswith(item, end):
                    self._note_mismatch(item, end)
                    return
                end += len(item)
            elif isinstance(item, WordList):
                word = item.pattern.match(self.text, end)
                if not word:
                    self._note_mismatch("", end)
                    return
                n_options, shown = item.choices[word[0]]
                inverse_p *= n_options
                if shown:
                    mentions += tuple(Mention(k, v, end, word.end()) for k, v in shown)
                end = word.end()
            else:
                for after in self._parse_rule(item.name, Parse(end, inverse_p, mentions)):
                    yield from self._parse_items(template, j + 1, after)
                return
        self._note_mismatch("", end)  # if the text continues, it should have ended here
        yield Parse(end, inverse_p, mentions)

    def _note_mismatch(self, expected: str, end: int) -> None:
        """Note that the text is right up to `end`, and as far as `expected` continues it."""
        if end + len(expected) > self.furthest:
            while expected and self.text[end : end + 1] == expected[0]:
                end, expected = end + 1, expected[1:]
            self.furthest = max(self.furthest, end)
