"""Two models, steps or settings side by side, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import torch
from until import settle, until

import minigen
from minigen.sampling import Sampling, filtered

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]

PROMPT = "hero:"


def address(model: str, **settings: float) -> str:
    """Return the address of the panel that compares the tales with a model."""
    other = json.dumps({"model": model, "step": None, "settings": settings})
    return f"#model=tales&tab=compare&prompt={quote(PROMPT)}&compare={quote(other)}"


def test_probabilities_and_continuations_are_those_of_the_library(visit: Visit, runs: Path) -> None:
    """Both columns, the divergence and both texts are those of the model in process."""
    engine = minigen.load("tales", out_dir=str(runs), device="cpu")
    page = visit(address("tales", temperature=1.5))
    page.locator(".compare-next tbody tr").first.wait_for()
    ids = engine.encode(PROMPT)
    with torch.no_grad():
        logits = engine.model(torch.tensor([ids]))[:, -1, : engine.n_vocab].double()
    a, b = Sampling(), Sampling(temperature=1.5)
    p, q = (filtered(logits, [ids], s)[0].softmax(dim=-1) for s in (a, b))
    cells = page.locator(".compare-next tbody td:nth-of-type(-n + 2)").all_inner_texts()
    first = int(torch.maximum(p, q).argmax())
    for cell, chance in zip(cells[:2], (p, q), strict=True):
        assert cell == f"{100 * float(chance[first]):.1f} %"
    mean = (p + q) / 2
    js = (
        sum(float(torch.special.xlogy(x, x / mean).nansum()) for x in (p, q))
        / 2
        / 0.6931471805599453
    )
    assert (
        f"Jensen-Shannon divergence {js:.3f} bits"
        in page.locator(".compare-distances").inner_text()
    )
    own = [(logits[0] / s.temperature).softmax(dim=-1) for s in (a, b)]
    kl = [float((x * (x / y).log2()).sum()) for x, y in (own, own[::-1])]
    said = page.locator(".compare-distances").inner_text()
    assert f"A writes, B predicts: {kl[0]:.3f} bits; B writes, A predicts: {kl[1]:.3f} bits" in said
    page.get_by_role("button", name="Write 40 tokens each").click()
    page.get_by_role("button", name="Write 40 tokens each").wait_for(timeout=60_000)
    texts = page.locator(".compare-text").evaluate_all("all => all.map((e) => e.textContent)")
    drawn = []
    for settings, shown in zip((a, b), texts, strict=True):
        steps = engine.generate([ids], settings, max_new_tokens=40, seed=1337)
        tokens = [token.id for [token] in steps if token]
        drawn.append(tokens)
        plain = shown.replace("↵\n", "\n")
        ends = engine.tokenizer.controls[engine.tokenizer.end_of_text]
        expected = engine.tokenizer.decode(
            [t for t in tokens if t not in engine.tokenizer.controls]
        )
        assert plain.removesuffix(ends) == expected
    n = next(i for i, (x, y) in enumerate(zip(*drawn, strict=False)) if x != y)
    said = page.get_by_role("status").filter(has_text="The texts differ").inner_text()
    assert re.search(rf"from token {n + 1} on: the number \d\.\d{{4}} meets", said)


def test_models_of_other_vocabularies_are_compared_by_text(visit: Visit) -> None:
    """The page says that the vocabularies differ, and pairs tokens by their text."""
    page = visit(address("letters").replace(quote(PROMPT), "hero"))  # its text has no colon
    page.locator(".compare-next tbody tr").first.wait_for()
    assert page.get_by_text("The models have different vocabularies").is_visible()
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert axe.run(page, context="#panel-compare").response["violations"] == []


def test_an_earlier_step_is_proposed_first(visit: Visit) -> None:
    """The first B of a run with several checkpoints is its first one; the choice is kept."""
    page = visit("#model=tales&tab=compare")
    steps = page.locator("select[name=step]")
    steps.wait_for()
    first, second = steps.locator("option").evaluate_all("all => all.map((e) => e.value)")[:2]
    assert steps.input_value() == first
    steps.select_option(second)
    until(page, f"decodeURIComponent(location.hash).includes('\"step\":{second}')")


def test_both_sides_fit_the_window(visit: Visit) -> None:
    """The model with the vocabulary of GPT-2 is compared at each width."""
    page = visit(address("wide"))
    page.locator(".compare-next tbody tr").first.wait_for()
    for width in (360, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_wrong_address_compares_something_else(visit: Visit) -> None:
    """An address that names no model here is no error."""
    page = visit(address("no such model"))
    page.locator(".compare-next tbody tr").first.wait_for()
