"""Rows of an old text among those of a new one: which rows, and what the model forgets."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from digests import trained
from models import random_model
from small_text import write_text
from steps import around_gradients, stopped_at

import train
from minigen import corpora
from minigen.data import Mixture, Pairs, TokenStream, prepare, prepare_pairs
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.model import GPTConfig
from minigen.run.log import read_metrics
from minigen.run.run import Run
from minigen.tokenizer import train_tokenizer
from train import TrainConfig, accumulate_gradients

pytestmark = pytest.mark.usefixtures("signals")
BYTE = train_tokenizer("byte", [])
T = 32
SMALL = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 32 --batch_size 5 --tokenizer byte"
CPU = "--device cpu --compile no --dtype float32 --eval_tokens 200"


def write_pairs(folder: Path, n: int = 60) -> Path:
    """Write pairs that ask for a number's next one."""
    rows = [{"prompt": f"{k} and then", "completion": f" {k + 1}."} for k in range(n)]
    random.Random(0).shuffle(rows)
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def texts(tmp_path: Path) -> tuple[TokenStream, Pairs]:
    """Return running text and pairs, with bytes as tokens."""
    cache = tmp_path / "cache"
    corpus = corpora.find([str(write_text(tmp_path, 60))], tmp_path)
    stream = prepare(corpus, BYTE, "", 0, cache)[1]
    corpus = corpora.find([str(write_pairs(tmp_path))], tmp_path)
    return stream, prepare_pairs(corpus, BYTE, "", 0, cache, "answer")[1]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that trains in this process, and returns the run's folder."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    write_pairs(tmp_path)

    def run(flags: str, name: str, code: int = 0) -> Path:
        assert train.main(shlex.split(f"--name {name} {CPU} {flags}")) == code
        return tmp_path / "out" / name

    return run


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("is_old_running_text", [True, False])
def test_a_mixture_has_the_rows_of_both_texts_in_their_order(
    texts: tuple[TokenStream, Pairs], share: float, is_old_running_text: bool
) -> None:
    """The first n rows are the first rows of both texts, and round(share n) are of the old one."""
    old, new = texts if is_old_running_text else texts[::-1]
    mixture = Mixture(new, old, share)
    sizes, place = [1, 3, 8, 5, 8, 20, 5], 0
    rows = dict[str, list[torch.Tensor]](new=[], old=[])
    for size in sizes:
        numbers = range(place, place + size)
        place += size
        batch = mixture.batch(7, numbers, T)
        assert batch.x.shape == batch.y.shape == (size, T)
        n_new = int(size - (int(share * place + 1e-9) - int(share * (place - size) + 1e-9)))
        rows["new"] += batch.x[:n_new]
        rows["old"] += batch.x[n_new:]
    assert len(rows["old"]) == round(share * 50)
    for name, text in (("new", new), ("old", old)):
        if rows[name]:
            expected = text.batch(7, range(len(rows[name])), T).x
            assert torch.equal(torch.stack(rows[name]), expected)


def test_the_loss_of_a_mixture_is_the_mean_over_the_targets_of_both_texts(
    texts: tuple[TokenStream, Pairs],
) -> None:
    """Any number of micro-batches gives the loss and the gradient of all scored targets at once.

    A row of running text is seen whole, and the examples of a row of pairs are seen by themselves.
    """
    stream, pairs = texts
    mixture = Mixture(pairs, stream, 0.4)
    config = TrainConfig(block_size=T, batch_size=10, device="cpu", dtype="float32")
    losses, gradients = [], []
    for n in (1, 3, 10):
        model = random_model(GPTConfig.modern(BYTE.n_vocab, T, 1, 2, 16)).train()
        losses.append(accumulate_gradients(model, mixture, config, 2, n).item())
        gradients.append(model.blocks[0].attention.query.weight.grad)
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-4, atol=1e-7)

    model = random_model(GPTConfig.modern(BYTE.n_vocab, T, 1, 2, 16))
    numbers = {stream: range(8, 12), pairs: range(12, 18)}  # of the third batch of ten
    total, n_targets = 0.0, 0
    for text, rows in numbers.items():
        x, y, begins = text.batch(config.seed, rows, T)
        total += train.next_token_loss(model(x, begins=begins), y).item()
        n_targets += text.n_targets(config.seed, rows, T)
    assert mixture.n_targets(config.seed, range(20, 30), T) == n_targets
    assert losses[0] == pytest.approx(total / n_targets, rel=1e-5)


