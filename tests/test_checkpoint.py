"""Checkpoints: what goes in comes out, and what was damaged is named and passed over."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.model import GPT, GPTConfig
from minigen.optim import Optimizer
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
    facts = {"step": step} | ({} if val_loss is None else {"val_loss": val_loss})
    checkpoint.save(run, model, TOKENIZER, optimizer.state, facts)
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_checkpoint_loads_bit_for_bit(tmp_path: Path, tied: bool) -> None:
    """Weights bit for bit, config, tokenizer, optimiser and state."""
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
    """state.json is JSON for every reader, and such a checkpoint is whole, but never the best."""
    make(tmp_path, 1, val_loss=9.0)
    make(tmp_path, 2, val_loss=loss)
    text = (tmp_path / "step-000002" / "state.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=str)["val_loss"] is None
    assert checkpoint.load_newest(tmp_path).step == 2 and checkpoint.load_best(tmp_path).step == 1


def test_a_failed_save_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    """A save that fails leaves what was there, and no folder that looks like a checkpoint."""
    make(tmp_path, 1)
    (tmp_path / "step-000002").mkdir()
    (tmp_path / "step-000002" / "something").touch()  # renaming onto this cannot work
    with pytest.raises(UserError, match=r"cannot save .*step-000002"):
        make(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000001", "step-000002"]
    assert checkpoint.load_newest(tmp_path).step == 1


@pytest.mark.parametrize("name", [*(*checkpoint.WHOLE, *checkpoint.COMMON), "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone", "zeros"])
def test_a_damaged_checkpoint_is_named_and_skipped(
    tmp_path: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever happens to a file of the newest checkpoint: one line says which."""
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
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "step-000002" in said and name in said


def test_a_run_of_damaged_checkpoints_is_an_error(tmp_path: Path) -> None:
    """Without any whole checkpoint there is nothing to go on from."""
    make(tmp_path, 1)
    (tmp_path / "step-000001" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        checkpoint.load_newest(tmp_path)


def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path) -> None:
    """Going on from the checkpoint before a damaged one, a run comes to that step again."""
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
    """Code that hides in a checkpoint under any name is never executed."""
    make(tmp_path, 1)
    evil = pickle.dumps(_Touch(tmp_path / "was_here"))
    folder = tmp_path / "step-000001"
    for name in (*(*checkpoint.WHOLE, *checkpoint.COMMON), "MANIFEST.json"):
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(evil)
        with pytest.raises(UserError):
            checkpoint.load(folder)
        (folder / name).write_bytes(original)
    assert not (tmp_path / "was_here").exists()


class _Touch:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    """A config that does not describe the weights is refused by the name of a tensor."""
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
    """Pruning drops all others, and `load_best` finds the lowest validation loss."""
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
    """A run that was stopped before its first evaluation can be sampled too."""
    make(tmp_path, 1)
    make(tmp_path, 3)
    assert checkpoint.load_best(tmp_path).step == 3


def test_a_run_is_found_by_name_or_as_the_last(tmp_path: Path) -> None:
    """The run that was saved last, or the named one; for a missing one, those that exist."""
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
    """A folder of a later minigen says so instead of failing somewhere."""
    make(tmp_path, 1)
    path = tmp_path / "step-000001" / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        checkpoint.load(path.parent)
