"""Measure what the server costs: tokens per second of `Engine.generate` and of its clients.

    python -m bench.serve out/tales

All write the same texts, with the seeds 0, 1, 2 ...: `Engine.generate` one after the other in a
process of its own; a client, one request after the other; eight clients, all of the requests at
once. The time of a client is from its first request to the end of its last answer, so it includes
HTTP, JSON and the prefill. The clients and the server share the machine.
"""

from __future__ import annotations

import functools
import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.common import (
    ROOT,
    alternate,
    environment,
    options,
    record,
    seconds_of,
    serve,
    start_workers,
    table,
)
from minigen.inference import engine
from minigen.sampling import PLAIN


def load(given: Any) -> Callable[[Any], Any]:
    """Load the model; return the function that writes the texts of some seeds."""
    loaded = engine.load(given.model)

    def write(seeds: list[int]) -> tuple[int, float]:
        """Return the number of tokens and the seconds."""
        n_tokens, start = 0, time.perf_counter()
        for seed in seeds:
            steps = loaded.generate(
                [loaded.encode("")], PLAIN, max_new_tokens=given.tokens, seed=seed
            )
            n_tokens += sum(1 for _ in steps)
        return n_tokens, time.perf_counter() - start

    write([0])
    return write


def ask(port: int, n_tokens: int, streams: bool, seeds: Sequence[int]) -> int:
    """Request the texts of some seeds one after the other; return the number of their tokens."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    total = 0
    for seed in seeds:
        fields = {"prompt": "", "max_tokens": n_tokens, "seed": seed}
        if streams:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(fields)
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse().read().decode()
        if streams:
            *_, answer, end = answer.removeprefix("data: ").split("\n\ndata: ")
            assert end.strip() == "[DONE]"
        total += json.loads(answer)["usage"]["completion_tokens"]
    connection.close()
    return total


def clients(port: int, n_tokens: int, streams: bool, seeds: list[int], n: int) -> tuple[int, float]:
    """Let n clients share the seeds; return the number of tokens and the seconds."""
    with ThreadPoolExecutor(n) as pool:
        start = time.perf_counter()
        parts = [seeds[i::n] for i in range(n)]
        total = sum(pool.map(functools.partial(ask, port, n_tokens, streams), parts))
        return total, time.perf_counter() - start


def start_server(given: Any) -> tuple[subprocess.Popen[str], int]:
    """Start the server on a free port; return its process and the port when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "minigen", "serve", str(given.model), "--port", str(port)],
        cwd=ROOT, env=environment(given.threads), encoding="utf-8", stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None:
        try:
            ask(port, 1, False, [0])
            return process, port
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server has ended")


def main() -> None:
    """Run the comparison; or, as a process of this benchmark, `Engine.generate`."""
    parser = options(__doc__)
    parser.add_argument("model", type=Path, help="a run, or the folder of a model")
    parser.add_argument("--tokens", type=int, default=256, help="of each text, at most")
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--worker", help="(a process of this benchmark)")
    given = parser.parse_args()
    given.model = given.model.resolve()
    if given.worker:
        return serve(lambda: load(given))
    seeds = [*range(given.texts)]
    flags = [str(given.model), "--tokens", str(given.tokens), "--threads", str(given.threads)]
    name = "Engine.generate"
    worker = start_workers({name: sys.executable}, "bench.serve", flags, given.threads)[name]
    process, port = start_server(given)
    together = functools.partial(clients, port, given.tokens)
    try:
        calls: dict[str, Callable[[], tuple[int, float]]] = {
            name: functools.partial(worker.ask, seeds),
            "1 client": lambda: together(False, seeds, 1),
            "1 client, streaming": lambda: together(True, seeds, 1),
            f"{given.clients} clients": lambda: together(False, seeds, given.clients),
            f"{given.clients} clients, streaming": lambda: together(True, seeds, given.clients),
        }
        results = alternate(calls, given.rounds)
    finally:
        process.terminate()
        print(f"the server ends in {seconds_of(process.wait):.1f} s")
        worker.close()
    assert len({n for rounds in results.values() for n, _ in rounds}) == 1, "other texts"
    speeds = {n: statistics.median(k / s for k, s in rounds) for n, rounds in results.items()}
    ratios = {n: speed / speeds[name] for n, speed in speeds.items()}
    rows = [(n, f"{speed:.1f}", f"{ratios[n]:.2f}") for n, speed in speeds.items()]
    table(("contender", "tokens/s", f"of {name}"), rows)
    record("serve", {n: {"tokens/s": speeds[n], "ratio": ratios[n]} for n in speeds}, given)


if __name__ == "__main__":
    main()
