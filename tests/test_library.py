"""minigen.train: the command's weights, in a process that continues as it was before."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digests import trained
from forks import Server
from small_text import until_it_trains

import minigen
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.system.threads import threads

ROOT = Path(minigen.__file__).parents[1]
TINY: dict[str, Any] = {
    "tokenizer": "byte", "n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 16,
    "batch_size": 2, "eval_tokens": 50, "device": "cpu", "compile": "no", "threads": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    return tmp_path


def settings() -> dict[str, Any]:
    """Return the settings of this process that a run could change."""
    return {
        "random": torch.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),
        "threads": torch.get_num_threads(),
        "adapting": dict(vars(threads)),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Assert that the settings are the same after as before."""
    before = settings()
    yield
    assert settings() == before


@contextlib.contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Call `action` in a thread while the body runs, and wait for it."""
    thread = threading.Thread(target=action)
    thread.start()
    yield
    thread.join()


def interrupted(*_: object) -> None:
    """Send Ctrl-C to this process."""
    signal.raise_signal(signal.SIGINT)


def interrupt(run: Path) -> None:
    """Send Ctrl-C to this process once a run trains."""
    until_it_trains(run)
    interrupted()


def test_a_call_gives_the_weights_of_the_command(text: Path, server: Server) -> None:
    """`minigen.train` and train.py save the same bits, and the second call in a process, too."""
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    done = server.python(
        str(ROOT / "train.py"), str(text), *flags, "--max_steps=12",
        "--name=command", "--seed=3", "--no_keep_checkpoints", cwd=text.parent, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("first", "second"):
        torch.manual_seed(77)
        run = minigen.train(
            text, **TINY, max_steps=12, name=name, seed=3, keep_checkpoints=False, warmup_steps=None
        )
        assert run.folder == text.parent / "out" / name
        assert (run.step, run.interrupted) == (12, False)
        assert trained(run.folder) == trained(text.parent / "out/command")
    assert len({line["step"] for line in run.metrics if "train_loss" in line}) == 12
    assert run.plot == run.folder / "loss.png"
    assert run.engine.path.parent == run.folder and run.engine.state["step"] <= 12
    assert "".join(run.engine.stream("the sun", max_new_tokens=3))


def test_a_run_keeps_the_special_tokens_of_a_tokenizer_that_the_library_saved(text: Path) -> None:
    """The model has their ids, also if a run takes its tokenizer from that run, and resumes.

    In the training text their spelling is letters.
    """
    text.write_text(f"<|user|>{text.read_text()}")
    names = ("<|user|>", "<|end|>")
    tokenizer = minigen.train_tokenizer("bpe", ["the sun"], 262, special_tokens=names)
    tokenizer.save("my.json")
    given = {**TINY, "max_steps": 1}
    first = minigen.train(text, **{**given, "tokenizer": "my.json"}, name="first")
    second = minigen.train(text, **{**given, "tokenizer": "out/first"}, name="second")
    resumed = minigen.train(init_from="resume", name="second", max_steps=2)
    for run in (first, second, resumed):
        read = run.engine.tokenizer
        assert read.controls == tokenizer.controls and read.fingerprint == tokenizer.fingerprint
        assert run.engine.model.config.vocab_size == len(tokenizer)
        assert read.encode_prompt("<|user|>")[-1] == tokenizer.end_of_text + 1
    shard = max(Path("data/cache").glob("*.bin"), key=lambda path: path.stat().st_size)
    ids = np.frombuffer(shard.read_bytes(), "<u2").tolist()
    assert max(ids) == tokenizer.end_of_text and tokenizer.decode(ids[1:]).startswith("<|user|>")


@pytest.mark.parametrize("as_list", [False, True])
def test_a_call_leaves_the_process_as_it_was(text: Path, as_list: bool) -> None:
    """Random numbers, threads, dtype, gradients and signal handlers are those of before.

    A program's own settings do not change the run either.
    """
    data: Any = [text.name] if as_list else text.name
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), unchanged():
            strange = minigen.train(data, **{**TINY, "threads": 2}, max_steps=3)
        with torch.inference_mode(), unchanged():
            minigen.train(data, **TINY, max_steps=3)
    finally:
        torch.set_default_dtype(torch.float32)
    plain = minigen.train(data, **{**TINY, "threads": 2}, max_steps=3)
    assert trained(plain.folder) == trained(strange.folder)


def test_an_interrupt_saves_and_returns_a_run_that_resumes(text: Path) -> None:
    """Ctrl-C ends a run after the step in progress, with a checkpoint from which it resumes."""
    with unchanged(), meanwhile(lambda: interrupt(Path("out/cut"))):
        cut = minigen.train(text, **TINY, max_steps=100_000, name="cut")
    assert cut.interrupted and 0 < cut.step < 100_000
    assert checkpoint.steps(cut.folder)[-1].name == f"step-{cut.step:06d}"
    resumed = minigen.train(init_from="resume", name="cut", max_steps=cut.step + 2)
    assert not resumed.interrupted and resumed.step == cut.step + 2


def test_a_second_interrupt_raises_and_the_process_continues(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two interrupts in one step raise KeyboardInterrupt, and the next call trains as before."""

    def interrupted_twice(*_: object) -> None:
        interrupted()
        interrupted()

    with monkeypatch.context() as patch, unchanged(), pytest.raises(KeyboardInterrupt):
        patch.setattr("minigen.run.run.Run.accepts", interrupted_twice)
        minigen.train(text, **TINY, max_steps=9, name="cut")
    assert checkpoint.steps(Path("out/cut")) == []
    assert minigen.train(text, **TINY, max_steps=2, name="cut").step == 2


