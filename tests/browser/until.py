"""Wait for the page, whose content security policy lets no test wait inside the page."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

SECONDS = 30
# A frame, and time for all that an answer has led to: drawing, and the next request.
FRAME = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))"


class Traffic:
    """The requests of a page: those without the whole answer, and the number of all."""

    def __init__(self, page: Page) -> None:
        self.waiting: set[Request] = set()
        self.n = 0
        page.on("request", self.begin)
        page.on("requestfinished", self.end)
        page.on("requestfailed", self.end)
        TRAFFIC[page] = self

    def begin(self, request: Request) -> None:
        """Count a request that begins."""
        self.waiting.add(request)
        self.n += 1

    def end(self, request: Request) -> None:
        """Note that a request has its whole answer, or will have none."""
        self.waiting.discard(request)


TRAFFIC: WeakKeyDictionary[Page, Traffic] = WeakKeyDictionary()  # of each page that `visit` opens


def until(page: Page, expression: str) -> None:
    """Wait until an expression of JavaScript is true on the page.

    Playwright's `wait_for_function` evaluates its string inside the page, which the policy forbids.
    """
    for _ in range(50 * SECONDS):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"after {SECONDS} seconds it is not true that {expression}")


def settle(page: Page) -> None:
    """Wait until the page has the answers to all its requests, has drawn them, and asks no more.

    Playwright's state "networkidle" comes once after a page is loaded, half a second late.
    """
    traffic, end = TRAFFIC[page], time.monotonic() + SECONDS
    while True:
        n = traffic.n
        page.evaluate(FRAME)
        if not traffic.waiting and traffic.n == n:
            return
        urls = [request.url for request in traffic.waiting]
        assert time.monotonic() < end, f"after {SECONDS} seconds these have no answer: {urls}"
