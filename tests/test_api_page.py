"""docs/library.md is true: its blocks run unchanged, and use each public name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from forks import Server
from models import save_untrained

import minigen
from minigen import train_tokenizer

ROOT = Path(minigen.__file__).parents[1]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.S))


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, server: Server) -> None:
    """The blocks run in one process, and the ten steps of training by hand lower the loss."""
    tales = tmp_path / "out" / "tales"  # the run that the page loads
    save_untrained(tales, train_tokenizer("byte", []), block_size=64)
    text = "It was a dark and stormy night, and rain fell.\n" * 60
    (tmp_path / "my.txt").write_text(text, encoding="utf-8")  # that the page trains on
    script = tmp_path / "page.py"
    script.write_text(CODE, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = server.python(script, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"step \d: (.*) nats/token", done.stdout)]
    assert len(losses) == 10 and abs(losses[0] - 5.6) < 0.3 and losses[-1] < losses[0] - 1
    assert "did you mean tales?" in done.stdout


def test_the_page_uses_every_public_name() -> None:
    """Each public name occurs in the page's code, except types that a function returns."""
    assert {name for name in minigen.__all__ if f"minigen.{name}" not in CODE} <= {
        "Engine",  # load makes it
        "Tokenizer",  # train_tokenizer and load make it
        "TrainedRun",  # train returns it
        "__version__",
    }
