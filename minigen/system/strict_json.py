"""Write JSON that every parser reads: a non-finite number is written as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON; NaN and the infinities, which JSON does not have, become null.

    >>> to_json({"loss": float("inf"), "losses": [1.5, float("nan")]})
    '{"loss": null, "losses": [1.5, null]}'
    """
    value = _finite(value)
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # the name of a file that is not UTF-8
        text = json.dumps(value, indent=indent, allow_nan=False)
    return text


def _finite(value: Any) -> Any:
    """Return a copy of a value in which non-finite floats, at any depth, are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
