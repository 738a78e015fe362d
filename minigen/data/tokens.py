"""Documents to tokens: END_OF_TEXT and the token ids of a document, and so on for each.

    documents, in parts --cut_chunks--> chunks --Tokenizer.encode_documents--> token ids

`naive_tokens` is the idea, for documents in memory. The rest of this file cuts a text that is
larger than memory into chunks, which are encoded one at a time, in several threads. It cuts where
no token crosses, so the token ids are the same as those of the whole text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minigen.data.text import DocumentPart
from minigen.tokenizer import END_OF_TEXT, Tokenizer

MAX_CUTS = 1000  # places that are tried to cut a document


def naive_tokens(documents: Iterable[str], tokenizer: Tokenizer) -> list[int]:
    """Return the stream of some documents: END_OF_TEXT and the tokens of each.

    >>> from minigen.tokenizer import train_tokenizer
    >>> naive_tokens(["ab", "c"], train_tokenizer("byte", []))
    [256, 97, 98, 256, 99]
    """
    return [id for text in documents for id in (tokenizer.end_of_text, *tokenizer.encode(text))]


# ---- the same for documents that are larger than memory ----


class Chunk(NamedTuple):
    """Documents to encode at once; the first `begins` here or continues the chunk before."""

    begins: bool
    documents: list[str]

    @property
    def n_chars(self) -> int:
        return sum(map(len, self.documents))


def cut_chunks(
    parts: Iterable[DocumentPart], size: int, tokenizer: Tokenizer | None = None
) -> Iterator[Chunk]:
    """Gather and cut parts of documents to encode: about `size` characters, at most twice that.

    The tokens of a document's parts are those of the document, except where `size` characters have
    no place to cut, or none among the last MAX_CUTS. Other tokens may stand there, but they decode
    to the same text.

    Args:
        tokenizer: the tokenizer that is to encode the chunks; None: one that cuts as GPT-2's does.
    """
    chunk, length = Chunk(True, []), 0  # with END_OF_TEXT before each document
    for part in parts:
        if part.begins:
            if length >= size:
                yield chunk
                chunk, length = Chunk(True, []), 0
            chunk.documents.append(part.text)
            length += len(END_OF_TEXT)
        else:
            chunk.documents[-1] += part.text
        length += len(part.text)
        while len(text := chunk.documents[-1]) >= size:
            cut = last_cut(text, size, tokenizer)
            chunk.documents[-1] = text[:cut]
            yield chunk
            chunk, length = Chunk(False, [text[cut:]]), len(text) - cut
    if length:
        yield chunk


def last_cut(text: str, size: int, tokenizer: Tokenizer | None) -> int:
    """Return the last place before `size` where no token crosses: white space after anything else.

    White space stands only at the beginning of GPT-2's words, so a word ends there whatever
    follows. Other tokenizers are asked whether they cut there.
    """
    ends = (i for i in range(size - 1, 0, -1) if text[i] in " \n" and not text[i - 1].isspace())
    for i in itertools.islice(ends, MAX_CUTS):
        if tokenizer is None or tokenizer.can_cut(text, i):
            return i
    return size
