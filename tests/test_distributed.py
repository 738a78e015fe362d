"""Several processes: the same training as one, and one that fails fails with all.

Real processes, started by the real torchrun, on this machine only (gloo).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from digests import trained
from forks import Server, Trial
from small_text import until_it_trains, write_text
from steps import around_gradients

import train
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.run import distributed
from minigen.run.log import read_metrics
from minigen.run.memory import count_micro_batches
from minigen.run.run import Run
from train import TrainConfig

ROOT = Path(train.__file__).parent
TESTS = Path(__file__).parent

# Nothing comes out even: 9 samples in 4 parts, 3 matrices of a shape, 17 rows for 2 processes.
SMALL = "--n_layer 3 --n_head 1 --n_embd 17 --block_size 16 --batch_size 9 --vocab_size 270"
SMALL += " --gradient_accumulation_steps 4 --device cpu --dropout 0.1 --eval_tokens 100"
SMALL += " --compile no --dtype float32 --learning_rate 0.003 --eval_interval 10"


def torchrun(server: Server, *command: str, options: str = "") -> Trial:
    """Start two processes on this machine."""
    words = ("--standalone", "--nproc_per_node=2", *options.split(), *command)
    return server.start_python("-m", "torch.distributed.run", *words, cwd=Path.cwd())


def notes_of(folder: Path, rank: int) -> list[dict[str, Any]]:
    """What one_of_several.py noted."""
    lines = (folder / f"rank-{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(run: Path) -> list[float]:
    """The training loss of each step, as it was told."""
    return [line["train_loss"] for line in read_metrics(run) if "train_loss" in line]


@dataclass
class Launched:
    """What is left of many trainings."""

    folder: Path
    steps: int
    flags: str
    said: str

    def run(self, name: str) -> Path:
        return self.folder / "out" / name


def alone(folder: Path, flags: str, stop: int | None = None) -> int:
    """Train in this process; with `stop`, a signal comes in the middle of that step."""

    def interrupted(run: Run, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        if run.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGEN_DATA", str(folder / "data"))
        patch.setattr(Run, "within_memory", around_gradients(interrupted))
        code = train.main(flags.split())
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return code


@pytest.fixture(scope="module", params=[20, pytest.param(50, marks=pytest.mark.slow)])
def launched(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Launched:
    """Two processes train again and again, each time for a number of steps."""
    steps: int = request.param
    folder = tmp_path_factory.mktemp("several")
    # Little text and few evaluations, as FSDP gathers each layer for each of their batches.
    where = f"--data {write_text(folder, n_lines=100)} --out_dir {folder / 'out'}"
    flags = f"{where} {SMALL} --max_steps {steps}"
    again = f"{where} --init_from resume --name moved"
    assert alone(folder, f"{flags} --name alone") == 0
    assert alone(folder, f"{flags} --name moved", stop=steps // 4) == 128 + signal.SIGTERM
    lora = f"{where} --init_from {folder / 'out' / 'alone'} --lora_rank 2 --max_steps 10"
    lora += " --device cpu --compile no --dtype float32 --learning_rate 0.01"
    lora += " --eval_tokens 100 --eval_interval 10"
    assert alone(folder, f"{lora} --name lora-alone") == 0
    plans = [
        {"flags": f"{flags} --name ddp"},
        {"flags": f"{flags} --name again"},
        {"flags": f"{flags} --name fsdp --fsdp"},
        {"flags": again, "stop": [1, steps // 2 - 1, 0]},
        {"flags": f"{again} --fsdp", "stop": [0, 3 * steps // 4, 0]},
        {"flags": f"{flags} --name spoilt", "nan": [1, 15, 0]},
        {"flags": f"{lora} --name lora --fsdp"},
        {"flags": f"{flags.replace('float32', 'bfloat16')} --name bfloat16 --fsdp"},
        {"flags": f"{where} {SMALL} --name timed --minutes 0.06"},
    ]
    process = torchrun(server, str(TESTS / "one_of_several.py"), str(folder), json.dumps(plans))
    assert process.wait(400) == 0, process.said()
    assert alone(folder, again) == 0
    return Launched(folder, steps, flags, process.said())


def test_two_processes_are_one(launched: Launched) -> None:
    """In many steps with dropout: the loss that is told, and the weights at the end."""
    one, two = losses(launched.run("alone")), losses(launched.run("ddp"))
    assert len(one) == launched.steps
    assert two == pytest.approx(one, rel=0, abs=1e-5)
    # The optimiser does not see how long a gradient is, so the losses do not show it.
    norms = [
        [line["grad_norm"] for line in read_metrics(launched.run(name)) if "grad_norm" in line]
        for name in ("alone", "ddp", "fsdp")
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert norms[2] == pytest.approx(norms[0], rel=1e-4)
    final = [read_metrics(launched.run(name))[-1]["final_val_loss"] for name in ("alone", "ddp")]
    assert final[0] == pytest.approx(final[1], rel=0, abs=1e-5)


def test_a_model_that_is_shared_out_is_one(launched: Launched) -> None:
    """FSDP2 learns as DDP does, and what it saves has the same names and shapes."""
    assert losses(launched.run("fsdp")) == pytest.approx(
        losses(launched.run("ddp")), rel=0, abs=1e-5
    )
    ddp, fsdp = (checkpoint.load_newest(launched.run(name)) for name in ("ddp", "fsdp"))
    for ours, theirs in ((ddp.weights, fsdp.weights), (ddp.optimizer, fsdp.optimizer)):
        assert {k: t.shape for k, t in ours.items()} == {k: t.shape for k, t in theirs.items()}
        for name, tensor in ours.items():
            torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-3)


def test_products_in_bfloat16_change_little(launched: Launched) -> None:
    """Shared out, weights are gathered in that format, but stay float32 where they are kept."""
    short, long = losses(launched.run("bfloat16")), losses(launched.run("ddp"))
    assert short != long and short == pytest.approx(long, rel=0, abs=0.05)
    last = checkpoint.load_newest(launched.run("bfloat16"))
    kept = {t.dtype for t in (*last.weights.values(), *last.optimizer.values())}
    assert kept == {torch.float32}


def test_the_same_processes_give_the_same_bits(launched: Launched) -> None:
    """Two processes do the same twice."""
    assert trained(launched.run("ddp")) == trained(launched.run("again"))


def test_each_sample_is_taken_once(launched: Launched) -> None:
    """The samples of a step are those that one process takes, and none is taken by both."""
    plan = f"{launched.flags} --name ddp"
    taken = [
        [id for line in notes_of(launched.folder, rank) if line.get("run") == plan
         for id in line.get("ids", [])]
        for rank in (0, 1)
    ]  # fmt: skip
    assert sorted(taken[0] + taken[1]) == list(range(launched.steps * 9))
    for step in range(launched.steps):
        assert sum(id // 9 == step for id in taken[0]) == 5
        assert sum(id // 9 == step for id in taken[1]) == 4


def test_gradients_are_added_up_once_a_step(launched: Launched) -> None:
    """DDP lets the processes talk after the last part of each step only."""
    for rank in (0, 1):
        noted = [line for line in notes_of(launched.folder, rank) if "adds_up" in line]
        whole = [line["adds_up"] for line in noted if line["run"] == f"{launched.flags} --name ddp"]
        assert whole == [False, True] * launched.steps


def test_lora_is_shared_out_too(launched: Launched) -> None:
    """With weights that do not train beside those that do; the parts are as memory asks for."""
    one, two = losses(launched.run("lora-alone")), losses(launched.run("lora"))
    assert two == pytest.approx(one, rel=0, abs=1e-5) and len(one) == 10
    assert trained(launched.run("lora")).keys() == trained(launched.run("lora-alone")).keys()


def test_one_clock_decides_how_many_steps_fit(launched: Launched) -> None:
    """--minutes: the other's clock, which is far ahead, has no say."""
    last = checkpoint.load_newest(launched.run("timed"))
    assert last.step == last.state["config"]["max_steps"] > 0


