"""The stage of the page, used as a person would: tokens, ladder, draw, and the text that grows.

Numbers read off the page are those of the library for the same text, seed and settings.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from forks import ROOT, Server
from served_models import N_LETTERS, RUNS, TEXTS, environment
from until import settle, until

import minigen
from minigen.inference.engine import Engine
from minigen.sampling import (
    PLAIN,
    Sampling,
    context_length,
    filter_steps,
    inverse_cdf,
    uniform,
)
from minigen.serve.prefixes import Prefixes

if TYPE_CHECKING:
    from playwright.sync_api import Locator, LocatorAssertions, Page

    Visit = Callable[..., Page]

N_ROWS = 12  # tokens in the ladder
ONCE = "prompt=Once+upon"
ALL = "temperature=1.3&top_k=40&top_p=0.9&min_p=0.02&repetition_penalty=1.2"
SETTINGS = Sampling(1.3, 40, 0.9, 0.02, 1.2)  # those of ALL
CASES = {
    "tales": (f"#{ONCE}&{ALL}", SETTINGS),
    "letters": (f"#model=letters&prompt=ab+c&{ALL}", SETTINGS),
    "wide": (f"#model=wide&prompt=ab+c&{ALL}", SETTINGS),
    "plain wide": ("#model=wide&prompt=ab+c&temperature=1&min_p=0", PLAIN),
    "greedy": (f"#{ONCE}&temperature=0", Sampling(temperature=0)),
}


@pytest.fixture(scope="module")
def engines(runs: Path) -> Callable[[str], Engine]:
    """Return a function that loads a model of RUNS once."""
    loaded: dict[str, Engine] = {}

    def engine(name: str) -> Engine:
        if name not in loaded:
            loaded[name] = minigen.load(runs / name)
        return loaded[name]

    return engine


class Expected:
    """The library's numbers for the token after a text."""

    def __init__(self, engine: Engine, ids: list[int], settings: Sampling) -> None:
        logits = Prefixes().predict(engine, ids).logits.double()[None]
        self.raw = logits[0].softmax(dim=-1)
        steps = filter_steps(logits, [ids], settings)
        self.steps = {name: after[0].softmax(dim=-1) for name, after in steps}
        self.final = [*self.steps.values()][-1]

    def token(self, u: float) -> int:
        """Return the token that the number u draws."""
        return inverse_cdf(self.final, u)


# ---- reading the page ----


def expect(locator: Locator) -> LocatorAssertions:
    """Return what `playwright` can wait for; it is imported late, as it may be absent."""
    from playwright.sync_api import expect

    return expect(locator)


def ready(page: Page) -> None:
    """Wait until the ladder shows the prediction of the present text."""
    page.locator('table.ladder[aria-busy="false"]').wait_for()


def chips(page: Page) -> list[int]:
    """Return the ids of the token strip."""
    return [int(text) for text in page.locator(".chips .id").all_inner_texts()]


def percent(text: str) -> float:
    """Return the probability that the page writes as `text`."""
    return float(text.replace("%", "").strip()) / 100


def same_percent(text: str, p: float) -> bool:
    """Return whether the page writes p as `text`: with one digit, two below 1 %."""
    if p == 0:
        return text == "\u2013"
    if p < 0.0001:
        return text == "< 0.01 %"
    return abs(percent(text) - p) <= (0.51e-4 if p < 0.01 else 0.51e-3)


def rows(page: Page) -> list[dict[str, Any]]:
    """Return the rows of the ladder with a token: id, words, and the cells."""
    return list(
        page.evaluate(
            """() => [...document.querySelectorAll('.ladder tbody tr')].map((row) => ({
                id: row.dataset.id === undefined ? null : Number(row.dataset.id),
                name: row.querySelector('th').innerText, cut: row.className.includes('cut'),
                cells: [...row.querySelectorAll('td')].map((cell) => cell.innerText),
                hidden: row.hidden,
            })).filter((row) => !row.hidden)"""
        )
    )


def button(page: Page, name: str) -> Locator:
    """Return the button with exactly this name."""
    return page.get_by_role("button", name=name, exact=True)


def written(page: Page) -> str:
    """Return the tokens after the prompt as text."""
    return page.locator(".text .written").text_content() or ""


