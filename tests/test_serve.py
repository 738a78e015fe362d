"""`python -m minigen serve`: it says where it listens, and ends as every command ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from forks import ROOT, Server
from models import save_untrained
from serving import address_of, command, interrupt, serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from minigen.errors import UserError
from minigen.inference.engine import Engine
from minigen.serve import command as serve_command
from minigen.serve import models as models_module
from minigen.serve import server
from minigen.serve.address import is_loopback, listen, with_port
from minigen.serve.models import Models
from minigen.serve.worker import Worker
from minigen.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two untrained runs."""
    out = tmp_path_factory.mktemp("serve") / "out"
    for step, name in enumerate(("first", "second"), 1):
        save_untrained(out / name, train_tokenizer("char", ["abc\n"]), step=step)
    return out


def test_one_line_is_the_address_and_ctrl_c_ends_the_server(out: Path, server: Server) -> None:
    """The address is printed when the server answers, and Ctrl-C ends it without a word."""
    with command(server, out, "first", "second", "--port", "0") as trial:
        url = address_of(trial)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        with httpx.Client(base_url=url) as client:  # its connection stays open
            models = client.get("/api/models").json()["models"]
            assert [model["id"] for model in models] == ["first", "second"]
            code, printed, err = interrupt(trial)
    assert (code, printed) == (130, f"{url}\n")
    assert [line.split(":")[0] for line in err.splitlines()] == ["first", "second"]


def test_sigterm_ends_the_server(out: Path, server: Server) -> None:
    """A server that is told to end by the system ends by that signal, as other programs do."""
    with command(server, out, "--port", "0") as trial:
        assert address_of(trial)
        trial.kill(signal.SIGTERM)
        assert trial.wait(30) == -signal.SIGTERM
    assert "Traceback" not in trial.output()


