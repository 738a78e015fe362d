"""The three lines that everyone starts with: load a model by its name, and let it write.

The words are those of transformers' `pipeline`, and so is the form of the result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch

from minigen.errors import UserError
from minigen.files import checkpoint, huggingface, lora
from minigen.files.companions import Companions
from minigen.inference.cpu import Decoder
from minigen.inference.cuda_graph import GraphDecoder
from minigen.model import GPT, KVCache
from minigen.sampling import Sampling, generate
from minigen.system.device import choose_device
from minigen.tokenizer import Tokenizer

Texts = list[dict[str, str]]

# What neither a call nor the model's generation_config.json says, as in transformers' pipeline.
DEFAULTS: dict[str, Any] = {
    "do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 1.0, "min_p": 0.0,
    "repetition_penalty": 1.0, "stop_strings": (), "num_return_sequences": 1,
}  # fmt: skip
NEW_TOKENS = 256  # where neither says how long a text gets


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, the tokenizer that belongs to it, and what is known of it."""

    path: Path
    model: GPT
    tokenizer: Tokenizer
    state: Mapping[str, Any]  # of a checkpoint: its step, its losses, how it was trained
    # its chat template, how to draw from it, and the like:
    companions: Companions = field(default_factory=Companions)


def load(source: str | Path, dropout: float | None = None, out_dir: str | Path = "out") -> Loaded:
    """A model, with LoRA merged into it, and its tokenizer.

    Args:
        source: a run of train.py by its name or its path (`tales`, `out/tales`: its best
            checkpoint), one checkpoint of it, any other folder that holds a GPT-2 or Qwen3 model,
            or a name such as `gpt2` on the hub. `checkpoint.find` says which it is.
        dropout: for training; None: what the model's config.json says.
        out_dir: where a run that is given by its name is.

    Raises `UserError` if there is no such model, or it is damaged.

    >>> loaded = load("out/tales")                            # doctest: +SKIP
    >>> loaded.tokenizer.encode_prompt("hero:")               # doctest: +SKIP
    [1474, 263, 58]
    """
    found = checkpoint.find(source, out_dir)
    if isinstance(found, Path):
        if checkpoint.steps(found):
            found = checkpoint.best_first(found)[0]  # it, or nothing: it is never replaced
        if checkpoint.is_one(found):
            return from_checkpoint(checkpoint.load(found, to_train=False), dropout)
    other = huggingface.load(found, dropout)
    if other.tokenizer is None:
        raise UserError(f"{other.path} has no tokenizer.json; save the model's tokenizer there")
    return Loaded(other.path, other.model, other.tokenizer, {}, other.companions)


def from_checkpoint(found: checkpoint.Checkpoint, dropout: float | None = None) -> Loaded:
    """The same of a checkpoint that was read."""
    model = found.model(dropout)
    lora.merge(model)
    return Loaded(found.path, model, found.tokenizer, found.state, found.companions)


def pipeline(
    task: str = "text-generation", model: str | Path = "gpt2", device: str = "auto"
) -> TextGeneration:
    """A function from prompts to texts.

    >>> write = pipeline("text-generation", model="gpt2")     # doctest: +SKIP
    >>> write("Hello, I'm a language model,", max_new_tokens=20)  # doctest: +SKIP
    [{'generated_text': "Hello, I'm a language model, ..."}]
    """
    if task != "text-generation":
        raise UserError(f"the task is {task!r}; minigen has 'text-generation'")
    return TextGeneration(load(model), device)


def for_writing(
    model: GPT, device: str = "auto", dtype: str = "float32"
) -> tuple[Decoder | GraphDecoder | GPT, Callable[[int], Callable[[int], KVCache]]]:
    """What writes fastest on the device, with weights of this format: two arguments of `generate`.

    Returns the model as `generate` takes it, and a function: given the tokens of the longest text,
    what makes its caches. `UserError` for a device that is not here, or int8 on a GPU.
    """
    where, config = choose_device(device), model.config
    if where.type != "cpu" and dtype == "int8":
        raise UserError(f"--dtype int8 is for CPUs; on {where}, take bfloat16")
    writer: Decoder | GraphDecoder | GPT
    if where.type == "cpu":
        writer = Decoder(model, dtype)
        number = writer.cache_dtype
    else:
        number = getattr(torch, dtype)
        model.to(where, number)
        writer = GraphDecoder(model) if where.type == "cuda" else model

    def caches(n_tokens: int) -> Callable[[int], KVCache]:
        capacity = min(config.block_size, n_tokens)
        return lambda rows: KVCache(config, rows, capacity, where, number)

    return writer, caches


