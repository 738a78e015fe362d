"""Checkpoints load as they were saved; a damaged one is named and skipped."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from digests import CHECKPOINT_FILES

from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.model import GPT, GPTConfig
from minigen.optim import Optimizer
from minigen.run.start import new_folder
from minigen.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer("char", ["abc déf"])


def make(run: Path, step: int, val_loss: float | None = None, tied: bool = True) -> GPT:
    """Save a small random model as the checkpoint of `step`."""
    torch.manual_seed(step)
    config = GPTConfig.modern(
        TOKENIZER.n_vocab, 8, n_layer=1, n_head=2, n_embd=8, tie_embeddings=tied
    )
    model = GPT(config)
    optimizer = Optimizer(model.named_parameters())
    state = {"step": step} | ({} if val_loss is None else {"val_loss": val_loss})
    checkpoint.save(run, model, TOKENIZER, optimizer.state, state)
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_checkpoint_loads_bit_for_bit(tmp_path: Path, tied: bool) -> None:
    """A saved checkpoint loads with the same weights, config, tokenizer and step."""
    model = make(tmp_path, 7, tied=tied)
    loaded = checkpoint.load(tmp_path / "step-000007")
    assert loaded.step == 7 and loaded.config == model.config
    assert loaded.tokenizer.fingerprint == TOKENIZER.fingerprint
    again = loaded.model()
    assert not again.training
    for (name, a), (other, b) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other and torch.equal(a, b) and b.requires_grad
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.eval()(ids), again(ids))


@pytest.mark.parametrize("loss", [float("inf"), float("nan")])
def test_a_non_finite_loss_is_null(loss: float, tmp_path: Path) -> None:
    """A loss that is not finite is saved as null; the checkpoint loads, but is never the best."""
    make(tmp_path, 1, val_loss=9.0)
    make(tmp_path, 2, val_loss=loss)
    text = (tmp_path / "step-000002" / "state.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=str)["val_loss"] is None
    assert checkpoint.load_newest(tmp_path).step == 2 and checkpoint.load_best(tmp_path).step == 1


def test_a_failed_save_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    """A save that fails leaves the earlier checkpoints, and no new folder."""
    make(tmp_path, 1)
    (tmp_path / "step-000002").mkdir()
    (tmp_path / "step-000002" / "something").touch()  # no folder can be renamed to this name
    with pytest.raises(UserError, match=r"cannot save .*step-000002"):
        make(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.glob("[!b]*")) == ["step-000001", "step-000002"]
    assert checkpoint.load_newest(tmp_path).step == 1


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone", "zeros"])
def test_a_damaged_checkpoint_is_named_and_skipped(
    tmp_path: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names a damaged file of the newest checkpoint, and the one before is loaded."""
    make(tmp_path, 1)
    make(tmp_path, 2)
    path = tmp_path / "step-000002" / name
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 4
    damaged = {
        "bit": bytes(content),
        "cut": bytes(content[:-3]),
        "empty": b"",
        "zeros": bytes(len(content)),
    }
    path.unlink() if damage == "gone" else path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match="step-000002") as caught:
        checkpoint.load(tmp_path / "step-000002")
    assert "\n" not in str(caught.value)
    assert checkpoint.load_newest(tmp_path).step == 1
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and "step-000002" in warning and name in warning


def test_a_run_of_damaged_checkpoints_is_an_error(tmp_path: Path) -> None:
    """A run in which every checkpoint is damaged is an error, not a new run."""
    make(tmp_path, 1)
    (tmp_path / "step-000001" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        checkpoint.load_newest(tmp_path)


def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path) -> None:
    """A damaged checkpoint is renamed, so that a resumed run can save its step again."""
    make(tmp_path, 1)
    for _ in range(2):
        make(tmp_path, 2)
        (tmp_path / "step-000002" / "state.json").write_bytes(b"?")
        checkpoint.set_aside(tmp_path, checkpoint.load_newest(tmp_path).step)
        assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-000001"]
    make(tmp_path, 2)
    assert checkpoint.load_newest(tmp_path).step == 2
    assert (tmp_path / "damaged-step-000002" / "state.json").read_bytes() == b"?"


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    """A pickle under the name of any file of a checkpoint is not executed."""
    make(tmp_path, 1)
    evil = pickle.dumps(_Touch(tmp_path / "was_here"))
    folder = tmp_path / "step-000001"
    for name in CHECKPOINT_FILES:
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(evil)
        with pytest.raises(UserError):
            checkpoint.load(folder)
        (folder / name).write_bytes(original)
    assert not (tmp_path / "was_here").exists()


class _Touch:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    """Weights that do not fit the config are refused with the name of a tensor."""
    make(tmp_path, 1)
    loaded = checkpoint.load(tmp_path / "step-000001")
    for change in ({"n_layer": 2}, {"n_embd": 16}, {"tie_embeddings": False}):
        config = GPTConfig(**{**loaded.config.__dict__, **change})
        wrong = checkpoint.Checkpoint(
            loaded.path, config, loaded.weights, loaded.optimizer, loaded.tokenizer, loaded.state
        )
        with pytest.raises(UserError, match="do not fit config"):
            wrong.model()


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    """Pruning keeps the last two checkpoints and the one with the lowest validation loss."""
    losses = {1: 3.0, 2: 2.0, 3: None, 4: 2.5, 5: 2.6}
    for step, loss in losses.items():
        make(tmp_path, step, loss)
        checkpoint.prune(tmp_path)
    assert [path.name for path in checkpoint.steps(tmp_path)] == [
        "step-000002",
        "step-000004",
        "step-000005",
    ]
    assert checkpoint.load_best(tmp_path).step == 2
    assert checkpoint.load_newest(tmp_path).step == 5


