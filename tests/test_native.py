"""minigen.inference.compile_c: C code is compiled once, and its absence stops nothing."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minigen.inference import compile_c, cpu
from minigen.system.shell import install

CPU_C = Path(cpu.__file__).with_suffix(".c")
SOURCE = """
#ifdef _OPENMP
int threads(void) { return 1; }
#else
int threads(void) { return 0; }
#endif
int answer(void) { return 42; }
"""

needs_compiler = pytest.mark.skipif(
    not list(compile_c._commands()), reason="there is no C compiler here"
)

needs_zig = pytest.mark.skipif(
    not importlib.util.find_spec("ziglang"), reason="needs ziglang, of the extra [fast]"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a C file in an empty folder."""
    path = tmp_path / "code.c"
    path.write_text(SOURCE)
    return path


def kept(source: Path) -> list[Path]:
    """Return the files in the folder where the library of `source` is kept."""
    folder = Path(importlib.util.cache_from_source(str(source))).parent
    return sorted(folder.iterdir()) if folder.is_dir() else []


def answer(library: ctypes.CDLL | None) -> int:
    """Return the result of the library's function `answer`."""
    assert library is not None
    return int(library.answer())


@needs_compiler
def test_a_file_is_compiled_once_per_version(
    source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is compiled at first use and after each change, with a note each time."""
    assert answer(compile_c.compiled(source)) == 42
    assert "compiled code.c in " in capfd.readouterr().err
    (first,) = kept(source)
    assert answer(compile_c.compiled(source)) == 42
    assert capfd.readouterr().err == "" and kept(source) == [first]
    source.write_text(SOURCE.replace("42", "43"))
    assert answer(compile_c.compiled(source)) == 43
    assert "compiled code.c in " in capfd.readouterr().err


@needs_compiler
def test_a_file_is_compiled_in_a_folder_whose_name_is_not_utf8(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is kept there; without a working compiler the result is None, as elsewhere."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    source = source.rename(folder / "code.c")
    with monkeypatch.context() as patch:
        patch.setenv("CC", "false")
        assert compile_c.compiled(source) is None
    assert answer(compile_c.compiled(source)) == 42
    assert len(kept(source)) == 1


@needs_compiler
def test_several_threads_may_compile_a_file_at_once(source: Path) -> None:
    """Each of four threads gets a library that works, and one library is kept."""
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(answer(compile_c.compiled(source))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [42] * 4 and len(kept(source)) == 1


@needs_compiler
def test_if_no_library_can_be_kept_the_file_is_compiled_each_time(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be made costs the time of a compilation, and nothing else."""
    (source.parent / "file").touch()
    monkeypatch.setattr("sys.pycache_prefix", str(source.parent / "file"))
    for _ in range(2):
        assert answer(compile_c.compiled(source)) == 42
        assert "compiled code.c" in capfd.readouterr().err


@needs_compiler
def test_without_a_temporary_folder_there_is_no_library(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container without a writable folder the result is None, so the model itself writes."""

    def nowhere(**_: object) -> None:
        """Raise the error of a system without a temporary folder."""
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", nowhere)
    assert compile_c.compiled(source) is None


@needs_compiler
def test_a_damaged_library_is_compiled_again(source: Path) -> None:
    """A library that cannot be loaded is replaced by a working one."""
    code = "import sys; from pathlib import Path\n"
    code += "from minigen.inference.compile_c import compiled\n"
    code += "compiled(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, source], check=True)  # not loaded in this process
    (library,) = kept(source)
    library.write_bytes(b"no library")
    assert answer(compile_c.compiled(source)) == 42
    assert kept(source) == [library] and library.stat().st_size > 1000


def compiler(folder: Path, script: str) -> str:
    """Write a compiler that is a shell script; return its path."""
    path = folder / "compiler"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.skipif(os.name == "nt", reason="the compilers here are shell scripts")
@pytest.mark.parametrize("script", ["exit 1", "exit 0", "kill -9 $$"])
def test_a_compiler_that_does_not_work_gives_no_library(
    source: Path, script: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The result is None if the compiler fails, succeeds without a result, or is killed."""
    monkeypatch.setenv("CC", compiler(source.parent, script))
    assert compile_c.compiled(source) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("CC=") and "does not compile code.c: PyTorch computes" in line


def test_without_a_compiler_there_is_no_library(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line says so, and how to get a compiler, or that CC names none that is installed."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no ziglang
    assert compile_c.compiled(source) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("no C compiler here") and line.endswith(install("fast"))
    monkeypatch.setenv("CC", "no-such-compiler -O3")
    assert compile_c.compiled(source) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("CC=no-such-compiler -O3 does not compile code.c")


@needs_zig
def test_ziglang_compiles_where_no_other_compiler_is(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line says beforehand that it takes a while. A home folder that is read-only is no fault."""
    monkeypatch.setenv("PATH", "")
    for name in ("CC", "ZIG_GLOBAL_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    (source.parent / "file").touch()  # not a folder, so nothing can be kept there
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(source.parent / "file"))
    assert answer(compile_c.compiled(source)) == 42
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("compiling code.c with ziglang")
    assert second.startswith("compiled code.c") and len(kept(source)) == 1


@needs_zig
def test_ziglang_compiles_for_the_instructions_of_the_flags_only(tmp_path: Path) -> None:
    """A library may be kept in a folder that machines with other processors use, too."""
    (tmp_path / "none.c").write_text("#if defined __BMI2__ || defined __SSE4_2__\n#error\n#endif\n")
    command = [*compile_c.ZIG, *compile_c.COMPILE, "-c", "none.c", "-o", "none.o"]
    subprocess.run(command, cwd=tmp_path, check=True)


SYSTEMS = [  # and the instruction that multiplies and adds vectors there
    ("x86_64-windows-gnu", "AVX2", "vfmadd"),
    ("x86_64-windows-gnu", "AVX512", "zmm"),
    ("x86_64-macos", "AVX2", "vfmadd"),
    ("aarch64-macos", "DEFAULT", "fmla.4s"),
    ("aarch64-linux-gnu", "DEFAULT", "fmla\tv"),
]


def for_system(system: str, processor: str) -> list[str]:
    """Return the command that compiles with ziglang for another system and processor."""
    flags = [*compile_c.COMPILE, *compile_c.PROCESSOR.get(processor, [])]
    return [*compile_c.ZIG, "-target", system, *flags]


@needs_zig
@pytest.mark.parametrize("system, processor, instruction", SYSTEMS)
def test_the_decoder_compiles_for_other_systems(
    system: str, processor: str, instruction: str, tmp_path: Path
) -> None:
    """The result has vector instructions (NEON on ARM). It is compiled here, but not run."""
    made, command = tmp_path / "cpu.s", for_system(system, processor)
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(tmp_path)} | os.environ
    subprocess.run([*command, "-S", CPU_C, "-o", made], check=True, env=environment)
    assert instruction in made.read_text(errors="replace")  # comments of its debug data


@needs_zig
@pytest.mark.slow
@pytest.mark.parametrize("system, processor", [names[:2] for names in SYSTEMS])
def test_the_decoder_is_linked_for_other_systems(
    system: str, processor: str, tmp_path: Path
) -> None:
    """The library exports the functions that Python calls. It is not loaded, but read here."""
    made = tmp_path / "made.so"
    compile_c._compile(for_system(system, processor), CPU_C, made)
    assert all(name in made.read_bytes() for name in (b"product", b"step", b"workspace_size"))


@needs_compiler
@pytest.mark.skipif(os.name == "nt", reason="the compilers here are shell scripts")
def test_a_compiler_without_openmp_compiles_for_one_thread(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Apple's compiler has no OpenMP. The next process does not try it again."""
    log = source.with_name("calls")
    if compile_c._is_zig(found := next(compile_c._commands())):
        pytest.skip("ziglang is the only compiler here, and has no OpenMP anyway")
    command = found[0]
    monkeypatch.setenv(
        "CC",
        compiler(
            source.parent,
            f'echo >> "{log}"; case "$*" in *-fopenmp*) exit 1;; esac\nexec {command} "$@"',
        ),
    )
    library = compile_c.compiled(source)
    assert answer(library) == 42 and library is not None and library.threads() == 0
    calls = log.read_text()
    assert answer(compile_c.compiled(source)) == 42 and log.read_text() == calls
    assert capfd.readouterr().err.count("compiled code.c") == 1