class TextGeneration:
    """Writes on behind prompts; see `__call__`."""

    def __init__(self, loaded: Loaded, device: str = "auto") -> None:
        self.tokenizer = loaded.tokenizer
        self.settings = loaded.companions.settings(str(loaded.path))
        half = loaded.model.embedding.weight.dtype == torch.bfloat16
        dtype = "bfloat16" if half else "float32"
        self.model, self.cache_for = for_writing(loaded.model, device, dtype)

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        num_return_sequences: int | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | EllipsisType | None = ...,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop_strings: str | Sequence[str] | None = None,
        return_full_text: bool = True,
        seed: int = 0,
    ) -> list[Any]:
        """For a prompt, [{"generated_text": ...}]; for a list of prompts, one such list each.

        A setting that is not given is what the model's generation_config.json says, or else that of
        transformers' pipeline: it draws, at temperature 0.7, from the 50 most probable tokens. A
        text ends at a token that the model's files name as its end, and with the token that ends a
        stop string, even if that begins in the prompt or is a control token. Control tokens in a
        prompt are read as such, and those that the model writes are not shown.

        Args:
            max_new_tokens: of each text; by default 256.
            max_length: the same, with the tokens of the prompt counted in.
            num_return_sequences: texts for each prompt.
            do_sample: False takes the most probable token each time.
            top_k: None or 0: all tokens.
            return_full_text: False leaves the prompt out.
            seed: the same seed gives the same texts, alone or among others.

        Raises `UserError` for settings out of range, and for a prompt that is no text.
        """
        given = {
            "max_new_tokens": max_new_tokens, "max_length": max_length, "do_sample": do_sample,
            "num_return_sequences": num_return_sequences, "temperature": temperature,
            "top_k": 0 if top_k is None else None if top_k is ... else top_k, "top_p": top_p,
            "min_p": min_p, "repetition_penalty": repetition_penalty, "stop_strings": stop_strings,
        }  # fmt: skip
        said = {name: value for name, value in given.items() if value is not None}
        asked = DEFAULTS | self.settings | said
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        for text in texts:
            if not isinstance(text, str):
                raise UserError(
                    f"a prompt is {type(text).__name__}, no text; of the messages of a chat, make "
                    "one with apply_chat_template of transformers' tokenizer"
                )
        ids = [self.tokenizer.encode_prompt(text) for text in texts]
        stops = asked["stop_strings"]
        stops = [stops] if isinstance(stops, str) else list(stops)
        if not all(stops):
            raise UserError("a stop string is empty; give at least one character")
        n_each, do_sample = asked["num_return_sequences"], asked["do_sample"]
        if n_each < 1:
            raise UserError(f"num_return_sequences is {n_each}; give 1 or more")
        if not do_sample and n_each > 1:
            raise UserError("without do_sample all texts are the same; ask for one")
        limits = [asked.get("max_new_tokens", NEW_TOKENS)] * len(ids)
        if "max_new_tokens" not in asked and "max_length" in asked:
            limits = [asked["max_length"] - len(prompt) for prompt in ids]
        if min(limits, default=1) < 1:
            raise UserError("no room for a new token; give more max_new_tokens or max_length")
        sampling = Sampling(
            asked["temperature"] if do_sample else 0.0,
            min(asked["top_k"], self.tokenizer.n_vocab) or None,
            asked["top_p"],
            asked["min_p"],
            asked["repetition_penalty"],
        )
        rows = [n for n in range(len(ids)) for _ in range(n_each)]
        new = self._write([ids[n] for n in rows], [limits[n] for n in rows], stops, sampling, seed)
        results: list[Texts] = [[] for _ in texts]
        for n, text in zip(rows, new, strict=True):
            if not texts[n] and self.tokenizer.bare:  # a first token that is no control token
                text = self._shown(ids[n]) + text
            results[n].append({"generated_text": texts[n] + text if return_full_text else text})
        return results[0] if isinstance(prompts, str) else results

    def _shown(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens."""
        return self.tokenizer.decode(id for id in ids if id not in self.tokenizer.controls)

    def _write(
        self,
        prompts: list[list[int]],
        limits: list[int],
        stops: list[str],
        sampling: Sampling,
        seed: int,
    ) -> list[str]:
        """The new text behind each of the prompts, of at most so many tokens each."""
        config, tokenizer = self.model.config, self.tokenizer
        longest = max((len(p) + n for p, n in zip(prompts, limits, strict=True)), default=1)
        shown, whole = ([tokenizer.stream() for _ in prompts] for _ in range(2))
        read = [tokenizer.decode(ids) for ids in prompts]  # and on, control tokens too
        texts, finished, noted = [""] * len(prompts), set[int](), False
        for n, step in enumerate(
            generate(
                self.model,
                self.cache_for(longest),
                prompts,
                sampling,
                n_vocab=min(tokenizer.n_vocab, config.vocab_size),
                max_new_tokens=max(limits, default=0),
                end_of_text=tokenizer.ends,
                seed=seed,
                finished=finished,
            ),
            start=1,
        ):
            for row, token in enumerate(step):
                if token is None:
                    continue
                if token.forgotten and not noted:
                    noted = True
                    note_forgetting(config.block_size)
                if token.id not in tokenizer.controls:
                    texts[row] += shown[row].push(token.id)
                old = len(read[row])
                read[row] += whole[row].push(token.id)
                # A stop string that was there before had ended the text, or stands in the prompt.
                stopped = any(read[row].find(s, max(0, old + 1 - len(s))) >= 0 for s in stops)
                if n == limits[row] or stopped:
                    finished.add(row)
        return [text + stream.finish() for text, stream in zip(texts, shown, strict=True)]


def note_forgetting(block_size: int) -> None:
    """Say on standard error that a text outgrows what the model can see."""
    print(
        f"\nnote: the text outgrows the {block_size} tokens that the model can see; "
        f"it goes on from the latest {max(1, block_size // 2)} to {block_size}",
        file=sys.stderr,
    )
