"""Text generation in three lines: a function from prompts to texts, as in transformers.

Arguments, defaults and results are those of transformers' `pipeline`. In greedy decoding it gives
the same texts (test_greedy_text_is_that_of_transformers).
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

# Settings where neither a call nor the model's generation_config.json gives a value: those of
# transformers' pipeline (test_the_defaults_are_those_of_transformers).
DEFAULTS: dict[str, Any] = {
    "do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 1.0, "min_p": 0.0,
    "repetition_penalty": 1.0, "stop_strings": (), "num_return_sequences": 1,
}  # fmt: skip
NEW_TOKENS = 256  # the length of a text where neither gives one


def pipeline(
    task: str = "text-generation", model: str | Path = "gpt2", device: str = "auto"
) -> TextGeneration:
    """Load a model; return a function from prompts to texts.

    Args:
        task: "text-generation"; there is no other.
        model: a run, a folder or a name on the hub, as `load` takes it.

    Raises `UserError` for another task, and as `load` does.

    >>> write = pipeline("text-generation", model="gpt2")     # doctest: +SKIP
    >>> write("Hello, I'm a language model,", max_new_tokens=20)  # doctest: +SKIP
    [{'generated_text': "Hello, I'm a language model, ..."}]
    """
    if task != "text-generation":
        raise UserError(f"the task is {task!r}; minigen has 'text-generation'")
    return TextGeneration(load(model, device=device))


class TextGeneration:
    """A model, called as a function from prompts to texts."""

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
        """Return [{"generated_text": ...}] for a prompt; for a list of prompts, a list of these.

        A setting that is not given has the value of the model's generation_config.json, or else of
        transformers' pipeline: draw at temperature 0.7 from the 50 most probable tokens. A text
        ends with an end token of the model's files, and with the token that completes a stop
        string, even if the stop string begins in the prompt or is a control token. The name of a
        control token in a prompt becomes that token; control tokens in the result are left out.

        Args:
            max_new_tokens: tokens of each text; 256 if neither this nor max_length is given.
            max_length: tokens of each text together with its prompt.
            num_return_sequences: texts for each prompt.
            do_sample: False takes the most probable token at each step.
            top_k: None or 0: draw from all tokens.
            return_full_text: False leaves the prompt out of the result.
            seed: the same seed gives the same texts to the same list of prompts. A prompt at
                another place in the list has other random numbers.

        Raises `UserError` for a setting out of range, and for a prompt that is not a string.
        """
        arguments = {
            "max_new_tokens": max_new_tokens, "max_length": max_length, "do_sample": do_sample,
            "num_return_sequences": num_return_sequences, "temperature": temperature,
            "top_k": 0 if top_k is None else None if top_k is ... else top_k, "top_p": top_p,
            "min_p": min_p, "repetition_penalty": repetition_penalty, "stop_strings": stop_strings,
        }  # fmt: skip
        given = {name: value for name, value in arguments.items() if value is not None}
        settings = DEFAULTS | self.settings | given
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        for text in texts:
            if not isinstance(text, str):
                raise UserError(
                    f"a prompt is of type {type(text).__name__}; give a text. To turn the messages "
                    "of a chat into one, use apply_chat_template of transformers' tokenizer"
                )
        ids = [self.tokenizer.encode_prompt(text) for text in texts]
        stops = settings["stop_strings"]
        stops = [stops] if isinstance(stops, str) else list(stops)
        if not all(stops):
            raise UserError("a stop string is empty; give at least one character")
        n_each, do_sample = settings["num_return_sequences"], settings["do_sample"]
        if n_each < 1:
            raise UserError(f"num_return_sequences is {n_each}; give 1 or more")
        if not do_sample and n_each > 1:
            raise UserError(
                "with do_sample=False all texts are the same; give num_return_sequences=1"
            )
        limits = [settings.get("max_new_tokens", NEW_TOKENS)] * len(ids)
        if "max_new_tokens" not in settings and "max_length" in settings:
            limits = [settings["max_length"] - len(prompt) for prompt in ids]
        if min(limits, default=1) < 1:
            raise UserError("no room for a new token; give a larger max_new_tokens or max_length")
        sampling = Sampling(
            settings["temperature"] if do_sample else 0.0,
            min(settings["top_k"], self.tokenizer.n_vocab) or None,
            settings["top_p"],
            settings["min_p"],
            settings["repetition_penalty"],
        )
        rows = [n for n in range(len(ids)) for _ in range(n_each)]
        new = self._write([ids[n] for n in rows], [limits[n] for n in rows], stops, sampling, seed)
        results: list[Texts] = [[] for _ in texts]
        for n, text in zip(rows, new, strict=True):
            # An empty prompt of a bare tokenizer is read as a token of text, which is then shown.
            if not texts[n] and self.tokenizer.bare:
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
        # Each text has one decoder for the result, and one for the search for stop strings, which
        # also sees the prompt and control tokens.
        shown, searched = ([tokenizer.stream() for _ in prompts] for _ in range(2))
        full_texts = [tokenizer.decode(ids) for ids in prompts]
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
                old = len(full_texts[row])
                full_texts[row] += searched[row].push(token.id)
                # Search for stop strings that end in the new piece only: one that ended earlier
                # has ended the text, or is part of the prompt.
                starts = [(stop, max(0, old + 1 - len(stop))) for stop in stops]
                stopped = any(full_texts[row].find(stop, at) >= 0 for stop, at in starts)
                if n == limits[row] or stopped:
                    finished.add(row)
        return [text + stream.finish() for text, stream in zip(texts, shown, strict=True)]
