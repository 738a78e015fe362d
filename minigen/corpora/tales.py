"""Tales: a corpus of short stories from a grammar, so that the best possible loss is known exactly.

A tale is a header line and a paragraph of 7 to 11 sentences:

    hero: Sir Fox, friend: little Owl, place: faraway forest, object: magic lantern, ...
    One windy Friday, Sir Fox was counting red socks in the faraway forest. Along hopped ...

Every word is drawn uniformly from a short list, so -log2 p(tale) is an exact number of bits; their
mean, `entropy()`, is the floor under the loss of any model. The header says what the tale must be
about, and `check` reads any text (a model's sample) and says whether it is a tale, whether it
obeys its header, and if not, why.

    python -m minigen.corpora.tales --count 3          # read some tales
    python -m minigen.corpora.tales --check FILE       # check tales between blank lines or rules
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.corpora import splits
from minigen.corpora.grammar import By, Grammar, Mention, Reader, article, parse_rules
from minigen.corpora.task import Verdict, check_file, draw, flags, known, save_text
from minigen.system.streams import one_line_errors

VERSION = 6  # of the text format: the same version and seed give the same bytes

# ---- the tables ----------------------------------------------------------------------------------

# What the header says, in its order. Every word has one role only, wherever it stands.
FIELDS = {
    field: tuple(rule)
    for field, rule in parse_rules("""
hero: Fox Bear Rabbit Hedgehog Mouse Badger Otter Squirrel Wolf Donkey Goat Pig Lamb Hare Camel
  Tiger
friend: Frog Toad Beaver Mole Turtle Pony Hamster Lizard Monkey Panda Weasel Parrot Duck Goose Owl
  Crab
place: forest meadow village valley garden orchard desert harbour market swamp castle jungle
object: lantern rope whistle ladder umbrella mirror blanket kettle
mood: merry sleepy silly spooky cosy proud dreamy grumpy
moral: patience kindness courage sharing honesty teamwork curiosity forgiveness
""").items()
    if not isinstance(rule, By)
}

# Drawn once for a tale, besides the header's fields, and repeated from then on.
CAST = parse_rules("""
sex: he she
""")

# Short lists; every mention draws anew.
LISTS = parse_rules("""
title by sex:
  he: Sir
  she: Lady
he by sex:
  he: he
  she: she
his by sex:
  he: his
  she: her
nick: Moonbeam Dumpling Thunder Biscuit Sunny Pepper Captain Noodle Lucky Snowball Whisper Twinkle
big: huge terrible awful gigantic dreadful scary wild angry
foe: giant dragon witch ghost bull troll goblin crocodile monster shark lion vampire
weather: frosty misty windy rainy chilly foggy snowy stormy cloudy breezy icy warm
day: morning evening night Monday Tuesday Wednesday Thursday Friday Saturday Sunday birthday holiday
trait: shy bossy clever clumsy polite nosy hungry gentle lazy eager old noisy tired brave rude quiet
doing: counting painting washing sorting hiding drawing burying selling mending finding eating
  throwing cleaning hugging stacking planting
things: pebbles buttons acorns feathers cups turnips candles marbles socks shells nuts ribbons
  spoons letters pillows hats
worn: mossy leaning broken haunted lonely muddy creaky painted narrow crooked empty dusty
spot: well gate fence bench stump fountain wall hedge tower barn cottage shed bridge chimney tree
  stable
tasty: sticky salty crispy spicy burnt juicy crunchy frozen sour sweet soft raw
foods: pancakes plums carrots cherries waffles pears pies berries tarts onions beans peas muffins
  rolls figs lemons
number: two three four five six seven eight nine ten eleven twelve thirteen
colour: red blue green yellow pink brown orange grey black white purple silver
clothes: scarf apron coat bonnet cloak jacket cap shawl helmet kilt gown sweater
relative: aunt uncle cousin granny grandpa brother sister nephew niece butler neighbour teacher
stranger: pirate baker wizard sailor postman princess clown plumber knight poet king tailor
moved: hopped hurried marched wandered trotted skipped strolled danced crept raced rolled swam
said: cried sighed sang shouted whispered giggled squeaked mumbled gasped growled laughed sniffed
how: softly loudly sadly gladly slowly kindly oddly proudly crossly gently wisely boldly
suddenly:
  Suddenly
  All at once
  Just then
  Before long
  Soon
  But then
