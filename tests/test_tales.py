"""Tales and their grammar: probabilities are exact, a parser recovers them, faults are named."""

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
    """Return 3,000 tales."""
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


def enumerate_derivations(
    rules: Mapping[str, object], remembered: list[str], start: str
) -> Iterator[tuple[str, Fraction]]:
    """Yield (text, probability) of each derivation; this code shares nothing with `Grammar`."""

    def write(mark: str, word: str) -> str:
        """Return the word as the slot `mark` writes it."""
        if mark[:2] in ("a ", "A "):
            word = ("an " if word[0] in "aeiouAEIOU" else "a ") + word
        return word[0].upper() + word[1:] if mark[0].isupper() else word

    def expand(template: str, memory: dict[str, str]) -> Iterator[tuple[str, Fraction]]:
        """Yield the texts of a template."""
        found = re.search(r"\{((?:[aA] )?(\w+))\}", template)
        if not found:
            yield template, Fraction(1)
            return
        name = found[2].lower()
        words = [(memory[name], Fraction(1))] if name in memory else list(draw(name, memory))
        for word, p in words:
            for rest, q in expand(template[found.end() :], memory):
                yield template[: found.start()] + write(found[1], word) + rest, p * q

    def draw(name: str, memory: dict[str, str]) -> Iterator[tuple[str, Fraction]]:
        """Yield the texts of a rule."""
        rule = rules[name]
        options = rule.cases[memory[rule.key]] if isinstance(rule, By) else rule
        assert isinstance(options, tuple)
        for option in options:
            for text, p in expand(option, memory):
                yield text, p / len(options)

    def cast(names: list[str], memory: dict[str, str]) -> Iterator[tuple[str, Fraction]]:
        """Yield the texts, after drawing the remembered rules `names`."""
        if not names:
            yield from draw(start, memory)
            return
        for word, p in draw(names[0], memory):
            for text, q in cast(names[1:], {**memory, names[0]: word}):
                yield text, p * q

    return cast(remembered, {})


def test_measures_agree_with_all_texts_of_a_grammar() -> None:
    """The count, the entropy and the probabilities agree with a list of all texts."""
    grammar = Grammar(TOY, ["animal", "name"])
    derivations = list(enumerate_derivations(TOY, ["animal", "name"], "start"))
    p = dict(derivations)
    assert len(p) == len(derivations)  # each text has one derivation
    assert sum(p.values()) == 1
    assert grammar.count() == len(p)
    entropy = -math.fsum(float(q) * math.log2(q) for q in p.values())
    assert grammar.entropy() == pytest.approx(entropy, abs=1e-12)
    for text, q in p.items():
        assert Fraction(1, grammar.inverse_probability(text) or 0) == q
    for k in range(300):
        dice = Dice(random.Random(f"{k}"))
        text, _ = grammar.draw(dice)
        assert p[text] == dice.probability


def test_probabilities_of_derivations_add_up() -> None:
    """If texts have several derivations, the probabilities add up, and `entropy` is too high.

    The draws have 1.5 bits on average: the first draw has 1 bit, and half of the texts need a
    second draw of 1 bit. But "cat" has the probability 1/4 + 1/2, so the entropy of the texts is
    only 0.81 bits.
    """
    table = parse_rules("pet: cat dog\nstart:\n  {pet}\n  cat")
    grammar = Grammar(table, [])
    p = dict.fromkeys(("cat", "dog"), Fraction(0))
    for text, q in enumerate_derivations(table, [], "start"):
        p[text] += q
    assert p == {"cat": Fraction(3, 4), "dog": Fraction(1, 4)}
    for text in p:
        parses = Parser(grammar, text).parses("start")
        assert sum(Fraction(1, parse.inverse_p) for parse in parses) == p[text]
    assert grammar.entropy() == 1.5
    assert -sum(q * math.log2(q) for q in p.values()) == pytest.approx(0.811, abs=1e-3)


def test_a_text_that_contradicts_itself_has_a_parse_but_no_probability() -> None:
    """A parse lists contradicting words of one remembered rule, although no derivation has them."""
    grammar = Grammar(TOY, ["animal", "name"])
    text = "An owl named Ole hooted, and Oda slept."
    assert grammar.inverse_probability("An owl named Ole hooted, and Ole slept.") is not None
    assert grammar.inverse_probability(text) is None
    (parse,) = Parser(grammar, text).parses("start")
    names = [(m.value, text[m.start : m.end]) for m in parse.mentions if m.name == "name"]
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
    """A `ValueError` names the fault of a table for which probabilities would be wrong."""
    with pytest.raises(ValueError, match=complaint):
        Grammar(parse_rules(table), remembered)


