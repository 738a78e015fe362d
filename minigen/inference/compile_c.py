"""Compile a C file with the machine's compiler, and load the result; compile it only once."""

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

from minigen.system.shell import install

COMPILE = ["-std=gnu11", "-O3", "-ffast-math", "-fPIC"]
# The flags for a processor, by PyTorch's name for its instructions. With -march=native, a compiler
# that is older than the processor does not know it, and leaves instructions out.
PROCESSOR = {
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma",
               "-mprefer-vector-width=512"],
}  # fmt: skip
# The package ziglang is a C compiler, clang with a C library for each system. By itself it compiles
# for the processor at hand; "baseline" leaves that to the flags above.
ZIG = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]
# Seconds to wait for a compiler. On Windows, ziglang first compiles a C library for 100 s.
TIMEOUT, ZIG_TIMEOUT = 60, 600


def compiled(source: Path) -> ctypes.CDLL | None:
    """Return a C file as a loaded library; None if no compiler here can compile it.

    The library is kept beside Python's bytecode, under a name that changes with the file, the
    compilers and the processor. A note on standard error says when one is compiled, or that none
    can be.
    """
    commands = list(_commands())
    key = hashlib.sha256(source.read_bytes() + repr(commands).encode()).hexdigest()[:16]
    folder = Path(importlib.util.cache_from_source(str(source))).parent
    kept = folder / f"{source.stem}.{key}.so"
    # An OSError: no such library yet, or a damaged one; a UnicodeError: one where the path is not
    # UTF-8, which Python cannot put into a message.
    with contextlib.suppress(OSError, UnicodeError):
        return ctypes.CDLL(str(kept))
    for command in commands:
        # A failure: no folder to compile in, a compiler that fails, or a temporary folder that may
        # hold no programs (noexec).
        failures = (OSError, UnicodeError, subprocess.SubprocessError)
        with contextlib.suppress(*failures), _scratch(folder) as scratch:
            made, start = Path(scratch, "made.so"), time.perf_counter()
            if _is_zig(command):
                note = "compiling {} with ziglang, once: seconds, or minutes on Windows"
                print(note.format(source.name), file=sys.stderr)
            _compile(command, source, made)
            library = ctypes.CDLL(str(made))
            seconds = time.perf_counter() - start
            print(f"compiled {source.name} in {seconds:.1f} s", file=sys.stderr)
            with contextlib.suppress(OSError):  # the folder is read-only: compile again next time
                made.replace(kept)  # atomic: another process finds the whole library or none
            return library
    named = os.environ.get("CC")
    fault = f"CC={named} does not compile" if named else "no C compiler here compiles"
    has_all = named or importlib.util.find_spec("ziglang")
    mend = "" if has_all else f"; a compiler: {install('fast')}"
    print(f"{fault} {source.name}: PyTorch computes, which is slower{mend}", file=sys.stderr)
    return None


def _commands() -> Iterator[list[str]]:
    """Yield the command lines to try in turn: each compiler with OpenMP, then each without.

    The last is the compiler of the package ziglang, which has no OpenMP.
    """
    named = os.environ.get("CC")
    compilers = [named.split()] if named else [["gcc"], ["cc"], ["clang"]]
    found = [words for words in compilers if words and shutil.which(words[0])]
    flags = [*COMPILE, *PROCESSOR.get(torch.backends.cpu.get_cpu_capability(), [])]
    for threads in (["-fopenmp"], []):
        for words in found:
            yield [*words, *flags, *threads]
    if not named and importlib.util.find_spec("ziglang"):
        yield [*ZIG, *flags]


def _is_zig(command: list[str]) -> bool:
    """Return whether the compiler of a command is ziglang."""
    return command[: len(ZIG)] == ZIG


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a temporary folder in `folder`; if that is read-only, where the system has its own."""
    # Windows does not delete a library that is in use. That is no fault.
    try:
        folder.mkdir(exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)
    except OSError:  # the installation belongs to another user
        return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def _compile(command: list[str], source: Path, made: Path) -> None:
    """Compile `source` into the library `made`; raise an error if the compiler fails."""
    # Compile with -ffast-math and link without it: when they link with it, some compilers add code
    # that makes the whole process round tiny numbers to zero
    # (test_the_c_code_does_not_round_the_process_s_tiny_numbers_to_zero).
    object_file = made.with_suffix(".o")
    link = [word for word in command if word != "-ffast-math"]
    # Zig compiles the C library first, and keeps it: here, because the home folder may be
    # read-only, and what it keeps (80 MB) is needed once.
    timeout = ZIG_TIMEOUT if _is_zig(command) else TIMEOUT
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(made.parent)} | os.environ
    for words in (
        [*command, "-c", str(source), "-o", str(object_file)],
        [*link, "-shared", str(object_file), "-o", str(made), "-lm"],
    ):
        subprocess.run(words, capture_output=True, timeout=timeout, check=True, env=environment)
