"""Make command lines that the user can copy into a shell."""

from __future__ import annotations

import importlib.machinery
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # the checkout, or the folder of installed packages
SCRIPTS = ("train", "sample")  # commands with a file of their own in the checkout's root


def is_checkout() -> bool:
    """Return whether minigen runs from a checkout of its project, and not from an installed wheel.

    An editable installation (`pip install -e .`) runs from the checkout.
    """
    return all((ROOT / name).is_file() for name in ("pyproject.toml", "train.py"))


def script(name: str) -> Path:
    """Return the file of a command of SCRIPTS, in the checkout or in the installed package."""
    return (ROOT if is_checkout() else PACKAGE / "scripts") / f"{name}.py"


def program() -> str:
    """Return the name of the running command for its --help: `train.py`, or `minigen train`.

    The second form is for an installed minigen, whose train.py users neither see nor call.
    """
    path = Path(sys.argv[0])
    return f"minigen {path.stem}" if path.parent == PACKAGE / "scripts" else path.name


def command(name: str, *words: str | Path) -> str:
    """Return a command line that runs when it is copied into the shell that minigen runs in.

    It names the running Python interpreter, and finds minigen from any working folder.

    Args:
        name: a command of `python -m minigen`.
        words: the flags and their values; they are quoted where the shell needs it. A `Path` is
            spelt so that minigen cannot take it for the name of a run or a model.

    In a checkout, and where a wheel is installed:

    >>> command("sample", "--run", "out/my run")              # doctest: +SKIP
    "python sample.py --run 'out/my run'"
    >>> command("sample", "--run", "out/my run")              # doctest: +SKIP
    "minigen sample --run 'out/my run'"
    """
    line = [*_beginning(name), *(as_path(w) if isinstance(w, Path) else w for w in words)]
    return " ".join(map(quoted, line))


def _beginning(name: str) -> list[str]:
    """Return the words of a command line before its flags."""
    if is_checkout() and name in SCRIPTS:
        return [_python(), _nearest(script(name))]
    beside = os.path.join(os.path.dirname(sys.executable), "minigen")
    if not is_checkout() and _finds("minigen", beside):
        return ["minigen", name]
    line = [_python(), "-m", "minigen", name]
    # Python puts the folder of the script, or the working folder, first. The next command may run
    # in another folder, so only the other folders count.
    others = [path for path in sys.path[1:] if path]
    if cwd() == str(ROOT) or importlib.machinery.PathFinder.find_spec("minigen", others):
        return line
    return ["env", f"PYTHONPATH={ROOT}", *line]


def run_python(*words: str | Path) -> str:
    """Return a command line that runs this Python with `words`, quoted where the shell needs it."""
    return " ".join(map(quoted, [_python(), *map(str, words)]))


def quoted(word: str) -> str:
    r"""Return a word quoted for a shell; the word may be a file name that is not UTF-8.

    >>> quoted("my run"), quoted(os.fsdecode(b"caf\xe9"))
    ("'my run'", "$'caf\\xe9'")
    """
    if word.isascii() or not any("\udc80" <= char <= "\udcff" for char in word):
        return shlex.quote(word)
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}"
             for byte in os.fsencode(word))  # fmt: skip
    return f"$'{''.join(plain)}'"


def install(extra: str) -> str:
    """Return the command that installs the packages of an extra of pyproject.toml.

    In a checkout, and where a wheel is installed:

    >>> install("hf")                                         # doctest: +SKIP
    "python -m pip install -e '.[hf]'"
    >>> install("hf")                                         # doctest: +SKIP
    'python -m pip install huggingface-hub transformers'
    """
    packages = ["-e", f"{'.' if cwd() == str(ROOT) else ROOT}[{extra}]"]
    if not is_checkout():  # pip does not record where minigen's wheel lies, so name the packages
        from importlib import metadata  # imported here, as few commands need it

        needs = [need.partition(";") for need in metadata.requires("minigen") or []]
        packages = [name.strip() for name, _, extras in needs
                    if extra in re.findall(r"[\w-]+", extras)]  # fmt: skip
    return shlex.join([_python(), "-m", "pip", "install", *packages])


def cwd() -> str:
    """Return the working folder; "" if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def as_path(path: Path) -> str:
    """Return a path as a string with a folder in it: `./tales` instead of `tales`."""
    return str(path) if os.path.dirname(path) else os.path.join(os.curdir, path)


def _python() -> str:
    """Return the shortest word by which the shell runs this Python: `python`, or a path."""
    names = ("python", Path(sys.executable).stem)
    on_path = (name for name in names if _finds(name, sys.executable))
    return next(on_path, sys.executable or "python")


def _finds(name: str, path: str) -> bool:
    """Return whether the shell runs the file `path` if the name alone is typed."""
    executable = shutil.which(name)
    try:
        return executable is not None and os.path.abspath(executable) == os.path.abspath(path)
    except OSError:  # in a folder that was removed
        return False


def _nearest(path: Path) -> str:
    """Return the shorter form of a path: relative to the working folder, or absolute."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except (ValueError, OSError):  # on another drive, or the working folder was removed
        return str(path)
