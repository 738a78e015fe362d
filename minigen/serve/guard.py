"""The guard before the application: who may ask, and how much they may send.

A server on this machine can be reached by each page that its user's browser shows. So the guard
refuses the requests of other pages, and reads no more than a request may have:

    the name    `Host` names this server, not a site whose name leads here    421
    the page    `Origin` and `Sec-Fetch-Site` name this server's own page     403
    the token   `Authorization` has the token, if the server has one          401
    the size    the body has at most `MAX_BODY` bytes                         413

A program sends no `Origin`, so it passes. There are no CORS headers, so no other page may read an
answer. The time in which a request has to arrive is limited in protocol.py.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minigen.serve import answers
from minigen.serve.address import Address
from minigen.serve.security import is_api, security_headers

MAX_BODY = 1_000_000  # bytes


class TooLarge(Exception):
    """A body with more than `MAX_BODY` bytes."""


@dataclass(frozen=True)
class Guard:
    """An ASGI application that refuses requests, or hands them on with their whole body.

    Args:
        app: the application that answers the others.
        address: of the server.
        token: that each request for numbers has to have; None: none is needed.
    """

    app: ASGIApp
    address: Address
    token: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # the start and the end of the server
            await self.app(scope, receive, send)
            return
        send = with_headers(send, security_headers(scope["path"]))
        refused = self.refusal(scope)
        try:
            body = None if refused else await read(scope, receive)
            if refused is None and body is None:
                return  # the sender has gone
        except TooLarge:
            refused = answers.error(413, f"the request has more than {MAX_BODY:,} bytes")
        try:
            if refused is not None:
                await refused(scope, receive, send)
            else:
                await self.app(scope, replayed(body or b"", receive), send)
        except asyncio.CancelledError:
            return  # the server ends, and the connection is closed already

    def refusal(self, scope: Scope) -> Response | None:
        """Return why a request is refused; None: it is not."""
        headers, path = Headers(scope=scope), str(scope["path"])
        if not self.address.answers_to(headers.get("host", "")):
            return answers.error(421, f"this server answers at {self.address.url} only")
        if is_of_other_page(headers, path):
            return answers.error(403, "a page of another site may not use this server")
        if self.token is not None and is_api(path) and not has_token(headers, self.token):
            message = "this server needs its token: Authorization: Bearer TOKEN"
            return answers.error(401, message, headers={"WWW-Authenticate": "Bearer"})
        return None


def is_of_other_page(headers: Headers, path: str) -> bool:
    """Return whether a browser sends the request for a page of another site.

    `Origin` names the site of the page, "null" if the site is to be hidden. Simple requests, such
    as that of an image, have none; new browsers then send `Sec-Fetch-Site`. A link from another
    site may lead to this page, but not to numbers.
    """
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{headers['host']}".lower():
        return True
    site = headers.get("sec-fetch-site", "none")
    return is_api(path) and site not in ("same-origin", "none")


def has_token(headers: Headers, token: str) -> bool:
    """Return whether the request has the token, in a time that does not depend on the token."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # Headers are decoded as Latin-1, so this gives back the bytes that were sent.
    same = secrets.compare_digest(given.strip().encode("latin-1"), token.encode("utf-8"))
    return same and scheme.lower() == "bearer"


async def read(scope: Scope, receive: Receive) -> bytes | None:
    """Return the whole body of a request; None if the sender has gone.

    Raises `TooLarge` as soon as the body is longer than allowed, or says that it will be.
    """
    # The protocol has checked that the length is a number.
    if int(Headers(scope=scope).get("content-length", "0")) > MAX_BODY:
        raise TooLarge
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise TooLarge
    return body


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a function that gives the whole body first, and then what `receive` gives."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


def with_headers(send: Send, headers: Iterable[tuple[bytes, bytes]]) -> Send:
    """Return a function that sends an answer with more headers."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return send_with_headers
