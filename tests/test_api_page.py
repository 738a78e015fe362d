"""docs/library.md is true: its blocks run unchanged, and use each public name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from models import save_untrained

import minigen
from minigen import train_tokenizer

ROOT = Path(minigen.__file__).parents[1]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.S))


def test_the_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """The blocks run in one process, and the ten steps of training by hand lower the loss."""
    tales = tmp_path / "out" / "tales"  # the run that the page loads
    save_untrained(tales, train_tokenizer("byte", []), block_size=64)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{CODE}"],
        cwd=tmp_path, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"step \d: (.*) nats/token", done.stdout)]
    assert len(losses) == 10 and abs(losses[0] - 5.6) < 0.3 and losses[-1] < losses[0] - 1
    assert "did you mean tales?" in done.stdout


def test_the_page_uses_every_public_name() -> None:
    """Each public name occurs in the page's code, except types that a function returns."""
    assert {name for name in minigen.__all__ if f"minigen.{name}" not in CODE} <= {
        "Engine",  # load makes it
        "Tokenizer",  # train_tokenizer and load make it
        "__version__",
    }
