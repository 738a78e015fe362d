"""A corpus: the files to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minigen.tokenizer import END_OF_TEXT


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus. Where `val` is empty, a part of `train` is held out for validation.

    name: safe as a folder's name.
    separator: the text between two documents of a file; None: each file is one document.
    floor: the entropy of the text: the mean of -log2 p of a document under the grammar that wrote
        it, in bits per byte; no model can have a lower mean loss on new text of that grammar. The
        mean is over the documents of `val`. None if no grammar wrote the text.
    notes: lines to show the user before training.
    """

    name: str
    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    separator: str | None = None
    floor: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def separator_bytes(self) -> int:
        """The bytes of text that one END_OF_TEXT replaces, which count for bits per byte.

        0 where END_OF_TEXT itself is the separator, which is no text, and where `floor` is known,
        which leaves the separators out.
        """
        is_text = self.floor is None and self.separator not in (None, END_OF_TEXT)
        return len((self.separator or "").encode()) if is_text else 0

    @property
    def n_bytes(self) -> int:
        """The size of all its files."""
        return sum(path.stat().st_size for path in (*self.train, *self.val))
