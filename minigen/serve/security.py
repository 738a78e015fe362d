"""The headers that tell a browser how little it may do with an answer of this server."""

from __future__ import annotations

API = ("/api/", "/v1/")  # beginnings of the addresses of numbers; all others are files of the page

# The page needs nothing from outside, shows in no frame of another page, and sends no form.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",  # a file is what its content type says
    "referrer-policy": "no-referrer",  # no other site learns the address of the page
    "cross-origin-opener-policy": "same-origin",  # a page that opens this one cannot reach it
    "cross-origin-resource-policy": "same-origin",  # another site cannot embed an answer
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def is_api(path: str) -> bool:
    """Return whether an address has numbers, and not a file of the page."""
    return path.startswith(API)


def security_headers(path: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of each answer for an address, errors included.

    A browser keeps no numbers. It may keep a file of the page, but asks for it each time: another
    version of minigen at this address has other files.
    """
    caching = "no-store" if is_api(path) else "no-cache"
    headers = {**HEADERS, "cache-control": caching}
    return [(name.encode(), value.encode()) for name, value in headers.items()]
