"""Pictures as images: every character has its own colour, and an image shows the faults."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from minigen.corpora import pictures
from minigen.corpora.pictures import render
from minigen.corpora.pictures.tables import LETTERS
from minigen.errors import UserError

TEXTS = [one.text for one in itertools.islice(pictures.documents(0), 5)]


def rgb(letter: str) -> list[int]:
    colour = render.PALETTE[letter][0]
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_every_character_has_a_colour_of_its_own() -> None:
    """The palette has every character of the pictures, and no two with the same colour and mark."""
    assert render.PALETTE.keys() == LETTERS
    assert len(set(render.PALETTE.values())) == len(render.PALETTE)


def test_a_png_has_the_colour_of_every_cell(tmp_path: Path) -> None:
    """The PNG of a picture is a grid of squares, each in the colour of its cell."""
    render.save(TEXTS[:1], tmp_path / "one.png", cell=4)
    image = matplotlib.image.imread(tmp_path / "one.png")[..., :3]
    assert image.shape == (13 * 4, 13 * 4, 3)
    assert (np.rint(image * 255) == render.pixels(TEXTS[0], cell=4)).all()
    rows = [re.sub(r"[ \d]", "", row) for row in TEXTS[0].split("\n")[1:]]
    for y, x in itertools.product(range(13), range(13)):
        assert np.rint(image[4 * y, 4 * x] * 255).tolist() == rgb(rows[y][x])


def test_a_contact_sheet_has_all_pictures_and_captions(tmp_path: Path) -> None:
    """A contact sheet has the pixels of every picture, unscaled, with text below them."""
    render.save(TEXTS, tmp_path / "sheet.png", cell=4, columns=3)
    sheet = np.rint(matplotlib.image.imread(tmp_path / "sheet.png")[..., :3] * 255)
    assert sheet.shape[1] == 16 + 3 * (52 + 16)
    tops = [16, 16 + (sheet.shape[0] - 16) // 2]
    for n, text in enumerate(TEXTS):
        x, y = 16 + n % 3 * 68, tops[n // 3]
        assert (sheet[y : y + 52, x : x + 52] == render.pixels(text, cell=4)).all()
    captions = sheet[16 + 52 : tops[1]]
    assert (captions < 128).any()


def test_a_shared_caption_stands_once_above_the_sheet(tmp_path: Path) -> None:
    """If all captions are equal, a contact sheet has one line of text, and none below pictures."""
    render.save(TEXTS[:1] * 4, tmp_path / "same.png", cell=4)
    sheet = matplotlib.image.imread(tmp_path / "same.png")
    assert sheet.shape[0] == 16 + 15 + 2 * (52 + 16)


def test_a_caption_is_not_read_as_a_formula(tmp_path: Path) -> None:
    r"""A caption such as "a $\q$", which is no formula of matplotlib, can be saved."""
    rows = TEXTS[0].split("\n", 1)[1]
    render.save([f"picture: a $\\q$ {n}\n{rows}" for n in (1, 2)], tmp_path / "x.png")
    assert (tmp_path / "x.png").exists()


def test_unknown_characters_are_magenta_and_missing_cells_white() -> None:
    """The image of a faulty picture shows its faults; a caption alone has an empty image."""
    image = render.pixels("picture: a faulty one\n.q 1\n.", cell=1)
    assert image.tolist() == [[rgb("."), [255, 0, 255]], [rgb("."), [255, 255, 255]]]
    assert render.pixels("picture: nothing yet", cell=1).size == 0


def test_faulty_pictures_do_not_enlarge_a_sheet(tmp_path: Path) -> None:
    """A sheet and a PNG have a limited size, whatever the length of rows and captions."""
    broken = ["picture: $ \x1b" + "what? " * 400 + "\n" + "g" * 5000, "picture: x" + "\ng" * 900]
    render.save(TEXTS, tmp_path / "usual.png", cell=4, columns=3)
    usual = matplotlib.image.imread(tmp_path / "usual.png").shape
    for texts in ([*TEXTS[:3], *broken], [TEXTS[0], *broken * 2], broken[:1] * 4):
        render.save(texts, tmp_path / "sheet.png", cell=4, columns=3)
        sheet = matplotlib.image.imread(tmp_path / "sheet.png").shape
        assert sheet[1] == usual[1] and sheet[0] <= usual[0] + 2 * 15 * render.MAX_LINES
    render.save(broken[:1], tmp_path / "one.png", cell=4)
    assert matplotlib.image.imread(tmp_path / "one.png").shape[:2] == (4, 4 * render.MAX_CELLS)


def test_a_terminal_shows_each_cell_as_two_coloured_columns() -> None:
    """The text for a terminal is the caption and 13 rows of 26 columns; colours end with a row."""
    caption, *rows = render.terminal(TEXTS[0]).split("\n")
    assert caption == TEXTS[0].split("\n")[0]
    assert len(rows) == 13
    for row in rows:
        assert row.endswith("\x1b[0m")
        assert len(re.sub(r"\x1b\[[\d;]*m", "", row)) == 2 * 13


def test_a_picture_that_cannot_be_saved_is_one_line_of_error(tmp_path: Path) -> None:
    """A caption without a picture, and a folder that does not exist, raise a `UserError`."""
    with pytest.raises(UserError, match="only a caption"):
        render.save(["picture: nothing yet"], tmp_path / "x.png")
    for texts in (TEXTS[:1], TEXTS):
        with pytest.raises(UserError, match=r"cannot write .*; give another place"):
            render.save(texts, tmp_path / "no" / "x.png")
