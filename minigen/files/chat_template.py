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
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigen.data.template import ANSWERS, Part, Template, render
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
            reason = plain(str(error)) or type(error).__name__  # a MemoryError says nothing
            raise UserError(f"the model's chat template fails: {reason}") from None
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
        [mark], [marked, more] = _without_controls([[*messages], dict(more)], tokenizer, 1)
        parts = self.render(marked, answers, more).split(mark)
        return [id for part in parts for id in tokenizer.encode(part, special=True)]

    def parts(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[Part]:
        """Return the parts of a conversation, to train on: those that are read, and the answers.

        An answer is the text within the template's {% generation %} tags, as in transformers
        (test_answers_are_those_of_the_tags). In a template without them, it begins where the model
        would be asked for it, and ends with the first end token after it.

        Raises `UserError` as `render` does, if the answers are not found, and if the first one has
        nothing before it, so that its first token cannot be learnt.
        """
        marks, [marked] = _without_controls([[*messages]], tokenizer, 3)
        mark, begins, ends = marks
        text = self.render(marked, False, {"answer_begins": begins, "answer_ends": ends})
        if begins not in text:
            text = self._mark_answers(text, marked, tokenizer, begins, ends)
        parts = list[Part]()
        for piece in re.split(f"({begins}.*?{ends})", text, flags=re.DOTALL):
            is_answer = piece.startswith(begins)
            piece = piece.removeprefix(begins).removesuffix(ends)
            parts += [Part(part, is_answer, True) for part in piece.split(mark) if part]
        if not any(part.is_answer for part in parts):
            raise UserError("the model's chat template writes no answer")
        if parts[0].is_answer:
            raise UserError(
                "the model's chat template writes nothing before the answer; begin with a message "
                "of the user"
            )
        return parts

    def find_answers(
        self, messages: Sequence[Message], tokenizer: Tokenizer, ids: Sequence[int]
    ) -> list[bool]:
        """Return of each id of a conversation whether it is of an answer, as the loss counts it.

        A token that an answer shares with the text before it is not of the answer
        (test_the_answers_in_a_conversation_are_those_that_the_loss_counts).

        Args:
            ids: as `encode` returns them.

        Raises `UserError` as `parts` does, and if the tokenizer changes the text that it reads.
        """
        if not any(message["role"] == ANSWERS for message in messages):
            return [False] * len(ids)
        parts = [(part.text.encode(), part.is_answer) for part in self.parts(messages, tokenizer)]
        text = b"".join(data for data, _ in parts)
        if not tokenizer.decode_bytes(ids).startswith(text):
            raise UserError("the tokenizer changes the messages, so their answers are not found")
        of_answer = [is_answer for data, is_answer in parts for _ in data]  # of each byte
        found, start = list[bool](), 0
        for id in ids:
            found.append(start < len(text) and of_answer[start])
            start += len(tokenizer.token_bytes(id))
        return found

    def _mark_answers(
        self, text: str, messages: Sequence[Message], tokenizer: Tokenizer, begins: str, ends: str
    ) -> str:
        """Return the text of messages with a mark before and after each answer and its end."""
        names = [name for id, name in tokenizer.controls.items() if id in tokenizer.stop_ids]
        for number, message in reversed([*enumerate(messages)]):
            if message["role"] != ANSWERS:
                continue
            before = self.render(messages[:number])
            found = [(text.find(name, len(before)), name) for name in names]
            stop = min((at + len(name) for at, name in found if at >= 0), default=None)
            if stop is None or not text.startswith(before):
                raise UserError("the model's chat template does not show where the answers are")
            text = before + begins + text[len(before) : stop] + ends + text[stop:]
        return text


def find(companions: Companions) -> ChatTemplate | None:
    """Return the chat template among a model's files; None if there is none.

    Raises `UserError` for a template that is no text.
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


def renderer(companions: Companions, tokenizer: Tokenizer) -> Template:
    """Return the function that writes messages as parts to train on, for a model's files.

    Raises `UserError` as `find` does.
    """
    template = find(companions)
    if template is None or template.source == plain_source(tokenizer):
        return render
    return lambda messages: template.parts(messages, tokenizer)


def plain_source(tokenizer: Tokenizer) -> str:
    """Return `render` of minigen/data/template.py as a template in Jinja, for other programs.

    Both give the same ids (test_the_plain_template_is_the_same_in_jinja). There are no tags for the
    answers, as llama.cpp knows none.
    """
    begin = [] if tokenizer.bare else tokenizer.encode_prompt("")
    names = [tokenizer.controls.get(id, "") for id in (*begin, tokenizer.end_of_text)]
    return (
        f"{{{{ {''.join(names[:-1])!r} }}}}{{% for m in messages %}}{{{{ m.role + ':\n' }}}}"
        f"{{% if m.role == {ANSWERS!r} %}}{{{{ m.content + {names[-1]!r} }}}}"
        "{% else %}{{ m.content + '\n' }}{% endif %}{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ '{ANSWERS}:\n' }}}}{{% endif %}}"
    )


def with_template(companions: Companions | None, tokenizer: Tokenizer) -> Companions:
    """Return the companions of a model that is trained on messages: with a chat template."""
    companions = Companions() if companions is None else companions
    if find(companions) is not None:
        return companions
    source = plain_source(tokenizer).encode()
    return replace(companions, files={**companions.files, "chat_template.jinja": source})


def _without_controls(
    values: Sequence[Any], tokenizer: Tokenizer, n_marks: int
) -> tuple[list[str], list[Any]]:
    """Return marks that no value has, and JSON values in which the first parts control tokens.

    Raises `UserError` for a control token of one letter.
    """
    written = json.dumps(values, ensure_ascii=False)
    marks = [chr(point) for point in MARKS if chr(point) not in written][:n_marks]
    names = sorted(tokenizer.controls.values(), key=len, reverse=True)
    short = [name for name in names if len(name) == 1 and name in written]
    if short or len(marks) < n_marks:
        name = short[0] if short else chr(MARKS[0])
        raise UserError(f"a message has the character {plain(name)}; remove it")
    return marks, [_part_names(value, names, marks[0]) for value in values]


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
            """Return the statements between the tags, with two names that mark them, or are "".

            Only `ChatTemplate.parts` gives the names a value.
            """
            next(parser.stream)
            begins, ends = (
                jinja2.nodes.Output([jinja2.nodes.Name(name, "load")])
                for name in ("answer_begins", "answer_ends")
            )
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return [begins, *body, ends]

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
