"""The separator of documents: the text between two of them in a file, as --separator gives it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from minigen.errors import UserError
from minigen.system.streams import decoded
from minigen.system.text_file import count_documents
from minigen.tokenizer import END_OF_TEXT

AUTO, NONE = "auto", "none"  # values of --separator
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".ipynb")  # files that hold more than text


def typed(text: str) -> str:
    r"""Return a flag's text as it was meant, as a shell passes "\n" as two characters.

    "\n" is a newline, "\t" a tab, and "\\" a backslash; any other backslash stands for itself.

    Raises UserError for bytes that are not UTF-8, which are in no text.
    """
    signs = {"n": "\n", "t": "\t", "\\": "\\"}
    text = decoded(text)
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise UserError(f"{text!r} is not UTF-8; give it in UTF-8")
    return re.sub(r"\\([nt\\])", lambda found: signs[found[1]], text)


def separates(separator: str | None) -> str | None:
    """Return the text that a --separator stands for; None where it stands for none, or is AUTO."""
    if separator in (None, AUTO, NONE):
        return None
    # A text that was read has no other ends of lines than "\n".
    return typed(separator or "").replace("\r\n", "\n").replace("\r", "\n")


def between(files: Sequence[Path], separator: str | None) -> tuple[str | None, list[str]]:
    """Return the text that separates documents in the files, and notes on END_OF_TEXT in them."""
    if separator in (None, NONE):
        return None, []
    meant = separates(separator)
    if meant == END_OF_TEXT:
        return meant, []
    # Within the quotes of a table END_OF_TEXT would cut rows.
    plain = [file for file in files if file.suffix.lower() not in TABLES]
    if separator == AUTO and (n := count_documents(plain, END_OF_TEXT)):
        many = "1 document" if n == 1 else f"{n:,} documents"
        said = [f"{END_OF_TEXT} in the text separates {many}; --separator none reads it as letters"]
        tables = [file for file in files if file.suffix.lower() in TABLES]
        if cut := [file for file in tables if count_documents([file], END_OF_TEXT)]:
            said += [
                f"warning: {END_OF_TEXT} cuts rows of {cut[0]} too; leave that file out, or give "
                "--separator none"
            ]
        return END_OF_TEXT, said
    if count_documents(files, END_OF_TEXT):
        return meant, [
            f"warning: {END_OF_TEXT} in the text is read as letters; "
            f"--separator '{END_OF_TEXT}' separates documents there"
        ]
    return meant, []
