"""The conversation with a model, in a real browser: its answers are those of the chat API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import chat_models
import httpx
import pytest
from absent import absent
from forks import Server
from models import varied_model
from serving import Served, serve
from test_chat import ENDS, TEMPLATES
from until import settle, until

import minigen
from minigen.data.pairs import encode_example
from minigen.files import checkpoint
from minigen.files.chat_template import renderer, with_template
from minigen.inference.engine import Engine
from minigen.model import GPTConfig
from minigen.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    Visit = Callable[..., Page]

MODELS = ("friend", "endless", "base")
FIRST, SECOND = "the goat", "and <|im_end|> <b>the owl</b>?"
SETTINGS = {"temperature": 1.2, "top_k": 200, "top_p": 0.9, "min_p": 0.01}
SETTINGS |= {"repetition_penalty": 1.1, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save random models, which the tests ask.

    `friend` has control tokens and several ends. `endless` has a context of 2^17 tokens, and at
    temperature 0 its answers have no end. `base` continues a text.
    """
    folder = tmp_path_factory.mktemp("chat")
    chat_models.make(folder / "friend", {"eos_token_id": ENDS}, chat_template=TEMPLATES["turns"])
    chat_models.make(folder / "base")
    tokenizer = train_tokenizer("byte", [])
    model = varied_model(GPTConfig.modern(tokenizer.n_vocab, 2**17, 1, 2, 16))
    state, companions = {"step": 1, "val_loss": 1.0}, with_template(None, tokenizer)
    checkpoint.save(folder / "endless", model, tokenizer, {}, state, companions)
    return folder


@pytest.fixture(scope="module")
def served(chromium: str, folder: Path, server: Server) -> Iterator[Served]:
    """Serve these models in the place of those of the other tests."""
    with serve(server, folder, *(str(folder / name) for name in MODELS)) as served:
        yield served


@pytest.fixture(scope="module")
def friend(folder: Path) -> Engine:
    """Return the library's model."""
    return minigen.load(folder / "friend")


def opened(
    visit: Visit, model: str = "friend", words: dict[str, Any] = SETTINGS, **window: Any
) -> Page:
    """Open the page with the conversation of a model."""
    return visit("#" + urlencode({"tab": "chat", "model": model, **words}), **window)


def button(page: Page, name: str) -> Locator:
    """Return a button of the panel."""
    return page.locator("#panel-chat").get_by_role("button", name=name, exact=True)


def complete(page: Page) -> None:
    """Wait until no answer is being written."""
    until(page, "document.querySelector('.chat-log').ariaBusy === 'false'")
    settle(page)


def say(page: Page, *messages: str) -> list[dict[str, str]]:
    """Send messages, and wait for each answer; return all messages of the conversation."""
    for message in messages:
        page.get_by_label("Your message").fill(message)
        page.keyboard.press("Enter")
        complete(page)
    return conversation(page)


def conversation(page: Page) -> list[dict[str, str]]:
    """Return the messages on the page."""
    return [
        {"role": each.get_attribute("class").rpartition("chat-")[2],  # type: ignore[union-attr]
         "content": (each.locator(".chat-text").text_content() or "").replace("(nothing)", "")}
        for each in page.locator(".chat-message").all()
    ]  # fmt: skip


def answer(served: Served, messages: list[dict[str, str]], **words: Any) -> str:
    """Return the answer of the chat API."""
    body = {"model": "friend", "messages": messages, **SETTINGS, **words}
    reply = httpx.post(f"{served.address}/v1/chat/completions", json=body, timeout=60)
    return str(reply.json()["choices"][0]["message"]["content"])


def shown(page: Page, selector: str = "") -> list[int]:
    """Return the ids of the tokens that the panel shows."""
    found = page.locator(f".chat-tokens .chip{selector} .id").all_inner_texts()
    return [int(id) for id in found]


def test_the_answers_are_those_of_the_chat_api(visit: Visit, served: Served) -> None:
    """With the settings and the seed of the page, each answer follows from all messages before."""
    page = opened(visit)
    messages = say(page, FIRST, SECOND)
    assert [each["content"] for each in messages[::2]] == [FIRST, SECOND]
    assert [each["role"] for each in messages] == ["user", "assistant"] * 2
    for n in (1, 3):
        assert messages[n]["content"] == answer(served, messages[:n])
    assert page.locator(".chat-message b").count() == 0  # a message is no markup
    assert page.locator(".chat-message .hint").first.inner_text().startswith("seed 5; ")


def test_an_answer_can_be_drawn_again(visit: Visit, served: Served) -> None:
    """Again, the same seed gives the same answer; another seed or setting gives the API's other."""
    page = opened(visit)
    first = say(page, FIRST)
    button(page, "Answer again").click()
    complete(page)
    assert conversation(page) == first
    button(page, "Next seed").click()
    complete(page)
    assert conversation(page)[-1]["content"] == answer(served, first[:1], seed=6)
    assert page.locator("#settings-seed").input_value() == "6"
    page.locator("input#settings-temperature").fill("0")
    button(page, "Answer again").click()
    complete(page)
    cold = answer(served, first[:1], seed=6, temperature=0)
    assert conversation(page) == [*first[:1], {"role": "assistant", "content": cold}]
    button(page, "New conversation").click()
    assert conversation(page) == []
    assert page.evaluate("document.activeElement.id") == "chat-message"


