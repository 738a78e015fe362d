"""The memory and the time that one request can cost others are bounded, whatever it asks for."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from models import save_untrained
from serving import serving

from minigen.inference.engine import load
from minigen.serve.address import Address
from minigen.serve.models import Models
from minigen.serve.token_names import token_names
from minigen.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an untrained model."""
    out = tmp_path_factory.mktemp("bounds")
    save_untrained(out / "letters", train_tokenizer("char", ["abc\n"]))
    return out


@pytest.fixture(scope="module")
def address(out: Path) -> Iterator[Address]:
    """Return the address of a server."""
    with serving(Models((), str(out), "cpu", "float32")) as address:
        yield address


def complete(address: Address, **fields: Any) -> httpx.Response:
    """Ask for a completion."""
    return httpx.post(f"{address.url}/v1/completions", json=fields, timeout=60)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"prompt": [1] * 4096, "n": 65, "max_tokens": 0, "echo": True},
            "65 texts of up to 0 tokens after 4096 of the prompts are more than 262144 tokens; "
            "ask for fewer at once",
        ),
        (
            {"prompt": [1] * 400, "n": 128, "max_tokens": 0, "echo": True, "logprobs": 20},
            "up to 51200 tokens with logprobs = 20 are more than 524288 log-probabilities; "
            "ask for fewer at once",
        ),
        (
            {"prompt": "a", "max_tokens": 2**18, "logprobs": 2},
            "up to 262144 tokens with logprobs = 2 are more than 524288 log-probabilities; "
            "ask for fewer at once",
        ),
    ],
)
def test_a_small_request_for_a_huge_answer_is_refused(
    fields: dict[str, Any], sentence: str, address: Address
) -> None:
    """Echoed tokens count in each of the n texts, and so does each log-probability."""
    answer = complete(address, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == sentence


def test_a_large_answer_below_the_limit_is_given(address: Address) -> None:
    """A prompt echoed in many texts with all alternatives is answered in full below the limit."""
    asked = {"prompt": [1] * 128, "n": 64, "max_tokens": 0, "echo": True, "logprobs": 20}
    choices = complete(address, **asked).json()["choices"]
    assert [len(choice["logprobs"]["tokens"]) for choice in choices] == [128] * 64


def test_the_names_of_tokens_keep_no_model_in_memory(out: Path) -> None:
    """A model that nobody holds any more is given up, though answers have named its tokens."""
    engine = load("letters", out_dir=str(out), device="cpu")
    assert len(token_names(engine)) == engine.n_vocab
    reference = weakref.ref(engine)
    del engine
    gc.collect()
    assert reference() is None
