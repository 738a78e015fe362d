"""Commands for the user to copy into a shell."""

from __future__ import annotations

import importlib.machinery
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # a checkout, or where packages are installed
SCRIPTS = ("train", "sample")  # the commands whose files lie beside the package, to be read first


def is_checkout() -> bool:
    """Return whether minigen runs from a checkout of its project, and not from an installed wheel.

    An editable installation (`pip install -e .`) runs from the checkout.
    """
    return all((ROOT / name).is_file() for name in ("pyproject.toml", "train.py"))


def script(name: str) -> Path:
    """Return the file of a command of SCRIPTS: beside the package, or in an installed package."""
    return (ROOT if is_checkout() else PACKAGE) / f"{name}.py"


def program() -> str:
    """Return the name of the command that runs now, as its --help shows it.

    It is `train.py` where that file was run, and `minigen train` where minigen is installed.
    """
    path = Path(sys.argv[0])
    return f"minigen {path.stem}" if path.parent == PACKAGE else path.name


def command(name: str, *words: str | Path) -> str:
    """Return a command line that runs as it stands, copied into the shell that minigen runs in.

    The command names the Python that runs now, and finds minigen from any folder.

    Args:
        name: a command of `python -m minigen`.
        words: the flags and their values, which are quoted where a shell needs quotes. A `Path`
            is written so that it is never taken for a name.

    In a checkout, and where a wheel is installed:

    >>> command("sample", "--run", "out/my run")              # doctest: +SKIP
    "python sample.py --run 'out/my run'"
    >>> command("sample", "--run", "out/my run")              # doctest: +SKIP
    "minigen sample --run 'out/my run'"
    """
    line = [*_beginning(name), *(as_path(w) if isinstance(w, Path) else w for w in words)]
    return " ".join(map(quoted, line))


def _beginning(name: str) -> list[str]:
    """Return the words that start a command."""
    if is_checkout() and name in SCRIPTS:
        return [_python(), _nearest(script(name))]
    beside = os.path.join(os.path.dirname(sys.executable), "minigen")
    if not is_checkout() and _finds("minigen", beside):
        return ["minigen", name]
    line = [_python(), "-m", "minigen", name]
    # The first folder is that of the script, or the working folder: not there in the next run.
    others = [path for path in sys.path[1:] if path]
    if cwd() == str(ROOT) or importlib.machinery.PathFinder.find_spec("minigen", others):
        return line
    return ["env", f"PYTHONPATH={ROOT}", *line]


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

    In a checkout, and where a wheel is installed:

    >>> install("hf")                                         # doctest: +SKIP
    "python -m pip install -e '.[hf]'"
    >>> install("hf")                                         # doctest: +SKIP
    'python -m pip install huggingface-hub transformers'
    """
    what = ["-e", f"{'.' if cwd() == str(ROOT) else ROOT}[{extra}]"]
    if not is_checkout():  # the place that minigen was installed from is not known any more
        from importlib import metadata  # here, as few commands need it

        needs = [need.partition(";") for need in metadata.requires("minigen") or []]
        what = [name.strip() for name, _, when in needs if extra in re.findall(r"[\w-]+", when)]
    return shlex.join([_python(), "-m", "pip", "install", *what])


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
    names = ("python", Path(sys.executable).stem)
    found = (name for name in names if _finds(name, sys.executable))
    return next(found, sys.executable or "python")


def _finds(name: str, path: str) -> bool:
    """Return whether the shell runs the file `path` when it is given the name alone."""
    found = shutil.which(name)
    try:
        return found is not None and os.path.abspath(found) == os.path.abspath(path)
    except OSError:  # in a folder that was removed
        return False


def _nearest(path: Path) -> str:
    """Return a path as it is shortest: from the working folder, or from the root."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except (ValueError, OSError):  # on another drive, or the working folder was removed
        return str(path)
