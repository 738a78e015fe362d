"""Threads share out a sequence of items, and nobody can tell from the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from minigen.system.parallel import map_in_threads


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_items", [0, 1, 30])
def test_results_come_in_the_order_of_the_items(n_threads: int, n_items: int) -> None:
    """Whatever takes longer, and in whichever thread."""

    def slow_first(item: int) -> int:
        time.sleep(0.002 * (item % 3 == 0))
        return item * item

    results = map_in_threads(slow_first, range(n_items), n_threads)
    assert list(results) == [item * item for item in range(n_items)]


def test_few_items_are_read_ahead() -> None:
    """So that memory does not grow with their number."""
    n_read = n_seen = 0

    def items() -> Iterator[int]:
        nonlocal n_read
        while n_read < 100:
            n_read += 1
            yield n_read

    for _ in map_in_threads(abs, items(), n_threads=3):
        n_seen += 1
        assert n_read - n_seen <= 3 + 1
    assert n_seen == 100


def test_the_first_failure_ends_it_at_its_place() -> None:
    """The results before it have come, and no thread is left."""

    def fails_at_five(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    results, before = list[int](), threading.active_count()
    with pytest.raises(ValueError, match="five"):
        for result in map_in_threads(fails_at_five, range(100), n_threads=2):
            results.append(result)
    assert results == [0, 1, 2, 3, 4]
    assert threading.active_count() == before
