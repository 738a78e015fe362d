"""The template: how the messages of a conversation become one text, of which parts are answers.

A model continues a text and knows nothing of messages, so a template writes them as text, the same
in training and when the model is asked. This one is for models that have none, such as those that
are trained here; a chat model brings its own (files/chat_template.py). This one has no special
tokens, so a model that was trained on tales can learn it with the tokens that it has:

    user:
    Who is the hero?
    assistant:
    Little Fox                      <- the answer; END_OF_TEXT ends it
    user:
    ...

No character comes between the line `assistant:` and the answer, and none after the answer. A text
can spell the name of a role, too, so the roles of untrusted text are not safe with this template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

ANSWERS = "assistant"  # the role that the model plays
ROLES = ("system", "user", ANSWERS)


class Part(NamedTuple):
    """A part of an example: read by the model, or to be written by it.

    is_special: control tokens in the text are read as such, so an answer has its own end. Else they
        are read as letters, and END_OF_TEXT ends an answer.
    """

    text: str
    is_answer: bool
    is_special: bool = False


Template = Callable[[Sequence[Mapping[str, str]]], list[Part]]  # of `render`, or of a chat model


def render(messages: Iterable[Mapping[str, str]]) -> list[Part]:
    r"""Return the parts of a conversation: first one that is read, then an answer, and so on.

    Args:
        messages: each with its `role`, one of ROLES, and its `content`.

    Messages after the last answer are left out, because nothing in them is to be learnt.

    >>> hello = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    >>> [part.text for part in render(hello)]
    ['user:\nHi\nassistant:\n', 'Ho']
    """
    parts, read = list[Part](), ""
    for message in messages:
        read += f"{message['role']}:\n"
        if message["role"] == ANSWERS:
            parts += [Part(read, False), Part(message["content"], True)]
            read = ""
        else:
            read += f"{message['content']}\n"
    return parts
