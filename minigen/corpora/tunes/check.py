"""The checker of tunes: compare the music with the first line, and name each difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from minigen.corpora.genre import Verdict
from minigen.corpora.tunes import abc_notation
from minigen.corpora.tunes.abc_notation import Bar, Part, Score
from minigen.corpora.tunes.first_line import FIELDS, first_lines, read_first_line
from minigen.corpora.tunes.generate import document, half_cadence
from minigen.corpora.tunes.harmony import DOMINANTS, TONIC, Key, chord_tones
from minigen.corpora.tunes.tables import BARS_PER_PHRASE, DANCES, HIGHEST, LOWEST, MOODS, style
from minigen.errors import UserError


def check(text: str) -> Verdict:
    """Judge a text as a tune; blank lines before and after it do not count.

    The text is well-formed if ABC notation follows the first line, and each bar fills its metre. It
    follows its prompt if the music has the mood, dance, key, number of bars and form of the first
    line, and ends on the tonic.

    >>> check("tune: a sad waltz in G, 8 bars, AA").complaints[0]
    'a sad tune is in a minor key, not in G'
    """
    text = text.strip("\n")
    line, _, music = text.partition("\n")
    conditions, complaints = read_first_line(line)
    if not line.startswith("tune:"):
        music = text
    try:
        score = abc_notation.parse(music)
        faults = list(_malformed(score))
    except UserError as error:
        return Verdict(False, False, False, [*complaints, str(error)], None, conditions)
    contradictions = [*complaints, *_contradictions(score, conditions)]
    complaints = faults + contradictions + [*_irregularities(score)]
    bits, end = read_bits(text)
    if bits is None and not complaints:
        line_start = text.rfind("\n", 0, end) + 1
        excerpt = text[max(line_start, end - 12) : end + 12]
        complaints = [f"not a tune of this grammar, near {excerpt!r}"]
    valid = bits is not None and not complaints
    follows_prompt = not (faults or contradictions)
    return Verdict(
        not faults, follows_prompt, valid, complaints, bits if valid else None, conditions
    )


def read_bits(text: str) -> tuple[float | None, int]:
    """Return -log2 p of a text, and the index at which reading ended.

    -log2 p is None if the grammar cannot write the text.
    """
    held_out = text[: text.find("\n") + 1] in first_lines(held_out=True)
    choices = document(held_out)
    bits, at, options = 0.0, 0, next(choices)
    try:
        while True:
            choice = next((option for option in options if text.startswith(option, at)), None)
            if choice is None:
                return None, at
            bits -= math.log2(options[choice] / sum(options.values()))
            at += len(choice)
            options = choices.send(choice)
    except StopIteration:
        return (bits, at) if at == len(text) else (None, at)


def _malformed(score: Score) -> Iterator[str]:
    """Yield complaints about bars that are longer or shorter than their metre."""
    for number, bar, _ in _bars(score):
        if bar.length != score.metre:
            yield f"bar {number} holds {bar.length} of a whole note, not {score.metre}"


def _contradictions(score: Score, conditions: Mapping[str, str]) -> Iterator[str]:
    """Yield complaints about music that does not fulfil the conditions."""
    if "dance" in conditions:
        yield from _not_the_dance(score, conditions["dance"])
    if "key" in conditions:
        yield from _not_in_key(score, Key(conditions["key"]))
    if "mood" in conditions:
        for number, bar, is_cadence in _bars(score):
            if not is_cadence:
                yield from _not_the_mood(bar, number, conditions)
    n_bars = sum(1 for _ in score.played())
    if "bars" in conditions and n_bars != int(conditions["bars"]):
        yield f"the tune has {n_bars} bars, not {conditions['bars']}"
    if "form" in conditions:
        form = "".join(part.name * part.n_times for part in score.parts)
        if form != conditions["form"]:
            yield f"the form is {form}, not {conditions['form']}"
        elif any(len(part.bars) != BARS_PER_PHRASE for part in score.parts):
            yield f"a phrase has not {BARS_PER_PHRASE} bars"
    first: dict[str, Part] = {}
    for part in score.parts:
        if part.bars[:-1] != first.setdefault(part.name, part).bars[:-1]:
            yield f"a phrase {part.name} is not like the first one, even before its last bar"


def _not_the_dance(score: Score, dance: str) -> Iterator[str]:
    metre = DANCES[dance].metre
    if score.headers["M"] != metre:
        yield f"a {dance} is in {metre}, not in {score.headers['M']}"
    for number, bar, is_cadence in _bars(score):
        begins_with_run = len(bar.notes) > 1 and not bar.notes[1].begins_group
        if dance == "march" and begins_with_run and not is_cadence:
            yield f"bar {number} of a march begins with no long note"
        if dance == "reel" and not begins_with_run:
            yield f"bar {number} of a reel begins with no run of notes"


def _not_in_key(score: Score, key: Key) -> Iterator[str]:
    if score.headers["K"] != key.name:
        yield f"the key is {score.headers['K']}, not {key.name}"
    for number, bar, _ in _bars(score):
        for _, chord in bar.chords:
            if chord not in key.numerals:
                yield f"the chord {chord} in bar {number} does not belong to {key.name}"
        for note in bar.notes:
            if note.accidental:
                yield f"a note of bar {number} has an accidental, so it is not in {key.name}"
    last = score.parts[-1].bars[-1]
    tonic_chord = key.chord(TONIC[key.mode])
    if last.notes[-1].step is None or last.notes[-1].step % 7 != key.tonic:
        yield f"the tune does not end on the tonic: its last note is not {key.name[0]}"
    if last.chord_at(last.notes[-1].start) != tonic_chord:
        yield f"the tune does not end on the tonic: its last chord is not {tonic_chord}"


def _not_the_mood(bar: Bar, number: int, conditions: Mapping[str, str]) -> Iterator[str]:
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
    intervals = [abs(b - a) for a, b in itertools.pairwise(steps)]
    if mood.motion == "steps" and max(intervals, default=0) > 2:
        yield f"bar {number} of a {name} tune moves by more than a third"
    if mood.motion == "leaps" and max(intervals, default=0) < 3:
        yield f"bar {number} of a {name} tune has no leap of a fourth or more"
    group_starts = [n.step for n in bar.notes if n.begins_group and n.step is not None]
    if mood.direction == "rising" and group_starts and min(group_starts) < group_starts[0]:
        yield f"bar {number} of a {name} tune falls below its first note"
    if mood.direction == "falling" and group_starts and max(group_starts) > group_starts[0]:
        yield f"bar {number} of a {name} tune rises above its first note"


def _irregularities(score: Score) -> Iterator[str]:
    """Yield complaints about faults in features that first lines do not mention."""
    for number, bar, _ in _bars(score):
        for note in bar.notes:
            if note.step is None or not LOWEST <= note.step <= HIGHEST:
                yield f"a note of bar {number} is out of the range from D to a"
            elif note.begins_group:
                chord = bar.chord_at(note.start)
                if chord is None or note.step not in chord_tones(chord):
                    yield f"a group of bar {number} does not begin with a note of its chord"
    if score.headers["K"] not in FIELDS["key"]:
        return
    key = Key(score.headers["K"])
    tonic_chord = key.chord(TONIC[key.mode])
    if score.parts[0].bars[0].chord_at(Fraction(0)) != tonic_chord:
        yield f"the tune does not begin on the chord of the tonic, {tonic_chord}"
    phrases = [part for part in score.parts for _ in range(part.n_times)]
    if len(phrases) > 1:
        middle = phrases[half_cadence(len(phrases))].bars[-1]
        dominants = [key.chord(numeral) for numeral in DOMINANTS[key.mode]]
        if middle.chord_at(middle.notes[-1].start) not in dominants:
            yield f"the phrase in the middle does not end on {' or '.join(dominants)}"


def _bars(score: Score) -> Iterator[tuple[int, Bar, bool]]:
    """Yield (number, bar, whether the bar is a cadence) for the bars as they are written.

    A bar between repeat signs comes once.
    """
    bars = [(bar, bar is part.bars[-1]) for part in score.parts for bar in part.bars]
    for number, (bar, is_cadence) in enumerate(bars, 1):
        yield number, bar, is_cadence