# ---- tales: exactness ----------------------------------------------------------------------------


def test_a_drawn_tale_is_valid_and_has_its_probability(sample: list[tales.Tale]) -> None:
    """`check` finds the conditions of a drawn tale, and the probability with which it was drawn."""
    for one in sample[:2000]:
        verdict = tales.check(one.text)
        assert (verdict.valid, verdict.follows_prompt, verdict.complaints) == (True, True, [])
        assert verdict.conditions == one.conditions
        assert verdict.bits == pytest.approx(one.bits, abs=1e-9)


def test_a_tale_has_one_derivation(sample: list[tales.Tale]) -> None:
    """No tale is ambiguous, so its probability is that of its draws, and the entropy is exact."""
    for one in sample[2500:]:
        parses = Parser(GRAMMAR, one.text).parses("tale")
        assert sum(parse.end == len(one.text) for parse in parses) == 1


def test_a_sentence_belongs_to_one_part(sample: list[tales.Tale]) -> None:
    """A sentence has one parse, as one part, so `check` can parse a faulty tale by sentences."""
    for one in sample[:60]:
        body = one.text.partition("\n")[2]
        start = 0
        while start < len(body):
            parser = Parser(GRAMMAR, body)
            (parse,) = [parse for part in PARTS for parse in parser.parses(part, start)]
            start = parse.end + 1


def test_entropy_is_the_mean_of_the_bits(sample: list[tales.Tale]) -> None:
    """The mean of -log2 p over 3,000 tales is `entropy`, within four standard errors."""
    bits = [one.bits for one in sample]
    error = statistics.stdev(bits) / math.sqrt(len(bits))
    assert abs(statistics.mean(bits) - tales.entropy()) < 4 * error
    assert error < 0.5
    assert 140 < tales.entropy() < 200


def test_entropy_is_below_that_of_equally_probable_tales() -> None:
    """The entropy is less than log2 of the number of tales, as some are more probable (Jensen)."""
    assert tales.entropy() < math.log2(tales.count())
    assert tales.count() > 10**12


def test_words_of_a_field_are_drawn_equally_often(sample: list[tales.Tale]) -> None:
    """For each field of the first line, chi-squared over its words is not far from its mean."""
    for field, values in tales.FIELDS.items():
        n = Counter(one.conditions[field] for one in sample)
        expected = len(sample) / len(values)
        chi2 = sum((n[value] - expected) ** 2 / expected for value in values)
        freedom = len(values) - 1
        assert chi2 < freedom + 4 * math.sqrt(2 * freedom)


# ---- tales: the text -----------------------------------------------------------------------------


def test_a_tale_is_a_first_line_and_a_paragraph(sample: list[tales.Tale]) -> None:
    """The paragraph has 7 to 11 sentences; a tale has 100 to 200 words, in ASCII."""
    sizes = set()
    for one in sample:
        first_line, body = one.text.split("\n")
        assert re.findall(r"(\w+): \w+ (\w+)", first_line) == list(one.conditions.items())
        assert one.text.isascii() and one.text == one.text.strip() and "  " not in one.text
        assert body.count('"') % 2 == 0
        sizes.add(len(SENTENCE_END.findall(body)))
        assert 100 <= len(one.text.split()) <= 200
    assert sizes == {7, 8, 9, 10, 11}


def test_articles_and_capitals_are_right(sample: list[tales.Tale]) -> None:
    """ "an" stands before a vowel and "a" before a consonant; a sentence begins with a capital."""
    for one in sample:
        body = one.text.partition("\n")[2]
        for found in re.finditer(r"\b([Aa]n?) (\w)", body):
            assert (found[1].lower() == "an") == (found[2].lower() in "aeiou"), found
        for sentence in SENTENCE_END.split(body)[:-1]:
            assert re.match(r' ?"?[A-Z]', sentence), sentence


def test_vocabulary_is_rich_but_without_rare_words(sample: list[tales.Tale]) -> None:
    """There are 300 to 600 different words, and 3,000 tales have each at least about 60 times."""
    n = Counter(w for one in sample for w in re.findall(r"[a-z']+", one.text.lower()))
    assert 300 <= len(n) <= 600
    assert min(n.values()) > 60 - 4 * math.sqrt(60)


