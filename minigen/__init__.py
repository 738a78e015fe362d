"""minigen: a transformer to read in an afternoon, train in two minutes, and trust."""

from minigen.errors import UserError
from minigen.model import GPT, GPTConfig, KVCache

__all__ = ["GPT", "GPTConfig", "KVCache", "UserError"]
