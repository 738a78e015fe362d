"""Companions: the files of a model besides its weights, config.json and tokenizer.json.

    tokenizer_config.json     the special tokens, and often the chat template
    special_tokens_map.json   the special tokens of older models; so does added_tokens.json
    chat_template.jinja       the chat template
    generation_config.json    the sampling settings, and the ids that end a text

Training does not change these files. So each checkpoint of a fine-tuned model, and each export,
keeps them byte for byte (test_a_checkpoint_keeps_the_companions_of_its_model). It also keeps the
ids of the first, the last and the padding token, and the tokenizer's class, from config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigen.errors import UserError
from minigen.files.safetensors_file import parse_json, plain, read_file
from minigen.system.strict_json import to_json
from minigen.tokenizer import END_OF_TEXT

NAMES = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "generation_config.json",
)  # fmt: skip
MAX_BYTES = 1 << 23  # of one file; a tokenizer_config.json may name thousands of tokens
CLASSES = {"gpt2": "GPT2Tokenizer", "qwen3": "Qwen2Tokenizer"}  # if no file names the class
OF_CLASS = {  # the special tokens that are END_OF_TEXT, unless a file says otherwise
    "GPT2Tokenizer": ("bos_token", "eos_token", "unk_token"),
    "Qwen2Tokenizer": ("eos_token", "unk_token", "pad_token"),
}
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # of the first, the last, the padding token

# The settings in a generation_config.json: those that `minigen.pipeline` computes; those that do
# not change the text; and those that it does not compute, with the values that change nothing.
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
    # Other layouts of the cache give the same text; a quantised cache does not.
    "cache_implementation": ("dynamic", "static", "offloaded", "offloaded_static", "hybrid"),
}  # fmt: skip


@dataclass(frozen=True)
class Companions:
    """The companions of a model; a new model has none."""

    files: Mapping[str, bytes] = field(default_factory=dict)  # name -> content of each file
    kept: Mapping[str, Any] = field(default_factory=dict)  # the fields of config.json to keep
    # The fields of tokenizer_config.json, and the tokenizer's class, perhaps from config.json.
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)  # the model's settings, by name

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a text."""
        ends = self.generation.get("eos_token_id")
        return frozenset(ends if isinstance(ends, list) else () if ends is None else (ends,))

    @property
    def special_tokens(self) -> dict[str, str]:
        """The special tokens that the tokenizer's files name, such as eos_token, by these names.

        Without a file that says otherwise, transformers gives a class of tokenizers its own.
        """
        name = str(self.tokenizer.get("tokenizer_class")).removesuffix("Fast")
        found: dict[str, Any] = dict.fromkeys(OF_CLASS.get(name, ()), END_OF_TEXT)
        for file in ("special_tokens_map.json", "tokenizer_config.json"):
            found |= {
                name: token.get("content") if isinstance(token, dict) else token
                for name, token in self._parsed(file).items()
                if name.endswith("_token")
            }
        return {name: token for name, token in found.items() if isinstance(token, str)}

    @property
    def end(self) -> str | int | None:
        """The token that ends a text, or its id; None if no file names an end token."""
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            token = self._parsed(name).get("eos_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
        return min(self.ends, default=None)

    def settings(self, where: str) -> dict[str, Any]:
        """Return the model's sampling settings that `minigen.pipeline` computes.

        Args:
            where: the model's folder, for an error.

        Raises `UserError` that names the settings that are not computed.
        """
        settings = {name: value for name, value in self.generation.items() if value is not None}
        refused = [
            f"{plain(name)} {plain(value)}"
            for name, value in settings.items()
            if not (name in COMPUTED or name in WITHOUT_EFFECT or name.startswith("_"))
            and value not in NOT_COMPUTED.get(name, ())
        ]
        if refused:
            raise UserError(
                f"{where}: generation_config.json has {', '.join(refused)}, which minigen does "
                "not compute; delete these settings, or generate with transformers"
            )
        return {name: value for name, value in settings.items() if name in COMPUTED}

    def list_differing(self, used: Mapping[str, Any]) -> str:
        """List the model's sampling settings that differ from the ones in use; "" if none does.

        Args:
            used: the settings in use, by name.
        """
        names = used.keys() | NOT_COMPUTED.keys()
        return ", ".join(
            f"{name} {plain(value)}"
            for name, value in self.generation.items()
            if name in names and value not in (None, used.get(name), *NOT_COMPUTED.get(name, ()))
        )

    @property
    def names_class(self) -> bool:
        """Whether tokenizer_config.json itself names the tokenizer's class."""
        return "tokenizer_class" in self._parsed("tokenizer_config.json")

    def _parsed(self, name: str) -> dict[str, Any]:
        return parse_json(self.files[name], name) if name in self.files else {}


def read(model: Path, tokenizer: Path, config: Mapping[str, Any]) -> Companions:
    """Read the companions in a model's folder.

    Args:
        model: the folder with generation_config.json.
        tokenizer: the folder with the other companions. It differs from `model` if an adapter has
            its own tokenizer.
        config: the content of the model's config.json.

    Raises `UserError` if a file is damaged.
    """
    homes = {name: model if name == "generation_config.json" else tokenizer for name in NAMES}
    files = {
        name: read_file(folder / name, MAX_BYTES)
        for name, folder in homes.items()
        if (folder / name).exists()
    }
    return from_files(files, config, str(model))


def from_files(files: Mapping[str, bytes], config: Mapping[str, Any], where: str) -> Companions:
    """Return the companions in files that were read.

    Args:
        files: name -> content of each file.
        config: the content of the model's config.json.
        where: the model's folder, for an error.

    Raises `UserError` if a file is damaged.
    """
    parsed = {
        name: parse_json(content, f"{where}/{name}")
        for name, content in files.items()
        if name.endswith(".json")
    }
    # A model without a first or a last token keeps none: null, or `write_config` would add its own.
    no_ids = dict.fromkeys(("bos_token_id", "eos_token_id"))
    ids = no_ids | {name: value for name, value in config.items() if name in IDS}
    tokenizer_class = config.get("tokenizer_class")
    kept = ids if tokenizer_class is None else {**ids, "tokenizer_class": tokenizer_class}
    all_settings = COMPUTED.keys() | NOT_COMPUTED.keys() | WITHOUT_EFFECT
    # An old model may have its sampling settings in config.json. Then transformers does not take
    # the default ids of its model_type.
    generation = parsed.get("generation_config.json")
    if generation is None:
        generation = {name: value for name, value in config.items() if name in all_settings} | ids
        # `write_config` leaves settings out, so they go into a file of their own.
        if generation.keys() - IDS - WITHOUT_EFFECT:
            content = to_json(generation, indent=2).encode()
            files = {**files, "generation_config.json": content}
    for name, types in COMPUTED.items():
        value = generation.get(name)
        items = value if isinstance(value, list) else [value]
        item_types = tuple(t for t in types if t is not list)
        if value is not None and not (
            type(value) in types and all(type(item) in item_types for item in items)
        ):
            raise UserError(
                f"{where}: {name} is {plain(value)}, which has the wrong type; mend or delete it"
            )
    tokenizer_class = tokenizer_class or CLASSES.get(str(config.get("model_type")))
    tokenizer = {"tokenizer_class": tokenizer_class, **parsed.get("tokenizer_config.json", {})}
    return Companions(files, kept, tokenizer, generation)
