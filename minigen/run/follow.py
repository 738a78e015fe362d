"""Follow a run that another process trains, from the files in its folder.

The run continues to write and knows nothing of its readers. So a file may end within a line, and a
run that resumes makes its files shorter. Neither is an error here.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigen.files import checkpoint
from minigen.run.log import parse_metrics, read_samples

MAX_BYTES = 1 << 22  # of a file that are read at once
N_CHECKED = 4096  # bytes before a cursor that show whether the file is still the same
N_TIMED = 20  # latest steps whose speed predicts that of the next
FACTS = ("n_vocab", "bits_per_byte", "entropy", "step_tokens", "max_steps")  # of the start line


@dataclass(frozen=True)
class News:
    """The lines that a file has got since it was read before.

    lines: parsed, up to the first that is cut short or damaged.
    cursor: where the next reading begins.
    is_new: the file is not the one that was read before, and `lines` are its first.
    more: the file has further lines already.
    """

    lines: list[dict[str, Any]]
    cursor: str
    is_new: bool
    more: bool


def read_new_lines(
    path: Path, parse: Callable[[bytes], dict[str, Any] | None], cursor: str = ""
) -> News:
    """Return the lines of a file from the cursor on; of a missing file, none.

    A cursor has the offset in the file, and a checksum of the bytes before it. If these are others
    now, a run has resumed and rewritten the file, which is then read from its beginning.

    Args:
        parse: returns the values of a line, or None if it is damaged.
        cursor: of the earlier `News`; anything else means the beginning.
    """
    try:
        with path.open("rb") as file:
            start, _, checksum = cursor.partition("-")
            offset = int(start) if start.isascii() and start.isdigit() and len(start) < 16 else 0
            is_new = _checksum(file, offset) != checksum
            if is_new:
                offset = 0
            file.seek(offset)
            content = file.read(MAX_BYTES)
            lines: list[dict[str, Any]] = []
            for line in content.splitlines(keepends=True):
                values = parse(line) if line.endswith(b"\n") else None
                if values is None:
                    break
                lines.append(values)
                offset += len(line)
            more = bool(lines) and len(content) == MAX_BYTES
            return News(lines, f"{offset}-{_checksum(file, offset)}", is_new, more)
    except OSError:
        return News([], "", True, False)


def _checksum(file: Any, offset: int) -> str:
    """Return the CRC-32 of up to N_CHECKED bytes before an offset; "" at or past the ends."""
    if not 0 < offset <= os.fstat(file.fileno()).st_size:
        return ""
    n = min(offset, N_CHECKED)
    file.seek(offset - n)
    return f"{zlib.crc32(file.read(n)):08x}"


@dataclass
class Follower:
    """A run as its folder shows it: how far it is, and how long it may still take."""

    run: Path
    cursor: str = ""
    step: int = 0  # the step of the latest line
    has_ended: bool = False  # whether its last evaluation is logged
    facts: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(FACTS))
    speeds: deque[float] = field(default_factory=lambda: deque(maxlen=N_TIMED))  # tokens/s

    def catch_up(self) -> None:
        """Read the lines that the run has logged since the last call."""
        more = True
        while more:
            news = read_new_lines(self.run / "metrics.jsonl", parse_metrics, self.cursor)
            self.cursor, more = news.cursor, news.more
            if news.is_new:
                self.step, self.has_ended = 0, False
                self.facts = dict.fromkeys(FACTS)
                self.speeds.clear()
            for line in news.lines:
                self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        self.step = max(self.step, line["step"])
        # A fine-tuned run then logs its loss on the old text, too; a resumed one has more steps.
        self.has_ended = "final_val_loss" in line or (self.has_ended and "train_loss" not in line)
        for name in FACTS:
            if name in line:
                self.facts[name] = line[name] if math.isfinite(line[name]) else None
        if 0 < line.get("tokens_per_second", 0) < math.inf:
            self.speeds.append(line["tokens_per_second"])

    @property
    def is_running(self) -> bool:
        """Whether a process trains the run now."""
        return checkpoint.is_locked(self.run)

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the remaining steps take at the present speed; None: not known."""
        tokens, last = self.facts["step_tokens"], self.facts["max_steps"]
        if not (tokens and last and self.speeds and self.is_running):
            return None
        step_seconds = sum(tokens / speed for speed in self.speeds) / len(self.speeds)
        return max(0.0, last - self.step) * step_seconds

    def describe(self) -> dict[str, Any]:
        """Return the state of the run: step, plan, facts of its text, checkpoints, time left."""
        return {
            "running": self.is_running,
            "ended": self.has_ended,
            "step": self.step,
            **self.facts,
            "checkpoints": [int(path.name[5:]) for path in checkpoint.steps(self.run)],
            "eta_seconds": self.seconds_left,
        }

    def samples(self, n: int) -> list[dict[str, Any]]:
        """Return the latest `n` samples of the run: the step and the text of each."""
        try:
            return read_samples(self.run)[-n:]
        except OSError:
            return []
