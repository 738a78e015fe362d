"""A random request never harms the server: it gets an answer, and the next one is served."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from drawn_requests import RIGHT, Drawn, draw
from forks import Server
from models import varied_model
from serving import Served, serve
from starlette.routing import Route

from minigen.files import checkpoint
from minigen.files.chat_template import with_template
from minigen.model import GPTConfig
from minigen.serve.app import application
from minigen.serve.models import Models
from minigen.serve.worker import Worker
from minigen.tokenizer import train_tokenizer

PART = 100  # requests in a test
N_DEFAULT, N_ALL = 4, 20  # tests in the default run, and with those that are marked as slow


@pytest.fixture(scope="module")
def served(
    runs: Path, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Serve two models, and a random one with a chat template, `friend`."""
    friend, tokenizer = tmp_path_factory.mktemp("chat") / "friend", train_tokenizer("byte", [])
    model = varied_model(GPTConfig.modern(tokenizer.n_vocab, 64, 1, 2, 16))
    state, companions = {"step": 1, "val_loss": 1.0}, with_template(None, tokenizer)
    checkpoint.save(friend, model, tokenizer, {}, state, companions)
    with serve(server, runs, "tales", "letters", str(friend)) as served:
        yield served


def test_a_right_request_is_known_for_each_address(runs: Path) -> None:
    """Each address that takes a body is among those that are drawn."""
    app = application(Models([str(runs / "tales")]), Worker())
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert {route.path for route in routes if "POST" in (route.methods or ())} <= set(RIGHT)


@pytest.mark.parametrize("address", RIGHT)
def test_a_right_request_gets_an_answer(address: str, served: Served) -> None:
    """The requests from which the wrong ones are made are right."""
    body = json.dumps(RIGHT[address]).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(served.address + address, body, headers)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "part",
    [pytest.param(n, marks=[pytest.mark.slow] if n >= N_DEFAULT else []) for n in range(N_ALL)],
)
def test_no_drawn_request_harms_the_server(part: int, served: Served) -> None:
    """A random request gets an answer, no fault of the server's own, and the next one is served.

    A refusal by the application has the form of OpenAI's errors.
    """
    rng = random.Random(f"requests/{part}")
    host = urlsplit(served.address).netloc
    for _ in range(PART):
        request = draw(rng, host)
        answer = send(request, served)
        place = f"{request.data[:1000]!r} -> {answer[:1000]!r}"
        assert n_models(served) == 3, place
        if answer and request.data[:4] != b"HEAD":
            check(answer, request, place)
        else:
            assert answer or request.given_up or not request.well_formed, place
    assert "Traceback" not in served.log.read_text()


def n_models(served: Served) -> int:
    """Return the number of models that the server lists, or 0 if it does not answer."""
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"{served.address}/api/models", timeout=30) as models,
    ):
        return len(json.load(models)["models"])
    return 0


def send(request: Drawn, served: Served) -> bytes:
    """Send a request; return the first bytes of the answer, or b"" if the client gives up."""
    parts = urlsplit(served.address)
    answer = b""
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=60) as connection,
        contextlib.suppress(ConnectionError),  # the server has refused the rest
    ):
        with contextlib.suppress(ConnectionError):  # it may have answered before that
            connection.sendall(request.data)
        if request.given_up:
            return b""
        if not request.well_formed:
            connection.shutdown(socket.SHUT_WR)  # the server need not wait for more
        while len(answer) < 100_000 and (part := connection.recv(65536)):
            answer += part
    return answer


def check(answer: bytes, request: Drawn, place: str) -> None:
    """Check the status of an answer and, of a refusal, the form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status < 500 or status == 503, place
    if status >= 400 and request.well_formed:
        error = json.loads(body)["error"]
        assert set(error) >= {"message", "type", "code"}, place
        assert error["message"] and "\n" not in error["message"], place
