"""Several ranks train as one process does, and stop together.

The ranks are real processes on this machine, started by torchrun; they communicate with Gloo.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from digests import trained
from forks import Server, Trial
from small_text import until_it_trains, write_text
from steps import around_gradients
from torch.torch_version import TorchVersion

import train
from minigen.data.batches import Batch
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.loss import NOT_SCORED
from minigen.run import distributed
from minigen.run.log import read_metrics
from minigen.run.memory import count_micro_batches
from minigen.run.run import Run
from train import TrainConfig

ROOT = Path(train.__file__).parent
TESTS = Path(__file__).parent

# Nothing divides evenly: 9 windows in 4 micro-batches, and 3 matrices of a shape with 17 rows each
# over 2 ranks.
SMALL = "--n_layer 3 --n_head 1 --n_embd 17 --block_size 16 --batch_size 9 --vocab_size 270"
SMALL += " --gradient_accumulation_steps 4 --device cpu --dropout 0.1 --eval_tokens 100"
SMALL += " --compile no --dtype float32 --learning_rate 0.003 --eval_interval 10"


HAS_FSDP = torch.__version__ >= distributed.FSDP_SINCE
needs_fsdp = pytest.mark.skipif(not HAS_FSDP, reason=f"--fsdp refuses {torch.__version__}")


def torchrun(server: Server, *command: str, options: str = "") -> Trial:
    """Start a command with torchrun, as two ranks on this machine."""
    words = ("--standalone", "--nproc_per_node=2", *options.split(), *command)
    return server.start_python("-m", "torch.distributed.run", *words, cwd=Path.cwd())


def notes_of(folder: Path, rank: int) -> list[dict[str, Any]]:
    """Return the notes that one_of_several.py wrote on a rank."""
    lines = (folder / f"rank-{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(run: Path) -> list[float]:
    """Return the logged training loss of each step."""
    return [line["train_loss"] for line in read_metrics(run) if "train_loss" in line]


@dataclass
class Launched:
    """The results of many runs: their folders, and the stderr of torchrun."""

    folder: Path
    steps: int  # of each run
    flags: str  # of each run, without its --name
    stderr: str

    def run(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.folder / "out" / name


def alone(folder: Path, flags: str, stop: int | None = None) -> int:
    """Train in this process; with `stop`, SIGTERM comes in the middle of that step."""

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
    """Train several runs with two ranks, and some runs of the same flags in this process."""
    steps: int = request.param
    folder = tmp_path_factory.mktemp("several")
    # A short text and few evaluations, because FSDP gathers each layer for each of their batches.
    where = f"--data {write_text(folder, n_lines=100)} --out_dir {folder / 'out'}"
    flags = f"{where} {SMALL} --max_steps {steps}"
    again = f"{where} --init_from resume --name moved"
    assert alone(folder, f"{flags} --name alone") == 0
    assert alone(folder, f"{flags} --name moved", stop=steps // 4) == 128 + signal.SIGTERM
    lora = f"{where} --init_from {folder / 'out' / 'alone'} --lora_rank 2 --max_steps 10"
    lora += " --device cpu --compile no --dtype float32 --learning_rate 0.01"
    lora += " --eval_tokens 100 --eval_interval 10"
    assert alone(folder, f"{lora} --name lora-alone") == 0
    plans: list[dict[str, Any]] = [
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
    if not HAS_FSDP:
        plans = [{**plan, "flags": plan["flags"].replace(" --fsdp", "")} for plan in plans]
    process = torchrun(server, str(TESTS / "one_of_several.py"), str(folder), json.dumps(plans))
    assert process.wait(400) == 0, process.output()
    assert alone(folder, again) == 0
    return Launched(folder, steps, flags, process.output())


def test_ddp_trains_as_one_process_does(launched: Launched) -> None:
    """With dropout, the losses of all steps and the final validation loss agree within 1e-5."""
    one, two = losses(launched.run("alone")), losses(launched.run("ddp"))
    assert len(one) == launched.steps
    assert two == pytest.approx(one, rel=0, abs=1e-5)
    final = [read_metrics(launched.run(name))[-1]["final_val_loss"] for name in ("alone", "ddp")]
    assert final[0] == pytest.approx(final[1], rel=0, abs=1e-5)


@pytest.mark.parametrize("name", ["ddp", pytest.param("fsdp", marks=needs_fsdp)])
def test_gradients_are_summed_over_the_ranks(name: str, launched: Launched) -> None:
    """The gradient norms are those of one process; the losses alone would hide a wrong scale."""
    alone, several = (
        [line["grad_norm"] for line in read_metrics(launched.run(run)) if "grad_norm" in line]
        for run in ("alone", name)
    )
    assert several == pytest.approx(alone, rel=1e-4)


@needs_fsdp
def test_fsdp_trains_as_ddp_does(launched: Launched) -> None:
    """With FSDP2 the losses agree within 1e-5, and the checkpoint has the same tensors."""
    assert losses(launched.run("fsdp")) == pytest.approx(
        losses(launched.run("ddp")), rel=0, abs=1e-5
    )
    ddp, fsdp = (checkpoint.load_newest(launched.run(name)) for name in ("ddp", "fsdp"))
    for expected, actual in ((ddp.weights, fsdp.weights), (ddp.optimizer, fsdp.optimizer)):
        assert {k: t.shape for k, t in actual.items()} == {k: t.shape for k, t in expected.items()}
        for name, tensor in expected.items():
            torch.testing.assert_close(actual[name], tensor, rtol=0, atol=1e-3)


def test_products_in_bfloat16_change_the_losses_little(launched: Launched) -> None:
    """With bfloat16 the losses change by less than 0.05; weights and averages stay float32."""
    bfloat16, float32 = losses(launched.run("bfloat16")), losses(launched.run("ddp"))
    assert bfloat16 != float32 and bfloat16 == pytest.approx(float32, rel=0, abs=0.05)
    last = checkpoint.load_newest(launched.run("bfloat16"))
    dtypes = {t.dtype for t in (*last.weights.values(), *last.optimizer.values())}
    assert dtypes == {torch.float32}


def test_two_runs_with_the_same_ranks_are_equal_bit_for_bit(launched: Launched) -> None:
    """Two ranks that train twice save the same checkpoint."""
    assert trained(launched.run("ddp")) == trained(launched.run("again"))


def test_each_window_is_computed_by_one_rank(launched: Launched) -> None:
    """In each step, the two ranks together compute the nine windows that one process computes."""
    plan = f"{launched.flags} --name ddp"
    computed = [
        [number for line in notes_of(launched.folder, rank) if line.get("run") == plan
         for number in line.get("windows", [])]
        for rank in (0, 1)
    ]  # fmt: skip
    assert sorted(computed[0] + computed[1]) == list(range(launched.steps * 9))
    for step in range(launched.steps):
        assert sum(number // 9 == step for number in computed[0]) == 5
        assert sum(number // 9 == step for number in computed[1]) == 4


def test_ddp_exchanges_gradients_once_a_step(launched: Launched) -> None:
    """Only the backward pass of the last micro-batch of a step averages gradients over ranks."""
    for rank in (0, 1):
        notes = [line for line in notes_of(launched.folder, rank) if "syncs" in line]
        syncs = [line["syncs"] for line in notes if line["run"] == f"{launched.flags} --name ddp"]
        assert syncs == [False, True] * launched.steps


@needs_fsdp
def test_lora_trains_with_fsdp_as_in_one_process(launched: Launched) -> None:
    """With FSDP, LoRA gives the losses of one process within 1e-5, and the same files."""
    one, two = losses(launched.run("lora-alone")), losses(launched.run("lora"))
    assert two == pytest.approx(one, rel=0, abs=1e-5) and len(one) == 10
    assert trained(launched.run("lora")).keys() == trained(launched.run("lora-alone")).keys()


def test_the_clock_of_rank_0_plans_the_steps(launched: Launched) -> None:
    """With --minutes, both ranks end at the same step although rank 1's clock is 100 s ahead."""
    last = checkpoint.load_newest(launched.run("timed"))
    assert last.step == last.state["config"]["max_steps"] > 0


