"""The protocol of a connection: HTTP/1.1 of uvicorn, with limits that uvicorn does not have."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from minigen.serve.answers import content_of_error
from minigen.serve.security import security_headers


class GuardedProtocol(H11Protocol):
    """A connection that closes if a request arrives too slowly, or if there are too many of them.

    uvicorn waits for the rest of a request without end, so a few hundred idle connections could
    use up the files that a process may open. A connection whose answer takes long, or that streams
    an answer, is not closed: only its request has a time. uvicorn itself closes a connection that
    has been idle between two requests for 5 seconds.
    """

    ARRIVAL: ClassVar[float] = 10.0  # seconds for a request to arrive, from its first byte
    MAX_CONNECTIONS: ClassVar[int] = 100  # at once; a browser opens six

    timer: asyncio.TimerHandle | None = None  # runs while a request arrives

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > self.MAX_CONNECTIONS:
            self.refuse(503, "the server has too many connections; close some")
        else:
            self.timer = self.loop.call_later(self.ARRIVAL, self.too_slow)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            if self.timer is None and not self.transport.is_closing():
                self.timer = self.loop.call_later(self.ARRIVAL, self.too_slow)
        else:
            self.stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.stop_timer()
        super().connection_lost(exc)

    def stop_timer(self) -> None:
        """Stop the time of a request, which is complete or will never be."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def too_slow(self) -> None:
        """Close the connection of a request that has not arrived in time."""
        self.timer = None
        self.refuse(408, f"the request did not arrive within {self.ARRIVAL:g} seconds")

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP."""
        self.refuse(400, "the request is not HTTP/1.1")

    def refuse(self, status: int, message: str) -> None:
        """Answer before the application does, if an answer is still possible, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.transport.is_closing():
            content = content_of_error(message)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                (b"connection", b"close"),
                *security_headers("/api/"),
            ]
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
