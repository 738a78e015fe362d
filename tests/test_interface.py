"""minigen.inference.pipeline: it gives the results of transformers' pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models import random_model

import minigen
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.files.export import export
from minigen.inference.pipeline import DEFAULTS, NEW_TOKENS, TextGeneration
from minigen.model import GPTConfig
from minigen.tokenizer import train_tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TOKENIZER = train_tokenizer("bpe", ["the cat sat on the mat and sang a song " * 9], vocab_size=280)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two random models, of which the first has the lower validation loss."""
    folder = tmp_path_factory.mktemp("run")
    for step in (1, 2):
        model = random_model(GPTConfig.modern(TOKENIZER.n_vocab, 64, 2, 2, 16), step, std=0.4)
        checkpoint.save(folder, model, TOKENIZER, {}, {"step": step, "val_loss": float(step)})
    return folder


@pytest.fixture(scope="module")
def write(run: Path) -> TextGeneration:
    """Return minigen's pipeline over the run."""
    return minigen.pipeline("text-generation", model=run, device="cpu")


@pytest.fixture(scope="module")
def hf_write(run: Path) -> Any:
    """Return transformers' pipeline over the best checkpoint of the run."""
    return transformers.pipeline("text-generation", model=str(run / "step-000001"))


@pytest.mark.parametrize(
    "prompts, settings",
    [
        ("the cat", {"max_new_tokens": 20}),
        ("the cat", {"max_new_tokens": 20, "return_full_text": False}),
        (["the cat", "a", "and sang a song on the mat"], {"max_new_tokens": 12}),
        (["the cat"], {"max_new_tokens": 5, "num_return_sequences": 1}),
        ("나는 🙂", {"max_new_tokens": 9, "repetition_penalty": 1.3}),
    ],
)
def test_greedy_text_is_that_of_transformers(
    write: TextGeneration, hf_write: Any, prompts: Any, settings: dict[str, Any]
) -> None:
    """Equal calls return equal texts, in equal lists and dictionaries."""
    settings = {"do_sample": False, **settings}
    assert write(prompts, **settings) == hf_write(prompts, **settings)


def test_max_length_counts_the_prompt(write: TextGeneration) -> None:
    """A text has max_length tokens at most, together with its own prompt."""
    for prompt in ("the cat", "and sang a song on"):
        n = 24 - len(TOKENIZER.encode_prompt(prompt))
        counted = write(prompt, do_sample=False, max_new_tokens=n)
        assert write([prompt, "a"], do_sample=False, max_length=24)[0] == counted


def test_a_seed_decides_a_text(write: TextGeneration) -> None:
    """The first text of a batch is the text alone; other seeds and numbers give other texts."""
    three = write("the cat", max_new_tokens=15, num_return_sequences=3, temperature=1.0)
    assert write("the cat", max_new_tokens=15, temperature=1.0) == three[:1]
    assert write(["the cat", "a dog"], max_new_tokens=15, temperature=1.0)[0] == three[:1]
    assert len({one["generated_text"] for one in three}) == 3
    other = write("the cat", max_new_tokens=15, temperature=1.0, seed=1)
    assert other != three[:1]


def test_the_defaults_are_those_of_transformers() -> None:
    """minigen and transformers draw at temperature 0.7 from 50 tokens, and write at most 256."""
    config = transformers.TextGenerationPipeline._default_generation_config
    assert DEFAULTS["do_sample"] is config.do_sample is True
    assert DEFAULTS["temperature"] == config.temperature == 0.7
    assert config.max_new_tokens == NEW_TOKENS == 256
    # Where the pipeline gives no top_k, generate() of transformers uses 50.
    assert DEFAULTS["top_k"] == 50
    assert (config.top_k if config.top_k is not None else 50) == 50


def test_stop_strings_end_a_text_as_in_transformers(write: TextGeneration, hf_write: Any) -> None:
    """The token that completes a stop string is the last token, and is shown in full."""
    ask: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30, "return_full_text": False}
    (full,) = write("the", **ask)
    ask["stop_strings"] = full["generated_text"][3:5]
    assert write("the", **ask) == hf_write("the", **ask, tokenizer=hf_write.tokenizer)


def test_a_text_longer_than_the_context_continues_with_a_note(
    write: TextGeneration, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with a context of 64 tokens writes 100 and says so; transformers does not do this."""
    (text,) = write("the cat", max_new_tokens=100, do_sample=False)
    assert "context of 64 tokens" in capsys.readouterr().err
    assert len(TOKENIZER.encode(text["generated_text"])) > 80


def test_load_takes_runs_and_checkpoints_and_models(run: Path, tmp_path: Path) -> None:
    """A run means its best checkpoint, a checkpoint itself, and any other folder a model."""
    assert minigen.load(run).state["step"] == 1
    assert minigen.load(str(run / "step-000002")).state["step"] == 2
    plain = export(run, tmp_path / "plain")
    loaded, best = minigen.load(plain), minigen.load(run)
    assert loaded.state == {} and not loaded.model.training
    assert loaded.tokenizer.fingerprint == best.tokenizer.fingerprint
    ids = torch.tensor([TOKENIZER.encode("the cat")])
    assert torch.equal(loaded.model(ids), best.model(ids))


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"num_return_sequences": 0}, "num_return_sequences is 0"),
        ({"num_return_sequences": 2, "do_sample": False}, "all texts are the same"),
        ({"max_new_tokens": 0}, "no room"),
        ({"max_length": 2}, "no room"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"stop_strings": ""}, "stop string is empty"),
    ],
)
def test_settings_out_of_range_are_refused(
    write: TextGeneration, settings: dict[str, Any], complaint: str
) -> None:
    """A wrong setting is refused, and the error names the setting or the reason."""
    with pytest.raises(UserError, match=complaint):
        write("the cat", **settings)


def test_a_missing_model_and_an_unknown_task_are_refused(tmp_path: Path) -> None:
    """The error for a missing folder names it, and that for an unknown task names the known one."""
    with pytest.raises(UserError, match="there is no folder"):
        minigen.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="'text-generation'"):
        minigen.pipeline("summarization", model=tmp_path)


def test_a_prompt_that_is_not_a_string_is_refused(write: TextGeneration) -> None:
    """A prompt that is a message of a chat is refused; the error says how to make it a string."""
    with pytest.raises(UserError, match=r"a prompt is of type dict; .* apply_chat_template"):
        write([{"role": "user", "content": "a"}])  # type: ignore[list-item]


def test_no_prompts_give_no_texts(write: TextGeneration) -> None:
    """An empty list of prompts gives an empty list."""
    assert write([]) == []
