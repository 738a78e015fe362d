"""The course: a learner writes a function of minigen, and hears in plain words what holds of it."""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forks import ROOT, Server

from minigen import inspect as inspection
from minigen import model as lesson
from minigen.corpora import tales
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.learn import blank, command, course
from minigen.learn import check as check_module
from minigen.learn.exercise import Exercise, Theorem, same
from minigen.learn.learner import Fault, in_place, load
from minigen.learn.progress import PASSED, Progress, digest
from minigen.model import GPTConfig, KVCache, RMSNorm

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
               "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis")}  # fmt: skip
HOLE = f"    {blank.COMMENT}\n    {blank.STATEMENT}\n"

per_exercise = pytest.mark.parametrize("exercise", course.EXERCISES, ids=lambda one: one.name)

Learn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def learn(server: Server, tmp_path: Path) -> Learn:
    """Return a function that runs `python -m minigen learn` in an empty folder."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = server.python("-m", "minigen", "learn", *words, cwd=tmp_path, env=ENVIRONMENT)
        own = r"(?:env \S+ )?\S*python\S* -m minigen"  # this Python, as the shell finds it
        for stream in ("stdout", "stderr"):
            shown = re.sub(own, "python -m minigen", getattr(done, stream))
            setattr(done, stream, shown)
        return done

    return run


@pytest.fixture
def check(server: Server, tmp_path: Path) -> Callable[[str, str], tuple[int, str]]:
    """Return a function that checks an answer to the exercise `attention`, without a new process.

    Its arguments are the body of `naive_weights`, and text in place of its first line.
    """

    def run(body: str, first: str = "") -> tuple[int, str]:
        exercise = course.find("attention")
        copy, _ = blank.blank(exercise.file.read_bytes(), exercise.qualname)
        text = copy.decode().replace(HOLE, "".join(f"    {line}\n" for line in body.split("\n")))
        if first:
            text = re.sub(r"def naive_weights\(.*", first, text)
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        done = server.python(
            "-m", "minigen.learn.check", "attention", "mine.py", "60", cwd=tmp_path, env=ENVIRONMENT
        )
        return done.returncode, done.stdout + done.stderr

    return run


def answer(folder: Path, exercise: Exercise, source: bytes) -> None:
    """Write the learner's file of an exercise."""
    folder.mkdir(exist_ok=True)
    (folder / f"{exercise.name}.py").write_bytes(source)


# ---- the whole way of a learner ----


