"""Tales: a corpus of short stories from a grammar, so that the best possible loss is known exactly.

A tale is a header line and a paragraph of 8 to 12 sentences:

    hero: fox, friend: owl, place: forest, object: lantern, mood: merry, moral: patience
    Once upon a windy Tuesday, there lived in the forest a shy fox called Tilda, who ...

Every word is drawn uniformly from a short list, so -log2 p(tale) is an exact number of bits; their
mean, `entropy()`, is the floor under the loss of any model. The header says what the tale must be
about, and `check` reads any text (a model's sample) and says whether it is a tale, whether it
obeys its header, and if not, why.

    python -m minigen.corpora.tales --count 3          # read some tales
    python -m minigen.corpora.tales --check FILE       # check tales that blank lines separate
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.corpora.grammar import By, Grammar, Mention, Reader, Rule, article
from minigen.errors import UserError, one_line_errors

VERSION = 1  # of the text format: the same version and seed give the same bytes

# ---- the tables ------------------------------------------------------------------------------------


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# What the header says, in its order. No word here stands anywhere else in the tables.
FIELDS: dict[str, tuple[str, ...]] = {
    "hero": words(
        "fox bear rabbit hedgehog mouse badger otter squirrel "
        "wolf donkey goat pig lamb elephant camel tiger"
    ),
    "friend": words(
        "frog toad beaver mole turtle pony hamster lizard "
        "monkey panda weasel raccoon iguana llama poodle owl"
    ),
    "place": words(
        "forest meadow village valley garden orchard desert harbour market swamp castle jungle"
    ),
    "object": words("lantern rope whistle ladder umbrella mirror blanket kettle"),
    "mood": words("merry sleepy silly spooky cosy proud dreamy grumpy"),
    "moral": words("patience kindness courage sharing honesty teamwork curiosity forgiveness"),
}

# Drawn once for a tale, besides the header's fields, and repeated from then on.
CAST: dict[str, Rule] = {
    "sex": ("he", "she"),
    "name": By(
        "sex",
        {
            "he": words("Bruno Hugo Oscar Felix Milo Rufus Barnaby Otto"),
            "she": words("Tilda Greta Wilma Hazel Clara Nelly Matilda Poppy"),
        },
    ),
    "pal": words("Pip Bo Fidget Juniper Dot Sprout Toffee Bramble Pickle Maple Clover Ziggy"),
    "look": words(
        "tiny shiny dusty crooked striped spotted golden silver purple enormous ancient battered"
    ),
}

# Short lists; every mention draws anew.
LISTS: dict[str, Rule] = {
    "he": By("sex", {"he": ("he",), "she": ("she",)}),
    "his": By("sex", {"he": ("his",), "she": ("her",)}),
    "him": By("sex", {"he": ("him",), "she": ("her",)}),
    "weather": words("frosty misty windy sunny rainy chilly foggy snowy stormy cloudy breezy icy"),
    "day": words("morning afternoon evening Monday Tuesday Thursday Friday Sunday"),
    "trait": words(
        "shy bossy clever clumsy cheerful polite nosy hungry "
        "gentle stubborn lazy forgetful eager elderly anxious untidy"
    ),
    "doing": words(
        "counting painting polishing juggling sorting stacking "
        "hiding drawing burying collecting weighing admiring"
    ),
    "things": words(
        "pebbles buttons acorns feathers teacups turnips candles marbles "
        "socks shells pinecones walnuts ribbons mushrooms postcards pillows"
    ),
    "worn": words(
        "mossy leaning crumbling broken haunted lonely muddy painted creaky old overgrown forgotten"
    ),
    "spot": words(
        "well gate fence bench stump haystack fountain wall "
        "hedge windmill tower barn cottage shed lamppost signpost"
    ),
    "tasty": words(
        "warm sticky salty crispy buttery spicy squashed burnt juicy crunchy frozen sour"
    ),
    "foods": words(
        "pancakes dumplings muffins plums carrots biscuits cherries waffles "
        "noodles sandwiches pears pies berries tarts onions radishes"
    ),
    "number": words("two three four five six seven eight nine ten eleven twelve thirteen"),
    "colour": words("red blue green yellow pink brown orange grey black white crimson turquoise"),
    "clothes": words(
        "scarf apron coat bonnet waistcoat cloak jacket hat shawl helmet kilt nightgown"
    ),
    "relative": words(
        "aunt uncle cousin grandmother grandfather brother sister nephew niece butler neighbour teacher"
    ),
    "stranger": words(
        "pirate baker wizard sailor postman princess clown plumber knight poet king tailor"
    ),
    "body": words("nose chin tail belly ear elbow knee paw"),
    "moved": words(
        "hopped hurried tiptoed marched wandered trotted skipped strolled danced limped crept raced"
    ),
    "said": words(
        "said cried sighed sang shouted muttered announced giggled squeaked declared mumbled gasped"
    ),
    "big": words("huge gigantic terrible dreadful monstrous fearsome awful frightful"),
    "suddenly": (
        "Suddenly",
        "All at once",
        "Just then",
        "Before long",
        "Soon",
        "But then",
    ),
    "moodly": By(
        "mood",
        {
            "merry": words("cheerily gladly happily"),
            "sleepy": words("drowsily wearily lazily"),
            "silly": words("foolishly giddily oddly"),
            "spooky": words("eerily darkly hollowly"),
            "cosy": words("snugly softly sweetly"),
            "proud": words("grandly boldly nobly"),
            "dreamy": words("vaguely faintly wistfully"),
            "grumpy": words("crossly gruffly bitterly"),
        },
    ),
    "locals": By(
        "place",
        {
            "forest": ("woodpeckers",),
            "meadow": ("bumblebees",),
            "village": ("children",),
            "valley": ("shepherds",),
            "garden": ("snails",),
            "orchard": ("sparrows",),
            "desert": ("scorpions",),
            "harbour": ("seagulls",),
            "market": ("merchants",),
            "swamp": ("mosquitoes",),
            "castle": ("servants",),
            "jungle": ("parrots",),
        },
    ),
}

# What happens, part by part and one sentence each. "{name}" is the hero, "{pal}" the friend.
PARTS: dict[str, Rule] = {
    "opening": (
        "One {weather} {day}, {a trait} {hero} named {name} was {doing} {colour} {things} "
        "in the {place}.",
        "Every {weather} {day}, {a trait} {hero} named {name} went {doing} {things} in the {place}.",
        "In the {place} lived {name}, {a trait} {hero} who loved {doing} {colour} {things}.",
        "{Name} was {a trait} {hero} who lived in the {place} behind {a worn} {spot}.",
        "Nobody in the {place} had more {colour} {things} than {name}, {a trait} {hero} "
        "in {a colour} {clothes}.",
        "Once, in the {place}, {a trait} {hero} named {name} was {doing} {number} {colour} {things}.",
    ),
    "scene": (
        "In {a worn} {spot}, {number} {trait} {locals} were {doing} {colour} {things}.",
        "The {trait} {locals} there sold {number} {tasty} {foods}.",
        "It smelled of {tasty} {foods}, {colour} {things} and {trait} {locals}.",
    ),
    "meeting": (
        'Along came {a trait} {friend} named {pal}, who {said} {moodly}, "{greeting}"',
        '"{greeting}" {said} {pal}, {a trait} {friend} in {a colour} {clothes}.',
        '{A trait} {friend} named {pal} {moved} by and {said} {moodly}, "{greeting}"',
        '{His} friend {pal}, {a trait} {friend}, {moved} over and {said}, "{greeting}"',
    ),
    "finding": (
        "Under {a worn} {spot} they found {a look} {object} and {number} {colour} {things}.",
        "{A trait} {relative} had sent {name} {a look} {object} and some {tasty} {foods}.",
        "{A trait} {stranger} sold them {a look} {object} for {number} {tasty} {foods}.",
        "Behind {a worn} {spot}, {a trait} {stranger} gave them {a look} {object}.",
        "{Name} found {a look} {object}, {number} {colour} {things} and {a colour} {clothes}.",
    ),
    "chat": (
        '"It looks like my {trait} {relative}," {said} {pal} {moodly}.',
        '"I will hide it under my {colour} {clothes}," {said} {name} {moodly}.',
        "They {moved} on, sharing {number} {tasty} {foods}.",
        "{Pal} wanted {number} {tasty} {foods} for it.",
        "On the road, {a trait} {stranger} was {doing} {colour} {things}.",
    ),
    "trouble": (
        "{Suddenly}, {trouble_by_object}.",
        "After {number} steps, {trouble_by_object}.",
        "At {number} o'clock, {trouble_by_object}.",
        "They were {doing} {things} when {trouble_by_object}.",
    ),
    "cry": (
        '"Oh, my {colour} {clothes}!" {said} {pal} {moodly}.',
        '"This is worse than {tasty} {foods}," {said} {name} {moodly}.',
        '"We need {a trait} {stranger}!" {said} {name} {moodly}.',
        "{Name} lost {number} {tasty} {foods} and {a colour} {clothes}.",
    ),
    "virtue": By(
        "moral",
        {
            "patience": (
                "{Name} sat on {a worn} {spot}, {doing} {number} {colour} {things}.",
                "{Name} waited for {number} minutes, {doing} {colour} {things}.",
            ),
            "kindness": (
                "{Name} gave {pal} {number} {colour} {things} and {a colour} {clothes}.",
                '"Have my {colour} {clothes}, {pal}," {said} {name} {moodly}.',
            ),
            "courage": (
                "{Name} took {number} brave steps in {a colour} {clothes}.",
                '"I am as brave as {a trait} {stranger}," {said} {name} {moodly}.',
            ),
            "sharing": (
                "{Name} gave {pal} half of {number} {tasty} {foods}.",
                '"Half of my {colour} {things} are yours," {said} {name} {moodly}.',
            ),
            "honesty": (
                '"It is my fault, I was {doing} {colour} {things}," {said} {name} {moodly}.',
                "{Name} told {pal} the truth about {number} {tasty} {foods}.",
            ),
            "teamwork": (
                "{Name} asked {number} {trait} {locals} for help.",
                "{Name} asked {a trait} {relative} and {a trait} {stranger} for help.",
            ),
            "curiosity": (
                "{Name} looked at the {object} for {number} minutes, {doing} {things}.",
                '"Do all {locals} like {tasty} {foods}?" {said} {name} {moodly}.',
            ),
            "forgiveness": (
                '"I forgive you, even for the {tasty} {foods}," {said} {name} {moodly}.',
                "{Name} was angry for only {number} minutes, {doing} {things}.",
            ),
        },
    ),
    "solution": (
        "Then {name} {moodly} {solved_by_object}.",
        '"Aha!" {said} {name}, and {he} {moodly} {solved_by_object}.',
        "Like {a trait} {stranger}, {name} {solved_by_object}.",
        "Full of {tasty} {foods}, {name} {solved_by_object}.",
        "Dressed in {a colour} {clothes}, {name} {solved_by_object}.",
    ),
    "thanks": (
        '"What {a trait} {hero} you are!" {said} {pal} {moodly}.',
        '"My {trait} {relative} can do that," {said} the {friend} {moodly}.',
        "{Pal} gave the {hero} {number} {tasty} {foods} and {a colour} {clothes}.",
        "Even {a trait} {stranger} danced {moodly} for the {hero}.",
        "The whole {place} sent {name} {number} {colour} {things}.",
    ),
    "ending": By(
        "mood",
        {
            "merry": (
                "Then everybody danced around {a worn} {spot} with {colour} {things}.",
                "They {moved} home, singing about {tasty} {foods}.",
                "That night there was a party with {number} {tasty} {foods}.",
            ),
            "sleepy": (
                "Soon they snored behind {a worn} {spot}, dreaming of {tasty} {foods}.",
                "{Name} yawned {number} times and fell asleep in {a colour} {clothes}.",
                "The whole {place} fell asleep, and even the {colour} {things} snored.",
            ),
            "silly": (
                "They put {tasty} {foods} on their heads and {moved} home backwards.",
                "The {friend} went home dressed as {a worn} {spot}.",
                "That night {name} wore {number} {colour} {things} on {his} {body}.",
            ),
            "spooky": (
                "But at midnight, {number} ghosts came and asked for {tasty} {foods}.",
                "But in the dark, something went on {doing} {colour} {things}.",
                "But {number} {colour} eyes watched them from {a worn} {spot}.",
            ),
            "cosy": (
                "They sat by the fire with {a colour} cushion and {tasty} {foods}.",
                "At home there was {a colour} cushion and {number} {tasty} {foods}.",
                "They sat by the fire, {doing} {colour} {things}.",
            ),
            "proud": (
                "{Name} got a medal as big as {a worn} {spot}.",
                "A statue of {name} now stands behind {a worn} {spot}.",
                "{Name} bowed {number} times with {his} {body} in the air.",
            ),
            "dreamy": (
                "They watched clouds like {tasty} {foods} over the {place}.",
                "{Name} looked at the moon and saw {number} {colour} {things}.",
                "Stars came out over {a worn} {spot} like {colour} {things}.",
            ),
            "grumpy": (
                "{Name} wanted {tasty} {foods} and kicked {a worn} {spot}.",
                "The {friend} slammed {number} doors and kicked {a worn} {spot}.",
                "{Name} {moved} home in {a colour} {clothes} and slammed {number} doors.",
            ),
        },
    ),
    "closing": (
        "And so the {trait} {hero} learned that {lesson}.",
        "As {a trait} {relative} once told {name}, {lesson}.",
        "Ask {name}, and {he} will tell you that {lesson}.",
        "They wrote on {a worn} {spot} in {colour} paint that {lesson}.",
        '"You see," {said} {pal} {moodly}, "{lesson}."',
    ),
}
DETOURS = ("scene", "chat", "cry", "thanks")  # told or skipped, so a tale has 8 to 12 sentences

# What is said and done inside these sentences.
PHRASES: dict[str, Rule] = {
    "greeting": (
        "Do you have {tasty} {foods}?",
        "Where is my {colour} {clothes}?",
        "I have lost {number} {colour} {things}!",
        "My {trait} {relative} loves {tasty} {foods}!",
        "Let us go {doing} {things}!",
    ),
    "trouble_by_object": By(
        "object",
        {
            "lantern": (
                "{a big} shadow fell over {a worn} {spot}",
                "they got lost in {a big} cave full of {colour} {things}",
            ),
            "rope": (
                "{pal} fell into {a big} hole behind {a worn} {spot}",
                "{pal} got stuck in {a big} hole by the {body}",
            ),
            "whistle": (
                "{pal} got lost in {a big} fog behind {a worn} {spot}",
                "{pal} raced after {number} {colour} {things} and got lost",
            ),
            "ladder": (
                "{pal} climbed {a worn} {spot} and got stuck",
                "{pal} got stuck in {a big} tree full of {tasty} {foods}",
            ),
            "umbrella": (
                "{a big} storm came over {a worn} {spot}",
                "it rained {number} {tasty} {foods}",
            ),
            "mirror": (
                "{a big} {stranger} came out from behind {a worn} {spot}",
                "{a big} {stranger} took {pal} by the {body}",
            ),
            "blanket": (
                "{a big} frost turned {pal} as {colour} as {things}",
                "{pal} fell into {a big} pond behind {a worn} {spot}",
            ),
            "kettle": (
                "{pal} caught {a big} cold and sneezed {number} times",
                "{a big} {stranger} asked for {number} cups of tea",
            ),
        },
    ),
    "solved_by_object": By(
        "object",
        {
            "lantern": (
                "lit the {look} {object}, as bright as {number} {things}",
                "lit the {look} {object} for {number} {trait} {locals}",
            ),
            "rope": (
                "tied the {look} {object} to {a worn} {spot} and pulled",
                "pulled {pal} out with the {look} {object} in {number} minutes",
            ),
            "whistle": (
                "blew the {look} {object} {number} times, and {pal} came back",
                "blew the {look} {object} until {pal} {moved} back",
            ),
            "ladder": (
                "climbed the {look} {object} and carried {pal} down by the {body}",
                "held up the {look} {object}, and {pal} took {number} steps down",
            ),
            "umbrella": (
                "opened the {look} {object} over {number} {trait} heads",
                "opened the {look} {object} from {body} to {body}",
            ),
            "mirror": (
                "held up the {look} {object} and scared the villain with {a big} {body}",
                "showed the villain {a big} {body} in the {look} {object}",
            ),
            "blanket": (
                "wrapped the {look} {object} around {pal} {number} times",
                "warmed {pal} in the {look} {object} from {body} to {body}",
            ),
            "kettle": (
                "boiled the {look} {object} for tea with {tasty} {foods}",
                "made {number} cups of tea in the {look} {object}",
            ),
        },
    ),
    "lesson": By(
        "moral",
        {
            "patience": (
                "good {foods} take time",
                "even {a trait} {stranger} can wait",
            ),
            "kindness": (
                "a kind word is worth {number} {things}",
                "a smile is warmer than {a colour} {clothes}",
            ),
            "courage": (
                "fear is only {a big} shadow",
                "a brave {body} may shake {number} times",
            ),
            "sharing": (
                "{tasty} {foods} taste better together",
                "two can sit under {a colour} {clothes}",
            ),
            "honesty": (
                "one lie needs {number} more",
                "the truth is better than {tasty} {foods}",
            ),
            "teamwork": (
                "many hands can lift {a worn} {spot}",
                "two heads are better than {number} {things}",
            ),
            "curiosity": (
                "every {worn} {spot} has a secret",
                "those who ask will find {colour} {things}",
            ),
            "forgiveness": (
                "anger is heavier than {a worn} {spot}",
                "everybody deserves {number} chances",
            ),
        },
    ),
}

HEADER = ", ".join(f"{field}: {{{field}}}" for field in FIELDS)
GRAMMAR = Grammar(
    {
        **FIELDS,
        **CAST,
        **LISTS,
        **PARTS,
        **PHRASES,
        **{f"maybe_{part}": ("", f" {{{part}}}") for part in DETOURS},
        "tale": (
            f"{HEADER}\n"
            + " ".join(f"{{maybe_{p}}}" if p in DETOURS else f"{{{p}}}" for p in PARTS).replace(
                " {maybe_",
                "{maybe_",  # a detour brings its own space
            ),
        ),
    },
    remembered=[*FIELDS, *CAST],
    start="tale",
)


# ---- writing tales ---------------------------------------------------------------------------------


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
    """Write train.txt, val.txt (blank lines between tales) and facts.json; returns the facts.

    Each file has as many tales as fit into its bytes, at least one. No tale of val.txt is in
    train.txt. In the facts, `bits` is the sum of -log2 p over a file's tales, so `bits_per_byte`
    (of the tales' text) is what a model that knows the grammar perfectly pays on that very file.
    """
    folder = Path(folder)
    splits: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split, n_bytes in {"train": train_bytes, "val": val_bytes}.items():
            texts, bits, size = [], [], 0
            for one in tales(seed, split):
                if one.text in seen and split == "val":
                    continue
                size += len(one.text) + (
                    2 if texts else 1
                )  # blank line between, newline at the end
                if size > n_bytes:
                    break
                texts.append(one.text)
                bits.append(one.bits)
            if not texts:
                raise UserError(f"{split}_bytes is {n_bytes}; give 2000 or more, room for a tale")
            seen.update(texts)
            data = ("\n\n".join(texts) + "\n").encode("ascii")
            _write_whole(folder / f"{split}.txt", data)
            text_bytes = sum(map(len, texts))
            splits[split] = {
                "file": f"{split}.txt",
                "sha256": hashlib.sha256(data).hexdigest(),
                "tales": len(texts),
                "bytes": len(data),
                "text_bytes": text_bytes,
                "bits": round(math.fsum(bits), 3),
                "bits_per_byte": round(math.fsum(bits) / text_bytes, 6),
            }
        facts = {
            "corpus": "tales",
            "version": VERSION,
            "seed": seed,
            "entropy_bits_per_tale": round(entropy(), 6),
            "splits": splits,
        }
        _write_whole(folder / "facts.json", (json.dumps(facts, indent=2) + "\n").encode("ascii"))
    except OSError as error:
        raise UserError(f"cannot write tales to {folder}: {error.strerror}") from error
    return facts


def _write_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step, so that nobody ever sees half of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# ---- checking tales --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What `check` found out about a text.

    valid: the grammar can write this text, to the letter.
    obeys: every field of the header is shown in the tale, and nothing in the tale denies one.
    complaints: why not, in plain words; empty exactly if the tale is valid.
    bits: -log2 p(text), if it is valid.
    conditions: the header's fields as far as they could be read.
    """

    valid: bool
    obeys: bool
    complaints: list[str]
    bits: float | None
    conditions: dict[str, str]


def check(text: str) -> Verdict:
    """Read a text as a tale; blank lines before and after it do not count.

    >>> check("hero: fox").complaints[0]
    'the header has no friend'
    """
    text = text.strip("\n")
    ways = GRAMMAR.ways(text)
    header, _, body = text.partition("\n")
    if not header.startswith("hero:"):
        header, body = "", text
    complaints, conditions = _check_header(header)
    if ways is not None:
        return Verdict(True, True, [], math.log2(ways), conditions)

    told, unreadable = _read_sentences(body)
    complaints += unreadable
    denied, contradictions = _contradictions(told, conditions)
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
    return Verdict(False, obeys, complaints or ["not a tale of this grammar"], None, conditions)


@dataclass(frozen=True)
class Sentence:
    """The `number`-th sentence; `part` is None if the grammar has no such sentence."""

    number: int
    part: str | None
    text: str
    mentions: tuple[Mention, ...]


def _check_header(header: str) -> tuple[list[str], dict[str, str]]:
    """Complaints, and the fields that have a value which they can have."""
    if not header:
        return ["no header: the first line must begin with hero: and a kind of hero"], {}
    found = dict(re.findall(r"(\w+): ?(\w*)", header))
    complaints = []
    for field, values in FIELDS.items():
        if field not in found:
            complaints.append(f"the header has no {field}")
        elif found[field] not in values:
            complaints.append(
                f"{field}: {found[field]} in the header is none of {', '.join(values)}"
            )
    if not complaints and header != ", ".join(f"{field}: {found[field]}" for field in FIELDS):
        complaints.append(f'the header is not of the form "{HEADER}"')
    known = {field: found[field] for field in FIELDS if found.get(field) in FIELDS[field]}
    return complaints, known


SENTENCE_END = re.compile(r'[.!?]"?(?=\s+["A-Z]|\s*$)')
WORD_ROLES = {
    word: role
    for role, words_of_role in {**FIELDS, **CAST}.items()
    if role not in ("mood", "moral", "sex")
    for word in (
        itertools.chain(*words_of_role.cases.values())
        if isinstance(words_of_role, By)
        else words_of_role
    )
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
            # Words that have one role only still tell what the sentence is about.
            mentions = tuple(
                Mention(WORD_ROLES[word[0]], word[0], word.start(), word.end())
                for word in re.compile(r"\w+").finditer(body, start, end)
                if word[0] in WORD_ROLES
            )
        sentences.append(Sentence(number, part, body[start:end], mentions))
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


def _contradictions(told: list[Sentence], conditions: dict[str, str]) -> tuple[set[str], list[str]]:
    """Header fields that the tale denies; complaints about whatever changes within the text."""
    first: dict[str, tuple[str, str]] = {k: (v, "in the header") for k, v in conditions.items()}
    complaints: dict[tuple[str, str], str] = {}
    denied: set[str] = set()
    for sentence in told:
        names = {mention.start for mention in sentence.mentions if mention.name == "name"}
        where = f"in sentence {sentence.number}"
        for mention in sentence.mentions:
            value, before = first.setdefault(mention.name, (mention.value, where))
            if mention.value == value or (mention.name == "sex" and mention.start in names):
                continue  # a wrong name is one fault, not also a wrong sex
            if mention.name in FIELDS:
                denied.add(mention.name)
            hero = first.get("name", ("the hero", ""))[0]
            if mention.name == "sex":
                text = f"{hero} is a {value} {before} but a {mention.value} {where}"
            else:
                what = {"name": "the hero's name", "pal": "the friend's name"}.get(mention.name)
                if mention.name == "look":
                    what = f"the {first['object'][0]}"
                old, new = (
                    f"{article(word)} {word}"
                    if mention.name in ("hero", "friend", "object")
                    else word
                    for word in (value, mention.value)
                )
                text = f"{what or mention.name} is {old} {before} but {new} {where}"
            complaints.setdefault((mention.name, mention.value), text)
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
    if not told or told[-1].part:  # an unreadable end has its own complaint
        if "closing" not in parts:
            complaints.append("ends without a moral")
    if all(sentence.part for sentence in told):  # else the missing part may be the unreadable one
        missing = [part for part in order if part not in (*parts, *DETOURS, "closing")]
        complaints += [f"the {part} is missing" for part in missing]
    return complaints


# ---- command line ----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m minigen.corpora.tales", description="Print tales, or check some."
    )
    parser.add_argument("--seed", type=int, default=0, help="which tales")
    parser.add_argument("--count", type=int, default=3, help="how many tales")
    parser.add_argument("--check", metavar="FILE", help="check a file's tales; - is standard input")
    options = parser.parse_args(arguments)
    if options.check is None:
        chosen = itertools.islice(tales(options.seed), max(0, options.count))
        print("\n\n".join(one.text for one in chosen))
        return
    try:
        data = sys.stdin.buffer.read() if options.check == "-" else Path(options.check).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {options.check}: {error.strerror}") from error
    lines = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
    texts = [text for text in re.split(r"\n{2,}", lines.strip("\n")) if text]
    verdicts = [check(text) for text in texts]
    for number, verdict in enumerate(verdicts, 1):
        for complaint in verdict.complaints:
            print(f"tale {number}: {complaint}")
    valid = sum(verdict.valid for verdict in verdicts)
    obeying = sum(verdict.obeys for verdict in verdicts)
    print(f"{len(verdicts)} tales, {valid} valid, {obeying} obey their header")


if __name__ == "__main__":
    with one_line_errors():
        main()
