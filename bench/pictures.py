"""Write the pictures of docs/playground.md and README.md, in a real browser.

    python -m bench.pictures out/tales

It needs Chromium and the package playwright, and replaces docs/playground*.png.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROMPT = "hero: Sir Fox, friend: little Owl, place: faraway harbour, object: magic rope, mood: so"
PANELS = ("attention", "lens")  # each with a picture of its own
WIDTH, HEIGHT = 1300, 1300  # so high that a panel needs no bar for scrolling


def take(address: str, browser_path: str) -> None:
    """Take the pictures of the page at an address."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        for tab in ("tree", *PANELS):
            page.goto("about:blank")
            page.goto(f"{address}/#{urlencode({'prompt': PROMPT, 'tab': tab, 'language': 'en'})}")
            page.wait_for_selector("body[data-ready]")
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(500)
            if tab == "tree":
                ladder = page.locator(".part-ladder")
                ladder.screenshot(path=ROOT / "docs" / "playground.png")
            else:
                panel = page.locator(f"#panel-{tab}")
                panel.screenshot(path=ROOT / "docs" / f"playground-{tab}.png")
        browser.close()


def main() -> None:
    """Serve the run that the command line names, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a run of the tales")
    run = parser.parse_args().run
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        sys.exit(f"error: none of {', '.join(BROWSERS)} is on this machine")
    command = [sys.executable, "-m", "minigen", "serve", run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout
        address = process.stdout.readline().strip()
        try:
            if not address:
                sys.exit("error: the server did not start")
            take(address, browser_path)
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
