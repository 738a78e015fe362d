"""The rule for text: a reader understands a sentence at once and finds each word elsewhere too.

CONTRIBUTING.md states the rule. These tests hold the part of it that a program can read.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = sorted(
    path
    for pattern in ("*.py", "minigen/**/*.py", "bench/**/*.py", "docs/**/*.py", "tests/**/*.py")
    for path in ROOT.glob(pattern)
)
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("data/*.md")])

# Words at the beginning of a docstring that are no imperative verb.
NO_VERBS = set(
    re.findall(
        r"\w+",
        """A All An And Any As At Because Before Both By Each Either Every For From Here How If In
        It Its Just Like Many More Most No Nobody None Nothing Of On One Only Or Other Our Same Some
        Something Such That The Their Them These They This Those Three To Two What When Where
        Whether Which Who With Without""",
    )
)
# The private dialect, and the wording of the field for each.
DIALECT = {
    r"\bgo(?:es|ing)? on\b": "continue, resume",
    r"\bso many\b": "the number of ...",
    r"\bstrangers?'?\b": "untrusted",
    r"\bbehind\b": "after",
    r"\bby then\b": "until that step",
    r"\bis no number\b": "is not finite",
    r"(?:^|[.;:] )What (?:is|was|are|were|has|have|comes|came|does|did)\b(?!.*\?)": "name the noun",
    r"\b(?:of|from|by|than|for|with|in|to|as|into|on) what\b(?!.*\?)": "name the noun",
}
# The tables of the corpora are English that a grammar writes, in which any word may stand.
WRITTEN_BY_GRAMMARS = {"tables.py", "test_plain_words.py"}


@functools.cache
def functions(path: Path) -> list[ast.FunctionDef]:
    """Return the functions and methods of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@functools.cache
def sentences(path: Path) -> list[tuple[int, str]]:
    """Return (line, text) of each piece of text for people."""
    return list(find_sentences(path))


def find_sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the text for people: comments and strings, or the whole page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
        elif token.type not in (tokenize.NAME, tokenize.OP) and re.search(r"\w \w", token.string):
            body = re.sub(r"^\w*(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$", "", token.string)
            for number, line in enumerate(body.splitlines()):
                yield token.start[0] + number, line.strip()


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_docstring_begins_with_a_verb(path: Path) -> None:
    """The docstring of a function says in the imperative what the function does."""
    for function in functions(path):
        doc = ast.get_docstring(function)
        is_property = any("property" in ast.unparse(node) for node in function.decorator_list)
        if doc is None or is_property or function.name.startswith("test_"):
            continue
        first = doc.split()[0].rstrip(".,:;")
        is_verb = re.fullmatch(r"[A-Z][a-z-]+", first) and first not in NO_VERBS
        third_person = first.endswith("s") and not first.endswith("ss")
        assert is_verb and not third_person, f"{path.name}:{function.lineno}: {doc.splitlines()[0]}"


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_test_states_its_theorem(path: Path) -> None:
    """Each test has a docstring, which begins with a sentence that stands alone."""
    for function in functions(path):
        if function.name.startswith("test_"):
            doc = ast.get_docstring(function) or ""
            place = f"{path.name}:{function.lineno} {function.name}"
            assert re.match(r"[\s\S]*?[.:?)`'\"](\s|$)", doc), f"{place}: no sentence"
            assert not re.match(r"(The s|S)ame\b", doc), f"{place}: does not stand alone"


@pytest.mark.parametrize("path", [*CODE, *PAGES], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_words_are_those_of_the_field(path: Path) -> None:
    """No text uses a word of the private dialect where the field has one of its own."""
    if path.name in WRITTEN_BY_GRAMMARS:
        return
    for line, text in sentences(path):
        for pattern, plain in DIALECT.items():
            found = re.search(pattern, text)
            assert not found, f"{path.name}:{line}: {found[0]!r}, say: {plain}" if found else ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_of_pages_are_short(path: Path) -> None:
    """A line of a page has at most 120 characters, so that it can be read and compared."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= 120, f"{path.name}:{number}: {len(line)} characters"


@functools.cache
def names_of_tests() -> set[str]:
    """Return the names of all tests and of the files that hold them."""
    files = [path for path in CODE if path.is_relative_to(ROOT / "tests")]
    return {path.stem for path in files} | {f.name for path in files for f in functions(path)}


@pytest.mark.parametrize("path", [*CODE, *PAGES], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_proof_that_a_text_names_exists(path: Path) -> None:
    """Each test that a comment, a docstring or a page names is a test of this project."""
    for line, text in sentences(path):
        for name in re.findall(r"\btest_\w*[a-z0-9]\b(?!\*)", text):
            assert name in names_of_tests(), f"{path.name}:{line}: {name}"
