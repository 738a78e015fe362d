"""`python -m minigen` lists and runs all commands."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forks import Server

import minigen
from minigen import __main__ as dispatcher
from minigen.__main__ import COMMANDS
from minigen.system import shell

ROOT = Path(minigen.__file__).parents[1]


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run `python -m minigen WORDS` in this process; return its exit code, stdout and stderr."""
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(ROOT / "minigen" / "__main__.py"), *words])
        try:
            dispatcher.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_each_command_is_listed_with_a_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a command, and with --help, each command has one line of at most 80 characters."""
    code, output, errors = run(*words, capsys=capsys)
    assert (code, errors) == (0, "")
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler  # as before
    lines = output.splitlines()
    assert lines[0] == "usage: python -m minigen COMMAND [--flags]"
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("word", "mend"),
    [
        ("trian", "did you mean train?"),
        ("evalute", "did you mean evaluate?"),
        ("generate", "the commands are train, sample, evaluate, "),
        ("--data", "the commands are train, sample, "),
        ("", "the commands are train, sample, "),
    ],
)
def test_an_unknown_command_is_an_error_with_the_most_similar_one(
    word: str, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown command is one line with exit code 2, and names the most similar command."""
    code, output, error = run(word, "--flag", capsys=capsys)
    assert (code, output) == (2, "")
    assert error.startswith(f"error: there is no command {word!r}; {mend}")
    assert error.count("\n") == 1


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` in place of a command prints `minigen.__version__`."""
    assert run("--version", capsys=capsys) == (0, f"minigen {minigen.__version__}\n", "")


def test_nothing_slow_is_imported_before_the_command_is_known() -> None:
    """The list of commands imports neither PyTorch nor the library that reads flags."""
    code = "import sys; from minigen.__main__ import main; sys.argv = ['minigen']; main(); "
    code += "print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stderr == ""
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert not loaded & {"torch", "numpy", "tyro", "tiktoken", "matplotlib"}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_under_its_own_name(
    name: str, server: Server, tmp_path: Path
) -> None:
    """--help and --version work in any folder, also if it holds a train.py of its own."""
    for other in ("train.py", "sample.py"):
        (tmp_path / other).write_text("raise SystemExit('another')", encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = server.python("-m", "minigen", name, "--help", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    called = f"{name}.py" if name in shell.SCRIPTS else f"python -m minigen {name}"
    assert done.stdout.startswith(f"usage: {called} ")
    done = server.python("-m", "minigen", name, "--version", cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (0, f"minigen {minigen.__version__}\n")


def test_a_wrong_flag_of_a_command_is_one_line(server: Server, tmp_path: Path) -> None:
    """A misspelt flag is an error of one line with exit code 2, in modules and in scripts."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, flag in (
        ("evaluate", "--cuont"),
        ("train", "--minuets"),
        ("sample", "--tempreature"),
    ):
        done = server.python("-m", "minigen", name, flag, "3", cwd=tmp_path, env=env)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith(f"error: unknown flag {flag}; did you mean --")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", shell.SCRIPTS)
def test_a_script_is_the_same_command(name: str, server: Server, tmp_path: Path) -> None:
    """`python -m minigen train --help` prints the same as `python train.py --help`."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    called = server.python("-m", "minigen", name, "--help", cwd=tmp_path, env=env)
    run_as_file = server.python(ROOT / f"{name}.py", "--help", cwd=tmp_path, env=env)
    assert called.stdout == run_as_file.stdout


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize(
    "words", ["train.py", "sample.py", "-m minigen sample", "-m minigen check"]
)
def test_a_signal_during_imports_ends_a_command_silently(
    words: str, number: signal.Signals, tmp_path: Path
) -> None:
    """After a signal in the imports the exit code is 128 + its number, and nothing is printed."""
    torch = f"import os, time\nos.kill(os.getpid(), {number:d})\ntime.sleep(60)\n"
    (tmp_path / "torch.py").write_text(torch, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *words.split()],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"")


def test_ctrl_c_raises_after_the_imports() -> None:
    """After the imports, Python's own handlers are set, even if Ctrl-C was ignored at the start."""
    code = """if True:
        import signal
        from minigen.system import early
        numbers = (signal.SIGINT, signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        early.begin()
        assert {signal.getsignal(number) for number in numbers} == {early._leave}
        early.end()
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    """
    subprocess.run([sys.executable, "-c", code], check=True)
