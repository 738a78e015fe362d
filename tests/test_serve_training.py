"""Following a run that another process trains, and replaying its checkpoints."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forks import Server, Trial
from small_text import write_text

pytest.importorskip("starlette", reason="needs the packages of the extra [web]")
from starlette.testclient import TestClient

import minigen
import train
from minigen.files import checkpoint
from minigen.run.follow import Follower, read_new_lines
from minigen.run.log import Report, parse_metrics, read_metrics, read_samples
from minigen.serve.app import application
from minigen.serve.models import Models
from minigen.serve.worker import Worker

ROOT = Path(train.__file__).parent
SMALL = """--n_layer 1 --n_embd 16 --n_head 2 --block_size 16 --batch_size 4 --vocab_size 270
    --eval_tokens 200 --device cpu --dtype float32 --compile no --threads 1 --keep_checkpoints"""


def train_apart(server: Server, folder: Path, name: str, flags: str) -> Trial:
    """Start a process that trains the run out/`name` in a folder on a small text."""
    words = ["--data", str(write_text(folder)), "--name", name, *SMALL.split(), *flags.split()]
    env = {**os.environ, "MINIGEN_DATA": str(folder / "data"), "PYTHONPATH": str(ROOT)}
    return server.start_python(ROOT / "train.py", *words, cwd=folder, env=env)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """Train the run `small` for 30 steps with a checkpoint every ten; return the folder of out/."""
    folder = tmp_path_factory.mktemp("runs")
    trial = train_apart(server, folder, "small", "--max_steps 30 --eval_interval 10")
    assert trial.wait() == 0, trial.output()
    return folder


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    """Serve the run `small`, beside the other runs in out/."""
    models = Models([str(folder / "out" / "small")], str(folder / "out"), device="cpu")
    with TestClient(application(models, Worker()), base_url="http://127.0.0.1") as client:
        yield client


def get(client: TestClient, address: str) -> dict[str, Any]:
    """Return the JSON of an answer that must be good."""
    response = client.get(address)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_a_page_follows_a_run_that_another_process_trains(
    folder: Path, client: TestClient, server: Server
) -> None:
    """The lines read while a run trains are those of its file, and its end is seen at once."""
    trial = train_apart(server, folder, "live", "--max_steps 600 --eval_interval 200")
    lines: list[dict[str, Any]] = []
    seen, cursor = [], ""

    def has_ended() -> bool:
        """Read the new lines; return whether they are all."""
        nonlocal lines, cursor
        if not any(run["id"] == "live" for run in get(client, "/api/runs")["runs"]):
            return False
        answer = get(client, f"/api/runs/live?after={cursor}")
        lines = answer["lines"] if answer["restarted"] else lines + answer["lines"]
        cursor = answer["next"]
        seen.append((answer["running"], answer["step"], answer["eta_seconds"]))
        return len(lines) >= 600 and not answer["running"]

    try:
        trial.until(has_ended)
        assert trial.wait() == 0
    finally:
        trial.kill()
    written = (folder / "out" / "live" / "metrics.jsonl").read_text(encoding="utf-8")
    lines += get(client, f"/api/runs/live?after={cursor}")["lines"]
    assert lines == [json.loads(line) for line in written.splitlines()]
    running = [(step, eta) for is_running, step, eta in seen if is_running and 40 < step < 560]
    assert len(running) > 2 and all(eta > 0 for _, eta in running)
    end = get(client, "/api/runs/live")
    assert (end["running"], end["ended"], end["step"], end["eta_seconds"]) == (
        False, True, 600, None
    )  # fmt: skip
    assert end["max_steps"] == 600 and end["checkpoints"] == [0, 200, 400, 600]
    assert [sample["step"] for sample in end["samples"]] == [0, 200, 400, 600]
    assert end["samples"] == read_samples(folder / "out" / "live")


def test_a_run_says_what_its_text_is(folder: Path, client: TestClient) -> None:
    """The number of tokens and the bits of a nat are those of the checkpoint and its losses."""
    run, path = get(client, "/api/runs/small"), folder / "out" / "small"
    engine = minigen.load(path)
    evaluations = [line for line in read_metrics(path) if "val_loss" in line]
    assert len(evaluations) == 4 and run["n_vocab"] == engine.tokenizer.n_vocab
    for line in evaluations:
        assert line["val_bits_per_byte"] == pytest.approx(run["bits_per_byte"] * line["val_loss"])
    assert run["entropy"] is None  # no grammar wrote this text
    assert evaluations[0]["val_loss"] == pytest.approx(math.log(run["n_vocab"]), rel=0.05)


def test_a_run_that_is_killed_runs_no_more(
    folder: Path, client: TestClient, server: Server
) -> None:
    """A run counts as running while its process lives, and reading it does not hinder a resume."""
    trial = train_apart(server, folder, "killed", "--max_steps 100000 --eval_interval 50")
    path = folder / "out" / "killed"
    trial.until(lambda: len(checkpoint.steps(path)) >= 3)
    assert get(client, "/api/runs/killed")["running"]
    assert checkpoint.is_locked(path)
    trial.kill()
    # Its end is seen, though nobody has waited for it.
    trial.until(lambda: not get(client, "/api/runs/killed")["running"])
    trial.wait()
    assert not checkpoint.is_locked(path) and (path / ".lock").read_bytes()
    last = checkpoint.steps(path)[-1].name.removeprefix("step-")
    flags = f"--init_from resume --max_steps {int(last) + 5}"
    with checkpoint.lock(path):
        assert checkpoint.is_locked(path)
    assert not checkpoint.is_locked(path)  # this process lives, and has left the folder
    again = train_apart(server, folder, "killed", flags.replace("--keep_checkpoints", ""))
    assert again.wait() == 0 and get(client, "/api/runs/killed")["ended"]
    shutil.rmtree(path)


def test_a_resumed_run_is_read_from_its_beginning(tmp_path: Path) -> None:
    """A reader whose lines a resumed run has dropped gets all lines anew, however many there are.

    The file can be longer again before it is read.
    """

    def log(step: int, last: int, loss: float) -> None:
        report = Report(tmp_path, step, 10, 50, 0.5, None, step_tokens=8)
        for n in range(step + 1, last + 1):
            report.step(n, loss, 1.0, 0.1, 100.0)

    path = tmp_path / "metrics.jsonl"
    log(0, 8, 4.0)
    first = read_new_lines(path, parse_metrics)
    assert (first.is_new, first.more, len(first.lines)) == (False, False, 9)
    follower = Follower(tmp_path)
    follower.catch_up()
    assert (follower.step, read_new_lines(path, parse_metrics, first.cursor).lines) == (8, [])
    log(5, 9, 3.0)
    second = read_new_lines(path, parse_metrics, first.cursor)
    steps = [line["step"] for line in second.lines]
    assert second.is_new and steps == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]
    follower.catch_up()
    assert follower.step == 9
    log(2, 3, 3.0)
    follower.catch_up()
    assert follower.step == 3 and follower.facts["max_steps"] == 10
    path.unlink()
    assert read_new_lines(path, parse_metrics, second.cursor).lines == []
    follower.catch_up()
    assert follower.step == 0


def test_a_fine_tuned_run_has_ended_until_it_has_more_steps(tmp_path: Path) -> None:
    """The loss on the old text comes after the last evaluation; a step after it is a new one."""
    lines = [
        {"step": 1, "train_loss": 2.0},
        {"step": 1, "final_val_loss": 2.0},
        {"step": 1, "old_loss_before": 2.0, "old_loss_after": 3.0},
        {"step": 2, "train_loss": 2.0},
    ]
    follower, ended = Follower(tmp_path), []
    for line in lines:
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        follower.catch_up()
        ended.append(follower.has_ended)
    assert ended == [False, True, True, False]


def test_a_line_that_is_half_written_is_read_later(tmp_path: Path) -> None:
    """A reader stops before a line without its end, and reads it once it is complete."""
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 1, "train_loss": 2.5}\n{"step": 2, "train_loss": 2.25}\n'
    cursor, read = "", []
    for n in range(len(whole) + 1):
        path.write_text(whole[:n])
        news = read_new_lines(path, parse_metrics, cursor)
        assert not news.is_new
        cursor, read = news.cursor, read + [(n, line["train_loss"]) for line in news.lines]
    assert read == [(31, 2.5), (len(whole), 2.25)]


def test_a_long_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece ends with a whole line, and together the pieces are the file."""
    monkeypatch.setattr("minigen.run.follow.MAX_BYTES", 100)
    path, cursor, steps = tmp_path / "metrics.jsonl", "", []
    path.write_text("".join(f'{{"step": {n}, "train_loss": 2.5}}\n' for n in range(50)))
    more = True
    while more:
        news = read_new_lines(path, parse_metrics, cursor)
        assert 0 < len(news.lines) < 4
        cursor, more, steps = news.cursor, news.more, steps + [line["step"] for line in news.lines]
    assert steps == [*range(50)]


