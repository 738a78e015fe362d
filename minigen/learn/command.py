"""Learn minigen by writing its functions: `python -m minigen learn`.

python -m minigen learn                       # the exercises, in the order of the lesson
python -m minigen learn attention             # write learn/attention.py, with a hole
python -m minigen learn attention --check     # what holds of your function, and what does not
python -m minigen learn --train               # train a model with your functions
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from minigen.cli import parse
from minigen.errors import POSITIVE, UserError, check_range
from minigen.learn import blank
from minigen.learn.progress import PASSED, Progress, digest
from minigen.system.shell import ROOT, command, install, is_checkout


@dataclass(frozen=True)
class LearnConfig:
    """Learn minigen by writing its functions. Without a word, the exercises are listed.

    The name of an exercise writes a copy of a file of minigen, in which the body of one function is
    blank. Write that function, then check it: its tests are those of minigen.
    """

    name: Positional[str] = ""  # the exercise (default: with a switch, the one begun last)
    check: bool = False  # say what holds of the function, and what does not
    hint: bool = False  # print the next hint
    solution: bool = False  # print minigen's own function
    # train a small model on tales with all functions that passed, in place of minigen's
    train: bool = False
    minutes: float = 1.0  # minutes to train with --train
    seconds: float = 30.0  # time limit of a check, for a loop that never ends
    folder: Path = Path("learn")  # where the exercises and the progress are


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if a check finds a fault."""
    config = parse(LearnConfig, argv)
    switches = [name for name in ("check", "hint", "solution", "train") if getattr(config, name)]
    if len(switches) > 1:
        raise UserError(f"--{switches[0]} and --{switches[1]} are two commands; give one of them")
    check_range("--seconds", config.seconds, POSITIVE, 86400)
    check_range("--minutes", config.minutes, POSITIVE)
    for name, switch in (("seconds", "check"), ("minutes", "train")):
        is_given = getattr(config, name) != getattr(LearnConfig, name)
        if is_given and not getattr(config, switch):
            raise UserError(f"--{name} is for --{switch}; leave it out")
    if config.train and config.name:
        raise UserError("--train takes all functions that passed; leave the exercise's name out")
    if not (is_checkout() and (ROOT / "tests").is_dir()):
        raise UserError(
            "the course needs a clone of minigen's repository, because its tests check the "
            "exercises; clone it, and run this command there"
        )
    progress = Progress.load(config.folder)
    name = config.name or progress.last
    if config.train:
        from minigen.learn.reward import train  # imported here, because it imports PyTorch

        return train(config, progress)
    if not switches:
        begin(config, progress) if config.name else show_list(config, progress)
        return 0
    if not name:
        raise UserError(f"no exercise was begun yet; {command('learn')} lists them")
    if config.check:
        return check(config, progress, name)
    if config.hint:
        show_hint(config, progress, name)
    else:
        show_solution(name)
    return 0


def call(config: LearnConfig, *words: str) -> str:
    """Return a command line of the course with the same folder."""
    if config.folder == LearnConfig.folder:
        return command("learn", *words)
    return command("learn", *words, "--folder", str(config.folder))


def file_of(config: LearnConfig, name: str) -> Path:
    """Return the learner's file for an exercise."""
    return config.folder / f"{name}.py"


def show_list(config: LearnConfig, progress: Progress) -> None:
    """Print the exercises in the order of the lesson, and the next command."""
    from minigen.learn.course import EXERCISES

    print("Write these functions of minigen yourself:\n")
    todo = list[str]()
    for exercise in EXERCISES:
        path, note = file_of(config, exercise.name), ""
        is_passed = progress.is_passed(exercise.name, path)
        if not is_passed:
            todo.append(exercise.name)
            if path.is_file():
                changed = exercise.name in progress.passed
                note = "  (changed since it passed: check it again)" if changed else "  (begun)"
        print(f"  [{'x' if is_passed else ' '}] {exercise.name:14}{exercise.title}{note}")
    following = progress.last if progress.last in todo else next(iter(todo), None)
    print()
    if following is None:
        print(f"All are done. Train a model with your functions: {call(config, '--train')}")
    elif file_of(config, following).is_file():
        print(f"Next: write the function, then check it: {call(config, following, '--check')}")
    else:
        print(f"Next: {call(config, following)}")


