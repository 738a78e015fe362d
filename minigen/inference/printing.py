"""Print texts one after the other, while a model writes several of them at once."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from minigen.corpora import genre
from minigen.inference.engine import Piece, note_context_overflow
from minigen.system import streams


@dataclass
class GrowingText:
    """A text that a model is writing, and the part of it that is to be printed next."""

    text: str  # with the prompt
    unprinted: str
    ended: bool = False
    cut_off: bool = False  # by the limit on new tokens


class Printer:
    """A printer that prints the first unfinished text as it grows, then the next.

    A progress bar counts the texts that have ended, unless the terminal shows the texts themselves.

    Args:
        prompt: the beginning of each text.
        n_texts: the number of texts.
        separator: what is printed between two texts, after the newline that ends each.
        at_end: print a text only when it has ended; a tale, picture or tune as its genre shows it.
        block_size: the model's context in tokens; the first text that is longer causes one note.
    """

    def __init__(
        self, prompt: str, n_texts: int, separator: str, *, at_end: bool, block_size: int
    ) -> None:
        begin = "" if at_end else prompt
        self.texts = [GrowingText(prompt, separator + begin) for _ in range(n_texts)]
        self.texts[0].unprinted = begin
        self.at_end, self.block_size = at_end, block_size
        self.n_printed = 0  # texts that are printed to their end
        self.noted = False  # whether the note on the context was printed
        # A terminal that shows the texts needs no bar: the texts themselves show the progress.
        hidden = n_texts == 1 or sys.stdout.isatty() or not sys.stderr.isatty()
        self.bar = streams.progress_bar(total=n_texts, unit=" samples", disable=hidden, leave=False)

    def push(self, number: int, piece: Piece, table: str = "") -> None:
        """Add a piece to a text, to be printed after `table`, which is no part of the text."""
        text = self.texts[number]
        if piece.token and piece.token.n_truncated and not self.noted:
            self.noted = True
            note_context_overflow(self.block_size)
        text.text += piece
        text.unprinted += table + ("" if self.at_end else piece)
        if piece.last:
            text.ended, text.cut_off = True, piece.token is None
            if self.at_end:
                shows = genre.detect(text.text) if streams.shows_colours() else None
                text.unprinted += shows.show(text.text) if shows else text.text
            text.unprinted += "\n"
            self.bar.update()

    def flush(self) -> None:
        """Print the unprinted text of all texts, up to the first text that has not ended."""
        while self.n_printed < len(self.texts):
            text = self.texts[self.n_printed]
            print(text.unprinted, end="", flush=True)
            text.unprinted = ""
            if not text.ended:
                return
            self.n_printed += 1

    def close(self) -> None:
        """Remove the progress bar."""
        self.bar.close()