""")

# What happens, part by part and one sentence each. Whatever was said once comes back behind that
# same word: "Sir Fox", "little Owl", "faraway harbour", "magic kettle", "so merry".
# Tales are told like that, and it lets a small model learn within a minute to look back for it.
PARTS = parse_rules("""
opening:
  One {day}, {title} {hero} and little {friend} were {doing} {things} in the faraway {place}.
  Every {day} in the faraway {place}, {title} {hero} helped little {friend} with {doing} {things}.
  {Title} {hero} and little {friend} of the faraway {place} loved {doing} {colour} {things}.
  In the faraway {place}, behind {a worn} {spot}, lived {title} {hero} and little {friend}.
  Nobody in the faraway {place} had more {things} than {title} {hero} and little {friend}.
scene:
  In the faraway {place}, {title} {hero} and little {friend} met {number} {trait} children.
  All songs in the faraway {place} of {title} {hero} and little {friend} were about {moral}.
  It was {a weather} {day}, and {title} {hero} and little {friend} felt so {mood}.
meeting:
  "I feel so {mood}, {greeting}" {said} little {friend} to {title} {hero} {how}.
  "I feel so {mood}, {greeting}" {said} {title} {hero} to little {friend} {how}.
finding:
  Under {a worn} {spot}, {title} {hero} and little {friend} found {gift}.
  {A trait} {relative} sent {title} {hero} and little {friend} {gift}.
  {A trait} {stranger} sold {title} {hero} and little {friend} {gift}.
chat:
  "The magic {object} smells of {tasty} {foods}," {said} little {friend} to {title} {hero} {how}.
  "Hide the magic {object} in my {clothes}," {said} {title} {hero} to little {friend} {how}.
  {Title} {hero} and little {friend} {moved} on, so {mood} that they lost {number} {things}.
  On the road, {title} {hero} and little {friend} met {a trait} {stranger} singing about {moral}.
trouble:
  {Suddenly}, {a big} {foe} {moved} up to {title} {hero} and little {friend} by {a worn} {spot}.
  After {number} steps, {title} {hero} and little {friend} met {a big} {foe} in {a clothes}.
  {Suddenly}, {a big} {foe} wanted the magic {object} of {title} {hero} and little {friend}.
cry:
  "Now I do not feel so {mood}!" {said} little {friend} to {title} {hero} {how}.
  "It knows nothing about {moral}," {said} {title} {hero} to little {friend} {how}.
  "We need the magic {object}!" {said} {title} {hero} to little {friend} {how}.
solution:
  {Title} {hero} took the magic {object} and {solved}, and the poor thing {gave_up}.
  Little {friend} took the magic {object} and {solved}, and the poor thing {gave_up}.
thanks:
  "What {a trait} {stranger} {he} is!" {said} little {friend} of {title} {hero} {how}.
  "Now I feel so {mood} again," {said} little {friend} to {title} {hero} {how}.
  They gave the magic {object} {number} {tasty} {foods} in the faraway {place}.
ending:
  In the end, {title} {hero} and little {friend} were so {mood} that they {felt}.
  That {day}, all in the faraway {place} were so {mood} that they {felt}.
closing:
  And so, {title} {hero} and {his} little {friend} learned about {moral}: {lesson}.
  {A trait} {relative} told {title} {hero} and little {friend} about {moral}: {lesson}.
  "I know about {moral}," {said} little {friend} to {title} {hero} {how}, "{lesson}."
""")
DETOURS = ("scene", "chat", "cry", "thanks")  # told or skipped, so a tale has 7 to 11 sentences

# What is said and done inside these sentences.
PHRASES = parse_rules("""
greeting:
  do you know a song about {moral}?
  where is the magic {object}?
  but I have lost {number} {colour} {things}!
  just like my {trait} {relative} in the faraway {place}!
  let us go {doing} {things}!
