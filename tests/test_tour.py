"""docs/tour is true: its blocks print its numbers, its links lead to the lines that they name.

If a test of this file fails after a change of the code, run `python docs/tour/make.py`, and read
what it changed on the pages: a sentence beside a number may need the change, too.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

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
