"""Fixtures of the tests in a real browser: trained models, a server, and pages that may not fail.

A test of a part of the page is a person's visit:

    page = visit("#...", width=360, scheme="dark", language="ko")
    page.get_by_role("button", name="...").click()

Chromium is the one of the machine (Debian's package `chromium`, or Chrome). Where it or the
package `playwright` is missing, the tests are skipped with a reason, but never if the environment
variable CI is true.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from absent import absent
from forks import Server
from served_models import RUNS
from serving import Served, serve
from until import Traffic, settle

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    Visit = Callable[..., Page]

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    "--no-sandbox",  # root has no sandbox, and CI is root
    "--disable-gpu",
    "--disable-background-networking",  # no requests of the browser's own
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test of this folder as a test of the browser."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser, or skip the test."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        absent("the package playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        absent(f"none of {', '.join(NAMES)} is on this machine")
    return path


@pytest.fixture(scope="session")
def served(chromium: str, runs: Path, server: Server) -> Iterator[Served]:
    """Serve all models of RUNS, the tales first; end the server after the last test."""
    with serve(server, runs, *RUNS) as served:
        yield served


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Start the browser. It ends with the file: its event loop would disturb tests of others."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def problems() -> list[str]:
    """Return the list of all that went wrong on the pages of a test, which must end empty.

    A test that provokes an error on purpose takes the error from this list.
    """
    return []


@pytest.fixture
def visit(browser: Browser, served: Served, problems: list[str]) -> Iterator[Visit]:
    """Return a function that opens the page in a new window, and fail if anything goes wrong.

    `visit(hash, width=, height=, scheme=, language=)` opens the page with the state that `hash`
    names. An error in the console, an exception, a request that fails, and a request to another
    server each fail the test; a request that the page itself gives up does not.
    """
    contexts: list[BrowserContext] = []

    def visit(
        hash: str = "",
        *,
        width: int = 1280,
        height: int = 800,
        scheme: str = "light",
        language: str = "en-GB",
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            locale=language,
            reduced_motion="reduce",  # so that nothing moves while a test measures
        )
        contexts.append(context)
        page = context.new_page()
        Traffic(page)
        watch(page, served.address, problems)
        page.goto(f"{served.address}/{hash}")
        page.wait_for_selector("body[data-ready]")
        settle(page)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(visit: Visit) -> Page:
    """Return a window of usual size with the page."""
    return visit()


def watch(page: Page, address: str, problems: list[str]) -> None:
    """Append to `problems` each error of a page, and each request to another server."""

    def on_request(url: str) -> None:
        if not url.startswith((f"{address}/", f"blob:{address}/")):
            problems.append(f"a request to another server: {url}")

    def on_failure(url: str, failure: str | None) -> None:
        if failure != "net::ERR_ABORTED":  # the page itself gave the request up
            problems.append(f"a failed request: {url}: {failure}")

    def on_message(kind: str, text: str, url: str) -> None:
        if kind in ("error", "warning"):
            problems.append(f"in the console: {text} {url}")

    page.on("request", lambda request: on_request(request.url))
    page.on("requestfailed", lambda request: on_failure(request.url, request.failure))
    page.on("console", lambda m: on_message(m.type, m.text, m.location["url"]))
    page.on("pageerror", lambda e: problems.append(f"an exception: {e} {e.stack}"))
