"""Documents to tokens: for each document, END_OF_TEXT and then the document's token ids.

    documents, in parts --cut_chunks--> chunks --Tokenizer.encode_documents--> token ids

`naive_tokens` is the idea, for documents in memory. The rest of this file cuts a text that is
larger than memory into chunks, which several threads encode. It cuts where no token crosses the
cut, so the token ids are those of the whole text (test_tokens_of_chunks_are_tokens_of_the_whole).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minigen.data.text import DocumentPart
from minigen.tokenizer import END_OF_TEXT, Tokenizer, last_cut


def naive_tokens(documents: Iterable[str], tokenizer: Tokenizer) -> list[int]:
    """Return one stream of token ids for all documents: for each, END_OF_TEXT and its ids.

    END_OF_TEXT tells the model that a text begins. It stands before each document, and not after,
    so that a model can begin a text too: from END_OF_TEXT alone
    (test_each_document_begins_with_end_of_text).

    >>> from minigen.tokenizer import train_tokenizer
    >>> naive_tokens(["ab", "c"], train_tokenizer("byte", []))
    [256, 97, 98, 256, 99]
    """
    return [id for text in documents for id in (tokenizer.end_of_text, *tokenizer.encode(text))]


# ---- the same for documents that are larger than memory ----


class Chunk(NamedTuple):
    """Documents to encode at once. The last one may continue in the next chunk."""

    begins: bool  # the first document begins here; False: it began in the chunk before
    documents: list[str]

    @property
    def n_chars(self) -> int:
        """The number of characters in all documents."""
        return sum(map(len, self.documents))


def cut_chunks(
    parts: Iterable[DocumentPart], size: int, tokenizer: Tokenizer | None = None
) -> Iterator[Chunk]:
    """Gather and cut parts of documents into chunks of about `size` characters, at most twice that.

    The tokens of the chunks are those of the documents, except where `size` characters have no
    place to cut, or none among the last MAX_CUTS. There the tokens may differ, but they decode to
    the same text (test_a_long_text_without_a_blank_is_tokenised).

    Args:
        tokenizer: the tokenizer that will encode the chunks; None: one with the words of GPT-2.
    """
    chunk, length = Chunk(True, []), 0  # with END_OF_TEXT before each document
    for part in parts:
        if part.is_first:
            if length >= size:
                yield chunk
                chunk, length = Chunk(True, []), 0
            chunk.documents.append(part.text)
            length += len(END_OF_TEXT)
        else:
            chunk.documents[-1] += part.text
        length += len(part.text)
        while len(text := chunk.documents[-1]) >= size:
            cut = last_cut(text, size, tokenizer) or size
            chunk.documents[-1] = text[:cut]
            yield chunk
            chunk, length = Chunk(False, [text[cut:]]), len(text) - cut
    if length:
        yield chunk
