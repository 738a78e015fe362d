"""The part "training" of the page: curves, samples and replays are those of the run's folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from forks import ROOT
from served_models import environment

import minigen
from minigen.files import checkpoint
from minigen.run.log import read_metrics, read_samples

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Visit = Callable[..., Page]

WAIT = 60_000  # milliseconds


def opened(visit: Visit, **window: object) -> Page:
    """Open the page with the panel "training" of the tales."""
    page = visit("#model=tales&tab=training&prompt=hero%3A+Sir", **window)
    page.wait_for_selector(".training-chart .training-line")
    return page


def test_the_curve_has_the_points_of_the_run(visit: Visit, runs: Path) -> None:
    """There is a point for each evaluation, and the table has its loss to four digits."""
    page = opened(visit)
    evaluations = [line for line in read_metrics(runs / "tales") if "val_loss" in line]
    assert page.locator("circle.training-point").count() == len(evaluations) == 4
    rows = page.locator(".training-figure tr").all()[1:]
    told = [[cell.text_content() for cell in row.locator("td").all()] for row in rows]
    assert told == [[str(line["step"]), f"{line['val_loss']:.4f}"] for line in evaluations]
    label = page.locator(".training-label.of-training-point").text_content() or ""
    assert label.endswith(f"{evaluations[-1]['val_loss']:.3f}")
    points = [
        float(point.get_attribute("cy") or 0)
        for point in page.locator("circle.training-point").all()
    ]
    losses = [line["val_loss"] for line in evaluations]
    assert [points.index(y) for y in sorted(points)] == [
        losses.index(loss) for loss in sorted(losses, reverse=True)
    ]
    page.get_by_role("button", name="logarithmic axis").click()
    moved = page.locator("circle.training-point").nth(1).get_attribute("cy")
    assert float(moved or 0) != points[1]


def test_the_slider_replays_the_checkpoints(visit: Visit, runs: Path) -> None:
    """At each checkpoint, reached by the keyboard, the table has its most probable token."""
    page = opened(visit)
    slider = page.get_by_role("slider", name="checkpoint")
    slider.focus()
    page.keyboard.press("Home")
    steps = [int(path.name[5:]) for path in checkpoint.steps(runs / "tales")]
    assert steps == [0, 20, 40, 60]
    for step, path in zip(steps, checkpoint.steps(runs / "tales"), strict=True):
        assert slider.get_attribute("aria-valuetext") == f"step {step}"
        engine = minigen.load(path)
        with torch.no_grad():
            p = engine.model(torch.tensor([engine.encode("hero: Sir")]))[0, -1].softmax(-1)
        page.locator(f'.training-replay tbody[data-step="{step}"]').wait_for()
        told = [cell.text_content() or "" for cell in page.locator(".training-p").all()]
        assert f"{100 * p.max():.1f}" in told[0] or p.max() < 0.005
        shares = [float(re.sub(r"[^\d.]", "", share)) for share in told]
        assert abs(sum(shares) - 100) < 0.6 and 2 <= len(shares) <= 9
        page.keyboard.press("ArrowRight")


def test_samples_are_shown_as_they_were_written(visit: Visit, runs: Path) -> None:
    """Each sample of the run is listed, the latest first, as text that is never markup."""
    page = opened(visit)
    shown = [item.text_content() for item in page.locator(".training-samples p").all()]
    assert shown == [sample["text"] for sample in reversed(read_samples(runs / "tales"))]


def test_a_run_that_trains_in_another_process_is_followed(visit: Visit, runs: Path) -> None:
    """The page shows a run that begins while it is open, its steps, and its end."""
    page = opened(visit)
    command = [sys.executable, str(ROOT / "train.py"), "--out_dir", str(runs), "--name", "live"]
    flags = "--n_layer 1 --n_head 2 --n_embd 16 --batch_size 4 --max_steps 800 --eval_interval 200"
    process = subprocess.Popen(
        [*command, *flags.split(), "--data", "tales"], cwd=runs.parent,
        env={**os.environ, **environment(runs.parent)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        page.wait_for_selector("#training-run option[value=live]", state="attached", timeout=WAIT)
        page.get_by_label("run", exact=True).select_option("live")
        status = page.locator(".training-status")
        page.locator(".training-status", has_text="training now").wait_for()
        assert re.search(r"training now · step [\d,]+ of 800", status.text_content() or "")
        assert process.wait() == 0
        page.locator(".training-status", has_text="finished").wait_for()
        assert (status.text_content() or "") == "finished · step 800 of 800"
        assert page.locator("circle.training-point").count() == 5
    finally:
        process.kill()
        process.wait()
