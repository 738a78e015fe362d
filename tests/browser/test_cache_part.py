"""The part "cache" of the page: the positions that a prediction reuses and computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from until import settle

import minigen

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]

TEXT = "Mia found a red ball."


def counts(page: Page) -> dict[str, int]:
    """Return the numbers of the legend, each of which must be that of the drawn cells."""
    legend = {
        kind: int(page.locator(f".cells-legend [data-kind={kind}]").text_content() or "")
        for kind in ("lost", "reused", "computed", "free")
    }
    for kind, number in legend.items():
        assert page.locator(f".cells .cell-{kind}").count() == number
    return legend


def test_the_next_token_reuses_all_positions_but_its_own(visit: Visit, runs: Path) -> None:
    """After a step, the cells of the prompt are reused, and one position is computed."""
    page = visit(f"#model=tales&tab=cache&prompt={TEXT}")
    page.locator(".cells .cell").first.wait_for()
    engine = minigen.load(runs / "tales", device="cpu")
    n, block_size = len(engine.encode(TEXT)), engine.model.config.block_size
    before = counts(page)
    c = engine.model.config
    kib = 2 * c.n_layer * c.n_kv_head * c.head_dim * n * 4 / 1024  # float32
    assert f"{n} positions take {kib:.0f} KiB" in page.locator("#panel-cache").inner_text()
    assert before["reused"] + before["computed"] == n
    page.get_by_role("button", name="Step", exact=True).click()
    settle(page)
    page.locator(f".cells-legend [data-kind=reused]:text-is('{n}')").wait_for()
    free = block_size - n - 1
    assert counts(page) == {"lost": 0, "reused": n, "computed": 1, "free": free}
