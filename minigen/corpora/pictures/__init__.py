"""Pictures: scenes with captions on a small grid, so that a program can see what a picture shows.

A picture is a caption and 13 rows of 6 and 7 cells, each followed by its number:

    picture: a small yellow moon left of a big blue house, night
    ..*... ....... 1
    ...... ..*.... 2
    ....*. ...BB.. 3
    .YY... ..bbbb. 4
    yy.... .BBBBBB 5
    YY.... .bb..bb 6
    .yy... .BB..BB 7
    ..*... ..*.... 8
    .*...* ......* 9
    ...... ......* 10
    ;;;::: :::;;;: 11
    ;;;;;: :;;;;:: 12
    :::::: :;;;;:: 13

Each cell is a letter. Letters of the alphabet are things, in a light or (capital) dark tone of a
colour; other signs are the background: sky, and below it ground, with details such as stars. The
caption decides on the things and the background. Where they are, their exact size, their texture
and all details are drawn by chance, with known probabilities. So -log2 p(picture) is an exact
number of bits; their mean, `entropy()`, is the floor under the loss of any model.

The format is made to be learnt. A tokenizer cuts a row where the kind of sign changes, so a token
is a run of cells; the blank keeps both halves apart, so that each adds up by itself; and the number
says how far the picture has come.

`check` looks at the grid alone to find out what is there: things are groups of cells that touch,
known by their outline. Then it compares that with the caption. Some pairs of shape and colour never
occur in the training text, so that one can see whether a model puts together what it never saw.

    python -m minigen corpus pictures --count 3        # look at some pictures
    python -m minigen corpus pictures --check FILE     # check pictures between blank lines or rules
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigen.corpora.pictures import render
from minigen.corpora.pictures.caption import FIELDS, NOUN, Caption, condition, prompt
from minigen.corpora.pictures.check import check
from minigen.corpora.pictures.generate import (
    SPLITS,
    VERSION,
    Picture,
    count,
    documents,
    entropy,
    picture,
    write,
)
from minigen.corpora.task import save_text

__all__ = [
    "ENDINGS",
    "FIELDS",
    "NOUN",
    "SPLITS",
    "VERSION",
    "WHOLE",
    "Caption",
    "Picture",
    "check",
    "condition",
    "count",
    "documents",
    "entropy",
    "picture",
    "prompt",
    "save",
    "show",
    "write",
]

ENDINGS, WHOLE = (".png", ".txt"), True


def show(text: str) -> str:
    """Return the picture in the colours of a terminal."""
    return render.terminal(text)


def save(texts: Sequence[str], path: Path) -> None:
    """Write the texts, or a PNG: of one picture, or a sheet of several."""
    if path.suffix.lower() == ".txt":
        save_text(texts, path)
    else:
        render.save(texts, path)
