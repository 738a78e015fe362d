"""The glossary has each term once, in order, with a place in the code and a test that exist."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### (.+)\n\n([^#]*)", PAGE, re.MULTILINE))
PLACES = r"Code: `([\w.]+)` in `([\w/.]+)`\.\nTest: `(\w+)` in `([\w/.]+)`\."
each_term = pytest.mark.parametrize("term", ENTRIES)


@lru_cache
def definitions(path: Path) -> set[str]:
    """Return the names that a file defines: functions, classes, Class.method, and constants."""
    names = set[str]()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            names |= {f"{node.name}.{method.name}" for method in methods}
        if isinstance(node, ast.Assign):
            names |= {ast.unparse(target) for target in node.targets}
        if isinstance(node, ast.AnnAssign):
            names.add(ast.unparse(node.target))
    return names


def test_terms_are_sorted_and_unique() -> None:
    """The terms are in the order of the alphabet, and each term has one definition."""
    terms = re.findall(r"^#+ (.+)", PAGE, re.MULTILINE)[1:]
    assert terms == list(ENTRIES) == sorted(terms, key=str.lower)
    assert len({term.lower() for term in terms}) == len(terms) > 70


@each_term
def test_a_definition_has_one_to_three_sentences(term: str) -> None:
    """A definition has 1 to 3 sentences. After it stand a place in the code and a test."""
    definition, places = ENTRIES[term].strip().split("\n\n")
    assert 1 <= len(re.findall(r"[.!?](?=\s|$)", definition)) <= 3 and definition[-1] == "."
    assert re.fullmatch(PLACES, places)


@each_term
def test_the_code_and_the_test_of_a_term_exist(term: str) -> None:
    """The files that an entry names have the class or function, and the test, that it names."""
    [(name, file, test, test_file)] = re.findall(PLACES, ENTRIES[term])
    assert name in definitions(ROOT / file)
    assert test in definitions(ROOT / test_file) and test.startswith("test_")
