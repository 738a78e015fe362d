"""Pictures: scenes with captions on a small grid, so that a program can see what a picture shows.

A picture is a caption and 13 rows of 6 and 7 cells. Each row ends with its number:

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

Each cell is a character. Letters of the alphabet are things, in the light tone of a colour or (as
capitals) in its dark tone. All other characters are the background: the sky, and below it the
ground, with details such as stars. The caption decides on the things and the background. Chance
decides, with known probabilities, on the places of the things, their outlines, their textures and
the details. So -log2 p(picture) is an exact number of bits. The mean of these bits is the entropy
of the pictures (`entropy`), and no model can have a lower mean loss on new pictures.

Each part of the format makes pictures easier to learn. A tokenizer cuts a row between letters and
other characters, so a token is a run of cells. The blank splits a row into halves, so that a model
has to count only to 6 or 7 cells, and not to 13. The number at the end of a row counts the rows.

`check` sees only the text. It finds the things in the grid, which are groups of cells that touch,
recognises them by their outlines, and compares them with the caption. Some pairs of shape and
colour never occur in the training text. They show whether a model can combine words that it has
never read together.

    python -m minigen corpus pictures --count 3        # draw three pictures in the terminal
    python -m minigen corpus pictures --check FILE     # check the pictures in a file
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigen.corpora.genre import save_text
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

__all__ = [
    "ENDINGS",
    "FIELDS",
    "NOUN",
    "SHOWN_WHEN_COMPLETE",
    "SPLITS",
    "VERSION",
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

ENDINGS, SHOWN_WHEN_COMPLETE = (".png", ".txt"), True


def show(text: str) -> str:
    """Return the text that shows a picture in a terminal with colours."""
    return render.terminal(text)


def save(texts: Sequence[str], path: Path) -> None:
    """Save pictures: as text if `path` ends in .txt, else as a PNG, which can be a contact sheet.

    Raises `UserError` if the file cannot be written.
    """
    if path.suffix.lower() == ".txt":
        save_text(texts, path)
    else:
        render.save(texts, path)
