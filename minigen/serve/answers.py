"""The answers that say what is wrong with a request, in the form of OpenAI's errors."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minigen.serve.worker import Busy

INVALID = "invalid_request_error"  # OpenAI's name for a request that its sender can mend
FAULT = "server_error"


def content_of_error(message: str, kind: str = INVALID, code: str | None = None) -> bytes:
    """Return the JSON of an error.

    >>> content_of_error("no text")
    b'{"error": {"message": "no text", "type": "invalid_request_error", "code": null}}'
    """
    return json.dumps({"error": {"message": message, "type": kind, "code": code}}).encode()


def error(
    status: int,
    message: str,
    kind: str = INVALID,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer with an error."""
    content = content_of_error(message, kind, code)
    return Response(content, status, headers, media_type=JSONResponse.media_type)


async def wrong_request(request: Request, cause: Exception) -> Response:
    """Answer 400 and the sentence of a `UserError`."""
    return error(400, str(cause))


async def busy(request: Request, cause: Exception) -> Response:
    """Answer 503 if the queue of the worker is full, and say when to ask again."""
    assert isinstance(cause, Busy)
    message = "the server computes for others, and its queue is full; ask again in a second"
    return error(503, message, FAULT, "busy", {"Retry-After": "1"})


async def no_such_address(request: Request, cause: Exception) -> Response:
    """Answer 404 to an unknown address, and 405 to a method that an address does not take."""
    assert isinstance(cause, HTTPException)
    if cause.status_code == 405:
        methods = (cause.headers or {}).get("Allow", "").split(", ")
        allowed = " or ".join(sorted(methods))
        message = f"{request.url.path} does not take {request.method}, but {allowed}"
    else:
        message = f"there is no {request.url.path} here"
    return error(cause.status_code, message, headers=cause.headers)


async def broken(request: Request, cause: Exception) -> Response:
    """Answer 500 without the cause, which goes to stderr: it may name files of this machine."""
    message = "the server has a fault, which its terminal shows; other requests still work"
    return error(500, message, FAULT)
