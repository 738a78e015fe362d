"""The command that prints, checks or saves documents of a corpus that a grammar writes.

    python -m minigen corpus tales --count 3                # read some tales
    python -m minigen corpus tunes --check FILE             # check tunes between blank lines
    python -m minigen corpus tunes --save FOLDER            # hear and see them: .abc, .wav, .png
    python -m minigen corpus pictures --save sheet.png      # draw some pictures

A file to check has blank lines or rules between documents.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from minigen.cli import parse
from minigen.corpora import task
from minigen.corpora.task import Task
from minigen.errors import UserError
from minigen.system.streams import ignore_write_errors, shows_colours


@dataclass(frozen=True)
class CorpusConfig:
    """Print documents of a corpus that a grammar writes, or check the documents of a file.

    With --check, each complaint about a document is a line, and only well-formed ones are saved.
    """

    corpus: Positional[Literal["tales", "pictures", "tunes"]]  # of which corpus
    count: int = 3  # how many documents
    seed: int = 0  # other seeds, other documents
    split: str = "train"  # or val, or held_out: with first lines that training never has
    check: str | None = None  # check the documents of this file instead; - is standard input
    save: Path | None = None  # draw a file instead, such as x.png; or fill a folder with all kinds


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(CorpusConfig, argv)
    one = task.get(config.corpus)
    is_file = config.save is not None and config.save.suffix.lower() in one.ENDINGS
    if config.save:  # the files are wanted, even if nobody reads the text
        sys.stdout = ignore_write_errors(sys.stdout)
    if config.check is not None:
        texts = check_file(config.check, one)
    else:
        if config.split not in one.SPLITS:
            raise UserError(f"split is {config.split!r}; give one of {', '.join(one.SPLITS)}")
        documents = one.documents(config.seed, config.split)
        texts = [d.text for d in itertools.islice(documents, max(0, config.count))]
        if not is_file:
            print("\n\n".join(map(one.show, texts) if shows_colours() else texts))
    if config.save and texts:
        save(texts, config.save, one, is_file)


def check_file(path: str, one: Task) -> list[str]:
    """Print complaints about the documents of a file; return the well-formed documents.

    Args:
        path: a file with blank lines or rules between documents; - is standard input.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    lines = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
    texts = [text for text in re.split(r"\n(?:-*\n)+", lines.strip("\n")) if text]
    verdicts = [one.check(text) for text in texts]
    for number, verdict in enumerate(verdicts, 1):
        for complaint in verdict.complaints:
            print(f"{one.NOUN} {number}: {complaint}")
    print(
        f"{len(verdicts)} {one.NOUN}s, {sum(v.well_formed for v in verdicts)} well-formed, "
        f"{sum(v.follows_prompt for v in verdicts)} obey their first line, "
        f"{sum(v.valid for v in verdicts)} valid"
    )
    return [text for text, v in zip(texts, verdicts, strict=True) if v.well_formed]


def save(texts: Sequence[str], path: Path, one: Task, is_file: bool) -> None:
    """Write documents as a file, or into a folder in each of the ways that there are."""
    if is_file:
        return one.save(texts, path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {path}: {error.strerror}; give another") from None
    for ending in one.ENDINGS:
        one.save(texts, path / f"{one.NOUN}{ending}")
