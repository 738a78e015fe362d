"""Pictures as images: every letter has its colour, and what is faulty is shown as it is."""

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


def test_every_letter_of_the_corpus_has_a_look_of_its_own() -> None:
    assert render.PALETTE.keys() == LETTERS
    assert len(set(render.PALETTE.values())) == len(render.PALETTE)


def test_the_png_of_a_picture_is_its_cells(tmp_path: Path) -> None:
    render.save(TEXTS[:1], tmp_path / "one.png", cell=4)
    image = matplotlib.image.imread(tmp_path / "one.png")[..., :3]
    assert image.shape == (13 * 4, 13 * 4, 3)
    assert (np.rint(image * 255) == render.pixels(TEXTS[0], cell=4)).all()
    rows = [re.sub(r"[ \d]", "", row) for row in TEXTS[0].split("\n")[1:]]
    for y, x in itertools.product(range(13), range(13)):
        assert np.rint(image[4 * y, 4 * x] * 255).tolist() == rgb(rows[y][x])


def test_a_contact_sheet_holds_all_pictures_unscaled(tmp_path: Path) -> None:
    render.save(TEXTS, tmp_path / "sheet.png", cell=4, columns=3)
    sheet = np.rint(matplotlib.image.imread(tmp_path / "sheet.png")[..., :3] * 255)
    assert sheet.shape[1] == 16 + 3 * (52 + 16)
    tops = [16, 16 + (sheet.shape[0] - 16) // 2]
    for n, text in enumerate(TEXTS):
        x, y = 16 + n % 3 * 68, tops[n // 3]
        assert (sheet[y : y + 52, x : x + 52] == render.pixels(text, cell=4)).all()
    captions = sheet[16 + 52 : tops[1]]
    assert (captions < 128).any()  # something is written there
    render.save(TEXTS[:1] * 4, tmp_path / "same.png", cell=4)
    same = matplotlib.image.imread(tmp_path / "same.png")
    assert same.shape[0] == 16 + 15 + 2 * (52 + 16)  # the caption only once


def test_a_caption_is_no_formula(tmp_path: Path) -> None:
    """Whatever a prompt or a model has put there, it is written as it is."""
    rows = TEXTS[0].split("\n", 1)[1]
    render.save([f"picture: a $\\q$ {n}\n{rows}" for n in (1, 2)], tmp_path / "x.png")
    assert (tmp_path / "x.png").exists()


def test_a_faulty_picture_is_shown_as_it_is() -> None:
    image = render.pixels("picture: a faulty one\n.q 1\n.", cell=1)
    assert image.tolist() == [[rgb("."), [255, 0, 255]], [rgb("."), [255, 255, 255]]]
    assert render.pixels("picture: nothing yet", cell=1).size == 0


def test_broken_pictures_make_a_sheet_of_the_usual_size(tmp_path: Path) -> None:
    """Neither endless rows nor endless captions make room for themselves."""
    broken = ["picture: $ \x1b" + "what? " * 400 + "\n" + "g" * 5000, "picture: x" + "\ng" * 900]
    render.save(TEXTS, tmp_path / "usual.png", cell=4, columns=3)
    usual = matplotlib.image.imread(tmp_path / "usual.png").shape
    for texts in ([*TEXTS[:3], *broken], [TEXTS[0], *broken * 2], broken[:1] * 4):
        render.save(texts, tmp_path / "sheet.png", cell=4, columns=3)
        found = matplotlib.image.imread(tmp_path / "sheet.png").shape
        assert found[1] == usual[1] and found[0] <= usual[0] + 2 * 15 * render.MAX_LINES
    render.save(broken[:1], tmp_path / "one.png", cell=4)
    assert matplotlib.image.imread(tmp_path / "one.png").shape[:2] == (4, 4 * render.MAX_CELLS)


def test_a_terminal_shows_colours() -> None:
    caption, *rows = render.terminal(TEXTS[0]).split("\n")
    assert caption == TEXTS[0].split("\n")[0]
    for row in rows:
        assert row.endswith("\x1b[0m")
        assert len(re.sub(r"\x1b\[[\d;]*m", "", row)) == 2 * 13


def test_what_cannot_be_drawn_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only a caption"):
        render.save(["picture: nothing yet"], tmp_path / "x.png")
    with pytest.raises(UserError, match=r"cannot write .*; give another place"):
        render.save(TEXTS[:1], tmp_path / "no" / "x.png")
    with pytest.raises(UserError, match=r"cannot write .*; give another place"):
        render.save(TEXTS, tmp_path / "no" / "x.png")
