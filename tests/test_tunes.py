"""Tunes: probabilities are exact, and the checker finds and names planted faults."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from minigen import corpora
from minigen.corpora import command, tunes
from minigen.corpora.dice import Dice
from minigen.corpora.tunes.abc_notation import chord_pitches, parse
from minigen.corpora.tunes.check import read_bits
from minigen.corpora.tunes.first_line import FIRST_LINE, HELD_OUT, first_lines, read_first_line
from minigen.corpora.tunes.generate import body, document, half_cadence
from minigen.corpora.tunes.harmony import TONIC, Key
from minigen.corpora.tunes.tables import DANCES, HIGHEST, LETTERS, MOODS
from minigen.errors import UserError


@pytest.fixture(scope="module")
def sample() -> list[tunes.Tune]:
    """Return 2000 tunes of the training split."""
    return list(itertools.islice(tunes.documents(seed=11), 2000))


# ---- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [500, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_checker_computes_the_probability_of_a_drawn_tune(
    n: int, sample: list[tunes.Tune]
) -> None:
    """Every drawn tune is valid, and `check` gives it the bits with which it was drawn."""
    for one in sample[:n]:
        verdict = tunes.check(one.text)
        assert verdict.complaints == []
        assert (verdict.valid, verdict.follows_prompt, verdict.well_formed) == (True, True, True)
        assert verdict.conditions == one.conditions
        assert verdict.bits == pytest.approx(one.bits, abs=1e-9)


def test_no_option_begins_another_so_a_text_has_one_derivation(
    sample: list[tunes.Tune],
) -> None:
    """At each place of a text, no option is the beginning of another option.

    So a text can be drawn in one way only, and the probabilities of all texts add up to 1.
    """
    for one in sample[:100]:
        choices = document()
        options, at = next(choices), 0
        with pytest.raises(StopIteration):
            while True:
                words = sorted(options)
                assert not any(b.startswith(a) for a, b in itertools.pairwise(words))
                assert all(weight > 0 for weight in options.values())
                (choice,) = (option for option in options if one.text.startswith(option, at))
                at += len(choice)
                options = choices.send(choice)
        assert at == len(one.text)


def test_options_are_drawn_as_often_as_their_weights_say() -> None:
    """By a chi-squared test, the first group of notes of a reel is drawn by its weights."""
    conditions = {"mood": "lively", "dance": "reel", "key": "D", "bars": "12", "form": "ABA"}
    counted: Counter[str] = Counter()
    expected: dict[str, float] = {}
    for k in range(3000):
        rng, choices = random.Random(f"{k}"), body(conditions)
        options = next(choices)
        for _ in range(2):
            options = choices.send(next(iter(options)))  # P:A, and the chord of the tonic
        expected = {option: 3000 * w / sum(options.values()) for option, w in options.items()}
        counted[Dice(rng).choose_weighted(options)] += 1
    assert counted.keys() <= expected.keys() and len(expected) > 10
    chi2 = sum((counted[option] - n) ** 2 / n for option, n in expected.items())
    freedom = len(expected) - 1
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom)


def test_held_out_first_lines_are_in_their_own_split_only(sample: list[tunes.Tune]) -> None:
    """No first line is in training and held out, and no pair of HELD_OUT is in training."""
    training, held_out = first_lines(False), first_lines(True)
    assert not training.keys() & held_out.keys()
    assert len(training) > 600 and len(held_out) > 150
    assert all(one.text.partition("\n")[0] + "\n" in training for one in sample)
    for one in itertools.islice(tunes.documents(11, "held_out"), 200):
        assert one.text.partition("\n")[0] + "\n" in held_out
        assert tunes.check(one.text).valid
    pairs = {(one.conditions["mood"], one.conditions["dance"]) for one in sample}
    assert not pairs & set(HELD_OUT)


def test_every_value_of_a_field_is_in_both_kinds_of_first_lines(sample: list[tunes.Tune]) -> None:
    """Training and held-out first lines have every mood, dance, key, number of bars and form."""
    held_out = [read_first_line(line.strip())[0] for line in first_lines(held_out=True)]
    for conditions in ([one.conditions for one in sample], held_out):
        for field, values in tunes.FIELDS.items():
            assert {each[field] for each in conditions} == set(values)


def test_first_lines_are_equally_likely(sample: list[tunes.Tune]) -> None:
    """All first lines have the same weight, so a tune has more bits than log2 of their number."""
    lines = first_lines(False)
    assert set(lines.values()) == {1}
    assert min(one.bits for one in sample) > math.log2(len(lines))


# ---- the text and the music ----------------------------------------------------------------------


def test_tunes_differ_and_fit_into_the_context(sample: list[tunes.Tune]) -> None:
    """No two of 2000 tunes are equal; all are ASCII, and have 100 to 450 characters."""
    assert len({one.text for one in sample}) == len(sample)
    assert all(one.text.isascii() and 100 < len(one.text) < 450 for one in sample)
    error = statistics.stdev(one.bits for one in sample) / math.sqrt(len(sample))
    assert error < 1 and 60 < statistics.mean(one.bits for one in sample) < 110


def test_the_number_of_notes_in_a_bar_tells_the_pace() -> None:
    """No number of notes in a bar belongs to two paces of one dance."""
    for dance in DANCES.values():
        counts = [{bar.count("n") for bar in style.bars} for style in dance.styles.values()]
        assert len(set.union(*counts)) == sum(map(len, counts))


def test_every_rhythm_fills_its_metre() -> None:
    """Every bar and every cadence in the tables is as long as a bar of its dance."""
    for dance in DANCES.values():
        for style in dance.styles.values():
            for bar in (*style.bars, *(f"{a} {style.goal}" for a in style.approach)):
                music = bar.replace("n", "G")
                text = f"X:1\nT:-\nM:{dance.metre}\nL:{style.unit}\nK:C\n{music} |]"
                tune = parse(text)
                assert tune.parts[0].bars[0].length == tune.metre, (bar, style)


def test_chords_have_the_names_of_music_theory() -> None:
    """Roman numerals in major and minor keys are the chords that a textbook has for them."""
    names = {"C": "C F G Am Dm", "A": "A D E F#m Bm", "F": "F Bb C Dm Gm", "D": "D G A Bm Em"}
    for key, expected in names.items():
        assert [Key(key).chord(n) for n in ("I", "IV", "V", "vi", "ii")] == expected.split()
    names = {"Am": "Am Dm Em C F G", "Bm": "Bm Em F#m D G A", "Dm": "Dm Gm Am F Bb C"}
    for key, expected in names.items():
        numerals = ("i", "iv", "v", "III", "VI", "VII")
        assert [Key(key).chord(n) for n in numerals] == expected.split()


def test_chord_tones_sound_as_the_chord_does(sample: list[tunes.Tune]) -> None:
    """The first note of each group sounds like a note of its chord, with the key signature.

    The grammar itself counts letters and ignores sharps and flats.
    """
    for one in sample[:200]:
        tune = parse(one.text)
        for _, bar in tune.played():
            for note in bar.notes:
                chord = bar.chord_at(note.start)
                assert chord is not None
                if note.begins_group:
                    assert note.pitch % 12 in {p % 12 for p in chord_pitches(chord)}


def test_repeated_phrases_differ_in_their_cadence_only(sample: list[tunes.Tune]) -> None:
    """Phrases with one letter have equal bars before the cadence; most have different cadences."""
    n_equal, n_different = 0, 0
    for one in sample:
        tune = parse(one.text)
        first = tune.parts[0]
        for part in tune.parts[1:]:
            if part.name == first.name:
                assert part.bars[:-1] == first.bars[:-1]
                n_equal += part.bars == first.bars
                n_different += part.bars != first.bars
    assert n_different > 5 * n_equal


# ---- prompts -------------------------------------------------------------------------------------


def test_conditions_are_in_the_first_line_and_the_rest_is_drawn() -> None:
    """A first line has all conditions, also a held-out pair, and its other values are drawn."""
    rng = random.Random(0)
    lines = {tunes.condition({"mood": "sad", "dance": "March"}, rng) for _ in range(200)}
    assert len(lines) > 20
    assert all(line.startswith("tune: a sad march in ") for line in lines)
    assert all(read_first_line(line.strip())[1] == [] for line in lines)


def test_a_prompt_can_have_the_beginning_of_a_melody() -> None:
    """A melody after a colon becomes the beginning of the music, after the headers of its tune."""
    text = tunes.prompt('a calm waltz in G, 16 bars, AABB: "G" B2 G |', random.Random(0))
    line = "tune: a calm waltz in G, 16 bars, AABB"
    headers = r"X:1\nT:The \w+ \w+'s Waltz\nM:3/4\nL:1/4\nK:G"
    assert re.fullmatch(rf'{line}\n{headers}\nP:A\n\|:"G" B2 G', text)
    assert read_bits(text)[1] == len(text) - 1  # the grammar expects a blank after a group


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("a sad waltz in Am, 8 bars, AA", "tune: a sad waltz in Am, 8 bars, AA\n"),
        ("Sad Waltz in am, 8 bars", "tune: a sad waltz in Am, 8 bars,"),
        ("a calm waltz in A", "tune: a calm waltz in A,"),
        ("a sad waltz", "tune: a sad waltz in"),
        ("a sad", "tune: a sad"),
    ],
)
def test_words_that_break_off_become_the_beginning_of_a_first_line(words: str, text: str) -> None:
    """A prompt ends where its words end, so the model completes the first line."""
    assert tunes.prompt(words, random.Random(0)) == text


def test_a_field_that_is_missing_between_words_is_drawn() -> None:
    """Words without a mood become complete first lines with different moods."""
    rng = random.Random(0)
    lines = {tunes.prompt("a waltz in G", rng) for _ in range(50)}
    assert len(lines) > 10
    assert all(re.fullmatch(r"tune: a \w+ waltz in G, .*\n", line) for line in lines)


def test_a_word_of_no_first_line_is_refused() -> None:
    """A word that no first line has raises a `UserError` that lists the words to choose from."""
    with pytest.raises(UserError, match=r"word 'loud'. The words are mood: cheerful, .*AABB"):
        tunes.prompt("a loud waltz", random.Random(0))


@pytest.mark.parametrize(
    ("conditions", "complaint"),
    [
        ({"mood": "angry"}, "mood is 'angry'; give one of cheerful, calm"),
        ({"metre": "3/4"}, "a tune has no 'metre'; it has mood, dance, key, bars, form"),
        ({"bars": "8", "form": "AABA"}, "a tune of the form AABA has 16 bars"),
        ({"mood": "sad", "key": "G"}, "a sad tune is in a minor key; give one of Am, Em"),
    ],
)
def test_conditions_of_no_tune_are_refused(conditions: dict[str, str], complaint: str) -> None:
    """Conditions that no first line can state raise a `UserError` that names the fault."""
    with pytest.raises(UserError, match=complaint):
        tunes.condition(conditions, random.Random(0))


def test_to_abc_adds_a_tempo_and_removes_the_first_line() -> None:
    """`to_abc` gives the same music with Q: and without a first line."""
    one = next(tunes.documents(0))
    text = tunes.to_abc(one.text)
    assert text.startswith("X:1\nT:")
    assert re.search(r"^L:1/\d\nQ:\d/\d=\d+\nK:", text, flags=re.MULTILINE)
    assert parse(text).parts == parse(one.text).parts
    assert tunes.to_abc("X:1\nT:No first line") == "X:1\nT:No first line"


# ---- files ---------------------------------------------------------------------------------------


def test_the_corpus_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`find` writes the tunes into its folder, and writes them again if a file is missing."""
    write = tunes.write
    monkeypatch.setattr(tunes, "write", lambda folder: write(folder, 20_000, 5_000, 5_000))
    corpus = corpora.find(["tunes"], tmp_path)
    assert (corpus.name, corpus.separator) == ("tunes", "\n\n")
    facts = json.loads((tmp_path / "tunes" / "facts.json").read_bytes())
    assert corpus.entropy == pytest.approx(facts["splits"]["val"]["bits_per_byte"], abs=1e-6)
    (tmp_path / "tunes" / "held_out.txt").unlink()
    corpora.find(["tunes"], tmp_path)
    assert (tmp_path / "tunes" / "held_out.txt").exists()


