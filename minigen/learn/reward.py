"""Placeholder."""

from __future__ import annotations

from pathlib import Path

from minigen.errors import UserError
from minigen.learn.progress import Progress


def train(folder: Path, progress: Progress, minutes: float, name: str) -> int:
    raise UserError("--train is not there yet")

