"""Random chat models: a Qwen3 with control tokens, a chat template and end tokens of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import drawn_tokenizers
import tokenizers
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from minigen.tokenizer import END_OF_TEXT

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def make(folder: Path, generation: dict[str, Any] | None = None, **settings: Any) -> Any:
    """Save a random Qwen3 with the control tokens of a chat; return transformers' model.

    Args:
        generation: the content of generation_config.json; None: no such file.
        settings: fields of tokenizer_config.json.
    """
    saved = json.loads(drawn_tokenizers.trained(True))
    n = len(saved["model"]["vocab"])
    saved["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                        "use_regex": True}  # fmt: skip
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(saved))
    tokenizer.add_special_tokens([END_OF_TEXT, "<|im_start|>", "<|im_end|>"])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=n + 3,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=320,
            tie_word_embeddings=False,
            initializer_range=0.5,
            eos_token_id=n + 2,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    path = folder / "generation_config.json"
    path.unlink(missing_ok=True)
    if generation is not None:
        path.write_text(json.dumps(generation))
    return model
