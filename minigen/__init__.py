"""minigen: a transformer from scratch, to train, sample and read.

>>> import minigen
>>> for piece in minigen.load("out/tales").stream("hero: Sir Fox,"):  # doctest: +SKIP
...     print(piece, end="", flush=True)
>>> write = minigen.pipeline("text-generation", model="out/tales")  # doctest: +SKIP
>>> write("hero: Sir Fox,", max_new_tokens=40)                      # doctest: +SKIP
[{'generated_text': 'hero: Sir Fox, friend: little Owl, ...'}]
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigen.system import threads  # noqa: F401  first: it measures while PyTorch is imported

# isort: split

from minigen.errors import UserError
from minigen.model import GPT, GPTConfig, KVCache

if TYPE_CHECKING:
    from minigen.inference.engine import load
    from minigen.inference.pipeline import pipeline

    __version__: str

__all__ = ["GPT", "GPTConfig", "KVCache", "UserError", "__version__", "load", "pipeline"]


def __getattr__(name: str) -> Any:
    """`load` and `pipeline` bring tokenizers and files, so they are imported at their first use."""
    if name == "__version__":
        return _version()
    if name == "load":
        from minigen.inference.engine import load

        return load
    if name == "pipeline":
        from minigen.inference.pipeline import pipeline

        return pipeline
    raise AttributeError(f"module 'minigen' has no attribute {name!r}")


def _version() -> str:
    """Return the version in the pyproject.toml beside the package, or else as it was installed."""
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    found = re.search(r'^name = "minigen"\nversion = "(.+)"$', text, flags=re.M)
    if found:
        return found[1]
    from importlib import metadata

    return metadata.version("minigen")