def test_a_run_with_an_old_text_resumes_bit_for_bit(start: Callable[..., Path]) -> None:
    """7 steps and 5 after a stop give the bits of 12; another old text is refused."""
    base = start(f"--data text.txt --max_steps 3 {SMALL}", "base")
    flags = f"--data pairs.jsonl --init_from {base} --max_steps 12 --batch_size 3 --dropout 0.1"
    whole = start(f"{flags} --old_share 0.3", "whole")
    assert trained(whole) != trained(start(flags, "without"))
    with stopped_at(6):
        start(f"{flags} --old_share 0.3", "half", code=130)
    Path("other.txt").write_text(Path("text.txt").read_text()[::-1])
    for more, complaint in (
        ("--old_data other.txt", "was trained with another old text; give its --old_data"),
        ("--old_share 0.4", "--old_share 0.4, but this run was started with 0.3"),
    ):
        with pytest.raises(UserError, match=complaint):
            train.main(shlex.split(f"--init_from resume --name half {more}"))
    assert train.main(["--init_from", "resume", "--name", "half"]) == 0
    assert trained(Path("out/half")) == trained(whole)


def test_a_model_forgets_less_of_a_text_that_it_rehearses(start: Callable[..., Path]) -> None:
    """With half of the rows of the old text, the loss on that text rises far less."""
    base = start(f"--data text.txt --max_steps 60 --dropout 0 {SMALL}", "base")
    flags = f"--data pairs.jsonl --init_from {base} --max_steps 60 --learning_rate 0.01"
    rise = []
    for share in (0, 0.5):
        last = read_metrics(start(f"{flags} --old_share {share}", f"share-{share}"))[-1]
        rise.append(last["old_loss_after"] - last["old_loss_before"])
    assert rise[0] > 0.5 and rise[1] < 0.2 * rise[0]


def test_only_the_training_part_of_the_old_text_is_rehearsed(start: Callable[..., Path]) -> None:
    """The held-out part, on which forgetting is measured, is in no row."""
    base = start(f"--data text.txt --max_steps 2 {SMALL}", "base")
    rehearsed = list[str]()

    def hook(run: Run, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        rows = run.text.training
        assert isinstance(rows, Mixture)
        rehearsed.append(rows.old.path.stem)
        return compute()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "within_memory", around_gradients(hook))
        start(f"--data pairs.jsonl --init_from {base} --max_steps 1 --old_share 0.5", "tuned")
    training, _ = checkpoint.load_best(base).state["content"]
    assert rehearsed == [training]


def test_an_old_text_that_cannot_be_rehearsed_is_refused_in_a_line(
    start: Callable[..., Path], tmp_path: Path
) -> None:
    """Without a base model, with a text that is not known or too short, or with a wrong share."""
    base = start(f"--data text.txt --max_steps 2 {SMALL}", "base")
    foreign = tmp_path / "foreign"  # a model of another program: there is no state.json
    shutil.copytree(checkpoint.load_best(base).path, foreign)
    for name in ("state.json", "optimizer.safetensors", "MANIFEST.json"):
        (foreign / name).unlink()
    (tmp_path / "short.txt").write_text("A short text of few bytes, one.")
    for flags, complaint in (
        ("--old_share 0.2", "--old_share needs a model to fine-tune; give --init_from"),
        (f"--init_from {base} --old_share 1", "--old_share is 1"),
        (f"--init_from {base} --old_share nan", "--old_share is nan"),
        (f"--init_from {foreign} --old_share 0.2", "which is not known; give --old_data"),
        (f"--init_from {base} --old_share 0.2 --old_data short.txt", "has only"),
    ):
        with pytest.raises(UserError, match=complaint) as caught:
            start(f"--data pairs.jsonl {flags}", "refused")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "refused").exists()
