"""The page as a whole, in a real browser: for everyone, with nothing from elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import pytest
from absent import absent
from forks import ROOT, Server
from served_models import MARKUP, N_LETTERS, N_WIDE, RUNS
from serving import Served
from until import settle, until

import minigen
from minigen.sampling import Sampling

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]

TABS = ("tree", "chat", "attention", "lens", "surprise", "training", "compare", "document",
        "cache", "code")  # fmt: skip
WIDTHS, LANGUAGES = (360, 800, 1920), ("en", "ko")
PROMPT = "hero: Sir Fox, friend:"
# For axe: of its default rules, those that look at colours.
COLOURS = {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]}
each_tab = pytest.mark.parametrize("tab", TABS)


def state(**words: Any) -> str:
    """Return the part of an address after # for a state of the page."""
    return f"#{urlencode(words)}"


def open_tab(page: Page, tab: str) -> None:
    """Open a panel, and wait until it is complete."""
    page.locator(f"#tab-{tab}").click()
    page.locator(f"#panel-{tab}").wait_for(state="visible")
    settle(page)


def step(page: Page, n: int) -> None:
    """Append n tokens with the button, one after the other."""
    chips = page.locator(".part-tokens .chips button")
    for _ in range(n):
        before = chips.count()
        page.get_by_role("button", name="Step", exact=True).click()
        chips.nth(before).wait_for()


def ids_of(page: Page) -> list[int]:
    """Return the ids of all tokens of the text, read off the chips."""
    return [int(text) for text in page.locator(".part-tokens .chips .id").all_inner_texts()]


def test_all_models_can_be_chosen(visit: Visit) -> None:
    """The page offers the models in the order in which they were named."""
    page = visit()
    assert tuple(page.locator("#head-model").locator("option").all_inner_texts()) == RUNS


@pytest.mark.parametrize("name, n_vocab", [("letters", N_LETTERS + 1), ("wide", N_WIDE)])
def test_small_and_large_vocabularies_are_shown(name: str, n_vocab: int, visit: Visit) -> None:
    """A model of 65 characters is shown as one with GPT-2's number of tokens is."""
    page = visit()
    page.locator("#head-model").select_option(name)
    page.get_by_text(f"{n_vocab:,} tokens").wait_for()
    step(page, 3)
    assert len(ids_of(page)) >= 3
    assert page.locator("table.ladder tbody tr:visible").count() == 13


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_never_scrolls_sideways(language: str, visit: Visit) -> None:
    """At no width, in no language and in no panel does the page need more room than the window."""
    page = visit(state(prompt=PROMPT, language=language, path="5.6.7.8"))
    for tab in TABS:
        open_tab(page, tab)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            settle(page)
            assert page.evaluate("document.documentElement.scrollWidth") == width, tab


@each_tab
def test_no_rule_of_accessibility_is_broken(tab: str, visit: Visit) -> None:
    """axe finds no violation in any panel, width and colour scheme.

    The scheme changes colours only, and the width changes no colour (see the file `style.css`), so
    the rules of contrast for dark colours are checked at one width. The stage is the same with
    each panel: the whole page is checked at one width, and then the panel and its tabs alone;
    `test_the_stage_is_accessible` checks the stage at each width.
    """
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        absent("the package axe-playwright-python is not installed")
    page = visit(state(prompt=PROMPT, tab=tab, path="5.6.7.8"), width=WIDTHS[0])
    violations = {(WIDTHS[0], "light"): Axe().run(page).response["violations"]}
    for width in WIDTHS[1:]:
        page.set_viewport_size({"width": width, "height": 800})
        settle(page)
        violations[width, "light"] = Axe().run(page, context="#inside").response["violations"]
    page.emulate_media(color_scheme="dark")
    settle(page)
    found = Axe().run(page, options=COLOURS)
    violations[width, "dark"] = found.response["violations"]
    for place, rules in violations.items():
        faults = [(each["id"], each["nodes"][0]["html"], each["help"]) for each in rules]
        assert faults == [], f"{place}: {json.dumps(faults, indent=1)}"


# All that the Tab key should reach: of a group of radio buttons, the chosen one.
CONTROLS = """() => {
  const all = [...document.querySelectorAll(
    'a[href], button, input, select, textarea, [tabindex]')];
  const isReached = (e) => e.tabIndex >= 0 && !e.disabled && e.checkVisibility()
    && !(e.type === 'radio' && !e.checked);
  return all.filter(isReached).map((e, i) => (e.dataset.nth = i));
}"""


@each_tab
def test_the_tab_key_reaches_every_control(tab: str, visit: Visit) -> None:
    """From the top of the page, the Tab key reaches each control once, in the order of reading."""
    page = visit(state(prompt=PROMPT, tab=tab, path="5.6.7.8"))
    settle(page)
    expected = page.evaluate(CONTROLS)
    reached = []
    for _ in expected:
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.dataset.nth ?? null")
        assert focused is not None, page.evaluate("document.activeElement.outerHTML")[:300]
        reached.append(int(focused))
    assert reached == expected
    names = page.evaluate(
        """() => [...document.querySelectorAll('[data-nth]')].filter((e) =>
        getComputedStyle(e).outlineStyle === 'none' && e === document.activeElement).length"""
    )
    assert names == 0  # the focus is visible


