"""Tunes: a corpus of melodies with chords from a musical grammar whose probabilities are known.

A tune is a line that says what it must be like, and then ABC notation (see `notation.py`):

    tune: a calm waltz in G, 8 bars, AA
    X:1
    T:The Humble Baker's Waltz
    M:3/4
    L:1/4
    K:G
    P:A
    "G" g2 g |"C" ga g |"G" d Bc |"Am" e "D" d2 |
    P:A
    "G" g2 g |"C" ga g |"G" d Bc |"D" A "G" G2 |]

A tune has two to four phrases of four bars. Phrases of one letter are alike but for their last
bars, the cadences: half-way a phrase stops on the dominant, and the last one comes home. Every beat
begins with a note of its chord. The mood decides the mode, how many notes a bar has, how they move
and where to.

All is drawn from short lists of texts, and each choice can be seen in the text, so -log2 p(tune) is
an exact number of bits: the floor under the loss of any model. `check` reads any text (a model's
sample) by its music, not by this grammar, and says whether it keeps its first line, and why not.

    python -m minigen.corpora.tunes --count 3          # read some tunes
    python -m minigen.corpora.tunes --check FILE       # check tunes between blank lines
    python -m minigen.corpora.tunes --save FOLDER      # hear and see them: .abc, .wav, .png
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from minigen.corpora import splits
from minigen.corpora.task import Verdict, check_file, draw, flags, known, save_text
from minigen.corpora.tunes import notation, sound
from minigen.corpora.tunes.notation import Bar, Part, Tune
from minigen.errors import UserError
from minigen.system.streams import unheard

VERSION = 1  # of the text format: the same version and seed give the same bytes

# ---- the tables ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mood:
    mode: str  # major or minor
    pace: str  # how many notes a bar has: slow, flowing or busy
    motion: str  # within a bar. steps: no move above a third; leaps: one of a fourth or more
    direction: str  # rising: no group of a bar begins below its first; falling: none above it


MOODS = {
    "cheerful": Mood("major", "flowing", "free", "rising"),
    "calm": Mood("major", "slow", "steps", "falling"),
    "proud": Mood("major", "slow", "leaps", "rising"),
    "lively": Mood("major", "busy", "free", "free"),
    "sad": Mood("minor", "slow", "steps", "falling"),
    "brave": Mood("minor", "slow", "leaps", "rising"),
    "dreamy": Mood("minor", "flowing", "steps", "free"),
    "wild": Mood("minor", "busy", "leaps", "falling"),
}


@dataclass(frozen=True)
class Style:
    """How a dance goes at a pace. Bars are ABC with n for each note; blanks part its groups.

    The unit is such that most groups are letters only. Then each is a token, and tells much about
    the next one.
    """

    unit: str  # L:, of which a note's length is a multiple
    bars: tuple[str, ...]  # no two paces of a dance have bars of as many notes
    approach: tuple[str, ...]  # how a cadence begins
    goal: str  # the long note on which it ends
    per_minute: int  # beats


@dataclass(frozen=True)
class Dance:
    metre: str
    styles: Mapping[str, Style]  # by pace


DANCES = {
    "waltz": Dance(
        "3/4",
        {
            "slow": Style("1/4", ("nn n", "n nn", "n2 n"), ("n",), "n2", 104),
            "flowing": Style("1/8", ("nn nn n2", "nn n2 nn", "n2 nn nn"), ("n2", "nn"), "n4", 132),
            "busy": Style("1/8", ("nn nn nn",), ("nn",), "n4", 152),
        },
    ),
    "march": Dance(
        "4/4",
        {
            "slow": Style("1/4", ("n2 nn", "n2 n2"), ("nn", "n2"), "n2", 88),
            "flowing": Style("1/8", ("n2 nn n2 nn", "n2 n2 nn nn"), ("n2 n2", "n2 nn"), "n4", 104),
            "busy": Style("1/8", ("n2 nn nn nn",), ("n2 nn",), "n4", 126),
        },
    ),
    "reel": Dance(
        "4/4",
        {
            "slow": Style("1/4", ("nn nn", "nn n2"), ("nn",), "n2", 100),
            "flowing": Style("1/8", ("nn n2 nn n2", "nn nn n2 n2"), ("nn n2",), "n4", 132),
            "busy": Style("1/8", ("nn nn nn nn", "nn nn nn n2"), ("nn nn", "nn n2"), "n4", 168),
        },
    ),
    "jig": Dance(
        "6/8",
        {
            "slow": Style("1/8", ("n3 n3", "n2n n3", "n3 n2n"), ("n3", "n2n"), "n3", 66),
            "flowing": Style("1/8", ("nnn n3", "n3 nnn", "n2n n2n"), ("n2n", "nnn"), "n3", 88),
            "busy": Style("1/8", ("nnn nnn", "n2n nnn", "nnn n2n"), ("n2n", "nnn"), "n3", 112),
        },
    ),
}


def style(conditions: Mapping[str, str]) -> Style:
    """How the dance goes in that mood."""
    return DANCES[conditions["dance"]].styles[MOODS[conditions["mood"]].pace]


KEYS = {"major": ("C", "G", "D", "A", "F"), "minor": ("Am", "Em", "Bm", "Dm")}
FORMS = ("AA", "ABA", "AABA", "AAAB", "ABAB", "AABB")  # a letter a phrase
REPEATED = "AABB"  # the form that is written with repeat signs
PHRASE = 4  # bars

# What the first line says, in its order.
FIELDS = {
    "mood": tuple(MOODS),
    "dance": tuple(DANCES),
    "key": (*KEYS["major"], *KEYS["minor"]),
    "bars": ("8", "12", "16"),
    "form": FORMS,
}
FIRST_LINE = "tune: a {mood} {dance} in {key}, {bars} bars, {form}"

# Moods and dances that never go together in training, so that a model can be asked for what it has
# not seen. Besides, one in eleven of all other first lines is kept back.
HELD_OUT = (("calm", "reel"), ("proud", "waltz"), ("sad", "march"), ("brave", "jig"))

# Whose tune it is, and what that one is like.
NATURES = (
    "Merry", "Old", "Young", "Jolly", "Lonely", "Lucky", "Sleepy", "Bold", "Gentle", "Crooked",
    "Dusty", "Humble", "Clever", "Hungry", "Restless", "Grey",
)  # fmt: skip
OWNERS = (
    "Miller", "Baker", "Sailor", "Piper", "Fox", "Badger", "Robin", "Heron", "Weaver", "Smith",
    "Shepherd", "Fiddler", "Ferryman", "Widow", "Drummer", "Tinker",
)  # fmt: skip

# Chords by their degree, in capitals if they are major ones. The harmony follows the melody: behind
# a chord comes the first of these that has the melody's last note, or else the first of all. So a
# phrase that is told again brings its chords along.
FOLLOWERS = {
    "major": {"I": "IV V vi", "ii": "V IV", "IV": "V I ii", "V": "I vi", "vi": "ii IV V"},
    "minor": {
        "i": "iv VII VI",
        "III": "VI VII iv",
        "iv": "VII i",
        "v": "i VI",
        "VI": "VII iv III",
        "VII": "III i",
    },
}
HOME = {"major": "I", "minor": "i"}
OPENINGS = {  # with what a phrase begins, by its letter
    "major": {"A": "I", "B": "IV"},
    "minor": {"A": "i", "B": "VI"},
}
DOMINANTS = {"major": ("V",), "minor": ("v", "VII")}
# The two chords of a phrase's last bar, by where it leads.
CADENCES = {
    "major": {
        "open": ("I IV", "IV I", "V I", "V vi", "ii vi"),
        "half": ("I V", "ii V", "IV V", "vi V"),
        "home": ("V I", "V I", "IV I"),
    },
    "minor": {
        "open": ("i iv", "iv i", "VII i", "v VI", "VII III"),
        "half": ("i v", "iv v", "iv VII", "VI VII"),
        "home": ("v i", "VII i", "iv i"),
    },
}
DEGREES = ("i", "ii", "iii", "iv", "v", "vi", "vii")

# Notes are numbers on the staff: C is 0, the C above it 7. A tin whistle plays them all.
LETTERS = "CDEFGABcdefgab"
LOWEST, HIGHEST = LETTERS.index("D"), LETTERS.index("a")
# Where a bar may begin, so that there is room for what the mood asks for.
FIRST_NOTES = {
    ("rising", "free"): (1, 7),
    ("rising", "leaps"): (1, 5),
    ("falling", "steps"): (6, 12),
    ("falling", "leaps"): (8, 12),
    ("free", "steps"): (3, 10),
    ("free", "free"): (3, 10),
}
# How far it is to the first note of the next beat, with weights.
NEAR = {0: 1, 1: 3, 2: 3}
WIDER = {**NEAR, 3: 2, 4: 1}
LEAP = {3: 3, 4: 2, 5: 1}
# How a beat goes on from its first note, by the number of its notes.
FIGURES = {
    "steps": {
        1: ((0,),),
        2: ((0, 1), (0, -1)),
        3: ((0, 1, 2), (0, -1, -2), (0, 1, 0), (0, -1, 0)),
    },
    "free": {
        1: ((0,),),
        2: ((0, 1), (0, -1), (0, 2), (0, -2)),
        3: ((0, 1, 2), (0, -1, -2), (0, 1, 0), (0, -1, 0), (0, 2, 1), (0, -2, -1)),
    },
}
FIGURES["leaps"] = FIGURES["free"]


@dataclass(frozen=True)
class Key:
    name: str

    @property
    def mode(self) -> str:
        return "minor" if self.name.endswith("m") else "major"

    @property
    def tonic(self) -> int:
        return LETTERS.index(self.name[0])

    def chord(self, numeral: str) -> str:
        """The name of a chord: in G, IV is C and vi is Em."""
        place = (self.tonic + DEGREES.index(numeral.lower())) % 7
        letter = notation.LETTERS[place]
        sign = {1: "#", 0: "", -1: "b"}[notation.key_signature(self.name)[letter]]
        return letter + sign + ("m" if numeral.islower() else "")

    def follower(self, chord: str, note: int) -> str:
        """What comes behind a chord and the last note that was played to it."""
        numerals = FOLLOWERS[self.mode][self.numerals[chord]].split()
        names = [self.chord(numeral) for numeral in numerals]
        return next((name for name in names if note in chord_tones(name)), names[0])

    @functools.cached_property
    def numerals(self) -> dict[str, str]:
        """The numeral of each chord that a tune in this key may have, by its name."""
        return {self.chord(numeral): numeral for numeral in FOLLOWERS[self.mode]}


def chord_tones(chord: str) -> tuple[int, ...]:
    """The notes in range that belong to a chord: every other letter from its root, three of them.

    All chords here are made of notes of the key, so the letters are enough.
    """
    root = LETTERS.index(chord[0])
    return tuple(n for n in range(LOWEST, HIGHEST + 1) if (n - root) % 7 in (0, 2, 4))


# ---- the grammar ---------------------------------------------------------------------------------

# A grammar yields what may come next, texts with weights, and is sent the text that does. None of
# the texts begins another, so that what was written can be read in one way only. With a random
# generator that chooses it writes; with a text that chooses it reads.
Options = Mapping[str, int]
Result = Any
Draw = Generator[Options, str, Result]


@functools.cache
def first_lines(held_out: bool) -> dict[str, int]:
    """All first lines that training may see, or those that it must not."""
    lines = {}
    for n, values in enumerate(itertools.product(*FIELDS.values())):
        mood, dance, key, bars, form = values
        if Key(key).mode == MOODS[mood].mode and int(bars) == PHRASE * len(form):
            kept = (mood, dance) in HELD_OUT or n % 11 == 0  # so that no field keeps to a rhythm
            if kept == held_out:
                line = FIRST_LINE.format(**dict(zip(FIELDS, values, strict=True)))
                lines[f"{line}\n"] = 1
    return lines


def document(held_out: bool = False) -> Draw:
    """The grammar of a tune."""
    line = yield first_lines(held_out)
    conditions, _ = read_first_line(line.rstrip("\n"))
    yield from header(conditions)
    yield from body(conditions)


def header(conditions: Mapping[str, str]) -> Draw:
    dance = conditions["dance"]
    yield {"X:1\n": 1}
    yield {f"T:The {nature} ": 1 for nature in NATURES}
    yield {f"{owner}'s {dance.capitalize()}\n": 1 for owner in OWNERS}
    yield {f"M:{DANCES[dance].metre}\nL:{style(conditions).unit}\nK:{conditions['key']}\n": 1}


@dataclass(frozen=True)
class Place:
    """How far a melody has come: its last note (None: it begins) and chord."""

    note: int | None
    chord: str


def body(conditions: Mapping[str, str]) -> Draw:
    form = conditions["form"]
    repeated = form == REPEATED
    letters = sorted(set(form)) if repeated else form
    kinds = [*["open"] * (len(letters) - 1), "home"]
    kinds[half_way(len(letters))] = "half"
    begun: dict[str, tuple[str, Place]] = {}  # by letter: the bars before the cadence
    place = Place(None, "")
    for letter, kind in zip(letters, kinds, strict=True):
        yield {f"P:{letter}\n" + "|:" * repeated: 1}
        if letter in begun:
            text, place = begun[letter]
            yield {text: 1}
        else:
            text = ""
            for n in range(PHRASE - 1):
                bar, place = yield from free_bar(conditions, place, "" if n else letter)
                text += bar
            begun[letter] = text, place
        place = yield from cadence(conditions, place, kind)
        if repeated:
            yield {":|\n" if kind == "half" else ":|": 1}
        else:
            yield {"|]" if kind == "home" else "|\n": 1}


def half_way(n_phrases: int) -> int:
    """The phrase that ends on the dominant: the last of the first half, counted from 0."""
    return (n_phrases + 1) // 2 - 1


def free_bar(conditions: Mapping[str, str], before: Place, opens: str) -> Draw:
    """A bar that is no cadence; `opens` is the letter of the phrase that it opens, if it does.

    Returns its text, and where the melody is.
    """
    key, mood = Key(conditions["key"]), MOODS[conditions["mood"]]
    if opens:
        chord = key.chord(OPENINGS[key.mode][opens])
    else:
        assert before.note is not None
        chord = key.follower(before.chord, before.note)
    text = yield {f'"{chord}" ': 1}
    tones = chord_tones(chord)
    low, high = FIRST_NOTES[mood.direction, mood.motion]
    first: int | None = None
    last, beats = before.note, ""
    rhythms = style(conditions).bars
    while beats not in rhythms:
        if first is None:
            allowed, reach = tuple(n for n in tones if low <= n <= high), WIDER
        else:
            rising, falling = mood.direction == "rising", mood.direction == "falling"
            allowed = tuple(
                n for n in tones if not (rising and n < first) and not (falling and n > first)
            )
            leaps = mood.motion == "leaps" and " " not in beats
            reach = LEAP if leaps else NEAR if mood.motion == "steps" else WIDER
        group = yield groups(next_beats(rhythms, beats), starts(last, allowed, reach), mood.motion)
        text += group
        notes, shape = read_group(group)
        first, last = notes[0] if first is None else first, notes[-1]
        beats = f"{beats} {shape}".lstrip()
    bar_line = yield {"|": 1}
    return text + bar_line, Place(last, chord)


def cadence(conditions: Mapping[str, str], before: Place, kind: str) -> Draw:
    """A phrase's last bar: it approaches on one chord and rests on another. Returns the place."""
    key, mood = Key(conditions["key"]), MOODS[conditions["mood"]]
    rhythms, goal_shape = style(conditions).approach, style(conditions).goal
    pairs = [pair.split() for pair in CADENCES[key.mode][kind]]
    chord = (yield _weights(f'"{key.chord(approach)}" ' for approach, _ in pairs)).strip('" ')
    reach = NEAR if mood.motion == "steps" else WIDER
    last, beats = before.note, ""
    while beats not in rhythms:
        beginnings = starts(last, chord_tones(chord), reach)
        group = yield groups(next_beats(rhythms, beats), beginnings, mood.motion)
        notes, shape = read_group(group)
        last, beats = notes[-1], f"{beats} {shape}".lstrip()
    goals = [key.chord(goal) for approach, goal in pairs if key.chord(approach) == chord]
    chord = (yield _weights(f'"{goal}" ' for goal in goals)).strip('" ')
    tones, reach = chord_tones(chord), NEAR
    if kind == "home":  # the nearest tonic
        tones, reach = tuple(n for n in tones if n % 7 == key.tonic), {}
    group = yield groups(((goal_shape, 1),), starts(last, tones, reach), mood.motion)
    return Place(read_group(group)[0][-1], chord)


