"""The standard streams of a command: pipes, full disks, closed streams, terminals, notebooks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from minigen.cli import parse
from minigen.system import streams
from minigen.system.streams import one_line_errors
from train import TrainConfig

ROOT = Path(streams.__file__).parents[2]

# The beginning of a command that sets up its streams as all commands do, but imports no PyTorch.
COMMAND = """
import importlib.util, sys, types
def module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
package = types.ModuleType("minigen"); package.__path__ = [sys.argv[1]]
sys.modules["minigen"] = package
from minigen.errors import UserError
from minigen.system.streams import one_line_errors
with one_line_errors():
"""


def command(body: str, shell: str) -> tuple[int, str]:
    """Run a command with this body; return its exit code and stderr.

    Args:
        shell: a line for bash, in which "$@" is the command.
    """
    argv = [sys.executable, "-c", f"{COMMAND}    {body}", str(ROOT / "minigen")]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *argv],
        capture_output=True, encoding="utf-8", timeout=60, env=env,
    )  # fmt: skip
    return done.returncode, done.stderr


needs_bash = pytest.mark.skipif(os.name != "posix", reason="the streams are those of a shell")


@needs_bash
@pytest.mark.parametrize("unbuffered", ["", "PYTHONUNBUFFERED=1 "])
def test_a_command_whose_reader_has_gone_ends_by_sigpipe(unbuffered: str) -> None:
    """After `head -1` has closed the pipe, the command ends with 141 and prints no error."""
    body = "print('one', flush=True); print('two\\n' * 99999)"  # more than a pipe holds
    code, stderr = command(body, f'{unbuffered}"$@" | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}')
    assert (code, stderr) == (141, "")


@needs_bash
def test_a_reader_that_has_gone_before_the_last_flush_ends_the_command_by_sigpipe() -> None:
    """A short output stays in the buffer until the end of the body, and is noticed there."""
    body = "print('short'); sys.stdin.read()"  # ends when the file `gone` is made
    shell = 'until [ -e "$GONE" ]; do sleep 0.01; done | "$@" | { exec <&-; : >"$GONE"; }'
    with tempfile.TemporaryDirectory() as folder:
        shell = f"GONE={folder}/gone; {shell}; exit ${{PIPESTATUS[1]}}"
        assert command(body, shell) == (141, "")


@needs_bash
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("body", ["print('short')", "raise SystemExit(print('help'))"])
def test_an_output_on_a_full_disk_is_one_line(body: str) -> None:
    """If stdout is on a full disk, the command exits with 2, and one line on stderr says why."""
    line = "error: cannot write the output: No space left on device; make room\n"
    assert command(body, '"$@" >/dev/full') == (2, line)


@needs_bash
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_an_error_message_that_cannot_be_written_keeps_the_exit_code() -> None:
    """A `UserError` exits with 2 even if stderr is on a full disk."""
    assert command("raise UserError('wrong')", '"$@" 2>/dev/full') == (2, "")


@needs_bash
def test_a_bug_keeps_its_traceback() -> None:
    """An error that is not a `UserError` is printed as Python does it."""
    code, stderr = command("1 / 0", '"$@"')
    assert code == 1 and stderr.startswith("Traceback") and "ZeroDivisionError" in stderr


@needs_bash
def test_ctrl_c_exits_with_130() -> None:
    """`KeyboardInterrupt` ends a command with 130 and without a traceback."""
    assert command("raise KeyboardInterrupt", '"$@"') == (130, "")


@needs_bash
def test_closed_streams_become_dev_null() -> None:
    """Closed streams can be used, stdin is empty, and an opened file gets another descriptor."""
    body = "print(1); print(2, file=sys.stderr); n = open(sys.argv[1] + '/model.py').fileno(); "
    body += "raise SystemExit(9 if n > 2 and sys.stdin.buffer.read() == b'' else n)"
    assert command(body, 'exec "$@" <&- >&- 2>&-') == (9, "")


def test_a_stream_that_ignores_errors_takes_everything_without_a_reader() -> None:
    """Such a stream writes like the original one, and drops text after the reader has gone."""
    reader, writer = os.pipe()
    with open(writer, "w", encoding="ascii") as stream:
        lossy = streams.ignore_write_errors(stream)
        print("한", file=lossy)
        assert os.read(reader, 99) == b"\\ud55c\n" and not lossy.isatty()
        os.close(reader)
        print("x" * 99999, file=lossy, flush=True)
        lossy.flush()


def test_a_stream_without_a_file_is_written_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's stdout and stderr have no file descriptor, and still get their text."""
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", notebook)
    monkeypatch.setattr(sys, "stderr", notebook)
    with one_line_errors():
        print("out")
        print("err", file=sys.stderr)
    assert notebook.getvalue() == "out\nerr\n"


