"""Sample a model during training, so that its progress can be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minigen import corpora
from minigen.inference.engine import Engine
from minigen.model import GPT
from minigen.system.device import autocast
from minigen.tokenizer import Tokenizer

if TYPE_CHECKING:
    from train import TrainConfig

MAX_TOKENS = 60


def sample_text(
    model: GPT, tokenizer: Tokenizer, config: TrainConfig, opening: str, example: str = ""
) -> str:
    """Return --sample_prompt and a continuation of at most `MAX_TOKENS` tokens.

    The random numbers are the same at each call. So samples of two evaluations differ only because
    the model has changed.

    Args:
        opening: the text to continue if --sample_prompt is empty.
        example: the prompt if --sample_prompt is empty, for a model that learns to answer.
    """
    prompt = corpora.unescape(config.sample_prompt) or example
    with engine_in_training(model, tokenizer, config, opening) as engine:
        text = "".join(engine.stream(prompt, max_new_tokens=MAX_TOKENS, seed=config.seed))
    return prompt + text


@contextlib.contextmanager
def engine_in_training(
    model: GPT, tokenizer: Tokenizer, config: TrainConfig, opening: str = ""
) -> Iterator[Engine]:
    """Yield an engine that writes with the present weights of a model, which then trains on."""
    engine = Engine(
        model, tokenizer, state={"opening": opening}, block_size=config.block_size, backend=model
    )
    model.eval()
    dtype = config.dtype if config.fsdp else "float32"  # FSDP gathers weights in config.dtype
    with autocast(config.device, dtype):
        yield engine
    model.train()
