"""The guard of the server: each rule holds against a real server, with real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mimetypes
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from models import save_untrained
from serving import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from minigen.serve import page_files, playground, server
from minigen.serve.address import Address
from minigen.serve.models import Models
from minigen.serve.protocol import GuardedProtocol
from minigen.serve.worker import Busy, Worker
from minigen.tokenizer import train_tokenizer


class Brief(GuardedProtocol):
    """A protocol that waits for a request for less than a second, and takes few connections."""

    ARRIVAL = 0.6
    MAX_CONNECTIONS = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Return an untrained model to serve."""
    out = tmp_path_factory.mktemp("guard")
    save_untrained(out / "letters", train_tokenizer("char", ["abc\n"]))
    return Models((), str(out), "cpu", "float32")


@pytest.fixture(scope="module")
def address(models: Models) -> Iterator[Address]:
    """Return the address of a server without a token."""
    with serving(models) as address:
        yield address


def get(address: Address, path: str = "/api/models", **headers: str) -> httpx.Response:
    """Ask for a path with further headers."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(address.url + path, headers=names, timeout=30)


def message(answer: httpx.Response) -> str:
    """Return the sentence of an error."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "code"} and "\n" not in error["message"]
    return str(error["message"])


@contextlib.contextmanager
def connected(address: Address) -> Iterator[socket.socket]:
    """Open a plain connection to a server."""
    with socket.create_connection((address.host, address.port), timeout=30) as opened:
        yield opened


def all_of(opened: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    parts = iter(lambda: opened.recv(65536), b"")
    return b"".join(parts)


def is_guarded(headers: Any) -> bool:
    """Return whether an answer has the headers that limit a browser."""
    return (
        headers["content-security-policy"].startswith("default-src 'self'; ")
        and "frame-ancestors 'none'" in headers["content-security-policy"]
        and headers["x-content-type-options"] == "nosniff"
        and headers["referrer-policy"] == "no-referrer"
        and headers["cross-origin-opener-policy"] == "same-origin"
        and headers["cross-origin-resource-policy"] == "same-origin"
        and "camera=()" in headers["permissions-policy"]
        and not any(name.startswith("access-control-") for name in headers)
    )


# ---- who may ask ----


@pytest.mark.parametrize(
    "host",
    ["evil.example:{}", "127.0.0.1.evil.example:{}", "127.0.0.1:1", "127.0.0.1", "192.168.0.1:{}",
     "[::2]:{}", "localhost:{}.", "@127.0.0.1:{}", "0.0.0.0:{}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/api/models", "/api/nothing"])
def test_a_name_that_is_not_the_servers_is_refused(address: Address, host: str, path: str) -> None:
    """A site whose name leads to this machine (DNS rebinding) reaches neither page nor numbers."""
    answer = get(address, path, host=host.format(address.port))
    assert answer.status_code == 421 and is_guarded(answer.headers)
    assert message(answer) == f"this server answers at {address.url} only"


@pytest.mark.parametrize("host", ["localhost:{}", "LOCALHOST:{}", "127.0.0.1:{}", "[::1]:{}"])
def test_the_names_of_this_machine_are_answered(address: Address, host: str) -> None:
    """Each name of the loopback address is right, with the server's port."""
    assert get(address, host=host.format(address.port)).status_code == 200


def test_a_server_at_all_addresses_answers_to_numbers_and_to_its_own_name() -> None:
    """A number needs no look-up, so no other site can have it as its name."""
    everywhere = Address("0.0.0.0", 8000)
    own = f"{socket.gethostname()}:8000"
    assert all(map(everywhere.answers_to, ["192.168.0.7:8000", "[fe80::1]:8000", own]))
    assert not any(
        map(everywhere.answers_to, ["evil.example:8000", "192.168.0.7:80", "1.2.3:8000"])
    )
    assert Address("studio.local", 80).answers_to("studio.local")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{}", "{}", "",
                                    "http://127.0.0.1", "http://localhost:{}"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_request_of_another_page_is_refused(address: Address, origin: str, method: str) -> None:
    """A page of another site, or of another port, can send nothing to the server."""
    headers = {"Origin": origin.format(address.port), "Content-Type": "text/plain"}
    for path in ("/api/tokens", "/"):
        answer = httpx.request(method, address.url + path, headers=headers)
        assert answer.status_code == 403 and is_guarded(answer.headers)
        assert message(answer) == "a page of another site may not use this server"


def test_the_page_itself_and_programs_pass(address: Address) -> None:
    """The server's own origin is right, and so is none: programs send none."""
    for headers in ({}, {"origin": address.url}, {"sec_fetch_site": "same-origin"}):
        assert get(address, **headers).status_code == 200
    port = address.port
    own = {"host": f"localhost:{port}", "origin": f"http://localhost:{port}"}
    assert get(address, **own).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "other"])
