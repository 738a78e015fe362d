"""The part "code" of the page: the functions that compute its numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from minigen.model import Attention
from minigen.sampling import inverse_cdf

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]


def test_the_address_opens_the_source_of_a_function(visit: Visit) -> None:
    """The page shows the whole source, its file and its line, with the docstring as one string."""
    page = visit("#model=tales&tab=code&code=inverse_cdf")
    page.locator("pre.source .line").first.wait_for()
    source, line = inspect.getsourcelines(inverse_cdf)
    assert page.locator("pre.source").text_content() == "".join(source)
    assert page.locator(".code-place").text_content() == f"minigen/sampling.py, line {line}"
    strings = "".join(page.locator("pre.source .py-string").all_text_contents())
    assert [word for word in (inverse_cdf.__doc__ or "").split() if word not in strings] == []


def test_the_shapes_are_those_of_the_present_text(visit: Visit) -> None:
    """The table has the input of attention: one sequence, its tokens, and n_embd numbers each."""
    page = visit("#model=letters&tab=code&code=Attention.forward&prompt=abcde")
    page.locator("table.shapes td").first.wait_for()
    shapes = page.locator("table.shapes td").all_text_contents()
    assert shapes[0] in ("(1, 5, 32)", "(1, 6, 32)")
    first = (page.locator("pre.source .line").first.text_content() or "").strip()
    assert first == inspect.getsource(Attention.forward).split("\n")[0].strip()