# ---- planted faults ------------------------------------------------------------------------------

# Each returns a faulty text, and a pattern of the complaint about it.
Fault = Callable[[str, random.Random], "tuple[str, str] | None"]
FAULTS: dict[str, Fault] = {}


def fault(make: Fault) -> Fault:
    """Register a function that plants a fault in a tune."""
    FAULTS[make.__name__] = make
    return make


def music(text: str) -> tuple[str, list[str]]:
    """Return the first line with the headers, and the lines of the body."""
    head, _, rest = text.partition("\nP:")
    return head, ("P:" + rest).split("\n")


def join(head: str, lines: list[str]) -> str:
    return "\n".join([head, *lines])


def spots(lines: list[str], pattern: str) -> list[tuple[int, re.Match[str]]]:
    """Return (line number, match) for each match of a pattern in lines of music."""
    return [
        (n, match)
        for n, line in enumerate(lines)
        if not line.startswith("P:")
        for match in re.finditer(pattern, line)
    ]


def replace(lines: list[str], spot: tuple[int, re.Match[str]], new: str) -> list[str]:
    """Return the lines with `new` instead of the text of a match."""
    n, match = spot
    line = lines[n][: match.start()] + new + lines[n][match.end() :]
    return [*lines[:n], line, *lines[n + 1 :]]


