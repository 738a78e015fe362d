"""The page of a server that asks for a token, in browsers that keep something and that do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest
from forks import Server
from serving import Served, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = 'open/sesame&+%20#"<='  # signs that mean something in an address
READY = "body[data-ready]"
BLOCKED = """
    for (const name of ["localStorage", "sessionStorage"]) {
        Object.defineProperty(window, name, {
            get() { throw new DOMException("blocked", "SecurityError"); },
        });
    }
"""
FULL = """
    Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
"""


@pytest.fixture(scope="module")
def guarded(runs: Path, server: Server) -> Iterator[Served]:
    """Serve a model to those who know TOKEN; the address is that without it."""
    with serve(server, runs, "letters", "--token", TOKEN) as served:
        address, _, word = served.address.partition("/#token=")
        assert unquote(word) == TOKEN
        yield Served(address, served.trial)


@pytest.fixture
def window(browser: Browser) -> Iterator[Page]:
    """Return an empty window."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("script", ["", BLOCKED, FULL], ids=["kept", "blocked", "full"])
def test_the_token_opens_the_page_and_leaves_the_address(
    script: str, guarded: Served, window: Page
) -> None:
    """A browser that keeps nothing for pages shows the page as another does."""
    window.add_init_script(script)
    window.goto(f"{guarded.address}/#token={quote(TOKEN)}&prompt=abc")
    window.wait_for_selector(READY)
    assert window.locator("#prompt").input_value() == "abc"
    assert "token" not in window.url
    log = guarded.log.read_text()
    assert TOKEN not in log and quote(TOKEN) not in log


@pytest.mark.parametrize("first", ["", "#token=wrong", "#token=%ED%95%9C"])
def test_the_right_token_may_come_second(first: str, guarded: Served, window: Page) -> None:
    """A page without a token, or with a wrong one, says so, and takes the right one when given."""
    window.goto(f"{guarded.address}/{first}")
    window.get_by_text("this server needs its token").wait_for()
    window.goto(f"{guarded.address}/#token={quote(TOKEN)}")
    window.wait_for_selector(READY)
    assert "token" not in window.url
    assert window.locator("#problem").inner_text() == ""
