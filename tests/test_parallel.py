"""A function applied to many items in threads gives the results of a loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from minigen.system.parallel import map_in_threads


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_items", [0, 1, 30])
def test_results_come_in_the_order_of_the_items(n_threads: int, n_items: int) -> None:
    """A slow item delays the results of later items, but does not change their order."""
    second_done = threading.Event()

    def first_waits_for_second(item: int) -> int:
        if item == 0 and n_threads > 1 and n_items > 1:
            assert second_done.wait(10)
        if item == 1:
            second_done.set()
        return item * item

    results = map_in_threads(first_waits_for_second, range(n_items), n_threads)
    assert list(results) == [item * item for item in range(n_items)]


def test_few_items_are_read_ahead() -> None:
    """At most n_threads + 2 items are read before their results are yielded: memory is bounded."""
    n_read = n_yielded = 0

    def items() -> Iterator[int]:
        nonlocal n_read
        while n_read < 100:
            n_read += 1
            yield n_read

    for _ in map_in_threads(abs, items(), n_threads=3):
        assert n_read - n_yielded <= 3 + 2
        n_yielded += 1
    assert n_yielded == 100


def test_an_error_is_raised_in_the_place_of_its_result() -> None:
    """All results before the failing item are yielded, and no thread is left."""

    def fails_at_five(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    results, n_threads = list[int](), threading.active_count()
    with pytest.raises(ValueError, match="five"):
        for result in map_in_threads(fails_at_five, range(100), n_threads=2):
            results.append(result)
    assert results == [0, 1, 2, 3, 4]
    assert threading.active_count() == n_threads