NOTE = r'(?<=[ A-Ga-g\d])[A-Ga-g](?![#bm]*")'  # a note, and no letter of a chord


@fault
def longer_note(text: str, rng: random.Random) -> tuple[str, str]:
    head, lines = music(text)
    spot = rng.choice(spots(lines, NOTE + r"\d?"))
    return join(
        head, replace(lines, spot, spot[1][0][0] + "5")
    ), r"bar \d+ holds .* of a whole note"


@fault
def lost_note(text: str, rng: random.Random) -> tuple[str, str]:
    head, lines = music(text)
    spot = rng.choice(spots(lines, NOTE + r"\d?(?=[ A-Ga-g])"))
    return join(head, replace(lines, spot, "")), r"bar \d+ holds|without notes"


@fault
def wrong_header(text: str, rng: random.Random) -> tuple[str, str]:
    name, wrong, complaint = rng.choice(
        [("M", "5/4", "is in ./., not in 5/4"), ("L", "1/2", "bar 1 holds"),
         ("K", "Ebm", "the key is Ebm, not"), ("K", "H", "cannot read the key K:H")]
    )  # fmt: skip
    return re.sub(rf"^{name}:.*$", f"{name}:{wrong}", text, flags=re.MULTILINE), complaint


@fault
def lost_header(text: str, rng: random.Random) -> tuple[str, str]:
    name = rng.choice("XTMLK")
    complaint = "no line begins with X:" if name == "X" else f"the header has no {name}:"
    return re.sub(rf"^{name}:.*\n", "", text, flags=re.MULTILINE), complaint


