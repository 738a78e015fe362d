"""A sample of the model that is being trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minigen import corpora
from minigen.inference.engine import Engine
from minigen.model import GPT
from minigen.system.device import autocast
from minigen.tokenizer import Tokenizer

if TYPE_CHECKING:
    from train import TrainConfig

MAX_TOKENS = 60


def sample_text(model: GPT, tokenizer: Tokenizer, config: TrainConfig, opening: str) -> str:
    """Return a text that continues --sample_prompt, with the same random numbers at each call.

    Args:
        opening: the text to continue where there is no prompt.
    """
    prompt = corpora.unescape(config.sample_prompt)
    engine = Engine(
        model, tokenizer, state={"opening": opening}, block_size=config.block_size, backend=model
    )
    model.eval()
    dtype = config.dtype if config.fsdp else "float32"  # FSDP gathers weights in config.dtype
    with autocast(config.device, dtype):
        text = "".join(engine.stream(prompt, max_new_tokens=MAX_TOKENS, seed=config.seed))
    model.train()
    return prompt + text
