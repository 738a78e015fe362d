"""The part "training" of the page: curves, samples and replays are those of the run's folder."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from forks import ROOT, Server
from served_models import SHAPE, environment
from until import settle, until

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
        told = [cell.text_content() or "" for cell in page.locator(".training-replay .p").all()]
        assert f"{100 * p.max():.1f}" in told[0] or p.max() < 0.005
        shares = [float(re.sub(r"[^\d.]", "", share)) for share in told]
        assert abs(sum(shares) - 100) < 0.6 and 2 <= len(shares) <= 9
        page.keyboard.press("ArrowRight")


def test_samples_are_shown_as_they_were_written(visit: Visit, runs: Path) -> None:
    """Each sample of the run is listed, the latest first, as text that is never markup."""
    page = opened(visit)
    shown = [item.text_content() for item in page.locator(".training-samples p").all()]
    assert shown == [sample["text"] for sample in reversed(read_samples(runs / "tales"))]


def test_a_run_that_trains_in_another_process_is_followed(
    visit: Visit, runs: Path, server: Server
) -> None:
    """The page shows a run that begins while it is open, its steps, and its end.

    The run is stopped after its second evaluation until the page has shown it, however slow the
    page is.
    """
    page = opened(visit)
    flags = "--vocab_size 512 --block_size 64 --max_steps 80 --eval_interval 20 --data tales"
    trial = server.start_python(
        ROOT / "train.py", *SHAPE.split(), *flags.split(), "--out_dir", str(runs), "--name", "live",
        cwd=runs.parent, env=environment(runs.parent),
    )  # fmt: skip
    try:
        trial.until(lambda: n_evaluations(runs / "live") >= 2)
        trial.kill(signal.SIGSTOP)
        page.wait_for_selector("#training-run option[value=live]", state="attached", timeout=WAIT)
        page.get_by_label("run", exact=True).select_option("live")
        status = page.locator(".training-status")
        page.locator(".training-status", has_text="training now").wait_for()
        assert re.search(r"training now · step [\d,]+ of 80", status.text_content() or "")
        assert page.locator("circle.training-point").count() < 5
        trial.kill(signal.SIGCONT)
        assert trial.wait() == 0
        page.locator(".training-status", has_text="finished").wait_for()
        assert (status.text_content() or "") == "finished · step 80 of 80"
        assert page.locator("circle.training-point").count() == 5
    finally:
        trial.kill()


def test_a_run_that_is_deleted_is_said_to_be_gone(
    visit: Visit, runs: Path, problems: list[str]
) -> None:
    """The page names a run that is deleted while it is shown, and shows another one.

    A question about the run may be on its way when its folder goes; that one is refused.
    """
    page = opened(visit)
    shutil.copytree(runs / "pictures", runs / "doomed")
    try:
        chosen = page.get_by_label("run", exact=True)
        page.wait_for_selector("#training-run option[value=doomed]", state="attached", timeout=WAIT)
        chosen.select_option("doomed")
        page.locator(".training-status", has_text="step 4 of 4").wait_for()
        settle(page)
    finally:
        shutil.rmtree(runs / "doomed")
    page.get_by_text("The folder of the run doomed has been deleted or moved.").wait_for()
    page.locator(".training-status", has_text="step 60 of 60").wait_for()
    assert chosen.input_value() == "tales"
    until(page, "document.querySelector('#problem').textContent === ''")
    chosen.select_option("pictures")
    page.get_by_text("The folder of the run doomed").wait_for(state="hidden")
    late = "/api/replay", "/api/runs/doomed"
    problems[:] = [each for each in problems if not any(address in each for address in late)]


def n_evaluations(run: Path) -> int:
    """Return the number of evaluations of a run so far, which may not have begun."""
    has_begun = (run / "metrics.jsonl").exists()
    return sum("val_loss" in line for line in read_metrics(run)) if has_begun else 0