@fault
def headers_out_of_order(text: str, rng: random.Random) -> tuple[str, str]:
    swapped = re.sub(r"^(M:.*\n)(L:.*\n)", r"\2\1", text, flags=re.MULTILINE)
    return swapped, "not a tune of this grammar, near"


@fault
def lost_bar(text: str, rng: random.Random) -> tuple[str, str]:
    head, lines = music(text)
    spot = rng.choice(spots(lines, r'(?<=[|:])"[^|]*\|(?=")|^"[^|]*\|'))
    return join(head, replace(lines, spot, "")), r"the tune has \d+ bars, not"


@fault
def doubled_bar(text: str, rng: random.Random) -> tuple[str, str]:
    head, lines = music(text)
    spot = rng.choice(spots(lines, r'"[^|]*\|(?=")'))
    return join(head, replace(lines, spot, spot[1][0] * 2)), r"the tune has \d+ bars, not"


@fault
def wrong_label(text: str, rng: random.Random) -> tuple[str, str]:
    label = rng.choice([*re.finditer(r"P:([A-C])", text)])
    new = rng.choice([letter for letter in "ABCD" if letter != label[1]])
    return text[: label.start(1)] + new + text[label.end(1) :], r"the form is \w+, not"


@fault
def unlike_repeat(text: str, rng: random.Random) -> tuple[str, str] | None:
    """Change a note between beats in one of several phrases with the same letter."""
    head, lines = music(text)
    names = [line for line in lines if line.startswith("P:")]
    phrases = [n + 1 for n, line in enumerate(lines) if names.count(line) > 1 and "P:" in line]
    free = [s for s in spots(lines, r'(?<= )([A-Ga-g])([A-Ga-g]) (?=[^"]*\|")') if s[0] in phrases]
    if not free:
        return None
    spot = rng.choice(free)
    new = rng.choice([x for x in "EFGABcdefg" if x != spot[1][2]])
    return join(head, replace(lines, spot, f"{spot[1][1]}{new} ")), "is not like the first one"


