"""Tunes: a corpus of melodies with chords from a musical grammar whose probabilities are known.

A tune is a line that says what it must be like, and then ABC notation (see `notation.py`):

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

A tune has two to four phrases of four bars. Phrases of one letter are alike but for their last
bars, the cadences: half-way a phrase stops on the dominant, and the last one comes home. Every beat
begins with a note of its chord. The mood decides the mode, how many notes a bar has, how they move
and where to.

All is drawn from short lists of texts, and each choice can be seen in the text, so -log2 p(tune) is
an exact number of bits: the floor under the loss of any model. `check` reads any text (a model's
sample) by its music, not by this grammar, and says whether it keeps its first line, and why not.

    python -m minigen corpus tunes --count 3           # read some tunes
    python -m minigen corpus tunes --check FILE        # check tunes between blank lines
    python -m minigen corpus tunes --save FOLDER       # hear and see them: .abc, .wav, .png
"""

from __future__ import annotations

from minigen.corpora.tunes.check import check
from minigen.corpora.tunes.first_line import FIELDS, NOUN
from minigen.corpora.tunes.generate import SPLITS, VERSION, Tune, documents, tune, write
from minigen.corpora.tunes.prompt import condition, prompt
from minigen.corpora.tunes.save import abc, save

__all__ = [
    "ENDINGS",
    "FIELDS",
    "NOUN",
    "SPLITS",
    "VERSION",
    "WHOLE",
    "Tune",
    "abc",
    "check",
    "condition",
    "documents",
    "prompt",
    "save",
    "show",
    "tune",
    "write",
]

ENDINGS, WHOLE = (".wav", ".png", ".abc", ".txt"), False


def show(text: str) -> str:
    """Return the tune as it is."""
    return text
