"""Measure how long the page takes from the move of a slider to the painted ladder, in Chromium.

    python -m bench.page

The model is a random one with GPT-2's 50,257 tokens, and each slider moves with all filters on
and with the model's own probabilities, where no token is cut. The time is that of one frame: from
the slider's event, at the frame's beginning, until the frame is laid out and painted. A screen
shows 60 frames per second if it is below 16 ms. It needs the packages of the extra `[dev]`.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.common import ROOT, check_quiet, environment, machine, options, record, table
from minigen.files import checkpoint
from minigen.model import GPT, GPTConfig
from minigen.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from playwright.sync_api import Page

N_TOKENS = 50257  # as GPT-2
SETTINGS = {
    "all filters": "temperature=0.9&top_k=40&top_p=0.95&min_p=0.01&repetition_penalty=1.2",
    "no filter": "temperature=1&min_p=0",
}
MOVE = """([name, n]) => {
    const box = document.getElementById(`settings-${name}`);
    const slider = box.closest('.setting').querySelector('input[type=range]');
    const [least, most] = [Number(slider.min), Number(slider.max)];
    const times = [];
    return new Promise((done) => {
        const frame = () => {
            const at = (times.length + 0.5) / n;
            slider.value = least + (most - least) * (0.1 + 0.8 * at);
            const from = performance.now();
            slider.dispatchEvent(new Event('input', { bubbles: true }));
            const { port1, port2 } = new MessageChannel();
            port1.onmessage = () => { // after the frame's layout and paint
                times.push(performance.now() - from);
                if (times.length === n) done(times);
                else requestAnimationFrame(frame);
            };
            port2.postMessage(null);
        };
        requestAnimationFrame(frame);
    });
}"""


def save_model(run: Path) -> None:
    """Save a random model with N_TOKENS tokens, most of them a character each."""
    characters = "".join(map(chr, [*range(32, 127), *range(0xA1, 0xD7A4)]))[: N_TOKENS - 1]
    tokenizer = train_tokenizer("char", [characters])
    torch.manual_seed(0)
    model = GPT(GPTConfig.modern(tokenizer.n_vocab, 32, n_layer=1, n_head=2, n_embd=16))
    for p in model.parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.5)
    checkpoint.save(run, model, tokenizer, {}, {"step": 1, "val_loss": 1.0})


def start_server(run: Path, threads: int) -> tuple[subprocess.Popen[str], str]:
    """Serve a run on a free port; return the process and the address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "minigen", "serve", str(run), "--port", str(port)],
        cwd=ROOT, env=environment(threads), encoding="utf-8", stdout=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/models").close()
            return process, address
        except urllib.error.URLError:
            time.sleep(0.1)
    raise RuntimeError("the server has ended")


def measure(page: Page, address: str, given: Any) -> dict[str, list[float]]:
    """Return the milliseconds of each move of each slider, for each of SETTINGS."""
    times: dict[str, list[float]] = {}
    for name, words in SETTINGS.items():
        page.goto("about:blank")
        page.goto(f"{address}/#prompt=ab%20c&{words}")
        page.locator('table.ladder[aria-busy="false"]').wait_for()
        page.wait_for_load_state("networkidle")
        moved = [word.split("=")[0] for word in SETTINGS["all filters"].split("&")]
        for slider in moved if name == "all filters" else ("temperature", "repetition_penalty"):
            page.evaluate(MOVE, [slider, 5])
            times[f"{name}: {slider}"] = page.evaluate(MOVE, [slider, given.moves])
    return times


def main() -> None:
    """Run the benchmark."""
    from playwright.sync_api import sync_playwright

    parser = options(__doc__)
    parser.add_argument("--moves", type=int, default=60, help="of each slider")
    given = parser.parse_args()
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    run = given.cache.resolve() / "page"
    if not run.exists():
        save_model(run)
    process, address = start_server(run, given.threads)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            check_quiet()
            times = measure(page, address, given)
            check_quiet()
            browser.close()
    finally:
        process.terminate()
        process.wait()
    medians = {name: statistics.median(each) for name, each in times.items()}
    slowest = {name: statistics.quantiles(each, n=20)[-1] for name, each in times.items()}
    rows = [(name, f"{medians[name]:.1f}", f"{slowest[name]:.1f}") for name in times]
    table(("slider", "median ms", "95th percentile"), rows)
    median = statistics.median(time for each in times.values() for time in each)
    print(f"all: {median:.1f} ms on {machine(given.threads)['cpu']}")
    record("page", {"median ms": medians, "95th percentile": slowest}, given)


if __name__ == "__main__":
    main()