@fault
def not_on_the_tonic(text: str, rng: random.Random) -> tuple[str, str]:
    last = [*re.finditer(r"[A-Ga-g](?=\d (?:\|\]|:\|)$)", text)][-1]
    new = rng.choice([x for x in "EFGABcdefg" if x.upper() != last[0].upper()])
    faulty = text[: last.start()] + new + text[last.end() :]
    return faulty, "does not end on the tonic: its last note"


@fault
def not_the_tonic_chord(text: str, rng: random.Random) -> tuple[str, str]:
    key = Key(tunes.check(text).conditions["key"])
    last = [*re.finditer(r'"([^"]*)"', text)][-1]
    new = rng.choice([name for name in key.numerals if name != last[1]])
    faulty = f'{text[: last.start()]}"{new}"{text[last.end() :]}'
    return faulty, "does not end on the tonic: its last chord"


@fault
def no_half_cadence(text: str, rng: random.Random) -> tuple[str, str]:
    key = Key(tunes.check(text).conditions["key"])
    head, lines = music(text)
    spot = spots(lines, r'"[^"]*"')
    names = [line for line in lines if line.startswith("P:")]
    n = 1 if "|:" in text else 2 * half_cadence(len(names)) + 1
    last = [s for s in spot if s[0] == n][-1]
    tonic = key.chord(TONIC[key.mode])
    return join(head, replace(lines, last, f'"{tonic}"')), "the phrase in the middle does not end"


@fault
def foreign_chord(text: str, rng: random.Random) -> tuple[str, str]:
    key = Key(tunes.check(text).conditions["key"])
    spot = rng.choice([*re.finditer(r'"([^"]*)"', text)])
    foreign = [x + y for x in "ABCDEFG" for y in ("", "m", "#", "b") if x + y not in key.numerals]
    new = rng.choice(foreign)
    return f'{text[: spot.start()]}"{new}"{text[spot.end() :]}', rf"the chord {new} in bar \d+ does"


@fault
def no_chord(text: str, rng: random.Random) -> tuple[str, str]:
    spot = rng.choice([*re.finditer(r'"[^"]*"', text)])
    faulty = text[: spot.start()] + text[spot.end() :]
    return faulty, "chord|in the middle|tonic|not a tune of this grammar"


