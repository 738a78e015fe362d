"""The JSON body of a request, read field by field; a wrong value is one sentence for the sender."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from minigen.errors import UserError


class Body:
    """The fields of a JSON object; fields that nobody reads are ignored.

    Each method returns the value of a field, or `default` if the field is missing or null, and
    raises `UserError` for a value of another type or outside its range.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    def _get(self, name: str, kinds: tuple[type, ...], noun: str, default: Any) -> Any:
        value = self.fields.get(name)
        if value is None:
            return default
        if type(value) not in kinds:
            raise UserError(f"{name} is not {noun}")
        return value

    def text(self, name: str, default: str | None = "") -> Any:
        """Return a string without lone surrogates."""
        value = self._get(name, (str,), "a string", default)
        if value is not None and re.search("[\ud800-\udfff]", value):
            raise UserError(f"{name} has half of a surrogate pair, which is no character")
        return value

    def switch(self, name: str, default: bool = False) -> bool:
        """Return true or false."""
        return bool(self._get(name, (bool,), "true or false", default))

    def integer(self, name: str, default: int | None, least: int, most: int) -> Any:
        """Return a whole number from `least` to `most`."""
        value = self._get(name, (int,), "a whole number", default)
        if value is not None and not least <= value <= most:
            raise UserError(f"{name} is {value}; give a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a finite number."""
        try:
            value = float(self._get(name, (int, float), "a number", default))
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise UserError(f"{name} is not a finite number")
        return value

    def ids(self, name: str, n_vocab: int) -> list[int]:
        """Return a list of token ids from 0 to n_vocab - 1."""
        value: Sequence[Any] = self._get(name, (list,), "a list of token ids", [])
        if not all(type(id) is int and 0 <= id < n_vocab for id in value):
            raise UserError(f"{name} has something else than token ids from 0 to {n_vocab - 1}")
        return list(value)


async def read_body(request: Request) -> Body:
    """Return the JSON object in the body of a request. Raises `UserError` if there is none."""
    try:
        fields = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise UserError("the body of the request is not JSON") from None
    if not isinstance(fields, dict):
        raise UserError("the body of the request is not a JSON object")
    return Body(fields)
