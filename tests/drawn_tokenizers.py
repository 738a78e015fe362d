"""Folders with random tokenizers of the hub: byte-level BPE with each component and setting."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from minigen.tokenizer import END_OF_TEXT

WORDS = (
    "the goat paints two bells near my mule; it's 12345 and they'll sing, won't they?\n"
    "나는 밥을 먹는다. café Ünïcödé ½ ² ﬁ\n\n\tdef f(x):  return x\n"
)
TEXTS = [
    WORDS,
    "The GOAT's bells , rang 1984 times !\r\n\r\n  \n x",
    " cafe\u0301 \u1112\u1161\u11ab 漢字 🙂🇰🇷 İ \xa0 \u200b ",
    "a",
    "",
    " ",
    "\n\n",
]
QWEN_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMES = ["<answer>", "ZORP", " goat", "né", "<|im_start|>", "the", "é", "\n\n", "한", "<s>", "</s>"]


@functools.cache
def trained(regex: bool) -> str:
    """Return a tokenizer.json with the vocabulary and the merges of 300 tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(WORDS.splitlines() * 9, trainer)
    return tokenizer.to_str()


def byte_level(prefix: bool = False, regex: bool = True) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def split(pattern: str, behavior: str = "isolated") -> Any:
    return pre_tokenizers.Split(tokenizers.Regex(pattern), behavior)


# Each component that `tokenizers` has, with some settings.
NORMALIZERS = [
    normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD(),
    normalizers.Lowercase(), normalizers.StripAccents(), normalizers.Strip(True, False),
    normalizers.Replace("goat", "hen"), normalizers.Prepend("_"), normalizers.Nmt(),
    normalizers.BertNormalizer(), normalizers.ByteLevel(),
    normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
]  # fmt: skip
PRE_TOKENIZERS = [
    byte_level(), byte_level(prefix=True), byte_level(regex=False),
    *(pre_tokenizers.Sequence([first, byte_level(regex=False)]) for first in (
        split(QWEN_CUT), split(r"\d", "merged_with_previous"), split(" ", "removed"),
        pre_tokenizers.Digits(True), pre_tokenizers.Punctuation(), pre_tokenizers.Whitespace(),
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.BertPreTokenizer(),
        pre_tokenizers.CharDelimiterSplit("-"), pre_tokenizers.UnicodeScripts(),
        pre_tokenizers.Metaspace(), pre_tokenizers.FixedLength(5),
    )),
    pre_tokenizers.Whitespace(), pre_tokenizers.Metaspace(),
]  # fmt: skip
DECODERS = [
    decoders.ByteLevel(), decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()]),
    decoders.Fuse(), decoders.BPEDecoder(), decoders.WordPiece(), decoders.Metaspace(),
    decoders.ByteFallback(), decoders.CTC(), None,
    decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)]),
    decoders.Sequence([decoders.Replace("a", "b"), decoders.ByteLevel()]),
]  # fmt: skip


def processor(kind: str, first: str, last: str, ids: dict[str, int]) -> Any:
    special = [(name, ids[name]) for name in (first, last)]
    return {
        "none": None,
        "bytes": processors.ByteLevel(trim_offsets=False),
        "first": processors.TemplateProcessing([first, "$A"], None, special[:1]),
        "last": processors.TemplateProcessing(["$A", last], None, special[1:]),
        "both": processors.TemplateProcessing([first, "$A", last], None, special),
        "roberta": processors.RobertaProcessing(special[1], special[0]),
        "bert": processors.BertProcessing(special[1], special[0]),
        "sequence": processors.Sequence(
            [
                processors.ByteLevel(),
                processors.TemplateProcessing([first, "$A"], None, special[:1]),
            ]
        ),
    }[kind]


PROCESSORS = ("none", "bytes", "first", "last", "both", "roberta", "bert", "sequence")


def as_json(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())


