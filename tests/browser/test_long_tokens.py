"""A vocabulary with tokens of thousands of characters: the page stays in its window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from forks import Server
from models import varied_model
from serving import Served, serve
from until import Traffic, settle

from minigen.files import checkpoint
from minigen.model import GPTConfig
from minigen.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TABS = ("tree", "attention", "lens", "surprise", "training", "compare", "cache")
LONG = 4096  # characters of the longest token


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Served]:
    """Serve a random model with a token of 4,096 letters, and tokens of half of them, and so on."""
    out = tmp_path_factory.mktemp("long")
    tokenizer = train_tokenizer("bpe", ["x" * 4 * LONG], 280)
    assert max(len(tokenizer.token_bytes(id)) for id in range(tokenizer.n_vocab)) >= LONG
    model = varied_model(GPTConfig.modern(tokenizer.n_vocab, 32, 1, 2, 16))
    run = out / "long"
    checkpoint.save(run, model, tokenizer, {}, {"step": 1, "val_loss": 1.0})
    (run / "metrics.jsonl").write_text(
        '{"step": 0, "n_vocab": 270}\n{"step": 1, "val_loss": 1.0}\n'
    )
    with serve(server, out, "long") as served:
        yield served


@pytest.mark.parametrize("width", [360, 1280])
def test_long_tokens_stay_in_the_window(
    width: int, long: Served, browser: Browser, problems: list[str]
) -> None:
    """No panel is wider than the window, and the stage is as long as with other tokens."""
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    Traffic(page)
    try:
        for tab in TABS:
            path = ".".join(map(str, range(256, 268)))
            page.goto(f"{long.address}/#prompt=ab&path={path}&temperature=9&tab={tab}")
            page.wait_for_selector(f"#panel-{tab}:not([hidden])")
            settle(page)
            assert page.get_by_text("⟨+").count() > 0
            assert page.evaluate("document.documentElement.scrollWidth") == width, tab
            assert page.evaluate("document.getElementById('stage').scrollHeight") < 4000, tab
    finally:
        context.close()
    assert problems == []
