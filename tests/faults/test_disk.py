"""Disks that are full, folders that are taken, paths that are odd, texts that change or vanish."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from digests import digests
from forks import Server
from jobs import Flags, model_and_optimizer

from minigen.files import checkpoint

Trained = Callable[[str], dict[str, str]]


@pytest.mark.parametrize("n", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_disk_full(
    n: int, server: Server, flags: Flags, resume: Flags, trained: Trained, tmp_path: Path
) -> None:
    """Every save fails: a warning for each, training goes on, and the old checkpoint is intact."""
    assert server.run("train", flags("whole"))[0] == 0
    old = tmp_path / "old"
    begun = server.start("train", flags("run"), "slow_steps", 0.02)
    begun.until("step 16: ")
    begun.kill(signal.SIGTERM)
    assert begun.wait() == 143
    shutil.copytree(tmp_path / "out" / "run", old)
    step = checkpoint.load_newest(old).step
    largest = max(path.stat().st_size for path in old.rglob("*.safetensors"))
    for i in range(n):
        run = tmp_path / "out" / f"run{i}"
        shutil.copytree(old, run)
        size = 4096 + int((largest - 4096) * (i + random.random()) / n)  # the log has less
        code, said = server.run("train", resume(run.name), "largest_file", size)
        lines = said.splitlines()
        assert code == 2 and "Traceback" not in said, said
        assert lines[-1].startswith("error: cannot save ") and "step-000040" in lines[-1]
        assert said.count("warning: cannot save ") == 2  # of steps 24 and 32
        newest = checkpoint.load_newest(run)
        assert newest.step == step and not list(run.glob(".tmp-*"))
        assert {p.name for p in run.glob("step-*")} == {p.name for p in old.glob("step-*")}
        assert server.run("train", resume(run.name))[0] == 0  # there is room again
        assert trained(run.name) == trained("whole")


def test_two_runs_in_one_folder(
    server: Server, flags: Flags, resume: Flags, tmp_path: Path
) -> None:
    """The first wins, the second names it; and the lock dies with its process."""
    first = server.start("train", flags("run"), "slow_steps", 0.05)
    first.until("step 0: ")
    code, said = server.run("train", flags("run"))
    assert code == 2 and said == (
        f"error: {tmp_path}/out/run is in use by process {first.pid}; "
        "wait for it, or give another --name\n"
    )
    first.until("step 8: ")
    code, said = server.run("train", resume("run"))
    assert code == 2 and f"in use by process {first.pid};" in said
    first.kill(signal.SIGKILL)
    assert first.wait() == -9
    assert server.run("train", resume("run"))[0] == 0


@pytest.mark.parametrize(
    "name", ["a run with spaces", "달리기 🏃 ünï", "-dash", "a'quote\"d", "x" * 200]
)
def test_odd_names(name: str, server: Server, flags: Flags, resume: Flags, tmp_path: Path) -> None:
    """They just work, from training to sampling."""
    argv = [w if w != "NAME" else name for w in flags("NAME", "--max_steps 3")]
    argv = [f"--name={name}" if w == name else w for w in argv if w != "--name"]
    code, said = server.run("train", argv)
    assert code == 0, said
    again = ["--init_from", "resume", "--out_dir", str(tmp_path / "out"), f"--name={name}"]
    assert server.run("train", [*again, "--max_steps", "5"])[0] == 0
    where = ["--out_dir", str(tmp_path / "out"), f"--run={name}", "--max_new_tokens", "2"]
    assert server.run("sample", where)[0] == 0


def test_places_where_nothing_can_be_written(server: Server, flags: Flags, tmp_path: Path) -> None:
    """One line before the first step."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("in the way")
    (tmp_path / "out" / "locked" / ".lock").mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    for place in ("/proc/x", tmp_path / "file", tmp_path / "loop", "/dev/null/x", "x" * 300):
        code, said = server.run("train", [*flags("run"), "--out_dir", str(place)])
        assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    for name in ("file", "locked", "x" * 300):
        code, said = server.run("train", [*flags("run"), f"--name={name}"])
        assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, said


def test_another_text_config_or_tokenizer_is_refused(
    server: Server, flags: Flags, resume: Flags, text: Path, tmp_path: Path
) -> None:
    """Before a resume: one line that says what, and the run is as it was."""
    assert server.run("train", flags("run"))[0] == 0
    before = digests(tmp_path / "out")
    other = tmp_path / "other.txt"
    other.write_text("Another text. " * 999)
    for more, complaint in (
        (f"--data {other}", "trained on another text"),
        ("--tokenizer char", "--tokenizer char, but this run was started with bpe"),
        ("--vocab_size 300", "--vocab_size 300, but this run was started with 270"),
        ("--n_embd 32", "--n_embd 32, but this run was started with 16"),
        ("--dropout 0.2", "--dropout 0.2, but this run was started with 0.1"),
        ("--learning_rate 1", "--learning_rate 1.0, but"),
        ("--block_size 8", "--block_size 8, but"),
    ):
        code, said = server.run("train", resume("run", f"--max_steps 50 {more}"))
        assert code == 2 and complaint in said and said.count("\n") == 1, said
    text.write_text(text.read_text()[:-1])
    code, said = server.run("train", resume("run", "--max_steps 50"))
    assert code == 2 and "trained on another text" in said and said.count("\n") == 1, said
    text.unlink()
    code, said = server.run("train", resume("run", "--max_steps 50"))
    assert code == 2 and "no such file" in said and said.count("\n") == 1, said
    after = digests(tmp_path / "out")
    assert after == {**before, "run/.lock": after["run/.lock"]}


@pytest.mark.parametrize("fault", ["removed", "cut", "zeros", "noise", "replaced"])
def test_a_text_that_changes_in_mid_run(
    fault: str, server: Server, flags: Flags, resume: Flags, trained: Trained, text: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Its source and its tokens: the run goes on, or saves what was learnt and says so."""
    assert server.run("train", flags("whole"))[0] == 0
    trial = server.start("train", flags("run"), "slow_steps", 0.02)
    trial.until("step 8: ")
    time.sleep(random.random() / 10)
    for path in [text, *(server.folder / "data" / "cache").glob("*.bin")]:
        content = path.read_bytes()
        if fault == "removed":
            path.unlink()
        elif fault == "replaced":
            path.with_name("new").write_bytes(content[::-1])
            path.with_name("new").replace(path)
        else:
            damaged = {"cut": content[:99], "zeros": bytes(len(content)), "noise": os.urandom(9999)}
            path.write_bytes(damaged[fault])
        if path == text:
            original = content
    code, said = trial.wait(), trial.said()
    text.write_bytes(original)
    assert "Traceback" not in said
    if fault in ("removed", "replaced"):  # the open files are what they were
        assert code == 0, said
    else:
        assert code == 2 and "cut short or written over" in said.splitlines()[-1], said
        assert checkpoint.load_newest(tmp_path / "out" / "run").step >= 8
        code, said = server.run("train", resume("run"))
        assert code == 0, said
    assert trained("run") == trained("whole")


def test_a_large_save_streams(tmp_path: Path) -> None:
    """Nothing that is not finite, and no header too large, becomes a checkpoint."""
    model, tokenizer, state = model_and_optimizer(0)
    many = {f"{name} {i}": tensor for name, tensor in state.items() for i in range(3000)}
    with pytest.raises(checkpoint.UserError, match="tensors are too many"):
        checkpoint.save(tmp_path, model, tokenizer, many, {"step": 1})
    assert checkpoint.steps(tmp_path) == []
