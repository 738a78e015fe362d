"""End a stream of text before the first of several strings."""

from __future__ import annotations

from collections.abc import Sequence

from minigen.errors import UserError


class StopStrings:
    """A filter that passes a stream of text on, up to the first stop string.

    Text that may begin a stop string is held back until the next characters decide it. So no part
    of a stop string is passed on, and the result does not depend on how the stream is cut into
    pieces. Raises `UserError` for an empty stop string.

    >>> stop = StopStrings(["END"])
    >>> stop.push("The E"), stop.push("agle has landed. EN"), stop.push("D of"), stop.stopped
    ('The ', 'Eagle has landed. ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UserError("a stop string is empty; give at least one character")
        self.stops = sorted(stops, key=len, reverse=True)  # the longest of several that end at once
        self.pending = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Add text to the stream. Return the text that can belong to no stop string any more.

        After a stop string, returns "".
        """
        if not self.stops:
            return text
        released = ""
        for character in "" if self.stopped else text:
            self.pending += character
            for stop in self.stops:
                if self.pending.endswith(stop):
                    self.stopped = True
                    return released + self.pending.removesuffix(stop)
            # From the left, release characters that begin no stop string.
            while self.pending and not any(stop.startswith(self.pending) for stop in self.stops):
                released, self.pending = released + self.pending[0], self.pending[1:]
        return released

    def finish(self) -> str:
        """End the stream. Return the text that was held back, because it began no stop string."""
        return "" if self.stopped else self.pending
