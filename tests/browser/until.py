"""Wait for the page, whose content security policy lets no test wait inside the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

SECONDS = 30


def until(page: Page, expression: str) -> None:
    """Wait until an expression of JavaScript is true on the page.

    Playwright's `wait_for_function` evaluates its string inside the page, which the policy forbids.
    """
    for _ in range(50 * SECONDS):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"after {SECONDS} seconds it is not true that {expression}")
