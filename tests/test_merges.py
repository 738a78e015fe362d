"""`python -m minigen merges WORD` shows the tokenizer of the reader's own run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from forks import ROOT, Server
from models import save_untrained

from minigen.files.tokenizer_files import to_json
from minigen.tokenizer import Tokenizer, train_tokenizer

LOW = "l | o | w | !\nlo | w | !\nlow | !\nids: 257 33\n"
CHARS = "l | o | w | !\nids: 2 3 4 1\n"


@pytest.fixture
def low(tmp_path: Path) -> Tokenizer:
    """Save out/chars and, after it, out/low, whose tokenizer has merges; return the latter."""
    tokenizer = train_tokenizer("bpe", ["low lower lowest"], vocab_size=260)
    save_untrained(tmp_path / "out" / "low", tokenizer)
    save_untrained(tmp_path / "out" / "chars", train_tokenizer("char", ["low !"]))
    os.utime(tmp_path / "out" / "chars" / "step-000001", (1, 1))
    return tokenizer


def merges(server: Server, folder: Path, *words: str) -> tuple[int, str]:
    """Run `python -m minigen merges` in a folder; return its exit code and its output."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TIKTOKEN_CACHE_DIR": ""}
    done = server.python("-m", "minigen", "merges", *words, cwd=folder, env=env)
    return done.returncode, done.stdout + done.stderr


def test_merges_shows_the_run_that_was_saved_last(
    low: Tokenizer, server: Server, tmp_path: Path
) -> None:
    """Without a flag, the tokenizer is that of the run saved last, without a network."""
    assert merges(server, tmp_path, "low!") == (0, LOW)


def test_merges_takes_a_run_a_checkpoint_a_model_or_a_file(
    low: Tokenizer, server: Server, tmp_path: Path
) -> None:
    """--tokenizer names a run, a checkpoint, another folder with a model, or a tokenizer.json."""
    shutil.copytree(tmp_path / "out" / "chars" / "step-000001", tmp_path / "model")
    for name in ("MANIFEST.json", "state.json", "optimizer.safetensors"):
        (tmp_path / "model" / name).unlink()
    (tmp_path / "low.json").write_bytes(to_json(low))
    for name, shown in (
        ("chars", CHARS),
        ("out/chars/best", CHARS),
        ("model", CHARS),
        ("low.json", LOW),
    ):
        assert merges(server, tmp_path, "low!", "--tokenizer", name) == (0, shown), name
    (tmp_path / "out").rename(tmp_path / "runs")
    assert merges(server, tmp_path, "low!", "--out_dir", "runs") == (0, LOW)


@pytest.mark.usefixtures("gpt2_cache")
def test_merges_shows_gpt2(server: Server, tmp_path: Path) -> None:
    """`--tokenizer gpt2` shows the merges of GPT-2."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ("-m", "minigen", "merges", "unbelievable", "--tokenizer", "gpt2")
    shown = server.python(*words, cwd=tmp_path, env=env).stdout.splitlines()
    assert shown[0] == "u | n | b | e | l | i | e | v | a | b | l | e"
    assert shown[-2:] == ["un | bel | iev | able", "ids: 403 6667 11203 540"]


def test_merges_without_a_run_says_how_to_get_one(server: Server, tmp_path: Path) -> None:
    """Where there is no run, one line has the command that trains one."""
    code, shown = merges(server, tmp_path, "low!")
    assert code == 2
    pattern = r"error: no run in out yet; train one: \S+ \S*train\.py\n"
    assert re.fullmatch(pattern, shown)


def test_merges_refuses_an_unknown_name_in_one_line(
    low: Tokenizer, server: Server, tmp_path: Path
) -> None:
    """A name of no run and no file is refused in one line."""
    for name, complaint in (("lwo", "did you mean low"), ("no.json", "cannot read no.json")):
        code, shown = merges(server, tmp_path, "low!", "--tokenizer", name)
        assert code == 2 and shown.count("\n") == 1 and complaint in shown


def test_merges_passes_over_a_damaged_checkpoint(
    low: Tokenizer, server: Server, tmp_path: Path
) -> None:
    """A damaged best checkpoint is named, and the tokenizer of the next one is shown."""
    best = tmp_path / "out" / "low" / "step-000001"
    shutil.copytree(best, best.with_name("step-000002"))
    state = best.with_name("step-000002") / "state.json"
    state.write_text(state.read_text().replace('"step": 1', '"step": 2'))
    manifest = state.with_name("MANIFEST.json")
    content = json.loads(manifest.read_text())
    content["files"]["state.json"]["sha256"] = hashlib.sha256(state.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))
    (best.with_name("step-000002") / "tokenizer.json").unlink()
    code, output = merges(server, tmp_path, "low!")
    assert code == 0 and output.startswith(LOW), output
    assert "warning: cannot read out/low/step-000002/tokenizer.json: " in output
