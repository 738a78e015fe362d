"""Tales and their grammar: probabilities are exact, reading undoes writing, faults are named."""

from __future__ import annotations

import itertools
import math
import random
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from minigen.corpora import tales
from minigen.corpora.dice import Dice
from minigen.corpora.grammar import By, Grammar, Parser, parse_rules
from minigen.corpora.tales import generate
from minigen.corpora.tales.check import SENTENCE_END, WORD_ROLES
from minigen.corpora.tales.tables import CAST, DETOURS, GRAMMAR, LISTS, PARTS, PHRASES
from minigen.errors import UserError


@pytest.fixture(scope="module")
def sample() -> list[tales.Tale]:
    return list(itertools.islice(tales.documents(seed=11), 3000))


# ---- the grammar engine, against brute force -----------------------------------------------------

TOY = parse_rules("""
animal: fox owl ant
size: big old
name by animal:
  fox: Flo | Fay
  owl: Ole | Oda
  ant: Ann | Abe
sound by animal:
  fox: barked
  fox: yelped {size}
  owl: hooted
  ant: {a size} squeak
more:
  , then {a size} {animal} {sound}
  , and {Name} slept
start:
  {A animal} named {name} {sound}{more}.
  {Name} the {size} {animal} {sound}.
  Oh, {size} {animal}, {size} {name}!
""")


def enumerate_draws(
    rules: Mapping[str, object], remembered: list[str], start: str
) -> Iterator[tuple[str, Fraction]]:
    """Every sequence of draws, with its text and probability; written apart from the engine."""

    def dress(mark: str, word: str) -> str:
        if mark[:2] in ("a ", "A "):
            word = ("an " if word[0] in "aeiouAEIOU" else "a ") + word
        return word[0].upper() + word[1:] if mark[0].isupper() else word

    def expand(template: str, memory: dict[str, str]) -> Iterator[tuple[str, Fraction]]:
        found = re.search(r"\{((?:[aA] )?(\w+))\}", template)
        if not found:
            yield template, Fraction(1)
            return
        name = found[2].lower()
        words = [(memory[name], Fraction(1))] if name in memory else list(draw(name, memory))
        for word, p in words:
            for rest, q in expand(template[found.end() :], memory):
                yield template[: found.start()] + dress(found[1], word) + rest, p * q

    def draw(name: str, memory: dict[str, str]) -> Iterator[tuple[str, Fraction]]:
        rule = rules[name]
        options = rule.cases[memory[rule.key]] if isinstance(rule, By) else rule
        assert isinstance(options, tuple)
        for option in options:
            for text, p in expand(option, memory):
                yield text, p / len(options)

    def cast(names: list[str], memory: dict[str, str]) -> Iterator[tuple[str, Fraction]]:
        if not names:
            yield from draw(start, memory)
            return
        for word, p in draw(names[0], memory):
            for text, q in cast(names[1:], {**memory, names[0]: word}):
                yield text, p * q

    return cast(remembered, {})


def test_count_entropy_and_probabilities_equal_those_of_all_texts_written_out() -> None:
    grammar = Grammar(TOY, ["animal", "name"])
    draws = list(enumerate_draws(TOY, ["animal", "name"], "start"))
    p = dict(draws)
    assert len(p) == len(draws)  # the toy is unambiguous
    assert sum(p.values()) == 1
    assert grammar.count() == len(p)
    exact = -math.fsum(float(q) * math.log2(q) for q in p.values())
    assert grammar.entropy() == pytest.approx(exact, abs=1e-12)
    for text, q in p.items():
        assert Fraction(1, grammar.ways(text) or 0) == q
    for k in range(300):
        dice = Dice(random.Random(f"{k}"))
        text, _ = grammar.draw(dice)
        assert p[text] == dice.probability


def test_a_text_that_contradicts_itself_has_no_probability_but_can_be_read() -> None:
    grammar = Grammar(TOY, ["animal", "name"])
    text = "An owl named Ole hooted, and Oda slept."
    assert grammar.ways("An owl named Ole hooted, and Ole slept.") is not None
    assert grammar.ways(text) is None
    (reading,) = Parser(grammar, text).readings("start")
    names = [(m.value, text[m.start : m.end]) for m in reading.mentions if m.name == "name"]
    assert names == [("Ole", "Ole"), ("Oda", "Oda")]


