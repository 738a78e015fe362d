"""A corpus: the files to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minigen.tokenizer import END_OF_TEXT


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus. Where `val` is empty, a part of `train` is to be held out."""

    name: str  # safe as a folder's name
    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    separator: str | None = None  # stands between documents; None: each file is one document
    floor: float | None = None  # bits per byte of `val` that no model can beat, where known
    notes: tuple[str, ...] = ()  # lines to show the user before training

    @property
    def separator_bytes(self) -> int:
        """The bytes of text that END_OF_TEXT stands for; 0 where `floor` leaves them out.

        Written as such in a file, END_OF_TEXT is no text.
        """
        is_text = self.floor is None and self.separator not in (None, END_OF_TEXT)
        return len((self.separator or "").encode()) if is_text else 0

    @property
    def n_bytes(self) -> int:
        """The size of all its files."""
        return sum(path.stat().st_size for path in (*self.train, *self.val))