def test_the_way_of_a_learner(learn: Learn, tmp_path: Path) -> None:
    """A learner finds an exercise, writes the function, and passes; a mark holds for one answer.

    The blank file does not pass. After a change that breaks it, the next check takes the mark away.
    """
    exercise = course.find("attention")
    name, path = exercise.name, tmp_path / "learn" / f"{exercise.name}.py"
    shown = learn()
    assert shown.returncode == 0
    assert shown.stdout.endswith(f"Next: python -m minigen learn {course.EXERCISES[0].name}\n")
    assert f"  [ ] {name} " in shown.stdout
    begun = learn(name)
    line = int(re.findall(rf"{exercise.qualname} in learn/{name}.py, line (\d+)", begun.stdout)[0])
    copy = path.read_bytes()
    assert copy.decode().splitlines()[line - 1].strip() == blank.COMMENT
    assert f"python -m minigen learn {name} --check" in begun.stdout

    assert learn().stdout.endswith(f"then check it: python -m minigen learn {name} --check\n")

    done = learn("--check")  # the exercise begun last
    assert done.returncode == 1
    assert f"learn/{name}.py, line {line + 1}: the body is still blank" in done.stdout

    path.write_bytes(exercise.file.read_bytes())
    done = learn("--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Passed. minigen's own code: python -m minigen learn {name} --solution" in done.stdout
    assert f"[x] {name} " in learn().stdout

    path.write_bytes(copy)
    assert "changed since it passed" in learn().stdout
    assert learn(name, "--check").returncode == 1
    assert Progress.load(tmp_path / "learn") == Progress({}, name, {})


def test_a_learners_file_is_never_overwritten(learn: Learn, tmp_path: Path) -> None:
    """The command for an exercise that was begun leaves the file, and says how to begin anew."""
    (tmp_path / "learn").mkdir()
    (tmp_path / "learn" / "attention.py").write_text("mine = 1\n")
    done = learn("attention")
    assert "learn/attention.py exists and stays as it is; to begin anew, delete" in done.stdout
    assert (tmp_path / "learn" / "attention.py").read_text() == "mine = 1\n"


def test_each_hint_says_the_next(learn: Learn) -> None:
    """`--hint` shows the hints one after the other, then again; the last one names --solution."""
    hints = course.find("attention").hints
    for number in [*range(len(hints)), 0]:
        shown = learn("attention", "--hint").stdout
        assert f"Hint {number + 1} of 3: {hints[number]}" in " ".join(shown.split())
        assert ("--solution" in shown) == (number == len(hints) - 1)


def test_the_solution_is_the_function_that_minigen_runs(learn: Learn) -> None:
    """`--solution` prints the function with its file and line."""
    shown = learn("attention", "--solution").stdout
    place, _, source = shown.partition(":\n\n")
    file, line = place.split(", line ")
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    assert source.splitlines() == lines[int(line) - 1 :][: len(source.splitlines())]
    assert source.startswith("def naive_weights(") and source.endswith("return weights\n")


def test_the_progress_is_kept_with_the_files(learn: Learn, tmp_path: Path) -> None:
    """With --folder, files and progress are there, and printed commands name the folder."""
    assert "learn attention --check --folder mine" in learn("attention", "--folder", "mine").stdout
    learn("--hint", "--folder", "mine")
    assert Progress.load(tmp_path / "mine") == Progress({}, "attention", {"attention": 1})
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "attention.py", "progress.json",
    ]  # fmt: skip
    assert not (tmp_path / "learn").exists()


# ---- a check in plain words ----


def test_a_right_answer_may_look_different(check: Callable[..., tuple[int, str]]) -> None:
    """An answer that computes the same numbers by other operations passes."""
    code, shown = check(
        "if mask is None:\n"
        "    t, s = torch.arange(q.shape[-2]), torch.arange(k.shape[-2])\n"
        "    mask = s <= t[:, None]\n"
        'scores = torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(q.shape[-1])\n'
        "exps = scores.exp() * mask\n"
        "return exps / exps.sum(-1, keepdim=True)"
    )
    assert "Everything holds" in shown
    assert code == PASSED


def test_a_known_mistake_is_explained(check: Callable[..., tuple[int, str]]) -> None:
    """An answer that makes a mistake of the exercise gets the words of that mistake."""
    mistake = course.find("attention").mistakes[0]
    code, shown = check("scale = 1.0\n" + SCALED)
    assert mistake.words in " ".join(shown.split())
    assert "does not hold  Scores have the same size for heads of any width D" in shown
    assert code == 1