def begin(config: LearnConfig, progress: Progress) -> None:
    """Write the file of an exercise, unless it exists; print the task."""
    from minigen.learn.course import find
    from minigen.learn.words import say

    exercise, path = find(config.name), file_of(config, config.name)
    copy, line = blank.blank(exercise.file.read_bytes(), exercise.qualname)
    is_new = not path.exists()
    if is_new:
        try:
            config.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(copy)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; give --folder") from None
    progress.last = exercise.name
    progress.save(config.folder)
    original = exercise.file.relative_to(ROOT).as_posix()
    print(f"{exercise.title}\n")
    say(exercise.task)
    print()
    if is_new:
        print(f"Write {exercise.qualname} in {path}, line {line}; its docstring says more.")
        print(f"The rest of that file is a copy of {original}, to read.")
    else:
        print(f"{path} exists and stays as it is; to begin anew, delete or rename it.")
    print(f"Then check your function: {call(config, exercise.name, '--check')}")
    print(f"If you are stuck:         {call(config, exercise.name, '--hint')}")


def show_hint(config: LearnConfig, progress: Progress, name: str) -> None:
    """Print the next hint of an exercise; after the last one, the first again."""
    from minigen.learn.course import find
    from minigen.learn.words import say

    hints = find(name).hints
    number = progress.hints.get(name, 0) % len(hints)
    say(f"Hint {number + 1} of {len(hints)}: {hints[number]}")
    if number + 1 == len(hints):
        print(f"This was the last hint. minigen's own code: {call(config, name, '--solution')}")
    progress.hints[name] = number + 1
    progress.save(config.folder)


def show_solution(name: str) -> None:
    """Print minigen's own function of an exercise, with its file and line."""
    from minigen.learn.course import find

    exercise = find(name)
    source = exercise.file.read_bytes()
    place = blank.find(source, exercise.qualname)
    assert place is not None
    lines = source.decode("utf-8").splitlines()[place.begin - 1 : place.end]
    print(f"{exercise.file.relative_to(ROOT).as_posix()}, line {place.begin}:\n")
    print(textwrap.dedent("\n".join(lines)))


# ---- the check, in a process of its own ----


def check(config: LearnConfig, progress: Progress, name: str) -> int:
    """Check the learner's function in another process; return 0 if it passes, else 1.

    This process imports no PyTorch, and lives on if the learner's code never ends.

    Raises `UserError` if there is no such exercise, no file to check, or no pytest.
    """
    path = file_of(config, name)
    if not path.is_file():
        from minigen.learn.course import find  # imported here only, because it imports PyTorch

        find(name)
        raise UserError(f"there is no {path} to check; write it: {call(config, name)}")
    if importlib.util.find_spec("pytest") is None:
        raise UserError(f"the check runs tests with pytest, which is missing: {install('dev')}")
    checked = digest(path)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis"),  # not in the learner's folder
    }  # fmt: skip
    words = [sys.executable, "-m", "minigen.learn.check", name, str(path), str(config.seconds)]
    sys.stdout.flush()
    done = subprocess.run(words, env=environment, stderr=subprocess.PIPE, errors="replace")
    if done.returncode == 2 and done.stderr:  # the other process has said why
        sys.stderr.write(done.stderr)
        return 2
    if done.stderr.startswith("Timeout ("):
        explain_timeout(config, done.stderr, path)
    else:
        sys.stderr.write(done.stderr)
    if done.returncode < 0:
        print(f"Your code has ended Python itself, by signal {-done.returncode}.")
    elif done.returncode not in (1, PASSED):
        print(f"Your code has ended Python itself, with exit code {done.returncode}.")
    if done.returncode == PASSED:
        progress.passed[name] = checked
        print(f"Passed. minigen's own code: {call(config, name, '--solution')}")
        print(f"The next exercise is in the list: {call(config)}")
    else:
        progress.passed.pop(name, None)
        print(f"Not passed yet. A hint: {call(config, name, '--hint')}")
    progress.last = name
    progress.save(config.folder)
    return int(done.returncode != PASSED)


def explain_timeout(config: LearnConfig, trace: str, path: Path) -> None:
    """Print that the code did not end, with the line of the learner's file that was running.

    Args:
        trace: the lines that `faulthandler` writes, the innermost call first.
    """
    place = re.search(rf'File "{re.escape(os.path.abspath(path))}", line (\d+) in', trace)
    where = (
        f"line {place[1]} of {path} was running" if place else "no line of your file was running"
    )
    print(f"The check did not end within {config.seconds:g} seconds: {where}.")
    print("Perhaps a loop in it never ends; --seconds gives more time.")
