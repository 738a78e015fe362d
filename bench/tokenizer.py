"""Measure how fast text becomes tokens: learning a vocabulary, encoding, and large files.

    python -m bench.tokenizer --text tinyshakespeare.txt
    python -m bench.tokenizer --text tinyshakespeare.txt --scale 1 10 100 1000

All encoders use one vocabulary, which minigen has learnt, and must give the same ids.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import (
    alternate,
    options,
    peer,
    record,
    run,
    seconds_of,
    serve,
    start_workers,
    table,
)
from minigen import corpora
from minigen.data import prepare
from minigen.files import tokenizer_files
from minigen.tokenizer import PATTERN, train_tokenizer

VOCABULARY = 4096
PARTS = 64  # of the text, which `tokenizers` encodes on several cores

# Two functions of a contender: encode the text, and learn tokens from it (None: it cannot).
Abilities = tuple[Callable[[], Any], Callable[[], Any] | None]


# ---- the contenders ----


def minigen(text: str, path: Path) -> Abilities:
    """Return the functions of minigen's tokenizer."""
    tokenizer = tokenizer_files.load(path)
    return (
        lambda: tokenizer.encode_array(text),
        lambda: train_tokenizer("bpe", [text], VOCABULARY),
    )


def tokenizers(text: str, path: Path) -> Abilities:
    """Return the functions of the library tokenizers, with the text in one piece."""
    library = peer("tokenizers")
    tokenizer = library.Tokenizer.from_file(str(path))
    return (
        lambda: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda: learn_with(library, text),
    )


def tokenizers_in_parts(text: str, path: Path) -> Abilities:
    """Return the function of the library tokenizers that encodes parts of a text on all cores."""
    tokenizer, parts = peer("tokenizers").Tokenizer.from_file(str(path)), split(text)

    def encode() -> list[int]:
        encodings = tokenizer.encode_batch(parts, add_special_tokens=False)
        return [id for encoding in encodings for id in encoding.ids]

    return encode, None


