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
    entropy: the entropy of the text, in bits per byte: the mean of -log2 p of a document under the
        grammar that wrote it, over the documents of `val`. No model can have a lower mean loss on
        new text of that grammar. None if no grammar wrote the text.
    notes: lines to show the user before training.
    """

    name: str
    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    separator: str | None = None
    entropy: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def held_out(self) -> tuple[Path, ...]:
        """The files with prompts of kinds that no training text has; () if there are none."""
        files = tuple(path.with_name(f"held_out{path.suffix}") for path in self.val)
        return files if all(file.is_file() for file in files) else ()

    @property
    def separator_bytes(self) -> int:
        """The number of bytes of text that one END_OF_TEXT replaces; bits per byte count them.

        It is 0 if END_OF_TEXT itself is the separator, because END_OF_TEXT is no text. It is 0,
        too, if `entropy` is known, because the entropy leaves the separators out.
        """
        is_text = self.entropy is None and self.separator not in (None, END_OF_TEXT)
        return len((self.separator or "").encode()) if is_text else 0

    def at_most(self, max_chars: int) -> int:
        """Return how many characters to read where `max_chars` are enough; 0: all.

        A text that a grammar wrote is read as a whole, as its entropy is that of the whole.
        """
        return max_chars if self.entropy is None else 0

    @property
    def n_bytes(self) -> int:
        """The size of all files of the corpus together, in bytes."""
        return sum(path.stat().st_size for path in (*self.train, *self.val))
