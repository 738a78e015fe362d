"""Take the learner's function out of the learner's file, and set it in the place of minigen's.

The file is a copy of a file of minigen, so it has copies of all its classes, too. They must not be
told apart from minigen's own: a method of the learner's `RMSNorm` gets an object of minigen's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from minigen.errors import UserError
from minigen.learn import blank
from minigen.learn.exercise import AnyFunction, Exercise, find

PACKAGES = ("minigen", "minigen_train", "train")  # the second: train.py in `minigen.train`


class Fault(Exception):
    """A fault in the learner's file, in plain words."""


def read(path: Path) -> bytes:
    """Return the source of the learner's file. Raises `UserError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable") from None


def load(exercise: Exercise, path: Path) -> AnyFunction:
    """Return the learner's function, ready to stand in the place of minigen's.

    Raises `Fault` if the file cannot be imported, if it lacks the function, and if the function has
    other parameters than minigen's.
    """
    source = read(path)
    try:
        is_there = blank.find(source, exercise.qualname) is not None
    except SyntaxError as error:
        raise _no_python(path, error) from None
    except ValueError as error:  # a zero byte
        raise Fault(f"{path} is no Python: {error}") from None
    if not is_there:
        raise Fault(
            f"{path} has no function {exercise.qualname} any more; write it there again, or delete "
            "the file and begin anew"
        )
    try:
        module = _imported(f"learner_{exercise.name}", path)
        function: AnyFunction = attrgetter(exercise.qualname)(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError) and error.filename == str(path.absolute()):
            raise _no_python(path, error) from None  # which an import finds, and a parser does not
        raise Fault(explain(error, path) or f"{path} cannot be imported: {error!r}") from None
    _check_signature(exercise, function, path)
    _unite_classes(exercise, module, function)
    return function


def _no_python(path: Path, error: SyntaxError) -> Fault:
    """Return the fault of a file that Python cannot read, with the line."""
    line = f"{path}, line {error.lineno}" if error.lineno else str(path)
    code = f"\n    {error.text.strip()}" if error.text else ""
    return Fault(f"{line} is no Python: {error.msg}{code}")


def _imported(name: str, path: Path) -> ModuleType:
    """Import a file by its path, as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its module up
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def _check_signature(exercise: Exercise, function: AnyFunction, path: Path) -> None:
    """Raise `Fault` if the parameters differ from those of minigen's function."""

    def parameters(one: AnyFunction) -> list[tuple[str, Any, bool]]:
        found = inspect.signature(one).parameters.values()
        return [(p.name, p.kind, p.default is p.empty) for p in found]

    right = exercise.solution()
    if not callable(function) or parameters(function) != parameters(right):
        names = ", ".join(
            name if is_required else f"{name}={inspect.signature(right).parameters[name].default}"
            for name, _, is_required in parameters(right)
        )
        raise Fault(
            f"{path}: {exercise.qualname} has other parameters than those of minigen: ({names})"
        )


def _unite_classes(exercise: Exercise, module: ModuleType, function: AnyFunction) -> None:
    """Let the learner's code mean minigen's classes where it names copies of them.

    A cell `__class__`, which `super()` without arguments reads, is changed, too.
    """
    owner, _ = find(exercise.target)
    own = importlib.import_module(exercise.module)
    for name, value in list(vars(module).items()):
        is_copy = isinstance(value, type) and value.__module__ == module.__name__
        if is_copy and isinstance(vars(own).get(name), type):
            setattr(module, name, vars(own)[name])
    inner = inspect.unwrap(function)
    for name, cell in zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True):
        if name == "__class__":
            cell.cell_contents = owner


@contextlib.contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Set an attribute, and put the former one back at the end."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


@contextlib.contextmanager
def in_place(exercise: Exercise, function: AnyFunction) -> Iterator[None]:
    """Set a function at the exercise's target, and put minigen's own back at the end."""
    right = exercise.solution()
    _replace(exercise, right, function)
    try:
        yield
    finally:
        _replace(exercise, function, right)


def _replace(exercise: Exercise, old: AnyFunction, new: AnyFunction) -> None:
    """Replace a function in its class, or in its module and in all that have imported it."""
    owner, name = find(exercise.target)
    if isinstance(owner, type):
        setattr(owner, name, new)
        return
    for each in [one for one in sys.modules.values() if one is not None]:
        package, _, rest = each.__name__.partition(".")
        is_own = package in PACKAGES and not rest.startswith("learn.")  # whose mistakes stay
        if is_own and vars(each).get(name) is old:
            setattr(each, name, new)


# ---- the words for an error ----


def explain(error: BaseException, path: Path) -> str | None:
    """Return the words for an error that passed through the learner's file; None for any other.

    Args:
        path: the learner's file.
    """
    file, frames = os.path.abspath(path), traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == file]
    if not lines:
        return None
    place = f"{path}, line {lines[-1]}"
    if type(error) is NotImplementedError and not error.args:
        return f"{place}: the body is still blank; write it in place of `{blank.STATEMENT}`"
    return f"{place}: {error_in_words(error)}\n    {linecache.getline(file, lines[-1]).strip()}"


def error_in_words(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