def open_case(visit: Visit, engines: Callable[[str], Engine], case: str) -> tuple[Page, Expected]:
    """Open the page of a case, and return it with the numbers that it must show."""
    hash, settings = CASES[case]
    page = visit(hash)
    ready(page)
    name = re.search(r"model=(\w+)", hash)
    engine = engines(name[1] if name else "tales")
    return page, Expected(engine, chips(page), settings)


# ---- 1. tokens ----


def test_the_strip_shows_the_ids_that_the_model_reads(
    visit: Visit, engines: Callable[[str], Engine]
) -> None:
    """The strip has the ids of Engine.encode; blanks and bytes of split characters are visible."""
    page = visit("#prompt=Once+upon+%ED%95%9C%0A")
    ready(page)
    assert chips(page) == engines("tales").encode("Once upon 한\n")
    pieces = page.locator(".chips .piece").all_inner_texts()
    assert pieces[-1] == "↵" and "⟨" in "".join(pieces) and "␣u" in "".join(pieces)
    typed = page.get_by_label("Your beginning of the text")
    typed.fill("Then")
    typed.blur()
    expect(page.locator(".text")).to_have_text("Then")
    assert chips(page) == engines("tales").encode("Then")


def test_the_replay_shows_the_merges_of_the_word(
    visit: Visit, engines: Callable[[str], Engine]
) -> None:
    """The replay goes from the bytes of a word to its tokens, a merge a step."""
    page = visit(f"#{ONCE}")
    ready(page)
    page.locator(".chips button").nth(2).click()  # of the word "Once"
    slider = page.get_by_label("Step of the replay")
    slider.wait_for()
    tokenizer = engines("tales").tokenizer
    steps = tokenizer.merges("Once")
    assert len(steps) > 1
    for n in reversed(range(len(steps))):
        pieces = page.locator(".merge-pieces .piece").all_inner_texts()
        assert pieces == [piece.decode() for piece in steps[n]]
        slider.press("ArrowLeft")
    assert pieces == ["O", "n", "c", "e"]


def test_a_token_of_the_past_is_gone_back_to_by_the_keyboard(visit: Visit) -> None:
    """Arrow keys move along the strip, Enter shows a token, and its button returns to it."""
    page = visit(f"#{ONCE}&path=292.269.468")
    ready(page)
    ids = chips(page)
    page.locator(".chips button[tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.innerText").endswith("269")
    button(page, "Go back to here").click()
    assert chips(page) == ids[:-1]
    assert page.evaluate("document.activeElement.closest('.chips') !== null")


# ---- 2. the ladder ----


@pytest.mark.parametrize("case", CASES)
def test_the_ladder_is_that_of_sampling(
    visit: Visit, engines: Callable[[str], Engine], case: str
) -> None:
    """At each step the ladder has the probabilities, the number left and the choices."""
    page, expected = open_case(visit, engines, case)
    names = {"raw": expected.raw, **expected.steps}
    steps = page.locator(".steps label")
    assert page.locator(".steps input").evaluate_all("all => all.map((x) => x.value)") == [*names]
    best = expected.raw.argsort(descending=True, stable=True).tolist()
    for n, (name, p) in enumerate(names.items()):
        steps.nth(n).click()
        *tokens, last = rows(page)
        others = last if last["id"] is None else None
        shown = [row["id"] for row in tokens]
        assert len(set(shown)) == N_ROWS and len(set(shown) & set(best[:N_ROWS])) >= N_ROWS - 1
        total = 0.0
        for row in tokens:
            before, after, summed = row["cells"]
            assert same_percent(before, float(expected.raw[row["id"]])), row
            assert same_percent(after, float(p[row["id"]])), (name, row)
            total += float(p[row["id"]])
            assert row["cut"] == (p[row["id"]] == 0)
            assert summed == "" if row["cut"] else same_percent(summed, total)
        n_others = len(p) - N_ROWS
        assert others and others["name"].strip() == f"{n_others:,} others"
        hidden = p.clone()
        hidden[shown] = 0
        assert same_percent(others["cells"][1], float(hidden.sum()))
        nats = abs(float((p[p > 0] * p[p > 0].log()).sum()))
        left = page.locator(".left").inner_text()
        assert left == (
            f"Tokens left: {int((p > 0).sum()):,}. "
            f"As uncertain as {math.exp(nats):,.1f} equal choices ({nats / math.log(2):.2f} bits)."
        )