def test_a_run_resumes_with_another_number_of_processes(launched: Launched) -> None:
    """One process, DDP, FSDP2 and one process again take a quarter of the steps each.

    The losses are those of a run that one process trains alone. A signal to either rank stops both
    ranks, and one line reports the stop.
    """
    moved = losses(launched.run("moved"))
    assert moved == pytest.approx(losses(launched.run("alone")), rel=0, abs=1e-5)
    assert len(moved) == launched.steps
    stops = re.findall(r"stopped and saved at step (\d+)", launched.stderr)
    assert list(map(int, stops)) == [launched.steps // 2, 3 * launched.steps // 4 + 1]


def test_a_nonfinite_loss_of_one_rank_stops_all_ranks(launched: Launched) -> None:
    """Both ranks exit with 3, one line gives the reason, and the last good checkpoint stays."""
    for rank in (0, 1):
        codes = [line["code"] for line in notes_of(launched.folder, rank) if "code" in line]
        assert codes == [0, 0, 0, 143, 143, 3, 0, 0, 0]
    assert launched.stderr.count("the weights are unchanged") == 1
    assert checkpoint.load_newest(launched.run("spoilt")).step == 10


def test_only_rank_0_logs(launched: Launched) -> None:
    """Each line is once in stderr, and each step is once in metrics.jsonl."""
    assert launched.stderr.count(f"{launched.run('ddp')}: ") == 1
    assert launched.stderr.count("done: ") == 6
    steps = [line["step"] for line in read_metrics(launched.run("ddp")) if "train_loss" in line]
    assert steps == list(range(1, launched.steps + 1))


@pytest.mark.slow
def test_a_run_survives_the_death_of_a_rank_bit_for_bit(
    launched: Launched, server: Server, tmp_path: Path
) -> None:
    """With --max-restarts, the run ends in the bits of a run without accidents.

    One rank is killed before the first checkpoint, and one after it. Each time the other rank ends
    within 30 seconds, and torchrun starts both again.
    """
    flags = launched.flags.replace(str(launched.folder / "out"), str(tmp_path / "out"))
    plan = {"flags": f"{flags} --name ddp", "die": [[1, 5, 0], [0, 15, 1]]}
    command = (str(TESTS / "one_of_several.py"), str(tmp_path), json.dumps([plan]))
    process = torchrun(server, *command, options="--max-restarts=2")
    code, stderr = process.wait(400), process.output()
    assert code == 0, stderr
    assert stderr.count("was started by this launch and resumes") == 1
    assert "error: lost the connection" in stderr and "Traceback" not in stderr
    lines = sorted(notes_of(tmp_path, 0) + notes_of(tmp_path, 1), key=lambda line: line["time"])
    deaths = [line["time"] for line in lines if "died" in line]
    starts = [min(x["time"] for x in lines if x.get("began") == n) for n in (1, 2)]
    assert all(0 < start - death < 30 for death, start in zip(deaths, starts, strict=True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ddp"]
    assert trained(tmp_path / "out" / "ddp") == trained(launched.run("ddp"))
    assert losses(tmp_path / "out" / "ddp") == losses(launched.run("ddp"))


WITH_CODE = """#!/bin/sh
# Run a command and write its exit code to a file; signals are for the command.
trap : TERM INT
"$@"
echo $? > "$NOTES/code-$RANK"
"""


def stop_torchrun(server: Server, tmp_path: Path, number: signal.Signals, after: float) -> None:
    """Send a signal to torchrun during training; check that both ranks save once and exit.

    Args:
        after: seconds after the first step.
    """
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
    assert process.wait(60) == 1  # torchrun's own exit code, whatever those of the ranks are
    assert time.monotonic() - began < 30
    stderr = process.output()
    codes = [(tmp_path / f"code-{rank}").read_text() for rank in (0, 1)]
    assert codes == [f"{128 + number}\n"] * 2, stderr
    (step,) = re.findall(r"stopped and saved at step (\d+)", stderr)
    assert checkpoint.load_newest(tmp_path / "out" / "run").step == int(step) > 0


def test_sigterm_to_torchrun_saves_the_run(server: Server, tmp_path: Path) -> None:
    """After SIGTERM, which a cluster sends before a job ends, both ranks save once and exit."""
    stop_torchrun(server, tmp_path, signal.SIGTERM, after=1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [0.0, 0.2, 0.7, 1.5, 3.0])
def test_a_signal_to_torchrun_at_any_moment_saves_the_run(
    server: Server, tmp_path: Path, number: signal.Signals, after: float
) -> None:
    """SIGTERM and Ctrl-C save the run at each of five moments of the training."""
    stop_torchrun(server, tmp_path, number, after)


@pytest.mark.slow
def test_an_error_of_all_ranks_is_reported_once(server: Server, tmp_path: Path) -> None:
    """A `UserError` that both ranks raise is one line on stderr."""
    process = torchrun(server, str(ROOT / "train.py"), "--data", str(tmp_path / "missing.txt"))
    assert process.wait(100) == 1
    stderr = process.output()
    assert stderr.count("error: ") == 1 and "missing.txt" in stderr


@pytest.fixture
def rank_2_of_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the environment of rank 2 of 3."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "RANK": "2"}.items():
        monkeypatch.setenv(name, value)


def test_each_rank_computes_the_same_number_of_micro_batches(rank_2_of_3: None) -> None:
    """The number of micro-batches is rounded up to a multiple of 3, and rank 2 takes 2, 5, ..."""
    config = TrainConfig(batch_size=9, block_size=8, device="cpu", gradient_accumulation_steps=4)
    assert count_micro_batches(config, 256) == 6
    assert list(distributed.micro_batches_of_rank(range(6), torch.nn.Module())) == [2, 5]


def test_fewer_windows_than_ranks_are_refused(rank_2_of_3: None) -> None:
    """A batch of two cannot be cut into a micro-batch for each of three ranks."""
    config = TrainConfig(batch_size=2, block_size=8, device="cpu")
    with pytest.raises(UserError, match="--batch_size 2 is too small for 3 micro-batches"):
        count_micro_batches(config, 256)


def test_each_rank_evaluates_the_same_number_of_batches(rank_2_of_3: None) -> None:
    """Of five batches rank 2 gets the third, and then one without targets: none counts twice."""
    batches = [Batch(torch.full((2, 4), n), torch.full((2, 4), n)) for n in range(5)]
    (_, y, _), (_, padding, _) = distributed.split_over_ranks(batches)
    assert y.eq(2).all() and padding.eq(NOT_SCORED).all()


@pytest.mark.parametrize("version", ["2.6.0", "2.7.1+cu126", "2.8.0a0"])
def test_fsdp_is_refused_where_its_gradients_may_be_wrong(
    version: str, rank_2_of_3: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an older PyTorch, --fsdp is refused by its version before the ranks are connected."""
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    with pytest.raises(UserError, match=re.escape(f"later, and this is {version}; install")):
        distributed.join("cpu", fsdp=True)
    assert not torch.distributed.is_initialized()


def test_without_torchrun_there_is_one_process() -> None:
    """Without torchrun the world size is 1, and PyTorch's process group is not set up."""
    distributed.join("cpu")
    assert not torch.distributed.is_initialized()
    assert (distributed.size(), distributed.rank(), distributed.launch()) == (1, 0, None)
    assert distributed.find_launched_run(ROOT) is None


@pytest.mark.parametrize("name", ["run", "exp/one"])
def test_a_launch_finds_the_run_that_it_has_started(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch finds no run of another launch, and takes no folder called "launch" for a file."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    for folder in (name, "other", "exp/launch"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "other" / "launch").write_bytes(b"\xff")
    assert distributed.find_launched_run(tmp_path) is None
    distributed.record_launch(tmp_path / name)
    assert distributed.find_launched_run(tmp_path) == tmp_path / name