def test_a_simple_request_of_another_page_is_refused(address: Address, site: str) -> None:
    """A request without an origin, as for an image, gets no numbers; a link may open the page."""
    assert get(address, sec_fetch_site=site).status_code == 403
    assert get(address, "/", sec_fetch_site=site).status_code == 200


def test_numbers_need_the_token_and_files_of_the_page_do_not(models: Models) -> None:
    """With a token, each request under /api and /v1 must have it."""
    with serving(models, token="s3cret") as address:
        assert get(address, "/").status_code == 200
        wrong = (
            "",
            "Bearer s3cre",
            "Basic s3cret",
            "s3cret",
            "Bearer S3cret",
            "Bearer s3cret\u00e9",
        )
        for given in (*wrong, "Bearer"):
            for path in ("/api/models", "/v1/models", "/api/nothing"):
                sent = {"Authorization": given.encode("utf-8")} if given else {}
                answer = httpx.get(address.url + path, headers=sent)
                assert answer.status_code == 401 and is_guarded(answer.headers)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "Authorization: Bearer TOKEN" in message(answer)
        assert get(address, authorization="Bearer s3cret").status_code == 200
        assert get(address, authorization="bearer s3cret").status_code == 200


def test_without_a_token_any_authorization_passes(address: Address) -> None:
    """Clients of OpenAI's interface always send a key; a server without a token ignores it."""
    assert get(address, authorization="Bearer sk-anything").status_code == 200


# ---- how much, and how fast ----


def test_a_body_up_to_a_megabyte_is_read(address: Address) -> None:
    """A body of exactly the limit is answered, and one byte more is refused, announced or not."""

    def body(n: int) -> bytes:
        start = b'{"text": "abc"'
        return start + b" " * (n - len(start) - 1) + b"}"

    def stream(n: int) -> Iterator[bytes]:
        content = body(n)
        yield from (content[i : i + 50_000] for i in range(0, n, 50_000))

    url = f"{address.url}/api/tokens"
    with httpx.Client() as client:
        for make in (body, stream):
            answer = client.post(url, content=make(1_000_000))
            assert answer.json() == {"ids": [4, 1, 2, 3]}
            answer = client.post(url, content=make(1_000_001))
            assert answer.status_code == 413 and is_guarded(answer.headers)
            assert message(answer) == "the request has more than 1,000,000 bytes"


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"9" * 19, b"9" * 5000, b"\xb2"])
def test_a_false_length_is_refused(address: Address, length: bytes) -> None:
    """A length that is not a number, or that no memory has, is refused without a fault."""
    with connected(address) as opened:
        host = f"127.0.0.1:{address.port}".encode()
        opened.sendall(b"POST /api/tokens HTTP/1.1\r\nConnection: close\r\nHost: " + host)
        opened.sendall(b"\r\nContent-Length: " + length + b"\r\n\r\n")
        status = all_of(opened).split(b" ")[1]
        assert status in (b"400", b"413")


