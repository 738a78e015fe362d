"""Measure how long a user waits for the first token: of `sample.py`, and of a running server.

    python -m bench.first_token out/tales
    python -m bench.first_token FOLDER --words 1000

`sample.py` is timed from its launch to the first character after the prompt, so Python's start,
the import of PyTorch and the loading of the model count. A request to the server is timed from its
beginning to the first part of its streamed answer, and beside it the model's own part: the same
prompt in `Engine.generate`. Each prompt begins with another number, so that none is in the cache of
prompts that the server keeps.
"""

from __future__ import annotations

import http.client
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import ROOT, alternate, environment, options, record, serve, start_workers, table
from bench.serve import start_server
from minigen.inference import engine
from minigen.sampling import PLAIN


def load(given: Any) -> Callable[[Any], float]:
    """Load the model; return the function that times the first token after a prompt."""
    loaded = engine.load(given.model)

    def seconds(prompt: str) -> float:
        began = time.perf_counter()
        next(iter(loaded.generate([loaded.encode(prompt)], PLAIN, max_new_tokens=2)))
        return time.perf_counter() - began

    seconds("a")
    return seconds


def of_sample_py(given: Any, prompt: str) -> float:
    """Return the seconds from the launch of `sample.py` to the first character after the prompt."""
    command = [sys.executable, "sample.py", "--checkpoint", str(given.model), "--prompt", prompt]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(given.threads), stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    printed = process.stdout.read(len(prompt) + 1)
    seconds = time.perf_counter() - began
    process.kill()
    process.wait()
    if len(printed) <= len(prompt):
        raise RuntimeError("sample.py has written nothing; run it by hand")
    return seconds


def of_server(port: int, prompt: str) -> float:
    """Return the seconds from a request to the first part of its streamed answer."""
    body = json.dumps({"prompt": prompt, "max_tokens": 2, "stream": True})
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200 or not answer.readline().startswith(b"data: "):
        raise RuntimeError(f"the server has answered {answer.status}")
    seconds = time.perf_counter() - began
    answer.read()
    connection.close()
    return seconds


def main() -> None:
    """Run the comparison; or, as a process of this benchmark, the model alone."""
    parser = options(__doc__)
    parser.add_argument("model", type=Path, help="a run, or the folder of a model")
    parser.add_argument("--words", type=int, default=1, help="of the prompt")
    parser.add_argument("--worker", help="(a process of this benchmark)")
    given = parser.parse_args()
    given.model = given.model.resolve()
    if given.worker:
        return serve(lambda: load(given))
    numbers = itertools.count()

    def prompt() -> str:
        return " ".join([str(next(numbers)), *["one"] * (given.words - 1)])

    flags = [str(given.model), "--threads", str(given.threads)]
    worker = start_workers({"model": sys.executable}, "bench.first_token", flags, given.threads)[
        "model"
    ]
    process, port = start_server(given)
    try:
        calls: dict[str, Callable[[], float]] = {
            "the model alone": lambda: worker.ask(prompt()),
            "a request to the server": lambda: of_server(port, prompt()),
            "sample.py, from launch": lambda: of_sample_py(given, prompt()),
        }
        results = alternate(calls, given.rounds)
    finally:
        process.terminate()
        process.wait()
        worker.close()
    medians = {name: 1000 * statistics.median(seconds) for name, seconds in results.items()}
    table(("first token of", "ms"), [(name, f"{ms:.1f}") for name, ms in medians.items()])
    record("first_token", medians, given)


if __name__ == "__main__":
    main()
