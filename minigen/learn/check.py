"""Check a function of the learner: `python -m minigen.learn.check NAME FILE SECONDS`.

`minigen learn NAME --check` starts this in a process of its own. If the learner's code does not end
within the time limit, the process ends itself, and writes the line that was running to stderr.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import inspect
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from minigen.learn import course
from minigen.learn.exercise import AnyFunction, Exercise, Mistake, Theorem, same
from minigen.learn.learner import Fault, error_in_words, explain, in_place, load
from minigen.learn.progress import PASSED
from minigen.learn.words import described, difference, say
from minigen.system.shell import ROOT
from minigen.system.streams import one_line_errors


def main(name: str, file: str, seconds: str) -> int:
    """Print what holds of the learner's function; return PASSED if everything does, else 1.

    Args:
        name: of the exercise.
        file: of the learner.
        seconds: the time limit.
    """
    exercise, path = course.find(name), Path(file)
    right = exercise.trial(exercise.solution())
    print(f"{name}: {exercise.qualname} in {path}")
    try:
        with limited(float(seconds)):
            function = load(exercise, path)
            result = attempt(exercise, function, path)
            mistake = find_mistake(exercise, result)
            if mistake is not None:
                say(f"A mistake that many make at first: {mistake.words}.")
            with in_place(exercise, function):
                failed = [*failed_theorems(exercise, path)]
    except Fault as fault:
        print(fault)
        return 1
    is_right = same(result, right)
    if not is_right and mistake is None:
        say(f"On a fixed input your function computes another result: {difference(result, right)}.")
        place = inspect.getsourcefile(exercise.trial), inspect.getsourcelines(exercise.trial)[1]
        print(f"That input is made in {os.path.relpath(str(place[0]), ROOT)}, line {place[1]}.")
    if is_right and failed:
        say("On a fixed input your function computes the result of minigen's, so it is wrong for "
            "other inputs only; the theorems that do not hold say for which.")  # fmt: skip
    elif is_right:
        print("Everything holds, and your function computes the same as minigen's.")
    elif not failed:
        say("All theorems hold, but as the result differs, the exercise is not passed.")
    return 1 if failed or not is_right else PASSED


def find_mistake(exercise: Exercise, result: Any) -> Mistake | None:
    """Return the mistake with the same result of the trial; None if no mistake has it."""
    for mistake in exercise.mistakes:
        if same(result, exercise.trial(mistake.function)):
            return mistake
    return None


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End this process after a number of seconds, with the lines that it ran on stderr."""
    sys.stdout.flush()  # nothing is lost at the sudden end
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def attempt(exercise: Exercise, function: AnyFunction, path: Path) -> Any:
    """Return the result of the exercise's trial with the learner's function.

    Raises `Fault` if the function raises an error, or returns something that the trial cannot take.
    """
    returned = list[Any]()

    @functools.wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        returned[:] = [function(*args, **kwargs)]
        return returned[0]

    try:
        return exercise.trial(recorded)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        words = explain(error, path)
        if words is None:
            result = described(returned[0]) if returned else "nothing yet"
            words = (
                f"{path}: minigen cannot use the result of {exercise.qualname}, which is "
                f"{result}: {error_in_words(error)}"
            )
        raise Fault(words) from None


# ---- the theorems ----


def failed_theorems(exercise: Exercise, path: Path) -> Iterator[Theorem]:
    """Run the tests of an exercise, print a line for each theorem, and yield those that fail."""
    errors_of = run_tests([theorem.test for theorem in exercise.theorems])
    for theorem in exercise.theorems:
        # A test with parameters is run for each of them, unless the theorem names one.
        runs = [n for n in errors_of if theorem.test in (n, n.partition("[")[0])]
        errors = [error for n in runs for error in errors_of[n]]
        if not runs:
            say(f"  not checked    {theorem.holds}: pytest has not run {theorem.test}", 17)
            yield theorem
        elif not errors:
            say(f"  holds          {theorem.holds}", 17)
        elif isinstance(errors[0], pytest.skip.Exception):
            say(f"  not checked    {theorem.holds}: {errors[0]}", 17)
        else:
            say(f"  does not hold  {theorem.holds}: {theorem.otherwise}", 17)
            print(f"{'':17}The test: {theorem.test}")
            if words := explain(errors[0], path):
                print(words)
            yield theorem


def run_tests(places: Sequence[str]) -> dict[str, list[BaseException]]:
    """Run tests of the project in this process; return the errors of each that was run.

    Args:
        places: such as "tests/test_model.py::test_scores_keep_their_size", with all its parameters.
    """
    watch = Watch()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # no import of plugins that no test needs
    os.environ.pop("PYTEST_ADDOPTS", None)
    # -o addopts: in this process, and no processes beside it. No terminal: the lines are ours.
    flags = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-o", "addopts="]
    for plugin in ("cacheprovider", "terminal", "faulthandler"):  # the last has a limit of its own
        flags += ["-p", f"no:{plugin}"]
    with contextlib.redirect_stderr(io.StringIO()):  # pytest names there a test that does not exist
        pytest.main([*flags, *(str(ROOT / place) for place in places)], plugins=[watch])
    return watch.errors_of


class Watch:
    """A plugin of pytest that records the errors of each test."""

    def __init__(self) -> None:
        self.errors_of: dict[str, list[BaseException]] = {}

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Record that a test has run, and its error: of its set-up, its call or its end."""
        errors = self.errors_of.setdefault(item.nodeid, [])
        if call.excinfo is not None:
            errors.append(call.excinfo.value)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main(*sys.argv[1:]))
