"""A sample of the model that is being trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minigen import corpora
from minigen.evaluation.continuations import decode_continuation
from minigen.model import GPT, KVCache
from minigen.sampling import Sampling, generate
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
    prompt = corpora.typed(config.sample_prompt)

    def new_cache(rows: int) -> KVCache:
        return KVCache(model.config, rows, config.block_size, config.device)

    model.eval()
    dtype = config.dtype if config.fsdp else "float32"  # FSDP gathers weights in config.dtype
    with autocast(config.device, dtype):
        steps = generate(
            model,
            new_cache,
            [tokenizer.encode_prompt(prompt, opening)],
            Sampling(temperature=0.8, min_p=0.1),
            n_vocab=tokenizer.n_vocab,
            max_new_tokens=MAX_TOKENS,
            end_of_text=tokenizer.stops,
            seed=config.seed,
        )
        ids = [token.id for (token,) in steps if token]
    model.train()
    return prompt + decode_continuation(ids, tokenizer)
