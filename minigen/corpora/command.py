"""Print, check or save documents of a corpus that minigen writes: `python -m minigen corpus`.

    python -m minigen corpus tales --count 3                # print three tales
    python -m minigen corpus tunes --check FILE             # check tunes between blank lines
    python -m minigen corpus tunes --save FOLDER            # save tunes as .abc, .wav and .png
    python -m minigen corpus pictures --save sheet.png      # draw some pictures
    python -m minigen corpus tasks --check FILE             # check the answers of a JSON Lines file

A file to check has blank lines or rules (lines of hyphens) between documents. Each line of JSON
Lines is a document.
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
from minigen.corpora import genre
from minigen.corpora.genre import Writer
from minigen.errors import UserError
from minigen.system.streams import ignore_write_errors, shows_colours


@dataclass(frozen=True)
class CorpusConfig:
    """Print documents of a corpus that minigen writes, or check the documents of a file.

    With --check, each complaint about a document is a line, and --save saves the well-formed
    documents.
    """

    corpus: Positional[Literal["tales", "pictures", "tunes", "tasks"]]  # the corpus
    count: int = 3  # number of documents to print or save
    seed: int = 0  # start of all random numbers: the same seed gives the same documents
    split: str = "train"  # train, val, or held_out: prompts of kinds that no training text has
    # check the documents of this file instead; - is standard input (default: no file)
    check: str | None = None
    # write a file, such as x.png, instead of printing; or a folder with each kind of file
    # (default: none)
    save: Path | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with the arguments `argv`; None: with the arguments of the process."""
    config = parse(CorpusConfig, argv)
    corpus = genre.writer(config.corpus)
    is_file = config.save is not None and config.save.suffix.lower() in corpus.ENDINGS
    if config.save:  # save the files even if nobody reads standard output
        sys.stdout = ignore_write_errors(sys.stdout)
    if config.check is not None:
        texts = check_file(config.check, corpus)
    else:
        if config.split not in corpus.SPLITS:
            raise UserError(f"split is {config.split!r}; give one of {', '.join(corpus.SPLITS)}")
        documents = corpus.documents(config.seed, config.split)
        texts = [d.text for d in itertools.islice(documents, max(0, config.count))]
        if not is_file:
            between = "\n" if has_lines(corpus) else "\n\n"
            print(between.join(map(corpus.show, texts) if shows_colours() else texts))
    if config.save and texts:
        save(texts, config.save, corpus, is_file)


def has_lines(corpus: Writer) -> bool:
    """Return whether each line of a file is a document of this corpus."""
    return ".jsonl" in corpus.ENDINGS


def check_file(path: str, corpus: Writer) -> list[str]:
    """Print complaints about the documents of a file; return the well-formed documents.

    Args:
        path: a file with blank lines or rules between documents; - is standard input.
        corpus: the corpus to which the documents should belong.

    Raises `UserError` if the file cannot be read.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    lines = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
    between = r"\n+" if has_lines(corpus) else r"\n(?:-*\n)+"
    texts = [text for text in re.split(between, lines.strip("\n")) if text]
    verdicts = [corpus.check(text) for text in texts]
    for number, verdict in enumerate(verdicts, 1):
        for complaint in verdict.complaints:
            print(f"{corpus.NOUN} {number}: {complaint}")
    print(
        f"{len(verdicts)} {corpus.NOUN}s, {sum(v.well_formed for v in verdicts)} well-formed, "
        f"{sum(v.follows_prompt for v in verdicts)} follow their prompt, "
        f"{sum(v.valid for v in verdicts)} valid"
    )
    return [text for text, v in zip(texts, verdicts, strict=True) if v.well_formed]


def save(texts: Sequence[str], path: Path, corpus: Writer, is_file: bool) -> None:
    """Write documents as the file `path`, or into the folder `path` in each format of the corpus.

    Raises `UserError` if the folder cannot be made or a text cannot be saved.
    """
    if is_file:
        return corpus.save(texts, path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {path}: {error.strerror}; give another") from None
    for ending in corpus.ENDINGS:
        corpus.save(texts, path / f"{corpus.NOUN}{ending}")