def test_an_interrupt_before_the_first_step_raises(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step nothing is saved, so there is no run to return."""
    monkeypatch.setattr("minigen.run.run.sample_text", interrupted)
    with unchanged(), pytest.raises(KeyboardInterrupt):
        minigen.train(text, **TINY, max_steps=2, name="early")
    assert checkpoint.steps(Path("out/early")) == []


def test_an_interrupt_after_the_last_step_returns_the_run(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last evaluation all steps are saved, so an interrupt only cuts the report short."""
    monkeypatch.setattr("minigen.run.log.Report.final", interrupted)
    with unchanged():
        run = minigen.train(text, **TINY, max_steps=2)
    assert run.interrupted and run.step == 2 and run.engine.state["step"] <= 2


def test_a_run_in_a_thread_handles_no_signal(text: Path) -> None:
    """Outside the main thread, a run trains and no handler is installed."""
    runs = list[minigen.TrainedRun]()
    with unchanged(), meanwhile(lambda: runs.append(minigen.train(text, **TINY, max_steps=3))):
        pass
    assert runs[0].step == 3


def test_a_program_that_is_called_train_py_keeps_its_handlers(folder: Path) -> None:
    """A program of the name of minigen's own script imports it, and no handler is installed."""
    program = folder / "train.py"
    program.write_text(
        "import signal\n"
        "before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]\n"
        "import minigen\n"
        "try:\n    minigen.train(nothing=1)\nexcept minigen.UserError:\n    pass\n"
        "assert before == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, program], env=env, check=True)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"minute": 2}, r"^train has no argument minute; did you mean minutes\?$"),
        ({"help": True}, r"^train has no argument help; .*--help lists all$"),
        ({"version": True}, "^train has no argument version; "),
        ({"n_layer": "two"}, r"^--n_layer: 'two' is not a whole number; "),
        ({"n_layer": 1.5}, r"'1\.5' is not a whole number"),
        ({"n_layer": True}, "^--n_layer has no value; give one"),
        ({"data": []}, "^--data has no value; give one"),
        ({"compile": True}, "^--compile has no value; give one"),
        ({"keep_checkpoints": "yes"}, "keep_checkpoints|belongs to no flag"),
        ({"size": "huge"}, "'huge' is not one of"),
        ({"data": ["--help"]}, "--help"),
        ({"data": "missing.txt"}, "missing.txt"),
        ({"tokenizer": minigen.train_tokenizer("byte", [])}, "^tokenizer is a Tokenizer; .* path"),
        ({"minutes": 0}, "^--minutes is 0.*; give more than 0"),
        ({"minutes": 2, "max_steps": 2}, "give one of them"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(flags: dict[str, Any], complaint: str) -> None:
    """A wrong argument raises UserError with one line, and makes no run."""
    with unchanged(), pytest.raises(UserError, match=complaint) as refused:
        minigen.train(**flags)
    assert "\n" not in str(refused.value) and not Path("out").exists()


def test_a_loss_that_is_not_finite_raises(text: Path) -> None:
    """A run that a loss of infinity ends is an error, as the command has exit code 3."""
    with unchanged(), pytest.raises(UserError, match="the loss is not finite; lower learning_rate"):
        minigen.train(text, **TINY, max_steps=50, learning_rate=1e9, grad_clip=0, dtype="float32")


# ---- in a kernel of Jupyter ----


class Kernel:
    """A notebook's kernel, in the working folder; `outputs` are those of the latest cell."""

    def __init__(self) -> None:
        jupyter = pytest.importorskip("jupyter_client.manager")
        self.manager, self.client = jupyter.start_new_kernel(
            env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.outputs: list[dict[str, Any]] = []

    def run(self, code: str, during: Callable[[], None] = lambda: None) -> str:
        """Run a cell, and return its printed text; `during` runs while the cell does."""
        self.outputs = []
        with meanwhile(during):
            reply = self.client.execute_interactive(
                code,
                output_hook=lambda message: self.outputs.append(message["content"]),
                timeout=200,
            )
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(output.get("text", "") for output in self.outputs)

    def shown(self) -> set[str]:
        """Return the types of the objects that the latest cell has shown."""
        return {kind for output in self.outputs for kind in output.get("data", ())}


@pytest.fixture
def kernel(folder: Path) -> Iterator[Kernel]:
    """Start a kernel; skip the test where ipykernel or ipywidgets are not installed."""
    for name in ("ipykernel", "ipywidgets"):
        pytest.importorskip(name)
    kernel = Kernel()
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def test_the_section_on_notebooks_runs_in_a_kernel(text: Path, kernel: Kernel) -> None:
    """Each cell of docs/library.md runs; a bar with the loss and figures are shown."""
    shutil.copy(text, "my.txt")
    page = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    section = page.partition("\n## In a notebook\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^```python\n(.*?)^```$", section, flags=re.M | re.S)
    shown = []
    for cell in cells:
        kernel.run(cell)
        shown.append(kernel.shown())
    assert "application/vnd.jupyter.widget-view+json" in shown[0]  # the bar
    assert "image/png" in shown[0] and "image/png" in shown[1]  # of the run, and of the plot
    assert "inline" in kernel.run("import matplotlib; print(matplotlib.get_backend())")


def test_interrupting_the_kernel_ends_the_run_and_not_the_kernel(
    text: Path, kernel: Kernel
) -> None:
    """An interrupted cell has its run, which resumes in the next cell."""

    def interrupt_kernel() -> None:
        until_it_trains(Path("out/cut"))
        kernel.manager.interrupt_kernel()

    train = f"import minigen; run = minigen.train({text.name!r}, **{TINY}, max_steps=10**6"
    printed = kernel.run(
        f"{train}, name='cut'); print(run.interrupted, run.step > 0)", interrupt_kernel
    )
    assert "True True" in printed and "stopped and saved" in printed
    again = "run = minigen.train(init_from='resume', name='cut', max_steps=run.step + 2)"
    assert "False" in kernel.run(f"{again}; print(run.interrupted)")