REQUEST = "POST /api/tokens HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize(
    "beginning", ["", "P", "POST /api/tokens HTTP/1.1\r\nHost:", REQUEST, REQUEST + '{"text":']
)
def test_a_request_that_arrives_slowly_is_closed(models: Models, beginning: str) -> None:
    """A connection that stops in the middle of a request is answered with 408 and closed."""
    with serving(models, protocol=Brief) as address, connected(address) as opened:
        opened.sendall(beginning.replace("PORT", str(address.port)).encode())
        head, _, content = all_of(opened).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ") and b"content-security-policy" in head
        assert "did not arrive within 0.6 seconds" in json.loads(content)["error"]["message"]


@pytest.mark.parametrize("n_before", [0, 1])
def test_a_request_that_arrives_byte_by_byte_is_closed(models: Models, n_before: int) -> None:
    """A trickle of bytes does not prolong the time, in a first request or a later one."""
    with serving(models, protocol=Brief) as address, connected(address) as opened:
        host = f"Host: 127.0.0.1:{address.port}\r\n"
        for _ in range(n_before):
            opened.sendall(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
            assert opened.recv(65536).startswith(b"HTTP/1.1 200 ")
        opened.settimeout(0.05)
        received = b""
        opened.sendall(f"GET / HTTP/1.1\r\n{host}X: ".encode())
        for _ in range(200):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                opened.sendall(b"x")
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                received += opened.recv(65536)
            if b"408" in received:
                break
        assert b"HTTP/1.1 408 " in received


def test_a_connection_may_be_used_again_and_again(models: Models) -> None:
    """The time of a request ends with the request: one connection serves many, for longer."""
    with serving(models, protocol=Brief) as address, connected(address) as opened:
        for _ in range(5):
            request = f"HEAD / HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\n\r\n"
            opened.sendall(request.encode())
            assert opened.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(Brief.ARRIVAL / 4)


def test_an_answer_may_take_longer_than_a_request(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the arrival of a request has a time: its answer, a stream say, has none."""

    async def slowly(request: Request) -> Response:
        await asyncio.sleep(2 * Brief.ARRIVAL)
        return Response(await request.body())

    app = Starlette(routes=[Route("/", slowly, methods=["POST"])])
    monkeypatch.setattr(server, "application", lambda *_: app)
    with serving(models, protocol=Brief) as address:
        assert httpx.post(address.url, content=b"abc").content == b"abc"


def test_connections_beyond_the_limit_are_refused(models: Models) -> None:
    """One connection too many gets 503, and after another has closed, the next is answered."""
    with serving(models, protocol=Brief) as address:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(connected(address))
            answer = all_of(stack.enter_context(connected(address)))
            assert answer.startswith(b"HTTP/1.1 503 ")
        assert get(address).status_code == 200


def test_bytes_that_are_not_http_get_an_error(address: Address) -> None:
    """Nonsense is answered with 400 in the form of all errors."""
    with connected(address) as opened:
        opened.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        head, _, content = all_of(opened).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and b"nosniff" in head
        assert json.loads(content)["error"]["message"] == "the request is not HTTP/1.1"


def test_an_upgrade_to_web_sockets_is_not_made(address: Address) -> None:
    """The server speaks HTTP only, so a request for an upgrade is answered as any other."""
    answer = get(address, connection="upgrade", upgrade="websocket")
    assert answer.status_code == 200


# ---- answers ----


def test_each_answer_has_the_security_headers(address: Address) -> None:
    """A browser is told what it may do with the page, with numbers, and with errors."""
    for path, status, caching in (
        ("/", 200, "no-cache"), ("/index.html", 200, "no-cache"), ("/nothing", 404, "no-cache"),
        ("/api/models", 200, "no-store"), ("/api/nothing", 404, "no-store"),
        ("/v1/nothing", 404, "no-store"),
    ):  # fmt: skip
        answer = get(address, path)
        assert (answer.status_code, answer.headers["cache-control"]) == (status, caching)
        assert is_guarded(answer.headers) and "server" not in answer.headers


def test_an_unknown_address_and_a_wrong_method_are_named(address: Address) -> None:
    """404 and 405 have the form of all errors."""
    assert message(get(address, "/api/nothing")) == "there is no /api/nothing here"
    answer = httpx.put(f"{address.url}/api/models")
    assert answer.status_code == 405
    assert message(answer) == "/api/models does not take PUT, but GET or HEAD"


def test_a_full_queue_is_answered_with_the_time_to_wait(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that finds the queue of the models full is asked to come back in a second."""

    def full(*_: Any) -> Any:
        raise Busy

    with serving(models) as address:
        monkeypatch.setattr(Worker, "run", full)
        answer = httpx.post(f"{address.url}/api/predict", json={"ids": [1]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "busy")
        assert "ask again in a second" in message(answer)


def test_a_fault_of_the_server_is_answered_without_its_cause(
    models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault is 500 and one sentence; its cause is logged, and the server serves on."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("/home/someone/secret")

    with serving(models) as address:
        monkeypatch.setattr(playground, "uniform", fail)
        answer = httpx.post(f"{address.url}/api/uniform", json={})
        assert answer.status_code == 500 and is_guarded(answer.headers)
        assert "secret" not in answer.text and "Traceback" not in answer.text
        assert message(answer).startswith("the server has a fault")
        assert answer.json()["error"]["type"] == "server_error"
        assert get(address).status_code == 200
    assert "/home/someone/secret" in capsys.readouterr().err


# ---- the files of the page ----


@pytest.mark.parametrize(
    "path",
    ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/..%5capp.py", "//app.py", "/etc/passwd",
     "/page/../../app.py", "/index.html/../../app.py", "/index.html%00.js", "/.hidden.js", "/./",
     "/index.html/", "/parts", "/parts/", "/index", "/INDEX.HTML"],
)  # fmt: skip
def test_no_address_leads_out_of_the_page(address: Address, path: str) -> None:
    """An address that is not the address of a file of the page is 404, however it is spelled."""
    with connected(address) as opened:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\nConnection: close\r\n\r\n"
        )
        opened.sendall(request.encode())
        assert all_of(opened).startswith(b"HTTP/1.1 404 ")


def test_only_plain_files_of_known_types_belong_to_the_page(tmp_path: Path) -> None:
    """Links, hidden files, and files of other types are not served, in any folder."""
    page, secret = tmp_path / "page", tmp_path / "secret.js"
    (page / "parts").mkdir(parents=True)
    secret.write_text("secret")
    for name in ("index.html", "main.js", "parts/a.js", ".hidden.js", "notes.py", "parts/x.bin"):
        (page / name).write_text(name)
    (page / "link.js").symlink_to(secret)
    (page / "linked").symlink_to(tmp_path)
    (page / ".git").mkdir()
    (page / ".git/a.js").write_text("hidden")
    names = [path.relative_to(page).as_posix() for path in page_files.files(page)]
    assert names == ["index.html", "main.js", "parts/a.js"]
    with TestClient(Starlette(routes=page_files.routes(page))) as client:
        assert client.get("/parts/a.js").text == "parts/a.js"
        for path in ("/link.js", "/linked/secret.js", "/.hidden.js", "/.git/a.js", "/notes.py"):
            assert client.get(path).status_code == 404
        (page / "main.js").write_text("changed")
        assert client.get("/main.js").text == "changed"


def test_a_script_is_a_script_on_any_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content types do not come from the system, which may call a script plain text."""
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: ("text/plain", None))
    for name in ("index.html", "main.js", "style.css", "icon.svg"):
        (tmp_path / name).write_text("x")
    with TestClient(Starlette(routes=page_files.routes(tmp_path))) as client:
        types = [client.get(f"/{name}").headers["content-type"]
                 for name in ("", "main.js", "style.css", "icon.svg")]  # fmt: skip
    assert types == ["text/html; charset=utf-8", "text/javascript; charset=utf-8",
                     "text/css; charset=utf-8", "image/svg+xml"]  # fmt: skip
