"""Corpora, the texts to learn from: files of the user, or a built-in corpus, which has a name.

tales         stories that a grammar writes
pictures      scenes on a small grid, with captions; a grammar writes them, too
tunes         melodies with chords in ABC notation; a grammar writes them, too
shakespeare   "tiny Shakespeare", 1.1 MB of plays, downloaded once

A corpus that a grammar writes is *synthetic*: the entropy of its text is known (`Corpus.floor`),
and each of its documents begins with a first line, which states conditions. `minigen.corpora.task`
defines these words; its tasks ask a model for a document and judge the answer.
"""

from minigen.corpora.builtin import NAMES
from minigen.corpora.corpus import Corpus
from minigen.corpora.find import find, relocate
from minigen.corpora.separator import AUTO, NONE, separator_text, unescape
from minigen.corpora.splits import BETWEEN
from minigen.corpora.task import SYNTHETIC, synthetic

__all__ = [
    "AUTO",
    "BETWEEN",
    "NAMES",
    "NONE",
    "SYNTHETIC",
    "Corpus",
    "find",
    "relocate",
    "separator_text",
    "synthetic",
    "unescape",
]
