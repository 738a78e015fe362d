"""The text that tests train on."""

from __future__ import annotations

import random
from pathlib import Path


def write_text(folder: Path) -> Path:
    """A file of 20,000 characters that a model can learn something from."""
    text = "the sun and a moon rose over every hill while children sang of rain and bread"
    words = text.split(" ")
    draw = random.Random(0)
    lines = [" ".join(draw.choices(words, k=9)).capitalize() + "." for _ in range(450)]
    path = folder / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
