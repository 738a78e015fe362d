"""The files of the page: nothing else of this machine is ever sent."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PAGE = Path(__file__).parent / "page"
# Python's own table of content types asks the system, and a browser runs no script that a system
# calls plain text.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


def routes(folder: Path = PAGE) -> list[Route]:
    """Return an address for each file of the page, and / for its index.html.

    No address is turned into a path. So no address leads out of the folder, whatever it spells.
    """
    addresses = {f"/{path.relative_to(folder).as_posix()}": path for path in files(folder)}
    addresses["/"] = addresses["/index.html"]
    return [Route(address, _sender(path)) for address, path in addresses.items()]


def files(folder: Path) -> Iterator[Path]:
    """Yield the files of a page in order: of a known type, no links, and none that is hidden."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith("."):
            continue
        if path.is_dir():
            yield from files(path)
        elif path.suffix in TYPES:
            yield path


def _sender(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return the function that answers with a file."""

    async def send_file(request: Request) -> Response:
        content, headers = path.read_bytes(), {"vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            content, headers["content-encoding"] = gzip.compress(content), "gzip"
        return Response(content, headers=headers, media_type=TYPES[path.suffix])

    return send_file
