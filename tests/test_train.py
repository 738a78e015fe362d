"""Training: a stopped run resumes bit for bit, and each reported figure is the true one."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from digests import trained
from forks import Server
from models import random_model
from small_text import until_it_trains
from steps import around_gradients, stopped_at
from torch.nn import functional as F

import sample
import train
from minigen import corpora
from minigen.data import TokenStream, prepare
from minigen.errors import UserError
from minigen.evaluation import command as judging
from minigen.files import checkpoint
from minigen.inference.engine import load
from minigen.model import GPT, GPTConfig
from minigen.optim import Optimizer
from minigen.run import clock as clock_module
from minigen.run import run as run_module
from minigen.run import start as start_module
from minigen.run.compile import compiling_pays, has_cpp_compiler
from minigen.run.config import SAVED_AS_0, new_shape, resolve
from minigen.run.log import read_metrics
from minigen.run.memory import count_micro_batches
from minigen.run.run import Run as RunInProgress
from minigen.run.signals import SIGNALS
from minigen.system.device import LOGITS_BYTES
from minigen.system.places import data_folder
from minigen.tokenizer import Tokenizer
from train import TrainConfig, accumulate_gradients, evaluate, naive_train

pytestmark = pytest.mark.usefixtures("signals")
ROOT = Path(train.__file__).parent

SMALL = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 16 --batch_size 8 --vocab_size 270"
SMALL += " --device cpu --dropout 0.1 --eval_tokens 200 --compile no --dtype float32"

Run = Callable[..., Path]


@pytest.fixture
def run(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that trains in this process with some flags, and returns the folder."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))

    def start(flags: str, name: str = "run", code: int = 0, small: str = SMALL) -> Path:
        out_dir = tmp_path / "out"
        place = ["--out_dir", str(out_dir), "--name", name, "--data", str(text)]
        assert train.main([*place, *small.split(), *flags.split()]) == code
        return out_dir / name

    return start


@pytest.fixture
def parts(
    text: Path, tmp_path: Path
) -> tuple[GPT, Tokenizer, TokenStream, TokenStream, TrainConfig]:
    """Return a model, its tokenizer, a text in two parts, and the configuration to train it."""
    corpus = corpora.find([str(text)], tmp_path)
    tokenizer, train_tokens, val_tokens = prepare(corpus, None, "bpe", 270, tmp_path / "cache")
    config = TrainConfig(
        n_layer=1, n_head=2, n_embd=16, block_size=16, batch_size=12, device="cpu", dtype="float32"
    )
    config = resolve(config)
    model = random_model(GPTConfig.modern(tokenizer.n_vocab, 16, 1, 2, 16)).train()
    return model, tokenizer, train_tokens, val_tokens, config


def test_micro_batches_add_up_to_the_batch(parts: Any) -> None:
    """Loss and gradient do not depend on the number of micro-batches, even of unequal sizes."""
    model, _, tokens, _, config = parts
    results = []
    for n_micro_batches in (1, 3, 5, 12):
        model.zero_grad()
        loss = accumulate_gradients(model, tokens, config, 3, n_micro_batches)
        results.append([loss, *(p.grad.clone() for p in model.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_logged_loss_is_the_true_mean(parts: Any) -> None:
    """The logged loss is the mean over all tokens of the step's batch, in one piece."""
    model, _, tokens, _, config = parts
    x, y = tokens.windows(config.seed, range(24, 36), 16)
    expected = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    torch.testing.assert_close(accumulate_gradients(model, tokens, config, 2, 5), expected.detach())


def test_validation_loss_is_the_mean_over_every_token(parts: Any) -> None:
    """The validation loss is the mean over all tokens but the first, one computed at a time."""
    model, _, _, val_tokens, config = parts
    losses = []
    with torch.no_grad():
        for x, y in val_tokens.sliding(16, 4):
            for row_x, row_y in zip(x, y, strict=True):
                logits = model(row_x[None])[0]
                losses += [
                    F.cross_entropy(logits[t], row_y[t]).item() for t in range(16) if row_y[t] >= 0
                ]
    assert len(losses) == val_tokens.n_tokens - 1
    mean = sum(losses) / len(losses)
    assert evaluate(model, val_tokens, config, 1) == pytest.approx(mean, rel=1e-5)
    assert model.training