@fault
def beat_off_its_chord(text: str, rng: random.Random) -> tuple[str, str]:
    head, lines = music(text)
    n, match = rng.choice(spots(lines, r'(?<=" )[A-Ga-g]'))
    step = LETTERS.index(match[0])
    step += 1 if step < HIGHEST else -1  # two notes of a chord are no neighbours
    faulty = join(head, replace(lines, (n, match), LETTERS[step]))
    return faulty, r"a group of bar \d+ does not begin with a note of its chord"


@fault
def out_of_range(text: str, rng: random.Random) -> tuple[str, str]:
    head, lines = music(text)
    spot = rng.choice(spots(lines, NOTE))
    new = rng.choice(["C", "b", "c'", "B,"])
    return join(head, replace(lines, spot, new)), r"bar \d+ is out of the range"


@fault
def accidental(text: str, rng: random.Random) -> tuple[str, str]:
    head, lines = music(text)
    spot = rng.choice(spots(lines, NOTE))
    return join(head, replace(lines, spot, rng.choice("^_=") + spot[1][0])), "has an accidental"


def other(text: str, field: str, rng: random.Random) -> tuple[str, str, str]:
    """Put another value into the first line; return the text, the old value and the new value."""
    old = tunes.check(text).conditions
    values = [v for v in tunes.FIELDS[field] if v != old[field]]
    if field in ("mood", "key"):  # of the same mode
        key = Key(old["key"])
        values = [
            v for v in values if (MOODS[v].mode if field == "mood" else Key(v).mode)
            == key.mode
        ]  # fmt: skip
    new = rng.choice(values)
    line = FIRST_LINE.format(**{**old, field: new})
    return line + "\n" + text.partition("\n")[2], old[field], new


@fault
def other_mood(text: str, rng: random.Random) -> tuple[str, str]:
    faulty, _, new = other(text, "mood", rng)
    return faulty, rf"bar \d+ of a {new} "


@fault
def mood_of_the_other_mode(text: str, rng: random.Random) -> tuple[str, str]:
    old = tunes.check(text).conditions["mood"]
    new = rng.choice([m for m in MOODS if MOODS[m].mode != MOODS[old].mode])
    return text.replace(old, new, 1), f"a {new} tune is in a"


@fault
def other_dance(text: str, rng: random.Random) -> tuple[str, str]:
    faulty, _, new = other(text, "dance", rng)
    return faulty, rf"a {new} "


@fault
def other_key(text: str, rng: random.Random) -> tuple[str, str]:
    faulty, old, new = other(text, "key", rng)
    return faulty, f"the key is {old}, not {new}"


@fault
def other_number_of_bars(text: str, rng: random.Random) -> tuple[str, str]:
    faulty, old, new = other(text, "bars", rng)
    return faulty, f"the tune has {old} bars, not {new}"


@fault
def other_form(text: str, rng: random.Random) -> tuple[str, str]:
    faulty, old, new = other(text, "form", rng)
    return faulty, f"the form is {old}, not {new}"


@fault
def unknown_value(text: str, rng: random.Random) -> tuple[str, str]:
    field = rng.choice(list(tunes.FIELDS))
    line = FIRST_LINE.format(**{**tunes.check(text).conditions, field: "zebra"})
    return line + "\n" + text.partition("\n")[2], f"{field}: zebra in the first line is none of"


@fault
def no_first_line(text: str, rng: random.Random) -> tuple[str, str]:
    return text.partition("\n")[2], "the first line is not of the form"


@fault
def truncated(text: str, rng: random.Random) -> tuple[str, str]:
    body = text.index("\nP:")
    cut = rng.randrange(text.index("\n") + 1, len(text) - 1)
    complaint = "no K: before line|no line begins|no notes|cannot read"
    return text[:cut], "." if cut > body else complaint


