"""Set up the standard streams of a command: a terminal, a pipe, a file, or nothing at all.

Standard error is for people: a command does its work even if nobody can read it. Standard output is
the result: when its reader has gone, as in `... | head`, the command ends without a message.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from minigen.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _LossyFile(io.FileIO):
    """A file that drops data which it cannot write: on a full disk, or without a reader."""

    def write(self, data: Any, /) -> int:
        """Write the data, or drop it; return its number of bytes in both cases."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Open the standard streams that are closed, and end the command if writing to stdout fails.

    A closed stream (`>&-`, or a program without a console) becomes /dev/null. A character that the
    encoding of stdout does not have is written as an escape.

    If the reader of stdout has gone, the command ends by SIGPIPE, as a shell expects (exit code
    141). If the disk is full, it ends with one line and exit code 2.
    """
    _repair()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # now: at its own end Python would print a traceback of a failure
    except BrokenPipeError:
        _redirect_to_null(sys.stdout)
        if hasattr(signal, "SIGPIPE"):  # not on Windows
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
        sys.exit(141)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _redirect_to_null(sys.stdout)
        print(f"error: cannot write the output: {error.strerror}; make room", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a `UserError` as one line on stderr and exit with code 2; bugs keep their traceback.

    Ctrl-C exits with code 130. The standard streams are set up by `standard_streams`.

    >>> with one_line_errors():                                       # doctest: +SKIP
    ...     raise UserError("--top_k is 0; give 1 or more")
    error: --top_k is 0; give 1 or more
    """
    with standard_streams():
        try:
            yield
        except KeyboardInterrupt:
            sys.exit(130)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


def _repair() -> None:
    """Open closed standard streams on /dev/null, and make writing to stderr never fail."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # `open` takes the lowest free file descriptor, which is the one of this stream.
            devnull = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, devnull)
            setattr(sys, f"__{name}__", devnull)  # a second reference, so that it stays open
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.set_blocking(stream.fileno(), True)  # another program may have changed it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = ignore_write_errors(sys.stderr)


def ignore_write_errors(stream: Any) -> Any:
    """Return a stream to the same file that drops text which it cannot write, without an error.

    A stream without a file descriptor, such as a notebook's, is returned unchanged.
    """
    try:
        raw = _LossyFile(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError, AttributeError):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=True
    )


def _redirect_to_null(stream: Any) -> None:
    """Redirect a stream to /dev/null, with the text that is still in its buffer."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def as_utf8() -> None:
    """Set stdin and stdout to UTF-8 in any locale; bytes that are not UTF-8 stay as they are."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def decoded(text: str) -> str:
    """Return a command-line argument decoded as UTF-8, even if the locale is C.

    Python decodes arguments by the locale, and keeps undecodable bytes as surrogates. An argument
    whose bytes are not UTF-8, from a terminal with another encoding, stays as Python decoded it.
    """
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:  # not UTF-8, or not decoded by the locale
        return text


def shows_colours() -> bool:
    """Return whether stdout is a terminal with colours, and NO_COLOR does not forbid them."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def typed_lines(hint: str) -> Iterator[str]:
    """Yield the lines of standard input up to an empty one; at a terminal, print `hint` first."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        with contextlib.suppress(Exception):  # missing on Windows, broken on some systems
            import readline  # noqa: F401  gives `input` arrow keys and a history
        print(hint, file=sys.stderr)
    with contextlib.suppress(EOFError):
        while line := input("> " if at_terminal else ""):
            yield line


@contextlib.contextmanager
def wide_enough() -> Iterator[None]:
    """Set the terminal's width to at least 40 columns, so that a help text has room."""
    original, columns = os.environ.get("COLUMNS"), shutil.get_terminal_size().columns
    os.environ["COLUMNS"] = str(max(40, columns))
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if original is not None:
            os.environ["COLUMNS"] = original


def progress_bar(**options: Any) -> tqdm[Any]:
    """Return a progress bar on a terminal, or in a notebook; the bar is hidden elsewhere.

    Args:
        options: tqdm's options; `disable=True` hides the bar in any case.
    """
    bar: type[tqdm[Any]] = tqdm
    if type(sys.stderr).__module__.partition(".")[0] == "ipykernel":  # the stream of a notebook
        is_shown = True
        with warnings.catch_warnings():  # without ipywidgets, tqdm warns and takes a bar of text
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm as bar
    else:
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        is_shown = is_terminal and os.environ.get("TERM") != "dumb"
    hidden = options.pop("disable", False) or not is_shown
    if not hasattr(
        bar, "_lock"
    ):  # tqdm's own is for several processes: Python 3.14 starts one more
        bar.set_lock(threading.RLock())
    try:
        return bar(**options, disable=hidden)
    except Exception:  # an odd value of a TQDM_... variable; the work needs no bar
        return tqdm(total=options.get("total"), disable=True)


def set_total(bar: tqdm[Any], total: int | None) -> None:
    """Set the total of a bar, also of a notebook's, whose widget keeps a total of its own."""
    bar.total = total
    container = getattr(bar, "container", None)
    if container is not None and total:
        _, widget, _ = container.children
        widget.max, widget.bar_style = total, ""
