"""Skip a test where a program or a package that it needs is absent, but never in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """Skip the test for this reason, or fail it in CI, where nothing may be absent."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}, and CI is true", pytrace=False)
    pytest.skip(reason)
