"""Where the server listens: the socket, and the names under which it answers."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass

from minigen.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")  # names under which only this machine finds itself


def is_ip(name: str) -> bool:
    """Return whether a name is a number of the Internet Protocol, and not to be looked up."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach a server at `host`."""
    return host == "localhost" or (is_ip(host) and ipaddress.ip_address(host).is_loopback)


def is_wildcard(host: str) -> bool:
    """Return whether a server at `host` listens at all addresses of the machine."""
    return is_ip(host) and ipaddress.ip_address(host).is_unspecified


def with_port(host: str, port: int) -> str:
    """Return a host and a port as they stand in an address and in the header `Host`.

    >>> with_port("localhost", 8000), with_port("::1", 8000)
    ('localhost:8000', '[::1]:8000')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class Address:
    """The host and the port of a server."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address for a browser."""
        host = socket.gethostname() if is_wildcard(self.host) else self.host
        return f"http://{with_port(host, self.port)}"

    def answers_to(self, name: str) -> bool:
        """Return whether the server answers a request with this `Host`.

        A page of another site can give its own name the number of this machine ("DNS rebinding"):
        then the browser takes this server for a part of that site, and sends the site's name. So
        only the server's own names are right, and if it listens at all addresses, any number, as a
        number needs no look-up.

        >>> Address("127.0.0.1", 8000).answers_to("evil.example:8000")
        False
        """
        hosts = [*LOOPBACK, self.host]
        if is_wildcard(self.host):
            hosts.append(socket.gethostname())
            host, _, port = name.rpartition(":")
            if port == str(self.port) and is_ip(host.strip("[]")):
                return True
        own = {with_port(host, self.port).lower() for host in hosts}
        if self.port == 80:  # which a browser leaves out
            own |= {each.removesuffix(":80") for each in own}
        return name.lower() in own


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0: at any free port.

    Raises `UserError` if the host is not of this machine, or if the port is busy.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UserError(f"--host {host} is not known; give an address of this machine") from None
    family, kind, protocol, _, place = found[0]
    opened = socket.socket(family, kind, protocol)
    if os.name == "posix":  # a port is free again as soon as its server has ended
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(place)
        opened.listen(128)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            mend = "give another one, or --port 0 for any free one"
            raise UserError(f"--port {port} is busy; {mend}") from None
        if error.errno == errno.EADDRNOTAVAIL:
            mend = "leave it out, or give 0.0.0.0 for all"
            raise UserError(f"--host {host} is no address of this machine; {mend}") from None
        raise UserError(f"cannot listen at {with_port(host, port)}: {error.strerror}") from None
    return opened