@pytest.mark.parametrize(
    ("table", "remembered", "complaint"),
    [
        ("start:\n  {cat}", [], "names no rule"),
        ("cat: tom tomcat\nstart:\n  {cat}", [], "begins another word"),
        ("cat: tom\nhat:\n  a {cat}\nstart:\n  {a hat}", [], "not a plain list"),
        ("cat: a b\nhat by cat:\n  a: x\n  b: y\nstart:\n  {hat}", [], "not a remembered"),
        ("cat: a b\nhat by cat:\n  a: x\nstart:\n  {hat}", ["cat"], "one case for each"),
        ("cat: a b\nhat by cat:\n  a: x\n  b: y | z\nstart:\n  {hat}", ["cat", "hat"], "differ"),
    ],
)
def test_tables_that_would_make_probabilities_wrong_are_refused(
    table: str, remembered: list[str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Grammar(parse_rules(table), remembered)


# ---- tales: exactness ----------------------------------------------------------------------------


def test_a_tale_is_read_in_one_way_only_and_at_the_probability_it_was_written_with(
    sample: list[tales.Tale],
) -> None:
    for one in sample[:2000]:
        verdict = tales.check(one.text)
        assert (verdict.valid, verdict.follows_prompt, verdict.complaints) == (True, True, [])
        assert verdict.conditions == one.conditions
        assert verdict.bits == pytest.approx(one.bits, abs=1e-9)
    for one in sample[2500:]:
        parser = Parser(GRAMMAR, one.text)
        assert sum(r.end == len(one.text) for r in parser.readings("tale")) == 1


def test_a_sentence_belongs_to_one_part_only(sample: list[tales.Tale]) -> None:
    """So a faulty tale can be read sentence by sentence."""
    for one in sample[:60]:
        body = one.text.partition("\n")[2]
        start = 0
        while start < len(body):
            parser = Parser(GRAMMAR, body)
            (reading,) = [r for part in PARTS for r in parser.readings(part, start)]
            start = reading.end + 1


def test_entropy_is_the_mean_of_the_bits(sample: list[tales.Tale]) -> None:
    bits = [one.bits for one in sample]
    error = statistics.stdev(bits) / math.sqrt(len(bits))
    assert abs(statistics.mean(bits) - tales.entropy()) < 4 * error
    assert error < 0.5
    assert 140 < tales.entropy() < 200
    # Jensen: were all tales equally likely, their entropy would be log2(count).
    assert tales.entropy() < math.log2(tales.count())
    assert tales.count() > 10**12


def test_every_option_is_drawn_as_often_as_it_should_be(sample: list[tales.Tale]) -> None:
    """Chi-squared on the header's fields and the opening's variants: draws are uniform."""
    for field, values in tales.FIELDS.items():
        n = Counter(one.conditions[field] for one in sample)
        expected = len(sample) / len(values)
        chi2 = sum((n[value] - expected) ** 2 / expected for value in values)
        freedom = len(values) - 1
        assert chi2 < freedom + 4 * math.sqrt(2 * freedom)


# ---- tales: the text -----------------------------------------------------------------------------


def test_form_of_a_tale(sample: list[tales.Tale]) -> None:
    """A header and one paragraph of 7 to 11 sentences in ASCII, 100 to 200 words."""
    sizes = set()
    for one in sample:
        header, body = one.text.split("\n")
        assert re.findall(r"(\w+): \w+ (\w+)", header) == list(one.conditions.items())
        assert one.text.isascii() and one.text == one.text.strip() and "  " not in one.text
        assert body.count('"') % 2 == 0
        sizes.add(len(SENTENCE_END.findall(body)))
        assert 100 <= len(one.text.split()) <= 200
    assert sizes == {7, 8, 9, 10, 11}


def test_a_and_an_and_capitals_are_right(sample: list[tales.Tale]) -> None:
    for one in sample:
        body = one.text.partition("\n")[2]
        for found in re.finditer(r"\b([Aa]n?) (\w)", body):
            assert (found[1].lower() == "an") == (found[2].lower() in "aeiou"), found
        for sentence in SENTENCE_END.split(body)[:-1]:
            assert re.match(r' ?"?[A-Z]', sentence), sentence


def test_vocabulary_is_rich_but_without_rare_words(sample: list[tales.Tale]) -> None:
    """300 to 600 words; each word can be learnt, for 3,000 tales have it some 60 times."""
    n = Counter(w for one in sample for w in re.findall(r"[a-z']+", one.text.lower()))
    assert 300 <= len(n) <= 600
    assert min(n.values()) > 60 - 4 * math.sqrt(60)


def test_words_that_carry_a_condition_have_no_other_role() -> None:
    """So "copy the hero" is "find the one word of that class"."""
    roles = ["hero", "friend", "place", "object", "mood", "moral"]
    words: dict[str, str] = {}
    for role, rule in {**tales.FIELDS, **CAST}.items():
        options = [*itertools.chain(*rule.cases.values())] if isinstance(rule, By) else rule
        for word in options if role in roles else ():
            assert words.setdefault(word.lower(), role) == role
    for rule in {**LISTS, **PARTS, **PHRASES}.values():
        templates = [*itertools.chain(*rule.cases.values())] if isinstance(rule, By) else rule
        for template in templates:
            plain = re.sub(r"\{.*?\}", "", template)
            assert not set(re.findall(r"\w+", plain.lower())) & set(words), template


# ---- tales: files --------------------------------------------------------------------------------


def test_a_validation_tale_that_training_has_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tales.documents

    def clashing(seed: int, split: str = "train") -> Iterator[tales.Tale]:
        """A validation stream that begins with the first five training tales."""
        if split == "val":
            yield from itertools.islice(real(seed, "train"), 5)
        yield from real(seed, split)

    monkeypatch.setattr(generate, "documents", clashing)
    tales.write(tmp_path, 20_000, 10_000)
    train, val = (
        (tmp_path / f"{split}.txt").read_text(encoding="ascii").rstrip("\n").split("\n\n")
        for split in ("train", "val")
    )
    assert val[0] == next(real(0, "val")).text
    assert not set(train) & set(val)


def test_what_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="val_bytes is 10; give 2000 or more"):
        tales.write(tmp_path, 5_000, 10)
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write tales to"):
        tales.write(tmp_path / "file" / "folder", 5_000, 5_000)


# ---- tales: planted faults -----------------------------------------------------------------------

Fault = Callable[[str, random.Random], "tuple[str, str] | None"]  # faulty text, fitting complaint
FAULTS: dict[str, Fault] = {}


def fault(make: Fault) -> Fault:
    FAULTS[make.__name__] = make
    return make


def swap(text: str, role: str, rng: random.Random, skip: int = 0) -> tuple[str, str, str] | None:
    """One mention in the body of the word of that role becomes another word of the role."""
    words = [word for word, its_role in WORD_ROLES.items() if its_role == role]
    head, _, body = text.partition("\n")
    places = [m for m in re.finditer(r"\w+", body) if m[0] in words][skip:]
    if not places:
        return None
    place = rng.choice(places)
    vowels = "aeiou"
    new = rng.choice(
        [w for w in words if w != place[0] and (w[0] in vowels) == (place[0][0] in vowels)]
        or [w for w in words if w != place[0]]
    )
    return f"{head}\n{body[: place.start()]}{new}{body[place.end() :]}", place[0], new


def sentences(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The header, and the body's sentences with their parts."""
    head, _, body = text.partition("\n")
    told, start = [], 0
    while start < len(body):
        parser = Parser(GRAMMAR, body)
        part, end = next((p, r.end) for p in PARTS for r in parser.readings(p, start))
        told.append((part, body[start:end]))
        start = end + 1
    return head, told


def join(head: str, told: list[tuple[str, str]]) -> str:
    return head + "\n" + " ".join(sentence for _, sentence in told)


def field_swapper(role: str) -> Fault:
    def change(text: str, rng: random.Random) -> tuple[str, str] | None:
        swapped = swap(text, role, rng)
        if swapped is None:
            return None
        faulty, old, new = swapped
        return faulty, rf"^{role} is (an? )?{old} in the header but (an? )?{new} in sentence \d+$"

    return change


def header_changer(field: str) -> Fault:
    def change(text: str, rng: random.Random) -> tuple[str, str]:
        old = tales.check(text).conditions[field]
        new = rng.choice([value for value in tales.FIELDS[field] if value != old])
        complaint = rf"^{field} is (an? )?{new} in the header but (an? )?{old} in sentence \d+$"
        return re.sub(rf"({field}: \w+) {old}", rf"\1 {new}", text, count=1), complaint

    return change


for _field in ("hero", "friend", "place", "object"):
    FAULTS[f"swap_{_field}"] = field_swapper(_field)
for _field in tales.FIELDS:
    FAULTS[f"header_{_field}"] = header_changer(_field)


@fault
def swap_pronoun(text: str, rng: random.Random) -> tuple[str, str] | None:
    other = {"he": "she", "his": "her", "His": "Her", "Sir": "Lady"}
    other |= {new: old for old, new in other.items()}
    places = list(re.finditer(rf"\b({'|'.join(other)})\b", text))
    if not places:
        return None
    place = rng.choice(places[1:])  # not the header's
    faulty = text[: place.start()] + other[place[0]] + text[place.end() :]
    return faulty, r"the hero is a s?he in the header but a s?he in sentence \d+"


def part_replacer(part: str, field: str) -> Fault:
    def change(text: str, rng: random.Random) -> tuple[str, str]:
        """The part becomes that of a tale with the same cast, but another mood or moral."""
        head, told = sentences(text)
        memory = {m.name: m.value for m in next(Parser(GRAMMAR, text).readings("tale")).mentions}
        old = memory[field]
        new = rng.choice([value for value in tales.FIELDS[field] if value != old])
        sentence = GRAMMAR.draw_rule(part, {**memory, field: new}, Dice(rng))
        told = [(p, sentence if p == part else s) for p, s in told]
        return join(head, told), rf"^{field} is {old} in the header but {new} in sentence \d+$"

    return change


FAULTS["swap_ending"] = part_replacer("ending", "mood")
FAULTS["swap_closing"] = part_replacer("closing", "moral")


@fault
def delete_sentence(text: str, rng: random.Random) -> tuple[str, str]:
    head, told = sentences(text)
    gone = rng.choice([part for part, _ in told if part not in DETOURS])
    complaint = "ends without a moral" if gone == "closing" else f"the {gone} is missing"
    return join(head, [(p, s) for p, s in told if p != gone]), complaint


@fault
def duplicate_sentence(text: str, rng: random.Random) -> tuple[str, str]:
    head, told = sentences(text)
    i = rng.randrange(len(told))
    complaint = f"sentence {i + 2} tells the {told[i][0]} a second time"
    return join(head, told[: i + 1] + told[i:]), complaint


@fault
def swap_sentences(text: str, rng: random.Random) -> tuple[str, str]:
    head, told = sentences(text)
    i = rng.randrange(len(told) - 1)
    told[i], told[i + 1] = told[i + 1], told[i]
    return join(head, told), f"sentence {i + 2} tells the {told[i + 1][0]} too late"


@fault
def truncate(text: str, rng: random.Random) -> tuple[str, str]:
    start = text.index("\n") + 2
    faulty = text[: rng.randrange(start, len(text) - 2)]
    return faulty, r"breaks off in sentence \d+|ends without a moral|does not show its moral"


@fault
def small_letter(text: str, rng: random.Random) -> tuple[str, str]:
    head, told = sentences(text)
    i = rng.randrange(len(told))
    part, sentence = told[i]
    at = 1 if sentence[0] == '"' else 0
    told[i] = (part, sentence[:at] + sentence[at].lower() + sentence[at + 1 :])
    return join(head, told), f"sentence {i + 1} begins with a small letter"


@fault
def wrong_article(text: str, rng: random.Random) -> tuple[str, str]:
    head, _, body = text.partition("\n")
    place = rng.choice(list(re.finditer(r"\b([Aa])(n?)( \w+)", body)))
    wrong = place[1] + ("" if place[2] else "n") + place[3]
    faulty = f"{head}\n{body[: place.start()]}{wrong}{body[place.end() :]}"
    return faulty, rf'^"{wrong}" in sentence \d+ should be "{place[0].lower()}"$'


@fault
def no_header(text: str, rng: random.Random) -> tuple[str, str]:
    return text.partition("\n")[2], "^no header"


@fault
def field_missing(text: str, rng: random.Random) -> tuple[str, str]:
    header, _, body = text.partition("\n")
    fields = header.split(", ")
    gone = fields.pop(rng.randrange(1, len(fields)))
    return ", ".join(fields) + "\n" + body, f"^the header has no {gone.partition(':')[0]}$"


@fault
def fields_swapped(text: str, rng: random.Random) -> tuple[str, str]:
    header, _, body = text.partition("\n")
    fields = header.split(", ")
    i = rng.randrange(1, len(fields) - 1)
    fields[i], fields[i + 1] = fields[i + 1], fields[i]
    return ", ".join(fields) + "\n" + body, "^the header is not of the form"


@fault
def unknown_value(text: str, rng: random.Random) -> tuple[str, str]:
    field = rng.choice(list(tales.FIELDS))
    return re.sub(rf"\b({field}: \w+) \w+", r"\1 zebra", text, count=1), f"^{field}: zebra in the"


@fault
def foreign_word(text: str, rng: random.Random) -> tuple[str, str]:
    head, _, body = text.partition("\n")
    place = rng.choice(list(re.finditer(r" \w+", body)))
    faulty = f"{head}\n{body[: place.start()]} zyx{body[place.end() :]}"
    near = r"not a sentence of this grammar, from: \"\W*(\w+\W+)?zyx"
    return faulty, rf"{near}|begins with a small letter: \W*zyx|\"an? zyx\" in sentence"


@fault
def two_spaces(text: str, rng: random.Random) -> tuple[str, str]:
    place = rng.choice(list(re.finditer(r"(?<=[.!?]) (?=[A-Z])", text)))
    faulty = text[: place.start()] + " " + text[place.start() :]
    return faulty, r"is not a sentence of this grammar"


@fault
def new_line(text: str, rng: random.Random) -> tuple[str, str]:
    place = rng.choice(list(re.finditer(r"(?<=[.!?]) (?=[A-Z])", text)))
    return text[: place.start()] + "\n" + text[place.end() :], r"is not a sentence of this grammar"


@pytest.mark.parametrize("kind", list(FAULTS))
def test_planted_faults_are_found_and_named(kind: str, sample: list[tales.Tale]) -> None:
    """Each with a complaint that fits; none passes as valid."""
    rng = random.Random(kind)
    tried = 0
    for one in sample:
        planted = FAULTS[kind](one.text, rng)
        if planted is None or planted[0] == one.text:
            continue
        faulty, complaint = planted
        verdict = tales.check(faulty)
        assert not verdict.valid and verdict.bits is None
        assert any(re.search(complaint, said) for said in verdict.complaints), verdict.complaints
        tried += 1
        if tried == 50:
            break
    assert tried == 50


@pytest.mark.parametrize("kind", list(FAULTS))
def test_obeying_is_judged_apart_from_validity(kind: str, sample: list[tales.Tale]) -> None:
    """A tale with a wrong pronoun still obeys its header; one with a wrong hero does not."""
    disobeying = {f"swap_{f}" for f in ("hero", "friend", "place", "object", "ending", "closing")}
    disobeying |= {f"header_{field}" for field in tales.FIELDS}
    disobeying |= {"no_header", "field_missing", "unknown_value"}
    obeying = {"swap_pronoun"}
    obeying |= {"duplicate_sentence", "swap_sentences"}
    if kind not in disobeying | obeying:
        return
    rng = random.Random(kind)
    for one in sample[:15]:
        planted = FAULTS[kind](one.text, rng)
        if planted is not None and planted[0] != one.text:
            assert tales.check(planted[0]).follows_prompt == (kind in obeying), planted


def test_a_tale_without_its_ending_or_closing_does_not_show_its_mood_or_moral(
    sample: list[tales.Tale],
) -> None:
    for part, field in {"ending": "mood", "closing": "moral"}.items():
        head, told = sentences(sample[0].text)
        verdict = tales.check(join(head, [(p, s) for p, s in told if p != part]))
        assert not verdict.follows_prompt
        assert f"the tale does not show its {field}" in verdict.complaints


def test_any_text_at_all_gets_a_verdict() -> None:
    for text in ("", "\n", "hero:", "hero: fox\n", "\n\n\n", "x" * 5000, '"' * 99, "é \x00 \ud800"):
        verdict = tales.check(text)
        assert not verdict.valid and not verdict.follows_prompt and verdict.complaints


def test_verdicts_on_spoilt_tales_are_whole(sample: list[tales.Tale]) -> None:
    """Whatever happens to a tale: valid, without complaints and with bits, or none of the three."""
    rng = random.Random(1)
    n_valid = 0
    for one, other in zip(sample[:300], sample[300:600], strict=True):
        pieces = re.findall(r"\w+|\W", one.text)
        for _ in range(rng.choice([1, 2, 30])):
            i = rng.randrange(len(pieces))
            spoil = rng.choice(["drop", "double", "swap", "borrow"])
            if spoil == "drop":
                pieces[i] = ""
            elif spoil == "double":
                pieces[i] *= 2
            elif spoil == "swap":
                j = rng.randrange(len(pieces))
                pieces[i], pieces[j] = pieces[j], pieces[i]
            else:
                pieces[i] = rng.choice(re.findall(r"\w+", other.text))
        verdict = tales.check("".join(pieces))
        assert verdict.valid == (not verdict.complaints) == (verdict.bits is not None)
        assert verdict.follows_prompt or not verdict.valid
        n_valid += verdict.valid
    assert n_valid < 15  # such as one colour for another