Weighted = tuple[tuple[Any, int], ...]  # things with weights; unlike a dict, a key of a cache


def _weights(texts: Iterable[str]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for text in texts:
        weights[text] = weights.get(text, 0) + 1
    return weights


@functools.cache
def next_beats(rhythms: tuple[str, ...], beats: str) -> Weighted:
    """How a bar may go on behind its first beats: the shapes of the next, weighed by rhythms."""
    start = f"{beats} " if beats else ""
    rest = [rhythm[len(start) :] for rhythm in rhythms if rhythm.startswith(start)]
    return tuple(_weights(shape.partition(" ")[0] for shape in rest).items())


def starts(last: int | None, allowed: tuple[int, ...], reach: Mapping[int, int]) -> Weighted:
    """The notes that a beat may begin with: the allowed ones in reach, or else the nearest.

    Args:
        last: the note before; None at the beginning of a tune.
        reach: weights of distances.
    """
    if last is None:
        return tuple((note, 1) for note in allowed)
    distances = {note: abs(note - last) for note in allowed}
    near = tuple((note, reach[d]) for note, d in distances.items() if d in reach)
    least = min(distances.values())
    return near or tuple((note, 1) for note, d in distances.items() if d == least)


@functools.cache
def groups(shapes: Weighted, beginnings: Weighted, motion: str) -> dict[str, int]:
    """What a beat may be, as text: a shape, a first note, and a figure that goes on from it.

    A shape is as probable as its weight, apart from figures that would leave the range: where a
    beat has fewer figures, each weighs more.
    """
    options: dict[str, int] = {}
    for shape, n_rhythms in shapes:
        figures = FIGURES[motion][shape.count("n")]
        for note, weight in beginnings:
            for figure in figures:
                notes = [note + move for move in figure]
                if min(notes) >= LOWEST and max(notes) <= HIGHEST:
                    text = shape
                    for n in notes:
                        text = text.replace("n", LETTERS[n], 1)
                    options[f"{text} "] = n_rhythms * weight * 12 // len(figures)
    return options


def read_group(text: str) -> tuple[list[int], str]:
    """The notes and the shape of a beat.

    >>> read_group("B>A ")
    ([6, 5], 'n>n')
    """
    notes = [LETTERS.index(letter) for letter in re.findall("[A-Ga-g]", text)]
    return notes, re.sub("[A-Ga-g]", "n", text.strip())


# ---- writing tunes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """`bits` is -log2 of the tune's exact probability; `conditions` are those of its first line."""

    text: str
    bits: float
    conditions: dict[str, str]


def choose(options: Options, rng: random.Random) -> str:
    """One of the texts, as often as its weight says; takes one random number."""
    at = rng.random() * sum(options.values())
    ends = itertools.accumulate(options.values())
    return next(text for text, end in zip(options, ends, strict=True) if at < end)


def written(walk: Draw, rng: random.Random) -> tuple[str, float]:
    """What a grammar writes when it is drawn from, and -log2 of its probability."""
    text, bits, options = "", 0.0, next(walk)
    with contextlib.suppress(StopIteration):
        while True:
            choice = choose(options, rng)
            text += choice
            bits -= math.log2(options[choice] / sum(options.values()))
            options = walk.send(choice)
    return text, bits


def tune(rng: random.Random, held_out: bool = False) -> Written:
    """A tune whose first line training may see, or, `held_out`, one of those that it must not."""
    text, bits = written(document(held_out), rng)
    return Written(text, bits, read_first_line(text.partition("\n")[0])[0])


def tunes(seed: int, split: str = "train") -> Iterator[Written]:
    """Tunes without end; the k-th is a function of (seed, split, k), as in `tales`.

    The split "held_out" has the conditions that no other has.
    """
    for k in itertools.count():
        yield tune(random.Random(f"{seed}/{split}/{k}"), split == "held_out")


def write(
    folder: Path,
    train_bytes: int = 5_000_000,
    val_bytes: int = 150_000,
    held_out_bytes: int = 350_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write train.txt, val.txt, held_out.txt and facts.json, as `splits.write` does."""
    sizes = {"train": train_bytes, "val": val_bytes, "held_out": held_out_bytes}
    streams = {split: tunes(seed, split) for split in sizes}
    return splits.write(Path(folder), "tunes", streams, sizes, {"version": VERSION, "seed": seed})


NOUN, ENDINGS, WHOLE = "tune", (".wav", ".png", ".abc", ".txt"), False


def condition(given: Mapping[str, str], rng: random.Random) -> str:
    """A first line with these values; what is left open is drawn.

    Raises UserError if no first line says that.

    >>> sad = {"mood": "sad", "dance": "waltz", "key": "Am", "bars": "8", "form": "AA"}
    >>> condition(sad, random.Random(0))
    'tune: a sad waltz in Am, 8 bars, AA\\n'
    """
    given = known(NOUN, FIELDS, given)
    lines = [*first_lines(held_out=False), *first_lines(held_out=True)]
    fitting = [line for line in lines if given.items() <= read_first_line(line.strip())[0].items()]
    if not fitting and "form" in given and "bars" in given:
        raise UserError(
            f"a tune of the form {given['form']} has {PHRASE * len(given['form'])} bars"
        )
    if not fitting:
        mode = MOODS[given["mood"]].mode
        raise UserError(
            f"a {given['mood']} tune is in a {mode} key; give one of {', '.join(KEYS[mode])}"
        )
    return draw(fitting, rng)


def prompt(text: str, rng: random.Random) -> str:
    """Some words of a first line; behind a colon, a melody in ABC that the tune is to begin with.

    Where the form asks for its phrase again, a model repeats that melody. Raises UserError for
    other words, or if no first line says that.

    >>> prompt("a sad waltz in Am", random.Random(0))
    'tune: a sad waltz in Am,'
    >>> print(prompt('a calm waltz in G, 8 bars, AA: "G" g2 g', random.Random(1)))
    tune: a calm waltz in G, 8 bars, AA
    X:1
    T:The Clever Fox's Waltz
    M:3/4
    L:1/4
    K:G
    P:A
    "G" g2 g
    """
    words, _, opening = text.strip().partition(":")
    given: dict[str, str] = {}
    field_of = {word.lower(): field for field, options in FIELDS.items() for word in options}
    for word in re.findall(r"\w+", re.sub(r"^[Aa] ", "", words)):  # an article, no key
        if word.lower() in field_of:
            given[field_of[word.lower()]] = word
        elif word.lower() not in ("in", "bars"):
            options = "; ".join(f"{field}: {', '.join(FIELDS[field])}" for field in FIELDS)
            raise UserError(f"no tune is asked for by the word {word!r}. The words are {options}")
    line = condition(given, rng)
    asked, _ = read_first_line(line.strip())
    if opening:
        headers, _ = written(header(asked), rng)
        begin = "|:" * (asked["form"] == REPEATED)
        return f"{line}{headers}P:A\n{begin}{opening.strip().rstrip(' |')}"
    rest = list(FIELDS)[len(given) :]
    if not rest or any(field in given for field in rest):
        return line
    # Nothing was left out in between: the model itself says how the line goes on.
    return FIRST_LINE[: FIRST_LINE.index(f"{{{rest[0]}}}")].format(**asked).rstrip()


def abc(text: str) -> str:
    """The tune of a document for other programs: without the first line, but with a tempo."""
    line, _, tune = text.strip("\n").partition("\n")
    conditions, complaints = read_first_line(line)
    if complaints:
        return tune if line.startswith("tune:") else text[max(0, text.find("X:")) :].strip("\n")
    beat = "3/8" if conditions["dance"] == "jig" else "1/4"
    tempo = f"Q:{beat}={style(conditions).per_minute}\n"
    return re.sub(r"^K:", f"{tempo}K:", tune, count=1, flags=re.MULTILINE)


def show(text: str) -> str:
    """The tune as it is."""
    return text


def save(texts: Sequence[str], path: Path) -> None:
    """Write tunes as the ending of `path` says: .txt, .abc, .wav to hear, .png to see.

    Of several, the files are numbered: tune-1.wav, tune-2.wav and so on. A text without separators
    may hold several, too. What cannot be read in a tune is left out of .wav and .png, and named on
    standard error. Raises UserError for another ending, and, after all others are written, for
    texts that are no tunes.
    """
    if path.suffix.lower() == ".txt":
        return save_text(texts, path)
    faults, left_out = [], Counter[str]()
    texts = several(texts)
    for number, text in enumerate(texts, 1):
        where = path if len(texts) == 1 else path.with_stem(f"{path.stem}-{number}")
        music = abc(text)
        try:
            tune = notation.read(music, left_out)
        except UserError as error:
            faults.append(f"tune {number} cannot be read: {error}")
            continue
        if path.suffix.lower() == ".abc":
            save_text([music], where)
        else:
            sound.save(tune, where)
    if left_out and path.suffix.lower() != ".abc":
        most = ", ".join(f"{what!r} {n} x" for what, n in left_out.most_common(5))
        others = f" and {len(left_out) - 5} other signs" if len(left_out) > 5 else ""
        print(f"left out, as minigen cannot play it: {most}{others}", file=sys.stderr)
    if faults:
        mostly = 2 * len(faults) > len(texts) > 1
        advice = "train longer" if mostly else "another --seed makes another"
        few = "; ".join(faults[:3])
        said = (
            few if len(faults) <= 3 else f"{len(faults)} of {len(texts)} are no tunes: {few}; ..."
        )
        raise UserError(f"{said}; {advice}")


def several(texts: Sequence[str]) -> list[str]:
    """The tunes of texts: one that has no first line may hold more than one, each from its X:."""
    found: list[str] = []
    for text in texts:
        _, *tunes = re.split(r"^(?=X:)", text, flags=re.MULTILINE)
        found += [text] if text.startswith("tune:") or len(tunes) < 2 else tunes
    return found


# ---- checking tunes ------------------------------------------------------------------------------


def check(text: str) -> Verdict:
    """Read a text as a tune; blank lines before and after it do not count.

    It is well-formed if below its first line it is ABC notation whose bars fill their metre, and
    obeys if the music is as the first line says: its mood, dance, key (at home in the end), number
    of bars and form.

    >>> check("tune: a sad waltz in G, 8 bars, AA").complaints[0]
    'a sad tune is in a minor key, not in G'
    """
    text = text.strip("\n")
    line, _, music = text.partition("\n")
    conditions, complaints = read_first_line(line)
    if not line.startswith("tune:"):
        music = text
    try:
        tune = notation.read(music)
        faults = list(_malformed(tune))
    except UserError as error:
        return Verdict(False, False, False, [*complaints, str(error)], None, conditions)
    denied = [*complaints, *_denied(tune, conditions)]
    complaints = faults + denied + [*_unmusical(tune)]
    bits, furthest = read(text)
    if bits is None and not complaints:
        at = text.rfind("\n", 0, furthest) + 1
        rest = text[max(at, furthest - 12) : furthest + 12]
        complaints = [f"not a tune of this grammar, near {rest!r}"]
    valid = bits is not None and not complaints
    obeys = not (faults or denied)
    return Verdict(not faults, obeys, valid, complaints, bits if valid else None, conditions)


def read(text: str) -> tuple[float | None, int]:
    """-log2 p of a text, or None if the grammar cannot write it; and how far it could be read."""
    held_out = text[: text.find("\n") + 1] in first_lines(held_out=True)
    walk = document(held_out)
    bits, at, options = 0.0, 0, next(walk)
    try:
        while True:
            choice = next((option for option in options if text.startswith(option, at)), None)
            if choice is None:
                return None, at
            bits -= math.log2(options[choice] / sum(options.values()))
            at += len(choice)
            options = walk.send(choice)
    except StopIteration:
        return (bits, at) if at == len(text) else (None, at)


def read_first_line(line: str) -> tuple[dict[str, str], list[str]]:
    """What a first line says, as far as it can be read, and what is wrong with it."""
    pattern = re.escape(FIRST_LINE).replace(r"\ ", " ")
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\w+)", pattern)
    found = re.fullmatch(pattern, line)
    if not found:
        return {}, [f'the first line is not of the form "{FIRST_LINE}"']
    complaints = [
        f"{field}: {value} in the first line is none of {', '.join(FIELDS[field])}"
        for field, value in found.groupdict().items()
        if value not in FIELDS[field]
    ]
    known = {field: v for field, v in found.groupdict().items() if v in FIELDS[field]}
    if not complaints:
        mood, key = known["mood"], Key(known["key"])
        if MOODS[mood].mode != key.mode:
            return known, [f"a {mood} tune is in a {MOODS[mood].mode} key, not in {key.name}"]
    return known, complaints


def _malformed(tune: Tune) -> Iterator[str]:
    for number, bar, _ in _bars(tune):
        if bar.length != tune.metre:
            yield f"bar {number} holds {bar.length} of a whole note, not {tune.metre}"


def _denied(tune: Tune, conditions: Mapping[str, str]) -> Iterator[str]:
    """Complaints about music that is not as the first line says."""
    if "dance" in conditions:
        yield from _not_the_dance(tune, conditions["dance"])
    if "key" in conditions:
        yield from _not_in_key(tune, Key(conditions["key"]))
    if "mood" in conditions:
        for number, bar, is_cadence in _bars(tune):
            if not is_cadence:
                yield from _not_the_mood(bar, number, tune, conditions)
    n_bars = sum(1 for _ in tune.played())
    if "bars" in conditions and n_bars != int(conditions["bars"]):
        yield f"the tune has {n_bars} bars, not {conditions['bars']}"
    if "form" in conditions:
        form = "".join(part.name * part.times for part in tune.parts)
        if form != conditions["form"]:
            yield f"the form is {form}, not {conditions['form']}"
        elif any(len(part.bars) != PHRASE for part in tune.parts):
            yield f"the phrases have not {PHRASE} bars each"
    first: dict[str, Part] = {}
    for part in tune.parts:
        if part.bars[:-1] != first.setdefault(part.name, part).bars[:-1]:
            yield f"a phrase {part.name} is not like the first one, even before its last bar"


def _not_the_dance(tune: Tune, dance: str) -> Iterator[str]:
    metre = DANCES[dance].metre
    if tune.headers["M"] != metre:
        yield f"a {dance} is in {metre}, not in {tune.headers['M']}"
    for number, bar, is_cadence in _bars(tune):
        runs = len(bar.notes) > 1 and not bar.notes[1].apart
        if dance == "march" and runs and not is_cadence:
            yield f"bar {number} of a march begins with no long note"
        if dance == "reel" and not runs:
            yield f"bar {number} of a reel begins with no run of notes"


def _not_in_key(tune: Tune, key: Key) -> Iterator[str]:
    if tune.headers["K"] != key.name:
        yield f"the key is {tune.headers['K']}, not {key.name}"
    for number, bar, _ in _bars(tune):
        for _, chord in bar.chords:
            if chord not in key.numerals:
                yield f"the chord {chord} in bar {number} does not belong to {key.name}"
        for note in bar.notes:
            if note.accidental:
                yield f"a note of bar {number} has an accidental, and leaves {key.name}"
    last = tune.parts[-1].bars[-1]
    home = key.chord(HOME[key.mode])
    if last.notes[-1].step is None or last.notes[-1].step % 7 != key.tonic:
        yield f"the tune does not end at home: its last note is not {key.name[0]}"
    if last.chord_at(last.notes[-1].start) != home:
        yield f"the tune does not end at home: its last chord is not {home}"


def _not_the_mood(
    bar: Bar, number: int, tune: Tune, conditions: Mapping[str, str]
) -> Iterator[str]:
    name = conditions["mood"]
    mood = MOODS[name]
    if "dance" in conditions:
        counts = {rhythm.count("n") for rhythm in style(conditions).bars}
        if len(bar.notes) not in counts:
            yield (
                f"bar {number} of a {name} {conditions['dance']} is {mood.pace}: it has "
                f"{min(counts)} to {max(counts)} notes, not {len(bar.notes)}"
            )
    steps = [note.step for note in bar.notes if note.step is not None]
    moves = [abs(b - a) for a, b in itertools.pairwise(steps)]
    if mood.motion == "steps" and max(moves, default=0) > 2:
        yield f"bar {number} of a {name} tune moves by more than a third"
    if mood.motion == "leaps" and max(moves, default=0) < 3:
        yield f"bar {number} of a {name} tune has no leap of a fourth or more"
    beats = [note.step for note in bar.notes if note.apart and note.step is not None]
    if mood.direction == "rising" and beats and min(beats) < beats[0]:
        yield f"bar {number} of a {name} tune falls below its first note"
    if mood.direction == "falling" and beats and max(beats) > beats[0]:
        yield f"bar {number} of a {name} tune rises above its first note"


def _unmusical(tune: Tune) -> Iterator[str]:
    """Complaints about what no tune should do, whatever its first line says."""
    for number, bar, _ in _bars(tune):
        for note in bar.notes:
            if note.step is None or not LOWEST <= note.step <= HIGHEST:
                yield f"a note of bar {number} is out of the range from D to a"
            elif note.apart:
                chord = bar.chord_at(note.start)
                if chord is None or note.step not in chord_tones(chord):
                    yield f"a group of bar {number} does not begin with a note of its chord"
    if tune.headers["K"] not in FIELDS["key"]:
        return
    key = Key(tune.headers["K"])
    opening = tune.parts[0].bars[0].chord_at(Fraction(0))
    if opening != key.chord(HOME[key.mode]):
        yield f"the tune does not begin at home, on {key.chord(HOME[key.mode])}"
    phrases = [part for part in tune.parts for _ in range(part.times)]
    if len(phrases) > 1:
        middle = phrases[half_way(len(phrases))].bars[-1]
        dominants = [key.chord(numeral) for numeral in DOMINANTS[key.mode]]
        if middle.chord_at(middle.notes[-1].start) not in dominants:
            yield f"no phrase ends half-way, on {' or '.join(dominants)}"


def _bars(tune: Tune) -> Iterator[tuple[int, Bar, bool]]:
    """The bars as they are written, without repeats: number, bar, and whether it is a cadence."""
    bars = [(bar, bar is part.bars[-1]) for part in tune.parts for bar in part.bars]
    for number, (bar, is_cadence) in enumerate(bars, 1):
        yield number, bar, is_cadence


# ---- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    parser = flags(NOUN)
    parser.add_argument("--save", metavar="FOLDER", help="also as tune-1.wav, tune-1.png and so on")
    options = parser.parse_args(arguments)
    if options.save:  # the files are wanted, even if nobody reads on here
        sys.stdout = unheard(sys.stdout)
    if options.check is None:
        chosen = [one.text for one in itertools.islice(tunes(options.seed), max(0, options.count))]
        print("\n\n".join(chosen))
        return save_all(chosen, options.save)
    save_all(check_file(options.check, NOUN, check), options.save)


def save_all(texts: list[str], folder: str | None) -> None:
    """Write the tunes in each of the ways that there are; without a folder, in none."""
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; give another") from None
    for ending in ENDINGS:
        save(texts, Path(folder) / f"tune{ending}")
