"""Make a run brief where a test is about something else: it draws nothing and writes little.

Each evaluation would take half a second for its picture and nearly as long for its sample: longer
than most of these runs train.
"""

from __future__ import annotations

from minigen.run import log, sample

SAMPLE = 8  # tokens


def make_brief() -> None:
    """Let the runs of this process draw no losses, and write short samples while they learn."""
    log.plot_loss = lambda *_: None
    sample.MAX_TOKENS = SAMPLE
