"""Tunes as sound and as pictures: the spectrum has the notes, and nothing clicks or clips."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from minigen.corpora import tunes
from minigen.corpora.tunes import notation, sound
from minigen.corpora.tunes.piano_roll import piano_roll
from minigen.corpora.tunes.save import save_score
from minigen.errors import UserError

HEADER = "X:1\nT:Test\nM:4/4\nL:1/8\nQ:1/4=60\nK:C\n"


def pitch_of(samples: sound.Samples, near: int | None = None) -> float:
    """The pitch of the strongest frequency, or of that within a semitone of `near`."""
    n = 1 << 18  # many more than there are samples, so that the spectrum is drawn finely
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), n))
    pitches = 69 + 12 * np.log2(np.maximum(np.fft.rfftfreq(n, 1 / sound.RATE), 1) / 440)
    if near is not None:
        power = np.where(np.abs(pitches - near) <= 1, power, 0)
    return float(pitches[power.argmax()])


def samples_of(content: bytes) -> sound.Samples:
    with wave.open(io.BytesIO(content)) as file:
        facts = file.getnchannels(), file.getsampwidth(), file.getframerate()
        assert facts == (1, 2, sound.RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


@pytest.mark.parametrize("dance", ["waltz", "jig", "reel", "march"])
def test_the_spectrum_has_the_notes_of_the_tune(dance: str) -> None:
    """Of the melody alone, the strongest frequency is the note; with chords under it, it is there.

    The notes come from the letters of the text, at the times that the tempo gives them.
    """
    one = next(one for one in tunes.documents(4) if one.conditions["dance"] == dance)
    tune = notation.parse(
        tunes.abc(one.text).replace("Q:1/4=", "Q:1/8=").replace("Q:3/8=", "Q:3/16=")
    )
    whole = sound.seconds_per_whole_note(tune)
    alone = sound.mix([tone for tone in sound.tones(tune) if tone.voice == "melody"])
    both = samples_of(sound.wav(tune))
    begin, n_notes = Fraction(0), 0
    for _, bar in tune.played():
        for note in bar.notes:
            start = (float(begin + note.start) * whole + sound.RELEASE) * sound.RATE
            end = float(begin + note.start + note.length) * whole * sound.RATE
            if end - start < 0.12 * sound.RATE:
                continue  # too short to be told from its neighbours
            assert pitch_of(alone[round(start) : round(end)]) == pytest.approx(note.pitch, abs=0.2)
            heard = pitch_of(both[round(start) : round(end)], near=note.pitch)
            assert heard == pytest.approx(note.pitch, abs=0.3)
            n_notes += 1
        begin += bar.length
    assert n_notes > 15


def test_chords_sound_under_the_melody() -> None:
    tune = notation.parse(HEADER + '"Am"z8 |"F"z8 |')
    heard = samples_of(sound.wav(tune))
    for second, pitches in {0: [45], 1: [57, 48, 52], 4: [41], 5: [53, 57, 48]}.items():
        part = heard[round((second + 0.1) * sound.RATE) : round((second + 1) * sound.RATE)]
        for pitch in pitches:
            assert pitch_of(part, near=pitch) == pytest.approx(pitch, abs=0.1)
        assert round(pitch_of(part)) in pitches


def test_a_repeat_is_heard_twice() -> None:
    once = samples_of(sound.wav(notation.parse(HEADER + "CDEF GABc |]")))
    twice = samples_of(sound.wav(notation.parse(HEADER + "|:CDEF GABc :|")))
    assert len(twice) - len(once) == 4 * sound.RATE
    begin, end, later = sound.RATE // 10, 3 * sound.RATE, 4 * sound.RATE  # when the last has faded
    assert np.allclose(twice[begin:end], twice[later + begin : later + end], atol=0.001)


def test_nothing_clips_or_clicks() -> None:
    """It is as loud as it should be and no louder; each tone rises from and falls to silence."""
    for one, _ in zip(tunes.documents(2), range(3), strict=False):
        heard = samples_of(sound.wav(notation.parse(tunes.abc(one.text))))
        assert np.abs(heard).max() == pytest.approx(sound.LOUDEST, abs=0.001)
        assert np.abs(heard[:20]).max() < 0.01 and np.abs(heard[-20:]).max() < 0.001
    for pitch in (40, 60, 81):
        tone = sound.pluck(sound.Tone(0, 0.4, pitch, 1, "melody"))
        loudest = np.abs(tone).max()
        assert abs(tone[0]) < 1e-9 and np.abs(tone[-3:]).max() < 1e-3 * loudest
        # No two neighbouring samples are further apart than the highest harmonic explains.
        highest = 2 * np.pi * sound.N_HARMONICS * sound.Tone(0, 1, pitch, 1, "").frequency
        assert np.abs(np.diff(tone)).max() < min(1, highest / sound.RATE) * loudest


def test_the_tempo_is_that_of_the_tune() -> None:
    tune = notation.parse(HEADER + "C8 |]")
    assert sound.seconds_per_whole_note(tune) == 4
    for header, seconds in {
        "Q:3/8=90": 60 / 90 * 8 / 3,
        "Q:fast": 240 / 112,
        "Q:1/0=3": 240 / 112,
    }.items():
        tune = notation.parse(HEADER.replace("Q:1/4=60", header) + "C8 |]")
        assert sound.seconds_per_whole_note(tune) == pytest.approx(seconds)


def test_saving_makes_what_the_name_says(tmp_path: Path) -> None:
    tune = notation.parse(HEADER + "|:CDEF GABc | cBAG FEDC :|")
    save_score(tune, tmp_path / "tune.wav")
    save_score(tune, tmp_path / "tune.PNG")
    assert (tmp_path / "tune.wav").read_bytes() == sound.wav(tune)
    picture = (tmp_path / "tune.PNG").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 2 * height > 500
    with pytest.raises(UserError, match=r"ends in .wav or .png"):
        save_score(tune, tmp_path / "tune.mp3")
    with pytest.raises(UserError, match=r"cannot write .*: No such file or directory"):
        save_score(tune, tmp_path / "no" / "tune.wav")


def test_a_title_is_no_formula() -> None:
    """Whatever a prompt or a model has put there, it is written as it is."""
    tune = notation.parse(HEADER.replace("Test", "a $\\q$ tune") + "C8 |]")
    assert piano_roll(tune).startswith(b"\x89PNG")


def test_a_tune_of_rests_is_silence() -> None:
    tune = notation.parse(HEADER + "z8 |]")
    assert len(samples_of(sound.wav(tune))) == 0
    assert piano_roll(tune).startswith(b"\x89PNG")
