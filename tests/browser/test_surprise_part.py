"""The surprise of a text, in a real browser."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from serving import Served
from until import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]

TEXT = "hero: Sir Fox, friend: little Mole\nSir Fox sang. "


def scores(served: Served, text: str) -> Any:
    """Return the answer of /api/surprise."""
    body = json.dumps({"model": "tales", "text": text}).encode()
    with urllib.request.urlopen(f"{served.address}/api/surprise", body) as answer:
        return json.load(answer)


def colour(page: Page, text: str) -> None:
    """Colour a text."""
    page.get_by_label("A text: type it").fill(text)
    page.get_by_role("button", name="Colour the text").click()
    page.locator(".surprise-tokens [role=option]").first.wait_for()


def test_each_token_shows_its_bits(visit: Visit, served: Served) -> None:
    """The bits, the rank and the sums on the page are those of the server."""
    page = visit("#model=tales&tab=surprise")
    colour(page, TEXT)
    expected = scores(served, TEXT)
    shown = page.locator(".surprise-tokens [role=option]").evaluate_all(
        "all => all.map((e) => e.dataset.bits ?? null)"
    )
    assert len(shown) == len(expected["ids"])
    assert shown[0] is None
    for bits, logprob in zip(shown[1:], expected["logprob"][1:], strict=True):
        assert float(bits) == pytest.approx(-logprob * 1.4426950408889634, rel=0.05, abs=0.051)
    for term, key in (("loss, nats/token", "loss"), ("bits/byte", "bits_per_byte")):
        value = page.locator("div", has=page.locator(f"dt:text-is('{term}')")).last.locator("dd")
        assert value.inner_text() == f"{expected[key]:.3f}"
    page.locator(".surprise-tokens").focus()
    page.keyboard.press("ArrowRight")
    assert f"rank {expected['rank'][2]} of" in page.locator(".surprise-details").inner_text()
    assert page.locator(".surprise-details tbody tr").count() == 5


def test_a_colour_means_the_same_in_each_text(visit: Visit) -> None:
    """Colours depend on the bits alone, and the words on them have a contrast of 4.5 or more."""
    for scheme in ("light", "dark"):
        page = visit("#model=tales&tab=surprise", scheme=scheme)
        colour(page, TEXT)
        few = seen(page)
        colour(page, "quantum " + TEXT)
        until(page, "document.querySelector('.surprise-tokens').textContent.includes('quantum')")
        many = seen(page)
        for bits in {*few} & {*many}:
            assert few[bits] == pytest.approx(many[bits], abs=0.06)
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        found = axe.run(page, context="#panel-surprise").response["violations"]
        assert found == []


def seen(page: Page) -> dict[str, float]:
    """Return the shade of each number of bits."""
    return dict(
        page.locator(".surprise-tokens [data-bits]").evaluate_all(
            "all => all.map((e) => [e.dataset.bits, +e.style.getPropertyValue('--shade')])"
        )
    )


def test_the_present_text_is_scored(visit: Visit) -> None:
    """One button takes the text of the page."""
    page = visit("#model=tales&tab=surprise&prompt=hero%3A+Sir+Fox")
    page.get_by_role("button", name="Use the present text").click()
    page.locator(".surprise-tokens [role=option]").first.wait_for()
    assert page.get_by_label("A text: type it").input_value() == "hero: Sir Fox"


def test_markup_in_a_text_stays_text(visit: Visit) -> None:
    """A text with a script is shown and not executed."""
    page = visit("#model=tales&tab=surprise")
    script = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    colour(page, script)
    shown = page.locator(".surprise-tokens").evaluate("e => e.textContent")
    assert script in shown
    assert page.locator(".surprise-tokens img, .surprise-tokens script").count() == 0
