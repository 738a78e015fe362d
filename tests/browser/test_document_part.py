"""The part "document" of the page: pictures, tunes and verdicts of the text that is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from minigen.corpora import pictures, tunes
from minigen.corpora.pictures import render
from minigen.corpora.tunes import abc_notation, sound

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]


# The colours of the canvas near the corner of each cell, away from the marks in the middle.
COLOURS = """() => {
  const { width, height } = document.querySelector(".document-canvas");
  const context = document.querySelector(".document-canvas").getContext("2d");
  const pixels = context.getImageData(0, 0, width, height).data;
  const near = (cell) => Math.floor(((cell + 0.1) * width) / 13);
  const place = (x, y) => 4 * (near(y) * width + near(x));
  const cells = Array.from({ length: 13 }, (_, n) => n);
  return cells.map((y) => cells.map((x) => [...pixels.slice(place(x, y), place(x, y) + 4)]));
}"""


def opened(visit: Visit, model: str, text: str) -> Page:
    """Open the page with a text as the prompt, and the panel "document"."""
    page = visit(f"#model={model}&tab=document&prompt={quote(text, safe='')}")
    page.wait_for_selector(".document-verdict h3")
    return page


def mark(page: Page) -> list[str]:
    """Return the signs of the verdict: of the format, of the first line, and of the grammar."""
    return [sign.text_content() or "" for sign in page.locator(".document-sign").all()]


def test_a_picture_is_drawn_as_far_as_it_is_written(visit: Visit) -> None:
    """Each cell of the text has its colour on the canvas, and cells to come have none."""
    text = next(pictures.documents(5)).text
    for n in (len(text) // 2, len(text)):
        page = opened(visit, "pictures", text[:n])
        _, *rows = text[:n].strip("\n").split("\n")
        image = render.pixels(text[:n])
        counts = [len(render.cells_of(row)) for row in rows]
        drawn = page.evaluate(COLOURS)
        for y, x in itertools.product(range(13), range(13)):
            is_written = y < len(counts) and x < counts[y]
            place = y * render.CELL, x * render.CELL
            wanted = [*image[place].tolist(), 255] if is_written else [0, 0, 0, 0]
            assert drawn[y][x] == wanted
        assert mark(page) == ["✓" if n == len(text) else "…"] * 3
        assert page.locator(".document-complaints").count() == 0
    bits = f"{pictures.check(text).bits:.1f} bits"
    assert (page.locator(".document-bits").text_content() or "").startswith(bits)


def test_a_broken_picture_is_complained_about_at_its_end(visit: Visit) -> None:
    """A picture with too few rows has complaints once its end is written, and none before."""
    text = next(pictures.documents(5)).text
    half = text[: len(text) // 2].rpartition("\n")[0] + "\n"
    assert opened(visit, "pictures", half).locator(".document-complaints li").count() == 0
    page = opened(visit, "pictures", f"{half}<|endoftext|>")
    assert page.locator(".document-complaints li").count() >= 1
    assert "✗" in mark(page)


def test_a_tune_has_its_notes_and_can_be_played(visit: Visit) -> None:
    """The label counts the notes, and the tones that Play begins are those of the WAV file."""
    text = next(tunes.documents(5)).text
    page = opened(visit, "tunes", text)
    score = abc_notation.parse(tunes.to_abc(text))
    tones = list(sound.tones(score))
    n = sum(1 for tone in tones if tone.voice == "melody")
    bars = sum(1 for _ in score.played())
    label = page.locator(".document-figure").get_attribute("aria-label") or ""
    assert score.headers["T"] in label and label.endswith(f": {n} notes in {bars} bars")
    tone = max(tones, key=lambda tone: tone.length)
    samples = page.evaluate(
        """async (note) => [...(await import("/tune.js")).pluck(note, 44100)]""",
        {"frequency": tone.frequency, "seconds": tone.length, "loudness": tone.loudness,
         "voice": tone.voice},
    )  # fmt: skip
    assert samples == pytest.approx(sound.pluck(tone).tolist(), abs=1e-6)
    page.get_by_role("button", name="Play the tune").click()
    page.get_by_role("button", name="Stop the tune").click()
    assert page.get_by_role("button", name="Play the tune").count() == 1


def test_conditions_begin_a_document(visit: Visit) -> None:
    """Chosen words are in the first line, and all fields are the genre's."""
    page = opened(visit, "tunes", "tune: a calm")
    for field, words in tunes.FIELDS.items():
        options = page.get_by_label(field, exact=True).locator("option").all()
        assert tuple(option.get_attribute("value") for option in options) == ("", *words)
    page.get_by_label("mood", exact=True).select_option("sad")
    page.get_by_label("dance", exact=True).select_option("waltz")
    page.get_by_role("button", name="Begin a tune").click()
    conditions = page.locator(".document-conditions", has_text="waltz")
    conditions.wait_for()
    assert (conditions.text_content() or "").startswith("mood sad")
