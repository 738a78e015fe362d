"""Notes on a text: how its reading may differ from what its owner means, and how samples begin."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from minigen.data.text import read_text
from minigen.data.text_range import Source
from minigen.data.token_stream import TokenStream
from minigen.tokenizer import Tokenizer

ROWS = (".csv", ".tsv", ".jsonl")  # endings of files in which a row of any length is a line
NOTED = 1 << 24  # bytes that are looked at to see whether each line is a document
SIGNS = {
    "\ufeff": "a byte order mark where files were joined; the model learns it as a letter",
    "\ufffd": "which stands where letters were lost when it was converted",
}
ENOUGH = 1 << 20  # bytes with so few lines that they are no document each
RARE = 20_000  # tokens of a document so long that few windows show where one begins


def notes_on_text(source: Source) -> list[str]:
    """Return notes on a text that may be read in another way than its owner means it."""
    return [*notes_on_documents(source), *notes_on_signs(source.train)]


def notes_on_documents(source: Source) -> list[str]:
    """Return a note on a separator that is nowhere, or on a text with one document a line.

    A book, which is neither, has blank lines or long ones, and a program has indented ones.
    """
    if source.separator is not None:
        if occurs(source.separator, source.train):
            return []
        return [
            f"warning: the separator {source.separator!r} occurs nowhere in the text, so each file "
            "is one document; --separator gives another"
        ]
    n_bytes, n_lines, n_others, text, more = 0, 0, 0, "", ""
    longest = 1000 if all(path.suffix.lower() in ROWS for path in source.train) else 100
    for text in itertools.chain.from_iterable(map(read_text, source.train)):
        n_bytes += len(text.encode("utf-8"))  # of Chinese, a hundred characters are no short line
        n_lines += text.count("\n")
        n_others += text.count("\n\n") + text.count("\n ") + text.count("\n\t")
        if n_bytes >= ENOUGH and n_bytes > longest * n_lines:  # do not read a long book again
            return []
        if n_bytes >= NOTED:
            more = "more than "
            break
    n_lines += not text.endswith("\n")
    if n_lines < 50 or n_bytes > longest * n_lines or 50 * n_others > n_lines:
        return []
    kind = "rows" if longest > 100 else "short lines"
    return [
        f"{more}{n_lines:,} {kind}; if each stands by itself, "
        '--separator "\\n" makes each a document'
    ]


def occurs(words: str, files: Iterable[Path]) -> bool:
    """Return whether a file holds these words, also where a chunk ends within them."""
    for path in files:
        rest = ""
        for chunk in read_text(path):
            rest += chunk
            if words in rest:
                return True
            rest = rest[-len(words) :]
    return False


def notes_on_signs(files: Iterable[Path]) -> list[str]:
    """Return notes on signs that programs leave in a text and that nobody reads."""
    found, n_bytes = Counter[str](), 0
    for text in itertools.chain.from_iterable(map(read_text, files)):
        found.update({sign: n for sign in SIGNS if (n := text.count(sign))})
        n_bytes += len(text)
        if n_bytes >= NOTED:
            break
    return [
        f"warning: the text holds U+{ord(sign):04X} {n:,} {'time' if n == 1 else 'times'}, {what}"
        for sign, what in SIGNS.items()
        if (n := found[sign])
    ]


def print_notes_on_tokens(tokens: TokenStream, tokenizer: Tokenizer) -> None:
    """Print to stderr how the tokens of a text differ from the text as it is written."""
    if n := sum(shard.n_controls for shard in tokens.shards):
        names = [*tokenizer.controls.values()]
        named = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        print(
            f"note: in the {tokens.name}, {n:,} control tokens of the model ({named}) are read as "
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
    """Return the text from which a sample without a prompt begins: "" if documents begin often.

    Otherwise it is the end of a line or paragraph. A model sees a book's only END_OF_TEXT a few
    times, or never. After END_OF_TEXT, such a model writes the book's first words by heart, or
    begins in mid-word. The end of a line it has seen everywhere.
    """
    if tokens.n_documents > 1 and tokens.n_tokens < RARE * tokens.n_documents:
        return ""
    ids = tokens.read(0, min(tokens.n_tokens, 1 << 16)).tolist()
    text = tokenizer.decode(id for id in ids if id != tokens.end_of_text)
    if 50 * text.count("\n\n") > text.count("\n"):
        return "\n\n"
    return "\n" if "\n" in text else ""
