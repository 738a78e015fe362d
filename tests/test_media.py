"""Documents as they grow: pictures that are drawn, tunes that are played, and verdicts."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("starlette", reason="needs the packages of the extra [web]")
from starlette.testclient import TestClient

from minigen.corpora import pictures, tales, tunes
from minigen.corpora.pictures import render
from minigen.corpora.tunes import abc_notation, sound
from minigen.files import checkpoint
from minigen.model import GPT, GPTConfig
from minigen.serve.app import application
from minigen.serve.media import MAX_COMPLAINTS, judge
from minigen.serve.models import Models
from minigen.serve.worker import Worker
from minigen.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Serve a model that says it was trained on pictures and tunes, and one of another text."""
    out, tokenizer = tmp_path_factory.mktemp("out"), train_tokenizer("byte", [])
    torch.manual_seed(0)
    for name, data in (("both", ["pictures,tunes"]), ("other", ["letters.txt"])):
        model = GPT(GPTConfig.modern(tokenizer.n_vocab, 8, n_layer=1, n_head=1, n_embd=8))
        state = {"step": 1, "config": {"data": data}}
        checkpoint.save(out / name, model, tokenizer, {}, state)
    models = Models(("both", "other"), str(out), device="cpu")
    with TestClient(application(models, Worker()), base_url="http://127.0.0.1") as client:
        yield client


def ask(client: TestClient, text: str) -> dict[str, Any]:
    """Return the answer about a document, which must be good."""
    response = client.post("/api/document", json={"text": text})
    assert response.status_code == 200, response.text
    return dict(response.json())


def texts(corpus: Any, n: int = 3) -> list[str]:
    """Return documents that a grammar has written."""
    return [document.text for document in itertools.islice(corpus.documents(5), n)]


@pytest.mark.parametrize("corpus", [tales, pictures, tunes], ids=["tales", "pictures", "tunes"])
def test_the_verdict_is_that_of_the_checker(client: TestClient, corpus: Any) -> None:
    """A document is valid, with the bits of its grammar; with one letter changed it is not."""
    for text in texts(corpus):
        answer = ask(client, text)
        checked = corpus.check(text)
        assert answer["genre"] == corpus.NOUN and answer["verdict"]["valid"]
        assert answer["verdict"]["bits"] == checked.bits > 0
        assert answer["verdict"]["conditions"] == checked.conditions
        wrong = text[:-2] + "z" + text[-1:]
        verdict = ask(client, wrong)["verdict"]
        assert (verdict["valid"], verdict["bits"]) == (False, None)
        assert verdict["complaints"] == corpus.check(wrong).complaints[:MAX_COMPLAINTS]


def test_a_picture_is_drawn_as_it_grows(client: TestClient) -> None:
    """After each letter, the image is that of `render.pixels`, and the number of cells is known."""
    (text,) = texts(pictures, 1)
    n_cells = []
    for n in range(len(text) + 1):
        answer = ask(client, text[:n])
        if n < len("picture:"):
            assert answer == {"genre": None, "verdict": None}
            continue
        picture, wanted = answer["picture"], render.pixels(text[:n], 4)
        size = picture["height"], picture["width"], 3
        drawn = np.frombuffer(base64.b64decode(picture["rgb"]), np.uint8).reshape(size)
        assert np.array_equal(drawn, wanted)
        n_cells.append(sum(picture["filled"]))
    assert n_cells == sorted(n_cells) and n_cells[0] == 0 and n_cells[-1] == 13 * 13
    assert (size, picture["side"], picture["filled"]) == ((52, 52, 3), 13, [13] * 13)


def test_a_tune_is_played_as_it_grows(client: TestClient) -> None:
    """The notes are those of the WAV file; a longer text never has fewer of them."""
    for text in texts(tunes):
        score = abc_notation.parse(tunes.to_abc(text))
        wanted = sorted(sound.tones(score), key=lambda tone: (tone.start, tone.pitch))
        tune = ask(client, text)["tune"]
        names = "start", "seconds", "midi", "loudness", "voice", "frequency"
        got = [[note[name] for name in names] for note in tune["notes"]]
        assert got == [[*dataclasses.astuple(tone), tone.frequency] for tone in wanted]
        assert len(tune["bars"]) == sum(1 for _ in score.played())
        last = max(tone.start + tone.length for tone in wanted)
        assert tune["seconds"] == pytest.approx(last)
    n_notes = []
    for n in range(text.index("P:A"), len(text) + 1):
        n_notes.append(len((judge(text[:n])["tune"] or {"notes": ()})["notes"]))
    assert n_notes == sorted(n_notes) and n_notes[0] == 0 and n_notes[-1] == len(wanted)
    assert len(set(n_notes)) > 40 and "tune" not in ask(client, "hero:")


