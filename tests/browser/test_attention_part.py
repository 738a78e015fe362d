"""The part "attention" of the page: its numbers are those of `minigen.inspect`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from until import settle

import minigen
from minigen.inspect import first_token_score, layer_weights, previous_token_score

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]

TEXT = "Mia found a red ball."


@pytest.mark.parametrize("without_first", [False, True])
def test_the_sources_of_a_token_have_the_weights_of_the_library(
    visit: Visit, runs: Path, without_first: bool
) -> None:
    """The head that the arrow keys choose lists the weights of the last token, in their order."""
    page = visit(f"#model=tales&tab=attention&prompt={TEXT}")
    page.locator(".wall-cell").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.get_by_role("heading", name="Layer 2, head 2").wait_for()
    if without_first:
        page.get_by_label("without the first token").check()
    settle(page)
    engine = minigen.load(runs / "tales", device="cpu")
    ids = engine.encode(TEXT)
    weights = [*layer_weights(engine.model, ids)][1][1, -1]
    if without_first:
        weights[0] = 0
        weights /= weights.sum()
    rows = page.locator("table.sources tr:has(.bar)").all()
    best = sorted(range(len(ids)), key=lambda i: -float(weights[i]))[: len(rows)]
    assert len(rows) == 8
    read = [row.locator("td").all_text_contents()[:2] for row in rows]
    for (_, share), position in zip(read, best, strict=True):
        assert abs(float(share.split()[0]) / 100 - float(weights[position])) < 0.0006
    assert {int(position) for position, _ in read} == set(best)


# The numbers of painted pixels beside each row and over each column of the matrix.
LABELS = """(n) => {
  const canvas = document.querySelector(".matrix");
  const margin = Math.min(84, Math.round(canvas.width / 4));
  const side = (canvas.width - margin) / n;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const numbers = [Array(n).fill(0), Array(n).fill(0)];
  for (let at = 3; at < data.length; at += 4) {
    const [x, y] = [((at - 3) / 4) % canvas.width, Math.floor(at / 4 / canvas.width)];
    if (!data[at] || (x < margin - 3) === (y < margin - 3)) continue;
    const [axis, along] = x < margin - 3 ? [0, y] : [1, x];
    numbers[axis][Math.max(0, Math.floor((along - margin) / side))] += 1;
  }
  return numbers;
}"""


@pytest.mark.parametrize("n", [1, 30])
def test_the_matrix_names_its_rows_and_columns(visit: Visit, runs: Path, n: int) -> None:
    """Large squares have the tokens at both axes; of small ones, only the chosen pair is named."""
    text = " ".join([TEXT] * n)[:90]
    page = visit(f"#model=tales&tab=attention&prompt={text}")
    page.locator(".sources-strip .reader").wait_for()
    n_tokens = len(minigen.load(runs / "tales", device="cpu").encode(text))
    rows, columns = page.evaluate(LABELS, n_tokens)
    if n == 1:
        assert min(rows) > 0 and min(columns) > 0
    else:
        assert rows[-1] > 0 and rows[0] == 0 and 0 < sum(x > 0 for x in columns) < 6


def test_the_wall_has_each_head_of_each_layer(visit: Visit) -> None:
    """The wall is a grid of layers and heads, in which Tab reaches one head."""
    page = visit(f"#model=tales&tab=attention&prompt={TEXT}")
    page.wait_for_selector(".wall-cell")
    assert page.locator(".wall-row").count() == 2
    assert page.locator(".wall-cell").count() == 4
    assert page.locator(".wall-cell[tabindex='0']").count() == 1


@pytest.mark.parametrize("kind", ["previous", "first"])
def test_a_button_leads_to_the_head_with_the_clearest_habit(
    visit: Visit, runs: Path, kind: str
) -> None:
    """The buttons choose the heads with the highest scores of `minigen.inspect`."""
    page = visit(f"#model=tales&tab=attention&prompt={TEXT}")
    engine = minigen.load(runs / "tales", device="cpu")
    score = {"previous": previous_token_score, "first": first_token_score}[kind]
    weights = layer_weights(engine.model, engine.encode(TEXT))
    scores = torch.stack([score(layer) for layer in weights])  # (L, H)
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    button = page.get_by_role("button", name=f"clearest on the {kind} token")
    assert f"{100 * float(scores.max()):.1f} %" in button.inner_text()
    button.click()
    page.get_by_role("heading", name=f"Layer {layer + 1}, head {head + 1}").wait_for()
