"""Files that belong to a model besides its weights: how it is to be talked to, and where it ends.

    tokenizer_config.json     its special tokens, and often the template of a chat
    special_tokens_map.json   the same in older models; added_tokens.json too
    chat_template.jinja       the template of a chat
    generation_config.json    how to draw from the model, and the ids that end a text

Training does not change these. So a checkpoint keeps them as they are, and what is made of it has
them too. Of config.json the same holds for the ids of the first, the last and the filling token,
and for the class of the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigen.errors import UserError
from minigen.files.safetensors_file import parse_json, plain, read_file
from minigen.system.strict_json import to_json

NAMES = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "generation_config.json",
)  # fmt: skip
MAX_BYTES = 1 << 23  # of one of these; a tokenizer_config.json may name thousands of tokens
CLASSES = {"gpt2": "GPT2Tokenizer", "qwen3": "Qwen2Tokenizer"}  # of a tokenizer that names none
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # of the first, the last, the filling token

# What a generation_config.json may ask for: what `minigen.pipeline` computes; what leaves the text
# as it is; and what it does not compute, with the values that ask for nothing.
COMPUTED: dict[str, tuple[type, ...]] = {
    "max_length": (int,), "max_new_tokens": (int,), "do_sample": (bool,),
    "temperature": (int, float), "top_k": (int,), "top_p": (int, float), "min_p": (int, float),
    "repetition_penalty": (int, float), "num_return_sequences": (int,), "stop_strings": (str, list),
    "bos_token_id": (int,), "eos_token_id": (int, list),
}  # fmt: skip
WITHOUT_EFFECT = {
    "pad_token_id", "transformers_version", "early_stopping", "length_penalty", "use_cache",
    "cache_config", "max_cache_len", "renormalize_logits", "remove_invalid_values",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits",
    "return_dict_in_generate", "is_assistant", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "max_matching_ngram_size",
    "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "compile_config",
    "disable_compile", "continuous_batching_config", "low_memory", "prefill_chunk_size",
    "decoder_start_token_id", "diversity_penalty",
}  # fmt: skip
NOT_COMPUTED: dict[str, tuple[Any, ...]] = {
    "min_length": (0,), "min_new_tokens": (0,), "max_time": (), "num_beams": (1,),
    "num_beam_groups": (1,), "use_mtp": (False,), "top_h": (), "typical_p": (1,),
    "epsilon_cutoff": (0,), "eta_cutoff": (0,), "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,), "bad_words_ids": (),
    "forced_bos_token_id": (), "forced_eos_token_id": (), "exponential_decay_length_penalty": (),
    "suppress_tokens": (), "begin_suppress_tokens": (), "sequence_bias": (),
    "token_healing": (False,), "guidance_scale": (1,), "watermarking_config": (),
    "prompt_lookup_num_tokens": (), "assistant_early_exit": (), "speculation_type": (),
    "penalty_alpha": (0,), "dola_layers": (), "constraints": (), "force_words_ids": (),
    # These lay the cache out otherwise, but compute the same; a quantised one does not.
    "cache_implementation": ("dynamic", "static", "offloaded", "offloaded_static", "hybrid"),
}  # fmt: skip


@dataclass(frozen=True)
class Companions:
    """The companions of a model; by default there are none, as of a model that is new."""

    files: Mapping[str, bytes] = field(default_factory=dict)  # the content of each that is there
    kept: Mapping[str, Any] = field(default_factory=dict)  # of config.json
    # What tokenizer_config.json says, and the class, for which config.json may stand in.
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)  # what the model asks for, by name

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a text."""
        ends = self.generation.get("eos_token_id")
        return frozenset(ends if isinstance(ends, list) else () if ends is None else (ends,))

    @property
    def end(self) -> str | int | None:
        """The token that ends a text, or its id; None if no file names one."""
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            token = self._parsed(name).get("eos_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
        return min(self.ends, default=None)

    def settings(self, where: str) -> dict[str, Any]:
        """What the model asks to be drawn by; `UserError` if that is not computed, by its name."""
        asked = {name: value for name, value in self.generation.items() if value is not None}
        refused = [
            f"{plain(name)} {plain(value)}"
            for name, value in asked.items()
            if not (name in COMPUTED or name in WITHOUT_EFFECT or name.startswith("_"))
            and value not in NOT_COMPUTED.get(name, ())
        ]
        if refused:
            raise UserError(
                f"{where}: generation_config.json asks for {', '.join(refused)}, which minigen "
                "does not compute; take that out, or write with transformers"
            )
        return {name: value for name, value in asked.items() if name in COMPUTED}

    def asked_otherwise(self, used: Mapping[str, Any]) -> str:
        """The settings that the model asks for where other ones are used, as words; "" if none.

        Args:
            used: the value of each setting that is computed.
        """
        names = used.keys() | NOT_COMPUTED.keys()
        return ", ".join(
            f"{name} {plain(value)}"
            for name, value in self.generation.items()
            if name in names and value not in (None, used.get(name), *NOT_COMPUTED.get(name, ()))
        )

    @property
    def names_class(self) -> bool:
        """Whether tokenizer_config.json itself names the class of the tokenizer."""
        return "tokenizer_class" in self._parsed("tokenizer_config.json")

    def _parsed(self, name: str) -> dict[str, Any]:
        return parse_json(self.files[name], name) if name in self.files else {}


def read(model: Path, tokenizer: Path, config: Mapping[str, Any]) -> Companions:
    """Read the companions in a model's folder; `UserError` if a file is damaged.

    Args:
        model: the folder that says how to draw from the model.
        tokenizer: the folder of the tokenizer, and of all that belongs to it. It is another one if
            an adapter has a tokenizer of its own.
        config: the content of the model's config.json.
    """
    homes = {name: model if name == "generation_config.json" else tokenizer for name in NAMES}
    files = {
        name: read_file(folder / name, MAX_BYTES)
        for name, folder in homes.items()
        if (folder / name).exists()
    }
    return of(files, config, str(model))


def of(files: Mapping[str, bytes], config: Mapping[str, Any], where: str) -> Companions:
    """The same of files that were read."""
    parsed = {
        name: parse_json(content, f"{where}/{name}")
        for name, content in files.items()
        if name.endswith(".json")
    }
    # A model without a first or a last token stays so, whatever fills the gap in a new one.
    unsaid = dict.fromkeys(("bos_token_id", "eos_token_id"))
    ids = unsaid | {name: value for name, value in config.items() if name in IDS}
    named = config.get("tokenizer_class")
    kept = ids if named is None else {**ids, "tokenizer_class": named}
    known = COMPUTED.keys() | NOT_COMPUTED.keys() | WITHOUT_EFFECT
    # An old model may say in its config.json how to draw from it. transformers takes no default
    # ids of a model_type then.
    generation = parsed.get("generation_config.json")
    if generation is None:
        generation = {name: value for name, value in config.items() if name in known} | ids
        if generation.keys() - IDS - WITHOUT_EFFECT:  # as a config.json of ours leaves them out
            content = to_json(generation, indent=2).encode()
            files = {**files, "generation_config.json": content}
    for name, types in COMPUTED.items():
        value = generation.get(name)
        listed = value if isinstance(value, list) else [value]
        inner = tuple(t for t in types if t is not list)
        if value is not None and not (
            type(value) in types and all(type(one) in inner for one in listed)
        ):
            raise UserError(f"{where}: {name} is {plain(value)}; that is no setting of a model")
    named = named or CLASSES.get(str(config.get("model_type")))
    tokenizer = {"tokenizer_class": named, **parsed.get("tokenizer_config.json", {})}
    return Companions(files, kept, tokenizer, generation)
