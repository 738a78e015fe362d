"""The three lines that everyone starts with: a function from prompts to texts.

The words are those of transformers' `pipeline`, and so is the form of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

from minigen.errors import UserError
from minigen.inference.engine import Engine, load, note_context_overflow
from minigen.sampling import Sampling

Texts = list[dict[str, str]]

# What neither a call nor the model's generation_config.json says, as in transformers' pipeline.
DEFAULTS: dict[str, Any] = {
    "do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 1.0, "min_p": 0.0,
    "repetition_penalty": 1.0, "stop_strings": (), "num_return_sequences": 1,
}  # fmt: skip
NEW_TOKENS = 256  # where neither says how long a text gets


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
    return TextGeneration(load(model, device=device))


class TextGeneration:
    """A function that continues prompts; see `__call__`."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.tokenizer = engine, engine.tokenizer
        self.settings = engine.companions.settings(str(engine.path))

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
            max_new_tokens: of each text; 256 if neither this nor max_length is given.
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
        """Return the text that follows each prompt, of at most `limits` tokens each."""
        tokenizer = self.tokenizer
        shown, whole = ([tokenizer.stream() for _ in prompts] for _ in range(2))
        read = [tokenizer.decode(ids) for ids in prompts]  # and on, control tokens too
        texts, finished, noted = [""] * len(prompts), set[int](), False
        for n, step in enumerate(
            self.engine.generate(
                prompts,
                sampling,
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
                if token.n_truncated and not noted:
                    noted = True
                    note_context_overflow(self.engine.model.config.block_size)
                if token.id not in tokenizer.controls:
                    texts[row] += shown[row].push(token.id)
                old = len(read[row])
                read[row] += whole[row].push(token.id)
                # A stop string that was there before had ended the text, or stands in the prompt.
                stopped = any(read[row].find(s, max(0, old + 1 - len(s))) >= 0 for s in stops)
                if n == limits[row] or stopped:
                    finished.add(row)
        return [text + stream.finish() for text, stream in zip(texts, shown, strict=True)]
