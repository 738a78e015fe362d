"""minigen.inference.stop_strings: a text ends exactly before its first stop string."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import UserError
from minigen.inference.stop_strings import StopStrings


def push_all(stops: Sequence[str], pieces: Sequence[str]) -> tuple[list[str], bool]:
    """Return the outputs for each piece and for the end, and whether a stop string came."""
    stop = StopStrings(stops)
    out = [stop.push(piece) for piece in pieces]
    return [*out, stop.finish()], stop.stopped


def test_no_part_of_a_stop_string_is_shown_if_several_tokens_spell_it() -> None:
    """The text before a stop string comes out, and of two that end at once the longer counts."""
    assert push_all(["STOP"], ["aS", "T", "O", "Px", "y"]) == (["a", "", "", "", "", ""], True)
    assert push_all(["STOP"], ["aS", "T", "O", "x"]) == (["a", "", "", "STOx", ""], False)
    assert push_all(["STOP"], ["aST"]) == (["a", "ST"], False)
    assert push_all(["aab"], ["aaa", "a", "b"]) == (["a", "a", "", ""], True)
    assert push_all(["b", "ab"], ["cab"]) == (["c", ""], True)


def test_an_empty_stop_string_is_refused() -> None:
    """An empty stop string is refused, as it would end each text before its first character."""
    with pytest.raises(UserError, match="empty"):
        StopStrings(["a", ""])


@settings(deadline=None)
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", max_size=3), max_size=12),
)
def test_a_text_ends_before_the_stop_string_that_is_complete_first(
    stops: list[str], pieces: list[str]
) -> None:
    """The end does not depend on the pieces, and each character is shown as soon as possible."""
    text = "".join(pieces)
    ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    kept = text[: sum(min(ends))] if ends else text
    out, stopped = push_all(stops, pieces)
    assert "".join(out) == kept
    assert stopped == bool(ends)
    # Each character comes out as soon as possible: held-back text always begins a stop string.
    for n in range(len(pieces)):
        held = "".join(pieces[: n + 1])[len("".join(out[: n + 1])) :]
        assert stopped or not held or any(stop.startswith(held) for stop in stops)
