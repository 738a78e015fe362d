"""The Korean pages say the same as the English ones, and docs/korean.md is true.

A translation becomes wrong in silence when its original changes. These tests compare the parts that
no translation changes: commands, outputs, figures, links, headings and code in a sentence.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from forks import Server
from small_forms import ROOT, run_small

PAIRS = {  # Korean page: its original
    "README.ko.md": "README.md",
    "docs/glossary.ko.md": "docs/glossary.md",
    **{
        f"docs/tour/ko/{page.name}": f"docs/tour/{page.name}"
        for page in sorted((ROOT / "docs/tour").glob("*.md"))
    },
}
ONLY_KOREAN = "docs/korean.md"  # a page without an original
each_pair = pytest.mark.parametrize("korean", PAIRS)

FENCE = re.compile(r"^ *```(\w*).*?\n(.*?)^ *```$", flags=re.M | re.S)
CODE = re.compile(r"`[^`]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NUMBER = r"(?<![A-Za-z\d.,-])\d[\d,]*(?:\.\d+)?"
NUMBER_WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "tenth": 10, "twelve": 12, "sixteen": 16, "twenty": 20, "hundred": 100,
}  # fmt: skip


def read(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """Return the text for people: no blocks of code, no `code`, no addresses of links."""
    return LINK.sub("]", CODE.sub("", FENCE.sub("", text)))


def blocks(text: str) -> list[tuple[str, str]]:
    """Return (language, code) of each block of code, without the comments of a language."""
    comment = re.compile(r"\s*(?<!\S)# .*")
    return [
        (language, comment.sub("", code) if language else code)
        for language, code in FENCE.findall(text)
    ]


def headings(text: str) -> list[tuple[int, str]]:
    """Return (level, words) of each heading of a page."""
    found = re.findall(r"^(#+) (.+)$", FENCE.sub("", text), flags=re.M)
    return [(len(marks), words) for marks, words in found]


def anchors(page: str) -> list[str]:
    """Return the anchor that GitHub gives to each heading of a page, none of which is there twice.

    It is the heading in lower case, without punctuation, and with - in the place of spaces.
    """
    made = [re.sub(r"[^\w\- ]", "", words).lower() for _, words in headings(read(page))]
    assert len(set(made)) == len(made)
    return [anchor.replace(" ", "-") for anchor in made]


def english_figures(text: str) -> Counter[float]:
    """Return the numbers in digits of an English text; 28 million is 28000000."""
    found = re.findall(rf"({NUMBER})(?:\s(million))?", text)
    return Counter(round(value(n) * (1e6 if million else 1), 6) for n, million in found)


def korean_figures(text: str) -> Counter[float]:
    """Return the numbers in digits of a Korean text; 2억 6,000만 is 260000000."""
    units = {"": 1.0, "만": 1e4, "억": 1e8}
    found = re.findall(rf"({NUMBER})(?:(억)(?:\s({NUMBER})만)?|(만))?", text)
    return Counter(
        round(value(n) * units[eok + man] + value(rest or "0") * 1e4, 6)
        for n, eok, rest, man in found
    )


def value(number: str) -> float:
    """Return the value of a number that may have commas, 2,400 for example."""
    return float(number.replace(",", ""))


def original(target: Path) -> str:
    """Return the path of a page, or of the original of a Korean page, relative to the project."""
    path = target.resolve().relative_to(ROOT.resolve()).as_posix()
    return PAIRS.get(path, path)


def links(page: str) -> Counter[str]:
    """Return the links of a page, to originals in place of Korean pages.

    A link to another heading of a page is numbered by the heading. Left out are links from a page
    to the same page in the other language, and to a page that exists in Korean only.
    """
    found = Counter[str]()
    for target in LINK.findall(read(page)):
        if re.match(r"\w+:", target):
            found[target] += 1
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page}: {target}"
        aim = original(path)
        if aim == ONLY_KOREAN or (file and aim == original(ROOT / page)):
            continue
        if anchor and path.suffix != ".md":  # a line
            aim = f"{aim}#{anchor}"
        elif anchor:
            place = path.resolve().relative_to(ROOT.resolve()).as_posix()
            assert anchor in anchors(place), f"{page}: {target}"
            aim = f"{aim}#{anchors(place).index(anchor)}"
        found[aim] += 1
    return found


@each_pair
def test_a_korean_page_has_the_commands_and_outputs_of_its_original(korean: str) -> None:
    """Blocks of code are the same in both languages, except for comments."""
    assert blocks(read(korean)) == blocks(read(PAIRS[korean]))


@each_pair
def test_a_korean_page_has_the_figures_of_its_original(korean: str) -> None:
    """Each number of the original is in the Korean page, which has no number of its own.

    A number that the original writes as a word, such as two, may be in digits in Korean.
    """
    text = without_code(read(PAIRS[korean]))
    here, there = korean_figures(without_code(read(korean))), english_figures(text)
    assert there - here == Counter()
    words = Counter[float](
        NUMBER_WORDS.get(word, 0) for word in re.findall(r"[a-z]+", text.lower())
    )
    assert here - there - words == Counter()


@each_pair
def test_a_korean_page_has_the_links_and_code_of_its_original(korean: str) -> None:
    """Links lead to the same pages and headings, and `code` in a sentence is the same."""
    assert links(korean) == links(PAIRS[korean])
    mine, theirs = (
        Counter(" ".join(code.split()) for code in CODE.findall(FENCE.sub("", read(page))))
        for page in (korean, PAIRS[korean])
    )
    assert mine - Counter(["`tests/test_korean.py`"]) == theirs


@each_pair
def test_a_korean_page_has_the_outline_of_its_original(korean: str) -> None:
    """Both pages have headings of the same levels in the same order, and as many rows of tables."""
    mine, theirs = (read(page) for page in (korean, PAIRS[korean]))
    assert [level for level, _ in headings(mine)] == [level for level, _ in headings(theirs)]
    assert len(re.findall(r"^\|", mine, re.M)) == len(re.findall(r"^\|", theirs, re.M))


@each_pair
def test_each_paragraph_of_a_korean_page_is_in_korean(korean: str) -> None:
    """Each paragraph, heading and row of a table has Hangul, unless it is a sample of a model."""
    for paragraph in re.split(r"\n(?:\n|(?=\|))", without_code(read(korean))):
        words = re.sub(r"^>.*|[|:-]+$", "", paragraph.strip(), flags=re.M)
        assert re.search("[가-힣]", words) or not re.search("[A-Za-z]{2,} [A-Za-z]{2,}", words), (
            words
        )


@each_pair
def test_a_korean_page_is_linked_to_its_original(korean: str) -> None:
    """The first lines of a Korean page have a link to the page in English."""
    first = "".join(read(korean).splitlines(keepends=True)[:8])
    found = [((ROOT / korean).parent / target).resolve() for target in LINK.findall(first)]
    assert (ROOT / PAIRS[korean]).resolve() in found


def test_both_glossaries_define_the_same_terms_in_the_same_order() -> None:
    """A Korean entry has the English term in parentheses, and names the same code and test."""
    entry = re.compile(r"^### (.+)\n\n[^#]*?\n\n(.+)\n(.+)$", flags=re.M)
    theirs = entry.findall(read("docs/glossary.md"))
    mine = entry.findall(read("docs/glossary.ko.md"))
    assert len(mine) == len(theirs) == len(headings(read("docs/glossary.md"))) - 1
    for (korean, *my_places), (english, *their_places) in zip(mine, theirs, strict=True):
        term = re.search(r"[가-힣]\((.+)\)$", korean)
        words = re.findall(r"[\w-]+", term[1] if term else korean)
        assert words == re.findall(r"[\w-]+", english), korean
        for my_place, their_place in zip(my_places, their_places, strict=True):
            assert CODE.findall(my_place) == CODE.findall(their_place)[::-1], korean


# ---- docs/korean.md ----

# The part of an output that no machine and no length of training changes, for commands whose output
# is not the same everywhere.
SAME_EVERYWHERE = {
    "train.py": r"[\d,]+ tokens of text, \d+ different ones",
    "sample.py": r"^곰은 숲에서",
    "judge.py": r"있을 수 있는 이야기 28,800편",
}


def test_the_commands_of_the_korean_page_print_what_it_shows(
    server: Server, tmp_path: Path
) -> None:
    """The scripts and commands of docs/korean.md run in its order, and print its outputs.

    A script is saved under the name in its first line. Training is brief: the tokens of a text do
    not depend on it.
    """
    data = {"PYTHONPATH": str(ROOT), "MINIGEN_DATA": str(tmp_path / "data")}
    n_compared = 0
    for language, code in FENCE.findall(read(ONLY_KOREAN)):
        if language == "python":
            (tmp_path / code.split()[1].strip(":")).write_text(code, encoding="utf-8")
        elif language == "sh":
            words = shlex.split(code)[1:]
            if (tmp_path / words[0]).exists():
                done = server.python(*words, cwd=tmp_path, env={**os.environ, **data})
            else:
                done = run_small(words, ROOT, server, tmp_path, {**os.environ, **data})
            printed = done.stdout + done.stderr
            pattern = SAME_EVERYWHERE.get(words[0])
        else:
            assert done.returncode == (2 if code.startswith("error: ") else 0), printed
            if pattern:
                assert re.findall(pattern, printed, re.M) == re.findall(pattern, code, re.M) != []
            else:
                shown = code.removesuffix("...\n")
                assert printed == code or (shown != code and printed.startswith(shown)), words
            n_compared += 1
    assert n_compared == len(re.findall("^```sh", read(ONLY_KOREAN), re.M)) > 8


def test_the_table_of_the_korean_page_has_the_figures_of_its_outputs() -> None:
    """The rows of the table of tokenizers repeat the numbers that the two runs have printed."""
    page = read(ONLY_KOREAN)
    outputs = [code for _, code in FENCE.findall(page) if code.startswith("out/ko")]
    rows = re.findall(r"^\| (?:bpe|char) \|(.*)\|$", page, re.M)
    for output, row in zip(outputs, rows, strict=True):
        tokens, vocabulary = re.findall(r"([\d,]+) tokens of text, (\d+)", output)[0]
        nats, bits = re.findall(r"text: loss ([\d.]+) nats/token = ([\d.]+)", output)[0]
        cells = [cell.strip() for cell in row.split("|")]
        assert [cells[0], cells[1], cells[3], cells[4]] == [vocabulary, tokens, nats, bits]


def test_the_links_of_the_korean_page_lead_somewhere() -> None:
    """Each link of docs/korean.md leads to a file, and to a heading of it if the link names one."""
    assert links(ONLY_KOREAN)["README.md#2"] == 1
