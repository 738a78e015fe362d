"""Sound of tunes: the music of a tune as a WAV file.

The melody is a plucked string, accompanied by chords as a guitar would play them for a dance. A
tone is the sum of its harmonics, of which the higher ones decay sooner:

    s(t) = sum over k of  k^-1.4  e^(-t (1 + k) / (2 d))  sin(2 pi k f t)

f is the frequency of the tone, and d is the decay time of its first harmonic, in seconds.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from minigen.corpora.tunes.abc_notation import Bar, Score, chord_pitches

SAMPLE_RATE = 44_100  # samples per second
PEAK = 0.89  # the largest sample, as a fraction of the largest 16-bit number
# The seconds in which a tone rises from silence, and falls to silence: a jump would be heard as a
# click (test_a_tone_begins_and_ends_in_silence).
ATTACK, RELEASE = 0.006, 0.05
N_HARMONICS = 8
BASS, CHORD = 36, 48  # the MIDI notes of C in the octave of the bass, and in that of the chords
BEATS_PER_MINUTE = {"3/4": 126, "4/4": 112, "6/8": 96, "2/4": 112}  # for tunes without Q:

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tone:
    """A pitch that sounds for some time; times are in seconds."""

    start: float
    length: float
    pitch: int  # a MIDI note number
    loudness: float
    voice: str  # melody or chords

    @property
    def frequency(self) -> float:
        """The frequency in Hz: the MIDI note 69 has 440 Hz, and 12 semitones double it."""
        return float(440 * 2 ** ((self.pitch - 69) / 12))


def seconds_per_whole_note(score: Score) -> float:
    """Return the length of a whole note at the tempo of Q:, such as 1/4=120.

    Without a readable Q:, it is the tempo of the metre in `BEATS_PER_MINUTE`.
    """
    length, _, per_minute = score.headers.get("Q", "").partition("=")
    try:
        beat, n = Fraction(length), int(per_minute)
        if not (beat > 0 and 10 <= n <= 1000):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        beat, n = score.beat, BEATS_PER_MINUTE.get(score.headers["M"], 112)
    return 60 / n / float(beat)


def tones(score: Score) -> Iterator[Tone]:
    """Yield all tones of a tune as it is played, in no special order."""
    whole_note = seconds_per_whole_note(score)
    begin = Fraction(0)
    for _, bar in score.played():
        for note in bar.notes:
            if note.step is not None:
                # The first note of a bar is the loudest; notes on a beat are louder than others.
                stress = 1.0 if note.start == 0 else 0.85 if note.start % score.beat == 0 else 0.72
                start = float(begin + note.start) * whole_note
                yield Tone(start, float(note.length) * whole_note, note.pitch, stress, "melody")
        for at, duration, pitches in strokes(score, bar):
            start, length = float(begin + at) * whole_note, float(duration) * whole_note
            yield from (Tone(start, length, pitch, 0.26, "chords") for pitch in pitches)
        begin += bar.length


def strokes(score: Score, bar: Bar) -> Iterator[tuple[Fraction, Fraction, list[int]]]:
    """Yield the strokes that accompany a bar: start and length in whole notes, and pitches.

    A bass note, the root of the chord, is struck on a beat where a chord begins, and on the first,
    third, ... beat of any metre but 3/4. On all other beats the chord is struck. In compound metres
    such as 6/8, each beat has first the bass note and then the chord.
    """
    for n in range(int(bar.length / score.beat)):
        at = n * score.beat
        name = bar.chord_at(at)
        if name is None:
            continue
        root, *_ = pitches = chord_pitches(name)
        chord = [CHORD + (p if p < 12 else p - 12) for p in pitches]
        chord_begins = any(start == at for start, _ in bar.chords)
        if score.beat == Fraction(3, 8):
            yield at, Fraction(1, 4), [BASS + root]
            yield at + Fraction(1, 4), Fraction(1, 8), chord
        elif chord_begins or (n % 2 == 0 and score.metre != Fraction(3, 4)):
            yield at, score.beat, [BASS + root]
        else:
            yield at, score.beat, chord


def pluck(tone: Tone) -> Samples:
    """Return the samples of a tone; the first one is at the start of the tone."""
    n = round((tone.length + RELEASE) * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    decay = 1.1 if tone.voice == "melody" else 0.7
    sound = np.zeros(n)
    for k in range(1, N_HARMONICS + 1):
        if k * tone.frequency < SAMPLE_RATE / 2:  # samples cannot represent higher frequencies
            phase = 2 * np.pi * k * tone.frequency * t
            sound += k**-1.4 * np.exp(-t * (1 + k) / 2 / decay) * np.sin(phase)
    return tone.loudness * sound * _ramp(n, ATTACK) * _ramp(n, RELEASE)[::-1]


def _ramp(n: int, seconds: float) -> Samples:
    """Return a rise from 0 to 1 in the form of half a cosine, whose slope does not jump."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(np.arange(n) / (seconds * SAMPLE_RATE), 0, 1))


def mix(sounding: list[Tone]) -> Samples:
    """Return the sum of all tones, scaled so that the largest sample is PEAK."""
    if not sounding:
        return np.zeros(0)
    end = max(tone.start + tone.length for tone in sounding) + RELEASE
    sound: Samples = np.zeros(round(end * SAMPLE_RATE) + 2)
    cache: dict[Tone, Samples] = {}  # most tones of a tune occur several times
    for tone in sounding:
        key = replace(tone, start=0.0)
        if key not in cache:
            cache[key] = pluck(tone)
        samples, at = cache[key], round(tone.start * SAMPLE_RATE)
        sound[at : at + len(samples)] += samples
    sound *= PEAK / np.abs(sound).max()
    return sound


def wav(score: Score) -> bytes:
    """Return a WAV file of the tune: 16 bits, one channel, SAMPLE_RATE samples per second."""
    sound = np.round(mix(list(tones(score))) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(SAMPLE_RATE)
        output.writeframes(sound.tobytes())
    return file.getvalue()
