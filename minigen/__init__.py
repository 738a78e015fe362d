"""minigen: a transformer from scratch, to train, sample and read.

>>> import minigen
>>> write = minigen.pipeline("text-generation", model="out/tales")  # doctest: +SKIP
>>> write("hero: Sir Fox,", max_new_tokens=40)                      # doctest: +SKIP
[{'generated_text': 'hero: Sir Fox, friend: little Owl, ...'}]
"""

from typing import TYPE_CHECKING, Any

from minigen import threads  # noqa: F401  first: it measures while PyTorch is imported
from minigen.errors import UserError
from minigen.model import GPT, GPTConfig, KVCache

if TYPE_CHECKING:
    from minigen.interface import load, pipeline

__all__ = ["GPT", "GPTConfig", "KVCache", "UserError", "load", "pipeline"]


def __getattr__(name: str) -> Any:
    """`load` and `pipeline` bring tokenizers and files, so they are imported at their first use."""
    if name in ("load", "pipeline"):
        from minigen import interface

        return getattr(interface, name)
    raise AttributeError(f"module 'minigen' has no attribute {name!r}")
