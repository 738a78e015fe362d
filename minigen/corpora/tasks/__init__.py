"""Tasks: a corpus of questions and answers, to teach a model that has learnt the tales to answer.

An example is a line of JSON, with a prompt and its completion:

    {"prompt": "socks nuts pies. Say them backwards.", "completion": " pies nuts socks", ...}
    {"prompt": "nine two five. Sort them. Then say the last.", "completion": " two five nine: nine"}

A question is about a tale, a sentence or a list in the words of the tales, so a model of the tales
has only to learn what is asked. It has one step or two, and the answer shows the result of each. So
a second step asks about the words that the model has just written, and a model can do two steps one
after the other that it never saw together (Nye et al. 2021 call such results a scratchpad). Such
*held-out* kinds of questions are in held_out.jsonl, and in no training text.

    python -m minigen corpus tasks --count 3          # print some examples
    python -m minigen corpus tasks --check FILE       # check the answers of a file
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigen.corpora.genre import save_text
from minigen.corpora.tasks.check import check, check_answer, kind_of, right_answers
from minigen.corpora.tasks.generate import SPLITS, VERSION, Example, documents, example, write
from minigen.corpora.tasks.tables import HELD_OUT, TRAINED

__all__ = [
    "ENDINGS",
    "HELD_OUT",
    "NOUN",
    "SPLITS",
    "TRAINED",
    "VERSION",
    "Example",
    "check",
    "check_answer",
    "documents",
    "example",
    "kind_of",
    "right_answers",
    "save",
    "show",
    "write",
]

NOUN, ENDINGS = "question", (".jsonl",)


def show(text: str) -> str:
    """Return the line unchanged: it has no colours."""
    return text


def save(texts: Sequence[str], path: Path) -> None:
    """Write examples as JSON Lines. Raises `UserError` if the file cannot be written."""
    save_text(texts, path, "\n")
