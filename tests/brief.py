"""Make a run brief where a test is about something else: it draws nothing and writes little.

Each evaluation would take half a second for its picture and nearly as long for its sample: longer
than most of these runs train.
"""

from __future__ import annotations

from functools import partial

import train
from minigen.run import log

SAMPLE = 8  # tokens


def make_brief() -> None:
    """Let the runs of this process draw no losses, and write short samples while they learn."""
    log.plot_loss = lambda *_: None
    train.live_sample = partial(train.live_sample, limit=SAMPLE)  # type: ignore[assignment]
