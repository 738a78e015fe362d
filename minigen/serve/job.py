"""A request for text, on its way between the thread of the server and the thread of the models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from minigen.inference.engine import Engine
from minigen.sampling import Sampling
from minigen.serve.scores import Score

# Seconds between two deliveries: waking the other thread takes time from the models.
INTERVAL = 0.04


class Written(NamedTuple):
    """A token of a choice.

    offset: the index of the token's first character in the choice's text; of a token that holds
        only part of a character, the index of that character.
    score: None: not asked for, or the first token of a text, which no prediction is about.
    """

    id: int
    offset: int
    score: Score | None


class Part(NamedTuple):
    """A part of a choice: a piece of text, and the tokens that it is from.

    tokens: empty, unless the job asks for log-probabilities.
    finish: "stop": the choice ends with a stop string or an end-of-text token; "length": it is cut
        off; None: more parts follow.
    """

    choice: int
    text: str
    tokens: Sequence[Written]
    finish: str | None


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    text: the text that `echo` shows.
    n_added: the tokens at the beginning that the text does not show, because `Engine.encode` added
        them.
    """

    ids: Sequence[int]
    text: str
    n_added: int = 0


@dataclass(eq=False)
class Job:
    """A request to continue prompts, `n` times each. Choice p * n + k is sample k of prompt p.

    deliver: called in the models' thread with the parts that are ready, and at last with the error
        or None.
    n_logprobs: the most probable tokens to report for each token; None: no log-probabilities.
    streams: deliver parts as they come, not only at the end.
    cancelled: set by any thread; the job then ends before the next token.
    """

    engine: Engine
    prompts: Sequence[Prompt]
    n: int
    sampling: Sampling
    seed: int
    max_new_tokens: int
    stop_strings: Sequence[str] = ()
    n_logprobs: int | None = None
    echo: bool = False
    streams: bool = False
    deliver: Callable[[list[Part], bool, Exception | None], None] = lambda *_: None
    cancelled: bool = False
    started: bool = False  # whether the models have begun to work on it
    ended: bool = False
    parts: list[Part] = field(default_factory=list)  # not yet delivered
    delivered: float = 0.0  # the time of the last delivery
    n_open: int = 0  # choices that have not ended
    n_written: int = 0  # new tokens of all choices
    outgrown: bool = False  # whether a text was longer than the model's context

    def __post_init__(self) -> None:
        self.n_open = len(self.prompts) * self.n

    def put(self, part: Part) -> None:
        """Add a part of the answer."""
        self.parts.append(part)
        if part.finish:
            self.n_open -= 1

    def flush(self) -> None:
        """Deliver the parts: if all choices have ended, or if it is time and the job streams."""
        if self.ended:
            return
        if self.n_open == 0:
            self.end()
        elif self.streams and self.parts and time.monotonic() > self.delivered + INTERVAL:
            parts, self.parts, self.delivered = self.parts, [], time.monotonic()
            self.deliver(parts, False, None)

    def end(self, error: Exception | None = None) -> None:
        """Deliver the last parts, and the error that ended the job."""
        if not self.ended:
            self.ended = True
            self.deliver(self.parts, True, error)