def draw(seed: int, folder: Path) -> None:
    """Write the files of a random tokenizer and a config.json, the same ones for each seed."""
    rng = random.Random(f"tokenizer/{seed}")

    def perhaps(share: float) -> bool:
        return rng.random() < share

    saved = json.loads(trained(perhaps(0.7)))
    vocab, n = saved["model"]["vocab"], len(saved["model"]["vocab"])
    names = [END_OF_TEXT] * perhaps(0.85) + rng.sample(NAMES, rng.randint(0, 4))
    rng.shuffle(names)
    saved["added_tokens"] = []
    for name in names or ["<s>"]:
        special = name == END_OF_TEXT or perhaps(0.4)
        flags = {key: perhaps(0.15) for key in ("single_word", "lstrip", "rstrip")}
        token = {"id": n, "content": name, **flags, "normalized": perhaps(0.3), "special": special}
        if perhaps(0.1) or name in vocab:
            vocab.setdefault(name, n)  # as `BpeTrainer` does
            token["id"] = vocab[name]
        n = max(n, token["id"] + 1)
        saved["added_tokens"].append(token)
    saved["added_tokens"].sort(key=lambda token: token["id"])
    ids = {token["content"]: token["id"] for token in saved["added_tokens"]}
    some = [rng.choice([*ids]) for _ in range(4)]
    cuts = PRE_TOKENIZERS[: None if perhaps(0.4) else 4]
    saved["pre_tokenizer"] = as_json(rng.choice(cuts))
    saved["normalizer"] = as_json(rng.choice(NORMALIZERS) if perhaps(0.4) else None)
    kind = rng.choice(PROCESSORS)
    saved["post_processor"] = as_json(processor(kind, some[0], some[1], ids))
    saved["decoder"] = as_json(rng.choice(DECODERS) if perhaps(0.15) else DECODERS[0])
    model = saved["model"]
    model["ignore_merges"], model["fuse_unk"] = perhaps(0.3), perhaps(0.1)
    model["byte_fallback"] = perhaps(0.1)
    model["dropout"] = 0.5 if perhaps(0.03) else None
    model["unk_token"] = some[2] if perhaps(0.1) and some[2] in vocab else None
    model["end_of_word_suffix"] = "@" if perhaps(0.03) else None
    model["continuing_subword_prefix"] = "" if perhaps(0.2) else None
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(saved))
    if perhaps(0.2):
        tokenizer.enable_truncation(rng.choice([4, 16]))
    if perhaps(0.2):
        tokenizer.enable_padding(length=rng.choice([None, 64]), pad_id=0)
    folder.mkdir(parents=True)
    config = {"model_type": rng.choice(["gpt2", "qwen3"]), "vocab_size": 320}
    config["eos_token_id"] = ids[some[3]]
    if perhaps(0.08):
        tokenizer.model.save(str(folder))
    else:
        tokenizer.save(str(folder / "tokenizer.json"))
    if perhaps(0.85):
        settings = settings_of(rng, some, n)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if perhaps(0.08):
        (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": some[0]}))
    if perhaps(0.05):
        (folder / "added_tokens.json").write_text(json.dumps({"<late>": n}))
    (folder / "config.json").write_text(json.dumps(config))


# The fields of tokenizer_config.json, and values to draw; a callable gets names and a size.
FIELDS: dict[str, list[Any]] = {
    "tokenizer_class": ["PreTrainedTokenizerFast"] * 4
    + ["GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "LlamaTokenizer",
       "TokenizersBackend", "NoSuchTokenizer", "ByT5Tokenizer"],
    "eos_token": [lambda s, n: s[0], lambda s, n: {"content": s[0], "__type": "AddedToken",
                  "lstrip": False, "rstrip": True, "normalized": False, "single_word": False}],
    "bos_token": [lambda s, n: s[1], "<new>"],
    "unk_token": [lambda s, n: s[2]],
    "pad_token": [lambda s, n: s[3], "<pad>"],
    "add_bos_token": [True, False],
    "add_eos_token": [True, False],
    "add_prefix_space": [True, False],
    "added_tokens_decoder": [lambda s, n: {str(n): {"content": "<more>", "lstrip": True,
        "rstrip": False, "normalized": False, "single_word": False, "special": True}}],
    "additional_special_tokens": [lambda s, n: [s[0], "<extra>"]],
    "extra_special_tokens": [["<other>"], {"image_token": "<image>"}],
    "clean_up_tokenization_spaces": [True, False],
    "split_special_tokens": [True, False, False],
    "model_max_length": [16, 1000000],
    "chat_template": ["{{ messages[0].content }}"],
    "padding_side": ["left"],
    "truncation_side": ["left"],
    "model_input_names": [["input_ids"]],
    "legacy": [False],
    "errors": ["replace"],
    "mask_token": [lambda s, n: s[1]],
    "trim_offsets": [True],
    "image_token": ["<img>"],
    "max_length": [8],
    "stride": [2],
    "truncation_strategy": ["longest_first"],
    "pad_to_multiple_of": [8],
    "use_default_system_prompt": [False],
}  # fmt: skip


def settings_of(rng: random.Random, names: list[str], n: int) -> dict[str, Any]:
    """Draw the content of a tokenizer_config.json."""
    chosen = ["tokenizer_class"] * (rng.random() < 0.9) + rng.sample(
        [*FIELDS][1:], rng.randint(0, 5)
    )
    settings = {}
    for field in chosen:
        value = rng.choice(FIELDS[field])
        settings[field] = value(names, n) if callable(value) else value
    return settings
