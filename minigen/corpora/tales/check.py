"""The checker of tales: whether a text is a tale and obeys its header, and if not, why."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from minigen.corpora.grammar import Mention, Parser, article
from minigen.corpora.tales.tables import DETOURS, FIELDS, GRAMMAR, HEADER, PARTS
from minigen.corpora.task import Verdict


def check(text: str) -> Verdict:
    """Read a text as a tale; blank lines before and after it do not count.

    It is well-formed if its header and its sentences are those of tales, and obeys if the tale
    shows every field of the header and nothing in it denies one.

    >>> check("hero: Sir Fox").complaints[0]
    'the header has no friend'
    """
    text = text.strip("\n")
    ways = GRAMMAR.ways(text)
    header, _, body = text.partition("\n")
    if not header.startswith("hero:"):
        header, body = "", text
    complaints, conditions = _check_header(header)
    if ways is not None:
        return Verdict(True, True, True, [], math.log2(ways), conditions)

    told, unreadable = _read_sentences(body)
    complaints += unreadable
    well_formed = bool(told) and not complaints
    read = next(Parser(GRAMMAR, header).readings("header"), None)
    denied, contradictions = _contradictions(read.mentions if read else (), told, conditions)
    complaints += contradictions
    complaints += _wrong_order(told)
    shown = {mention.name for sentence in told for mention in sentence.mentions}
    parts = {sentence.part for sentence in told}
    if "ending" not in parts:
        shown.discard("mood")
    if "closing" not in parts:
        shown.discard("moral")
    complaints += [f"the tale does not show its {field}" for field in FIELDS if field not in shown]
    follows_prompt = len(conditions) == len(FIELDS) and not denied and shown.issuperset(FIELDS)
    complaints = complaints or ["not a tale of this grammar"]
    return Verdict(well_formed, follows_prompt, False, complaints, None, conditions)


@dataclass(frozen=True)
class Sentence:
    """The `number`-th sentence; `part` is None if the grammar has no such sentence."""

    number: int
    part: str | None
    mentions: tuple[Mention, ...]


def _check_header(header: str) -> tuple[list[str], dict[str, str]]:
    """Return complaints, and the fields that have a value which they can have."""
    if not header:
        return ["no header: the first line must begin with hero: and a kind of hero"], {}
    found = dict(re.findall(r"(\w+): (?:\w+ )??(\w+)(?=,|$)", header))
    complaints = []
    for field, values in FIELDS.items():
        if field not in found:
            complaints.append(f"the header has no {field}")
        elif found[field] not in values:
            complaints.append(
                f"{field}: {found[field]} in the header is none of {', '.join(values)}"
            )
    readings = Parser(GRAMMAR, header).readings("header")
    if not complaints and not any(reading.end == len(header) for reading in readings):
        complaints.append(f'the header is not of the form "{HEADER}"')
    known = {field: found[field] for field in FIELDS if found.get(field) in FIELDS[field]}
    return complaints, known


SENTENCE_END = re.compile(r'[.!?]"?(?=\s+["A-Z]|\s*$)')
WORD_ROLES = {  # words that tell, wherever they stand, what the text is about
    word: role
    for role in ("hero", "friend", "place", "object")
    for templates in GRAMMAR.cases[role].values()
    for (word,) in templates
    if isinstance(word, str)
}


def _read_sentences(body: str) -> tuple[list[Sentence], list[str]]:
    """Split the paragraph into sentences, each read on its own; complain about unreadable ones."""
    sentences: list[Sentence] = []
    complaints: list[str] = []
    start = 0
    while start < len(body):
        number = len(sentences) + 1
        parser = Parser(GRAMMAR, body)
        found = (
            (part, reading)
            for part in PARTS
            for reading in parser.readings(part, start)
            if body[reading.end : reading.end + 1] in ("", " ")
        )
        part, reading = next(found, (None, None))
        if reading:
            end, mentions = reading.end, reading.mentions
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
    """Return the complaint about a sentence that cannot be read beyond `furthest`."""
    if not re.search(r'[.!?]"?$', sentence):
        return f'the tale breaks off in sentence {number}: "{sentence[-40:]}"'
    if sentence.lstrip('"')[:1].islower():
        return f'sentence {number} begins with a small letter: "{sentence[:40]}"'
    for found in re.finditer(r"\b([Aa]n?) ([a-z]+)", sentence):
        right = f"{article(found[2])} {found[2]}"
        if found[0].lower() != right:
            return f'"{found[0]}" in sentence {number} should be "{right}"'
    furthest = sentence.rfind(" ", 0, furthest + 1) + 1
    return (
        f'sentence {number} is not a sentence of this grammar, from: "{sentence[furthest:][:60]}"'
    )


def _contradictions(
    header: tuple[Mention, ...], told: list[Sentence], conditions: dict[str, str]
) -> tuple[set[str], list[str]]:
    """Return header fields that the tale denies, and complaints about words that change."""
    first = {mention.name: (mention.value, "in the header") for mention in header}
    first |= {field: (value, "in the header") for field, value in conditions.items()}
    complaints: dict[tuple[str, str], str] = {}
    denied: set[str] = set()
    for sentence in told:
        where = f"in sentence {sentence.number}"
        for mention in sentence.mentions:
            value, before = first.setdefault(mention.name, (mention.value, where))
            if mention.value == value:
                continue
            if mention.name in FIELDS:
                denied.add(mention.name)
            what = "the hero" if mention.name == "sex" else mention.name
            old, new = (
                f"{article(word)} {word}"
                if mention.name in ("hero", "friend", "object", "sex")
                else word
                for word in (value, mention.value)
            )
            complaints.setdefault(
                (mention.name, mention.value), f"{what} is {old} {before} but {new} {where}"
            )
    return denied, list(complaints.values())


def _wrong_order(told: list[Sentence]) -> list[str]:
    """Return complaints about parts of the tale that are missing, told twice or told too late."""
    complaints = []
    order = list(PARTS)
    parts: list[str] = []
    for sentence in told:
        if sentence.part in parts:
            complaints.append(f"sentence {sentence.number} tells the {sentence.part} a second time")
        elif sentence.part:
            if any(order.index(sentence.part) < order.index(part) for part in parts):
                complaints.append(f"sentence {sentence.number} tells the {sentence.part} too late")
            parts.append(sentence.part)
    unfinished = not told or told[-1].part  # an unreadable end has its own complaint
    if unfinished and "closing" not in parts:
        complaints.append("ends without a moral")
    if all(sentence.part for sentence in told):  # else the missing part may be the unreadable one
        missing = [part for part in order if part not in (*parts, *DETOURS, "closing")]
        complaints += [f"the {part} is missing" for part in missing]
    return complaints
