"""minigen: a transformer from scratch, to train, sample and read.

>>> import minigen
>>> write = minigen.pipeline("text-generation", model="out/tales")  # doctest: +SKIP
>>> write("hero: Sir Fox,", max_new_tokens=40)                      # doctest: +SKIP
[{'generated_text': 'hero: Sir Fox, friend: little Owl, ...'}]

docs/library.md shows how to use each name. A name is imported at its first use, because most need
PyTorch: so `import minigen` takes no time.
"""

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

# This module measures how busy the processors are, to choose the number of threads. It comes first,
# so that it can measure while PyTorch is imported, which takes a second.
from minigen.system import threads  # noqa: F401

if TYPE_CHECKING:
    from minigen.errors import UserError
    from minigen.inference.engine import Engine, load
    from minigen.inference.pipeline import pipeline
    from minigen.loss import next_token_loss
    from minigen.model import GPT, GPTConfig, KVCache
    from minigen.optim import Optimizer
    from minigen.run.library import TrainedRun, train
    from minigen.sampling import Sampling, generate
    from minigen.tokenizer import Tokenizer, train_tokenizer

    __version__: str

__all__ = [
    "GPT",
    "Engine",
    "GPTConfig",
    "KVCache",
    "Optimizer",
    "Sampling",
    "Tokenizer",
    "TrainedRun",
    "UserError",
    "__version__",
    "generate",
    "load",
    "next_token_loss",
    "pipeline",
    "train",
    "train_tokenizer",
]

MODULES = {  # the names that each module defines
    "errors": ("UserError",),
    "inference.engine": ("Engine", "load"),
    "inference.pipeline": ("pipeline",),
    "loss": ("next_token_loss",),
    "model": ("GPT", "GPTConfig", "KVCache"),
    "optim": ("Optimizer",),
    "run.library": ("TrainedRun", "train"),
    "sampling": ("Sampling", "generate"),
    "tokenizer": ("Tokenizer", "train_tokenizer"),
}


def __getattr__(name: str) -> Any:
    """Import and return a public name, at its first use."""
    if name == "__version__":
        return _version()
    for module, names in MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"minigen.{module}"), name)
    raise AttributeError(f"module 'minigen' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, including those that are not imported yet."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Return the version from pyproject.toml beside the package, or of the installed package."""
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    version = re.search(r'^name = "minigen"\nversion = "(.+)"$', text, flags=re.M)
    if version:
        return version[1]
    from importlib import metadata

    return metadata.version("minigen")
