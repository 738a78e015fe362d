"""The server itself: it says where it listens, and ends at once when it is told to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from minigen.serve.address import Address
from minigen.serve.app import application
from minigen.serve.guard import Guard
from minigen.serve.models import Models
from minigen.serve.protocol import GuardedProtocol
from minigen.serve.worker import Worker

LAST_SECONDS = 0.5  # for answers that are under way when the server ends


class Server(uvicorn.Server):
    """uvicorn's server with two more habits.

    Args:
        config: of uvicorn.
        when_ready: is called once the server answers.
    """

    def __init__(self, config: uvicorn.Config, when_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self.when_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all connections, streams too, without waiting for those who still read or ask."""
        transports = [connection.transport for connection in self.server_state.connections]
        for transport in transports:
            transport.close()
        if tasks := list(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=LAST_SECONDS)
        for transport in transports:
            transport.abort()
        for task in self.server_state.tasks:
            task.cancel()
        await super().shutdown(sockets)


def make_server(
    models: Models,
    worker: Worker,
    address: Address,
    token: str | None,
    when_ready: Callable[[], None] = lambda: None,
    protocol: type[GuardedProtocol] = GuardedProtocol,
) -> Server:
    """Return a server that answers with these models; `run` or `serve` takes its socket."""
    config = uvicorn.Config(
        Guard(application(models, worker), address, token),
        http=protocol,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # no proxy stands before this server
    )
    return Server(config, when_ready)
