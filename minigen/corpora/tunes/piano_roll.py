"""Piano rolls of tunes: the music of a tune as a PNG."""

from __future__ import annotations

import io
from typing import Any

from minigen.corpora.tunes.abc_notation import Bar, Score, chord_pitches
from minigen.system.plot import drawing, new_figure

PAPER, INK, SHADE, LINE = "#fbf9f4", "#2b2a33", "#f0ece2", "#d9d3c4"
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

# The colours of chords in the order of the circle of fifths (C G D A ...): chords that share notes
# have similar colours.
CHORD_COLOURS = (
    "#c1553b", "#d08c3a", "#b3a23c", "#7c9a3e", "#3f8f5f", "#2f9188",
    "#3a7ca5", "#4f66b0", "#7158a6", "#93519b", "#b04e86", "#c0506a",
)  # fmt: skip


def colour(chord: str | None) -> str:
    """Return the colour of a chord; None, for notes without a chord, has the colour of ink."""
    return INK if chord is None else CHORD_COLOURS[chord_pitches(chord)[0] * 7 % 12]


@drawing()
def piano_roll(score: Score) -> bytes:
    """Return a PNG of the tune as it is played: time to the right, pitch upwards.

    Each chord has a colour. A note of its chord is filled, and any other note is outlined.
    """
    from matplotlib.patches import Rectangle

    played = list(score.played())
    pitches = [n.pitch for _, bar in played for n in bar.notes if n.step is not None]
    low, high = min(pitches, default=60) - 2, max(pitches, default=72) + 2
    bottom = low - 2.6  # the chords lie below the melody
    width = float(sum(bar.length for _, bar in played))
    figure = new_figure(figsize=(12, 4.2), dpi=110, facecolor=PAPER)
    axes = figure.subplots()
    axes.set_facecolor(PAPER)
    for pitch in range(low, high + 1):
        if "#" in NAMES[pitch % 12]:
            axes.add_patch(Rectangle((0, pitch - 0.5), width, 1, color=SHADE, linewidth=0))
    line: list[tuple[float, float]] = []  # joins the notes
    begin = 0.0
    for part, bar in played:
        is_first = bar is part.bars[0]
        top, ink = (high + 2.0, INK) if is_first else (high + 0.5, LINE)
        axes.plot([begin, begin], [bottom, top], color=ink, linewidth=1.2 if is_first else 0.8)
        if is_first:
            axes.text(begin + width / 250, high + 0.8, part.name, fontsize=12, weight="bold")
        _draw_chords(axes, bar, begin, bottom)
        line += _draw_notes(axes, bar, begin, width)
        begin += float(bar.length)
    axes.plot([begin, begin], [bottom, high + 2], color=INK, linewidth=1.2)
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
    axes.set(xlim=(-width / 200, width * 1.005), ylim=(bottom, high + 2.2))
    for side in axes.spines.values():
        side.set_visible(False)
    title = f"{score.headers['T']}   {score.headers['M']}, in {score.headers['K']}"
    # Without parse_math=False, a $ in a title would begin a formula.
    axes.set_title(title, loc="left", fontsize=12, pad=8, parse_math=False)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=PAPER)
    return file.getvalue()


def _draw_chords(axes: Any, bar: Bar, begin: float, bottom: float) -> None:
    """Draw each chord of a bar as a box with a name. The bar begins at time `begin`."""
    from matplotlib.patches import Rectangle

    ends = [float(start) for start, _ in bar.chords[1:]] + [float(bar.length)]
    for (start, name), end in zip(bar.chords, ends, strict=False):
        at, length = begin + float(start), end - float(start)
        axes.add_patch(Rectangle((at, bottom), length, 1.9, facecolor=colour(name), alpha=0.35))
        style = {"fontsize": 8, "ha": "center", "va": "center"}
        axes.text(at + length / 2, bottom + 0.9, name, style)


def _draw_notes(axes: Any, bar: Bar, begin: float, width: float) -> list[tuple[float, float]]:
    """Draw the notes of a bar that begins at time `begin`. Return (time, pitch) of their ends.

    Args:
        width: the length of the tune. The gaps between notes are a fixed fraction of it.
    """
    from matplotlib.patches import FancyBboxPatch

    ends: list[tuple[float, float]] = []
    for note in bar.notes:
        if note.step is None:
            continue
        chord = bar.chord_at(note.start)
        in_chord = chord is None or note.pitch % 12 in {p % 12 for p in chord_pitches(chord)}
        at, length, gap = begin + float(note.start), float(note.length), width / 900
        box = FancyBboxPatch(
            (at + gap, note.pitch - 0.36),
            length - 2 * gap,
            0.72,
            boxstyle=f"round,pad=0,rounding_size={2.5 * gap}",
            mutation_aspect=40 / width,
            zorder=3,
            linewidth=1.3,
            facecolor=colour(chord) if in_chord else PAPER,
            edgecolor=colour(chord),
        )
        axes.add_patch(box)
        ends += [(at + 2 * gap, note.pitch), (at + length - 2 * gap, note.pitch)]
    return ends