gift:
  a magic {object} called {nick} and a book about {moral}
  a magic {object} and {number} songs about {moral}
gave_up:
  {moved} away
  asked for {tasty} {foods}
  fell into {a worn} {spot}
solved by object:
  lantern: lit up {number} {things} | lit {a worn} {spot}
  rope: tied up {number} {things} | tied it to {a worn} {spot}
  whistle: blew it {number} times | blew at {a worn} {spot}
  ladder: climbed {number} steps | climbed {a worn} {spot}
  umbrella: opened it {number} times | opened it on {a worn} {spot}
  mirror: showed it {number} {things} | showed it {a worn} {spot}
  blanket: covered {number} {things} | covered {a worn} {spot}
  kettle: boiled {number} {things} | boiled tea on {a worn} {spot}
felt by mood:
  merry: danced around {a worn} {spot} | sang {number} songs
  sleepy: snored behind {a worn} {spot} | yawned {number} times
  silly: kissed {a worn} {spot} | wore {number} {things}
  spooky: hid behind {a worn} {spot} | saw {number} {colour} eyes
  cosy: sat down by {a worn} {spot} | drank {number} cups of tea
  proud: stood on top of {a worn} {spot} | bowed {number} times
  dreamy: gazed at {a worn} {spot} | counted {number} clouds
  grumpy: kicked {a worn} {spot} | slammed {number} doors
lesson by moral:
  patience: good {foods} take time | even {a trait} {stranger} can wait
  kindness: a kind word is worth {number} {things} | a smile is warmer than {a colour} {clothes}
  courage: fear is only a shadow on {a worn} {spot} | a hero may shake {number} times
  sharing: {tasty} {foods} taste better together | two can sit under {a colour} {clothes}
  honesty: one lie needs {number} more | the truth is better than {tasty} {foods}
  teamwork: many hands can lift {a worn} {spot} | two heads are better than {number} {things}
  curiosity: every {worn} {spot} has a secret | those who ask will find {colour} {things}
  forgiveness: anger is heavier than {a worn} {spot} | all deserve {number} chances
""")

HEADER = (
    "hero: {title} {hero}, friend: little {friend}, place: faraway {place},"
    " object: magic {object}, mood: so {mood}, moral: about {moral}"
)
GRAMMAR = Grammar(
    {
        **FIELDS,
        **CAST,
        **LISTS,
        **PARTS,
        **PHRASES,
        **{f"maybe_{part}": ("", f" {{{part}}}") for part in DETOURS},
        "header": (HEADER,),
        # A detour brings its own space.
        "tale": (
            "{header}\n"
            + "".join(f"{{maybe_{p}}}" if p in DETOURS else f" {{{p}}}" for p in PARTS).lstrip(),
        ),
    },
    remembered=[*FIELDS, *CAST],
    start="tale",
)


# ---- writing tales -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tale:
    """`bits` is -log2 of the tale's exact probability; `conditions` are the header's fields."""

    text: str
    bits: float
    conditions: dict[str, str]


def tale(rng: random.Random) -> Tale:
    text, ways, memory = GRAMMAR.write(rng)
    return Tale(text, math.log2(ways), {field: memory[field] for field in FIELDS})


def tales(seed: int, split: str = "train") -> Iterator[Tale]:
    """Tales without end; the k-th is a function of (seed, split, k), on every Python and machine.

    Seeding by a string hashes it with SHA-512 into the generator's state, so that neighbouring
    seeds share nothing; the tale then uses only `random()`, whose numbers Python keeps the same.
    """
    for k in itertools.count():
        yield tale(random.Random(f"{seed}/{split}/{k}"))


def entropy() -> float:
    """Mean bits per tale: no model's mean loss on fresh tales can be lower."""
    return GRAMMAR.entropy()


def count() -> int:
    """How many different tales there are."""
    return GRAMMAR.count()


def write(
    folder: Path, train_bytes: int = 2_000_000, val_bytes: int = 200_000, seed: int = 0
) -> dict[str, Any]:
    """Write train.txt, val.txt and facts.json, as `splits.write` does; returns the facts."""
    return splits.write(
        Path(folder),
        "tales",
        {split: tales(seed, split) for split in ("train", "val")},
        {"train": train_bytes, "val": val_bytes},
        {"version": VERSION, "seed": seed, "entropy_bits_per_tale": round(entropy(), 6)},
    )


