"""The modules of the page: `node --test` runs those that draw nothing, and rules hold for all.

The tests of tests/page/ are run by Node. Those of sampling.js compare each number with the numbers
of minigen/sampling.py, which this file writes for them.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from absent import absent
from torch import Tensor

from minigen.sampling import Sampling, filter_steps, inverse_cdf
from minigen.serve.page_files import PAGE

TESTS = Path(__file__).parent / "page"
MODULES = {path.relative_to(PAGE).as_posix(): path.read_text() for path in PAGE.rglob("*.js")}
FILES = [path for path in PAGE.rglob("*") if path.is_file()]
MOST_SENT, MOST_WRITTEN = 100_000, 250_000  # bytes


@pytest.fixture(scope="module")
def node() -> str:
    """Return the path of Node, or skip the test."""
    path = shutil.which("node")
    if path is None:
        absent("no node is on this machine")
    return path


def run_node(node: str, *words: str, **variables: str) -> str:
    """Run Node and return its output; fail with the output if its exit code is not 0."""
    done = subprocess.run(
        [node, *words], capture_output=True, encoding="utf-8", env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- the numbers of sampling.py ----


def draws() -> Iterator[tuple[Tensor, list[int], dict[str, Any], list[float]]]:
    """Yield logits (V,), the text before them, settings, and random numbers."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for n_vocab, n_draws in ((2, 30), (65, 300), (1481, 120), (50257, 16)):
        for _ in range(n_draws):
            logits = rng.choice((0.5, 3.0, 12.0)) * torch.randn(n_vocab, generator=generator)
            if rng.random() < 0.3:
                logits = logits.round()  # ties
            ids = [rng.randrange(n_vocab) for _ in range(rng.randint(1, 40))]
            settings = {
                "temperature": rng.choice((0, 1e-300, 1e-3, 0.3, 0.8, 1, 1.7, 1e300)),
                "top_k": rng.choice((None, None, 1, 2, rng.randint(1, n_vocab), n_vocab)),
                "top_p": rng.choice((1, 1, 0.999999, 0.95, 0.5, rng.uniform(1e-9, 1), 1e-300)),
                "min_p": rng.choice((0, 0, 0.1, rng.random(), 1e-6, 1)),
                "repetition_penalty": rng.choice((1, 1, 1.3, 0.5, 100, 0.01)),
            }
            yield logits, ids, settings, [0.0, 1 - 2**-53, *(rng.random() for _ in range(6))]


def write_draws(folder: Path) -> None:
    """Write the draws, and sampling.py's probabilities after each filter and its tokens.

    Each array is in the file numbers.f64; draws.json has its place and its length.
    """
    with (folder / "numbers.f64").open("wb") as numbers:

        def write(values: Tensor) -> list[int]:
            """Append values; return the index of the first and their number."""
            first = numbers.tell() // 8
            numbers.write(values.double().numpy().astype("<f8").tobytes())
            return [first, len(values)]

        cases = []
        for logits, ids, settings, us in draws():
            steps = [
                (name, after[0].softmax(dim=-1))
                for name, after in filter_steps(logits[None].double(), [ids], Sampling(**settings))
            ]
            cases.append(
                {
                    "logits": write(logits), "ids": ids, "settings": settings, "us": us,
                    "steps": [{"name": name, "p": write(p)} for name, p in steps],
                    "tokens": [inverse_cdf(steps[-1][1], u) for u in us],
                }
            )  # fmt: skip
    (folder / "draws.json").write_text(json.dumps(cases))


def test_the_modules_pass_their_own_tests(node: str, tmp_path: Path) -> None:
    """Each test of tests/page/ passes: sampling.js has the numbers of sampling.py."""
    write_draws(tmp_path)
    tests = sorted(map(str, TESTS.glob("*.test.mjs")))
    said = run_node(node, "--test", "--test-reporter=tap", *tests, DRAWS=str(tmp_path))
    assert int(re.findall(r"^# pass (\d+)$", said, re.MULTILINE)[0]) >= len(tests)
    assert re.search(r"^# skipped 0$", said, re.MULTILINE)


# ---- rules for all modules ----