@fault
def lost_repeat(text: str, rng: random.Random) -> tuple[str, str] | None:
    if "|:" not in text:
        return None
    return text.replace(":|", "|", 1), r"bars, not|the form is"


@fault
def other_title(text: str, rng: random.Random) -> tuple[str, str]:
    return re.sub(r"T:The \w+", "T:The Zebra", text), "not a tune of this grammar, near"


@fault
def foreign_sign(text: str, rng: random.Random) -> tuple[str, str]:
    place = rng.randrange(text.index("\nP:") + 5, len(text))
    return text[:place] + "?" + text[place:], "cannot read|the form is"


@pytest.mark.parametrize("kind", list(FAULTS))
def test_planted_faults_are_found_and_named(kind: str, sample: list[tunes.Tune]) -> None:
    """A tune with a planted fault is not valid, and a complaint of `check` names the fault."""
    rng = random.Random(kind)
    n_tried = 0
    for one in sample:
        planted = FAULTS[kind](one.text, rng)
        if planted is None or planted[0] == one.text:
            continue
        faulty, complaint = planted
        verdict = tunes.check(faulty)
        assert not verdict.valid and verdict.bits is None, faulty
        complaints = verdict.complaints
        assert any(re.search(complaint, each) for each in complaints), (complaints, faulty)
        n_tried += 1
        if n_tried == 60:
            break
    assert n_tried == 60


@pytest.mark.slow
def test_ten_thousand_tunes_are_valid_and_990_of_1000_faults_are_found() -> None:
    """All of 10,000 drawn tunes are valid; of 1,000 with one kind of fault, at most 10 are."""
    sample = [*itertools.islice(tunes.documents(seed=12), 10_000)]
    assert sum(tunes.check(one.text).valid for one in sample) == len(sample)
    for kind, plant in FAULTS.items():
        rng = random.Random(kind)
        faulty = (planted[0] for one in sample if (planted := plant(one.text, rng)))
        n_found = sum(not tunes.check(text).valid for text in itertools.islice(faulty, 1000))
        assert n_found >= 990, (kind, n_found)


IRREGULAR = {"other_title", "headers_out_of_order", "no_half_cadence"}
BREAKS_PROMPT = {
    name for name in FAULTS if name.startswith(("other_", "lost_", "not_on_the_tonic"))
}
BREAKS_PROMPT -= IRREGULAR | {"lost_header"}


@pytest.mark.parametrize("kind", sorted(IRREGULAR | BREAKS_PROMPT))
def test_only_a_broken_condition_breaks_the_prompt(kind: str, sample: list[tunes.Tune]) -> None:
    """A tune with another title still follows its prompt; a tune in another key does not."""
    rng = random.Random(kind)
    for one in sample[:15]:
        if planted := FAULTS[kind](one.text, rng):
            assert tunes.check(planted[0]).follows_prompt == (kind in IRREGULAR), planted


def test_the_checker_reads_music_that_no_grammar_wrote() -> None:
    """A tune with other line breaks and a comment is well-formed and follows its prompt."""
    one = next(one for one in tunes.documents(0) if one.conditions["form"] == "AABA")
    head, lines = music(one.text)
    respelled = join(head, [line.replace("|", "  |\n", 1) for line in lines]) + "\n% a remark"
    verdict = tunes.check(respelled)
    assert (verdict.well_formed, verdict.follows_prompt, verdict.valid) == (True, True, False)
    assert re.match("not a tune of this grammar, near", verdict.complaints[0])


def test_any_text_gets_a_verdict() -> None:
    """`check` raises no error for any text, and a text that is no tune has complaints."""
    header = "tune: a sad waltz in Am, 8 bars, AA\nX:1\nT:x\nM:3/4\nL:1/8\nK:Am\n"
    bodies = ("", "z6", '"Am"', "C", "|:", '"X"C6 |', "P:A\nz|]", "C/0", "C0", "> C", "\n\n")
    for text in ("", "\n", "tune:", "X:1", "x" * 5000, '"' * 99, "é \x00 \ud800"):
        verdict = tunes.check(text)
        assert not verdict.valid and not verdict.follows_prompt and verdict.complaints
    for text in bodies:
        verdict = tunes.check(header + text)
        assert not verdict.valid and not verdict.follows_prompt and verdict.complaints


