"""Tunes as sound and as piano rolls: the spectrum has the notes, and nothing clicks or clips."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from minigen.corpora import tunes
from minigen.corpora.tunes import sound
from minigen.corpora.tunes.abc_notation import parse
from minigen.corpora.tunes.piano_roll import piano_roll
from minigen.corpora.tunes.save import save_score
from minigen.errors import UserError

HEADER = "X:1\nT:Test\nM:4/4\nL:1/8\nQ:1/4=60\nK:C\n"


def pitch_of(samples: sound.Samples, near: int | None = None) -> float:
    """Return the pitch of the strongest frequency; with `near`, within a semitone of it."""
    n = 1 << 18  # many more than there are samples, for a fine spectrum
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), n))
    pitches = 69 + 12 * np.log2(np.maximum(np.fft.rfftfreq(n, 1 / sound.SAMPLE_RATE), 1) / 440)
    if near is not None:
        power = np.where(np.abs(pitches - near) <= 1, power, 0)
    return float(pitches[power.argmax()])


def samples_of(data: bytes) -> sound.Samples:
    """Return the samples of a WAV file, between -1 and 1."""
    with wave.open(io.BytesIO(data)) as file:
        parameters = file.getnchannels(), file.getsampwidth(), file.getframerate()
        assert parameters == (1, 2, sound.SAMPLE_RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


@pytest.mark.parametrize("dance", ["waltz", "jig", "reel", "march"])
def test_the_spectrum_has_the_notes_of_the_tune(dance: str) -> None:
    """While a note of the text sounds, the strongest frequency is the frequency of that note.

    This holds for the melody alone; with chords, it holds among frequencies within a semitone.
    """
    one = next(one for one in tunes.documents(4) if one.conditions["dance"] == dance)
    slow = tunes.to_abc(one.text).replace("Q:1/4=", "Q:1/8=").replace("Q:3/8=", "Q:3/16=")
    tune = parse(slow)
    whole_note = sound.seconds_per_whole_note(tune)
    melody = sound.mix([tone for tone in sound.tones(tune) if tone.voice == "melody"])
    with_chords = samples_of(sound.wav(tune))
    begin, n_notes = Fraction(0), 0
    for _, bar in tune.played():
        for note in bar.notes:
            start = (float(begin + note.start) * whole_note + sound.RELEASE) * sound.SAMPLE_RATE
            end = float(begin + note.start + note.length) * whole_note * sound.SAMPLE_RATE
            if end - start < 0.12 * sound.SAMPLE_RATE:
                continue  # too short: the spectrum would have the notes beside it, too
            times = slice(round(start), round(end))
            assert pitch_of(melody[times]) == pytest.approx(note.pitch, abs=0.2)
            pitch = pitch_of(with_chords[times], near=note.pitch)
            assert pitch == pytest.approx(note.pitch, abs=0.3)
            n_notes += 1
        begin += bar.length
    assert n_notes > 15


def test_a_bass_note_and_a_chord_accompany_the_melody() -> None:
    """The root of the chord sounds on the first beat of a bar, and the triad on the second."""
    samples = samples_of(sound.wav(parse(HEADER + '"Am"z8 |"F"z8 |')))
    for second, pitches in {0: [45], 1: [57, 48, 52], 4: [41], 5: [53, 57, 48]}.items():
        start, end = second + 0.1, second + 1
        excerpt = samples[round(start * sound.SAMPLE_RATE) : round(end * sound.SAMPLE_RATE)]
        for pitch in pitches:
            assert pitch_of(excerpt, near=pitch) == pytest.approx(pitch, abs=0.1)
        assert round(pitch_of(excerpt)) in pitches


def test_a_repeat_is_heard_twice() -> None:
    """A repeated bar has the sound of the bar, and then the same sound again."""
    once = samples_of(sound.wav(parse(HEADER + "CDEF GABc |]")))
    twice = samples_of(sound.wav(parse(HEADER + "|:CDEF GABc :|")))
    rate = sound.SAMPLE_RATE
    assert len(twice) - len(once) == 4 * rate
    begin, end, later = rate // 10, 3 * rate, 4 * rate  # after the last tone has faded
    assert np.allclose(twice[begin:end], twice[later + begin : later + end], atol=0.001)


def test_no_sample_is_louder_than_the_peak() -> None:
    """The largest sample is PEAK, so nothing is clipped, and a tune begins and ends in silence."""
    for one, _ in zip(tunes.documents(2), range(3), strict=False):
        samples = samples_of(sound.wav(parse(tunes.to_abc(one.text))))
        assert np.abs(samples).max() == pytest.approx(sound.PEAK, abs=0.001)
        assert np.abs(samples[:20]).max() < 0.01 and np.abs(samples[-20:]).max() < 0.001


@pytest.mark.parametrize("pitch", [40, 60, 81])
def test_a_tone_begins_and_ends_in_silence(pitch: int) -> None:
    """A tone does not click: it rises from 0, falls to 0, and never jumps.

    Two neighbouring samples differ by no more than the slope of the highest harmonic allows.
    """
    tone = sound.pluck(sound.Tone(0, 0.4, pitch, 1, "melody"))
    peak = np.abs(tone).max()
    assert abs(tone[0]) < 1e-9 and np.abs(tone[-3:]).max() < 1e-3 * peak
    assert np.abs(tone[: sound.SAMPLE_RATE // 1000]).max() < 0.1 * peak
    steepest = 2 * np.pi * sound.N_HARMONICS * sound.Tone(0, 1, pitch, 1, "").frequency
    assert np.abs(np.diff(tone)).max() < min(1, steepest / sound.SAMPLE_RATE) * peak


def test_the_tempo_is_that_of_the_header() -> None:
    """Q: gives the tempo; a Q: that cannot be read leaves the usual tempo of the metre."""
    tune = parse(HEADER + "C8 |]")
    assert sound.seconds_per_whole_note(tune) == 4
    for header, seconds in {
        "Q:3/8=90": 60 / 90 * 8 / 3,
        "Q:fast": 240 / 112,
        "Q:1/0=3": 240 / 112,
    }.items():
        tune = parse(HEADER.replace("Q:1/4=60", header) + "C8 |]")
        assert sound.seconds_per_whole_note(tune) == pytest.approx(seconds)


def test_the_ending_of_a_file_name_decides_on_its_format(tmp_path: Path) -> None:
    """.wav is sound, and .png is an image that is wider than high."""
    tune = parse(HEADER + "|:CDEF GABc | cBAG FEDC :|")
    save_score(tune, tmp_path / "tune.wav")
    save_score(tune, tmp_path / "tune.PNG")
    assert (tmp_path / "tune.wav").read_bytes() == sound.wav(tune)
    picture = (tmp_path / "tune.PNG").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 2 * height > 500


def test_a_tune_that_cannot_be_saved_is_one_line_of_error(tmp_path: Path) -> None:
    """Another ending, and a folder that does not exist, raise a `UserError`."""
    tune = parse(HEADER + "C8 |]")
    with pytest.raises(UserError, match=r"ends in .wav or .png"):
        save_score(tune, tmp_path / "tune.mp3")
    with pytest.raises(UserError, match=r"cannot write .*: No such file or directory"):
        save_score(tune, tmp_path / "no" / "tune.wav")


def test_a_title_is_not_read_as_a_formula() -> None:
    r"""A title such as "a $\q$ tune", which is no formula of matplotlib, can be drawn."""
    tune = parse(HEADER.replace("Test", "a $\\q$ tune") + "C8 |]")
    assert piano_roll(tune).startswith(b"\x89PNG")


def test_a_tune_of_rests_is_silence() -> None:
    """A tune without tones has no samples, and an empty piano roll."""
    tune = parse(HEADER + "z8 |]")
    assert len(samples_of(sound.wav(tune))) == 0
    assert piano_roll(tune).startswith(b"\x89PNG")