def test_stop_ends_an_answer(visit: Visit) -> None:
    """A stopped answer keeps its beginning, and the next message is answered after it."""
    page = opened(visit, "endless", {"temperature": 0})
    page.get_by_label("Your message").fill("a")
    button(page, "Send").click()
    until(page, "document.querySelector('.chat-assistant .chat-text')?.textContent.length > 9")
    button(page, "Stop").click()
    complete(page)
    stopped = conversation(page)
    assert "stopped before its end" in page.locator(".chat-assistant .hint").inner_text()
    settle(page)
    assert conversation(page) == stopped and len(stopped) == 2
    page.get_by_label("Your message").fill("b")
    button(page, "Send").click()
    until(page, "document.querySelectorAll('.chat-text')[3]?.textContent.length > 9")
    button(page, "New conversation").click()  # which ends the answer, too
    complete(page)
    assert conversation(page) == []


def test_enter_sends_a_message_that_is_complete(visit: Visit) -> None:
    """Enter sends; not with Shift, which begins a line, and not while a syllable is composed."""
    page = opened(visit)
    page.get_by_label("Your message").fill("a")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("b")
    page.evaluate(
        """document.activeElement.dispatchEvent(
        new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"""
    )
    settle(page)
    assert conversation(page) == []
    page.keyboard.press("Enter")
    complete(page)
    assert conversation(page)[0]["content"] == "a\nb"
    assert page.get_by_label("Your message").input_value() == ""


def test_the_tokens_are_those_that_the_model_reads(visit: Visit, friend: Engine) -> None:
    """The tokens are those of `Engine.encode_chat`, the control tokens and answers stand out.

    A message that spells a control token has letters. The message in the box is shown before it is
    sent.
    """
    page = opened(visit)
    page.get_by_label("As the model reads it").check()
    page.get_by_text("Type a message, and see its tokens here.").wait_for()
    page.get_by_label("Your message").fill(SECOND)
    settle(page)
    ids = friend.encode_chat([{"role": "user", "content": SECOND}])
    assert shown(page) == ids
    controls = friend.tokenizer.controls.keys()
    assert shown(page, ".control") == [id for id in ids if id in controls]
    assert shown(page, ".new") == []
    messages = say(page, FIRST)
    parts = renderer(friend.companions, friend.tokenizer)(messages)
    example = encode_example(parts, friend.tokenizer)
    assert shown(page) == example.ids.tolist()
    assert shown(page, ".new") == example.ids[example.is_answer].tolist()
    messages.append({"role": "user", "content": SECOND})
    page.get_by_label("Your message").fill(SECOND)
    settle(page)
    assert shown(page) == friend.encode_chat(messages)
    assert shown(page, ".new") == example.ids[example.is_answer].tolist()


def test_the_page_looks_inside_a_conversation(visit: Visit, friend: Engine) -> None:
    """The text of the page becomes what the model read, and its steps draw the same answer."""
    page = opened(visit, words={"seed": 5, "sample": 3})
    messages = say(page, FIRST)
    page.get_by_label("As the model reads it").check()
    button(page, "Look inside").click()
    settle(page)
    strip = page.locator(".part-tokens .chips .id")
    asked = friend.encode_chat(messages[:1])
    assert list(map(int, strip.all_inner_texts())) == asked
    n = 2
    for _ in range(n):
        page.get_by_role("button", name="Step", exact=True).click()
        settle(page)
    drawn = list(map(int, strip.all_inner_texts()))[len(asked) :]
    assert (
        friend.tokenizer.decode(drawn)
        == messages[1]["content"][: len(friend.tokenizer.decode(drawn))]
    )
    button(page, "New conversation").click()
    page.get_by_label("Your message").fill(SECOND)
    button(page, "Look inside").click()
    page.get_by_text("a message spells a control token").wait_for()


def test_a_model_without_a_chat_template_says_so(visit: Visit, served: Served) -> None:
    """The sentence is that of the chat API, and a chat model can be chosen then."""
    page = opened(visit, "base")
    body = {"model": "base", "messages": [{"role": "user", "content": "a"}]}
    reply = httpx.post(f"{served.address}/v1/chat/completions", json=body)
    assert reply.status_code == 400
    page.get_by_text(reply.json()["error"]["message"]).wait_for()
    page.get_by_text("python train.py --data FILE.jsonl --init_from MODEL").wait_for()
    assert page.get_by_label("Your message").is_hidden()
    page.locator("#head-model").select_option("friend")
    page.get_by_label("Your message").wait_for()
    assert page.get_by_text("has no chat template").is_hidden()


def test_a_message_that_is_refused_comes_back(visit: Visit, problems: list[str]) -> None:
    """The reason is shown, and the message stands in the box again."""
    page = opened(visit, words={"top_p": 1})
    message = "x" * 1_100_000  # more than the server reads
    page.get_by_label("Your message").fill(message)
    page.keyboard.press("Enter")
    complete(page)
    assert conversation(page) == []
    assert page.locator("#problem").inner_text() != ""
    assert page.get_by_label("Your message").input_value() == message
    assert len(problems) == 1 and "413" in problems.pop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_conversation_is_accessible_and_fits(scheme: str, visit: Visit) -> None:
    """axe finds no violation in a conversation with its tokens, and no width scrolls sideways."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        absent("the package axe-playwright-python is not installed")
    page = opened(visit, scheme=scheme, language="ko" if scheme == "dark" else "en")
    page.locator("#chat-message").fill(SECOND + " " + 300 * "w")
    page.keyboard.press("Enter")
    complete(page)
    page.locator("#panel-chat input[type=checkbox]").check()
    settle(page)
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert Axe().run(page, context="#inside").response["violations"] == []