def test_the_ladder_names_the_filter_that_cuts(
    visit: Visit, engines: Callable[[str], Engine]
) -> None:
    """The first token that each filter cuts has the filter's name."""
    page = visit(f"#{ONCE}&top_k=8&min_p=0.3")
    ready(page)
    settings = Sampling(top_k=8, min_p=0.3)
    expected = Expected(engines("tales"), chips(page), settings)
    cutter: dict[str, int] = {}
    for row in rows(page)[:N_ROWS]:
        if row["cut"]:
            by = next(name for name, p in expected.steps.items() if p[row["id"]] == 0)
            words = f"cut by {by.replace('_', '-')}"
            assert (words in row["name"]) == (by not in cutter), row
            cutter[by] = row["id"]
    assert set(cutter) == {"top_k", "min_p"}


def test_a_slider_moves_the_ladder(visit: Visit, engines: Callable[[str], Engine]) -> None:
    """A press of an arrow key on a slider changes the probabilities, without another request."""
    page = visit(f"#{ONCE}")
    ready(page)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.get_by_label("Temperature, slider").press("ArrowRight")
    expected = Expected(engines("tales"), chips(page), Sampling(temperature=0.85))
    for row in rows(page)[:N_ROWS]:
        assert same_percent(row["cells"][1], float(expected.final[row["id"]]))
    assert not [url for url in requests if "/api/predict" in url]


def test_a_click_on_a_candidate_appends_it(visit: Visit) -> None:
    """A candidate that is clicked is the next token, and the page says whose choice it was."""
    page = visit(f"#{ONCE}&top_k=3")
    ready(page)
    before = chips(page)
    chosen = next(row for row in rows(page) if row["cut"])
    page.locator(f".ladder tr[data-id='{chosen['id']}'] button").click()
    assert chips(page) == [*before, chosen["id"]]
    page.locator(".chips button").last.click()
    details = page.locator(".token-details").inner_text()
    assert f"chosen by you; its probability was {chosen['cells'][0]}" in details


# ---- 3. the draw ----


@pytest.mark.parametrize("case", CASES)
def test_the_draw_is_that_of_sampling(
    visit: Visit, engines: Callable[[str], Engine], case: str
) -> None:
    """The number u, the ends of the part that it hits, and the token are the library's."""
    page, expected = open_case(visit, engines, case)
    for sample in range(4):
        u = uniform(1337, sample, 0)
        token = expected.token(u)
        page.locator(f".part-draw[data-token='{token}']").wait_for()
        end = float(expected.final.cumsum(0)[token])
        start = end - float(expected.final[token])
        said = page.locator(".draw-result").inner_text()
        found = [float(number) for number in re.findall(r"\d\.\d{4}", said)]
        assert found == pytest.approx([u, start, end], abs=0.51e-4)
        assert same_percent(re.findall(r"[\d.<]+ ?[\d.]* %", said)[-1], end - start)
        button(page, "Another number").click()
        expect(page.locator(".draw-result")).not_to_have_text(said)


def test_cooler_and_warmer_keep_the_number(visit: Visit) -> None:
    """The buttons change the temperature, and the number u stays."""
    page = visit(f"#{ONCE}")
    ready(page)
    u = page.locator(".draw-result").inner_text().split()[2]
    button(page, "Same number, warmer").click()
    assert page.get_by_label("Temperature", exact=True).input_value() == "1.2"
    button(page, "Same number, cooler").click()
    assert page.get_by_label("Temperature", exact=True).input_value() == "0.8"
    assert page.locator(".draw-result").inner_text().split()[2] == u


# ---- 4. step, play ----


