"""Machine code out of a C file, made once by the compiler that the machine has."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

COMPILE = ["-std=gnu11", "-O3", "-ffast-math", "-fPIC"]
# By PyTorch's name for the processor. -march=native would leave it to the compiler, and one that is
# older than the processor takes it for a lesser one.
PROCESSOR = {
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma",
               "-mprefer-vector-width=512"],
}  # fmt: skip


def compiled(source: Path) -> ctypes.CDLL | None:
    """What a C file compiles to; None where no compiler can do it.

    It is kept beside Python's bytecode, under a name that changes with the file, the compilers and
    the processor. It says on stderr when it compiles.
    """
    commands = list(_commands())
    key = hashlib.sha256(source.read_bytes() + repr(commands).encode()).hexdigest()[:16]
    folder = Path(importlib.util.cache_from_source(str(source))).parent
    kept = folder / f"{source.stem}.{key}.so"
    # It is not there yet, or damaged; and Python cannot say so where the path is not UTF-8.
    with contextlib.suppress(OSError, UnicodeError):
        return ctypes.CDLL(str(kept))
    for command in commands:
        # No place to compile in, no compiler that works, no program in temporary files (noexec).
        failures = (OSError, UnicodeError, subprocess.SubprocessError)
        with contextlib.suppress(*failures), _scratch(folder) as scratch:
            made, began = Path(scratch, "made.so"), time.perf_counter()
            _compile(command, source, made)
            code = ctypes.CDLL(str(made))
            seconds = time.perf_counter() - began
            print(f"compiled {source.name} in {seconds:.1f} s", file=sys.stderr)
            with contextlib.suppress(OSError):  # what cannot be kept is made again the next time
                made.replace(kept)  # at once: another process finds all of it or nothing
            return code
    return None


def _commands() -> Iterator[list[str]]:
    """Compilers, and how to call them: with threads, and else without."""
    named = os.environ.get("CC")
    compilers = [named.split()] if named else [["gcc"], ["cc"], ["clang"]]
    found = [words for words in compilers if words and shutil.which(words[0])]
    flags = [*COMPILE, *PROCESSOR.get(torch.backends.cpu.get_cpu_capability(), [])]
    for threads in (["-fopenmp"], []):
        for words in found:
            yield [*words, *flags, *threads]


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.mkdir(exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder)
    except OSError:  # an installation that this user may not change
        return tempfile.TemporaryDirectory()


def _compile(command: list[str], source: Path, made: Path) -> None:
    # In two steps, because some compilers put code into what they link with -ffast-math that makes
    # the whole process round tiny numbers to zero.
    part = made.with_suffix(".o")
    link = [word for word in command if word != "-ffast-math"]
    for words in (
        [*command, "-c", str(source), "-o", str(part)],
        [*link, "-shared", str(part), "-o", str(made), "-lm"],
    ):
        subprocess.run(words, capture_output=True, timeout=60, check=True)
