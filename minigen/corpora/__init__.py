"""Corpora, the texts to learn from: the user's own files, or one that minigen knows by name.

tales         stories written by a grammar, so that the best possible loss is known
pictures      scenes on a small grid, with captions and a checker; the best loss is known, too
tunes         melodies with chords in ABC notation, and a checker; the best loss is known, too
shakespeare   "tiny Shakespeare", 1.1 MB of plays, downloaded once
"""

from minigen.corpora.corpus import Corpus
from minigen.corpora.find import find, given_in
from minigen.corpora.known import NAMES
from minigen.corpora.separator import AUTO, NONE, separates, typed
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
    "given_in",
    "separates",
    "synthetic",
    "typed",
]
