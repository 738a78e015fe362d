"""docs/tour is true: its blocks print its numbers, its links lead to the lines that they name.

If a test of this file fails after a change of the code, run `python docs/tour/make.py`, and read
what it changed on the pages: a sentence beside a number may need the change, too.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import venv
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat import v4
from traitlets.config import Config

from minigen import __main__ as dispatcher
from sample import SampleConfig

ROOT = Path(__file__).parents[1]
MEND = "run: python docs/tour/make.py"


def load_make() -> ModuleType:
    """Import docs/tour/make.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs/tour/make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_make()
TEXTS = {page: page.read_text(encoding="utf-8") for page in make.PAGES}
INDEX = ROOT / "docs/tour/README.md"
each_page = pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)


# ---- the numbers ----

DECIMAL = re.compile(r"-?\d+\.\d+")


def agrees(printed: str, shown: str) -> bool:
    """Return whether two outputs agree: decimals within a tolerance, all else to the letter.

    The tolerance is 5 %, or 15 units of the last digit that is shown. Processors and versions of
    PyTorch add up in other orders, and a hundred steps of training enlarge the difference: weights
    that begin 10^-7 of their size away end within 5 units, 10^-6 away within 15. Blanks and bars
    follow from the numbers.
    """
    printed, shown = (re.sub("[█ \n]", "", text) for text in (printed, shown))
    if DECIMAL.sub("#", printed) != DECIMAL.sub("#", shown):
        return False
    pairs = zip(DECIMAL.findall(printed), DECIMAL.findall(shown), strict=True)
    return all(
        math.isclose(float(a), float(b), rel_tol=0.05, abs_tol=15 * 10.0 ** -len(b.split(".")[1]))
        for a, b in pairs
    )


def test_the_blocks_print_the_numbers_on_the_pages() -> None:
    """The notebook runs from top to bottom, and its cells print the outputs of the pages."""
    shown = [output for text in TEXTS.values() for output in make.outputs_of(text)]
    printed = make.run(nbformat.read(make.NOTEBOOK, as_version=4))
    for a, b in zip(printed, shown, strict=True):
        assert agrees(a, b), f"printed:\n{a}\non the page:\n{b}\n{MEND}"


@pytest.mark.parametrize(
    ("printed", "fits"),
    [("' red' 0.48 ███", True), ("' red'  0.51 ████", True), ("' red' 0.71 ███", False),
     ("' red' -0.48", False), ("' blue' 0.48", False), ("' red' 0.48 0.10", False)],
)  # fmt: skip
def test_decimals_may_differ_a_little_and_words_not_at_all(printed: str, fits: bool) -> None:
    """An output agrees with a page if its words are equal and its decimals are nearly equal."""
    assert agrees(printed, "' red' 0.48 ███\n") is fits


def test_the_notebook_is_made_from_the_pages() -> None:
    """docs/tour.ipynb has the words, the blocks and the outputs of the pages, and nothing else."""
    made = json.loads(nbformat.writes(make.make_notebook(list(TEXTS.values()))))
    saved = json.loads(make.NOTEBOOK.read_text(encoding="utf-8"))
    assert saved["cells"] == made["cells"] and saved["metadata"] == made["metadata"], MEND


def test_the_notebook_links_to_files_from_its_own_folder() -> None:
    """Each link of the notebook, which lies one folder above the pages, leads to a file."""
    targets = re.findall(r"\]\(([^)#]+)", make.NOTEBOOK.read_text(encoding="utf-8"))
    assert len(targets) > 40
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []


# ---- the first cell, which installs minigen ----


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that logs nothing."""

    def log_message(self, *words: object) -> None:
        """Log nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """Serve a folder on the address that Colab's variables name; return folder and address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
        monkeypatch.setenv("KMP_TARGET_PORT", str(server.server_port))
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def open_on_colab(folder: Path, *paths: str) -> None:
    """Let the server of a folder list its sessions as Colab's Jupyter server does."""
    sessions = [{"id": "1", "path": path, "name": "tour.ipynb", "type": "notebook",
                 "notebook": {"path": path, "name": "tour.ipynb"}} for path in paths]  # fmt: skip
    (folder / "api").mkdir(exist_ok=True)
    (folder / "api/sessions").write_text(json.dumps(sessions), encoding="utf-8")


