"""Tunes to hear and to see: ABC notation as a WAV file and as a piano roll.

The melody is a plucked string, and chords stand under it as a guitar would play them for a dance.
A tone is the sum of its harmonics, of which the higher ones fade sooner:

    s(t) = sum over k of  k^-1.4  e^(-t (1 + k) / d)  sin(2 pi k f t)
"""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.corpora.tunes.notation import Bar, Tune, chord_pitches
from minigen.errors import UserError
from minigen.system.plot import pyplot

RATE = 44_100  # samples a second
LOUDEST = 0.89  # of what 16 bits hold
ATTACK, RELEASE = 0.006, 0.05  # seconds that a tone takes to begin and to end, so that none clicks
N_HARMONICS = 8
BASS, CHORD = 36, 48  # MIDI's numbers of the C from which a bass note or a chord's root is counted
BEATS_PER_MINUTE = {"3/4": 126, "4/4": 112, "6/8": 96, "2/4": 112}  # of a tune without Q:

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tone:
    """A pitch that sounds for a while; times in seconds."""

    start: float
    length: float
    pitch: int  # MIDI's number
    loudness: float
    voice: str  # melody or chords

    @property
    def frequency(self) -> float:
        """In Hz; MIDI's 69 is the A of 440 Hz, and 12 semitones are an octave."""
        return float(440 * 2 ** ((self.pitch - 69) / 12))


def seconds_per_whole_note(tune: Tune) -> float:
    """The tempo that the tune's Q: names, such as 1/4=120, or else a usual one for its metre."""
    length, _, per_minute = tune.headers.get("Q", "").partition("=")
    try:
        beat, n = Fraction(length), int(per_minute)
        if not (beat > 0 and 10 <= n <= 1000):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        beat, n = tune.beat, BEATS_PER_MINUTE.get(tune.headers["M"], 112)
    return 60 / n / float(beat)


def tones(tune: Tune) -> Iterator[Tone]:
    """All that sounds, repeats and all, in no special order."""
    whole = seconds_per_whole_note(tune)
    begin = Fraction(0)
    for _, bar in tune.played():
        for note in bar.notes:
            if note.step is not None:
                stress = 1.0 if note.start == 0 else 0.85 if note.start % tune.beat == 0 else 0.72
                start, length = float(begin + note.start) * whole, float(note.length) * whole
                yield Tone(start, length, note.pitch, stress, "melody")
        for at, fraction, pitches in strokes(tune, bar):
            start, length = float(begin + at) * whole, float(fraction) * whole
            yield from (Tone(start, length, pitch, 0.26, "chords") for pitch in pitches)
        begin += bar.length


def strokes(tune: Tune, bar: Bar) -> Iterator[tuple[Fraction, Fraction, list[int]]]:
    """How a bar is accompanied: start, length and pitches of each stroke, in whole notes.

    A bass note, the chord's root, where a bar or a chord begins and on every other beat of four;
    the chord on the other beats. In 6/8 each beat has both: the bass, and behind it the chord.
    """
    for n in range(int(bar.length / tune.beat)):
        at = n * tune.beat
        name = bar.chord_at(at)
        if name is None:
            continue
        root, *_ = pitches = chord_pitches(name)
        chord = [CHORD + (p if p < 12 else p - 12) for p in pitches]
        begins = any(start == at for start, _ in bar.chords)
        if tune.beat == Fraction(3, 8):
            yield at, Fraction(1, 4), [BASS + root]
            yield at + Fraction(1, 4), Fraction(1, 8), chord
        elif begins or (n % 2 == 0 and tune.metre != Fraction(3, 4)):
            yield at, tune.beat, [BASS + root]
        else:
            yield at, tune.beat, chord


def pluck(tone: Tone) -> Samples:
    """The samples of a tone, without its place in time."""
    n = round((tone.length + RELEASE) * RATE)
    t = np.arange(n) / RATE
    decay = 1.1 if tone.voice == "melody" else 0.7
    sound = np.zeros(n)
    for k in range(1, N_HARMONICS + 1):
        if k * tone.frequency < RATE / 2:
            phase = 2 * np.pi * k * tone.frequency * t
            sound += k**-1.4 * np.exp(-t * (1 + k) / 2 / decay) * np.sin(phase)
    return tone.loudness * sound * _ramp(n, ATTACK) * _ramp(n, RELEASE)[::-1]


