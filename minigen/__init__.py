"""minigen: a transformer that you can read in an afternoon, train in two minutes on a laptop, and trust."""

from minigen.errors import UserError
from minigen.model import GPT, GPTConfig, KVCache

__all__ = ["GPT", "GPTConfig", "KVCache", "UserError"]
