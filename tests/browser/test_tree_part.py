"""The tree of all texts of a visit, in a real browser."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from until import settle, until

import minigen

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]

TREE = "#model=tales&prompt=hero%3A&tab=tree&path=1.2.3.4&branches=2-5.6_3-7"
PATHS = [1, 2], [1, 2, 5], [1, 2, 5, 6], [1, 2, 5, 7], [1, 2, 3, 4]  # the ends of its lines
LEVELS = ["1", "2", "3", "4", "4", "3"]
UNKNOWN = "\N{EN DASH}"  # shown for a number that is not known yet


def names(page: Page) -> list[str]:
    """Return the name of each line, once all its numbers are known."""
    sums = ".tree [role=treeitem] .tree-sum"
    unknown = f"[...document.querySelectorAll('{sums}')].some((e) => e.textContent === '{UNKNOWN}')"
    until(page, f"document.querySelector('{sums}') && !{unknown}")
    return page.get_by_role("treeitem").evaluate_all("all => all.map((e) => e.ariaLabel)")


def test_a_tree_from_the_address_has_the_sums_of_the_library(visit: Visit, runs: Path) -> None:
    """Each line shows the sum of ln p of its whole branch, as the model in process computes it."""
    engine = minigen.load("tales", out_dir=str(runs), device="cpu")
    page = visit(TREE)
    shown = names(page)
    assert page.get_by_role("treeitem").evaluate_all("e => e.map((x) => x.ariaLevel)") == LEVELS
    prompt = engine.encode("hero:")
    for name, path in zip(shown[1:], PATHS, strict=True):
        with torch.no_grad():
            logits = engine.model(torch.tensor([[*prompt, *path]]))[0, :, : engine.n_vocab]
        p = logits.double().log_softmax(dim=-1)
        parts = [float(p[len(prompt) - 1 + i, id]) for i, id in enumerate(path)]
        found = re.search(r"whole branch (-[\d.]+) nats, (-[\d.]+) per token, (\d) tokens", name)
        assert found, name
        assert float(found[1]) == pytest.approx(math.fsum(parts), abs=0.006)
        assert float(found[2]) == pytest.approx(math.fsum(parts) / len(path), abs=0.006)
        assert int(found[3]) == len(path)


def test_keys_walk_continue_mark_and_remove(visit: Visit) -> None:
    """The tree needs no pointer: arrows walk, Enter continues, Space marks, Delete removes."""
    page = visit(TREE)
    assert len(names(page)) == 6
    lines = page.get_by_role("treeitem")
    lines.first.focus()
    for key in ("End", "Space", "ArrowUp", "Space"):
        page.keyboard.press(key)
    assert page.get_by_role("heading", name="Two branches side by side").is_visible()
    marked = lines.evaluate_all("all => all.map((e) => e.ariaChecked)")
    assert marked == [None, "false", "false", "false", "true", "true"]
    page.keyboard.press("Enter")
    until(page, "location.hash.includes('path=1.2.5.7')")
    assert lines.nth(4).get_attribute("aria-current") == "true"
    page.keyboard.press("ArrowLeft")  # to the line that it continues
    page.keyboard.press("ArrowLeft")  # which closes
    assert lines.count() == 4
    page.keyboard.press("Delete")
    until(page, "document.querySelectorAll('[role=treeitem]').length === 2")
    until(page, "/path=1\\.2(&|$)/.test(location.hash)")
    page.get_by_role("button", name="Undo").click()
    until(page, "document.querySelectorAll('[role=treeitem]').length === 4")


def test_a_chosen_token_branches_the_text(visit: Visit) -> None:
    """A token of the past that is gone back to, and another candidate, make two lines."""
    page = visit("#model=tales&prompt=hero%3A&tab=tree&path=1.2.3")
    names(page)
    page.get_by_role("treeitem").first.click()
    until(page, "!location.hash.includes('path=')")
    page.locator(".ladder button.token").first.click()
    until(page, "document.querySelectorAll('[role=treeitem]').length === 3")
    assert "branches=0-1.2.3" in page.url


def test_a_hundred_branches_fit_the_window(visit: Visit) -> None:
    """A tree of 100 branches is drawn at each width without scrolling sideways."""
    branches = "_".join(f"1-{10 + n}.3" for n in range(100))
    page = visit(f"#model=tales&tab=tree&path=1.2.3&branches={branches}")
    until(page, "document.querySelectorAll('[role=treeitem]').length === 103")
    for width in (360, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_only_branches_in_sight_are_asked_for(visit: Visit) -> None:
    """Of 100 branches, the page asks for those in the window; others, when they are scrolled to."""
    branches = "_".join(f"1-{10 + n}.3" for n in range(100))
    page = visit("#model=tales&tab=tree")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(f"location.hash = '#model=tales&tab=tree&path=1.2.3&branches={branches}'")
    until(page, "document.querySelectorAll('[role=treeitem]').length === 103")
    sight = "e.getBoundingClientRect().top < innerHeight && e.querySelector('.tree-sum')"
    sums = f"[...document.querySelectorAll('[role=treeitem]')].filter((e) => {sight})"
    until(page, f"{sums}.every((e) => e.querySelector('.tree-sum').textContent !== '{UNKNOWN}')")
    n = sum("/api/surprise" in url for url in asked)
    assert 5 < n < 40
    last = page.get_by_role("treeitem").last
    assert UNKNOWN in (last.locator(".tree-sum").text_content() or "")
    last.scroll_into_view_if_needed()
    until(page, "document.querySelector('[role=treeitem]:last-child .tree-sum').textContent < '0'")