# ---- asking for tales ----------------------------------------------------------------------------

NOUN, ENDINGS, WHOLE = "tale", (".txt",), False
TITLES = {"title": ("Sir", "Lady")}


def prompt(text: str, rng: random.Random) -> str:
    """What was typed: a tale goes on behind any words."""
    return text


def condition(given: Mapping[str, str], rng: random.Random) -> str:
    """A header with these values; the other fields, and whether Sir or Lady, are drawn.

    >>> condition({"hero": "fox"}, random.Random(0))[:15]
    'hero: Lady Fox,'
    """
    words = {name: draw(options, rng) for name, options in (FIELDS | TITLES).items()}
    return HEADER.format(**words | known(NOUN, FIELDS, given)) + "\n"


def show(text: str) -> str:
    """The tale as it is."""
    return text


def save(texts: Sequence[str], path: Path) -> None:
    """Write the tales as text."""
    save_text(texts, path)


# ---- checking tales ------------------------------------------------------------------------------


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
    read = next(Reader(GRAMMAR, header).readings("header"), None)
    denied, contradictions = _contradictions(read.mentions if read else (), told, conditions)
    complaints += contradictions
    complaints += _disorder(told)
    shown = {mention.name for sentence in told for mention in sentence.mentions}
    parts = {sentence.part for sentence in told}
    if "ending" not in parts:
        shown.discard("mood")
    if "closing" not in parts:
        shown.discard("moral")
    complaints += [f"the tale does not show its {field}" for field in FIELDS if field not in shown]
    obeys = len(conditions) == len(FIELDS) and not denied and shown.issuperset(FIELDS)
    complaints = complaints or ["not a tale of this grammar"]
    return Verdict(well_formed, obeys, False, complaints, None, conditions)


@dataclass(frozen=True)
class Sentence:
    """The `number`-th sentence; `part` is None if the grammar has no such sentence."""

    number: int
    part: str | None
    mentions: tuple[Mention, ...]


def _check_header(header: str) -> tuple[list[str], dict[str, str]]:
    """Complaints, and the fields that have a value which they can have."""
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
    readings = Reader(GRAMMAR, header).readings("header")
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
    """Split the paragraph into sentences, each read on its own; complaints about the unreadable."""
    sentences: list[Sentence] = []
    complaints: list[str] = []
    start = 0
    while start < len(body):
        number = len(sentences) + 1
        reader = Reader(GRAMMAR, body)
        found = (
            (part, reading)
            for part in PARTS
            for reading in reader.readings(part, start)
            if body[reading.end : reading.end + 1] in ("", " ")
        )
        part, reading = next(found, (None, None))
        if reading:
            end, mentions = reading.end, reading.mentions
        else:
            stop = SENTENCE_END.search(body, start)
            end = stop.end() if stop else len(body)
            complaints.append(_complain(body[start:end], number, reader.furthest - start))
            mentions = tuple(
                Mention(WORD_ROLES[word[0]], word[0], word.start(), word.end())
                for word in re.compile(r"\w+").finditer(body, start, end)
                if word[0] in WORD_ROLES
            )
        sentences.append(Sentence(number, part, mentions))
        start = end + 1
    return sentences, complaints


def _complain(sentence: str, number: int, furthest: int) -> str:
    """What is wrong with a sentence that cannot be read beyond `furthest`."""
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
    """Header fields that the tale denies; complaints about whatever changes within the text."""
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


def _disorder(told: list[Sentence]) -> list[str]:
    """Complaints about parts of the tale that are missing, told twice or told too late."""
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


# ---- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    options = flags(NOUN).parse_args(arguments)
    if options.check is None:
        chosen = itertools.islice(tales(options.seed), max(0, options.count))
        print("\n\n".join(one.text for one in chosen))
        return
    check_file(options.check, NOUN, check)


if __name__ == "__main__":
    with one_line_errors():
        main()