WRITING = {
    "usual": ("tales", "Once upon", "", []),
    "all": ("tales", "Once upon", ALL, [f"--{x.replace('=', ' ')}" for x in ALL.split("&")]),
    "greedy": ("tales", "Once upon", "temperature=0", ["--temperature 0"]),
    "sample 1": ("tales", "The", "sample=1&seed=7", ["--seed 7", "--num_samples 2"]),
    "letters": ("letters", "ab c", "top_k=5", ["--top_k 5"]),
    "wide": ("wide", "ab", "top_k=50&min_p=0", ["--top_k 50", "--min_p 0"]),
}


@pytest.mark.parametrize("case", WRITING)
def test_the_page_writes_the_text_of_sample_py(
    visit: Visit, runs: Path, server: Server, case: str
) -> None:
    """Twelve steps write the text that sample.py writes with the same seed and settings."""
    name, prompt, words, flags = WRITING[case]
    page = visit(f"#model={name}&prompt={prompt}&{words}")
    for _ in range(12):
        ready(page)
        n = len(chips(page))
        button(page, "Step").click()
        expect(page.locator(".chips .id")).to_have_count(n + 1)
        if page.locator(".hint[role='status']", has_text="ended the document").is_visible():
            break
    text = page.locator(".text").text_content()
    asked = [word for flag in ["--max_new_tokens 12", *flags] for word in flag.split()]
    done = server.python(
        ROOT / "sample.py", "--run", name, "--prompt", prompt, *asked,
        cwd=runs.parent, env=environment(runs.parent),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    samples = [each.strip("\n") for each in re.split(r"\n-{60}\n?", done.stdout)]
    assert text and (text.strip("\n") == samples[1 if case == "sample 1" else 0])


def test_play_writes_until_it_is_paused(visit: Visit, engines: Callable[[str], Engine]) -> None:
    """Play appends the library's tokens until Pause; Back takes one, To the prompt all of them."""
    engine = engines("tales")
    start, length = engine.encode("Once upon"), 300  # tokens: more than it writes before Pause
    seed = next(  # of a long document, as Play stops at its end
        seed
        for seed in range(1000)
        if len([*engine.generate([start], PLAIN, max_new_tokens=length, seed=seed)]) == length
    )
    page = visit(f"#{ONCE}&min_p=0&temperature=1&seed={seed}")
    ready(page)
    prompt = chips(page)
    page.get_by_label("Speed").press("End")
    button(page, "Play").click()
    page.locator(".chips .id").nth(15).wait_for()
    button(page, "Pause").click()
    button(page, "Play").wait_for()
    ready(page)
    ids = chips(page)
    n = len(ids) - len(prompt)
    tokens = engine.generate([prompt], PLAIN, max_new_tokens=n, seed=seed)
    assert ids[len(prompt) :] == [token.id for (token,) in tokens]
    button(page, "Back").click()
    assert chips(page) == ids[:-1]
    button(page, "To the prompt").click()
    assert chips(page) == prompt and written(page) == ""
    assert button(page, "Back").is_disabled() and button(page, "To the prompt").is_disabled()


def test_play_ends_with_the_document(visit: Visit, engines: Callable[[str], Engine]) -> None:
    """Play stops after the end-of-text token, and says so."""
    engine = engines("tales")
    end = engine.tokenizer.end_of_text
    prompt = engine.encode("Once upon")
    texts = (
        (sample, [token.id for (token,) in engine.generate(
            [prompt], PLAIN, max_new_tokens=12, seed=3, samples=[sample])])
        for sample in range(400)
    )  # fmt: skip
    sample, ids = next((sample, ids) for sample, ids in texts if 0 < len(ids) < 12)
    page = visit(f"#{ONCE}&min_p=0&temperature=1&seed=3&sample={sample}")
    ready(page)
    page.get_by_label("Speed").press("End")
    button(page, "Play").click()
    page.get_by_text("The model ended the document here.").wait_for()
    assert button(page, "Play").is_visible()
    assert chips(page) == [*prompt, *ids, end][: len(prompt) + len(ids) + (ids[-1] != end)]


def test_play_stops_for_another_prompt(visit: Visit, engines: Callable[[str], Engine]) -> None:
    """A prompt that is typed while the page writes ends the writing; its own text begins."""
    page = visit(f"#{ONCE}")
    ready(page)
    page.get_by_label("Speed").press("End")
    button(page, "Play").click()
    page.locator(".chips .id").nth(10).wait_for()
    page.get_by_label("Your beginning of the text").fill("Then")
    expect(page.locator(".text .given")).to_have_text("Then")
    button(page, "Play").wait_for()
    assert chips(page)[:2] == engines("tales").encode("Then")[:2] and len(written(page)) < 20


# ---- the whole stage ----


def test_a_copied_address_shows_the_same(visit: Visit) -> None:
    """A new window with the address has the same text, settings, choices and language."""
    page = visit(f"#{ONCE}&seed=5&sample=2&{ALL}&theme=dark&tab=cache")
    for _ in range(2):
        ready(page)
        button(page, "Step").click()
    ready(page)
    page.locator(".ladder button.token").nth(4).click()
    page.get_by_label("Language").select_option("ko")
    ready(page)
    until(page, "location.hash.includes('language=ko')")  # the last change is in the address
    other = visit(page.url[page.url.index("#") :])
    ready(other)
    assert len(chips(page)) > 4 and chips(other) == chips(page)
    assert rows(other) == rows(page)
    for locator in (".text", ".draw-result", ".part-settings", ".draw-result + .row + .hint"):
        assert other.locator(locator).text_content() == page.locator(locator).text_content()
    values = "all => all.map((input) => input.value)"
    inputs = "input, select, textarea"
    assert other.locator(inputs).evaluate_all(values) == page.locator(inputs).evaluate_all(values)
    assert other.locator(".chip.forced").count() == 1


def test_a_wrong_address_shows_a_first_visit(visit: Visit) -> None:
    """Words of an address that mean nothing are left out."""
    page = visit("#model=nobody&seed=x&temperature=-1&top_k=0&path=99999999.x&tab=none&language=xx")
    ready(page)
    assert page.locator("#head-model").input_value() == "tales"
    assert page.get_by_label("Temperature", exact=True).input_value() == "0.8"
    assert written(page) == ""


@pytest.mark.parametrize("name", RUNS)
def test_a_first_visit_shows_a_choice(visit: Visit, name: str) -> None:
    """Without a prompt in the address, the page begins where several tokens may follow."""
    page = visit(f"#model={name}")
    ready(page)
    assert sum(not row["cut"] for row in rows(page)[:N_ROWS]) > 1 or name in TEXTS
    assert page.locator("#problem").text_content() == ""
    assert chips(page)


def test_another_model_begins_with_a_prompt_of_its_own(visit: Visit) -> None:
    """A prompt that the page has chosen goes with its model; one of the reader stays."""
    page = visit()
    box = page.get_by_label("Your beginning of the text")
    first = box.input_value()
    page.locator("#head-model").select_option("letters")
    page.locator("#head .facts", has_text=f"{N_LETTERS + 1} tokens").wait_for()
    assert box.input_value() != first and page.locator("#problem").text_content() == ""
    box.fill("ab")
    box.blur()
    expect(page.locator(".text")).to_have_text("ab")
    page.locator("#head-model").select_option("tales")
    page.locator("#head .facts", has_text="512 tokens").wait_for()
    assert box.input_value() == "ab"


def test_a_checkpoint_that_is_not_there_is_named(visit: Visit) -> None:
    """A missing step shows the served model, and says so until there is another text."""
    page = visit(f"#{ONCE}&step=999")
    ready(page)
    said = page.locator("#problem")
    assert "no checkpoint of step 999" in (said.text_content() or "")
    assert "checkpoint 60" in page.locator("#head .facts").inner_text()
    page.get_by_label("Your beginning of the text").fill("Then")
    expect(said).to_have_text("")


def test_all_numbers_can_be_saved(
    visit: Visit, engines: Callable[[str], Engine], tmp_path: Path
) -> None:
    """The JSON file has the text, its tree, the settings and the probabilities."""
    page = visit(f"#{ONCE}&{ALL}")
    ready(page)
    button(page, "Step").click()
    ready(page)
    with page.expect_download() as download:
        button(page, "Save as JSON").click()
    download.value.save_as(tmp_path / "saved.json")
    saved = json.loads((tmp_path / "saved.json").read_text())
    expected = Expected(engines("tales"), chips(page), SETTINGS)
    assert saved["ids"] == chips(page) and saved["prompt"] == "Once upon"
    assert Sampling(**saved["settings"]) == SETTINGS and (saved["seed"], saved["sample"]) == (
        1337,
        0,
    )
    assert saved["text"] == page.locator(".text").text_content()
    assert [each["token"] for each in saved["tree"]["next"]] == chips(page)[-1:]
    torch.testing.assert_close(torch.tensor(saved["next"]["predicted"]).double(), expected.raw)
    after = torch.tensor(saved["next"]["after_filters"]).double()
    torch.testing.assert_close(after, expected.final)
    assert saved["next"]["token"] == expected.token(saved["next"]["u"])


def test_each_word_of_the_stage_is_translated(visit: Visit) -> None:
    """In Korean the stage has no English sentence, and the choice of a language changes it."""
    page = visit(f"#{ONCE}", language="ko-KR")
    ready(page)
    stage = page.locator("#stage")
    korean = stage.inner_text()
    assert page.evaluate("document.documentElement.lang") == "ko"
    for line in korean.splitlines():
        assert not re.search(r"\b(the|of|token|tokens|after|draw)\b", line), line
    page.get_by_label("언어").select_option("en")
    button(page, "Step").wait_for()
    assert "Probabilities of the next token" in stage.inner_text()
    page.get_by_label("Language").select_option("ko")
    assert stage.inner_text() == korean


def test_the_page_waits_for_a_server_that_is_away(visit: Visit, problems: list[str]) -> None:
    """Without a server the page says so; when the server is back, the page continues by itself."""
    page = visit(f"#{ONCE}")
    ready(page)
    n = len(chips(page))
    page.context.set_offline(True)
    button(page, "Step").click()
    page.get_by_text("The server does not answer").wait_for()
    page.get_by_text("computing …").wait_for()
    assert len(chips(page)) == n + 1 and page.locator("table.ladder").is_hidden()
    page.context.set_offline(False)
    ready(page)
    assert not page.get_by_text("The server does not answer").is_visible()
    button(page, "Step").click()
    expect(page.locator(".chips .id")).to_have_count(n + 2)
    assert problems and all("net::ERR_INTERNET_DISCONNECTED" in each for each in problems)
    problems.clear()


def test_a_text_longer_than_the_context_is_said_to_be_cut(
    visit: Visit, engines: Callable[[str], Engine]
) -> None:
    """The page says how many tokens the model no longer sees, and predicts from the others."""
    page = visit(f"#prompt={'Once+upon+a+time+'.replace('+', '%20') * 12}")
    ready(page)
    engine = engines("tales")
    ids = engine.encode("Once upon a time " * 12)
    assert chips(page) == ids
    cut = len(ids) - context_length(len(ids), 64)
    assert cut > 0
    page.get_by_text(f"the model no longer sees its first {cut} tokens").wait_for()
    expected = Expected(engine, ids, Sampling())
    for row in rows(page)[:N_ROWS]:
        assert same_percent(row["cells"][0], float(expected.raw[row["id"]]))
    page.get_by_label("Your beginning of the text").fill("Once")
    expect(page.locator(".text")).to_have_text("Once")
    expect(page.get_by_text("the model no longer sees")).to_be_hidden()


HURRY = """async () => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const press = (name) => all('#stage button').find((b) => b.innerText === name).click();
    const change = (element, value) => {
        element.value = value;
        element.dispatchEvent(new Event('input', { bubbles: true }));
        element.dispatchEvent(new Event('change', { bubbles: true }));
    };
    const prompt = document.getElementById('prompt');
    const model = document.getElementById('head-model');
    const slider = document.querySelector('.setting input[type=range]');
    const actions = [
        () => press('Step'), () => press('Back'), () => change(prompt, 'Once upon'),
        () => change(slider, '1.2'), () => change(model, 'letters'), () => press('Step'),
        () => press('Another number'), () => change(prompt, 'ab'),
        () => change(slider, '0.5'),
        () => change(model, 'tales'), () => document.querySelector('.ladder button').click(),
        () => press('To the prompt'), () => press('Step'), () => press('Step'),
    ];
    const seen = {};
    const look = () => {
        if (document.querySelector('.ladder').getAttribute('aria-busy') === 'true') return;
        const ids = all('.chips .id').map((id) => Number(id.innerText));
        const cells = all('.ladder tbody tr[data-id]:not([hidden])').map((row) => [
            Number(row.dataset.id), row.querySelector('td').innerText,
        ]);
        const facts = document.querySelector('.facts').innerText;
        seen[JSON.stringify([facts, ids])] ??= { facts, ids, cells };
    };
    for (let n = 0; n < 150; n++) {
        actions[(n * n + 3 * n) % actions.length]();
        look();
        await new Promise((done) => setTimeout(done, n % 5 ? 3 : 40));
        look();
    }
    return Object.values(seen);
}"""


def test_numbers_and_text_always_belong_together(
    visit: Visit, engines: Callable[[str], Engine]
) -> None:
    """However fast a person acts, the ladder never shows the prediction of another text."""
    page = visit(f"#{ONCE}")
    ready(page)
    seen = page.evaluate(HURRY)
    assert len(seen) > 5 and len({each["facts"] for each in seen}) == 2
    for each in seen:
        engine = engines("tales" if " 512 " in each["facts"] else "letters")
        expected = Expected(engine, each["ids"], Sampling())
        assert len(each["cells"]) == N_ROWS
        for id, words in each["cells"]:
            assert same_percent(words, float(expected.raw[id])), each


def test_each_title_opens_the_code_of_its_stage(visit: Visit) -> None:
    """The button beside a title shows a function of the library in the panel with the code."""
    page = visit(f"#{ONCE}")
    ready(page)
    for part, line in {
        "play": "def naive_generate(", "tokens": "def encode(", "settings": "def filter_steps(",
        "ladder": "def min_p(", "draw": "def inverse_cdf(",
    }.items():  # fmt: skip
        page.locator(f".part-{part} .show-code").click()
        page.locator("#panel-code").get_by_text(line).wait_for()
        assert page.evaluate("document.activeElement.id") == "tab-code"
    page.locator(".steps label").first.click()
    page.locator(".part-ladder .show-code").click()
    page.locator("#panel-code").get_by_text("def forward(").wait_for()


def test_the_stage_is_accessible(visit: Visit) -> None:
    """axe finds nothing wrong with the head and the stage, in either scheme of colours."""
    from axe_playwright_python.sync_playwright import Axe

    page = visit(f"#{ONCE}&top_k=9")
    ready(page)
    button(page, "Step").click()
    ready(page)
    page.locator(".ladder button.token").nth(5).click()
    ready(page)
    page.locator(".chips button").nth(2).click()
    page.get_by_label("Step of the replay").wait_for()
    parts = {"include": [["#head"], ["#stage"]]}
    for scheme, width in itertools.product(("light", "dark"), (360, 800, 1280, 1920)):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        settle(page)
        found = Axe().run(page, context=parts).response["violations"]
        faults = [(each["id"], each["nodes"][0]["html"]) for each in found]
        assert faults == [], (scheme, width)
    assert page.locator("h1").count() == 1
    levels = page.evaluate(
        "() => [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("name", RUNS)
def test_the_stage_never_scrolls_sideways(visit: Visit, name: str) -> None:
    """With any model and at any width, the page needs no more room than the window has."""
    page = visit(f"#model={name}&temperature=1&min_p=0")
    ready(page)
    for _ in range(3):
        button(page, "Step").click()
        ready(page)
    for width in (360, 800, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_prompt_that_the_model_cannot_read_is_refused(visit: Visit, problems: list[str]) -> None:
    """A letter that the model does not know is named, and the text before it stays."""
    page = visit("#model=letters&prompt=ab")
    ready(page)
    page.get_by_label("Your beginning of the text").fill("ab é")
    page.locator("#problem", has_text="é").wait_for()
    assert page.locator(".text").text_content() == "ab"
    other = visit("#model=letters&prompt=%C3%A9")
    ready(other)
    other.locator("#problem", has_text="é").wait_for()
    ready(other)  # with another prompt
    assert chips(other) and rows(other)
    assert len(problems) == 2 and all("/api/tokens" in each for each in problems)
    problems.clear()
