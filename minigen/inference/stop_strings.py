"""Stop a stream of text at the first of several strings."""

from __future__ import annotations

from collections.abc import Sequence

from minigen.errors import UserError


class StopStrings:
    """Pass a stream of text through up to the first stop string, no part of which comes out.

    Text that may begin a stop string is held back until that is clear, so the result does not
    depend on the pieces in which the text comes. Raises `UserError` for an empty stop string.

    >>> stop = StopStrings(["END"])
    >>> stop.push("The E"), stop.push("agle has landed. EN"), stop.push("D of"), stop.stopped
    ('The ', 'Eagle has landed. ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UserError("a stop string is empty; give at least one character")
        self.stops = sorted(stops, key=len, reverse=True)  # the longest of several that end at once
        self.held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Return the text that is certain now; "" after a stop string."""
        certain = ""
        for character in "" if self.stopped else text:
            self.held += character
            for stop in self.stops:
                if self.held.endswith(stop):
                    self.stopped = True
                    return certain + self.held.removesuffix(stop)
            # From the left, release characters that begin no stop string.
            while self.held and not any(stop.startswith(self.held) for stop in self.stops):
                certain, self.held = certain + self.held[0], self.held[1:]
        return certain

    def finish(self) -> str:
        """Return the text that was held back, as the stream has ended: it was no stop string."""
        return "" if self.stopped else self.held
