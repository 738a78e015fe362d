"""Notes on a text that may be read in another way than its owner means it; how samples begin."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from minigen.data.text import has_rows, read_documents, read_text
from minigen.data.text_range import CorpusFiles
from minigen.data.token_files import are_token_files
from minigen.data.token_stream import TokenStream
from minigen.tokenizer import Tokenizer

ROWS = (".csv", ".tsv")  # endings of files in which a row of any length is a line
MAX_READ = 1 << 24  # bytes that are read to look for one document a line, and for stray characters
STRAY_CHARACTERS = {
    "\ufeff": "a byte order mark where files were joined; the model learns it as a letter",
    "\ufffd": "which stands where letters were lost when it was converted",
}
BOOK = 1 << 20  # a text with long lines is taken for a book after this number of bytes
LONG_DOCUMENT = 20_000  # tokens; of longer documents, few windows contain a beginning


def notes_on_text(source: CorpusFiles) -> list[str]:
    """Return notes on a text that may be read in another way than its owner means it."""
    if are_token_files(source.train):
        return []
    return [*notes_on_documents(source), *notes_on_stray_characters(source.train)]


def notes_on_documents(source: CorpusFiles) -> list[str]:
    """Return a note on a separator that does not occur, or on a text with one document a line.

    A book has blank lines or long ones, and a program has indented ones: there is no note on them.
    """
    files = [path for path in source.train if not has_rows(path)]
    if not files:
        return []
    if source.separator is not None:
        if occurs_in(files, source.separator):
            return []
        return [
            f"warning: the separator {source.separator!r} occurs nowhere in the text, so each file "
            "is one document; --separator gives another"
        ]
    n_bytes, n_lines, n_not_rows, text, more = 0, 0, 0, "", ""
    max_length = 1000 if all(path.suffix.lower() in ROWS for path in files) else 100
    for text in itertools.chain.from_iterable(map(read_text, files)):
        n_bytes += len(text.encode("utf-8"))  # a line of 100 Chinese characters is not short
        n_lines += text.count("\n")
        n_not_rows += text.count("\n\n") + text.count("\n ") + text.count("\n\t")
        if n_bytes >= BOOK and n_bytes > max_length * n_lines:  # do not read a long book again
            return []
        if n_bytes >= MAX_READ:
            more = "more than "
            break
    n_lines += not text.endswith("\n")
    if n_lines < 50 or n_bytes > max_length * n_lines or 50 * n_not_rows > n_lines:
        return []
    kind = "rows" if max_length > 100 else "short lines"
    return [
        f"{more}{n_lines:,} {kind}; if each stands by itself, "
        '--separator "\\n" makes each a document'
    ]


def occurs_in(files: Iterable[Path], separator: str) -> bool:
    """Return whether one of the files contains the separator."""
    for path in files:
        rest = ""  # the end of the last chunk, which may be the beginning of a separator
        for chunk in read_text(path):
            rest += chunk
            if separator in rest:
                return True
            rest = rest[-len(separator) :]
    return False


def notes_on_stray_characters(files: Iterable[Path]) -> list[str]:
    """Return notes on characters that programs leave in a text and that nobody reads."""
    counts, n_bytes = Counter[str](), 0
    for _, text in read_documents(files, separator=None):
        counts.update({char: n for char in STRAY_CHARACTERS if (n := text.count(char))})
        n_bytes += len(text)
        if n_bytes >= MAX_READ:
            break
    return [
        f"warning: the text has U+{ord(char):04X} {n:,} {'time' if n == 1 else 'times'}, {meaning}"
        for char, meaning in STRAY_CHARACTERS.items()
        if (n := counts[char])
    ]


def print_notes_on_tokens(tokens: TokenStream, tokenizer: Tokenizer) -> None:
    """Print to stderr how the tokens of a text differ from the text in the files."""
    if n := sum(shard.n_controls for shard in tokens.shards):
        names = [*tokenizer.controls.values()]
        some = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        print(
            f"note: in the {tokens.name}, {n:,} control tokens of the model ({some}) are read as "
            "letters",
            file=sys.stderr,
        )
    if any(shard.n_changed for shard in tokens.shards):
        print(
            f"note: the model's tokenizer changes the {tokens.name}, as it did in the model's own "
            "training: its tokens do not decode to the very same text",
            file=sys.stderr,
        )


def opening(tokens: TokenStream, tokenizer: Tokenizer) -> str:
    """Return the text after which a sample without a prompt begins: "" if documents begin often.

    Otherwise it is the end of a line or paragraph, which occurs everywhere. In training, a model
    sees the only END_OF_TEXT of a book a few times, or never. After END_OF_TEXT, it would write the
    first words of the book by heart, or begin within a word.
    """
    if tokens.n_documents > 1 and tokens.n_tokens < LONG_DOCUMENT * tokens.n_documents:
        return ""
    ids = tokens.read(0, min(tokens.n_tokens, 1 << 16)).tolist()
    text = tokenizer.decode(id for id in ids if id != tokens.end_of_text)
    if 50 * text.count("\n\n") > text.count("\n"):
        return "\n\n"
    return "\n" if "\n" in text else ""