def test_damaged_files_of_a_run_are_no_error(folder: Path, client: TestClient) -> None:
    """Folders without logs, logs of bytes, and logs that are folders leave the list readable."""
    out = folder / "out"
    for name, content in (("noise", b"\xff\xfe{\0" * 50), ("empty", b""), ("far/off", b"{}\n" * 9)):
        (out / name).mkdir(parents=True)
        for file in ("metrics.jsonl", "samples.jsonl", ".lock"):
            (out / name / file).write_bytes(content)
    for file in ("metrics.jsonl", "samples.jsonl", ".lock"):
        (out / "folders" / file).mkdir(parents=True)
    (out / "nothing").mkdir()
    listed = {run["id"]: run for run in get(client, "/api/runs")["runs"]}
    assert {"small", "noise", "empty", "far/off", "folders"} <= set(listed)
    assert listed["small"]["model"] == "small" and listed["noise"]["model"] is None
    for id in ("noise", "empty", "far/off", "folders"):
        run = get(client, f"/api/runs/{id}?after=12-zz")
        assert (run["lines"], run["samples"], run["running"], run["step"]) == ([], [], False, 0)
        shutil.rmtree(out / id)


@pytest.mark.parametrize(
    "id",
    ["nosuch", "", "..", "../out/small", "small/", "./small", "/etc", "a\0b", "small/../small",
     "small/step-000010", "\N{ELEPHANT}", "x" * 5000],
    ids=range(12),
)  # fmt: skip
def test_an_id_is_never_a_path(client: TestClient, id: str) -> None:
    """An id that is not in the list of runs is answered 400 and one sentence."""
    encoded = "".join(f"%{byte:02x}" for byte in id.encode())
    response = client.get(f"/api/runs/{encoded}")
    assert response.status_code == 400, response.text
    assert len(response.json()["error"]["message"]) < 200


