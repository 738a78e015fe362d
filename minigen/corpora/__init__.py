"""Corpora, the texts to learn from: files of the user, or built-in corpora, which have names.

tales         stories that a grammar writes
pictures      scenes on a small grid, with captions, that a grammar writes
tunes         melodies with chords in ABC notation that a grammar writes
tasks         questions about tales and lists, with their answers, for a model of the tales
shakespeare   "tiny Shakespeare", 1.1 MB of plays, downloaded once

A corpus that a grammar writes is *synthetic*: the entropy of its text is known (`Corpus.entropy`),
and each of its documents begins with a first line, which states the conditions of the document.
`minigen.corpora.genre` defines these words. It also asks a model for documents, and judges them.
"""

from minigen.corpora.builtin import NAMES
from minigen.corpora.corpus import Corpus
from minigen.corpora.find import find, relocate
from minigen.corpora.genre import SYNTHETIC, WRITTEN, synthetic_names
from minigen.corpora.separator import AUTO, NONE, separator_text, unescape
from minigen.corpora.splits import BLANK_LINE

__all__ = [
    "AUTO",
    "BLANK_LINE",
    "NAMES",
    "NONE",
    "SYNTHETIC",
    "WRITTEN",
    "Corpus",
    "find",
    "relocate",
    "separator_text",
    "synthetic_names",
    "unescape",
]
