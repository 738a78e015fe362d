"""The part "lens" of the page: the predictions of each layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import minigen
from minigen.inspect import logit_lens, residual_stream

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]

TEXT = "Mia found a red ball."


def test_the_last_layer_is_the_prediction_of_the_model(visit: Visit, runs: Path) -> None:
    """At the last position, the top row lists the five best tokens of the model's own logits."""
    page = visit(f"#model=tales&tab=lens&prompt={TEXT}")
    page.locator(".lens-candidates li").first.wait_for()
    engine = minigen.load(runs / "tales", device="cpu")
    with torch.no_grad():
        logits = engine.model(torch.tensor([engine.encode(TEXT)]))[0, -1, : engine.n_vocab]
    best = logits.softmax(-1).topk(5).values.tolist()
    shown = page.locator(".lens-candidates .p").all_text_contents()
    assert len(shown) == 5
    for share, p in zip(shown, best, strict=True):
        assert abs(float(share.split()[0]) / 100 - p) < 0.0006


def test_the_keyboard_leads_to_the_lens_of_each_layer(visit: Visit, runs: Path) -> None:
    """An arrow down leads from the last layer to the one before it, with its own numbers."""
    page = visit(f"#model=tales&tab=lens&prompt={TEXT}")
    page.locator(".lens-cell[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    engine = minigen.load(runs / "tales", device="cpu")
    ids = engine.encode(TEXT)
    stream = residual_stream(engine.model, ids)
    logits = [*logit_lens(engine.model, stream.x)][1][-1, : engine.n_vocab]
    share = page.locator(".lens-candidates .p").first.text_content() or ""
    assert abs(float(share.split()[0]) / 100 - float(logits.softmax(-1).max())) < 0.0006
    assert page.locator(".lens-cell").count() == 3 * len(ids)
