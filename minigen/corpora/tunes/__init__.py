"""Tunes: melodies with chords, from a musical grammar whose probabilities are known.

A tune is a first line that states its conditions, and then ABC notation (see `abc_notation.py`):

    tune: a calm waltz in G, 8 bars, AA
    X:1
    T:The Humble Baker's Waltz
    M:3/4
    L:1/4
    K:G
    P:A
    "G" g2 g |"C" ga g |"G" d Bc |"Am" e "D" d2 |
    P:A
    "G" g2 g |"C" ga g |"G" d Bc |"D" A "G" G2 |]

A tune has two to four phrases of four bars. Phrases with the same letter have the same bars except
the last bar, the cadence: in the middle of the tune a phrase ends on the dominant, and the last
phrase ends on the tonic. Every group of notes begins with a note of its chord. The mood decides on
the mode, on the number of notes in a bar, and on the size and the direction of the melody's steps.

Chance chooses from short lists of texts. A tune shows which texts were chosen, so -log2 p(tune) is
an exact number of bits. The mean of these bits is the entropy of the tunes, and no model can have a
lower mean loss on new tunes. `check` reads the music of any text, such as a sample of a model. It
tells whether the music fulfils the conditions of the first line, and names each difference.

    python -m minigen corpus tunes --count 3           # print three tunes
    python -m minigen corpus tunes --check FILE        # check the tunes in a file
    python -m minigen corpus tunes --save FOLDER       # save tunes as .abc, .wav and .png
"""

from __future__ import annotations

from minigen.corpora.tunes.check import check
from minigen.corpora.tunes.first_line import FIELDS, NOUN
from minigen.corpora.tunes.generate import SPLITS, VERSION, Tune, documents, tune, write
from minigen.corpora.tunes.prompt import condition, prompt
from minigen.corpora.tunes.save import save, to_abc

__all__ = [
    "ENDINGS",
    "FIELDS",
    "NOUN",
    "SHOWN_WHEN_COMPLETE",
    "SPLITS",
    "VERSION",
    "Tune",
    "check",
    "condition",
    "documents",
    "prompt",
    "save",
    "show",
    "to_abc",
    "tune",
    "write",
]

ENDINGS, SHOWN_WHEN_COMPLETE = (".wav", ".png", ".abc", ".txt"), False


def show(text: str) -> str:
    """Return the tune unchanged: a terminal shows it as text."""
    return text