def test_a_word_of_the_first_line_has_one_role() -> None:
    """A word that a field can have is in no other field, list or template."""
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
    """No tale is in both files, even if the validation stream draws tales of the training file."""
    real = tales.documents

    def clashing(seed: int, split: str = "train") -> Iterator[tales.Tale]:
        """Yield tales; the validation stream begins with the first five training tales."""
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


def test_files_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    """A size without room for a tale, and a folder that cannot be made, are `UserError`s."""
    with pytest.raises(UserError, match="val_bytes is 10, too few for one of the tales; give"):
        tales.write(tmp_path, 5_000, 10)
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write tales to"):
        tales.write(tmp_path / "file" / "folder", 5_000, 5_000)


# ---- tales: planted faults -----------------------------------------------------------------------

# A fault takes a tale and returns a faulty text, and a pattern of the complaint about the fault. It
# returns None if the tale cannot have the fault.
Fault = Callable[[str, random.Random], "tuple[str, str] | None"]
FAULTS: dict[str, Fault] = {}


def fault(make: Fault) -> Fault:
    """Add a fault to `FAULTS` by its name."""
    FAULTS[make.__name__] = make
    return make


def swap(text: str, role: str, rng: random.Random) -> tuple[str, str, str] | None:
    """Replace one word in the paragraph by another of its role; return (text, old, new)."""
    words = [word for word, role_of_word in WORD_ROLES.items() if role_of_word == role]
    first_line, _, body = text.partition("\n")
    places = [m for m in re.finditer(r"\w+", body) if m[0] in words]
    if not places:
        return None
    place = rng.choice(places)
    vowels = "aeiou"
    new = rng.choice(
        [w for w in words if w != place[0] and (w[0] in vowels) == (place[0][0] in vowels)]
        or [w for w in words if w != place[0]]
    )
    return f"{first_line}\n{body[: place.start()]}{new}{body[place.end() :]}", place[0], new


