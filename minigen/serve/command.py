"""Serve a page that shows models think, and an API for programs: `python -m minigen serve`."""

from __future__ import annotations

import functools
import os
import re
import secrets
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from minigen.cli import parse
from minigen.errors import UserError, check_range
from minigen.system.shell import install


@dataclass(frozen=True)
class ServeConfig:
    """Show models on a page in the browser, and answer programs by OpenAI's completions API.

    One line on standard output is the address of the page; the API is at the same address, under
    /v1. The server ends with Ctrl-C. It needs the packages of the extra [web].
    """

    # --- the models ---
    # runs, folders with a model, or names such as gpt2 (default: the run that was saved last)
    models: tuple[str, ...] = ()
    out_dir: str = "out"  # the folder of the runs
    # --- the address ---
    port: int = 8000  # the port to listen on; 0: any free one
    # the address to listen on; with 0.0.0.0 other machines reach the server, and need the token
    host: str = "127.0.0.1"
    # the password of the API, sent as "Authorization: Bearer TOKEN" (default: none on this machine
    # alone; else a random one, which the printed address has)
    token: str | None = None
    open: bool = False  # open the page in the browser
    # --- the machine ---
    device: str = "auto"  # cuda, mps or cpu; auto: the fastest of them on this machine
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"  # number format of the weights


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    config = parse(ServeConfig, argv, words="models")
    check_range("--port", config.port, 0, 65535)
    if config.token is not None and not re.fullmatch("[!-~]+", config.token):
        raise UserError("--token has blanks or letters that no header can have; give ASCII ones")
    try:
        from minigen.serve.server import make_server
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "minigen":
            raise
        raise UserError(f"the server needs {package}; first: {install('web')}") from None
    from minigen.serve.address import Address, is_loopback, listen
    from minigen.serve.models import Models
    from minigen.serve.worker import Worker

    token = config.token
    if token is None and not is_loopback(config.host):
        token = secrets.token_urlsafe(24)
    # It listens before a model is loaded, which may take long: a busy port is named at once.
    with listen(config.host, config.port) as opened:
        address = Address(config.host, opened.getsockname()[1])
        url = address.url if token is None else f"{address.url}/#token={quote(token)}"

        def when_ready() -> None:
            for served in models:
                print(f"{served.id}: {served.engine.description}", file=sys.stderr)
            if token is not None:
                print(
                    'programs send the header "Authorization: Bearer TOKEN"; without https, others '
                    "in the network can read it",
                    file=sys.stderr,
                )
            print(url, flush=True)
            if config.open:
                webbrowser.open(url)

        worker = Worker()
        load = functools.partial(Models, config.models, config.out_dir, config.device, config.dtype)
        try:
            # All PyTorch runs in the worker's thread. Each thread that computes gets a team of
            # OpenMP's threads, and with two teams there are more threads than cores: then OpenMP
            # lets them sleep where they wait for each other, and a step takes twice as long.
            models = worker.compute(load).result()
            make_server(models, worker, address, token, when_ready).run([opened])
        except KeyboardInterrupt:
            # Python would wait for the computation in the worker's thread, which may take long.
            os._exit(130)