def test_a_loss_that_is_nan_is_explained_for_both_its_causes() -> None:
    """A sum over ln 0 times a mask is NaN as inf / inf is, so the words name both causes."""

    def masked(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        is_scored = targets >= 0
        p = logits.float().softmax(-1).gather(-1, (targets * is_scored)[..., None])[..., 0]
        return -(p.log() * is_scored).sum()

    exercise = course.find("loss")
    mistake = check_module.find_mistake(exercise, exercise.trial(masked))
    assert mistake is not None
    assert "inf / inf is NaN" in mistake.words and "inf * 0 is NaN" in mistake.words


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return (q @ k.mT", r"line \d+ is no Python: '\(' was never closed return \(q @ k.mT"),
        ("break", r"line \d+ is no Python: 'break' outside loop break"),
        ("return q @ keys", r"line \d+: NameError: name 'keys' is not defined return q @ keys"),
        ("return naive_weights(q, k)", r"line \d+: RecursionError: "),
        ("exit(3)", r"line \d+: SystemExit: 3 exit\(3\)"),
        ("scores = q @ k.mT", r"gives None \(is there a `return`\?\) and minigen a tensor of"),
        ("return q[0]", r"a tensor of shape \(2, 5, 4\) and minigen a tensor of shape \(1, 2"),
        ("pass\nraise NotImplementedError", r"line \d+: the body is still blank"),
    ],
)
def test_a_fault_is_said_with_the_learners_line(
    check: Callable[..., tuple[int, str]], tmp_path: Path, body: str, said: str
) -> None:
    """A fault of the answer is plain words with the line in the learner's file; no traceback."""
    code, shown = check(body)
    assert re.search(said, " ".join(shown.split())), shown
    if place := re.search(r"mine\.py, line (\d+)", shown):
        line = (tmp_path / "mine.py").read_text(encoding="utf-8").splitlines()[int(place[1]) - 1]
        assert line.strip() in body
    assert "Traceback" not in shown
    assert code == 1


def test_other_parameters_are_refused(check: Callable[..., tuple[int, str]]) -> None:
    """A function with another signature is refused with the parameters that it must have."""
    code, shown = check("return q", "def naive_weights(q: Tensor, k: Tensor) -> Tensor:")
    said = "naive_weights has other parameters than those of minigen: (q, k, mask=None)"
    assert said in shown
    assert code == 1


def test_a_function_that_is_gone_is_missed(check: Callable[..., tuple[int, str]]) -> None:
    """If the function has another name, the check says which name it looks for."""
    code, shown = check("return q", "def my_weights(q: Tensor, k: Tensor) -> Tensor:")
    assert "mine.py has no function naive_weights any more" in shown
    assert code == 1


def test_another_result_is_shown_with_its_place(check: Callable[..., tuple[int, str]]) -> None:
    """A wrong answer that is no known mistake is shown with the first number that differs."""
    code, shown = check("return torch.zeros(*q.shape[:-1], k.shape[-2])")
    assert "in entry 0 at [0, 0, 0, 0] it gives 0 and minigen 1." in " ".join(shown.split())
    assert code == 1


def test_right_on_the_trial_only_is_not_right(check: Callable[..., tuple[int, str]]) -> None:
    """An answer that is right for one input is not passed, and the check says what was compared."""
    code, shown = check("scale = 0.5 if q.shape[-1] == 4 else 1.0\n" + SCALED)
    assert "does not hold  Scores have the same size for heads of any width D" in shown
    assert "so it is wrong for other inputs only" in " ".join(shown.split())
    assert code == 1


def test_wrong_on_the_trial_only_is_not_right(check: Callable[..., tuple[int, str]]) -> None:
    """An answer for which all theorems hold is not passed if another result differs."""
    code, shown = check(
        "scale = q.shape[-1] ** -0.5 * (1 + 1e-3 * (q.shape[-2:] == (5, 4)))\n" + SCALED
    )
    said = " ".join(shown.split())
    assert "does not hold" not in said
    assert "On a fixed input your function computes another result: in entry 0 at [" in said
    assert "All theorems hold, but as the result differs, the exercise is not passed." in said
    assert code == 1


SCALED = """\
if mask is None:
    mask = torch.ones(q.shape[-2], k.shape[-2]).tril().bool()
return (scale * q @ k.mT).masked_fill(~mask, -math.inf).softmax(-1)"""


def test_a_loop_that_never_ends_is_one_sentence(learn: Learn, tmp_path: Path) -> None:
    """A check ends after --seconds, with the line that was running, and the exercise is open."""
    learn("attention")
    path = tmp_path / "learn" / "attention.py"
    text = path.read_text(encoding="utf-8").replace(blank.STATEMENT, "while True:\n        pass")
    path.write_text(text, encoding="utf-8")
    numbers = [n for n, line in enumerate(text.splitlines(), 1) if "while True" in line]
    done = learn("--check", "--seconds", "1")
    assert done.returncode == 1
    said = re.search(
        r"did not end within 1 seconds: line (\d+) of learn/attention\.py was", done.stdout
    )
    assert said and int(said[1]) in (numbers[0], numbers[0] + 1)
    assert done.stderr == ""


def test_an_answer_that_ends_python_has_not_passed(learn: Learn, tmp_path: Path) -> None:
    """An exit code that an answer chooses, 0 or that of wrong use, is no result of a check."""
    learn("attention")
    path = tmp_path / "learn" / "attention.py"
    text = path.read_text(encoding="utf-8")
    for code in (0, 2):
        end = f"import os; os._exit({code})"
        path.write_text(text.replace(blank.STATEMENT, end), encoding="utf-8")
        done = learn("--check")
        assert done.returncode == 1
        assert f"Your code has ended Python itself, with exit code {code}." in done.stdout
    assert Progress.load(tmp_path / "learn").passed == {}


def test_a_theorem_that_was_not_run_is_said_not_to_be_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test that is skipped, or missing, is no theorem that holds; only the latter is a fault."""
    theorems = (Theorem("a", "A holds", ""), Theorem("b", "B holds", ""))
    exercise = Exercise("", "", "minigen.model:heads", "", (), theorems, id, ())
    errors = {"a": [pytest.skip.Exception("no GPU")]}
    monkeypatch.setattr(check_module, "run_tests", lambda places: errors)
    assert [*check_module.failed_theorems(exercise, Path("mine.py"))] == [theorems[1]]
    shown = capsys.readouterr().out
    assert (
        "  not checked    A holds: no GPU\n  not checked    B holds: pytest has not run b" in shown
    )


def test_a_result_that_cannot_be_used_is_named() -> None:
    """If minigen fails with the result of the answer, the check says what the result is."""
    exercise = Exercise("", "", "minigen.model:heads", "", (), (), lambda f: f(1).shape, ())
    with pytest.raises(Fault, match=r"use the result of heads, which is None \(is there a `retur"):
        check_module.attempt(exercise, lambda x: None, Path("mine.py"))


# ---- wrong use ----


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["atention"], "there is no exercise 'atention'; did you mean attention?"),
        (["--check"], "no exercise was begun yet; python -m minigen learn lists them"),
        (["--hint", "--check"], "--check and --hint are two commands; give one of them"),
        (["attention", "--check"], "there is no learn/attention.py to check; write it: python -m"),
        (["atention", "--check"], "there is no exercise 'atention'; did you mean attention?"),
        (["--train"], "no exercise has passed yet; begin with python -m minigen learn"),
        (["--train", "--minutes", "0"], "--minutes is 0.0; give more than 0"),
        (["--check", "--seconds", "-1"], "--seconds is -1.0; give more than 0"),
        (["attention", "--seconds", "9"], "--seconds is for --check; leave it out"),
        (["attention", "--minutes", "9"], "--minutes is for --train; leave it out"),
        (["attention", "--train"], "--train takes all functions that passed; leave the exercise's"),
        (["attention", "--folder", "taken"], "cannot write taken/attention.py: "),
    ],
)
def test_wrong_use_is_one_line(learn: Learn, tmp_path: Path, words: list[str], said: str) -> None:
    """What a learner can do wrong gives one line on stderr that says how to mend it, and code 2."""
    (tmp_path / "taken").touch()
    done = learn(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"passed": {"a": 1}, "last": "", "hints": {}}',
        '{"passed": {}, "last": null, "hints": {}}',
    ],
)
def test_a_damaged_progress_is_one_line(learn: Learn, tmp_path: Path, text: str) -> None:
    """A progress.json that is not the course's is refused by name, and stays."""
    (tmp_path / "learn").mkdir()
    (tmp_path / "learn" / "progress.json").write_text(text)
    done = learn()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: learn/progress.json is damaged; delete it: ")
    assert (tmp_path / "learn" / "progress.json").read_text() == text


def test_without_the_tests_there_is_no_course(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where minigen is installed without its repository, one line says that a clone is needed."""
    monkeypatch.setattr(command, "ROOT", tmp_path)
    with pytest.raises(UserError, match="the course needs a clone of minigen's repository"):
        command.main([])


def test_without_pytest_a_check_names_the_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without pytest, a check is one line with the command that installs it."""
    monkeypatch.chdir(tmp_path)
    answer(tmp_path / "learn", course.find("attention"), b"")
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pytest, which is missing: .*pip install.*\[dev\]"):
        command.main(["attention", "--check"])


def test_the_process_that_waits_for_a_check_imports_no_pytorch() -> None:
    """The command itself loads no PyTorch, so that a check takes the time of one import."""
    code = "import sys, minigen.learn.command; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout == "False\n"


# ---- the learner's function in minigen's place ----


def test_a_method_with_super_works_in_minigens_class(tmp_path: Path) -> None:
    """A method that calls `super()` without arguments, and names its class, works."""
    exercise = Exercise("norm", "", "minigen.model:RMSNorm.__init__", "", (), (), id, ())
    source = exercise.file.read_text(encoding="utf-8")
    body = "        super().__init__()\n        self.weight = nn.Parameter(torch.ones(width))  #"
    assert body in source
    changed = body.replace("super().__init__()", "super().__init__()\n        RMSNorm.mine = True")
    (tmp_path / "norm.py").write_text(source.replace(body, changed), encoding="utf-8")
    own = RMSNorm.__init__
    with in_place(exercise, load(exercise, tmp_path / "norm.py")):
        norm = RMSNorm(4, 1e-5)
    assert norm(torch.ones(4)).shape == (4,)
    assert RMSNorm.__init__ is own
    assert vars(RMSNorm)["mine"]  # minigen's class, not the copy in the learner's file
    del RMSNorm.mine


def test_a_copy_of_a_class_is_minigens_class(tmp_path: Path) -> None:
    """An answer that asks `isinstance(self, KVCache)` means the class that minigen uses."""
    exercise = Exercise("mask", "", "minigen.model:KVCache.mask", "", (), (), id, ())
    copy, _ = blank.blank(exercise.file.read_bytes(), exercise.qualname)
    mine = copy.replace(blank.STATEMENT.encode(), b"return isinstance(self, KVCache)")
    (tmp_path / "mask.py").write_bytes(mine)
    with in_place(exercise, load(exercise, tmp_path / "mask.py")):
        assert KVCache(GPTConfig.modern(9), 1, 1).mask(torch.zeros(1, 1), 1) is True


def test_a_file_that_cannot_be_imported_is_a_fault(tmp_path: Path) -> None:
    """An error outside the function is said with its line, too."""
    exercise = course.find("attention")
    (tmp_path / "mine.py").write_bytes(exercise.file.read_bytes() + b"\nsurprise\n")
    with pytest.raises(Fault, match=r"mine.py, line \d+: NameError: name 'surprise' is not"):
        load(exercise, tmp_path / "mine.py")
    (tmp_path / "mine.py").write_bytes(exercise.file.read_bytes() + b"\nraise SystemExit(0)\n")
    with pytest.raises(Fault, match=r"mine.py, line \d+: SystemExit: 0"):
        load(exercise, tmp_path / "mine.py")


def test_the_function_is_put_into_all_modules_that_imported_it() -> None:
    """`in_place` reaches a module that has imported the function by its name, and puts it back."""
    exercise, own = course.find("attention"), lesson.naive_weights
    with in_place(exercise, max):
        assert lesson.naive_weights is max and inspection.naive_weights is max
    assert lesson.naive_weights is own and inspection.naive_weights is own


# ---- each exercise ----


def test_the_exercises_are_in_the_order_of_the_lesson() -> None:
    """The list of exercises follows the lesson, whatever module an exercise is in."""
    names = [exercise.name for exercise in course.EXERCISES]
    assert names == [name for name in course.ORDER if name in names]


@per_exercise
def test_a_blank_filled_with_minigens_code_is_minigens_file(exercise: Exercise) -> None:
    """A file with a hole differs from minigen's only in the body; signature and docstring stay."""
    source = exercise.file.read_bytes()
    copy, line = blank.blank(source, exercise.qualname)
    place = blank.find(source, exercise.qualname)
    assert place is not None and place.body == line
    body = b"".join(source.splitlines(keepends=True)[line - 1 : place.end])
    lines = copy.splitlines(keepends=True)
    assert b"".join([*lines[: line - 1], body, *lines[line + 1 :]]) == source
    # The hole comes right after the docstring or the signature, and no line of the body is left.
    assert lines[line - 2].partition(b"  # ")[0].rstrip().endswith((b'"""', b":"))
    [blanked] = [one for one in functions(copy) if one.lineno < line <= (one.end_lineno or 0)]
    kept = [ast.unparse(each) for each in blanked.body if not isinstance(each, ast.Expr)]
    assert kept == [blank.STATEMENT]
    for one, other in zip(functions(source), functions(copy), strict=True):
        assert ast.unparse(one.args) == ast.unparse(other.args)
        assert ast.get_docstring(one) == ast.get_docstring(other)


def functions(source: bytes) -> list[ast.FunctionDef]:
    """Return all functions of a file that are not inside another function."""
    tree = ast.parse(source)
    inner = [node for one in tree.body if isinstance(one, ast.ClassDef) for node in one.body]
    return [node for node in (*tree.body, *inner) if isinstance(node, ast.FunctionDef)]


@per_exercise
def test_each_mistake_is_told_from_all_others(exercise: Exercise) -> None:
    """A trial tells the right answer from each mistake, and the mistakes from each other."""
    everyone = [exercise.solution(), *(mistake.function for mistake in exercise.mistakes)]
    results = [exercise.trial(function) for function in everyone]
    assert same(results[0], exercise.trial(exercise.solution()))
    for one, other in itertools.combinations(range(len(results)), 2):
        assert not same(results[one], results[other]), (one, other)


@per_exercise
def test_an_exercise_is_complete(exercise: Exercise) -> None:
    """Each exercise has three hints and theorems; its texts are sentences, its theorems exist."""
    assert len(exercise.hints) == 3 and exercise.theorems and exercise.mistakes
    assert exercise.task.endswith(".")
    for mistake in exercise.mistakes:
        assert not mistake.words.endswith(".")  # the check ends the sentence
    for theorem in exercise.theorems:
        file, _, name = theorem.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


@per_exercise
def test_minigens_own_code_passes(exercise: Exercise, server: Server, tmp_path: Path) -> None:
    """minigen's own file passes the check, and every theorem is run."""
    code, shown = check_file(server, tmp_path, exercise, exercise.file.read_bytes())
    assert shown.count("\n  holds  ") == len(exercise.theorems), shown
    assert code == PASSED


def check_file(server: Server, folder: Path, exercise: Exercise, source: bytes) -> tuple[int, str]:
    """Check a file as the answer to an exercise; return the exit code and the output."""
    answer(folder, exercise, source)
    done = server.python(
        "-m", "minigen.learn.check", exercise.name, f"{exercise.name}.py", "60",
        cwd=folder, env=ENVIRONMENT,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@per_exercise
def test_each_mistake_is_named_and_breaks_a_theorem(
    exercise: Exercise, server: Server, tmp_path: Path
) -> None:
    """An answer with a mistake gets its words; a theorem fails; each theorem finds a mistake."""
    copy, _ = blank.blank(exercise.file.read_bytes(), exercise.qualname)
    found = set[str]()
    for number, mistake in enumerate(exercise.mistakes):
        words = ", ".join(inspect.signature(mistake.function).parameters)
        call = (
            "from minigen.learn import course; "
            f"return course.find({exercise.name!r}).mistakes[{number}].function({words})"
        )
        code, shown = check_file(
            server, tmp_path, exercise, copy.replace(blank.STATEMENT.encode(), call.encode())
        )
        said = " ".join(shown.split())
        assert f"A mistake that many make at first: {mistake.words}." in said, shown
        broken = {one.test for one in exercise.theorems if f"does not hold {one.holds}" in said}
        assert broken and code == 1, shown
        found |= broken
    assert found == {theorem.test for theorem in exercise.theorems}


# ---- the reward ----


def test_a_model_is_trained_with_the_learners_functions(
    learn: Learn, server: Server, tmp_path: Path
) -> None:
    """`--train` trains and writes with the learner's functions, which do the work; the run is good.

    Each function of the learner counts its own calls here, and the command prints the same numbers.
    minigen's own functions write the same text with the model.
    """
    folder = tmp_path / "learn"
    progress = Progress()
    for exercise in course.EXERCISES:
        source = exercise.file.read_bytes()
        place = blank.find(source, exercise.qualname)
        assert place is not None
        lines = source.splitlines(keepends=True)
        count = f"import pathlib; pathlib.Path('calls').open('a').write('{exercise.name}\\n')"
        lines.insert(place.body - 1, f"{place.indent}{count}\n".encode())
        answer(folder, exercise, b"".join(lines))
        progress.passed[exercise.name] = digest(folder / f"{exercise.name}.py")
    progress.save(folder)
    tales.write(folder / "data" / "tales", 60_000, 20_000)
    done = learn("--train", "--minutes", "0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    printed = dict(re.findall(r"^  (\w+) +[\w.]+: ([\d,]+)$", done.stdout, flags=re.M))
    counted = (tmp_path / "calls").read_text().split()
    names = {exercise.name for exercise in course.EXERCISES} - {"lora"}
    assert set(printed) == names
    assert "minigen's own functions write the same text with this model" in done.stdout
    for name in names:
        assert counted.count(name) == int(printed[name].replace(",", "")), name
    assert checkpoint.load_best(tmp_path / "out" / "learn").model().n_parameters() > 1000
    text = done.stdout.split("Written with them:\n\n")[1]
    assert text.startswith("hero: Sir Fox,")


def test_an_error_in_training_is_said_with_the_learners_line(learn: Learn, tmp_path: Path) -> None:
    """If a function of the learner fails in training, it is plain words, with the line."""
    exercise, folder = course.find("attention"), tmp_path / "learn"
    copy, line = blank.blank(exercise.file.read_bytes(), exercise.qualname)
    answer(folder, exercise, copy.replace(blank.STATEMENT.encode(), b"return q @ keys"))
    Progress({"attention": digest(folder / "attention.py")}, "attention", {}).save(folder)
    tales.write(folder / "data" / "tales", 60_000, 20_000)
    done = learn("--train", "--minutes", "0.1")
    assert done.returncode == 1
    assert f"learn/attention.py, line {line + 1}: NameError: name 'keys' is" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_function_that_was_changed_waits_for_its_check(learn: Learn, tmp_path: Path) -> None:
    """`--train` uses no function that was changed after its check."""
    exercise, folder = course.find("attention"), tmp_path / "learn"
    answer(folder, exercise, exercise.file.read_bytes())
    Progress({"attention": "0" * 64}, "attention", {}).save(folder)
    done = learn("--train")
    assert done.returncode == 2
    assert "attention was changed after its check" in done.stderr
    assert "no exercise has passed yet" in done.stderr