def split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Split a tale into its first line and a list of pairs (part, sentence)."""
    first_line, _, body = text.partition("\n")
    sentences, start = [], 0
    while start < len(body):
        parser = Parser(GRAMMAR, body)
        part, end = next((p, parse.end) for p in PARTS for parse in parser.parses(p, start))
        sentences.append((part, body[start:end]))
        start = end + 1
    return first_line, sentences


def join(first_line: str, sentences: list[tuple[str, str]]) -> str:
    """Return the tale of a first line and a list of pairs (part, sentence)."""
    return first_line + "\n" + " ".join(sentence for _, sentence in sentences)


def field_swapper(role: str) -> Fault:
    """Return the fault that one word of a role in the paragraph is another word of that role."""

    def change(text: str, rng: random.Random) -> tuple[str, str] | None:
        """Swap a word of the role."""
        swapped = swap(text, role, rng)
        if swapped is None:
            return None
        faulty, old, new = swapped
        new_place = rf"{new} in sentence \d+"
        return faulty, rf"^{role} is (an? )?{old} in the first line but (an? )?{new_place}$"

    return change


def first_line_changer(field: str) -> Fault:
    """Return the fault that the first line has another value of a field."""

    def change(text: str, rng: random.Random) -> tuple[str, str]:
        """Change the field."""
        old = tales.check(text).conditions[field]
        new = rng.choice([value for value in tales.FIELDS[field] if value != old])
        complaint = rf"^{field} is (an? )?{new} in the first line but (an? )?{old} in sentence \d+$"
        return re.sub(rf"({field}: \w+) {old}", rf"\1 {new}", text, count=1), complaint

    return change


for _field in ("hero", "friend", "place", "object"):
    FAULTS[f"swap_{_field}"] = field_swapper(_field)
for _field in tales.FIELDS:
    FAULTS[f"first_line_{_field}"] = first_line_changer(_field)


@fault
def swap_pronoun(text: str, rng: random.Random) -> tuple[str, str] | None:
    """Replace a pronoun or a title by the one of the other sex."""
    other = {"he": "she", "his": "her", "His": "Her", "Sir": "Lady"}
    other |= {new: old for old, new in other.items()}
    places = list(re.finditer(rf"\b({'|'.join(other)})\b", text))
    if not places:
        return None
    place = rng.choice(places[1:])  # not the title in the first line
    faulty = text[: place.start()] + other[place[0]] + text[place.end() :]
    return faulty, r"the hero is a s?he in the first line but a s?he in sentence \d+"


def part_replacer(part: str, field: str) -> Fault:
    """Return the fault that a part belongs to a tale with another mood or moral."""

    def change(text: str, rng: random.Random) -> tuple[str, str]:
        """Draw the part again with another value of the field and the same hero."""
        first_line, sentences = split(text)
        memory = {m.name: m.value for m in next(Parser(GRAMMAR, text).parses("tale")).mentions}
        old = memory[field]
        new = rng.choice([value for value in tales.FIELDS[field] if value != old])
        other = GRAMMAR.draw_rule(part, {**memory, field: new}, Dice(rng))
        faulty = [(p, other if p == part else sentence) for p, sentence in sentences]
        complaint = rf"^{field} is {old} in the first line but {new} in sentence \d+$"
        return join(first_line, faulty), complaint

    return change


FAULTS["swap_ending"] = part_replacer("ending", "mood")
FAULTS["swap_closing"] = part_replacer("closing", "moral")


@fault
def delete_sentence(text: str, rng: random.Random) -> tuple[str, str]:
    """Leave out one of the sentences that every tale has."""
    first_line, sentences = split(text)
    missing = rng.choice([part for part, _ in sentences if part not in DETOURS])
    complaint = "ends without a moral" if missing == "closing" else f"the {missing} is missing"
    return join(first_line, [(p, s) for p, s in sentences if p != missing]), complaint


@fault
def duplicate_sentence(text: str, rng: random.Random) -> tuple[str, str]:
    """Tell a sentence twice."""
    first_line, sentences = split(text)
    i = rng.randrange(len(sentences))
    complaint = f"sentence {i + 2} tells the {sentences[i][0]} a second time"
    return join(first_line, sentences[: i + 1] + sentences[i:]), complaint


@fault
def swap_sentences(text: str, rng: random.Random) -> tuple[str, str]:
    """Swap two neighbouring sentences."""
    first_line, sentences = split(text)
    i = rng.randrange(len(sentences) - 1)
    sentences[i], sentences[i + 1] = sentences[i + 1], sentences[i]
    complaint = f"sentence {i + 2} tells the {sentences[i + 1][0]} too late"
    return join(first_line, sentences), complaint


@fault
def truncate(text: str, rng: random.Random) -> tuple[str, str]:
    """Cut the tale off within the paragraph."""
    start = text.index("\n") + 2
    faulty = text[: rng.randrange(start, len(text) - 2)]
    return faulty, r"breaks off in sentence \d+|ends without a moral|does not show its moral"


@fault
def small_letter(text: str, rng: random.Random) -> tuple[str, str]:
    """Begin a sentence with a small letter."""
    first_line, sentences = split(text)
    i = rng.randrange(len(sentences))
    part, sentence = sentences[i]
    at = 1 if sentence[0] == '"' else 0
    sentences[i] = (part, sentence[:at] + sentence[at].lower() + sentence[at + 1 :])
    return join(first_line, sentences), f"sentence {i + 1} begins with a small letter"


@fault
def wrong_article(text: str, rng: random.Random) -> tuple[str, str]:
    """Write "a" for "an", or "an" for "a"."""
    first_line, _, body = text.partition("\n")
    place = rng.choice(list(re.finditer(r"\b([Aa])(n?)( \w+)", body)))
    wrong = place[1] + ("" if place[2] else "n") + place[3]
    faulty = f"{first_line}\n{body[: place.start()]}{wrong}{body[place.end() :]}"
    return faulty, rf'^"{wrong}" in sentence \d+ should be "{place[0].lower()}"$'


@fault
def no_first_line(text: str, rng: random.Random) -> tuple[str, str]:
    """Leave out the first line."""
    return text.partition("\n")[2], "^no first line"


@fault
def field_missing(text: str, rng: random.Random) -> tuple[str, str]:
    """Leave out a field of the first line."""
    first_line, _, body = text.partition("\n")
    fields = first_line.split(", ")
    missing = fields.pop(rng.randrange(1, len(fields)))
    return ", ".join(fields) + "\n" + body, f"^the first line has no {missing.partition(':')[0]}$"


@fault
def fields_swapped(text: str, rng: random.Random) -> tuple[str, str]:
    """Swap two neighbouring fields of the first line."""
    first_line, _, body = text.partition("\n")
    fields = first_line.split(", ")
    i = rng.randrange(1, len(fields) - 1)
    fields[i], fields[i + 1] = fields[i + 1], fields[i]
    return ", ".join(fields) + "\n" + body, "^the first line is not of the form"


@fault
def unknown_value(text: str, rng: random.Random) -> tuple[str, str]:
    """Give a field a value that it cannot have."""
    field = rng.choice(list(tales.FIELDS))
    return re.sub(rf"\b({field}: \w+) \w+", r"\1 zebra", text, count=1), f"^{field}: zebra in the"


@fault
def foreign_word(text: str, rng: random.Random) -> tuple[str, str]:
    """Replace a word by one that no tale has."""
    first_line, _, body = text.partition("\n")
    place = rng.choice(list(re.finditer(r" \w+", body)))
    faulty = f"{first_line}\n{body[: place.start()]} zyx{body[place.end() :]}"
    near = r"not a sentence of this grammar, from: \"\W*(\w+\W+)?zyx"
    return faulty, rf"{near}|begins with a small letter: \W*zyx|\"an? zyx\" in sentence"


@fault
def two_spaces(text: str, rng: random.Random) -> tuple[str, str]:
    """Write two spaces between two sentences."""
    place = rng.choice(list(re.finditer(r"(?<=[.!?]) (?=[A-Z])", text)))
    faulty = text[: place.start()] + " " + text[place.start() :]
    return faulty, r"is not a sentence of this grammar"


@fault
def new_line(text: str, rng: random.Random) -> tuple[str, str]:
    """Begin a new line after a sentence."""
    place = rng.choice(list(re.finditer(r"(?<=[.!?]) (?=[A-Z])", text)))
    return text[: place.start()] + "\n" + text[place.end() :], r"is not a sentence of this grammar"


@pytest.mark.parametrize("kind", list(FAULTS))
def test_a_planted_fault_is_found_and_named(kind: str, sample: list[tales.Tale]) -> None:
    """A tale with a planted fault is not valid, and a complaint of `check` names the fault."""
    rng = random.Random(kind)
    n_planted = 0
    for one in sample:
        planted = FAULTS[kind](one.text, rng)
        if planted is None or planted[0] == one.text:
            continue
        faulty, complaint = planted
        verdict = tales.check(faulty)
        assert not verdict.valid and verdict.bits is None
        assert any(re.search(complaint, c) for c in verdict.complaints), verdict.complaints
        n_planted += 1
        if n_planted == 50:
            break
    assert n_planted == 50


AGAINST_THE_PROMPT = [
    *(f"swap_{field}" for field in ("hero", "friend", "place", "object", "ending", "closing")),
    *(f"first_line_{field}" for field in tales.FIELDS),
    "no_first_line",
    "field_missing",
    "unknown_value",
]
OF_THE_FORMAT = ["swap_pronoun", "duplicate_sentence", "swap_sentences"]


@pytest.mark.parametrize("kind", [*AGAINST_THE_PROMPT, *OF_THE_FORMAT])
def test_a_faulty_tale_may_follow_its_prompt(kind: str, sample: list[tales.Tale]) -> None:
    """A tale with a wrong pronoun follows its prompt, and one with a wrong hero does not."""
    rng = random.Random(kind)
    for one in sample[:15]:
        planted = FAULTS[kind](one.text, rng)
        if planted is not None and planted[0] != one.text:
            assert tales.check(planted[0]).follows_prompt == (kind in OF_THE_FORMAT), planted


@pytest.mark.parametrize(("part", "field"), [("ending", "mood"), ("closing", "moral")])
def test_a_tale_without_its_end_does_not_follow_its_prompt(
    part: str, field: str, sample: list[tales.Tale]
) -> None:
    """Only the ending shows the mood of a tale, and only the closing its moral."""
    first_line, sentences = split(sample[0].text)
    verdict = tales.check(join(first_line, [(p, s) for p, s in sentences if p != part]))
    assert not verdict.follows_prompt
    assert f"the tale does not show its {field}" in verdict.complaints


@pytest.mark.parametrize(
    "text",
    ["", "\n", "hero:", "hero: fox\n", "\n\n\n", "x" * 5000, '"' * 99, "\xe9 \x00 \ud800"],
    ids=lambda text: ascii(text[:12]),
)
def test_any_text_gets_a_verdict(text: str) -> None:
    """A text that is no tale at all is not valid, and a complaint says why."""
    verdict = tales.check(text)
    assert not verdict.valid and not verdict.follows_prompt and verdict.complaints


def test_a_text_is_valid_exactly_if_it_has_no_complaints(sample: list[tales.Tale]) -> None:
    """A damaged tale is valid, has bits and no complaints, or it has complaints and no bits."""
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
    assert n_valid < 15  # a few stay valid, for example if one colour takes the place of another
