"""The standard streams of a command, whatever they lead to."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from minigen.cli import parse
from minigen.system import streams
from minigen.system.streams import one_line_errors
from train import TrainConfig

ROOT = Path(streams.__file__).parents[2]

# A command as all are, that imports nothing slow.
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
    """Run a command with the body given, as `shell` says with "$@"; the exit code and stderr."""
    argv = [sys.executable, "-c", f"{COMMAND}    {body}", str(ROOT / "minigen")]
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *argv], capture_output=True, encoding="utf-8", timeout=60
    )
    return done.returncode, done.stderr


needs_bash = pytest.mark.skipif(os.name != "posix", reason="the streams are those of a shell")


@needs_bash
@pytest.mark.parametrize("unbuffered", ["", "PYTHONUNBUFFERED=1 "])
def test_a_reader_that_has_seen_enough_is_no_error(unbuffered: str) -> None:
    """The command ends as one that SIGPIPE has ended; nothing is said."""
    body = "import time; print('one', flush=True); time.sleep(0.1); print('two\\n' * 99999)"
    code, said = command(body, f'{unbuffered}"$@" | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}')
    assert (code, said) == (141, "")
    body = "import time; time.sleep(0.1); print('short')"  # written after the end of the body
    assert command(body, '"$@" | true; exit ${PIPESTATUS[0]}') == (141, "")


@needs_bash
def test_a_full_disk_is_one_line_and_a_bug_keeps_its_traceback() -> None:
    """Also where the text is written after the end of the body; other errors are as before."""
    line = "error: cannot write the output: No space left on device; make room\n"
    if os.path.exists("/dev/full"):
        assert command("print('short')", '"$@" >/dev/full') == (2, line)
        assert command("raise SystemExit(print('help'))", '"$@" >/dev/full') == (2, line)
        assert command("raise UserError('wrong')", '"$@" 2>/dev/full') == (2, "")
    code, said = command("1 / 0", '"$@"')
    assert code == 1 and said.startswith("Traceback") and "ZeroDivisionError" in said
    assert command("raise KeyboardInterrupt", '"$@"') == (130, "")


@needs_bash
def test_streams_that_are_closed_lead_to_nothing() -> None:
    """All three are there, what is read is empty, and a file that is opened has another number."""
    body = "print(1); print(2, file=sys.stderr); n = open(sys.argv[1] + '/model.py').fileno(); "
    body += "raise SystemExit(9 if n > 2 and sys.stdin.buffer.read() == b'' else n)"
    assert command(body, 'exec "$@" <&- >&- 2>&-') == (9, "")


def test_a_stream_without_a_reader_takes_everything() -> None:
    """And isatty, encodings and line ends are those of the stream."""
    reader, writer = os.pipe()
    with open(writer, "w", encoding="ascii") as stream:
        unheard = streams.unheard(stream)
        print("한", file=unheard)
        assert os.read(reader, 99) == b"\\ud55c\n" and not unheard.isatty()
        os.close(reader)
        print("x" * 99999, file=unheard, flush=True)
        unheard.flush()


def test_a_stream_of_a_notebook_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is no file is written to as it is."""
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", notebook)
    monkeypatch.setattr(sys, "stderr", notebook)
    with one_line_errors():
        print("out")
        print("err", file=sys.stderr)
    assert notebook.getvalue() == "out\nerr\n"


def test_a_word_is_utf8_in_every_locale() -> None:
    """What Python could not decode in the C locale is decoded; what it could stays."""
    assert streams.decoded("하늘") == "하늘"
    assert streams.decoded(os.fsdecode(b"\xff")) == os.fsdecode(b"\xff")
    code = "import sys; sys.path.insert(0, sys.argv[2]); from minigen.system import streams; "
    code += "sys.stdout.buffer.write(streams.decoded(sys.argv[1]).encode())"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    argv = [sys.executable, "-c", code, "하늘", str(ROOT)]
    assert subprocess.run(argv, env=env, capture_output=True).stdout.decode() == "하늘"


def test_a_word_of_another_encoding_stays_as_it_was_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a terminal in Latin-1: `é` is no UTF-8, but two bytes of UTF-8 that came there are."""
    monkeypatch.setattr(os, "fsencode", lambda word: word.encode("latin-1", "surrogateescape"))
    assert streams.decoded("café") == "café"
    assert streams.decoded("cafÃ©") == "café"


@pytest.mark.parametrize("columns", ["0", "1", "2", "-3", "many"])
def test_help_has_room_in_every_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in one that says it is one column wide; afterwards it says so still."""
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"])
    assert "--max-steps" in capsys.readouterr().out.replace("_", "-")
    assert os.environ["COLUMNS"] == columns


def test_colours_are_for_terminals_whose_reader_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a file, nor with NO_COLOR, nor at a terminal that knows none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not streams.shows_colours()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert streams.shows_colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not streams.shows_colours()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not streams.shows_colours()


@pytest.mark.parametrize("columns", [0, 1, 80])
def test_a_bar_is_drawn_at_any_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden where nobody sees it, without standard error too; and no variable of tqdm ends it."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with streams.progress_bar(total=2) as bar:
        bar.update()
    assert bar.disable and shown.getvalue() == ""
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("TERM", raising=False)
    with streams.progress_bar(total=2, dynamic_ncols=True, mininterval=0) as bar:
        bar.set_postfix_str("loss 1.0", refresh=True)
        bar.update()
        assert not bar.disable

    class Odd(tqdm):  # type: ignore[type-arg]
        def __init__(self, **options: object) -> None:
            if not options["disable"]:
                raise TypeError("TQDM_NCOLS is no number")
            super().__init__(**options)

    monkeypatch.setattr(streams, "tqdm", Odd)
    assert streams.progress_bar(total=2).disable
    monkeypatch.setattr(sys, "stderr", None)
    assert streams.progress_bar(total=2).disable