def test_the_loop_takes_the_steps_of_naive_train(run: Run) -> None:
    """`train` is `naive_train`, to the bit, if nothing changes the rate or scales gradients."""
    flags = "--max_steps 5 --warmup_steps 0 --cooldown 0 --grad_clip 0 --dropout 0"
    last = checkpoint.load_newest(run(f"{flags} --gradient_accumulation_steps 1"))
    saved = last.state["config"]
    config = TrainConfig(**{**saved, "data": tuple(saved["data"]), "old_data": ()})
    corpus = corpora.find(config.data, data_folder(), config.separator)
    _, tokens, _ = prepare(corpus, last.tokenizer, "", 0, data_folder() / "cache")
    torch.manual_seed(config.seed)
    model = GPT(new_shape(last.tokenizer.n_vocab, config)).train()
    optimizer = Optimizer(model.named_parameters(), True, config.weight_decay)
    naive_train(model, tokens, optimizer, config, saved["max_steps"])
    wanted = dict(last.model().named_parameters())
    assert all(p.equal(wanted[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stopped_run_resumes_bit_for_bit(run: Run, dtype: str) -> None:
    """137 steps and 63 after a stop give the bits of 200, with dropout and in three epochs."""
    small = SMALL.replace("float32", dtype)
    whole = run("--max_steps 200 --eval_interval 100", "whole", small=small)
    losses = {
        line["step"]: line["train_loss"] for line in read_metrics(whole) if "train_loss" in line
    }

    with stopped_at(136):
        half = run("--max_steps 200 --eval_interval 100", "half", code=130, small=small)
    assert checkpoint.steps(half)[-1].name == "step-000137"
    n_tokens = 12_371  # of the text: one epoch had ended, and one more does
    assert n_tokens < 137 * 8 * 16 and 2 * n_tokens < 200 * 8 * 16
    resumed = run("--init_from resume", "half", small="")
    assert trained(resumed) == trained(whole)
    again = {
        line["step"]: line["train_loss"] for line in read_metrics(resumed) if "train_loss" in line
    }
    assert again == losses


def test_a_run_of_an_earlier_version_resumes_bit_for_bit(run: Run) -> None:
    """Earlier versions saved 0 for a flag that was not given; a run resumes from that, too."""
    whole = run("--max_steps 20", "whole")
    with stopped_at(9):
        half = run("--max_steps 20", "half", code=130)
    last = checkpoint.load_newest(half)
    config = last.state["config"]
    not_given = {name for name in SAVED_AS_0 if config[name] is None}
    assert not_given == {"lora_rank", "eval_interval", "threads"}
    state = {**last.state, "config": {**config, **dict.fromkeys(not_given, 0)}}
    shutil.rmtree(half)
    checkpoint.save(half, last.model(), last.tokenizer, last.optimizer, state)
    resumed = run("--init_from resume", "half", small="")
    assert trained(resumed) == trained(whole)
    assert checkpoint.load_newest(resumed).state["config"] == {**config, "init_from": "resume"}


def test_evaluations_do_not_change_training(run: Run) -> None:
    """The weights are the same however often a run is evaluated; another seed changes them."""
    rarely = trained(run("--max_steps 12", "rarely"))
    assert rarely == trained(run("--max_steps 12 --eval_interval 2 --eval_tokens 100", "often"))
    assert rarely != trained(run("--max_steps 12 --seed 1", "other seed"))


class Ticks:
    """A clock that advances by a hundredth of a second whenever it is read."""

    now = 0.0

    def perf_counter(self) -> float:
        """Return the time in seconds."""
        self.now += 0.01
        return self.now


def test_a_run_keeps_every_checkpoint_on_request(run: Run) -> None:
    """--keep_checkpoints keeps each evaluation's checkpoint and step 0, and changes no weight."""
    flags = "--max_steps 25 --eval_interval 5"
    plain, kept = run(flags, "plain"), run(f"{flags} --keep_checkpoints", "kept")
    assert len(checkpoint.steps(plain)) <= 3
    steps = [checkpoint.load(path).step for path in checkpoint.steps(kept)]
    assert steps == [0, 5, 10, 15, 20, 25]
    assert trained(kept) == trained(plain)
    for path in checkpoint.steps(kept)[1:]:
        shutil.rmtree(path)
    assert trained(run("--init_from resume", "kept", small="")) == trained(plain)  # from step 0
    assert len(checkpoint.steps(kept)) == 6


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass for a run by the number of its steps, however fast the machine is."""
    time = Ticks()
    for module in (clock_module, run_module, start_module):
        monkeypatch.setattr(module, "time", time)


@pytest.fixture
def one_plan(ticks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run keep its first plan, as on a machine whose steps all take the same time."""
    monkeypatch.setattr(clock_module, "TOLERANCE", math.inf)


@pytest.mark.usefixtures("one_plan")
def test_minutes_become_a_number_of_steps(run: Run) -> None:
    """A run with --minutes is the run with --max_steps of the number of steps that it took."""
    timed = run("--minutes 0.06 --weight_decay 0.1", "timed")
    steps = checkpoint.load_newest(timed).state["config"]["max_steps"]
    assert steps == checkpoint.load_newest(timed).step > 10
    assert trained(run(f"--max_steps {steps} --weight_decay 0.1", "counted")) == trained(timed)


@pytest.mark.parametrize(
    ("data", "minutes", "size", "chosen"),
    [
        ("tales", None, "auto", ("tiny", 2)),
        ("tales", 9, "auto", ("tiny", 9)),
        ("my.txt", None, "auto", ("auto", 2)),  # until `recipe.choose` knows the text
        ("my.txt", 1, "light", ("light", 1)),
        ("pictures", None, "auto", ("slim", 3)),
        ("tunes", 1, "small", ("small", 1)),
        ("tales, tunes", None, "auto", ("slim", 6)),
    ],
)
def test_size_and_minutes_follow_the_text_unless_given(
    data: str, minutes: float | None, size: Any, chosen: tuple[str, float]
) -> None:
    """--size auto and a run without --minutes get the values that suit --data."""
    config = resolve(TrainConfig(data=(data,), minutes=minutes, size=size))
    assert (config.size, config.minutes) == chosen


def test_a_run_learns(run: Run) -> None:
    """The loss falls from ln(vocabulary) to well below it, on training and on validation text."""
    metrics = read_metrics(run("--max_steps 150 --dropout 0"))
    first = next(line["val_loss"] for line in metrics if "val_loss" in line)
    assert first == pytest.approx(math.log(270), rel=0.02)
    assert metrics[-1]["final_val_loss"] < 0.7 * math.log(270)
    train_losses = [line["train_loss"] for line in metrics if "train_loss" in line]
    assert sum(train_losses[-10:]) < 0.7 * sum(train_losses[:10])


def test_a_clipped_gradient_is_at_most_as_long_as_the_limit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer gradients are scaled down to --grad_clip before a step, and the log has their norm."""
    norms, step = list[float](), Optimizer.step

    def measured_step(optimizer: Optimizer, learning_rate: float) -> None:
        """Note the norm of the gradient that the step uses, and take the step."""
        parameters = [*optimizer.adamw.values()]
        parameters += [p for matrices in optimizer.muon.values() for p in matrices.values()]
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in parameters])))
        step(optimizer, learning_rate)

    monkeypatch.setattr(Optimizer, "step", measured_step)
    metrics = read_metrics(run("--max_steps 20 --grad_clip 0.5"))
    logged = [line["grad_norm"] for line in metrics if "grad_norm" in line]
    assert len(norms) == 20 and max(norms) <= 0.5 * (1 + 1e-5) < max(logged)


def test_a_run_rounds_denormal_numbers_to_zero(text: Path, tmp_path: Path) -> None:
    """All threads of a run compute without them, as they are slow; after it they are as before."""
    program = f"""
import torch
from minigen.run.start import start
from train import TrainConfig

def smallest(n):
    return (torch.full((n,), 1e-40) * 2).min().item()

config = TrainConfig(data=({str(text)!r},), max_steps=1, size="tiny", out_dir={str(tmp_path)!r})
with start(config):
    print(smallest(1), smallest(1 << 22))  # enough to share out among the threads
print(smallest(1) > 0)
"""
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert printed.split("\n")[-3:-1] == ["0.0 0.0", "True"]


def test_a_run_with_adamw_and_gpt2_learns(run: Run) -> None:
    """The validation loss falls with the other optimiser, architecture and tokenizer, too."""
    flags = "--max_steps 150 --dropout 0 --optimizer adamw --architecture gpt2 --tokenizer char"
    metrics = read_metrics(run(flags))
    first = next(line["val_loss"] for line in metrics if "val_loss" in line)
    assert metrics[-1]["final_val_loss"] < 0.8 * first


def test_out_of_memory_halves_the_micro_batches(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If only three sequences fit into memory, a batch of twelve becomes four micro-batches."""
    flags = "--max_steps 3 --batch_size 12"
    wanted = trained(run(f"{flags} --gradient_accumulation_steps 4", "wanted"))
    forward = GPT.forward

    def crowded(model: GPT, ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        if len(ids) > 3 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("out of memory")
        return forward(model, ids, *rest, **named)

    monkeypatch.setattr(GPT, "forward", crowded)
    capsys.readouterr()
    folder = run(flags, "crowded")
    assert capsys.readouterr().err.count("out of memory: ") == 2
    assert trained(folder) == wanted
    saved = checkpoint.load_newest(folder).state["config"]
    assert saved["gradient_accumulation_steps"] == 4


def test_a_sequence_that_does_not_fit_into_memory_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `UserError` reports it, also on a CPU, where PyTorch raises a plain RuntimeError."""

    def full(model: GPT, ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        words = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        raise RuntimeError(words)

    train_forward, forward = full, GPT.forward
    monkeypatch.setattr(
        GPT,
        "forward",
        lambda *args, **named: (train_forward if torch.is_grad_enabled() else forward)(
            *args, **named
        ),
    )
    with pytest.raises(UserError, match="one sequence does not fit"):
        run("--max_steps 3")


def test_large_logits_are_cut_into_micro_batches() -> None:
    """Micro-batches are the fewest whose logits stay within the limit; a given number stays."""
    config = TrainConfig(batch_size=32, block_size=512, device="cpu")
    rows = math.ceil(32 / count_micro_batches(config, 50257))
    assert rows * 512 * 50257 * 4 <= LOGITS_BYTES["cpu"] < (rows + 1) * 512 * 50257 * 4
    assert count_micro_batches(config, 256) == 1
    given = dataclasses.replace(config, gradient_accumulation_steps=3)
    assert count_micro_batches(given, 50257) == 3
    long = dataclasses.replace(config, block_size=2**20)
    assert count_micro_batches(long, 50257) == 32


def test_a_nonfinite_loss_or_gradient_stops_the_run_before_it_is_learnt(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN in a gradient ends the run with exit code 3, and the newest checkpoint is finite."""

    def with_nan(run: RunInProgress, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        loss = compute()
        if run.step == 7:  # in a gradient only; the loss is finite
            grad = run.model.blocks[0].mlp.down.weight.grad
            assert grad is not None
            grad[0, 0] = math.nan
        return loss

    monkeypatch.setattr(RunInProgress, "within_memory", around_gradients(with_nan))
    folder = run("--max_steps 12 --eval_interval 3", code=3)
    last = checkpoint.load_newest(folder)
    assert last.step == 6
    assert all(t.isfinite().all() for t in [*last.weights.values(), *last.optimizer.values()])


def test_no_run_is_overwritten(run: Run, tmp_path: Path) -> None:
    """A second run of the same name goes into a folder of its own."""
    first = trained(run("--max_steps 2"))
    run("--max_steps 3")
    assert trained(tmp_path / "out" / "run") == first
    assert checkpoint.load_newest(tmp_path / "out" / "run-2").step == 3


@pytest.fixture
def new_text(tmp_path: Path) -> Path:
    """Return a text for fine-tuning that has nothing to do with the base model's text."""
    path = tmp_path / "new.txt"
    path.write_text("No, no: never again!\n" * 400)
    return path


TUNE = "--device cpu --compile no --dtype float32 --batch_size 4"


@pytest.mark.parametrize("flags", ["", "--lora_rank 2"])
def test_fine_tuning_learns_a_text_and_reports_forgetting(
    run: Run, flags: str, new_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss on the new text falls; the loss on the old text, which rises, is logged."""
    base = run("--max_steps 60 --dropout 0", "base")
    capsys.readouterr()
    flags = f"--init_from {base} --data {new_text} --max_steps 30 --eval_interval 15 {TUNE} {flags}"
    tuned = run(flags, "tuned", small="")
    output = capsys.readouterr().err

    metrics = read_metrics(tuned)
    val_losses = [line["val_loss"] for line in metrics if "val_loss" in line]
    assert val_losses[-1] < 0.9 * val_losses[0]
    (forgetting,) = (line for line in metrics if "old_loss_after" in line)
    assert forgetting["old_loss_after"] > forgetting["old_loss_before"]
    base_loss = checkpoint.load_best(base).state["val_loss"]
    assert forgetting["old_loss_before"] == pytest.approx(base_loss, rel=0.1)
    before, after = re.findall(r"^(?:before|after): *(.*)$", output, flags=re.M)
    assert before != after and "more surprised" in output

    last = checkpoint.load_newest(tuned)
    assert last.tokenizer.fingerprint == checkpoint.load_best(base).tokenizer.fingerprint
    n_trained = sum(t.numel() for name, t in last.optimizer.items() if name.endswith(".exp_avg"))
    assert (f"of which {n_trained:,} train" in output) == ("lora" in flags)


def test_a_run_is_fine_tuned_as_it_was_trained(run: Run, new_text: Path) -> None:
    """Its optimiser, rate and batch size hold; AdamW tunes adapters and models of others."""
    base = run("--max_steps 2 --learning_rate 0.003 --batch_size 12", "base")
    foreign = base.parent / "foreign"
    shutil.copytree(checkpoint.load_best(base).path, foreign)
    for name in ("state.json", "MANIFEST.json"):
        (foreign / name).unlink()
    width = checkpoint.load_best(base).config.n_embd
    names = ("optimizer", "learning_rate", "batch_size")
    for number, (start, flags, wanted) in enumerate((
        (base, "", ("muon", 0.003, 8)),
        (base, "--optimizer adamw --batch_size 2", ("adamw", 0.003, 2)),
        (base, "--lora_rank 2", ("adamw", 0.8 / width, 8)),
        (base.parent / "tuned-2", "", ("adamw", 0.08 / width, 8)),
        (foreign, "", ("adamw", 0.08 / width, 8)),
    )):  # fmt: skip
        flags = f"--init_from {start} --data {new_text} --max_steps 1 --device cpu {flags}"
        tuned = run(f"{flags} --compile no", f"tuned-{number}", small="")
        saved = checkpoint.load_newest(tuned).state["config"]
        assert tuple(saved[name] for name in names) == wanted


@pytest.mark.parametrize("flags", ["", "--lora_rank 2"])
def test_stopped_fine_tuning_resumes_bit_for_bit(run: Run, flags: str, new_text: Path) -> None:
    """15 steps and 15 after a stop give the bits of 30, with and without LoRA."""
    base = run("--max_steps 6", "base")
    flags = f"--init_from {base} --data {new_text} --cooldown 0 {TUNE} {flags}"
    half = run(f"{flags} --max_steps 15", "half", small="")
    whole = run(f"{flags} --max_steps 30", "whole", small="")
    run(f"--init_from resume --data {new_text} --max_steps 30", "half", small="")
    assert trained(half) == trained(whole)


def test_fine_tuning_refuses_flags_that_the_base_model_decides_on(run: Run, tmp_path: Path) -> None:
    """A flag for the model's shape or tokenizer is an error of one line, and leaves no run."""
    base = run("--max_steps 2", "base")
    lora = run(f"--init_from {base} --lora_rank 1 --max_steps 2 --compile no", "lora", small="")
    for flags, complaint in (
        (f"--init_from {base} --n_embd 32", "--n_embd is fixed by the model"),
        (f"--init_from {base} --tokenizer char", "--tokenizer is fixed"),
        (
            f"--init_from {base} --block_size 99",
            "--block_size is 99; the model to fine-tune has a context of 16",
        ),
        (f"--init_from {base} --lora_rank 17", "--lora_rank is 17"),
        (f"--init_from {base} --lora_rank -1", "--lora_rank is -1"),
        (f"--init_from {base} --old_data nowhere.txt", "the base model's text: "),
        (f"--init_from {lora} --lora_rank 1", "is a LoRA adapter; first merge it into its model"),
        (f"--init_from {tmp_path}/nowhere", "there is no run, checkpoint or model"),
        ("--lora_rank 4", "give --init_from"),
        ("--old_data tales", "give --init_from"),
    ):
        with pytest.raises(UserError, match=re.escape(complaint)) as caught:
            run(flags, "refused", small="")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "refused").exists()


def test_nonfinite_weights_are_not_saved(run: Run, tmp_path: Path) -> None:
    """Saving a model with an infinite weight is an error that names the tensor."""
    last = checkpoint.load_newest(run("--max_steps 2"))
    model = last.model()
    model.norm.weight.data[0] = math.inf
    with pytest.raises(UserError, match=r"norm\.weight is not finite"):
        checkpoint.save(tmp_path / "broken", model, last.tokenizer, {}, {"step": 1})
    assert not (tmp_path / "broken").exists()


def test_resume_refuses_flags_that_would_make_another_run(run: Run, text: Path) -> None:
    """Another setting or another text is an error; a larger --max_steps is not."""
    run("--max_steps 2")
    for flags, complaint in (
        ("--n_embd 32", r"--n_embd 32, but this run was started with 16"),
        ("--optimizer adamw", r"--optimizer adamw, but this run was started with muon"),
        ("--seed 5", r"--seed 5, but this run was started with 0"),
    ):
        with pytest.raises(UserError, match=complaint):
            run(f"--init_from resume {flags}", small="")
    assert checkpoint.load_newest(run("--init_from resume --max_steps 5", small="")).step == 5
    text.write_text(text.read_text() + "One more line.")
    with pytest.raises(UserError, match="trained on another text"):
        run("--init_from resume --max_steps 6", small="")


@pytest.mark.parametrize(
    "flags, complaint",
    [
        ("--n_embd 30 --n_head 4", "n_embd 30 is not divisible by n_head 4"),
        ("--size huge", "size"),
        ("--lerning_rate 1", "did you mean --learning_rate"),
        ("--batch_size -1", "--batch_size is -1"),
        ("--minutes -1", "--minutes is -1"),
        ("--minutes nan", "--minutes is nan"),
        ("--cooldown 2", "--cooldown is 2"),
        ("--device quantum", "--device quantum"),
        ("--block_size 100000", "--block_size"),
        ("--gradient_accumulation_steps 9", "--gradient_accumulation_steps is 9"),
        ("--max_steps few", "few"),
        ("--max_steps 5 --minutes 1", "--minutes and --max_steps both say how long"),
        ("--threads -1", "--threads is -1"),
        ("--threads 99999999999", "--threads is 99999999999"),
        ("--name ..", "a run cannot be called '..'"),
        ("--name step-000001", "a run cannot be called 'step-000001'"),
        ("--init_from resume --name nothing", "no run 'nothing'"),
        ("--data missing.txt", "missing.txt"),
    ],
)
def test_a_wrong_value_is_an_error_of_one_line(run: Run, flags: str, complaint: str) -> None:
    """A value that no run can have is a `UserError` that names the flag and the value."""
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        run(flags)
    assert "\n" not in str(caught.value)


TINY = "--n_layer 1 --n_head 1 --n_embd 8 --batch_size 2 --vocab_size 270 --device cpu"
TINY += " --compile no --dtype float32"


@pytest.mark.parametrize("n_chars", [30, 300, 2000])
def test_block_size_adapts_to_a_short_text(
    run: Run, text: Path, n_chars: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block size shrinks to the validation text; the run reports, saves and resumes it."""
    text.write_text(text.read_text()[:n_chars])
    whole = run("--max_steps 4 --cooldown 0", "whole", small=TINY)
    output = capsys.readouterr().err
    config = checkpoint.load_newest(whole).state["config"]
    assert output.count(f"a short text, so --block_size is {config['block_size']}: ") == 1
    _, train_tokens, val_tokens = prepare(
        corpora.find([str(text)], text), None, "bpe", 270, text.parent / "cache"
    )
    assert config["block_size"] == val_tokens.n_tokens - 1 < train_tokens.n_tokens
    assert checkpoint.load_newest(whole).config.block_size == config["block_size"]
    run("--max_steps 2 --cooldown 0", "half", small=TINY)
    capsys.readouterr()
    assert trained(run("--init_from resume --max_steps 4", "half", small="")) == trained(whole)
    assert "a short text" not in capsys.readouterr().err


@pytest.mark.parametrize("flags", ["", r"--separator \n"])
def test_evaluate_gives_the_final_loss_of_a_run_on_a_short_text(
    run: Run, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    """Training and `evaluate` agree in bits/byte, also if documents have a separator."""
    text.write_text(text.read_text()[:2000])
    whole = run(f"--max_steps 2 {flags}", small=TINY)
    judged = judging.judge(
        judging.EvaluateConfig(count=2, max_new_tokens=5, device="cpu"), load(whole)
    )
    logged = read_metrics(whole)[-1]["final_val_bits_per_byte"]
    assert judged.bits_per_byte == pytest.approx(logged, rel=1e-5)


def test_fine_tuning_works_if_the_old_text_is_shorter_than_the_new_one(
    run: Run, text: Path, tmp_path: Path
) -> None:
    """The block size suits the new text, and the loss on the shorter old text is finite."""
    base = run("--max_steps 2 --block_size 64", "base", small=TINY)
    old = tmp_path / "old.txt"
    old.write_text(text.read_text()[:200])
    text.write_text(text.read_text()[:400])
    flags = f"--init_from {base} --old_data {old} --max_steps 2 --device cpu --compile no"
    tuned = run(flags, "tuned", small="")
    assert 16 < checkpoint.load_newest(tuned).state["config"]["block_size"] < 64
    (forgetting,) = (line for line in read_metrics(tuned) if "old_loss_after" in line)
    assert math.isfinite(forgetting["old_loss_after"])


@pytest.mark.parametrize(
    ("content", "flags", "complaint"),
    [
        (b"the cat sat on the mat. " * 40, "--block_size 256", "has only"),
        (b"the cat sat on the mat. " * 40, "--block_size 128", "has only"),
        (b"", "", "no text in"),
        (b"x", "", "too few"),
        (b"\x89PNG\0\0", "", "is binary"),
        (b"caf\xe9 cr\xe8me", "", "iconv -f CP1252"),
        (b"abc " * 900, "--data missing", "no such file"),
        (b"abc " * 900, "--n_head 3", "not divisible"),
        (b"abc " * 900, "--n_head 3 --architecture gpt2", "not divisible"),
        (b"abc " * 900, "--lora_rank 2", "--lora_rank"),
        (b"abc " * 900, "--vocab_size 9", "vocab_size 9"),
        (b"abc " * 900, "--separator=", "--separator is empty"),
        (b"abc " * 900, "--learning_rate -1", "--learning_rate is -1"),
        (b"abc " * 900, "--gradient_accumulation_steps 3", "--gradient_accumulation_steps"),
        (b"abc " * 900, "--init_from nowhere", "nowhere"),
    ],
)
def test_an_error_at_the_start_leaves_no_file(
    run: Run,
    text: Path,
    tmp_path: Path,
    content: bytes,
    flags: str,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An error is one line, nothing is printed before it, and no run and no cache is left."""
    text.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        run(flags, small="--n_layer 1 --n_embd 8 --batch_size 2 --device cpu")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_prompt_of_unknown_characters_leaves_no_run(run: Run, tmp_path: Path) -> None:
    """A --sample_prompt that cannot be encoded is refused before the run has a folder."""
    with pytest.raises(UserError, match="not among the"):
        run("--sample_prompt 日 --tokenizer char", small=TINY)
    assert not (tmp_path / "out").exists()


def test_samples_without_a_prompt_start_as_a_line_or_as_a_document_does(
    run: Run, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One long document is continued after a newline; of many documents a new one starts."""
    book = checkpoint.load_newest(run("--max_steps 200 --dropout 0", "book"))
    assert book.state["opening"] == "\n" and book.tokenizer.bare
    capsys.readouterr()
    sample.main(["--out_dir", str(tmp_path / "out"), "--run", "book", "--num_samples", "9"])
    written = capsys.readouterr().out.split(f"{sample.RULE}\n")
    assert len(written) == 9 and all(re.match("[A-Z]", one) for one in written)

    listed = checkpoint.load_newest(run("--max_steps 2 --separator \\n", "list"))
    assert listed.state["opening"] == "" and not listed.tokenizer.bare


@pytest.mark.parametrize(
    ("device", "dropout", "seconds", "pays"),
    [("cpu", 0.0, 600, True), ("cpu", 0.1, 600, False), ("cpu", 0.0, 120, False),
     ("cuda", 0.1, 600, True), ("mps", 0.0, 600, False)],
)  # fmt: skip
def test_compiling_pays_in_a_long_run_without_dropout_on_a_cpu(
    device: str, dropout: float, seconds: float, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of some minutes is compiled, except with dropout on a CPU, and on "mps"."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert compiling_pays(device, dropout, seconds) == pays


@pytest.mark.skipif(not has_cpp_compiler(), reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_run_saves_what_a_plain_one_loads(run: Run) -> None:
    """Compiled training saves the same names as plain training, and nearly the same numbers."""
    plain = checkpoint.load_newest(run("--max_steps 6 --dropout 0", "plain"))
    small = SMALL.replace("--compile no", "--compile yes").replace("--dropout 0.1", "--dropout 0")
    compiled = checkpoint.load_newest(run("--max_steps 6", "compiled", small=small))
    assert compiled.state["config"]["compile"] == "yes"
    assert plain.weights.keys() == compiled.weights.keys()
    ids = torch.arange(16)[None]
    torch.testing.assert_close(plain.model()(ids), compiled.model()(ids), rtol=1e-3, atol=1e-3)


def test_a_failing_compiler_is_one_warning(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If torch.compile fails, the run trains without it, to the same bits."""

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no compiler today\nand many lines more")

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    compiled = run("--max_steps 3", "broken", small=SMALL.replace("--compile no", "--compile yes"))
    output = capsys.readouterr().err
    assert output.count("torch.compile failed") == 1 and "many lines more" not in output
    assert trained(compiled) == trained(run("--max_steps 3", "plain"))


def test_ctrl_c_saves_and_prints_the_command_to_resume(
    text: Path, server: Server, tmp_path: Path
) -> None:
    """SIGINT ends the real command with exit code 130; the printed command resumes the run."""
    out_dir = tmp_path / "out"
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--data",
        str(text),
        "--out_dir",
        str(out_dir),
    ]
    process = subprocess.Popen(
        [*command, *SMALL.split(), "--max_steps", "100000"], stderr=subprocess.PIPE, text=True
    )
    until_it_trains(out_dir / "text")
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 130
    newest = checkpoint.steps(out_dir / "text")[-1]
    command = re.search(r"stopped and saved at step \d+\. To resume: (.*)", output)
    assert command is not None, output
    more = ["--max_steps", str(checkpoint.load(newest).step + 1)]
    done = server.python(*shlex.split(command[1])[1:], *more, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(newest).step > 0
    assert (out_dir / "text" / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.usefixtures("one_plan")
@pytest.mark.parametrize("further", ["--max_steps 70", "--minutes 0.08"])
def test_a_run_that_has_ended_can_be_trained_further(
    run: Run, further: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The learning rate rises and falls again in that run; a stop and resume change no bit."""
    small = SMALL + " --warmup_steps 4"
    ended = run("--max_steps 40", small=small)
    before = checkpoint.load_best(ended).state["val_loss"]
    capsys.readouterr()
    run(f"--init_from resume {further}", small="")
    assert "had ended at step 40: the learning rate rises and falls once more" in (
        capsys.readouterr().err
    )
    last = checkpoint.load_newest(ended)
    rates = {
        line["step"]: line["learning_rate"]
        for line in read_metrics(ended)
        if "learning_rate" in line
    }
    full = max(rates.values())
    assert rates[40] < 0.05 * full and rates[41] == pytest.approx(full / 4)
    assert rates[44] == full and rates[last.step] < 0.2 * full
    assert last.step == last.state["config"]["max_steps"] > 44
    assert checkpoint.load_best(ended).state["val_loss"] < before

    run("--max_steps 40", "stopped", small=small)
    if "max_steps" in further:
        with stopped_at(52):
            run(f"--init_from resume {further}", "stopped", code=130, small="")
        assert trained(run("--init_from resume", "stopped", small="")) == trained(ended)


def test_the_learning_rate_does_not_jump_if_the_end_moves(run: Run) -> None:
    """A run that resumes with more steps in its cooldown continues from its present rate."""
    with stopped_at(19):
        folder = run("--max_steps 30 --warmup_steps 4", code=130)
    run("--init_from resume --max_steps 60", small="")
    rates = [line["learning_rate"] for line in read_metrics(folder) if "learning_rate" in line]
    full = max(rates)
    assert len(rates) == 60 and rates[-1] < 0.05 * full
    falling = rates[10:]
    assert all(0 <= a - b < 0.06 * full for a, b in itertools.pairwise(falling))


@pytest.mark.usefixtures("ticks")
def test_minutes_end_a_run_that_was_planned_longer(run: Run) -> None:
    """A run of a million steps that resumes with --minutes ends, and its rate has fallen."""
    with stopped_at(9):
        folder = run("--max_steps 1000000 --warmup_steps 4", code=130)
    run("--init_from resume --minutes 0.08", small="")
    rates = [line["learning_rate"] for line in read_metrics(folder) if "learning_rate" in line]
    assert 12 < len(rates) < 10_000 and rates[-1] < 0.5 * max(rates)


@pytest.mark.usefixtures("ticks")
def test_a_run_without_a_cooldown_is_trained_further_by_the_clock(run: Run) -> None:
    """With --cooldown 0 the rate has not fallen, and --minutes adds steps after the last one."""
    folder = run("--max_steps 6 --cooldown 0")
    run("--init_from resume --minutes 0.06", small="")
    assert checkpoint.load_newest(folder).step > 6


def test_resuming_a_finished_run_prints_how_to_train_it_further(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run that resumes takes no step and prints the command for more steps."""
    run("--max_steps 3")
    capsys.readouterr()
    run("--init_from resume", small="")
    assert "had ended at step 3; to train it further: " in capsys.readouterr().err


def test_a_separator_that_occurs_nowhere_is_a_warning(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A --separator that the text does not contain is one warning; one that it has is none."""
    run("--max_steps 1 --separator @@@")
    assert "warning: the separator '@@@' occurs nowhere" in capsys.readouterr().err
    run("--max_steps 1 --separator \\n", "lines")
    assert "occurs nowhere" not in capsys.readouterr().err


def test_a_run_in_another_thread_is_the_run_in_the_main_thread(run: Run) -> None:
    """A run in another thread, as in a notebook, gives the same bits and sets no signal handler."""
    handlers = [signal.getsignal(number) for number in SIGNALS]
    codes: list[Path] = []
    worker = threading.Thread(target=lambda: codes.append(run("--max_steps 3", "thread")))
    worker.start()
    worker.join()
    assert trained(codes[0]) == trained(run("--max_steps 3", "main"))
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


def test_fine_tuning_keeps_the_separator(run: Run, tmp_path: Path) -> None:
    """A model of names, one in a line, is fine-tuned and validated on names in lines."""
    names, others = tmp_path / "names.txt", tmp_path / "others.txt"
    names.write_text("".join(f"{a}{b}{c}\n" for a in "BDFGKL" for b in "aeiou" for c in "mnprst"))
    others.write_text("".join(f"{a}{b}{c}\n" for a in "PQRST" for b in "aeiou" for c in "lmnr"))
    flags = "--block_size 8 --max_steps 4"
    base = run(f"--data {names} --separator \\n {flags}", "base")
    tuned = run(
        f"--init_from {base} --data {others} --max_steps 2 --batch_size 2 --compile no", "tuned",
        small="",
    )  # fmt: skip
    assert checkpoint.load_newest(tuned).state["config"]["separator"] == "\\n"
    old = next(line for line in read_metrics(tuned) if "old_loss_before" in line)
    final = next(line for line in read_metrics(base) if "final_val_loss" in line)
    assert old["old_loss_before"] == pytest.approx(final["final_val_loss"], rel=1e-4)
    run(f"--init_from resume --data {others} --max_steps 3", "tuned", small="")