def test_the_page_follows_the_colours_of_the_system(visit: Visit) -> None:
    """If the system's scheme changes, the page and its canvases do, unless a theme is chosen."""
    page = visit(state(prompt=PROMPT, temperature=1, min_p=0))
    page.locator(".part-draw[data-token]").wait_for()
    ruler = "document.querySelector('.ruler').toDataURL()"
    theme = "document.documentElement.dataset.theme"
    drawn = [page.evaluate(ruler)]
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        until(page, f"{theme} === '{scheme}'")
        drawn.append(page.evaluate(ruler))
    light, dark, again = drawn
    assert light == again != dark
    page.locator("#head-theme").select_option("dark")
    for other in ("dark", "light"):
        page.emulate_media(color_scheme=other)  # type: ignore[arg-type]
    settle(page)
    assert page.evaluate(theme) == "dark" and page.evaluate(ruler) == dark


def test_a_whole_visit_with_the_keyboard(visit: Visit) -> None:
    """A visitor without a mouse types a prompt, appends a token, forces one, and opens each tab."""
    page = visit()
    press = page.keyboard.press

    def go_to(selector: str, key: str = "Tab") -> None:
        for _ in range(100):
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                return
            press(key)
        raise AssertionError(selector)

    go_to("#prompt")
    press("Control+A")
    page.keyboard.type(PROMPT)
    prompt = minigen_ids(page, PROMPT)
    page.locator(".part-tokens .chips button").nth(len(prompt) - 1).wait_for()
    go_to(".part-play button:not(.primary)")  # Step
    press("Enter")
    page.locator(".part-tokens .chips button").nth(len(prompt)).wait_for()
    settle(page)
    go_to(".ladder tbody tr:nth-child(4) button")
    id = int(page.evaluate("document.activeElement.closest('tr').dataset.id"))
    press("Enter")
    page.locator(".part-tokens .chips button.forced").wait_for()
    assert ids_of(page)[-1] == id
    go_to("[role=tab]")
    for tab in TABS:
        go_to(f"#tab-{tab}", "ArrowRight")
        press("Enter")
        page.locator(f"#panel-{tab}").wait_for(state="visible")
        settle(page)


def minigen_ids(page: Page, text: str) -> list[int]:
    """Return the ids of a text from the server of the page."""
    ids = page.request.post("/".join(page.url.split("/")[:3]) + "/api/tokens", data={"text": text})
    return list(ids.json()["ids"])


def test_markup_is_shown_as_text(visit: Visit) -> None:
    """Markup in the prompt, in the address and in the text of a model is shown and never executed.

    The model has learnt MARKUP by heart.
    """
    page = visit(state(model="markup", prompt=MARKUP, temperature=0))
    step(page, 30)
    for tab in TABS:
        open_tab(page, tab)
        step(page, 1)  # a text that grows while the panel is open
        settle(page)
        shown = page.locator(".part-play .text").inner_text()
        assert shown.startswith(MARKUP + MARKUP[:20])
        assert page.title() == "minigen — see a model think", tab
        assert page.locator("img[src=x]").count() == 0, tab
        assert page.locator("script").count() == 1, tab


def test_the_page_speaks_both_languages(visit: Visit) -> None:
    """The language is that of the browser, and can be changed; the address keeps the choice."""
    page = visit(language="ko-KR")
    assert page.evaluate("document.documentElement.lang") == "ko"
    korean = page.get_by_role("tab").all_inner_texts()
    page.locator("#head-language").select_option("en")
    page.get_by_role("tab", name="Attention").wait_for()
    english = page.get_by_role("tab").all_inner_texts()
    assert len({*korean, *english}) == 2 * len(TABS)
    page.wait_for_url("**language=en**")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("name, prompt", [("tales", PROMPT), ("letters", "a"), ("wide", "ab")])
def test_the_page_and_the_terminal_write_the_same_text(
    name: str, prompt: str, visit: Visit, served: Served, server: Server, runs: Path
) -> None:
    """With one seed and settings, the page, sample.py, the API and the library write one text."""
    n = 16
    page = visit(state(model=name, prompt=prompt, seed=3, sample=0))
    step(page, n)
    engine = minigen.load(runs / name)
    pieces = list(engine.stream(prompt, Sampling(), max_new_tokens=n, seed=3))
    drawn = [piece.token.id for piece in pieces if piece.token]
    text = "".join(pieces)
    assert ids_of(page) == [*engine.encode(prompt), *drawn]
    assert page.locator(".part-play .text").inner_text().strip() == (prompt + text).strip()
    usual = {"temperature": 0.8, "min_p": 0.1, "seed": 3, "max_tokens": n}
    body = {"model": name, "prompt": prompt, **usual}
    answer = httpx.post(f"{served.address}/v1/completions", json=body, timeout=60).json()
    assert answer["choices"][0]["text"] == text
    words = f"--run {name} --out_dir {runs} --seed 3 --max_new_tokens {n}".split()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = server.python(ROOT / "sample.py", *words, "--prompt", prompt, cwd=runs, env=env)
    assert done.stdout.rstrip("\n") == (prompt + text).rstrip("\n")


def test_a_request_to_another_server_is_noticed(page: Page, problems: list[str]) -> None:
    """The page may ask no other server, and a page that tries it fails its test."""
    page.evaluate("fetch('http://127.0.0.1:9/x').catch(() => null)")
    page.wait_for_timeout(100)
    assert any("127.0.0.1:9" in problem for problem in problems)
    problems.clear()
