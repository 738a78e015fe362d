"""Stop strings end a text exactly before themselves, however the text is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import UserError
from minigen.inference.stop_strings import StopStrings


def push_all(stops: Sequence[str], pieces: Sequence[str]) -> tuple[list[str], bool]:
    stop = StopStrings(stops)
    out = [stop.push(piece) for piece in pieces]
    return [*out, stop.finish()], stop.stopped


def test_a_stop_string_over_several_tokens_never_shows_a_part_of_itself() -> None:
    assert push_all(["STOP"], ["aS", "T", "O", "Px", "y"]) == (["a", "", "", "", "", ""], True)
    assert push_all(["STOP"], ["aS", "T", "O", "x"]) == (["a", "", "", "STOx", ""], False)
    assert push_all(["STOP"], ["aST"]) == (["a", "ST"], False)
    assert push_all(["aab"], ["aaa", "a", "b"]) == (["a", "a", "", ""], True)
    assert push_all(["b", "ab"], ["cab"]) == (["c", ""], True)  # of two that end here, the longer
    with pytest.raises(UserError, match="empty"):
        StopStrings(["a", ""])


@settings(deadline=None)
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", max_size=3), max_size=12),
)
def test_the_text_ends_exactly_before_the_stop_string_that_is_complete_first(
    stops: list[str], pieces: list[str]
) -> None:
    text = "".join(pieces)
    ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    kept = text[: sum(min(ends))] if ends else text
    out, stopped = push_all(stops, pieces)
    assert "".join(out) == kept
    assert stopped == bool(ends)
    # As soon as it is certain: what is held back could all begin a stop string.
    for n in range(len(pieces)):
        held = "".join(pieces[: n + 1])[len("".join(out[: n + 1])) :]
        assert stopped or not held or any(stop.startswith(held) for stop in stops)