def test_drawn_texts_are_never_an_error() -> None:
    """Documents that are cut and changed at random have an answer that is strict JSON."""
    rng = random.Random(0)
    documents = [text for corpus in (tales, pictures, tunes) for text in texts(corpus)]
    odd = ["\n", "|", '"', "9" * 5000, "/" * 300, "z", "\0", "é", "P:A", "M:0/0", "L:999/1", "|:",
           ":|", "<", "X:", "٣", "\u2028", "tune:", "picture:"]  # fmt: skip
    kinds = set()
    for _ in range(600):
        text = rng.choice(documents)[: rng.choice((None, rng.randrange(400)))]
        for _ in range(rng.choice([0, 1, 3])):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(odd) + text[at + rng.choice([0, 1]) :]
        answer = judge(text)
        assert json.loads(json.dumps(answer, allow_nan=False)) == answer
        kinds.add((answer["genre"], bool(answer.get("tune"))))
    assert kinds == {("tale", False), ("picture", False), ("tune", True), ("tune", False),
                     (None, False)}  # fmt: skip


def test_a_tune_without_an_end_is_not_played(client: TestClient) -> None:
    """A tune of more than ten minutes has a verdict and no notes; complaints are counted."""
    head = "tune: a calm waltz in G, 8 bars, AA\nX:1\nT:x\nM:3/4\nL:999/1\nK:G\nP:A\n"
    answer = ask(client, head + '"G"A99 |' * 100)
    assert answer["tune"] is None and not answer["verdict"]["valid"]
    complaints = answer["verdict"]["complaints"]
    assert len(complaints) == MAX_COMPLAINTS < answer["verdict"]["n_complaints"]


@pytest.mark.parametrize(
    ("address", "fields", "message"),
    [
        ("document", {"text": "a" * 10_001}, "text has 10,001 characters; give at most 10,000"),
        ("document", {"text": 5}, "text is not a string"),
        ("document", {"text": "\ud800"}, "text has half of a surrogate pair"),
        ("genres", {"model": "nosuch"}, "there is no model 'nosuch' here"),
        ("first_line", {"noun": "tale"}, "the model was trained on no 'tale'"),
        ("first_line", {"noun": "tune", "conditions": ["sad"]}, "conditions is not an object"),
        ("first_line", {"noun": "tune", "conditions": {"mood": 5}}, "conditions is not an object"),
        ("first_line", {"noun": "tune", "conditions": {"mood": "blue"}}, "mood is 'blue'; give"),
        ("first_line", {"noun": "tune", "conditions": {"hat": "red"}}, "a tune has no 'hat'"),
    ],
    ids=range(9),
)
def test_a_wrong_request_is_one_sentence(
    client: TestClient, address: str, fields: dict[str, Any], message: str
) -> None:
    """A wrong field is answered 400 and one sentence that names it."""
    response = client.post(f"/api/{address}", content=json.dumps(fields))
    assert response.status_code == 400
    told = response.json()["error"]["message"]
    assert told.startswith(message) and "\n" not in told


def test_conditions_become_a_first_line(client: TestClient) -> None:
    """The words of each field are those of the genre, and the same seed draws the same others."""
    found = client.post("/api/genres", json={"model": "both"}).json()["genres"]
    wanted = {each.NOUN: {f: list(w) for f, w in each.FIELDS.items()} for each in (pictures, tunes)}
    assert {each["noun"]: each["fields"] for each in found} == wanted
    assert client.post("/api/genres", json={"model": "other"}).json() == {"genres": []}
    fields = {"noun": "tune", "conditions": {"mood": "sad", "dance": "waltz"}, "seed": 3}
    line = client.post("/api/first_line", json=fields).json()["text"]
    assert line == tunes.condition({"mood": "sad", "dance": "waltz"}, random.Random(3))
    assert line.startswith("tune: a sad waltz in ") and line.endswith("\n")