Install = Callable[..., tuple[list[str], str]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that runs the first cell in an empty folder, as if there was no minigen.

    The function takes a value for the cell's line `repository = ""`, and whether `%pip` succeeds.
    It returns the arguments of each `%pip`, and the message with which the cell stops, or "".
    """
    shells = pytest.importorskip("IPython.core.interactiveshell")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    for name in ("__IPYTHON__", "display"):  # IPython sets all three; they are restored at the end
        monkeypatch.setattr(builtins, name, None, raising=False)
    (tmp_path / "project/docs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project/docs")
    find = importlib.util.find_spec

    def run_cell(repository: str = "", succeeds: bool = True) -> tuple[list[str], str]:
        lines: list[str] = []

        def find_spec(name: str) -> ModuleSpec | None:
            hidden = name == "minigen" and not (lines and succeeds)
            return None if hidden else find(name)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        shell = shells.InteractiveShell(config=Config(HistoryManager={"enabled": False}))
        shell.register_magic_function(lines.append, "line", "pip")
        cell = make.INSTALL.replace('repository = ""', f"repository = {repository!r}", 1)
        stop = shell.run_cell(cell).error_in_exec
        assert stop is None or isinstance(stop, SystemExit)
        return lines, str(stop or "")

    return run_cell


QUOTED = "fileId=https%3A//github.com/me/minigen/blob"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (f"{QUOTED}/main/docs/tour.ipynb", "https://github.com/me/minigen@main"),
        (f"{QUOTED}/first/try/docs/tour.ipynb", "https://github.com/me/minigen@first/try"),
        ("fileId=https%3A%2F%2Fgithub.com%2Fme%2Fminigen%2Fblob%2Fmain%2Fdocs%2Ftour.ipynb",
         "https://github.com/me/minigen@main"),
        ("fileId=https://github.com/blob/blob/blob/v1/blob/docs/tour.ipynb",
         "https://github.com/blob/blob@v1/blob"),
    ],
)  # fmt: skip
def test_on_colab_the_first_cell_installs_the_repository_that_the_notebook_is_from(
    path: str, source: str, served: tuple[Path, str], install: Install
) -> None:
    """The address that Colab opened has the repository and the branch, which may have slashes."""
    folder, _ = served
    open_on_colab(folder, "fileId=1AbC-d_E", path)
    assert install() == ([f"install --quiet git+{source}"], "")


@pytest.mark.filterwarnings("ignore:To exit")  # IPython's, after a SystemExit
@pytest.mark.parametrize("path", ["fileId=1AbC-d_E", f"{QUOTED}/main/tour.ipynb", None])
def test_without_a_repository_the_first_cell_says_what_to_do(
    path: str | None, served: tuple[Path, str], install: Install
) -> None:
    """Nothing is installed for a notebook on a Drive, at another place, or without the server."""
    if path:
        open_on_colab(served[0], path)
    lines, message = install()
    assert lines == []
    assert "not installed: fill in the line repository" in message and "or clone" in message


@pytest.mark.filterwarnings("ignore:To exit")
def test_an_installation_that_fails_stops_the_notebook(install: Install) -> None:
    """The first cell says that minigen is not installed, and no later cell runs."""
    lines, message = install("https://git.example.org/mine", succeeds=False)
    assert len(lines) == 1 and message.startswith("minigen is not installed")


def test_a_repository_that_is_filled_in_comes_before_all_others(
    served: tuple[Path, str], install: Install
) -> None:
    """The line of the first cell decides, also where Colab knows another repository."""
    open_on_colab(served[0], f"{QUOTED}/main/docs/tour.ipynb")
    mine = "https://git.example.org/mine"
    assert install(mine) == ([f"install --quiet git+{mine}"], "")


def test_in_a_clone_the_first_cell_installs_the_clone(install: Install) -> None:
    """Elsewhere than on Colab, the folder around docs/ is installed."""
    Path("../pyproject.toml").touch()
    assert install() == (["install --quiet .."], "")


def test_the_first_cell_installs_minigen_from_a_branch_over_http(
    tmp_path: Path, served: tuple[Path, str]
) -> None:
    """In an environment without minigen, real git and pip fetch and install that branch's package.

    The other packages are those of the environment of this test.
    """
    pytest.importorskip("hatchling")
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    folder, address = served
    work, bare, empty = tmp_path / "work", folder / "me/minigen", tmp_path / "empty"
    shutil.copytree(ROOT / "minigen", work / "minigen")
    for name in ("LICENSE", "README.md", "pyproject.toml", "sample.py", "train.py"):
        shutil.copy(ROOT / name, work)
    (work / "minigen/only_here.py").touch()
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", "-C"]
    for words in ([work, "init", "-q", "-b", "first/try"], [work, "add", "."],
                  [work, "commit", "-qm", "all"], [work, "clone", "-q", "--bare", ".", bare],
                  [bare, "symbolic-ref", "HEAD", "refs/heads/main"],  # not the default branch
                  [bare, "update-server-info"]):  # fmt: skip
        subprocess.run([*git, *words], check=True)
    open_on_colab(folder, f"fileId={address}/me/minigen/blob/first/try/docs/tour.ipynb")

    venv.create(tmp_path / "venv", symlinks=True)
    bin = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    (packages,) = (tmp_path / "venv").rglob("site-packages")
    for path in (Path(path) for path in sys.path if path.endswith("site-packages")):
        for other in path.iterdir():
            if "minigen" not in other.name and not (packages / other.name).exists():
                (packages / other.name).symlink_to(other)
    empty.mkdir()
    look = v4.new_code_cell("import minigen.only_here; print(minigen.__file__)")
    notebook = v4.new_notebook(cells=[v4.new_code_cell(make.INSTALL), look])
    nbformat.write(notebook, empty / "tour.ipynb")
    # pip reads its flags from variables; 0 turns the isolation off, which would need the internet.
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | offline
    execute = "from nbclient.cli import main; main()"
    run = [bin / "python", "-c", execute, "--inplace", "tour.ipynb"]
    done = subprocess.run(run, cwd=empty, env=env, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    outputs = nbformat.read(empty / "tour.ipynb", as_version=4)["cells"][1]["outputs"]
    assert outputs[0]["text"] == f"{packages / 'minigen' / '__init__.py'}\n"


# ---- the links ----


@each_page
def test_a_link_to_a_function_leads_to_its_first_line(page: Path) -> None:
    """The line in the address of each link is that of the function which the link names."""
    assert len(make.LINK.findall(TEXTS[page])) >= 1
    assert make.with_lines(TEXTS[page]) == TEXTS[page], f"a function has moved; {MEND}"


def test_a_link_to_a_function_that_does_not_exist_is_refused() -> None:
    """The script names the function and the file of a link that leads nowhere."""
    with pytest.raises(SystemExit, match=r"no GPT\.tail in .*model\.py; correct the link"):
        make.with_lines("[`GPT.tail`](../../minigen/model.py#L1)")


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [*TEXTS, INDEX], ids=lambda page: page.name)
def test_a_link_to_a_page_leads_to_its_heading(page: Path) -> None:
    """Each link names a file that exists, and of a page a heading that exists."""
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", text):
        assert (page.parent / target).exists(), target
        if anchor and target.endswith(".md"):
            assert anchor in headings(page.parent / target), f"{target}#{anchor}"


def test_the_index_has_every_page_in_order() -> None:
    """The index links to each page of the tour, from the first to the last."""
    linked = re.findall(r"^\d\. \[[^]]+\]\(([^)]+)\)", INDEX.read_text(encoding="utf-8"), re.M)
    assert linked == [page.name for page in TEXTS] and len(linked) == 8


# ---- the pages ----


@each_page
def test_a_page_is_short_and_has_its_parts(page: Path) -> None:
    """A page is read in minutes, answers a question, and names an exercise and a place to look."""
    text = TEXTS[page]
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    assert len(text.splitlines()) <= 140 and len(prose.split()) <= 450
    assert re.search(r"^## Why .+\?$", text, flags=re.M)
    assert "- **Write it yourself:** `python -m minigen learn " in text
    assert "- **See it:** " in text
    assert all(output for output in make.outputs_of(text)[-1:])


@pytest.mark.parametrize("page", [*TEXTS, INDEX], ids=lambda page: page.name)
def test_each_command_exists(page: Path) -> None:
    """Each command of a page is one of minigen, and so is the exercise or experiment that it names.

    More experiments may follow a command: `python -m minigen experiment no_mask`, `no_scale`. The
    flags of sample.py are checked, too.
    """
    text = page.read_text(encoding="utf-8")
    for more in re.findall(r"`python -m minigen experiment \w+`((?:(?:,| or) `\w+`)+)", text):
        assert set(re.findall(r"`(\w+)`", more)) <= experiment_names()
    for command, word in re.findall(r"`python -m minigen (\w+)(?: ([\w-]+))?`", text):
        assert command in dispatcher.COMMANDS, command
        if command == "learn" and word and word != "--train":
            assert word in exercise_names(), word
        if command == "experiment" and word:
            assert word in experiment_names(), word
    for script, flags in re.findall(r"`python (\w+\.py)([^`]*)`", text):
        assert (ROOT / script).exists(), script
        for flag in re.findall(r"--(\w+)", flags):
            assert flag in SampleConfig.__dataclass_fields__, flag


def test_no_command_is_written_in_a_way_that_is_not_checked() -> None:
    """Each command in the words of a page has a form that `test_each_command_exists` reads."""
    pattern = r"`python (?:-m minigen \w+(?: [\w-]+)?|(?:train|sample)\.py[^`]*)`"
    for page, text in TEXTS.items():
        assert len(re.findall("`python ", text)) == len(re.findall(pattern, text)), page.name


def exercise_names() -> set[str]:
    """Return the names of the exercises."""
    from minigen.learn.course import EXERCISES

    return {exercise.name for exercise in EXERCISES}


def experiment_names() -> set[str]:
    """Return the names of the experiments."""
    from minigen.learn.experiments import EXPERIMENTS

    return {experiment.name for experiment in EXPERIMENTS}