def test_a_replay_has_the_predictions_of_each_checkpoint(folder: Path, client: TestClient) -> None:
    """The logits at each step are those of that checkpoint, for a text and for its tokens."""
    run = folder / "out" / "small"
    steps = get(client, "/api/runs/small")["checkpoints"]
    assert steps == [0, 10, 20, 30]
    for path, step in zip(checkpoint.steps(run), steps, strict=True):
        engine = minigen.load(path)
        ids = engine.encode("The sun and a ")
        with torch.no_grad():
            wanted = engine.model(torch.tensor([ids[-16:]]))[0, -1]
        for given in ({"text": "The sun and a "}, {"ids": ids}):
            response = client.post("/api/replay", json={"run": "small", "step": step, **given})
            answer = response.json()
            logits = np.frombuffer(base64.b64decode(answer["logits"]), "<f4")
            assert np.array_equal(logits, wanted.numpy()) and answer["step"] == step
            assert answer["n_truncated"] == max(0, len(ids) - 16)
            best = int(logits.argmax())
            assert answer["bytes"][str(best)] == engine.tokenizer.token_bytes(best).hex()


def test_a_checkpoint_that_predicts_nan_is_one_sentence(folder: Path, client: TestClient) -> None:
    """A replay of finite weights whose products are too large is answered 400 and a sentence."""
    saved = checkpoint.load(folder / "out" / "small" / "step-000030")
    model = saved.model()
    with torch.no_grad():
        model.norm.get_parameter("weight").fill_(torch.finfo(torch.float32).max)
    run = folder / "out" / "huge"
    checkpoint.save(run, model, saved.tokenizer, {}, saved.state)
    shutil.copy(folder / "out" / "small" / "metrics.jsonl", run)
    try:
        response = client.post("/api/replay", json={"run": "huge", "step": 30, "text": "The"})
    finally:
        shutil.rmtree(run)
    assert response.status_code == 400
    assert "predicts NaN" in response.json()["error"]["message"]


def test_a_deleted_run_of_a_served_model_is_no_run(folder: Path, tmp_path: Path) -> None:
    """A model whose run is deleted is still served, but its run is neither listed nor shown."""
    run = tmp_path / "small"
    shutil.copytree(folder / "out" / "small", run, symlinks=True)
    models = Models([str(run)], str(tmp_path), device="cpu")
    with TestClient(application(models, Worker()), base_url="http://127.0.0.1") as client:
        assert [each["id"] for each in get(client, "/api/runs")["runs"]] == ["small"]
        shutil.rmtree(run)
        assert get(client, "/api/runs")["runs"] == []
        assert client.get("/api/runs/small").status_code == 400
        predicted = client.post("/api/predict", json={"model": "small", "ids": [1]})
        assert predicted.status_code == 200


@pytest.mark.parametrize(
    "fields",
    [{}, {"run": "nosuch", "step": 0}, {"run": "small"}, {"run": "small", "step": 7},
     {"run": "small", "step": -1}, {"run": "small", "step": "10"}, {"run": 5, "step": 0},
     {"run": "small", "step": 10, "ids": [270]}, {"run": "small", "step": 10, "ids": "a"},
     {"run": "small", "step": 10, "text": "a" * 20_001}, {"run": "small", "step": 2**70},
     {"run": "small", "step": 10, "text": "\ud800"}],
    ids=range(12),
)  # fmt: skip
def test_a_wrong_replay_is_one_sentence(client: TestClient, fields: dict[str, Any]) -> None:
    """A run, a step or a text that does not exist is answered 400 and one sentence."""
    body = json.dumps(fields)
    response = client.post("/api/replay", content=body)
    assert response.status_code == 400, response.text
    assert "\n" not in response.json()["error"]["message"]
