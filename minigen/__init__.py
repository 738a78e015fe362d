"""minigen: a transformer from scratch, to train, sample and read.

>>> import minigen
>>> write = minigen.pipeline("text-generation", model="out/tales")  # doctest: +SKIP
>>> write("hero: Sir Fox,", max_new_tokens=40)                      # doctest: +SKIP
[{'generated_text': 'hero: Sir Fox, friend: little Owl, ...'}]

docs/library.md shows every name in use. A name is imported when it is first used, so that this
package costs nothing to import.
"""

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Every import of a part of minigen begins here, so this one begins to measure how busy the machine
# is before any other imports PyTorch, which takes long enough to tell.
from minigen.system import threads  # noqa: F401

if TYPE_CHECKING:
    from minigen.errors import UserError
    from minigen.inference.engine import Engine, load
    from minigen.inference.pipeline import pipeline
    from minigen.loss import next_token_loss
    from minigen.model import GPT, GPTConfig, KVCache
    from minigen.optim import Optimizer
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
    "UserError",
    "__version__",
    "generate",
    "load",
    "next_token_loss",
    "pipeline",
    "train_tokenizer",
]

HOMES = {  # the module of each name
    "errors": ("UserError",),
    "inference.engine": ("Engine", "load"),
    "inference.pipeline": ("pipeline",),
    "loss": ("next_token_loss",),
    "model": ("GPT", "GPTConfig", "KVCache"),
    "optim": ("Optimizer",),
    "sampling": ("Sampling", "generate"),
    "tokenizer": ("Tokenizer", "train_tokenizer"),
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: most bring PyTorch, which takes a second."""
    if name == "__version__":
        return _version()
    for module, names in HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"minigen.{module}"), name)
    raise AttributeError(f"module 'minigen' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, also those that were not used yet."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Return the version in the pyproject.toml beside the package, or else as it was installed."""
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    found = re.search(r'^name = "minigen"\nversion = "(.+)"$', text, flags=re.M)
    if found:
        return found[1]
    from importlib import metadata

    return metadata.version("minigen")
