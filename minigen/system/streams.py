"""The standard streams of a command, whatever they lead to: a terminal, `head`, a disk, nothing.

Standard error is for people, and a command does its work whether or not anybody reads it. Standard
output is the result: a reader that has seen enough ends the command, without a word.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from minigen.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Unheard(io.FileIO):
    """A file that also takes what it cannot write: on a full disk, after its reader has gone."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


@contextlib.contextmanager
def standard() -> Iterator[None]:
    """Give a command all three standard streams, and end it as a shell expects.

    A stream that is closed (`>&-`, or a program without a console) leads to nothing. A character
    that stdout's encoding does not have is written as an escape.

    After the reader of stdout has gone, the command ends by SIGPIPE, which a shell shows as 141; if
    stdout is on a full disk, with 2.
    """
    _open()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, as Python complains of a failure after the end
    except BrokenPipeError:
        _drop(sys.stdout)
        if hasattr(signal, "SIGPIPE"):  # not on Windows
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
        sys.exit(141)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop(sys.stdout)
        print(f"error: cannot write the output: {error.strerror}; make room", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Show a `UserError` as one line on stderr and exit with code 2; let bugs keep their traceback.

    Ctrl-C exits with code 130. The standard streams become what `standard` makes of them.

    >>> with one_line_errors():                                       # doctest: +SKIP
    ...     raise UserError("--top_k is 0; give 1 or more")
    error: --top_k is 0; give 1 or more
    """
    with standard():
        try:
            yield
        except KeyboardInterrupt:
            sys.exit(130)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


def _open() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free number is that of the stream
            nowhere = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)
            setattr(sys, f"__{name}__", nowhere)  # which keeps it open
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.set_blocking(stream.fileno(), True)  # another program at the terminal changed it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = unheard(sys.stderr)


def unheard(stream: Any) -> Any:
    """Return the same stream as one whose failures do not matter; as it is if it is no file."""
    try:
        raw = _Unheard(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError, AttributeError):  # a test's, or a notebook's
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=True
    )


def _drop(stream: Any) -> None:
    """Lead a stream to nothing, also the part of its text that could not be written."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def as_utf8() -> None:
    """Read and write texts as UTF-8, whatever the terminal's encoding; other bytes stay as is."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def decoded(text: str) -> str:
    """Return a word of the command line as UTF-8, where its bytes are, also if the locale is C.

    Python decodes words by the locale, and keeps bytes that it cannot decode as surrogates. A word
    from a terminal of another encoding, which is no UTF-8, stays as Python decoded it.
    """
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:  # it was not decoded by the locale, or it is no UTF-8
        return text


def shows_colours() -> bool:
    """Return whether stdout is a terminal that shows colours, to a person who wants them."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def typed_lines(hint: str) -> Iterator[str]:
    """Yield the lines of standard input up to an empty one; at a terminal, print `hint` first."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        with contextlib.suppress(Exception):  # Windows has its own, and others a broken one
            import readline  # noqa: F401  makes `input` know the arrow keys and earlier lines
        print(hint, file=sys.stderr)
    with contextlib.suppress(EOFError):
        while line := input("> " if at_terminal else ""):
            yield line


@contextlib.contextmanager
def wide_enough() -> Iterator[None]:
    """Let a terminal count as 40 columns wide if it says less, where a help text has no room."""
    given, columns = os.environ.get("COLUMNS"), shutil.get_terminal_size().columns
    os.environ["COLUMNS"] = str(max(40, columns))
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if given is not None:
            os.environ["COLUMNS"] = given


def progress_bar(**options: Any) -> tqdm[Any]:
    """Return a progress bar on stderr; one that is hidden where stderr is no terminal.

    Args:
        options: of tqdm. `disable` hides it everywhere.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    hidden = options.pop("disable", False) or not is_terminal or os.environ.get("TERM") == "dumb"
    try:
        return tqdm(**options, disable=hidden)
    except Exception:  # as on odd values of its TQDM_... variables; nobody needs the bar
        return tqdm(total=options.get("total"), disable=True)