def test_the_page_is_light() -> None:
    """All files of the page have few bytes, compressed as the server sends them and as written."""
    assert sum(len(gzip.compress(path.read_bytes())) for path in FILES) < MOST_SENT
    assert sum(len(path.read_bytes()) for path in FILES) < MOST_WRITTEN


def test_no_file_names_an_address_outside() -> None:
    """No file of the page has an address of another server; an SVG's namespace is only a name."""
    for path in FILES:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        text = re.sub(r"(?m)^\s*//.*|\s// .*$", "", text)  # comments of a script
        found = re.search(r"(https?|wss?):\S|[\"'(=]\s*//|@import|\bdata:[a-z]+/", text)
        assert not found, f"{path.name}: {found}"


def test_no_module_turns_text_into_markup_or_code() -> None:
    """No module can make markup or code of a text that a person or a model wrote."""
    for name, text in MODULES.items():
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|parseFromString|srcdoc|\beval\b"
            r"|createContextualFragment|document\.write|new Function|setAttribute\([\"'](on|style)"
            r"|set(Timeout|Interval)\(\s*[\"'`]",
            text,
        )
        assert not found, f"{name}: {found}"


def words_of(node: str) -> dict[str, dict[str, str]]:
    """Return the table of strings.js."""
    script = f"import({json.dumps((PAGE / 'strings.js').as_uri())}).then(({{ STRINGS }}) =>"
    return dict(json.loads(run_node(node, "-e", f"{script} console.log(JSON.stringify(STRINGS)))")))


def test_each_string_has_both_languages_and_the_same_values(node: str) -> None:
    """The strings of a key name the same values in English and in Korean, and none is empty."""
    for key, words in words_of(node).items():
        assert set(words) == {"en", "ko"}, key
        english, korean = (set(re.findall(r"\{(\w+)\}", words[each])) for each in ("en", "ko"))
        assert english == korean and all(each.strip() for each in words.values()), key


QUOTED = r"\"([\w.-]+)\"|`([\w.-]+)`"


def keys_of(text: str, known: set[str]) -> tuple[set[str], set[str]]:
    """Return the keys of strings that a module asks for, and the keys that it may ask for.

    A module asks by `app.t("key")`, by `heading(app, "key", ...)`, by an element's `t: "key"` or
    `named: "key"`, or by `t("key")` if it has made `t = app.words("part")`, which puts the part
    before each key; it may ask for all keys of that part. In the place of the key may stand an
    expression: all words in quotes that it has, up to its first comma, are keys. A template such
    as `left_${unit}` may ask for each key that begins like it.
    """
    made = re.search(r"\bt = app\.words\(\"(\w+)\"\)", text)
    own = f"{made[1]}." if made else ""
    whole = r"\b(?:(?:app|this)\.t\(|heading\(app, |(?:t|named): )"
    calls = [("", whole), (own, r"(?<![\w.])t\(")]
    asked, possible = set[str](), {key for key in known if own and key.startswith(own)}
    for prefix, call in calls:
        for found in re.finditer(call + r"((?:[^(),{]|\{[^{}]*\}|\([^()]*\))*)", text):
            words, _, _ = re.sub(r"^[^?\"`]*\?(?!\?)", "", found[1]).partition(", {")
            templates = re.findall(r"`([\w.]+)\$\{", words)
            for begin in templates:
                possible |= {key for key in known if key.startswith(prefix + begin)}
                assert any(key.startswith(prefix + begin) for key in known), prefix + begin
            if not templates and "[" not in words:
                asked |= {prefix + (a or b) for a, b in re.findall(QUOTED, words)}
            else:
                possible |= {prefix + (a or b) for a, b in re.findall(QUOTED, words)}
    return asked, possible


def test_each_key_that_a_module_asks_for_has_words(node: str) -> None:
    """Each key in a call of `app.t` is in the table, and each key of the table is used."""
    known = set(words_of(node))
    used = set[str]()
    for name, text in MODULES.items():
        asked, possible = keys_of(text, known)
        assert asked <= known, f"{name} asks for {sorted(asked - known)}"
        used |= asked | possible
    assert not known - used, f"no module uses {sorted(known - used)}"
