"""Commands for the user to copy into a shell."""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # where train.py and sample.py are, too


def command(program: str, *words: str | Path) -> str:
    """Return a command line that runs as it stands, copied into the shell that minigen runs in.

    The command names the Python that runs now, and finds minigen from any folder.

    Args:
        program: a script beside the package, or a module of it.
        words: the flags and their values, which are quoted where a shell needs quotes. A `Path`
            is written so that it is never taken for a name.

    >>> command("sample.py", "--run", "out/my run")                   # doctest: +SKIP
    "python sample.py --run 'out/my run'"
    >>> command("minigen.evaluation.evaluate", "out/tales")                      # doctest: +SKIP
    'python -m minigen.evaluation.evaluate out/tales'
    """
    line = [_python()]
    if program in ("train", "sample"):
        program += ".py"
    if program == "export":
        program, words = "minigen.files.checkpoint", ("export", *words)
    if program.endswith(".py"):
        line.append(_nearest(ROOT / program))
    else:
        # The first folder is that of the script, or the working folder: not there in the next run.
        others = [path for path in sys.path[1:] if path]
        if cwd() != str(ROOT) and not importlib.machinery.PathFinder.find_spec("minigen", others):
            line = ["env", f"PYTHONPATH={ROOT}", *line]  # minigen is not installed
        line += ["-m", program]
    line += [as_path(word) if isinstance(word, Path) else word for word in words]
    return " ".join(map(quoted, line))


def quoted(word: str) -> str:
    r"""Return a word as a shell takes it, also a name that is not UTF-8.

    >>> quoted("my run"), quoted(os.fsdecode(b"caf\xe9"))
    ("'my run'", "$'caf\\xe9'")
    """
    if word.isascii() or not any("\udc80" <= sign <= "\udcff" for sign in word):
        return shlex.quote(word)
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}"
             for byte in os.fsencode(word))  # fmt: skip
    return f"$'{''.join(plain)}'"


def install(extra: str) -> str:
    """Return the command that installs what an extra of pyproject.toml needs.

    >>> install("hf")                                                 # doctest: +SKIP
    "python -m pip install -e '.[hf]'"
    """
    there = "." if cwd() == str(ROOT) else str(ROOT)
    return shlex.join([_python(), "-m", "pip", "install", "-e", f"{there}[{extra}]"])


def cwd() -> str:
    """Return the working folder; "" if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def as_path(path: Path) -> str:
    """Return a path as a string that is no bare name: `./tales`, not `tales`."""
    return str(path) if os.path.dirname(path) else os.path.join(os.curdir, path)


def _python() -> str:
    """Return the name of this Python if the shell finds it by that name, or its path."""
    for name in ("python", Path(sys.executable).stem):
        found = shutil.which(name)
        with contextlib.suppress(OSError):  # in a folder that was removed
            if found and os.path.abspath(found) == os.path.abspath(sys.executable):
                return name
    return sys.executable or "python"


def _nearest(path: Path) -> str:
    """Return a path as it is shortest: from the working folder, or from the root."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except (ValueError, OSError):  # on another drive, or the working folder was removed
        return str(path)
