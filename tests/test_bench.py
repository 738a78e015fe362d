"""bench/: a contender that cannot start says why."""

from __future__ import annotations

import sys

import pytest

from bench.common import start_workers


def test_a_contender_that_cannot_start_is_left_out_with_its_last_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The benchmark prints the last line of the process's standard error, and continues."""
    assert start_workers({"peer": sys.executable}, "bench.no_such_module", [], threads=1) == {}
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("peer: skipped (the process ended with exit code 1: ")
    assert line.endswith("No module named bench.no_such_module)")
