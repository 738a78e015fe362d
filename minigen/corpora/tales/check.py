"""The checker of tales: is a text well-formed and valid, and does it follow its prompt?"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from minigen.corpora.genre import Verdict
from minigen.corpora.grammar import Mention, Parser, article
from minigen.corpora.tales.tables import DETOURS, FIELDS, FIRST_LINE, GRAMMAR, PARTS


def check(text: str) -> Verdict:
    """Judge a text as a tale; blank lines before and after it do not count.

    A tale is well-formed if the grammar has its first line and each of its sentences. It follows
    its prompt if it shows each condition of its first line and contradicts none.

    >>> check("hero: Sir Fox").complaints[0]
    'the first line has no friend'
    """
    text = text.strip("\n")
    inverse_p = GRAMMAR.inverse_probability(text)
    first_line, _, body = text.partition("\n")
    if not first_line.startswith("hero:"):
        first_line, body = "", text
    complaints, conditions = _check_first_line(first_line)
    if inverse_p is not None:
        return Verdict(True, True, True, [], math.log2(inverse_p), conditions)

    sentences, unreadable = _parse_sentences(body)
    complaints += unreadable
    well_formed = bool(sentences) and not complaints
    parse = next(Parser(GRAMMAR, first_line).parses("first_line"), None)
    contradicted, contradictions = _contradictions(
        parse.mentions if parse else (), sentences, conditions
    )
    complaints += contradictions
    complaints += _wrong_order(sentences)
    shown_fields = {mention.name for sentence in sentences for mention in sentence.mentions}
    parts = {sentence.part for sentence in sentences}
    # Other parts mention the mood and the moral, too, but only these two fulfil the condition.
    if "ending" not in parts:
        shown_fields.discard("mood")
    if "closing" not in parts:
        shown_fields.discard("moral")
    complaints += [
        f"the tale does not show its {field}" for field in FIELDS if field not in shown_fields
    ]
    follows_prompt = (
        len(conditions) == len(FIELDS) and not contradicted and shown_fields.issuperset(FIELDS)
    )
    complaints = complaints or ["the grammar cannot write this tale"]
    return Verdict(well_formed, follows_prompt, False, complaints, None, conditions)


@dataclass(frozen=True)
class Sentence:
    """The sentence `number`, counted from 1; `part` is None if no part of a tale can be it."""

    number: int
    part: str | None
    mentions: tuple[Mention, ...]


def _check_first_line(first_line: str) -> tuple[list[str], dict[str, str]]:
    """Return complaints about a first line, and its conditions as far as they can be read."""
    if not first_line:
        return ["no first line: a tale begins with hero: and a kind of hero"], {}
    values = dict(re.findall(r"(\w+): (?:\w+ )??(\w+)(?=,|$)", first_line))
    complaints = []
    for field, words in FIELDS.items():
        if field not in values:
            complaints.append(f"the first line has no {field}")
        elif values[field] not in words:
            complaints.append(
                f"{field}: {values[field]} in the first line is none of {', '.join(words)}"
            )
    parses = Parser(GRAMMAR, first_line).parses("first_line")
    if not complaints and not any(parse.end == len(first_line) for parse in parses):
        complaints.append(f'the first line is not of the form "{FIRST_LINE}"')
    conditions = {field: values[field] for field in FIELDS if values.get(field) in FIELDS[field]}
    return complaints, conditions


SENTENCE_END = re.compile(r'[.!?]"?(?=\s+["A-Z]|\s*$)')
WORD_ROLES = {  # each of these words has one role, so it shows a condition in any sentence
    word: role
    for role in ("hero", "friend", "place", "object")
    for templates in GRAMMAR.cases[role].values()
    for (word,) in templates
    if isinstance(word, str)
}


def _parse_sentences(body: str) -> tuple[list[Sentence], list[str]]:
    """Split a paragraph into sentences, parse each, and return complaints about unreadable ones.

    A sentence that cannot be parsed still mentions the words of `WORD_ROLES` that it has.
    """
    sentences: list[Sentence] = []
    complaints: list[str] = []
    start = 0
    while start < len(body):
        number = len(sentences) + 1
        parser = Parser(GRAMMAR, body)
        parses = (
            (part, parse)
            for part in PARTS
            for parse in parser.parses(part, start)
            if body[parse.end : parse.end + 1] in ("", " ")
        )
        part, parse = next(parses, (None, None))
        if parse:
            end, mentions = parse.end, parse.mentions
        else:
            stop = SENTENCE_END.search(body, start)
            end = stop.end() if stop else len(body)
            complaints.append(_sentence_complaint(body[start:end], number, parser.furthest - start))
            mentions = tuple(
                Mention(WORD_ROLES[word[0]], word[0], word.start(), word.end())
                for word in re.compile(r"\w+").finditer(body, start, end)
                if word[0] in WORD_ROLES
            )
        sentences.append(Sentence(number, part, mentions))
        start = end + 1
    return sentences, complaints


def _sentence_complaint(sentence: str, number: int, furthest: int) -> str:
    """Return the complaint about a sentence that cannot be parsed beyond `furthest`."""
    if not re.search(r'[.!?]"?$', sentence):
        return f'the tale breaks off in sentence {number}: "{sentence[-40:]}"'
    if sentence.lstrip('"')[:1].islower():
        return f'sentence {number} begins with a small letter: "{sentence[:40]}"'
    for phrase in re.finditer(r"\b([Aa]n?) ([a-z]+)", sentence):
        right = f"{article(phrase[2])} {phrase[2]}"
        if phrase[0].lower() != right:
            return f'"{phrase[0]}" in sentence {number} should be "{right}"'
    first_wrong_word = sentence[sentence.rfind(" ", 0, furthest + 1) + 1 :]
    return f'sentence {number} is not a sentence of this grammar, from: "{first_wrong_word[:60]}"'


def _contradictions(
    first_line: tuple[Mention, ...], sentences: list[Sentence], conditions: dict[str, str]
) -> tuple[set[str], list[str]]:
    """Return the fields that the tale contradicts, and complaints about words that change.

    Args:
        first_line: the mentions in the first line, if it can be parsed.
        sentences: of the paragraph.
        conditions: of the first line, as far as they can be read.
    """
    earlier = {mention.name: (mention.value, "in the first line") for mention in first_line}
    earlier |= {field: (value, "in the first line") for field, value in conditions.items()}
    complaints: dict[tuple[str, str], str] = {}
    contradicted: set[str] = set()
    for sentence in sentences:
        place = f"in sentence {sentence.number}"
        for mention in sentence.mentions:
            value, earlier_place = earlier.setdefault(mention.name, (mention.value, place))
            if mention.value == value:
                continue
            if mention.name in FIELDS:
                contradicted.add(mention.name)
            noun = "the hero" if mention.name == "sex" else mention.name
            old, new = (
                f"{article(word)} {word}"
                if mention.name in ("hero", "friend", "object", "sex")
                else word
                for word in (value, mention.value)
            )
            complaints.setdefault(
                (mention.name, mention.value), f"{noun} is {old} {earlier_place} but {new} {place}"
            )
    return contradicted, list(complaints.values())


def _wrong_order(sentences: list[Sentence]) -> list[str]:
    """Return complaints about parts of a tale that are missing, repeated or too late."""
    complaints = []
    order = list(PARTS)
    parts: list[str] = []
    for sentence in sentences:
        if sentence.part in parts:
            complaints.append(f"sentence {sentence.number} tells the {sentence.part} a second time")
        elif sentence.part:
            if any(order.index(sentence.part) < order.index(part) for part in parts):
                complaints.append(f"sentence {sentence.number} tells the {sentence.part} too late")
            parts.append(sentence.part)
    ends_readably = not sentences or sentences[-1].part  # another end has a complaint already
    if ends_readably and "closing" not in parts:
        complaints.append("the tale ends without a moral")
    # An unreadable sentence may be the missing part.
    if all(sentence.part for sentence in sentences):
        missing = [part for part in order if part not in (*parts, *DETOURS, "closing")]
        complaints += [f"the {part} is missing" for part in missing]
    return complaints
