"""A text that tests train on, and a way to wait until a process trains."""

from __future__ import annotations

import random
import time
from pathlib import Path


def write_text(folder: Path, n_lines: int = 450) -> Path:
    """Write a text that a model can learn: 15 different words, about 45 characters in a line."""
    sentence = "the sun and a moon rose over every hill while children sang of rain and bread"
    words = sentence.split(" ")
    rng = random.Random(0)
    lines = [" ".join(rng.choices(words, k=9)).capitalize() + "." for _ in range(n_lines)]
    path = folder / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def until_it_trains(run: Path) -> None:
    """Wait until the process that trains a run has taken its first step."""
    metrics, end = run / "metrics.jsonl", time.monotonic() + 100
    while not metrics.exists() or '"train_loss"' not in metrics.read_text(encoding="utf-8"):
        assert time.monotonic() < end, "no step was taken"
        time.sleep(0.02)
