"""The three lines that everyone starts with: what transformers' pipeline gives, ours gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import minigen
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.files.export import export
from minigen.inference.pipeline import DEFAULTS, NEW_TOKENS, TextGeneration
from minigen.model import GPT, GPTConfig
from minigen.tokenizer import train_tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TOKENIZER = train_tokenizer("bpe", ["the cat sat on the mat and sang a song " * 9], vocab_size=280)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints of random models; the first has the lower validation loss."""
    folder = tmp_path_factory.mktemp("run")
    for step in (1, 2):
        torch.manual_seed(step)
        model = GPT(GPTConfig.modern(TOKENIZER.n_vocab, 64, 2, 2, 16))
        for p in model.parameters():
            torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=0.4)
        checkpoint.save(folder, model, TOKENIZER, {}, {"step": step, "val_loss": float(step)})
    return folder


@pytest.fixture(scope="module")
def write(run: Path) -> TextGeneration:
    return minigen.pipeline("text-generation", model=run, device="cpu")


@pytest.fixture(scope="module")
def theirs(run: Path) -> Any:
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
    write: TextGeneration, theirs: Any, prompts: Any, settings: dict[str, Any]
) -> None:
    """The same call gives the same value, form and all."""
    assert write(prompts, do_sample=False, **settings) == theirs(
        prompts, do_sample=False, **settings
    )


def test_max_length_counts_the_prompt(write: TextGeneration) -> None:
    """As many tokens as are left beside those of each prompt."""
    for prompt in ("the cat", "and sang a song on"):
        n = 24 - len(TOKENIZER.encode_prompt(prompt))
        counted = write(prompt, do_sample=False, max_new_tokens=n)
        assert write([prompt, "a"], do_sample=False, max_length=24)[0] == counted


def test_a_seed_is_a_text(write: TextGeneration) -> None:
    """The same alone and among others; another seed, another text; n sequences all differ."""
    three = write("the cat", max_new_tokens=15, num_return_sequences=3, temperature=1.0)
    assert write("the cat", max_new_tokens=15, temperature=1.0) == three[:1]
    assert write(["the cat", "a dog"], max_new_tokens=15, temperature=1.0)[0] == three[:1]
    assert len({one["generated_text"] for one in three}) == 3
    other = write("the cat", max_new_tokens=15, temperature=1.0, seed=1)
    assert other != three[:1]


def test_the_defaults_are_those_of_the_other_pipeline() -> None:
    """Drawn at temperature 0.7 from the 50 most probable, at most 256 tokens."""
    known = transformers.TextGenerationPipeline._default_generation_config
    assert DEFAULTS["do_sample"] is known.do_sample is True
    assert DEFAULTS["temperature"] == known.temperature == 0.7
    assert known.max_new_tokens == NEW_TOKENS == 256
    # top_k is the hidden one: nobody asks for it, and generate() takes 50.
    assert DEFAULTS["top_k"] == 50
    assert (known.top_k if known.top_k is not None else 50) == 50


def test_stop_strings_end_a_text(write: TextGeneration, theirs: Any) -> None:
    """As in transformers, the token that ends a stop string is the text's end, as a whole."""
    ask: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30, "return_full_text": False}
    (whole,) = write("the", **ask)
    ask["stop_strings"] = whole["generated_text"][3:5]
    assert write("the", **ask) == theirs("the", **ask, tokenizer=theirs.tokenizer)


def test_longer_than_the_context_goes_on(
    write: TextGeneration, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 new tokens from a model that sees 64, and a note: transformers would not cut."""
    (text,) = write("the cat", max_new_tokens=100, do_sample=False)
    assert "outgrows the 64 tokens" in capsys.readouterr().err
    assert len(TOKENIZER.encode(text["generated_text"])) > 80


def test_load_takes_runs_and_checkpoints_and_models(run: Path, tmp_path: Path) -> None:
    """A run means its best checkpoint; a checkpoint itself; a plain folder is a model as well."""
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
def test_settings_out_of_range(
    write: TextGeneration, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        write("the cat", **settings)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        minigen.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="'text-generation'"):
        minigen.pipeline("summarization", model=tmp_path)


def test_a_prompt_that_is_no_text(write: TextGeneration) -> None:
    """One line tells how the messages of a chat become one."""
    with pytest.raises(UserError, match=r"a prompt is dict, no text; .* apply_chat_template"):
        write([{"role": "user", "content": "a"}])  # type: ignore[list-item]


def test_no_prompts_are_no_texts(write: TextGeneration) -> None:
    assert write([]) == []
