"""Skip a test where a program or a package that it needs is absent, but never in CI."""

from __future__ import annotations

import importlib
import os
from typing import Any, NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """Skip the test for this reason, or fail it in CI, where nothing may be absent."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}, and CI is true", pytrace=False)
    pytest.skip(reason)


def package(name: str) -> Any:
    """Import the package of a client of the API, from the extra [clients], or skip the test."""
    try:
        return importlib.import_module(name)
    except ImportError:
        absent(f"the package {name} is not installed")
