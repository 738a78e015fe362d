"""Tunes to hear: the music of a tune as a WAV file.

The melody is a plucked string, and chords stand under it as a guitar would play them for a dance.
A tone is the sum of its harmonics, of which the higher ones fade sooner:

    s(t) = sum over k of  k^-1.4  e^(-t (1 + k) / d)  sin(2 pi k f t)
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from minigen.corpora.tunes.notation import Bar, Score, chord_pitches

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


def seconds_per_whole_note(score: Score) -> float:
    """Return the tempo that Q: names, such as 1/4=120, or else a usual one for the metre."""
    length, _, per_minute = score.headers.get("Q", "").partition("=")
    try:
        beat, n = Fraction(length), int(per_minute)
        if not (beat > 0 and 10 <= n <= 1000):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        beat, n = score.beat, BEATS_PER_MINUTE.get(score.headers["M"], 112)
    return 60 / n / float(beat)


def tones(score: Score) -> Iterator[Tone]:
    """Yield all that sounds, repeats and all, in no special order."""
    whole = seconds_per_whole_note(score)
    begin = Fraction(0)
    for _, bar in score.played():
        for note in bar.notes:
            if note.step is not None:
                stress = 1.0 if note.start == 0 else 0.85 if note.start % score.beat == 0 else 0.72
                start, length = float(begin + note.start) * whole, float(note.length) * whole
                yield Tone(start, length, note.pitch, stress, "melody")
        for at, fraction, pitches in strokes(score, bar):
            start, length = float(begin + at) * whole, float(fraction) * whole
            yield from (Tone(start, length, pitch, 0.26, "chords") for pitch in pitches)
        begin += bar.length


def strokes(score: Score, bar: Bar) -> Iterator[tuple[Fraction, Fraction, list[int]]]:
    """Yield the strokes that accompany a bar: start and length in whole notes, and pitches.

    A bass note, the chord's root, where a bar or a chord begins and on every other beat of four;
    the chord on the other beats. In 6/8 each beat has both: the bass, and after it the chord.
    """
    for n in range(int(bar.length / score.beat)):
        at = n * score.beat
        name = bar.chord_at(at)
        if name is None:
            continue
        root, *_ = pitches = chord_pitches(name)
        chord = [CHORD + (p if p < 12 else p - 12) for p in pitches]
        begins = any(start == at for start, _ in bar.chords)
        if score.beat == Fraction(3, 8):
            yield at, Fraction(1, 4), [BASS + root]
            yield at + Fraction(1, 4), Fraction(1, 8), chord
        elif begins or (n % 2 == 0 and score.metre != Fraction(3, 4)):
            yield at, score.beat, [BASS + root]
        else:
            yield at, score.beat, chord


def pluck(tone: Tone) -> Samples:
    """Return the samples of a tone, without its place in time."""
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
    """Return a rise from 0 to 1 as half a cosine, which has no corner to be heard."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(np.arange(n) / (seconds * RATE), 0, 1))


def mix(sounding: list[Tone]) -> Samples:
    """Return all tones together, as loud as fits: samples between -LOUDEST and LOUDEST."""
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


def wav(score: Score) -> bytes:
    """Return a WAV file of the tune: 16 bits, one channel, RATE samples a second."""
    sound = np.round(mix(list(tones(score))) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(RATE)
        output.writeframes(sound.tobytes())
    return file.getvalue()
