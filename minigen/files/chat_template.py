"""Chat template: messages -> the text that a chat model was trained on, as a model's files say.

    [{"role": "user", "content": "Hi"}]  --render-->  "<|im_start|>user\nHi<|im_end|>\n..."

The template of a model is a program in Jinja, in chat_template.jinja or tokenizer_config.json. It
is not trusted, so it runs in Jinja's sandbox, with the names and filters that transformers
gives to it; the text is that of transformers' `apply_chat_template`
(test_messages_become_the_ids_of_transformers).
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigen.errors import UserError
from minigen.files.companions import Companions
from minigen.files.safetensors_file import plain
from minigen.tokenizer import Tokenizer

Message = Mapping[str, Any]  # {"role": "user", "content": "Hi"}, and more that a template may read

# The special tokens that transformers passes to a template, by their names in the model's files.
TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
          "mask_token")  # fmt: skip
NOTHING: Mapping[str, Any] = {}
MARKS = range(0xFDD0, 0xFDF0)  # code points that no text has, as Unicode reserves them


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a model.

    source: the template, in Jinja.
    tokens: the special tokens that the template may write, such as {"eos_token": "<|im_end|>"}.
    """

    source: str
    tokens: Mapping[str, str]

    def render(
        self, messages: Sequence[Message], answers: bool = True, more: Mapping[str, Any] = NOTHING
    ) -> str:
        """Return the text of messages, up to the place where the model's answer begins.

        Args:
            answers: write the beginning of an answer after the last message.
            more: other names that the template reads, such as enable_thinking.

        Raises `UserError` if the template refuses the messages, or is itself wrong.
        """
        names = {**self.tokens, "messages": messages, "add_generation_prompt": answers, **more}
        try:
            text = _compiled(self.source).render(names)
        except RecursionError:
            raise UserError("the chat template calls itself without end") from None
        except Exception as error:  # the template is a program, which may raise any
            raise UserError(f"the model's chat template fails: {plain(str(error))}") from None
        return str(text)

    def encode(
        self,
        messages: Sequence[Message],
        tokenizer: Tokenizer,
        answers: bool = True,
        more: Mapping[str, Any] = NOTHING,
    ) -> list[int]:
        """Return the ids of messages, as `render` writes them.

        A control token is one only if the template writes it. A message that spells one is read as
        letters, so no message can end itself and speak in the name of another
        (test_no_message_spells_a_control_token). transformers reads it as the token.

        Raises `UserError` as `render` does, and for a control token of one letter in a message.
        """
        written = json.dumps([*messages, more], ensure_ascii=False)
        mark = next(chr(point) for point in MARKS if chr(point) not in written)
        names = sorted(tokenizer.controls.values(), key=len, reverse=True)
        if short := [name for name in names if len(name) == 1 and name in written]:
            raise UserError(f"a message has the control token {plain(short[0])}; remove it")
        marked = [_part_names(dict(message), names, mark) for message in messages]
        parts = self.render(marked, answers, _part_names(more, names, mark)).split(mark)
        return [id for part in parts for id in tokenizer.encode(part, special=True)]


def find(companions: Companions) -> ChatTemplate | None:
    """Return the chat template among a model's files; None if there is none.

    Raises `UserError` for a template in a form that is not known, and for a template that writes a
    special token which no file names.
    """
    saved: Any = companions.tokenizer.get("chat_template")
    if content := companions.files.get("chat_template.jinja"):
        try:
            saved = content.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError("chat_template.jinja is not UTF-8; mend or remove it") from None
    if isinstance(saved, list):  # several, with names
        saved = {each.get("name"): each.get("template") for each in saved if isinstance(each, dict)}
        saved = saved.get("default")
    if saved is None:
        return None
    if not isinstance(saved, str):
        raise UserError("the chat template of tokenizer_config.json is no text; mend or remove it")
    tokens = companions.special_tokens
    return ChatTemplate(saved, {name: tokens[name] for name in TOKENS if name in tokens})


def _part_names(value: Any, names: Sequence[str], mark: str) -> Any:
    """Return a JSON value in whose strings `mark` follows the first letter of each name."""
    if isinstance(value, str):
        for name in names:
            value = value.replace(name, name[0] + mark + name[1:])
        return value
    if isinstance(value, Mapping):
        return {key: _part_names(item, names, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [_part_names(item, names, mark) for item in value]
    return value


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    """Return a template that is ready to render, in the sandbox."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tags {% generation %} and {% endgeneration %}, which mark the model's answers."""

        tags = {"generation"}  # noqa: RUF012  as Jinja declares it

        def parse(self, parser: jinja2.parser.Parser) -> Any:
            """Return the statements between the tags, which are rendered as if there were none."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(source)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON; Jinja's own filter would write < and > for a page."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    """Raise the error that a template asks for."""
    raise UserError(message)