def _ramp(n: int, seconds: float) -> Samples:
    """From 0 to 1 in so many seconds, as half a cosine, which has no corner to be heard."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(np.arange(n) / (seconds * RATE), 0, 1))


def mix(sounding: list[Tone]) -> Samples:
    """All tones together, as loud as fits: samples between -LOUDEST and LOUDEST."""
    if not sounding:
        return np.zeros(0)
    end = max(tone.start + tone.length for tone in sounding) + RELEASE
    sound: Samples = np.zeros(round(end * RATE) + 2)
    plucked: dict[Tone, Samples] = {}  # repeats and strokes of a chord sound alike
    for tone in sounding:
        alike = replace(tone, start=0.0)
        if alike not in plucked:
            plucked[alike] = pluck(tone)
        samples, at = plucked[alike], round(tone.start * RATE)
        sound[at : at + len(samples)] += samples
    sound *= LOUDEST / np.abs(sound).max()
    return sound


def wav(tune: Tune) -> bytes:
    """A WAV file of the tune: 16 bits, one channel, RATE samples a second."""
    sound = np.round(mix(list(tones(tune))) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE)
        written.writeframes(sound.tobytes())
    return file.getvalue()


# ---- to see --------------------------------------------------------------------------------------

PAPER, INK, SHADE, LINE = "#fbf9f4", "#2b2a33", "#f0ece2", "#d9d3c4"
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

# Of chords: around the circle of fifths, C G D A ..., so that near chords look near.
CHORD_COLOURS = (
    "#c1553b", "#d08c3a", "#b3a23c", "#7c9a3e", "#3f8f5f", "#2f9188",
    "#3a7ca5", "#4f66b0", "#7158a6", "#93519b", "#b04e86", "#c0506a",
)  # fmt: skip


def colour(chord: str | None) -> str:
    return INK if chord is None else CHORD_COLOURS[chord_pitches(chord)[0] * 7 % 12]


def piano_roll(tune: Tune) -> bytes:
    """A PNG of the tune as it is played: time to the right, pitch upwards, a colour a chord.

    A note of its chord is filled; another, on the way between two of them, is outlined.
    """
    plt = pyplot()
    from matplotlib.patches import FancyBboxPatch, Rectangle

    played = list(tune.played())
    pitches = [n.pitch for _, bar in played for n in bar.notes if n.step is not None]
    low, high = min(pitches, default=60) - 2, max(pitches, default=72) + 2
    chords = low - 2.6  # the chords lie below the melody
    width = float(sum(bar.length for _, bar in played))
    figure, axes = plt.subplots(figsize=(12, 4.2), dpi=110, facecolor=PAPER)
    axes.set_facecolor(PAPER)
    for pitch in range(low, high + 1):
        if "#" in NAMES[pitch % 12]:
            axes.add_patch(Rectangle((0, pitch - 0.5), width, 1, color=SHADE, linewidth=0))
    line: list[tuple[float, float]] = []
    begin = 0.0
    for part, bar in played:
        opens = bar is part.bars[0]
        top, ink = (high + 2.0, INK) if opens else (high + 0.5, LINE)
        axes.plot([begin, begin], [chords, top], color=ink, linewidth=1.2 if opens else 0.8)
        if opens:
            axes.text(begin + width / 250, high + 0.8, part.name, fontsize=12, weight="bold")
        ends = [float(start) for start, _ in bar.chords[1:]] + [float(bar.length)]
        for (start, name), end in zip(bar.chords, ends, strict=False):
            at, length = begin + float(start), end - float(start)
            box = Rectangle((at, chords), length, 1.9, facecolor=colour(name), alpha=0.35)
            axes.add_patch(box)
            style = {"fontsize": 8, "ha": "center", "va": "center"}
            axes.text(at + length / 2, chords + 0.9, name, style)
        for note in bar.notes:
            if note.step is None:
                continue
            chord = bar.chord_at(note.start)
            fits = chord is None or note.pitch % 12 in {p % 12 for p in chord_pitches(chord)}
            at, length, gap = begin + float(note.start), float(note.length), width / 900
            note_box = FancyBboxPatch(
                (at + gap, note.pitch - 0.36),
                length - 2 * gap,
                0.72,
                boxstyle=f"round,pad=0,rounding_size={2.5 * gap}",
                mutation_aspect=40 / width,
                zorder=3,
                linewidth=1.3,
                facecolor=colour(chord) if fits else PAPER,
                edgecolor=colour(chord),
            )
            axes.add_patch(note_box)
            line += [(at + 2 * gap, note.pitch), (at + length - 2 * gap, note.pitch)]
        begin += float(bar.length)
    axes.plot([begin, begin], [chords, high + 2], color=INK, linewidth=1.2)
    axes.plot(
        [at for at, _ in line],
        [pitch for _, pitch in line],
        color=INK,
        alpha=0.18,
        linewidth=1,
        zorder=2,
    )
    naturals = [p for p in range(low, high + 1) if "#" not in NAMES[p % 12]]
    axes.set_yticks(naturals, [f"{NAMES[p % 12]}{p // 12 - 1}" for p in naturals], fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set(xlim=(-width / 200, width * 1.005), ylim=(chords, high + 2.2))
    for side in axes.spines.values():
        side.set_visible(False)
    about = f"{tune.headers['T']}   {tune.headers['M']}, in {tune.headers['K']}"
    axes.set_title(about, loc="left", fontsize=12, pad=8, parse_math=False)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=PAPER)
    plt.close(figure)
    return file.getvalue()


def save(tune: Tune, path: str | os.PathLike[str]) -> None:
    """Write the tune as the ending of `path` says: .wav to hear, .png to see.

    Raises UserError for another ending, and if the file cannot be written.
    """
    ending = os.path.splitext(os.fspath(path))[1].lower()
    makers: dict[str, Any] = {".wav": wav, ".png": piano_roll}
    if ending not in makers:
        raise UserError(f"cannot save a tune as {path}; give a name that ends in .wav or .png")
    content = makers[ending](tune)
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