def test_a_run_moves_between_one_and_two_processes(launched: Launched) -> None:
    """A quarter of the steps by one process, with DDP, with FSDP2, and by one again."""
    moved = losses(launched.run("moved"))
    assert moved == pytest.approx(losses(launched.run("alone")), rel=0, abs=1e-5)
    assert len(moved) == launched.steps
    said = re.findall(r"stopped and saved at step (\d+)", launched.said)
    # A signal to either process stops both, and one tells.
    assert list(map(int, said)) == [launched.steps // 2, 3 * launched.steps // 4 + 1]


def test_a_loss_of_one_process_that_is_no_number_stops_all(launched: Launched) -> None:
    """Both leave with code 3, and the weights of before are what is left."""
    for rank in (0, 1):
        codes = [line["code"] for line in notes_of(launched.folder, rank) if "code" in line]
        assert codes == [0, 0, 0, 143, 143, 3, 0, 0, 0]
    assert launched.said.count("nothing of it was learnt") == 1
    assert checkpoint.load_newest(launched.run("spoilt")).step == 10


def test_only_the_first_process_speaks(launched: Launched) -> None:
    """Each line once, in stderr and in metrics.jsonl."""
    assert launched.said.count(f"{launched.run('ddp')}: ") == 1
    assert launched.said.count("done: ") == 6
    steps = [line["step"] for line in read_metrics(launched.run("ddp")) if "train_loss" in line]
    assert steps == list(range(1, launched.steps + 1))


@pytest.mark.slow
def test_a_process_that_dies_is_started_again(
    launched: Launched, server: Server, tmp_path: Path
) -> None:
    """--max-restarts: first from the beginning, then from the last checkpoint, to the same bits.

    Each time the other process has ended within 30 seconds.
    """
    flags = launched.flags.replace(str(launched.folder / "out"), str(tmp_path / "out"))
    plan = {"flags": f"{flags} --name ddp", "die": [[1, 5, 0], [0, 15, 1]]}
    command = (str(TESTS / "one_of_several.py"), str(tmp_path), json.dumps([plan]))
    process = torchrun(server, *command, options="--max-restarts=2")
    code, said = process.wait(400), process.said()
    assert code == 0, said
    assert said.count("was started by this launch and resumes") == 1
    assert "error: lost the other processes" in said and "Traceback" not in said
    lines = sorted(notes_of(tmp_path, 0) + notes_of(tmp_path, 1), key=lambda line: line["time"])
    deaths = [line["time"] for line in lines if "died" in line]
    starts = [min(x["time"] for x in lines if x.get("began") == n) for n in (1, 2)]
    assert all(0 < start - death < 30 for death, start in zip(deaths, starts, strict=True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ddp"]
    assert trained(tmp_path / "out" / "ddp") == trained(launched.run("ddp"))
    assert losses(tmp_path / "out" / "ddp") == losses(launched.run("ddp"))


WITH_CODE = """#!/bin/sh
# Runs a command and notes its exit code; signals are for the command.
trap : TERM INT
"$@"
echo $? > "$NOTES/code-$RANK"
"""


def stop_torchrun(server: Server, tmp_path: Path, number: signal.Signals, after: float) -> None:
    """Send a signal to torchrun in mid-training; both processes must leave as one would."""
    (tmp_path / "with_code").write_text(WITH_CODE)
    command = [sys.executable, str(ROOT / "train.py"), *SMALL.split(), "--max_steps", "100000",
               "--data", str(write_text(tmp_path)), "--out_dir", str(tmp_path / "out"),
               "--name", "run", "--eval_interval", "50000"]  # fmt: skip
    os.environ["NOTES"] = str(tmp_path)
    command = ["/bin/sh", str(tmp_path / "with_code"), *command]
    process = torchrun(server, *command, options="--no-python")
    until_it_trains(tmp_path / "out" / "run")
    time.sleep(after)
    process.kill(number)
    began = time.monotonic()
    assert process.wait(60) == 1  # torchrun's own, whatever its processes say
    assert time.monotonic() - began < 30
    said = process.said()
    codes = [(tmp_path / f"code-{rank}").read_text() for rank in (0, 1)]
    assert codes == [f"{128 + number}\n"] * 2, said
    (step,) = re.findall(r"stopped and saved at step (\d+)", said)
    assert checkpoint.load_newest(tmp_path / "out" / "run").step == int(step) > 0


def test_a_signal_to_torchrun_saves(server: Server, tmp_path: Path) -> None:
    """SIGTERM, as a cluster sends it before it takes the machines away."""
    stop_torchrun(server, tmp_path, signal.SIGTERM, after=1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [0.0, 0.2, 0.7, 1.5, 3.0])
def test_a_signal_to_torchrun_at_any_moment(
    server: Server, tmp_path: Path, number: signal.Signals, after: float
) -> None:
    """The same at other moments, also by Ctrl-C."""
    stop_torchrun(server, tmp_path, number, after)


@pytest.mark.slow
def test_an_error_of_all_is_told_once(server: Server, tmp_path: Path) -> None:
    """What a user can mend is one line, also of two processes."""
    process = torchrun(server, str(ROOT / "train.py"), "--data", str(tmp_path / "missing.txt"))
    assert process.wait(100) == 1
    said = process.said()
    assert said.count("error: ") == 1 and "missing.txt" in said


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in the third of three processes."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    yield


def test_shares_are_even(three: None) -> None:
    """Each process gets as many parts and as many batches to score; no target counts twice."""
    config = TrainConfig(batch_size=9, block_size=8, device="cpu", gradient_accumulation_steps=4)
    assert count_micro_batches(config, 256) == 6
    assert list(distributed.micro_batches_of_rank(range(6), torch.nn.Module())) == [2, 5]
    batches = [(torch.full((2, 4), n), torch.full((2, 4), n)) for n in range(5)]
    (_, y), (_, padding) = distributed.split_over_ranks(batches)
    assert y.eq(2).all() and padding.eq(-1).all()
    few = TrainConfig(batch_size=2, block_size=8, device="cpu")
    with pytest.raises(UserError, match="--batch_size 2 is too small for 3 micro-batches"):
        count_micro_batches(few, 256)


def test_without_torchrun_there_is_one_process() -> None:
    """Nothing is set up, and nothing is shared out."""
    distributed.join("cpu")
    assert not torch.distributed.is_initialized()
    assert (distributed.size(), distributed.rank(), distributed.launch()) == (1, 0, None)
    assert distributed.find_launched_run(ROOT) is None


@pytest.mark.parametrize("name", ["run", "exp/one"])
def test_a_launch_knows_the_run_that_it_has_begun(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a folder of runs, beside the run of another launch and a folder of that name."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    for folder in (name, "other", "exp/launch"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "other" / "launch").write_bytes(b"\xff")
    assert distributed.find_launched_run(tmp_path) is None
    distributed.record_launch(tmp_path / name)
    assert distributed.find_launched_run(tmp_path) == tmp_path / name