def test_verdicts_on_damaged_tunes_are_consistent(sample: list[tunes.Tune]) -> None:
    """A damaged tune is valid, has bits and no complaints, or it has complaints and no bits.

    A valid tune is well-formed and follows its prompt.
    """
    rng = random.Random(1)
    n_valid = 0
    for one, other in zip(sample[:300], sample[300:600], strict=True):
        pieces = re.findall(r"\w+|\W", one.text)
        for _ in range(rng.choice([1, 2, 30])):
            i, damage = rng.randrange(len(pieces)), rng.choice(["drop", "double", "swap", "borrow"])
            if damage == "drop":
                pieces[i] = ""
            elif damage == "double":
                pieces[i] *= 2
            elif damage == "swap":
                j = rng.randrange(len(pieces))
                pieces[i], pieces[j] = pieces[j], pieces[i]
            else:
                pieces[i] = rng.choice(re.findall(r"\w+", other.text))
        verdict = tunes.check("".join(pieces))
        assert verdict.valid == (not verdict.complaints) == (verdict.bits is not None)
        assert (verdict.follows_prompt and verdict.well_formed) or not verdict.valid
        n_valid += verdict.valid
    assert n_valid < 15


# ---- command line --------------------------------------------------------------------------------


def test_tunes_are_saved_when_standard_output_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed pipe, as after `| head`, does not stop the command before the files are saved."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="utf-8") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        command.main(["tunes", "--count", "1", "--save", str(tmp_path)])
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_gets_a_file_of_each_format(tmp_path: Path) -> None:
    """The command saves a tune as .abc, .png, .txt and .wav, in a folder that it makes."""
    command.main(["tunes", "--count", "1", "--save", str(tmp_path / "new")])
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["tune.abc", "tune.png", "tune.txt", "tune.wav"]
    abc = (tmp_path / "new" / "tune.abc").read_text(encoding="utf-8")
    assert abc == tunes.to_abc(next(tunes.documents(0)).text) + "\n"


def test_only_well_formed_tunes_of_a_checked_file_are_saved(tmp_path: Path) -> None:
    """Only the tunes of a file become numbered .abc, .wav and .png files, and one .txt file."""
    text = next(tunes.documents(0)).text
    (tmp_path / "two.txt").write_text(f"{text}\n\ntune: no tune\n\n{text}\n", encoding="ascii")
    command.main(["tunes", "--check", str(tmp_path / "two.txt"), "--save", str(tmp_path / "two")])
    assert len(list((tmp_path / "two").iterdir())) == 2 * 3 + 1


def test_a_text_that_is_no_tune_does_not_stop_the_others(tmp_path: Path) -> None:
    """Two of three texts are saved, and a `UserError` names the third."""
    text = next(tunes.documents(0)).text
    with pytest.raises(UserError, match=r"tune 2 cannot be read: no line begins with X:.*--seed"):
        tunes.save([text, "no tune", text], tmp_path / "x.abc")
    assert sorted(tmp_path.glob("x*")) == [tmp_path / "x-1.abc", tmp_path / "x-3.abc"]


def test_a_place_that_cannot_be_written_is_one_line_of_error(tmp_path: Path) -> None:
    """A folder that does not exist, and a file in the place of a folder, raise a `UserError`."""
    with pytest.raises(UserError, match=r"cannot write .*: No such file"):
        tunes.save([next(tunes.documents(0)).text], tmp_path / "no" / "x.abc")
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot make .*file: "):
        command.main(["tunes", "--count", "1", "--save", str(tmp_path / "file")])