def test_an_argument_is_utf8_in_every_locale() -> None:
    """An argument that Python could not decode in the C locale is decoded as UTF-8."""
    assert streams.decoded("하늘") == "하늘"
    assert streams.decoded(os.fsdecode(b"\xff")) == os.fsdecode(b"\xff")
    code = "import sys; sys.path.insert(0, sys.argv[2]); from minigen.system import streams; "
    code += "sys.stdout.buffer.write(streams.decoded(sys.argv[1]).encode())"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    argv = [sys.executable, "-c", code, "하늘", str(ROOT)]
    assert subprocess.run(argv, env=env, capture_output=True).stdout.decode() == "하늘"


def test_an_argument_in_another_encoding_stays_as_python_decoded_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a Latin-1 locale, the byte of `é` is not UTF-8 and stays; two UTF-8 bytes become `é`."""
    monkeypatch.setattr(os, "fsencode", lambda word: word.encode("latin-1", "surrogateescape"))
    assert streams.decoded("café") == "café"
    assert streams.decoded("cafÃ©") == "café"


@pytest.mark.parametrize("columns", ["0", "1", "2", "-3", "many"])
def test_help_has_room_in_every_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A help text is printed even if COLUMNS is 1 or senseless; COLUMNS stays as it was."""
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"])
    assert "--max-steps" in capsys.readouterr().out.replace("_", "-")
    assert os.environ["COLUMNS"] == columns


@pytest.mark.parametrize(
    "is_terminal, no_color, term, has_colours",
    [
        (True, "", "xterm", True),
        (False, "", "xterm", False),
        (True, "1", "xterm", False),
        (True, "", "dumb", False),
    ],
)
def test_colours_are_for_terminals_unless_forbidden(
    is_terminal: bool, no_color: str, term: str, has_colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file gets no colours, nor does a terminal with NO_COLOR or TERM=dumb."""
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    assert streams.shows_colours() == has_colours


def make_stderr_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace stderr by a stream that is a terminal."""
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.delenv("TERM", raising=False)


def test_a_bar_is_hidden_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bar is drawn if stderr is not a terminal, or if there is no stderr."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with streams.progress_bar(total=2) as bar:
        bar.update()
    assert bar.disable and stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    assert streams.progress_bar(total=2).disable


@pytest.mark.parametrize("columns", [0, 1, 80])
def test_a_bar_is_drawn_in_a_terminal_of_any_width(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar is drawn without an error, even if the terminal has 0 columns or 1."""
    make_stderr_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    with streams.progress_bar(total=2, dynamic_ncols=True, mininterval=0) as bar:
        bar.set_postfix_str("loss 1.0", refresh=True)
        bar.update()
        assert not bar.disable


def test_a_bar_that_cannot_be_made_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An odd value of a TQDM_... variable, at which tqdm fails, costs the bar and nothing else."""
    make_stderr_a_terminal(monkeypatch)

    class FailingBar(tqdm):  # type: ignore[type-arg]
        def __init__(self, **options: object) -> None:
            if not options["disable"]:
                raise TypeError("TQDM_NCOLS has no digits")
            super().__init__(**options)

    monkeypatch.setattr(streams, "tqdm", FailingBar)
    assert streams.progress_bar(total=2).disable


# ---- progress bars of notebooks ----


class KernelStream(io.StringIO):
    """A stream like that of a notebook's kernel, which is no terminal."""

    __module__ = "ipykernel.iostream"


@pytest.mark.parametrize(("stream", "shown"), [(KernelStream(), True), (io.StringIO(), False)])
def test_a_bar_shows_in_a_notebook_and_not_in_a_file(
    stream: io.StringIO, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook's stderr shows a bar; another stream that is no terminal shows none."""
    monkeypatch.setattr(sys, "stderr", stream)
    with streams.progress_bar(total=2, desc="training", mininterval=0) as bar:
        bar.update()
    assert ("training" in stream.getvalue()) == shown


def test_a_plan_changes_the_total_of_a_notebook_s_widget() -> None:
    """The widget of a bar without a total gets its total later, and is no longer marked."""
    widget = SimpleNamespace(max=1, bar_style="info")
    bar = SimpleNamespace(total=None, container=SimpleNamespace(children=(None, widget, None)))
    streams.set_total(bar, None)  # type: ignore[arg-type]
    assert (bar.total, widget.max, widget.bar_style) == (None, 1, "info")
    streams.set_total(bar, 40)  # type: ignore[arg-type]
    assert (bar.total, widget.max, widget.bar_style) == (40, 40, "")


def test_a_bar_starts_no_process() -> None:
    """A bar takes no lock for several processes, for which Python 3.14 would start a process."""
    code = "import sys; from minigen.system import streams; streams.progress_bar(total=2).update()"
    code += "; sys.exit('multiprocessing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
