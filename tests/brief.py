"""Make runs brief in tests that are about something else: no plots, and short samples.

At each evaluation, the plot would take half a second and the sample nearly as long: longer than
most of these runs train.
"""

from __future__ import annotations

from minigen.run import log, sample

SAMPLE = 8  # tokens of a sample


def make_brief() -> None:
    """Make the runs of this process draw no plots and write samples of SAMPLE tokens."""
    log.plot_loss = lambda *_: None
    sample.MAX_TOKENS = SAMPLE
