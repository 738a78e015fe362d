"""The separator: the text between two documents of a file, which --separator names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from minigen.errors import UserError
from minigen.system.streams import decoded
from minigen.system.text_file import count_documents
from minigen.tokenizer import END_OF_TEXT

AUTO, NONE = "auto", "none"  # values of --separator
TABLES = (".csv", ".tsv", ".json", ".ipynb")  # files with text in quotes


def unescape(text: str) -> str:
    r"""Return the text of a flag with its escape sequences replaced: \n, \t and \\.

    A shell passes "\n" as two characters, which stand for a newline. Likewise "\t" is a tab, and
    "\\" a backslash; any other backslash stands for itself.

    Raises `UserError` for bytes that are not UTF-8, because no text has such bytes.
    """
    characters = {"n": "\n", "t": "\t", "\\": "\\"}
    text = decoded(text)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{text!r} is not UTF-8; give it in UTF-8")
    return re.sub(r"\\([nt\\])", lambda escape: characters[escape[1]], text)


def separator_text(separator: str | None) -> str | None:
    """Return the text of a --separator; None if --separator is NONE, AUTO, or left out."""
    if separator in (None, AUTO, NONE):
        return None
    # Files are read with "\n" as the only line end, so the separator has no other either.
    return unescape(separator or "").replace("\r\n", "\n").replace("\r", "\n")


def choose_separator(
    files: Sequence[Path], separator: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """Return the text that separates documents in the files, and notes for the user.

    AUTO means END_OF_TEXT if a file that is no table has END_OF_TEXT, else None. If a file has
    END_OF_TEXT, the notes say whether END_OF_TEXT separates documents.
    """
    if separator in (None, NONE):
        return None, ()
    text = separator_text(separator)
    if text == END_OF_TEXT:
        return text, ()
    # In a table, END_OF_TEXT stands within quotes. As a separator, it would cut rows.
    tables = [file for file in files if file.suffix.lower() in TABLES]
    others = [file for file in files if file.suffix.lower() not in TABLES]
    if separator == AUTO and (n := count_documents(others, END_OF_TEXT)):
        documents = "1 document" if n == 1 else f"{n:,} documents"
        notes = [
            f"{END_OF_TEXT} in the text separates {documents}; --separator none reads it as letters"
        ]
        if cut_tables := [file for file in tables if count_documents([file], END_OF_TEXT)]:
            notes.append(
                f"warning: {END_OF_TEXT} cuts rows of {cut_tables[0]} too; leave that file out, "
                "or give --separator none"
            )
        return END_OF_TEXT, tuple(notes)
    if count_documents(files, END_OF_TEXT):
        return text, (
            f"warning: {END_OF_TEXT} in the text is read as letters; "
            f"--separator '{END_OF_TEXT}' separates documents there",
        )
    return text, ()
