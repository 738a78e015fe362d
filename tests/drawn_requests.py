"""Random requests, most of them wrong in one or two ways, as the bytes that a client sends."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# A right request for each address that reads a body.
RIGHT: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "tales", "prompt": "hero:", "max_tokens": 3, "seed": 1},
    "/v1/chat/completions": {
        "model": "friend",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 3,
    },
    "/api/vocabulary": {"model": "letters"},
    "/api/tokens": {"model": "tales", "text": "hero: Sir Fox"},
    "/api/merges": {"model": "tales", "word": "friend"},
    "/api/predict": {"model": "tales", "ids": [1, 2, 3]},
    "/api/uniform": {"seed": 1, "sample": 0, "n": 0},
    "/api/surprise": {"model": "tales", "text": "hero: Sir Fox"},
    "/api/attention": {"model": "tales", "ids": [1, 2, 3]},
    "/api/lens": {"model": "tales", "ids": [1, 2, 3]},
    "/api/code": {"model": "tales", "name": "Block.forward", "ids": [1, 2, 3]},
    "/api/document": {"model": "tales", "text": "hero: Sir Fox"},
    "/api/genres": {"model": "tales"},
    "/api/first_line": {"noun": "tale", "conditions": {"hero": "Fox"}, "seed": 1},
    "/api/replay": {"run": "tales", "step": 40, "text": "hero:"},
}
# Fields of completions that are right, too.
MORE: dict[str, Any] = {
    "echo": True, "logprobs": 3, "stream": True, "n": 3, "stop": ["a", "Fox"], "top_p": 0.9,
    "stream_options": {"include_usage": True}, "temperature": 0, "top_k": 5, "min_p": 0.1,
    "repetition_penalty": 1.2, "step": None, "user": "someone", "top_logprobs": 2,
}  # fmt: skip
# Fields of all addresses, each to be added where it is expected and where it is not.
FIELDS = [
    "model", "step", "prompt", "max_tokens", "temperature", "top_p", "n", "seed", "stop", "echo",
    "best_of", "logprobs", "stream", "stream_options", "suffix", "logit_bias", "top_k", "min_p",
    "user", "repetition_penalty", "text", "word", "ids", "sample", "layer", "head", "next", "name",
    "noun", "conditions", "run", "messages", "max_completion_tokens", "top_logprobs", "tools",
    "chat_template_kwargs", "response_format",
]  # fmt: skip
PATHS = [
    "/", "/index.html", "/api/models", "/v1/models", "/api/runs", "/api/runs/tales?after=0",
    "/v1/models/tales", "/v1/chat/completions", "/v1", "/api", "/api/", "/nothing", "/favicon.ico",
    "/../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fapp.py", "//etc/passwd",
    "/..\\..\\app.py", "/page/../app.py", "/./style.css", "/%00", "/%ff%fe", "/" + "x" * 3000,
    "/api/runs/..%2f..", "/api/runs/%2fetc", "/api/runs/tales?after=-1", "/api/runs/" + "9" * 400,
    "/api/runs/tales?after=1e9", "/api/runs/tales?after=%00&after=", "/?" + "&" * 500, "/\u202e",
    "http://example.com/api/models", "*", "/style.css%00.html", "/main.js/", "/parts", "/parts/",
]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW", "post"]
TEXTS = [
    "", " ", "\n", "\0", "x" * 5000, "é🙂漢字\u202e", "\ud800", "a\udfffb", "<img src=x onerror=x>",
    "<|endoftext|>", "../../etc/passwd", "tales", "letters", "1", "null", "'; drop table models",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 7, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.5, 1.0, 1e-320, 1e308,
    -1e308, float("nan"), float("inf"), -float("inf"),
]  # fmt: skip
ODD: list[Callable[[random.Random], Any]] = [
    lambda rng: rng.choice(TEXTS),
    lambda rng: rng.choice(NUMBERS),
    lambda rng: rng.choice([None, True, False, {}, [], [[]], [None], [{}], {"a": {"b": [1]}}]),
    lambda rng: [rng.choice(NUMBERS) for _ in range(rng.randint(1, 4))],
    lambda rng: [rng.choice(TEXTS) for _ in range(rng.randint(1, 4))],
    lambda rng: [rng.randrange(600) for _ in range(rng.choice([1, 5, 100, 400]))],
    lambda rng: [{"role": rng.choice(TEXTS), "content": rng.choice(TEXTS)} for _ in range(3)],
    lambda rng: [[rng.randrange(300)] * rng.randint(0, 9) for _ in range(rng.choice([1, 5, 200]))],
]


@dataclass(frozen=True)
class Drawn:
    """A request as bytes.

    well_formed: whether it is whole and HTTP/1.1, so that the application itself must answer.
    given_up: whether the client closes the connection without waiting for the answer.
    """

    data: bytes
    well_formed: bool
    given_up: bool


def draw(rng: random.Random, host: str) -> Drawn:
    """Return a random request to a server whose Host header is `host`."""
    address = rng.choice([*RIGHT, "/v1/completions", "/v1/completions"])
    method, path, body = "POST", address, json.dumps(draw_fields(rng, address)).encode()
    headers = {"Host": host, "Content-Type": "application/json", "Connection": "close"}
    well_formed = True
    fault = rng.randrange(12)
    if fault == 0:
        method = rng.choice(METHODS)
    elif fault == 1:
        path = rng.choice(PATHS)
        method = rng.choice(["GET", "GET", method])
    elif fault == 2:
        body = draw_body(rng, body)
    elif fault == 3:
        spoil_headers(rng, headers)
    elif fault == 4:
        method = rng.choice([*METHODS, "", "G\0T", "G" * 9000])
        headers[rng.choice(["Content-Length", "Transfer-Encoding"])] = rng.choice(
            ["-1", "zero", "9" * 30, "chunked", "identity", ""]
        )
        well_formed = False
    if fault != 4:
        headers["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    data = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + body
    if fault == 5:  # the client stops in the middle
        return Drawn(data[: rng.randrange(len(data))], False, True)
    if fault == 6:  # random bytes
        at = rng.randrange(len(data))
        return Drawn(data[:at] + rng.randbytes(9) + data[at + 9 :], False, False)
    return Drawn(data, well_formed and path.isascii(), fault == 7)


def draw_fields(rng: random.Random, address: str) -> dict[str, Any]:
    """Return the fields of a right request, of which up to three are wrong, missing or new."""
    fields = dict(RIGHT[address])
    if address.startswith("/v1/"):
        fields |= {name: value for name, value in MORE.items() if rng.random() < 0.3}
    names = [*fields, *fields, rng.choice(FIELDS)]
    for name in rng.sample(names, rng.choice([0, 1, 1, 1, 2, 3])):
        if rng.random() < 0.2:
            fields.pop(name, None)
        else:
            fields[name] = rng.choice(ODD)(rng)
    return fields


def draw_body(rng: random.Random, body: bytes) -> bytes:
    """Return a body that is no JSON object, is too large, or is nested too deep."""
    n = rng.choice([1, 1000, 200_000])
    return rng.choice(
        [
            b"",
            b"{",
            b"null",
            b"[1, 2]",
            b'"text"',
            b"[" * n,
            b'{"prompt": ' + b"[" * n + b"]" * n + b"}",
            b'{"a":' * n,
            b'{"seed": ' + b"1" * n + b"}",
            b'{"prompt": "' + b"x" * 10 * n + b'"}',
            b'{"seed": 1e999999999}',
            b'{"prompt": "\\ud800", "max_tokens": 1}',
            b'{"prompt": 1, "prompt": [], "prompt": "hero:", "max_tokens": 1}',
            b"\xff\xfe" + body,
            b"\xef\xbb\xbf" + body,
            body.decode().encode("utf-16"),
            body[: len(body) // 2],
            body * 2,
            rng.randbytes(n),
        ]
    )


def spoil_headers(rng: random.Random, headers: dict[str, str]) -> None:
    """Change one header to another value, or add one."""
    name, text = rng.choice(
        [
            ("Content-Type", "text/plain"),
            ("Content-Type", "multipart/form-data; boundary=x"),
            ("Content-Type", "application/json; charset=utf-16"),
            ("Content-Type", ""),
            ("Accept", "x/y;q=nan"),
            ("Accept-Encoding", "gzip, br, x" * 50),
            ("Authorization", "Bearer " + "x" * 5000),
            ("Authorization", "Basic \u00ff"),
            ("Cookie", "a=b; " * 500),
            ("Range", "bytes=9-1,-5"),
            ("If-Modified-Since", "never"),
            ("If-None-Match", '"' * 99),
            ("Origin", "http://example.com"),
            ("Origin", "null"),
            ("Host", "example.com"),
            ("Host", ""),
            ("Expect", "100-continue"),
            ("Upgrade", "websocket"),
            ("X-Forwarded-For", "\0" if rng.random() < 0.1 else "::1"),
        ]
    )
    headers[name] = text
