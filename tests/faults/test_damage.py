"""A damaged checkpoint is named in one line, and the one before it is loaded."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from digests import CHECKPOINT_FILES
from forks import Server
from jobs import Flags, model_and_optimizer

from minigen.files import checkpoint

NAMES = list(CHECKPOINT_FILES)


def damages(content: bytes, other: bytes, n: int) -> Iterator[bytes | None]:
    """Yield damaged versions of a file; None: the file is missing.

    Args:
        other: the file of another step.
        n: the number of versions with a flipped bit.
    """
    for _ in range(n):
        flipped = bytearray(content)
        flipped[random.randrange(len(content))] ^= 1 << random.randrange(8)
        yield bytes(flipped)
    for _ in range(n // 2):
        yield content[: random.randrange(len(content))]
    yield from (b"", None, bytes(len(content)), content + b" ", content[:-1])
    start = random.randrange(len(content))
    yield content[:start] + bytes(len(content) - start)  # as after a power cut
    if other != content:
        yield other


@pytest.mark.parametrize("name", NAMES)
def test_every_damage_is_named_and_skipped(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file with a flipped bit, cut, zeroed, missing or of another step is found out."""
    for step in (1, 2):
        checkpoint.save(tmp_path, *model_and_optimizer(step), {"step": step})
    path = tmp_path / "step-000002" / name
    content, other = path.read_bytes(), (tmp_path / "step-000001" / name).read_bytes()
    n_skipped = 0
    for damaged in damages(content, other, 100):
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        step = checkpoint.load_newest(tmp_path).step
        warning = capsys.readouterr().err
        if step == 1:
            where = path.parent if name == "MANIFEST.json" else path
            assert warning.count("\n") == 1 and warning.startswith("warning: ")
            assert str(where) in warning
            n_skipped += 1
        else:  # other bytes of the manifest mean the same, such as white space
            assert name == "MANIFEST.json" and warning == ""
    assert n_skipped >= (155 if name != "MANIFEST.json" else 130)


def test_a_run_resumes_from_the_checkpoint_before(
    server: Server,
    flags: Flags,
    resume: Flags,
    trained: Callable[[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    """A run whose newest checkpoint is damaged resumes from the one before, to the same bits."""
    assert server.run("train", flags("whole"))[0] == 0
    assert server.run("train", flags("run", "--max_steps 32 --eval_interval 8"))[0] == 0
    newest = checkpoint.steps(tmp_path / "out" / "run")[-1] / "optimizer.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert server.run("train", flags("other", "--max_steps 40 --eval_interval 8"))[0] == 0
    code, said = server.run("train", resume("run", "--max_steps 40"))
    assert code == 0 and said.startswith(f"warning: {newest} is damaged"), said
    assert "Traceback" not in said and said.count("damaged") == 1
    # The learning rate depends on --max_steps, so compare with a run that has the same one.
    assert server.run("train", flags("again", "--max_steps 32 --eval_interval 8"))[0] == 0
    shutil.rmtree(checkpoint.steps(tmp_path / "out" / "again")[-1])
    assert server.run("train", resume("again", "--max_steps 40"))[0] == 0
    assert trained("run") == trained("again")


def test_a_run_of_damaged_checkpoints_does_not_start_afresh(
    server: Server, flags: Flags, resume: Flags, tmp_path: Path
) -> None:
    """If all checkpoints are damaged, a run ends with exit code 2 and changes nothing."""
    assert server.run("train", flags("run"))[0] == 0
    run = tmp_path / "out" / "run"
    for path in checkpoint.steps(run):
        (path / "state.json").write_bytes(b"{}")
    before = sorted(run.rglob("*"))
    code, said = server.run("train", resume("run"))
    lines = said.splitlines()
    assert code == 2 and lines[-1] == f"error: {run} has no checkpoint that can be read"
    assert len(lines) == 1 + len(checkpoint.steps(run))
    assert sorted(run.rglob("*")) == before


def test_a_named_checkpoint_is_never_replaced(server: Server, flags: Flags, tmp_path: Path) -> None:
    """A command that names a damaged checkpoint ends with an error, and takes no other one."""
    assert server.run("train", flags("run"))[0] == 0
    out = tmp_path / "out"
    best = checkpoint.best_first(out / "run")[0]
    where = ["--out_dir", str(out), "--max_new_tokens", "3", "--device", "cpu"]
    commands = [
        ("sample", [*where, "--run", "run"]),
        ("sample", [*where, "--checkpoint", str(best)]),
        ("train", flags("fine", f"--init_from {best} --max_steps 3")),
        ("train", flags("fine", f"--init_from {out / 'run'} --max_steps 3")),
    ]
    commands[2:] = [(job, [w for w in argv if w not in fixed(argv)]) for job, argv in commands[2:]]
    for damage in ("manifest", "bit"):
        kept = tmp_path / "kept"
        shutil.copytree(best, kept)
        if damage == "manifest":
            (best / "MANIFEST.json").unlink()
        else:
            weights = best / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        for job, argv in commands:
            code, said = server.run(job, argv)
            assert code == 2 and said.startswith("error: ") and best.name in said, said
            assert said.count("\n") == 1
        code, said = server.run("sample", where)  # no name: a warning, and the next best
        assert code == 0 and said.startswith("warning: ") and best.name in said.splitlines()[0]
        shutil.rmtree(best)
        kept.rename(best)
    assert server.run(*commands[0])[0] == 0


def fixed(argv: list[str]) -> set[str]:
    """Return the flags, with their values, that a base model decides on."""
    names = ("--n_layer", "--n_head", "--n_embd", "--vocab_size", "--block_size", "--batch_size")
    return {word for name in names for word in argv[argv.index(name) : argv.index(name) + 2]}
