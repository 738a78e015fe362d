"""Resume a run from another folder than the one in which it was started."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import train


def resume_elsewhere(run: Path, last: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Delete the checkpoint `last` of a run, and resume the run from a new folder to its end.

    Returns the flags with which the run resumed.
    """
    (run / "best").unlink()
    shutil.rmtree(run / last)
    folder = run.parent.parent / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    words = ["--init_from", "resume", "--name", str(run)]
    assert train.main(words) == 0
    return words
