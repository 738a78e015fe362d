"""The numbers of the page are those of the library: predictions, random numbers, surprise."""

from __future__ import annotations

import gc
import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from models import architectures, save_untrained, varied_model
from serving import serving
from small_text import write_text

import train
from minigen.errors import UserError
from minigen.evaluation.command import EvaluateConfig, judge
from minigen.evaluation.repetition import TrainingText
from minigen.files import checkpoint
from minigen.inference.cpu import code
from minigen.inference.engine import Engine, load
from minigen.sampling import Sampling, draw, uniform
from minigen.serve import models as serve_models
from minigen.serve import prefixes, surprise
from minigen.serve.copies import Copies
from minigen.serve.models import Models
from minigen.serve.prefixes import Prefixes
from minigen.tokenizer import train_tokenizer

BLOCK = 24
SIZE = ["--size", "tiny", "--vocab_size", "300", "--block_size", "64", "--batch_size", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Train a model on a small text, and save an untrained one; return the folder of both runs.

    The tokens of the text stay in the folder's data, where the server finds them.
    """
    folder = tmp_path_factory.mktemp("playground")
    text = write_text(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGEN_DATA", str(folder / "data"))
        train.main(
            ["--data", str(text), "--out_dir", str(folder / "out"), "--name", "small", *SIZE,
             "--max_steps", "30", "--eval_interval", "15", "--dtype", "float32", "--device", "cpu",
             "--compile", "no"]
        )  # fmt: skip
        tokenizer = train_tokenizer("char", ["abc\n"])
        save_untrained(folder / "out/letters", tokenizer, step=3)
        yield folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[httpx.Client]:
    """Return a client of a server with both models."""
    models = Models(["small", "letters"], str(folder / "out"), "cpu", "float32")
    with serving(models) as address, httpx.Client(base_url=address.url, timeout=60) as client:
        yield client


def ask(page: httpx.Client, name: str, **fields: Any) -> Any:
    """Return the JSON that the server answers."""
    answer = page.post(f"/api/{name}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def predict(page: httpx.Client, **fields: Any) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Return the logits, and the numbers of cells that were reused, computed and truncated."""
    answer = page.post("/api/predict", json=fields)
    assert answer.status_code == 200, answer.text
    facts = [int(answer.headers[f"x-{name}"]) for name in ("reused", "computed", "truncated")]
    return np.frombuffer(answer.content, "<f4"), facts


def engine_of(name: str, dtype: str = "float32") -> Engine:
    """Return an engine over a random model of one of the architectures."""
    tokenizer = train_tokenizer("byte", ["a"])
    model = varied_model(architectures(tokenizer.n_vocab + 7, BLOCK, 16)[name])
    return Engine(model, tokenizer, device="cpu", dtype=dtype)


# ---- predictions ----


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", architectures(1, 1, 4))
def test_predictions_are_the_bits_that_generate_draws_from(name: str, dtype: str) -> None:
    """A page that asks for token after token gets the logits of `Engine.generate`.

    They have the same bits far beyond the context, in each number format.
    """
    known, prompt = Prefixes(), [3, 1, 4, 1, 5]
    engine, text = engine_of(name, dtype), list(prompt)
    steps = engine_of(name, dtype).generate([prompt], Sampling(), max_new_tokens=60, end_of_text=())
    for n, [token] in enumerate(steps):
        assert token is not None
        found = known.predict(engine, text)
        assert found.logits.double().equal(token.logits), n
        assert found.truncated == token.n_truncated
        assert found.number_bytes == (4 if dtype == "float32" else 2)
        text.append(token.id)
    assert len(text) == 65


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", architectures(1, 1, 4))
def test_logits_from_a_cache_are_those_of_a_pass_over_the_whole_text(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random walk over a tree of texts reads each new end only, and gets the same logits.

    The cells that are reused are those of the longest beginning that an earlier text has. Where
    `cpu.c` computes, the logits have the bits of a first pass over the text.
    """
    monkeypatch.setattr(prefixes, "MAX_TEXTS", 60)
    engine, known, rng = engine_of(name, dtype), Prefixes(), random.Random(0)
    read: list[list[int]] = []
    for _ in range(60):
        text = rng.choice(read or [[7, 8, 9]])
        if len(text) > 3 and rng.random() < 0.5:
            text = text[: rng.randrange(1, len(text))]
        text = [*text, *(rng.randrange(200) for _ in range(rng.choice([1, 1, 2, 5])))][:BLOCK]
        shared = max((prefixes.common_prefix(text[:-1], old) for old in read), default=0)
        found = known.predict(engine, text)
        reused = len(text) if text in read else shared
        assert (found.reused, found.computed) == (reused, len(text) - reused)
        alone = Prefixes().predict(engine, text).logits
        if code() is not None and len(text) <= 16:  # a read that is short in each number format
            assert found.logits.equal(alone)
        with torch.no_grad():
            whole = engine.model(torch.tensor([text]))[0, -1, : engine.n_vocab].float()
        tolerance = 1e-4 if dtype == "float32" else 0.15  # PyTorch multiplies in bfloat16
        assert (found.logits - whole).abs().max() <= tolerance * whole.abs().max()
        read.append(text)


def test_a_text_that_is_asked_for_again_gets_the_logits_that_it_had() -> None:
    """Going back in a text and forth again computes nothing, whatever was read in between."""
    engine, known = engine_of("modern"), Prefixes()
    text = [*range(40, 60)]
    before = [known.predict(engine, text[:n]).logits for n in range(1, 20)]
    known.predict(engine, [1, 2, 3])
    for n in range(19, 0, -1):
        again = known.predict(engine, text[:n])
        assert again.logits.equal(before[n - 1])
        assert (again.reused, again.computed) == (n, 0)


def test_the_caches_of_a_model_stay_within_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts that were read first lose their caches once all caches need too many bytes."""
    engine, known = engine_of("modern"), Prefixes()
    known.predict(engine, [1, 2, 3])
    monkeypatch.setattr(prefixes, "MAX_BYTES", 2 * known.texts[0].cache.kv.nbytes)
    for first in (4, 5, 6):
        known.predict(engine, [first, 2, 3])
    assert [text.ids for text in known.texts] == [(5, 2, 3), (6, 2, 3)]
    monkeypatch.setattr(prefixes, "MAX_BYTES", 0)
    known.predict(engine, [7, 2, 3])
    assert [text.ids for text in known.texts] == [(7, 2, 3)]


def test_a_cache_grows_beyond_its_first_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that outgrows the room of its cache keeps its cells."""
    monkeypatch.setattr(prefixes, "FIRST_CAPACITY", 4)
    engine, known, text = engine_of("modern"), Prefixes(), [*range(20)]
    for n in range(1, 21):
        found = known.predict(engine, text[:n])
        assert (found.reused, found.computed) == (n - 1, 1)
        assert len(known.texts) == 1
        assert known.texts[-1].cache.capacity == min(
            BLOCK, 4 * 2 ** max(0, (n - 1).bit_length() - 2)
        )
    assert found.logits.equal(Prefixes().predict(engine, text).logits) or code() is None


def test_a_broken_model_predicts_no_number() -> None:
    """A model with NaN in its weights is reported with the sentence of `generate`."""
    engine = engine_of("modern")
    engine.model.norm.get_parameter("weight").data.fill_(math.nan)
    with pytest.raises(UserError, match="the model predicts NaN"):
        Prefixes().predict(engine, [1])


def test_the_page_draws_the_tokens_of_sample_py(page: httpx.Client, folder: Path) -> None:
    """The addresses of the page together give the text that the library writes."""
    engine, sampling = load("small", out_dir=folder / "out", device="cpu"), Sampling()
    ids = ask(page, "tokens", text="The sun")["ids"]
    assert ids == engine.encode("The sun")
    text = list(ids)
    for n in range(100):
        if n % 64 == 0:
            numbers = ask(page, "uniform", seed=5, sample=2, n=n)["u"]
        logits, _ = predict(page, ids=text)
        text += draw(torch.tensor(logits).double()[None], [text], sampling, [numbers[n % 64]])
    steps = engine.generate(
        [ids], sampling, max_new_tokens=100, end_of_text=(), seed=5, samples=[2]
    )
    assert text[len(ids) :] == [token.id for [token] in steps if token]


def test_a_prediction_tells_the_cells_of_its_cache(page: httpx.Client) -> None:
    """The answer counts the tokens that were in a cache, that were read, and that are not seen."""
    first = [9] * 40
    assert predict(page, model="small", ids=first)[1][1:] == [40, 0]
    assert predict(page, model="small", ids=[*first, 8])[1] == [40, 1, 0]
    assert predict(page, model="small", ids=[*first, 7, 7])[1] == [40, 2, 0]
    assert predict(page, model="small", ids=first)[1] == [40, 0, 0]
    assert predict(page, model="small", ids=[*range(100)])[1] == [0, 34, 66]


# ---- steps and models ----


def test_each_saved_step_predicts_as_its_checkpoint(page: httpx.Client, folder: Path) -> None:
    """The field `step` names a checkpoint of the run, by default the best one."""
    answers = {}
    for step in (15, 30):
        path = folder / f"out/small/step-{step:06}"
        expected = Prefixes().predict(load(path, device="cpu"), [1, 2, 3]).logits.numpy()
        answers[step] = predict(page, model="small", step=step, ids=[1, 2, 3])[0]
        assert np.array_equal(answers[step], expected)
    assert not np.array_equal(answers[15], answers[30])


def test_a_step_that_is_served_is_not_loaded_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that names the served step gets the served engine; others make room in turn."""
    models = Models(["small"], str(folder / "out"), "cpu")
    served = models.get("small")
    assert models.get("small", served.state["step"]) is served
    other = models.get("small", 45 - served.state["step"])
    assert models.get("small", 45 - served.state["step"]) is other is not served
    monkeypatch.setattr(serve_models, "MAX_PARAMETERS", 0)
    assert len(models.other_steps) == 1
    models.other_steps["small", 7] = models.other_steps.popitem()[1]
    del other
    gc.collect()
    models.get("small", 45 - served.state["step"])
    assert [step for _, step in models.other_steps] == [45 - served.state["step"]]


def test_a_step_that_is_saved_again_is_loaded_again(folder: Path, tmp_path: Path) -> None:
    """A step is answered with the weights that its folder has now, or had before it was deleted."""
    run = tmp_path / "small"
    shutil.copytree(folder / "out" / "small", run, symlinks=True)
    models = Models([str(run)], str(tmp_path), "cpu")
    served = models.get("small").state["step"]
    other = 45 - served
    before = {step: models.get("small", step) for step in (served, other)}
    for step in before:
        shutil.rmtree(run / f"step-{step:06d}")
    assert {step: models.get("small", step) for step in before} == before
    for step, source in ((served, other), (other, served)):
        saved = checkpoint.load(folder / "out" / "small" / f"step-{source:06d}")
        model = saved.model()
        path = checkpoint.save(run, model, saved.tokenizer, {}, {**saved.state, "step": step})
        now = models.get("small", step)
        assert now is not before[step] and models.get("small", step) is now
        assert torch.equal(now.model.embedding.weight, model.embedding.weight), path
    assert models.get("small") is before[served]


def test_models_have_different_names_and_each_is_loaded_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs of one name get two names, and a run that is named twice is served once."""
    save_untrained(tmp_path / "small", train_tokenizer("char", ["abc"]), step=1)
    out = folder / "out"
    models = Models(
        [str(out / "small"), str(tmp_path / "small"), str(out / "small/best")], str(out)
    )
    assert [each.id for each in models] == ["small", "small-2"]
    assert "is named twice and served once" in capsys.readouterr().err


def test_the_facts_of_a_model(page: httpx.Client, folder: Path) -> None:
    """The page learns the name, the size, the configuration and the step of each model."""
    small, letters = page.get("/api/models").json()["models"]
    engine = load("small", out_dir=folder / "out")
    assert small["id"] == "small" and small["is_run"] and small["step"] == engine.state["step"]
    assert small["n_vocab"] == engine.n_vocab and small["kind"] == "bpe"
    assert small["n_parameters"] == engine.model.n_parameters()
    assert small["config"] == engine.model.config.__dict__
    assert (letters["id"], letters["kind"], letters["step"]) == ("letters", "char", 3)


# ---- tokens ----


def test_the_vocabulary_has_the_bytes_of_each_token(page: httpx.Client, folder: Path) -> None:
    """The bytes of each id in hex are those of the tokenizer, and control tokens have names."""
    tokenizer = load("small", out_dir=folder / "out").tokenizer
    found = ask(page, "vocabulary", model="small")
    assert [bytes.fromhex(each) for each in found["bytes"]] == tokenizer.tokens
    assert found["controls"] == {str(tokenizer.end_of_text): "<|endoftext|>"}
    assert found["end_of_text"] == tokenizer.end_of_text


def test_the_merges_of_a_word_end_in_its_tokens(page: httpx.Client, folder: Path) -> None:
    """The steps lead from the bytes of a word to the pieces with the answered ids."""
    tokenizer = load("small", out_dir=folder / "out").tokenizer
    found = ask(page, "merges", word=" children")
    assert found["steps"] == [[p.hex() for p in step] for step in tokenizer.merges(" children")]
    assert found["ids"] == tokenizer.encode(" children")
    assert [bytes.fromhex(p) for p in found["steps"][-1]] == [
        tokenizer.token_bytes(id) for id in found["ids"]
    ]


def test_random_numbers_come_in_blocks_of_64(page: httpx.Client) -> None:
    """The numbers are those of `sampling.uniform`, also for large seeds."""
    found = ask(page, "uniform", seed=2**53 - 1, sample=3, n=70)["u"]
    assert found == [uniform(2**53 - 1, 3, n) for n in range(70, 134)]


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("tokens", '{"text": "\\ud800"}', "text has half of a surrogate pair"),
        ("tokens", '{"model": "letters", "text": "axe"}', "'x'"),
        ("tokens", '{"text": 5}', "text is not a string"),
        ("tokens", "[1]", "the body of the request is not a JSON object"),
        ("tokens", "nothing", "the body of the request is not JSON"),
        ("tokens", "[" * 200_000, "the body of the request is not JSON"),
        ("tokens", '{"model": "huge"}', "no model 'huge' here; the models are small, letters"),
        ("predict", '{"ids": []}', "ids is empty; give at least one token"),
        ("predict", '{"ids": [1, 300]}', "ids has something else than token ids from 0 to"),
        ("predict", '{"ids": [-1]}', "ids has something else than token ids from 0 to"),
        ("predict", '{"ids": [true]}', "ids has something else than token ids from 0 to"),
        ("predict", '{"ids": [1], "step": 7}', "small has no checkpoint of step 7; it has 15, 30"),
        ("predict", '{"ids": [1], "step": -1}', "step is -1; give a whole number from 0 to"),
        ("uniform", '{"seed": -1}', "seed is -1; give a whole number from 0 to"),
        ("uniform", '{"n": 1e3}', "n is not a whole number"),
        ("merges", '{"word": "' + "a" * 2000 + '"}', "word has 2000 characters; give at most 1000"),
        ("surprise", '{"text": ""}', "the text has no token that a model could predict"),
        ("surprise", '{"model": "letters", "text": "axe"}', "'x'"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_answered_with_one_sentence(
    page: httpx.Client, name: str, body: str, sentence: str
) -> None:
    """Each wrong request gets 400 and a sentence that says what is wrong, and nothing breaks."""
    answer = page.post(f"/api/{name}", content=body)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["type"] == "invalid_request_error"
    assert sentence in error["message"] and "\n" not in error["message"]


# ---- surprise ----


def test_each_token_has_its_log_probability_rank_and_alternatives(
    page: httpx.Client, folder: Path
) -> None:
    """The scores of a text within the context are those of one pass over it."""
    engine = load("small", out_dir=folder / "out", device="cpu")
    found = ask(page, "surprise", model="small", text="Sun and rain. Xyz")
    ids = [engine.tokenizer.end_of_text, *engine.tokenizer.encode("Sun and rain. Xyz")]
    assert found["ids"] == ids and found["n_truncated"] == 0
    with torch.no_grad():
        logp = engine.model(torch.tensor([ids[:-1]]))[0, :, : engine.n_vocab].log_softmax(dim=-1)
    own = logp[torch.arange(len(ids) - 1), ids[1:]]
    assert found["logprob"][0] is found["rank"][0] is None and found["top"][0] == []
    assert found["logprob"][1:] == pytest.approx(own.tolist(), abs=1e-5)
    ranks = [int((row > p).sum()) + 1 for row, p in zip(logp, own, strict=True)]
    assert found["rank"][1:] == ranks
    for row, top in zip(logp, found["top"][1:], strict=True):
        p, best = row.exp().topk(5)
        assert [id for id, _ in top] == best.tolist()
        assert [each for _, each in top] == pytest.approx(p.tolist(), abs=1e-6)
    assert found["loss"] == pytest.approx(-float(own.mean()), abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    n_bytes = len(b"Sun and rain. Xyz")
    assert found["bits_per_byte"] == pytest.approx(-float(own.sum()) / math.log(2) / n_bytes)


def test_the_surprise_of_the_validation_text_is_its_validation_loss(
    page: httpx.Client, folder: Path
) -> None:
    """A text longer than the context is scored in the windows of train.py and `evaluate`."""
    text = (folder / "text.txt").read_text(encoding="utf-8")
    found = ask(page, "surprise", model="small", text=text[int(0.9 * len(text)) :])
    loaded = load("small", out_dir=folder / "out", device="cpu")
    judged = judge(EvaluateConfig(count=0, device="cpu"), loaded)
    assert len(found["ids"]) - 1 == judged.text.n_tokens > 64
    assert found["loss"] == pytest.approx(judged.text.loss, abs=1e-6)
    assert found["loss"] == pytest.approx(loaded.state["val_loss"], abs=1e-6)
    assert found["bits_per_byte"] == pytest.approx(judged.bits_per_byte, abs=1e-6)


def test_a_very_long_text_is_cut(page: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a text beyond the limit is not read, and the answer counts its tokens."""
    whole = ask(page, "surprise", model="small", text="rain " * 30)
    monkeypatch.setattr(surprise, "MAX_TOKENS", 20)
    cut = ask(page, "surprise", model="small", text="rain " * 30)
    assert cut["n_truncated"] == len(whole["ids"]) - 20
    assert cut["ids"] == whole["ids"][:20]
    assert cut["logprob"][1:] == pytest.approx(whole["logprob"][1:20], abs=1e-5)


def test_parts_of_the_training_text_are_marked(page: httpx.Client, folder: Path) -> None:
    """A passage of the training text is found in a text of other words, to the token."""
    training = (folder / "text.txt").read_text(encoding="utf-8")[1000:1150]
    found = ask(page, "surprise", model="small", text=f"qqq zzz {training} qqq zzz")
    tokenizer = load("small", out_dir=folder / "out").tokenizer
    [[start, end]] = found["copied"]
    marked = tokenizer.decode(found["ids"][start:end])
    assert marked in training and len(marked) > 140
    assert ask(page, "surprise", model="small", text="the sun and a moon rose")["copied"] == []
    assert ask(page, "surprise", model="letters", text="abc")["copied"] is None


def test_without_the_training_text_nothing_is_marked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose text is gone has no copies, and nothing is written to find out."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "empty"))
    assert Copies.of(load("small", out_dir=folder / "out")) is None
    assert not (tmp_path / "empty").exists()


def test_each_copied_run_stands_in_the_training_text_as_a_whole() -> None:
    """Two windows copied from two places are two runs, if their union stands at no place."""
    copies = Copies(TrainingText(b"abcdefgh 01234567 efgh0123"), 6)
    text = b"xx abcdefgh0123"
    assert [text[a:b] for a, b in copies.runs(text)] == [b"abcdefgh"]
    text = b"abcdefgh0123 01234567"
    runs = [text[a:b] for a, b in copies.runs(text)]
    assert all(run in copies.training.content and len(run) >= 6 for run in runs)
    assert runs == [b"abcdefgh", b" 01234567"]
    assert list(copies.runs(b"short")) == []
    copies = Copies(TrainingText(b"abcdefX bcdefgY"), 6)
    assert list(copies.runs(b"abcdefg")) == [(0, 6)]


def test_a_copied_run_begins_and_ends_with_whole_tokens() -> None:
    """Tokens at the edges of a run, of which only a part is copied, are not marked."""
    tokenizer = train_tokenizer("bpe", ["low lower lowest"], vocab_size=260)
    low, border = 257, tokenizer.end_of_text
    assert tokenizer.decode([low]) == "low"
    training = TrainingText(b"\xfflow low\xffxxx")
    copies = Copies(training, 6)
    assert copies.of_tokens([border, low, 32, low, border, low], tokenizer) == [(0, 5)]
    assert copies.of_tokens([108, 32, low, 32, low, 33], tokenizer) == [(2, 5)]
    assert Copies(TrainingText(b"ow low l"), 6).of_tokens([low, 32, low, 32, low], tokenizer) == [
        (1, 4)
    ]