def test_best_without_any_validation_loss_is_the_newest(tmp_path: Path) -> None:
    """The best checkpoint of a run without a validation loss is the newest."""
    make(tmp_path, 1)
    make(tmp_path, 3)
    assert checkpoint.load_best(tmp_path).step == 3


def test_a_run_is_found_by_name_or_as_the_last(tmp_path: Path) -> None:
    """`find_run` returns the named run, or the run saved last; an error lists the runs."""
    with pytest.raises(UserError, match=r"train one: \S+ \S*train\.py"):
        checkpoint.find_run(tmp_path / "none")
    make(tmp_path / "old", 9)
    make(tmp_path / "new", 1)
    os.utime(tmp_path / "old" / "step-000009", (1, 1))
    assert checkpoint.find_run(tmp_path) == tmp_path / "new"
    assert checkpoint.find_run(tmp_path, "old") == tmp_path / "old"
    with pytest.raises(UserError, match=r"no run 'odl'.*new, old"):
        checkpoint.find_run(tmp_path, "odl")


def test_another_format_is_refused(tmp_path: Path) -> None:
    """A checkpoint of another format is refused in one line."""
    make(tmp_path, 1)
    path = tmp_path / "step-000001" / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        checkpoint.load(path.parent)


# ---- the link to the best checkpoint ----


def test_best_is_a_link_to_the_best_checkpoint(tmp_path: Path) -> None:
    """After each save `best` is a relative link to the checkpoint with the lowest loss."""
    for step, loss, best in ((1, 3.0, 1), (2, 2.0, 2), (3, 2.5, 2), (4, 1.0, 4)):
        make(tmp_path, step, loss)
        checkpoint.prune(tmp_path)
        assert os.readlink(tmp_path / "best") == f"step-{best:06d}"
    assert not (tmp_path / ".tmp-best").is_symlink()


def test_the_link_means_the_checkpoint_that_it_points_to(tmp_path: Path) -> None:
    """`best` loads, and is found, as the `step-` folder; a run stays a run with one entry."""
    run = tmp_path / "out" / "tales"
    make(run, 1, 1.0)
    make(run, 2, 2.0)
    assert checkpoint.load(run / "best").path == run / "step-000001"
    assert checkpoint.find(str(run / "best")) == run / "step-000001"
    assert checkpoint.find("tales/best", run.parent) == run / "step-000001"
    assert checkpoint.is_checkpoint(run / "best") and len(checkpoint.steps(run)) == 2
    assert checkpoint.runs(run.parent) == [run] and checkpoint.runs(run) == []
    with pytest.raises(UserError, match=r"is a checkpoint, not a run; name its run: .*tales$"):
        checkpoint.find_run(run.parent, str(run / "best"))
    (run / "step-000001" / "MANIFEST.json").unlink()
    with pytest.raises(UserError, match=r"step-000001 is not a checkpoint: it has no MANIFEST"):
        checkpoint.load(run / "best")


def test_a_damaged_best_checkpoint_is_not_linked(tmp_path: Path) -> None:
    """When a damaged checkpoint is set aside, `best` points to the best of the others."""
    make(tmp_path, 1, 2.0)
    make(tmp_path, 2, 1.0)
    checkpoint.set_aside(tmp_path, 1)
    assert os.readlink(tmp_path / "best") == "step-000001"


def test_a_file_of_the_user_called_best_stays(tmp_path: Path) -> None:
    """A file, a folder or another link with the name `best` is left as it is."""
    for name, put in (
        ("file", lambda path: path.write_text("mine")),
        ("folder", lambda path: path.mkdir()),
        ("link", lambda path: path.symlink_to("elsewhere")),
    ):
        run = tmp_path / name
        run.mkdir()
        put(run / "best")
        before = (run / "best").lstat().st_ino
        make(run, 1, 1.0)
        assert (run / "best").lstat().st_ino == before
        assert sorted(os.listdir(run)) == ["best", "step-000001"]


@pytest.mark.parametrize("call", ["symlink", "replace"])
def test_a_run_is_saved_where_there_are_no_links(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no link can be made or renamed, a save makes no link and does not fail."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, call, refuse)
    make(tmp_path, 1, 1.0)
    assert os.listdir(tmp_path) == ["step-000001"] and capsys.readouterr().err == ""


@pytest.mark.parametrize("symlinks", [True, False])
def test_a_copy_of_a_run_is_a_run(symlinks: bool, tmp_path: Path) -> None:
    """A copied folder of a run has the same checkpoints, whether links are kept or followed."""
    make(tmp_path / "run", 1, 1.0)
    make(tmp_path / "run", 2, 2.0)
    shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=symlinks)
    make(tmp_path / "copy", 3, 0.5)
    checkpoint.prune(tmp_path / "copy")
    assert [path.name for path in checkpoint.steps(tmp_path / "copy")] == [
        "step-000002",
        "step-000003",
    ]
    assert checkpoint.load_best(tmp_path / "copy").step == 3
    assert checkpoint.load(tmp_path / "copy" / "best").step == (3 if symlinks else 1)
    assert os.readlink(tmp_path / "run" / "best") == "step-000001"


def test_a_new_run_does_not_go_into_the_link(tmp_path: Path) -> None:
    """A run with the name `best` inside another run gets a folder of its own."""
    make(tmp_path / "tales", 1, 1.0)
    assert new_folder(tmp_path / "tales", "best") == tmp_path / "tales" / "best-2"
    assert len(os.listdir(tmp_path / "tales" / "step-000001")) == 7