def test_a_request_that_waits_is_ended_by_ctrl_c(out: Path, server: Server) -> None:
    """A connection in the middle of a request does not keep the server from ending."""
    with command(server, out, "--port", "0") as trial:
        port = int(address_of(trial).rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as opened:
            head = (
                f"POST /api/tokens HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\n\r\n"
            )
            opened.sendall(head.encode())
            httpx.get(f"http://127.0.0.1:{port}/")  # so the first request has been read
            code, _, err = interrupt(trial)
            assert opened.recv(1) == b""
    assert code == 130 and "Traceback" not in err


def test_streams_and_long_computations_end_with_the_server(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reader of a stream learns that the server has ended; nothing is waited for or logged."""
    ended, computed = list[str](), threading.Event()
    thread = ThreadPoolExecutor(1)

    async def stream() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: more\n\n" * 10_000
                await asyncio.sleep(0.01)
        finally:
            ended.append("stream")

    async def endless(request: Request) -> StreamingResponse:
        return StreamingResponse(stream())

    async def long(request: Request) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(thread, computed.wait)
        finally:
            ended.append("computation")

    app = Starlette(routes=[Route("/endless", endless), Route("/long", long)])
    monkeypatch.setattr(server, "application", lambda *_: app)
    models = Models((), str(out), "cpu", "float32")
    with contextlib.ExitStack() as clients:
        clients.callback(computed.set)
        with serving(models) as address:
            waiting = clients.enter_context(socket.create_connection((address.host, address.port)))
            host = f"127.0.0.1:{address.port}"
            waiting.sendall(f"GET /long HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            unread = clients.enter_context(socket.create_connection((address.host, address.port)))
            unread.sendall(f"GET /endless HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answered = clients.enter_context(httpx.stream("GET", f"{address.url}/endless"))
            parts = answered.iter_bytes()
            for _ in range(200):  # the buffers of the client that does not read are full by now
                assert b"data: more" in next(parts)
        with contextlib.suppress(httpx.RemoteProtocolError):
            list(parts)
        assert waiting.recv(1) == b""
    assert sorted(ended) == ["computation", "stream", "stream"]
    assert capsys.readouterr().err == ""


def test_a_busy_port_is_one_line(out: Path, server: Server) -> None:
    """A port that another program listens on is named, with the flag that mends it."""
    with listen("127.0.0.1", 0) as busy:
        port = str(busy.getsockname()[1])
        with command(server, out, "--port", port) as trial:
            assert trial.wait() == 2
    assert trial.out.read_text() == ""
    assert (
        trial.output()
        == f"error: --port {port} is busy; give another one, or --port 0 for any free one\n"
    )


def test_other_machines_need_the_token_in_the_address(out: Path, server: Server) -> None:
    """A server for other machines makes a token, and its address has it where no log sees it."""
    with command(server, out, "--host", "0.0.0.0", "--port", "0") as trial:
        found = re.fullmatch(r"http://(\S+):(\d+)/#token=([\w-]{32})", address_of(trial))
        assert found is not None and found[1] == socket.gethostname()
        url = f"http://127.0.0.1:{found[2]}/api/models"
        assert httpx.get(url).status_code == 401
        headers = {"Authorization": f"Bearer {found[3]}"}
        assert httpx.get(url, headers=headers).status_code == 200
        _, _, err = interrupt(trial)
    assert "Authorization: Bearer TOKEN" in err


def test_a_given_token_is_needed_on_this_machine_too(out: Path, server: Server) -> None:
    """--token sets the token of any server."""
    with command(server, out, "--token", "open-sesame", "--port", "0") as trial:
        url, _, token = address_of(trial).partition("/#token=")
        assert token == "open-sesame"
        assert httpx.get(f"{url}/api/models").status_code == 401


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_the_loopback_address_of_ipv6_is_served(out: Path, server: Server) -> None:
    """The address of an IPv6 host stands in brackets, and needs no token on this machine."""
    try:
        listen("::1", 0).close()
    except UserError:
        pytest.skip("this machine has no IPv6 loopback")
    with command(server, out, "--host", "::1", "--port", "0") as trial:
        url = address_of(trial)
        assert re.fullmatch(r"http://\[::1\]:\d+", url)
        assert httpx.get(f"{url}/api/models").status_code == 200


def test_open_shows_the_page_in_the_browser(out: Path, server: Server, tmp_path: Path) -> None:
    """--open calls the browser with the printed address, and without the flag nothing does."""
    called = tmp_path / "called"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> "{called}"\n')
    browser.chmod(0o755)
    for flags, expected in (((), False), (("--open",), True)):
        words = ("--port", "0", "--token", "t", *flags)
        with command(server, out, *words, BROWSER=f"{browser} %s") as trial:
            url = address_of(trial)
            httpx.get(url.partition("#")[0])  # answered after the browser was called
            interrupt(trial)
        assert called.exists() is expected
    assert called.read_text() == f"{url}\n"


def test_models_are_loaded_in_the_thread_that_computes(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread computes nothing, so OpenMP's threads never wait beside those of another."""
    names, load = list[str](), models_module.load

    def noted(*args: Any, **kwargs: Any) -> Engine:
        """Load a model, and note the thread."""
        names.append(threading.current_thread().name)
        return load(*args, **kwargs)

    def ended(models: Models, worker: Worker, *args: Any) -> Any:
        """Return a server that ends at once."""
        return SimpleNamespace(run=lambda sockets: worker.close())

    monkeypatch.setattr(models_module, "load", noted)
    monkeypatch.setattr(server, "make_server", ended)
    serve_command.main(["first", "second", "--out_dir", str(out), "--port", "0"])
    assert names == ["models", "models"]


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--port", "-1"], "--port is -1; give from 0 to 65,535"),
        (["--port", "65536"], "--port is 65536; give from 0 to 65,535"),
        (["--port", "http"], "'http' is not a whole number"),
        (["--token", "two words"], "--token has blanks or letters that no header can have"),
        (["--token", "schlüssel"], "--token has blanks or letters that no header can have"),
        (["--token", ""], "--token has blanks or letters that no header can have"),
        (["--host", "no such host"], "--host no such host is not known"),
        (["--host", "192.0.2.1", "--port", "0"], "--host 192.0.2.1 is no address of this machine"),
        (["--dtype", "float16"], "'float16' is not one of float32, bfloat16, int8"),
        (["--prot", "1"], "unknown flag --prot; did you mean --port?"),
        (["--port", "0", "thrid"], "no run 'thrid'"),
        (["--port", "0", "--device", "tpu"], "tpu"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_sentence(
    out: Path, flags: list[str], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong value is refused before the server starts, with a sentence that names the flag."""
    monkeypatch.chdir(out.parent)
    with pytest.raises(UserError) as caught:
        serve_command.main(flags)
    assert error in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_packages_of_the_extra_one_line_tells_how_to_install_them(
    tmp_path: Path,
) -> None:
    """Without starlette or uvicorn, the command names the installation and exits with code 2."""
    for package in ("starlette", "uvicorn"):
        block = f"import sys; sys.modules[{package!r}] = None; sys.argv[:] = ['minigen', 'serve']"
        run = subprocess.run(
            [sys.executable, "-c", f"{block}; from minigen.__main__ import main; main()"],
            capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert (run.returncode, run.stdout) == (2, "")
        assert re.fullmatch(
            rf"error: the server needs {package}; first: .*pip install .*\n", run.stderr
        )


def test_help_needs_no_package_of_the_extra(tmp_path: Path) -> None:
    """--help works before the packages are installed, and names each flag."""
    block = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv[:] = ['minigen', 'serve', '--help']"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"{block}; from minigen.__main__ import main; main()"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0
    for flag in ("--port INT", "--host TEXT", "--token TEXT", "--[no_]open", "--out_dir TEXT"):
        assert flag in run.stdout


def test_only_addresses_of_this_machine_alone_are_loopback() -> None:
    """A host that other machines can reach is not loopback, whatever it looks like."""
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.1", "localhost.evil.example"]))
    assert (with_port("::1", 80), with_port("a", 80)) == ("[::1]:80", "a:80")
