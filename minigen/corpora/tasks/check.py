"""The checker of answers, which shares nothing with the generator: it reads the prompt.

The generator draws a question together with its answer. `check_answer` sees the prompt alone, as a
person does, and works the answer out. Both agree on thousands of questions, so neither has a fault
that the other lacks (test_the_checker_finds_the_answer_that_was_written).
"""

from __future__ import annotations

import json
import math
import re

from minigen.corpora.genre import Verdict
from minigen.errors import UserError

NUMBERS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
)
IRREGULAR = {"creeps": "crept", "swims": "swam"}  # verbs whose past does not end in "ed"
QUESTIONS = {
    "who is the hero?": "hero",
    "who is the friend?": "friend",
    "where are they?": "place",
    "how many do they have?": "add",
    "say it in the past.": "past",
    "say the first.": "first",
    "say the last.": "last",
    "say any.": "any",
    "count them.": "count",
    "say them backwards.": "reverse",
    "sort them.": "sort",
    "say it as a pirate.": "pirate",
}
_ANY = "|".join(map(re.escape, QUESTIONS))
PROMPT = re.compile(rf"\s*(.+?)\s+({_ANY})(?:\s+then\s+({_ANY}))?\s*", re.IGNORECASE | re.DOTALL)


def check(text: str) -> Verdict:
    """Judge a line of a JSON Lines file as a question and its answer.

    It is well-formed if it has a prompt that is a question of this corpus, and a completion. It
    follows its prompt if `check_answer` says so. It is valid if the corpus can write it.
    """
    try:
        row = json.loads(text)
        prompt, completion = row["prompt"], row["completion"]
        kind, answers = kind_of(prompt), right_answers(prompt)
        complaint = check_answer(prompt, completion)
    except UserError as error:
        return Verdict(False, False, False, [str(error)], None, {})
    except (ValueError, RecursionError):
        return Verdict(False, False, False, ["the line is not JSON"], None, {})
    except (TypeError, KeyError, AttributeError):
        complaint = "the line has no prompt or no completion"
        return Verdict(False, False, False, [complaint], None, {})
    complaints = [complaint] if complaint else []
    if not complaints and completion not in {f" {answer}" for answer in answers}:
        complaints = [f'the answer is right, but the corpus writes " {answers[0]}"']
    if not complaints and row.get("kind") != kind:
        complaints = [f"the kind is {kind}"]
    bits = None if complaints else math.log2(len(answers))
    return Verdict(True, complaint is None, not complaints, complaints, bits, {"kind": kind})


def check_answer(prompt: str, answer: str) -> str | None:
    """Judge an answer; return None if it is right, else in one line why it is wrong.

    Of a question with two steps, both results are right, or the second alone. Capitals, white
    space, commas and a full stop at the end do not count. A number may be in digits, a name may
    come without its title, and a place without "in the faraway".

    Raises `UserError` if the prompt is no question of this corpus.

    >>> check_answer("socks nuts pies. Say them backwards.", " pies nuts socks")
    >>> check_answer("socks nuts pies. Say them backwards.", " pies socks nuts")
    'the answer is "pies socks nuts", not "pies nuts socks"'
    """
    answers = right_answers(prompt)
    if plain(answer) in {plain(form) for right in answers for form in forms(right)}:
        return None
    given, right = " ".join(answer.split()), " or ".join(f'"{right}"' for right in answers)
    return f'the answer is "{given}", not {right}' if given else f"there is no answer, not {right}"


def kind_of(prompt: str) -> str:
    """Return the kind of a question. Raises `UserError` if it is none of this corpus.

    >>> kind_of("socks nuts pies. Say them backwards. Then say the first.")
    'reverse first'
    """
    _, first, second = _split(prompt)
    return f"{first} {second}" if second else first


def right_answers(prompt: str) -> list[str]:
    """Return all right answers, as the corpus writes them; they are equally probable.

    Raises `UserError` if the prompt is no question of this corpus.
    """
    text, first, second = _split(prompt)
    answers = _results(text, first)
    if second:
        answers = [f"{one}: {two}" for one in answers for two in _results(f"{one}.", second)]
    if not answers:
        raise _unknown(prompt)
    return answers


def _split(prompt: str) -> tuple[str, str, str]:
    """Return the text of a prompt, and its first and second step; the second may be ""."""
    if not (found := PROMPT.fullmatch(prompt)):
        raise _unknown(prompt)
    return found[1], QUESTIONS[found[2].lower()], QUESTIONS[found[3].lower()] if found[3] else ""


def _unknown(prompt: str) -> UserError:
    return UserError(f"{prompt[-60:]!r} is no question of the tasks, which data/README.md lists")


def _results(text: str, step: str) -> list[str]:
    """Return the right answers to the question of one step; [] if the text has none."""
    heroes, friends = (
        re.findall(r"\b(?:Sir|Lady) [A-Z][a-z]+", text),
        re.findall(r"\blittle [A-Z][a-z]+", text),
    )
    places = [f"in {place}" for place in re.findall(r"\bthe faraway [a-z]+", text)]
    sentence = text.removesuffix(".")
    words = sentence.replace(",", " ").split()
    numbers = [NUMBERS.index(word) for word in words if word in NUMBERS]
    if step == "any":
        return words
    return {
        "hero": heroes,
        "friend": friends,
        "place": places,
        "add": NUMBERS[sum(numbers) :] if len(numbers) == 2 else [],
        "past": [re.sub(r"(?<= )[a-z]+s(?= to the )", _past, sentence)],
        "first": words,
        "last": words[::-1],
        "count": NUMBERS[len(words) :],
        "reverse": [" ".join(words[::-1])],
        "sort": [" ".join(NUMBERS[n] for n in sorted(numbers))] * (len(numbers) == len(words)),
        "pirate": [f"Arr, {sentence}, matey!"],
    }[step][:1]


def _past(verb: re.Match[str]) -> str:
    """Return the past of a verb: "hops" becomes "hopped", and "hurries" "hurried"."""
    if verb[0] in IRREGULAR:
        return IRREGULAR[verb[0]]
    for ending, past in (("ies", "ied"), ("ches", "ched"), ("es", "ed")):
        if verb[0].endswith(ending):
            return verb[0].removesuffix(ending) + past
    stem = verb[0].removesuffix("s")
    # A consonant after a single short vowel is doubled in a verb of one syllable.
    doubled = re.fullmatch(r"[^aeiou]+[aeiou][^aeiou]", stem)
    return f"{stem}{stem[-1] if doubled else ''}ed"


def forms(answer: str) -> set[str]:
    """Return the forms of a right answer that are as right."""
    last = answer.rpartition(": ")[2]  # of two steps
    name = re.fullmatch(r"(?:Sir|Lady|little) (\w+)", last)
    place = re.fullmatch(r"in (the faraway (\w+))", last)
    return {answer, last, *(name.groups() if name else ()), *(place.groups() if place else ())}


def plain(answer: str) -> str:
    """Return an answer without the differences that do not count."""
    words = re.sub(r"[\s,]+", " ", answer).strip().removesuffix(".").lower().split(" ")
    return " ".join(NUMBERS[int(w)] if re.fullmatch("[0-9]|1[0-4]", w) else w for w in words)
