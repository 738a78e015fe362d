"""Full disks, folders in use, odd names, and texts that change or vanish."""

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

Trained = Callable[..., dict[str, str]]


@pytest.mark.parametrize("n", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_a_full_disk_costs_checkpoints_but_no_training(
    n: int, server: Server, flags: Flags, resume: Flags, trained: Trained, undisturbed: Trained,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Each failed save is a warning, the last one is an error, and old checkpoints stay intact.

    Once there is room again, the run resumes bit for bit. The disk is full at `n` sizes of a file.
    """
    expected = undisturbed()
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
        size = 4096 + int((largest - 4096) * (i + random.random()) / n)  # metrics.jsonl has less
        code, stderr = server.run("train", resume(run.name), "limit_file_size", size)
        lines = stderr.splitlines()
        assert code == 2 and "Traceback" not in stderr, stderr
        assert lines[-1].startswith("error: cannot save ") and "step-000040" in lines[-1]
        assert stderr.count("warning: cannot save ") == 2  # of steps 24 and 32
        newest = checkpoint.load_newest(run)
        assert newest.step == step and not list(run.glob(".tmp-*"))
        assert {p.name for p in run.glob("step-*")} == {p.name for p in old.glob("step-*")}
        assert server.run("train", resume(run.name))[0] == 0  # there is room again
        assert trained(run.name) == expected


def test_a_folder_is_for_one_run_at_a_time(
    server: Server, flags: Flags, resume: Flags, tmp_path: Path
) -> None:
    """A second run is refused with the first one's process id, until the first process ends."""
    first = server.start("train", flags("run"), "slow_steps", 0.05)
    first.until("step 0: ")
    code, stderr = server.run("train", flags("run"))
    assert code == 2 and stderr == (
        f"error: {tmp_path}/out/run is in use by process {first.pid}; "
        "wait for it, or give another --name\n"
    )
    first.until("step 16: ")  # the checkpoint of the evaluation before is on the disk
    code, stderr = server.run("train", resume("run"))
    assert code == 2 and f"in use by process {first.pid};" in stderr
    first.kill(signal.SIGKILL)
    assert first.wait() == -9
    assert server.run("train", resume("run"))[0] == 0


@pytest.mark.parametrize(
    "name", ["a run with spaces", "달리기 🏃 ünï", "-dash", "a'quote\"d", "x" * 200]
)
def test_a_run_may_have_an_odd_name(
    name: str, server: Server, flags: Flags, tmp_path: Path
) -> None:
    """Spaces, emoji, quotes, a leading dash and length are no obstacle to training and sampling."""
    argv = [f"--name={name}" if w == "NAME" else w for w in flags("NAME", "--max_steps 3")]
    argv.remove("--name")
    code, stderr = server.run("train", argv)
    assert code == 0, stderr
    again = ["--init_from", "resume", "--out_dir", str(tmp_path / "out"), f"--name={name}"]
    assert server.run("train", [*again, "--max_steps", "5"])[0] == 0
    where = ["--out_dir", str(tmp_path / "out"), f"--run={name}", "--max_new_tokens", "2"]
    assert server.run("sample", where)[0] == 0


@pytest.mark.parametrize(
    "out_dir", ["/proc/x", "{tmp}/file", "{tmp}/loop", "/dev/null/x", "x" * 300]
)
def test_an_out_dir_that_cannot_be_made_is_one_error_before_the_first_step(
    out_dir: str, server: Server, flags: Flags, tmp_path: Path
) -> None:
    """A read-only file system, a file, a loop of links or a long name end the command with 2."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "loop").symlink_to("loop")
    argv = [*flags("run"), "--out_dir", out_dir.format(tmp=tmp_path)]
    assert_one_error(*server.run("train", argv))


@pytest.mark.parametrize("name", ["file", "locked", "x" * 300])
def test_a_run_folder_that_cannot_be_made_is_one_error_before_the_first_step(
    name: str, server: Server, flags: Flags, tmp_path: Path
) -> None:
    """A file, a folder in the place of the lock, or a long name end the command with 2."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("in the way")
    (tmp_path / "out" / "locked" / ".lock").mkdir(parents=True)
    assert_one_error(*server.run("train", [*flags("run"), f"--name={name}"]))


def assert_one_error(code: int, stderr: str, complaint: str = "error: ") -> None:
    """Check that a command has failed with exit code 2 and one line, which has the complaint."""
    assert code == 2 and stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
    assert complaint in stderr


def test_another_configuration_is_refused_on_resume(
    server: Server, flags: Flags, resume: Flags, tmp_path: Path
) -> None:
    """On resume, one line names the changed flag with both values; the folder stays as it was."""
    assert server.run("train", flags("run"))[0] == 0
    before = digests(tmp_path / "out")
    for more, complaint in (
        ("--tokenizer char", "--tokenizer char, but this run was started with bpe"),
        ("--vocab_size 300", "--vocab_size 300, but this run was started with 270"),
        ("--n_embd 32", "--n_embd 32, but this run was started with 16"),
        ("--dropout 0.2", "--dropout 0.2, but this run was started with 0.1"),
        ("--learning_rate 1", "--learning_rate 1.0, but"),
        ("--block_size 8", "--block_size 8, but"),
    ):
        assert_one_error(*server.run("train", resume("run", f"--max_steps 50 {more}")), complaint)
    after = digests(tmp_path / "out")
    assert after == {**before, "run/.lock": after["run/.lock"]}


def test_another_text_is_refused_on_resume(
    server: Server, flags: Flags, resume: Flags, text: Path, tmp_path: Path
) -> None:
    """Another --data, a changed text or a missing one is one line; the folder stays as it was."""
    assert server.run("train", flags("run"))[0] == 0
    before = digests(tmp_path / "out")
    other = tmp_path / "other.txt"
    other.write_text("Another text. " * 999)
    argv = resume("run", "--max_steps 50")
    refused = "trained on another text"
    assert_one_error(*server.run("train", [*argv, "--data", str(other)]), refused)
    text.write_text(text.read_text()[:-1])
    assert_one_error(*server.run("train", argv), refused)
    text.unlink()
    assert_one_error(*server.run("train", argv), "no such file")
    after = digests(tmp_path / "out")
    assert after == {**before, "run/.lock": after["run/.lock"]}


def train_and_change_files(
    server: Server, argv: list[str], text: Path, change: Callable[[Path], object]
) -> tuple[int, str]:
    """Change a text and its tokens while a run trains on them; return its exit code and stderr."""
    trial = server.start("train", argv, "slow_steps", 0.02)
    trial.until("step 8: ")
    time.sleep(random.random() / 10)
    original = text.read_bytes()
    for path in [text, *(server.folder / "data" / "cache").glob("*.bin")]:
        change(path)
    code, stderr = trial.wait(), trial.output()
    text.write_bytes(original)
    assert "Traceback" not in stderr
    return code, stderr


def replace(path: Path) -> None:
    """Rename another file to `path`, as an editor does when it saves."""
    path.with_name("new").write_bytes(path.read_bytes()[::-1])
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [Path.unlink, replace])
def test_a_text_that_is_removed_or_replaced_does_not_disturb_its_run(
    change: Callable[[Path], None], server: Server, flags: Flags, trained: Trained,
    undisturbed: Trained, text: Path,
) -> None:  # fmt: skip
    """The run has its tokens open, so it ends in the bits of a run without the change."""
    expected = undisturbed()
    code, stderr = train_and_change_files(server, flags("run"), text, change)
    assert code == 0, stderr
    assert trained("run") == expected


@pytest.mark.parametrize(
    "damage", [lambda data: data[:99], lambda data: bytes(len(data)), lambda _: os.urandom(9999)],
    ids=["cut", "zeros", "noise"],
)  # fmt: skip
def test_a_run_whose_tokens_are_overwritten_saves_and_resumes_bit_for_bit(
    damage: Callable[[bytes], bytes], server: Server, flags: Flags, resume: Flags,
    trained: Trained, undisturbed: Trained, text: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """The run saves the steps before the damage, exits with one line, and can then resume."""
    expected = undisturbed()
    code, stderr = train_and_change_files(
        server, flags("run"), text, lambda path: path.write_bytes(damage(path.read_bytes()))
    )
    assert code == 2 and "cut short or written over" in stderr.splitlines()[-1], stderr
    assert checkpoint.load_newest(tmp_path / "out" / "run").step >= 8
    code, stderr = server.run("train", resume("run"))
    assert code == 0, stderr
    assert trained("run") == expected


def test_a_checkpoint_with_too_many_tensors_is_not_saved(tmp_path: Path) -> None:
    """A file whose header could not be loaded again is refused, and no checkpoint appears."""
    model, tokenizer, state = model_and_optimizer(0)
    many = {f"{name} {i}": tensor for name, tensor in state.items() for i in range(3000)}
    with pytest.raises(checkpoint.UserError, match="tensors are too many"):
        checkpoint.save(tmp_path, model, tokenizer, many, {"step": 1})
    assert checkpoint.steps(tmp_path) == []