def tiktoken(text: str, path: Path) -> Abilities:
    """Return the function of the library tiktoken, which cannot learn."""
    saved = tokenizer_files.load(path)
    ranks = {saved.token_bytes(id): id for id in range(saved.n_vocab - 1)}
    encoding = peer("tiktoken").Encoding(
        "minigen", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    return lambda: encoding.encode_ordinary(text), None


CONTENDERS = {
    "minigen": minigen,
    "tokenizers": tokenizers,
    f"tokenizers, {PARTS} parts": tokenizers_in_parts,
    "tiktoken": tiktoken,
}


def load(name: str, given: argparse.Namespace) -> Callable[[Any], Any]:
    """Return a contender's handler of requests: its ids, or its seconds to encode or to learn."""
    text = given.text.read_text(encoding="utf-8")
    encode, learn = CONTENDERS[name](text, given.cache / "tokenizer.json")

    def handle(request: str) -> Any:
        if request == "ids":
            return [int(id) for id in encode()]
        if request == "learn":
            return learn and seconds_of(learn)
        return statistics.median(seconds_of(encode) for _ in range(5))

    return handle


def learn_with(tokenizers: Any, text: str) -> None:
    """Learn a byte-pair encoding with GPT-2's chunks, and with VOCABULARY tokens."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, show_progress=False, special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)


def split(text: str) -> list[str]:
    """Cut a text into PARTS pieces, each before a space and a letter, where a chunk ends, too."""
    parts, start = [], 0
    for i in range(1, PARTS):
        end = i * len(text) // PARTS
        while not (text[end] == " " and text[end - 1].isalpha() and text[end + 1].isalpha()):
            end += 1
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]]


def compare(given: argparse.Namespace) -> Any:
    """Measure the seconds to learn and the MB/s to encode of all contenders."""
    given.cache.mkdir(parents=True, exist_ok=True)
    text = given.text.read_text(encoding="utf-8")
    saved = tokenizer_files.to_json(train_tokenizer("bpe", [text], VOCABULARY))
    (given.cache / "tokenizer.json").write_bytes(saved)
    pythons = {n: sys.executable if n == "minigen" else given.peers_python for n in CONTENDERS}
    flags = ["--text", str(given.text.resolve()), "--cache", str(given.cache.resolve())]
    workers = start_workers(pythons, "bench.tokenizer", flags, given.threads)
    ids = {name: worker.ask("ids") for name, worker in workers.items()}
    calls = {
        f"{name} {what}": functools.partial(worker.ask, what)
        for name, worker in workers.items()
        for what in ("learn", "encode")
    }
    results = alternate(calls, given.rounds)
    for worker in workers.values():
        worker.close()
    megabytes = given.text.stat().st_size / 1e6
    figures, rows = {}, []
    for name in workers:
        encode = megabytes / statistics.median(results[f"{name} encode"])
        times = [t for t in results[f"{name} learn"] if t is not None]
        learn = statistics.median(times) if times else None
        same = "yes" if ids[name] == ids["minigen"] else "NO"
        figures[name] = {"learn, s": learn, "encode, MB/s": encode, "same ids": same}
        rows.append((name, f"{learn:.2f}" if learn else "-", f"{encode:.1f}", same))
    table((f"{megabytes:.1f} MB, {VOCABULARY} tokens", "learn, s", "MB/s", "same ids"), rows)
    return figures


# ---- large files ----


def scale(given: argparse.Namespace) -> Any:
    """Measure MB/s and peak memory of writing the token files of larger and larger texts."""
    figures, rows = [], []
    for megabytes in given.scale:
        with tempfile.TemporaryDirectory(dir=given.cache) as folder:
            text = Path(folder) / "text.txt"
            repeat(given.text, text, int(megabytes * 1e6))
            command = [sys.executable, "-m", "bench.tokenizer", "--prepare", str(text)]
            answer = json.loads(run(command, given.threads)[1].splitlines()[-1])
        speed = megabytes / answer["seconds"]
        figures.append({"MB": megabytes, "MB/s": speed, "peak, MB": answer["peak"]})
        rows.append((f"{megabytes:g} MB", f"{speed:.1f}", f"{answer['peak']:,.0f}"))
    table(("text", "MB/s", "peak, MB"), rows)
    return figures


def repeat(source: Path, target: Path, n_bytes: int) -> None:
    """Write a file of `n_bytes` that repeats the content of another."""
    content = source.read_bytes()
    with target.open("wb") as file:
        while (left := n_bytes - file.tell()) > 0:
            file.write(content[:left])


def prepare_file(path: Path) -> None:
    """Learn 4,096 tokens and write both token files, as train.py does; print time and memory."""
    import resource  # not on Windows

    corpus = corpora.find([str(path)], path.parent)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = seconds_of(lambda: prepare(corpus, None, "bpe", VOCABULARY, path.parent / "cache"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1e6 if sys.platform == "darwin" else 1e3  # to MB
    print(json.dumps({"seconds": seconds, "peak": peak / unit, "imports": before / unit}))


def main() -> None:
    """Run the benchmark that the flags ask for, and record its figures."""
    parser = options(__doc__)
    parser.add_argument("--text", type=Path, help="a text of about a megabyte")
    parser.add_argument("--scale", type=float, nargs="+", help="megabytes of larger texts")
    parser.add_argument("--worker", help="(a process of this benchmark)")
    parser.add_argument("--prepare", type=Path, help="(a process of this benchmark)")
    given = parser.parse_args()
    if given.prepare:
        return prepare_file(given.prepare)
    if given.worker:
        return serve(lambda: load(given.worker, given))
    if given.text is None:
        parser.error("give --text")
    benchmark = scale if given.scale else compare
    record("tokenizer --scale" if given.scale else "tokenizer", benchmark(given), given)


if __name__ == "__main__":
    main()
