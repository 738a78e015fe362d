"""Text to tokens to batches: what is promised about files, streams, caches, windows, and memory."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from digests import digests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigen import corpora
from minigen.corpora import Corpus
from minigen.data import (
    TokenStream,
    batches,
    notes,
    notes_on_text,
    opening,
    prepare,
    scan,
    text_range,
    vocabulary,
    write_tokens,
)
from minigen.data import cache as caching
from minigen.data import shards as sharding
from minigen.data import text as reading
from minigen.data.batches import naive_sliding, naive_windows
from minigen.data.text import naive_documents, read_text, split_documents
from minigen.data.text_range import TextRange, hold_out
from minigen.data.tokens import naive_tokens
from minigen.errors import UserError
from minigen.loss import NOT_SCORED
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

BYTE = train_tokenizer("byte", [])
BPE = train_tokenizer(
    "bpe", ["the cat sat on the mat. the dog's bone\n\n\nit's 123   \n \n!\x1c! über\r\n"] * 9, 300
)

# Text that is hard to cut: all kinds of white space, wide characters, contractions, END_OF_TEXT.
BLANKS = [" ", "  ", "\n", "\n\n", "\t", "\r", "\r\n", "\x85", "\xa0", "\u3000", "\ufeff"]
WORDS = ["the", "cat", "it's", "dog's", "123", ".", "über", "漢字", "🙂", "e\u0301", END_OF_TEXT]
HARD = st.lists(st.sampled_from([*BLANKS, *WORDS, "a", "n", "é", "_"]), max_size=60).map("".join)
hard_text = given(text=HARD, chunk=st.integers(1, 40))
many = settings(max_examples=200, deadline=None, database=None, derandomize=True)
with_folder = settings(many, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Files:
    """The plainest source of text."""

    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    separator: str | None = None


def newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def put(folder: Path, content: bytes | str, name: str = "text.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def shards(file: TokenStream) -> list[Path]:
    return [sharding.shard_path(file.path, number) for number in range(len(file.shards))]


def ids(file: TokenStream) -> list[int]:
    return [id for path in shards(file) for id in np.fromfile(path, file.dtype).tolist()]


def made(
    folder: Path, content: str, tokenizer: Tokenizer = BYTE, separator: str | None = None
) -> TokenStream:
    """The training stream of `content`; the validation text is another file."""
    train, val = put(folder, content), put(folder, "held out", "val.txt")
    source = Files((train,), (val,), separator)
    return prepare(source, tokenizer, "none", 0, folder / "cache")[1]


def encoded(text: TextRange, tokenizer: Tokenizer) -> list[int]:
    """The stream of `text`, which no cache holds."""
    with tempfile.TemporaryDirectory() as cache:
        return ids(write_tokens(text, tokenizer, Path(cache), "text"))


@contextmanager
def in_chunks(chunk: int, shard: int = sharding.SHARD) -> Iterator[None]:
    """Read `chunk` bytes and encode `chunk` characters at once; cut a shard after `shard`."""
    with (
        mock.patch.object(reading, "READ", chunk),
        mock.patch.object(sharding, "CHUNK", chunk),
        mock.patch.object(sharding, "SHARD", shard),
        mock.patch.object(notes, "BOOK", chunk),
    ):
        yield


@pytest.fixture
def stream(tmp_path: Path) -> TokenStream:
    """103 tokens, each with another id: END_OF_TEXT and 102 characters."""
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 102)))
    return made(tmp_path, text, train_tokenizer("char", [text + "held out"]))


# ---- files to text ----


@hard_text
@with_folder
def test_reading_in_chunks_is_reading_at_once(tmp_path: Path, text: str, chunk: int) -> None:
    """Wherever chunks end, in a character, a CRLF or the byte order mark, the text is the same."""
    path = put(tmp_path, "\ufeff" + text)
    with in_chunks(chunk):
        assert "".join(read_text(path)) == newlines(text)


def test_crlf_and_byte_order_mark_leave_no_trace(tmp_path: Path) -> None:
    plain = made(tmp_path, "a\nb\n\nc\n")
    windows = made(tmp_path, "\ufeffa\r\nb\r\n\r\nc\r")
    assert windows == plain
    assert ids(plain) == [256, *b"a\nb\n\nc\n"]


@pytest.mark.parametrize("before", [0, 1, 5, 8, 1000])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xe6\xbc", b"\xed\xa0\x80"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_invalid_utf8_is_named_with_its_byte(
    tmp_path: Path, before: int, bad: bytes, mark: bytes
) -> None:
    path = put(tmp_path, mark + b"x" * before + bad)
    with in_chunks(4), pytest.raises(UserError) as caught:
        list(read_text(path))
    assert str(path) in str(caught.value)
    assert f"byte {len(mark) + before} " in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"text\0text",
        bytes(range(1, 9)) * 9,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    ],
)
def test_binary_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = put(tmp_path, content)
    with pytest.raises(UserError, match=r"text\.txt is binary"):
        list(read_text(path))


FOREIGN = [
    ("UTF-16", "hero: Łódź, 日本\n"),
    ("CP949", "옛날 어느 마을에 나무꾼이 살았습니다. 어머니가 말했다.\n"),
    ("GB18030", "从前有座山。山里有座庙、庙里有个老和尚。今天3月5日、天气很好。\n"),
    ("BIG5", "從前有座山。山裡有座廟、廟裡有個老和尚。今天天氣很好。\n"),
    ("CP932", "むかし、あるところに、おじいさんが住んでいました。山へ柴刈りに。\n"),
    ("EUC-JP", "むかし、あるところに、おじいさんが住んでいました。山へ柴刈りに。\n"),
    ("CP1251", "Жили-были старик со старухой у самого синего моря.\n"),  # noqa: RUF001
    ("CP1252", "Il était une fois une forêt où vivait un bûcheron, «là-bas».\n"),
    ("CP1252", "Es war einmal ein König, der hatte eine schöne Tochter.\n"),
]


@pytest.mark.parametrize(("encoding", "line"), FOREIGN)
@pytest.mark.parametrize("before", ["", "Chapter 1\n"])
@pytest.mark.parametrize("times", [1, 100])
def test_the_command_in_the_refusal_makes_a_file_with_the_same_text(
    tmp_path: Path, encoding: str, line: str, before: str, times: int
) -> None:
    """The encoding is guessed, and that is said; a part of a character ends the last chunk."""
    text = before + line * times
    path = put(tmp_path, text.encode(encoding), "my text.txt")
    with in_chunks(1001), pytest.raises(UserError) as caught:
        list(read_text(path))
    said = str(caught.value)
    assert said.startswith(f"{path} is not UTF-8: ") and "it may be" in said and "\n" not in said
    (command,) = re.findall(rf"iconv -f {encoding} -t UTF-8 .*txt'(?= makes)", said)
    if shutil.which("iconv") is None:
        pytest.skip("there is no iconv here")
    subprocess.run(command, shell=True, check=True)
    assert "".join(read_text(tmp_path / "my text-utf8.txt")) == text


@pytest.mark.parametrize(
    "content", ["né ".encode() + b"caf\xe9", "né\n".encode() * 999 + b"\xe9 ", b"\x81 \x81 "]
)
def test_no_encoding_is_named_without_evidence(tmp_path: Path, content: bytes) -> None:
    """As of a damaged UTF-8 text, or of bytes that are no letters anywhere."""
    path = put(tmp_path, content)
    with in_chunks(1000), pytest.raises(UserError) as caught:
        list(read_text(path))
    assert str(caught.value).endswith("; convert it to UTF-8, or leave it out")


def test_text_with_colours_and_form_feeds_is_text(tmp_path: Path) -> None:
    """Nor does one sign of control make a file binary that ends a chunk later, as Ctrl-Z does."""
    text = "\x1b[31mred\x1b[0m\f\ttab\x1a"
    path = put(tmp_path, text)
    with in_chunks(len(text) - 1):
        assert "".join(read_text(path)) == text


@pytest.mark.parametrize("content", ["", "\ufeff", "x"])
def test_too_little_text_is_said_in_one_line(tmp_path: Path, content: str) -> None:
    path = put(tmp_path, content)
    with pytest.raises(UserError, match=r"text\.txt") as caught:
        prepare(Files((path,)), BYTE, "byte", 0, tmp_path / "cache")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_a_text_without_a_window_is_refused_before_anything_is_written(
    tmp_path: Path, kind: str
) -> None:
    source, cache = Files((put(tmp_path, "the cat sat on the mat. " * 40),)), tmp_path / "cache"
    *_, val = prepare(source, None, kind, 270, tmp_path / "trial")
    with pytest.raises(UserError, match=f"has only {val.n_tokens} tokens, and --block_size"):
        prepare(source, None, kind, 270, cache, block_size=val.n_tokens)
    assert not cache.exists()
    assert prepare(source, None, kind, 270, cache, block_size=val.n_tokens - 1)[2].n_windows(1)


def test_what_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path, tmp_path / "missing", loop):
        with pytest.raises(UserError, match="cannot read"):
            list(read_text(path))


def test_a_cache_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    occupied = put(tmp_path, "a file", "cache")
    with pytest.raises(UserError, match="cannot write"):
        prepare(Files((put(tmp_path, "some text"),)), BYTE, "byte", 0, occupied)


# ---- documents ----


@given(
    text=st.lists(st.sampled_from([*"ab-\n", "\n\n", "---", "\n--\n", "aba"])).map("".join),
    separator=st.sampled_from(["\n\n", "-", "\n", "---", "\n--\n", "aba", "\n\n\n"]),
    chunk=st.integers(1, 9),
)
@many
def test_documents_are_the_naive_ones(text: str, separator: str, chunk: int) -> None:
    """Wherever chunks end, also in a separator: those of the whole text, split at once."""
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    documents: list[str] = []
    for begins, piece in split_documents(chunks, separator):
        assert piece
        documents += [""] if begins else []
        documents[-1] += piece
    assert documents == naive_documents(text, separator)


def test_endless_newlines_do_not_wait_in_memory() -> None:
    """Not even in a document, where they count if anything comes after them."""
    fed, text = 0, ""

    def endless() -> Iterator[str]:
        nonlocal fed
        for chunk in ["x", *["\n\n\n"] * 100, "y"]:
            assert fed - len(text) <= 8 + len("---")
            fed += len(chunk)
            yield chunk

    with in_chunks(8):
        for _, piece in split_documents(endless(), "---"):
            text += piece
    assert text == "x" + "\n" * 300 + "y"


def test_each_document_begins_with_end_of_text(tmp_path: Path) -> None:
    """Files are documents; where a separator is given, so are the parts of a file."""
    a, b = put(tmp_path, "one\n\n\n\ntwo\n", "a"), put(tmp_path, "\n\nthree\n\n", "b")
    empty = put(tmp_path, "", "empty")

    def stream(separator: str | None) -> tuple[TokenStream, bytes]:
        source = Files((a, empty, b), (a,), separator)
        file = prepare(source, BYTE, "byte", 0, tmp_path / "cache")[1]
        return file, b"".join(b"|" if id == 256 else bytes([id]) for id in ids(file))

    file, text = stream(None)
    assert text == b"|one\n\n\n\ntwo\n|\n\nthree\n\n"
    assert (file.n_documents, file.n_bytes, file.n_tokens) == (2, 20, 22)
    file, text = stream("\n\n")
    assert text == b"|one|two|three"
    assert (file.n_documents, file.n_bytes, file.n_tokens) == (3, 11, 14)


@pytest.mark.parametrize("separator", ["\n", "\n\n", "--", "é"])
def test_bits_per_byte_counts_the_separators_that_end_of_text_stands_for(
    tmp_path: Path, separator: str
) -> None:
    """The figure is of the whole file, with what stands between its documents."""
    text = separator.join(["one", "two", "three", "fünf"])
    file = made(tmp_path, text, separator=separator)
    bits = (file.n_tokens - 1) / math.log(2)  # all but the first token, at 1 nat each
    wanted = pytest.approx(bits / len(text.encode()))
    assert file.bits_per_byte(len(separator.encode())) == wanted


PARAGRAPHS = "It was late.\nIt rained.\n\n" * 20


@pytest.mark.parametrize(
    ("documents", "start"),
    [
        ([PARAGRAPHS], "\n\n"),
        (["a line\n" * 20], "\n"),
        (["one line"], ""),
        ([PARAGRAPHS, PARAGRAPHS], ""),
        (["word " * 40_000, PARAGRAPHS], "\n\n"),
    ],
    ids=["a book", "lines", "a line", "two short documents", "a long one and a short one"],
)
def test_a_sample_of_a_book_starts_as_its_paragraphs_or_lines_do(
    tmp_path: Path, documents: list[str], start: str
) -> None:
    """Where END_OF_TEXT is frequent, a sample starts after it, as documents do."""
    files = tuple(put(tmp_path, text, str(i)) for i, text in enumerate(reversed(documents)))
    text = scan(files, None)
    with mock.patch.object(notes, "LONG_DOCUMENT", 5000):
        tokens = write_tokens(text, BYTE, tmp_path / "cache", "text")
        assert opening(tokens, BYTE) == start


@pytest.mark.parametrize(
    ("text", "n_lines"),
    [
        ("Ann\nBob\n" * 40, 80),
        ("id,name\n" + "1,Ann\n" * 60, 61),
        ("Ann\nBob\n" * 20, 0),
        (PARAGRAPHS * 9, 0),
        ("def f():\n    pass\n" * 40, 0),
        ("A long paragraph of many words. " * 5 + "\n", 0),
    ],
    ids=["names", "rows", "few", "a book", "a program", "one long line"],
)
def test_one_document_a_line_is_noticed(tmp_path: Path, text: str, n_lines: int) -> None:
    path = put(tmp_path, text)
    for chunk in (100, 1 << 20):
        with in_chunks(chunk):
            notes = notes_on_text(Files((path,)))
            assert [note.split(" ")[0] for note in notes] == ([str(n_lines)] if n_lines else [])
    assert notes_on_text(Files((path,), (), "\n")) == []


def test_end_of_text_written_in_a_file_is_plain_text(tmp_path: Path) -> None:
    for tokenizer in (BYTE, BPE, train_tokenizer("char", [END_OF_TEXT + "held out"])):
        stream = ids(made(tmp_path, END_OF_TEXT, tokenizer))
        assert stream.count(tokenizer.end_of_text) == 1
        assert tokenizer.decode(stream[1:]) == END_OF_TEXT


def test_a_document_that_fills_its_chunk_exactly_does_not_swallow_the_next(tmp_path: Path) -> None:
    with in_chunks(4):
        stream = ids(made(tmp_path, "abcd\n\nefgh\n\nij", separator="\n\n"))
    assert stream == [256, *b"abcd", 256, *b"efgh", 256, *b"ij"]


# ---- the part that is held out ----


@hard_text
@with_folder
def test_the_last_tenth_of_the_characters_is_held_out(
    tmp_path: Path, text: str, chunk: int
) -> None:
    text = newlines("x" + text + "yz")  # so that neither part is empty, nor a byte order mark first
    path = put(tmp_path, text)
    cut = int(0.9 * len(text))
    with in_chunks(chunk):
        parts = hold_out(scan([path], None), 0.1)
        for part, expected in zip(parts, (text[:cut], text[cut:]), strict=True):
            assert BYTE.decode(encoded(part, BYTE)) == END_OF_TEXT + expected


def test_held_out_text_of_many_files_begins_in_the_midst_of_one(tmp_path: Path) -> None:
    files = tuple(put(tmp_path, letter * 4, letter) for letter in "abcde")
    with in_chunks(2):
        _, held_out = hold_out(scan(files, None), 0.3)
        assert [*held_out.parts()] == [(True, "dd"), (True, "ee"), (False, "ee")]
    _, train, val = prepare(Files(files), BYTE, "byte", 0, tmp_path / "cache", val_fraction=0.3)
    assert ids(train) == [256, *b"aaaa", 256, *b"bbbb", 256, *b"cccc", 256, *b"dd"]
    assert ids(val) == [256, *b"dd", 256, *b"eeee"]


def test_a_corpus_with_validation_files_is_used_whole(tmp_path: Path) -> None:
    source = Files((put(tmp_path, "train", "t"),), (put(tmp_path, "validate", "v"),))
    _, train, val = prepare(source, BYTE, "byte", 0, tmp_path / "cache")
    assert (ids(train), ids(val)) == ([256, *b"train"], [256, *b"validate"])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_an_impossible_fraction_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(UserError, match="val_fraction"):
        prepare(Files((put(tmp_path, "text"),)), BYTE, "byte", 0, tmp_path / "cache", fraction)


# ---- text to tokens ----


@hard_text
@with_folder
def test_the_text_comes_back_from_its_tokens(tmp_path: Path, text: str, chunk: int) -> None:
    text = newlines("x" + text)
    with in_chunks(chunk):
        stream = encoded(scan([put(tmp_path, text)], None), BPE)
    assert BPE.decode(stream[1:]) == text


WORD = st.sampled_from([*WORDS, "!\x1c!"])
BLANK = st.sampled_from([" ", "   ", "\n", "\n\n\n", "\n\t", " \n \n", "  \xa0", " \x1c"])


@given(pairs=st.lists(st.tuples(WORD, BLANK), min_size=1, max_size=40), extra=st.integers(0, 30))
@with_folder
def test_tokens_of_chunks_are_tokens_of_the_whole(
    tmp_path: Path, pairs: list[tuple[str, str]], extra: int
) -> None:
    """Chunks are cut where no token crosses, so nobody can tell from the tokens where they were.

    The longest blank (4 characters), word (13) and the next blank's first always hold such a place.
    """
    text = "x" + "".join(word + blank for word, blank in pairs)
    with in_chunks(18 + extra):
        stream = encoded(scan([put(tmp_path, text)], None), BPE)
    assert stream == [BPE.end_of_text, *BPE.encode(text)]


def test_a_long_text_without_a_blank_is_tokenised(tmp_path: Path) -> None:
    text = "漢字" * 5000
    with in_chunks(1000):
        assert BPE.decode(ids(made(tmp_path, text, BPE))[1:]) == text


@pytest.fixture
def threads() -> Iterator[None]:
    """Put back the number of threads that a test has changed."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("separator", [None, "\n\n"])
def test_threads_and_shards_change_nothing(
    tmp_path: Path, threads: None, separator: str | None
) -> None:
    """The same files for any number of threads; the same stream, and windows, of any shards."""
    text = "".join(f"{i} the cat's\n{'漢字' * (i % 7)} sat\n\n" for i in range(300))
    scanned = scan([put(tmp_path, text)], separator)
    files, caches = [], []
    for i, (n_threads, chunk, shard) in enumerate(
        [(1, 100, 1000), (2, 100, 1000), (3, 100, 1000), (2, 100, 1), (1, 1 << 20, 1 << 26)]
    ):
        torch.set_num_threads(n_threads)
        with in_chunks(chunk, shard):
            files.append(write_tokens(scanned, BPE, tmp_path / f"{i}", "text"))
        caches.append(
            {name: content for name, (_, content) in contents(files[i].path.parent).items()}
        )
    assert caches[0] == caches[1] == caches[2]
    n_shards = [len(file.shards) for file in files]
    assert n_shards[0] > 5 and n_shards[3] > 40 and n_shards[4] == 1
    whole = ids(files[4])
    documents = text.split(separator) if separator else [text]
    assert whole == naive_tokens(filter(None, documents), BPE)
    numbers = range(60, 80)
    for file in files[:4]:
        assert ids(file) == whole
        assert (file.n_tokens, file.n_bytes) == (files[4].n_tokens, files[4].n_bytes)
        assert file.n_documents == files[4].n_documents
        for block_size in (16, 200, len(whole) - 1):
            for mine, other in (
                (file.windows(0, numbers, block_size), files[4].windows(0, numbers, block_size)),
                *zip(file.sliding(block_size, 8), files[4].sliding(block_size, 8), strict=True),
            ):
                assert torch.equal(mine[0], other[0]) and torch.equal(mine[1], other[1])


# What a shell would start. Its chunks and shards are small, so that there are many to be killed in.
TOKENISE = """
import sys
from pathlib import Path
from minigen.data import scan, shards, text, write_tokens
from minigen.tokenizer import train_tokenizer
text.READ, shards.CHUNK, shards.SHARD = 500, 500, 5000
scanned = scan([Path(sys.argv[1])], None)
write_tokens(scanned, train_tokenizer("byte", []), Path(sys.argv[2]), "text")
"""


def test_killed_while_tokenising_it_continues_after_the_last_shard(tmp_path: Path) -> None:
    """What lay there stays as it was, and all is, byte for byte, as if nothing had happened."""
    path = put(tmp_path, "".join(f"the cat sat on mat {i}\n" for i in range(50_000)))
    text, cache = scan([path], None), tmp_path / "cache"
    command = [sys.executable, "-c", TOKENISE, str(path), str(cache)]
    kept: set[tuple[str, tuple[int, str]]] = set()
    for n_shards in (1, 60):
        process = subprocess.Popen(command)
        while len(list(cache.glob("*.bin"))) <= n_shards and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        *before, _ = sorted(contents(cache, "*.bin").items())  # the last may not be known yet
        assert kept <= {*before}
        kept = {*before}
    with in_chunks(500, 5000):
        file = write_tokens(text, BYTE, cache, "text")
        whole = write_tokens(text, BYTE, tmp_path / "whole", "text")
    assert len(file.shards) > 200
    assert replace(file, path=whole.path) == whole
    expected = [256, *path.read_bytes()]
    assert np.array_equal(ids(file), expected) and np.array_equal(ids(whole), expected)
    assert kept <= {*contents(cache, "*.bin").items()}


@pytest.mark.parametrize("change", ["text", "tokenizer", "version"])
def test_shards_of_something_else_are_never_taken(tmp_path: Path, change: str) -> None:
    """Not after a stop midway either: of a text with another end, the first shard is another."""
    text, cache = "".join(f"the cat {i}\n" for i in range(500)), tmp_path / "cache"
    with in_chunks(100, 1000):
        scanned = scan([put(tmp_path, text)], None)
        real_encode = Tokenizer.encode_documents

        def fails_midway(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray[Any, Any]:
            if "the cat 300\n" in documents[0]:
                raise KeyboardInterrupt
            return real_encode(tokenizer, documents)

        with (
            mock.patch.object(Tokenizer, "encode_documents", fails_midway),
            pytest.raises(KeyboardInterrupt),
        ):
            write_tokens(scanned, BYTE, cache, "text")
        begun = contents(cache)
        assert len(begun) == 4  # three shards and their facts
        tokenizer = BPE if change == "tokenizer" else BYTE
        if change == "text":
            text = text[:-2] + "?\n"
            scanned = scan([put(tmp_path, text)], None)
        with mock.patch.object(caching, "FORMAT", 2 if change == "version" else caching.FORMAT):
            file = write_tokens(scanned, tokenizer, cache, "text")
    assert tokenizer.decode(ids(file)[1:]) == text
    assert contents(cache).items() >= begun.items()


def test_ids_take_two_bytes_while_they_fit_and_four_beyond(tmp_path: Path) -> None:
    """65,536 ids are 0..65535, which two bytes hold; one id more needs four."""
    points = [point for point in range(0x100, 0x11000) if not 0xD800 <= point < 0xE000][:65536]
    for n_chars, dtype in ((65535, "<u2"), (65536, "<u4")):
        text = "".join(map(chr, points[:n_chars]))
        tokenizer = Tokenizer("char", [*(c.encode("utf-8") for c in text), END_OF_TEXT.encode()])
        source = Files((put(tmp_path, text),), (put(tmp_path, text[:9], "v"),))
        _, file, _ = prepare(source, tokenizer, "char", 0, tmp_path / "cache")
        assert file.dtype == dtype
        assert ids(file) == [n_chars, *range(n_chars)]
        x, y = next(file.sliding(100, 1))
        assert x[0].tolist() == [n_chars, *range(99)]
        assert y[0].tolist() == [*range(100)]


# ---- the tokenizer ----


def test_the_char_vocabulary_covers_the_validation_text(tmp_path: Path) -> None:
    path = put(tmp_path, "a" * 998 + "b€")
    tokenizer, _, val = prepare(Files((path,)), None, "char", 0, tmp_path / "cache")
    assert tokenizer.n_vocab == 4
    assert tokenizer.decode(ids(val)[1:]) == "a" * 98 + "b€"


def test_bpe_does_not_see_the_validation_text(tmp_path: Path) -> None:
    """Else the tokens that the loss is counted in would be tuned on what it is to measure."""
    train, val = put(tmp_path, "abc abc abc", "t"), put(tmp_path, "xyz xyz xyz", "v")
    tokenizer, _, _ = prepare(Files((train,), (val,)), None, "bpe", 300, tmp_path / "cache")
    assert len(tokenizer.encode("abc")) == 1
    assert len(tokenizer.encode("xyz")) == 3


def test_bpe_is_trained_on_chunks_from_all_over_a_long_text(tmp_path: Path) -> None:
    """The sample is bounded, and its places are spread evenly: no tenth of the text is left out."""
    lines = [f"{i:07d}\n" for i in range(200_000)]
    text = scan([put(tmp_path, "".join(lines))], None)
    with mock.patch.object(vocabulary, "BPE_SAMPLE", 800_000):
        sample = [*vocabulary.sample(text)]
    assert 800_000 <= sum(map(len, sample)) < 900_000
    tenths = Counter(int(line) // 20_000 for chunk in sample for line in chunk.split())
    assert min(tenths[tenth] for tenth in range(10)) > 5_000
    assert "".join(vocabulary.sample(text)) == "".join(lines)


def test_a_tokenizer_that_is_given_is_used(tmp_path: Path) -> None:
    path = put(tmp_path, "the cat sat")
    tokenizer, train, _ = prepare(Files((path,)), BPE, "char", 0, tmp_path / "cache")
    assert tokenizer is BPE
    assert ids(train) == [BPE.end_of_text, *BPE.encode("the cat s")]


def test_a_given_char_tokenizer_names_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="€"):
        made(tmp_path, "a€a", train_tokenizer("char", ["a held out"]))
    assert not list((tmp_path / "cache").glob("*.part"))


# ---- the cache ----


def contents(cache: Path, pattern: str = "*") -> dict[str, tuple[int, str]]:
    """Of each file its digest, and a number that would be another if it was written again."""
    found = digests(cache, pattern).items()
    return {name: ((cache / name).stat().st_ino, digest) for name, digest in found}


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_text_is_tokenised_once(tmp_path: Path, kind: str) -> None:
    """The second time nothing is trained, encoded or written; a copy elsewhere is the same text."""
    cache = tmp_path / "cache"
    first = prepare(Files((put(tmp_path, "the cat " * 99),)), None, kind, 280, cache)
    before = contents(cache)
    assert len(before) == 5  # a tokenizer, and two streams with their facts
    copy = put(tmp_path, "the cat " * 99, "copy.txt")
    with (
        mock.patch.object(Tokenizer, "encode_array", side_effect=AssertionError),
        mock.patch.object(vocabulary, "train_tokenizer", side_effect=AssertionError),
    ):
        again = prepare(Files((copy,)), None, kind, 280, cache)
    assert contents(cache) == before
    assert again[1:] == first[1:]
    assert again[0].fingerprint == first[0].fingerprint


def test_what_changes_the_stream_changes_the_file(tmp_path: Path) -> None:
    """Another text, tokenizer, separator or split never finds the file of this one."""
    text = "one two\n\nthree four\n\nfive"
    path = put(tmp_path, text)
    cache = tmp_path / "cache"
    a_b = (put(tmp_path, "one tw", "a"), put(tmp_path, text[6:], "b"))
    prepared = [
        prepare(Files((path,)), BYTE, "byte", 0, cache),
        prepare(Files((path,)), BPE, "byte", 0, cache),
        prepare(Files((path,)), None, "char", 0, cache),
        prepare(Files((path,), (), "\n\n"), BYTE, "byte", 0, cache),
        prepare(Files((path,)), BYTE, "byte", 0, cache, val_fraction=0.5),
        prepare(Files(a_b), BYTE, "byte", 0, cache),
        prepare(Files((put(tmp_path, text.replace("one", "two"), "c"),)), BYTE, "byte", 0, cache),
    ]
    paths = {file.path for _, *files in prepared for file in files}
    assert len(paths) == 2 * len(prepared)


@pytest.mark.parametrize("pattern", ["{}.0000.bin", "{}.0003.bin", "{}.json", "*.tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "changed"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, pattern: str, damage: str) -> None:
    """The first shard, a later one, the facts, or the tokenizer."""
    cache = tmp_path / "cache"
    source = Files((put(tmp_path, "the cat sat " * 50),))
    with in_chunks(50, 100):
        _, file, _ = prepare(source, None, "bpe", 280, cache)
    assert len(file.shards) == 6
    whole = digests(cache)
    (path,) = cache.glob(pattern.format(file.path.stem))
    content = path.read_bytes()
    damaged = {"cut": content[:-2], "emptied": b"", "changed": b"[7]" + content[3:]}
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with in_chunks(50, 100):
        prepare(source, None, "bpe", 280, cache)
    assert digests(cache) == whole


def test_a_failure_leaves_nothing_that_could_be_taken_for_a_stream(tmp_path: Path) -> None:
    with (
        mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")),
        pytest.raises(UserError, match="No space left on device"),
    ):
        made(tmp_path, "text")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("content", ["a text", "", "a long tale"])
def test_a_text_that_changes_while_it_is_read_is_not_kept(tmp_path: Path, content: str) -> None:
    text = scan([put(tmp_path, "a long text")], None)
    time.sleep(0.02)  # a file system's clock is coarse
    put(tmp_path, content)
    with pytest.raises(UserError, match="changed"):
        write_tokens(text, BYTE, tmp_path / "cache", "text")
    with pytest.raises(UserError, match="changed"):
        vocabulary.learn_tokenizer(text, text, "char", 0)
    assert not list((tmp_path / "cache").glob("*"))


def test_two_processes_at_once_make_the_same_cache(tmp_path: Path) -> None:
    path = put(tmp_path, "the cat sat on the mat\n" * 4_000)
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace as Source\n"
        "from minigen.data import prepare\n"
        "text = Source(train=(Path(sys.argv[1]),), val=(), separator=None)\n"
        "print(prepare(text, None, 'bpe', 280, Path(sys.argv[2]))[1:])\n"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(list((tmp_path / "cache").iterdir())) == 5
    with mock.patch.object(vocabulary, "train_tokenizer", side_effect=AssertionError):
        assert str(prepare(Files((path,)), None, "bpe", 280, tmp_path / "cache")[1:]) in outputs[0]


# Prepares the files given, draws from them, and prints after each the peak of its memory in KiB.
# Not getrusage: its peak includes that of the parent, which was copied before it ran this.
PREPARE = """
import sys; from pathlib import Path; from types import SimpleNamespace as Source
from minigen.data import prepare
kind, separator, cache, *paths = sys.argv[1:]
for path in paths:
    text = Source(train=(Path(path),), val=(), separator=separator or None)
    _, train, val = prepare(text, None, kind, 1024, Path(cache))
    train.windows(0, range(8), 256), next(val.sliding(256, 8, limit=1000))
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the peak")


def peaks(kind: str, separator: str, cache: Path, *texts: Path) -> list[int]:
    command = [sys.executable, "-c", PREPARE, kind, separator, cache, *texts]
    return [int(n) for n in subprocess.run(command, check=True, capture_output=True).stdout.split()]


@linux
@pytest.mark.parametrize(
    ("unit", "kind", "separator", "megabytes"),
    [("the cat sat on the mat, 漢字! ", "char", "", (8, 64)), ("a\n", "byte", "\n", (0.5, 2.5))],
    ids=["one line", "documents of one character"],
)
def test_memory_does_not_grow_with_the_text(
    tmp_path: Path, unit: str, kind: str, separator: str, megabytes: tuple[float, float]
) -> None:
    """Many times the text, at most 30 MB more at the peak."""
    texts = []
    for size in megabytes:
        text = unit.encode() * (int(size * 2**20) // len(unit.encode()))
        texts.append(put(tmp_path, text, f"{size}.txt"))
    short, long = peaks(kind, separator, tmp_path / "cache", *texts)
    assert long - short < 30 << 10


@linux
@pytest.mark.slow
def test_a_text_of_a_gigabyte_takes_600_mb(tmp_path: Path) -> None:
    """All of it: the process is one, since threads do the work."""
    words = [f"{word}{end}" for word in ("the", "cat", "sat", "on", "漢字") for end in "! \n,s"]
    draw = random.Random(0)
    with (tmp_path / "text.txt").open("w", encoding="utf-8") as file:
        while file.tell() < 10**9:
            file.write(" ".join(draw.choices(words, k=10_000)) * 20)
    (peak,) = peaks("bpe", "", tmp_path / "cache", Path(file.name))
    assert peak < 600e6 / 1024


# ---- any corpus ----

FRAGMENTS = [b"\xef\xbb\xbf", b"\r\n", b"\r", b"\0", b"\x01" * 9, b"\xff", b"\xc3", b"\n" * 40]
FRAGMENTS += [b"word " * 9, b"x" * 999, b" " * 999, "漢字🙂".encode(), END_OF_TEXT.encode()]


@given(
    content=st.binary(max_size=40)
    | HARD.map(str.encode)
    | st.lists(st.sampled_from(FRAGMENTS), max_size=9).map(b"".join),
    separator=st.sampled_from([None, "\n", "\n\n", "x", END_OF_TEXT]),
    kind=st.sampled_from(["char", "byte", "bpe"]),
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 200)),
)
@with_folder
def test_any_corpus_comes_back_from_its_tokens_or_is_refused_in_one_line(
    tmp_path: Path, content: bytes, separator: str | None, kind: str, sizes: tuple[int, int]
) -> None:
    path = put(tmp_path, content)
    with (
        in_chunks(sizes[0], sizes[1]),
        tempfile.TemporaryDirectory() as cache,
    ):
        try:
            source = Files((path,), (), separator)
            tokenizer, *streams = prepare(source, None, kind, 260, Path(cache))
            stream = [id for file in streams for id in ids(file) if id != tokenizer.end_of_text]
            for file in streams:
                x, y = file.windows(0, range(2), 4)
                assert torch.equal(x[:, 1:], y[:, :-1])
        except UserError as error:
            assert "\n" not in str(error)
            assert str(path) in str(error) or "smaller --block_size" in str(error)
            return
    text = newlines(content.decode("utf-8-sig"))
    documents = text.split(separator) if separator else [text]
    stripped = [text.strip("\n") for text in documents] if separator else documents
    if all(text.count("\n") <= sizes[0] for text in documents):
        assert tokenizer.decode(stream) == "".join(stripped)


# ---- batches ----


@pytest.mark.parametrize("block_size", [1, 2, 10, 17, 51, 102])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_covers_each_window_once(stream: TokenStream, block_size: int, epoch: int) -> None:
    """Its windows follow one another on the circle; all but n_tokens % T tokens are inputs once."""
    n = stream.n_windows(block_size)
    assert n == 103 // block_size
    x, y = stream.windows(3, range(epoch * n, (epoch + 1) * n), block_size)
    assert x.dtype == y.dtype == torch.int64
    assert x.shape == y.shape == (n, block_size)
    seen = Counter(x.flatten().tolist())
    assert set(seen.values()) == {1}
    assert len(seen) == n * block_size
    # Every window ends where another begins, except where what is left over lies between them.
    begin = Counter(x[:, 0].tolist())
    ends = Counter(y[:, -1].tolist())
    assert (ends - begin).total() == (1 if 103 % block_size else 0)


@pytest.mark.parametrize("block_size", [1, 2, 10, 17, 51, 102])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (3, 7)])
def test_windows_are_the_naive_ones(
    stream: TokenStream, block_size: int, seed: int, epoch: int
) -> None:
    """Of a document of more than T tokens: the stream is cut every T tokens and shuffled."""
    n = stream.n_windows(block_size)
    naive = naive_windows(np.array(ids(stream)), seed, epoch, block_size)
    fast = stream.windows(seed, range(epoch * n, (epoch + 1) * n), block_size)
    assert torch.equal(naive[0], fast[0]) and torch.equal(naive[1], fast[1])


def test_windows_go_round_the_circle(stream: TokenStream) -> None:
    """A target is the token after its input, and after the stream's last token comes the first."""
    circle = ids(stream)
    follows = dict(pairwise([*circle, circle[0]]))
    x, y = stream.windows(0, range(200), 20)
    inputs, targets = x.flatten().tolist(), y.flatten().tolist()
    assert targets == [follows[id] for id in inputs]
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert (circle[-1], circle[0]) in {*zip(inputs, targets, strict=True)}  # the seam
    assert (circle[-2], circle[-1]) in {*zip(inputs, targets, strict=True)}  # the last is a target


def test_a_batch_is_a_function_of_the_seed_and_its_numbers(stream: TokenStream) -> None:
    """Whatever was drawn before, and in another process, these alone decide."""
    batch = stream.windows(5, range(36, 40), 16)
    for seed, first in ((5, 0), (1, 36), (5, 40), (5, 3996)):
        assert not torch.equal(stream.windows(seed, range(first, first + 4), 16)[0], batch[0])
    torch.manual_seed(1)
    np.random.seed(1)
    batches.shuffle.cache_clear()
    again = stream.windows(5, range(36, 40), 16)
    assert torch.equal(again[0], batch[0])
    assert torch.equal(again[1], batch[1])
    again[0].zero_()  # a batch is the caller's own
    assert torch.equal(stream.windows(5, range(36, 40), 16)[0], batch[0])


def test_the_order_of_an_epoch_never_changes() -> None:
    """A run resumed years later, with another numpy, must continue with the same windows."""
    first, order = batches.shuffle(1337, 2, 1000, 8)
    assert (first, order.tolist()) == (714, [3, 4, 1, 6, 5, 0, 2, 7])


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    orders = {(s, e): batches.shuffle(s, e, 10_000, 50) for s in range(5) for e in range(5)}
    assert len({tuple(order.tolist()) for _, order in orders.values()}) == 25
    assert len({first for first, _ in orders.values()}) > 20
    assert all(sorted(order.tolist()) == list(range(50)) for _, order in orders.values())


def test_shares_of_a_batch_are_the_batch(stream: TokenStream) -> None:
    """Two ranks with two micro-batches each see what one process sees, across epochs too."""
    for step in range(6):  # 12 windows make 10 in an epoch
        numbers = np.arange(step * 12, (step + 1) * 12)
        x, y = stream.windows(0, numbers, 10)
        shares = [
            stream.windows(0, numbers[rank::2][part], 10)
            for rank in (0, 1)
            for part in (slice(0, 3), slice(3, 6))
        ]
        order = [i for rank in (0, 1) for i in range(rank, 12, 2)]
        assert torch.equal(torch.cat([share[0] for share in shares]), x[order])
        assert torch.equal(torch.cat([share[1] for share in shares]), y[order])


def test_a_text_shorter_than_a_block_is_refused_with_its_length(stream: TokenStream) -> None:
    assert stream.n_windows(102) == 1
    for draw in (
        lambda: stream.n_windows(103),
        lambda: stream.windows(0, range(1), 103),
        lambda: next(stream.sliding(103, 1)),
    ):
        with pytest.raises(UserError, match=r"training text has only 103 tokens.* 104;.*smaller"):
            draw()


def test_a_stream_that_is_cut_short_in_use_is_said_in_one_line(stream: TokenStream) -> None:
    """Never a bus error, which a memory map gives, nor tokens that were not there."""
    before = stream.windows(0, range(8), 16)
    (shard,) = shards(stream)
    content, kept = shard.read_bytes(), shard.with_name("kept")
    os.link(shard, kept)
    shard.unlink()  # removed, or replaced: the open file stays
    assert torch.equal(stream.windows(0, range(8), 16)[0], before[0])
    with pytest.raises(UserError, match="cannot read"):
        replace(stream).windows(0, range(8, 16), 16)
    for damage in (b"\xff" * len(content), content[:-4]):
        kept.write_bytes(damage)
        with pytest.raises(UserError, match="cut short or written over"):
            stream.windows(0, range(stream.n_windows(16)), 16)
        with pytest.raises(UserError, match="cut short or written over"):
            list(stream.sliding(16, 4))


# ---- evaluation ----


def scored(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[int, list[int]]]:
    """(target, the inputs that it is predicted from) of all that is to be scored, in order."""
    return [
        (int(target), x[row, : t + 1].tolist())
        for x, y in batches
        for row in range(len(x))
        for t, target in enumerate(y[row])
        if target != NOT_SCORED
    ]


@given(
    block_size=st.integers(1, 102),
    batch_size=st.integers(1, 9),
    share=st.floats(0, 1),
    limit=st.none() | st.integers(1, 150),
)
@settings(with_folder, max_examples=60)
def test_sliding_scores_each_token_once_with_context(
    stream: TokenStream, block_size: int, batch_size: int, share: float, limit: int | None
) -> None:
    stride = max(1, round(share * block_size))
    tokens = ids(stream)
    batches = [*stream.sliding(block_size, batch_size, stride, limit)]
    assert all(x.shape == y.shape and x.shape[1] == block_size for x, y in batches)
    assert {len(x) for x, _ in batches[:-1]} <= {batch_size}
    predictions = scored(iter(batches))
    targets = tokens[1:]
    if limit is not None and (n := math.ceil(limit / stride)) * stride < len(targets):
        begins = [i * len(targets) // n for i in range(n)]
        targets = [target for begin in begins for target in targets[begin : begin + stride]]
        assert len(targets) == n * stride < limit + stride
        assert sum(len(x) for x, _ in batches) == n
    assert [target for target, _ in predictions] == targets
    for target, context in predictions:
        place = tokens.index(target)
        assert context == tokens[place - len(context) : place]
        assert len(context) >= min(place, block_size - stride)


@pytest.mark.parametrize("block_size", [1, 2, 10, 17, 51, 102])
def test_sliding_by_one_token_is_naive(stream: TokenStream, block_size: int) -> None:
    """Of a document of more than T tokens: each target has all of the T tokens before it."""
    naive = [(t, x.tolist()) for x, t in naive_sliding(np.array(ids(stream)), block_size)]
    assert scored(stream.sliding(block_size, 4, stride=1)) == naive


@pytest.mark.parametrize("limit", [1, 8, 9, 40, 64])
def test_a_limit_spreads_what_is_scored_over_the_whole_text(
    stream: TokenStream, limit: int
) -> None:
    """The beginning alone would not do: it is more like the training text that it follows."""
    tokens = ids(stream)
    places = [tokens.index(target) for target, _ in scored(stream.sliding(16, 4, limit=limit))]
    assert limit <= len(places) < limit + 8
    gaps = {after - place for place, after in pairwise(places[::8])}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert 103 - places[-8] - (max(gaps) if gaps else 102) in (0, 1)  # none is left over at the end


def test_sliding_keeps_half_a_window_of_context_if_not_told_otherwise(stream: TokenStream) -> None:
    half = [y.tolist() for _, y in stream.sliding(16, 4)]
    assert half == [y.tolist() for _, y in stream.sliding(16, 4, stride=8)]
    assert min(len(context) for _, context in scored(stream.sliding(16, 4))[16:]) == 9


@pytest.mark.parametrize("stride", [0, -1, 17])
def test_a_stride_that_skips_tokens_is_an_error(stream: TokenStream, stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        next(stream.sliding(16, 4, stride))


# ---- documents ----


@pytest.fixture
def tales(tmp_path: Path) -> TokenStream:
    """Nine documents of 5 to 29 characters; no character comes twice."""
    letters = iter(range(0x4E00, 0x9FFF))
    lengths = (5, 29, 12, 7, 20, 9, 11, 6, 18)
    documents = ["".join(chr(next(letters)) for _ in range(n)) for n in lengths]
    path = put(tmp_path, "\n\n".join(documents), "tales.txt")
    source = Corpus("tales", (path,), (path,), "\n\n")
    return prepare(source, None, "char", 0, tmp_path / "cache")[1]


def test_windows_of_short_documents_begin_with_them(tales: TokenStream) -> None:
    """No window begins inside a document that it could hold; all documents begin one in time."""
    tokens, end_of_text = ids(tales), ids(tales)[0]
    begins = [i for i, id in enumerate(tokens) if id == end_of_text]
    first_of = {tokens[begin + 1]: begin for begin in begins}
    long = set(tokens[begins[1] : begins[2]])
    seen = set()
    for row in tales.windows(0, range(400), 21)[0].tolist():
        assert row[0] == end_of_text or row[0] in long
        if row[0] == end_of_text:
            seen.add(first_of[row[1]])
    assert seen == set(begins)


@pytest.mark.parametrize("block_size", [8, 21, 31])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_sliding_predicts_from_the_beginning_of_a_document(
    tales: TokenStream, block_size: int, batch_size: int
) -> None:
    """Each token once, from its document's beginning or, in a long one, at least half a window.

    Nothing stands before that beginning, but in the last window, which ends with the stream.
    """
    tokens, end_of_text = ids(tales), ids(tales)[0]
    n_scored = 0
    place = 1
    for x, y in tales.sliding(block_size, batch_size):
        for row_x, row_y in zip(x.tolist(), y.tolist(), strict=True):
            start = place - 1 - row_y.count(NOT_SCORED)
            begun = max(i for i in range(place) if tokens[i] == end_of_text)
            assert start >= min(begun, len(tokens) - 1 - block_size)
            for t, target in enumerate(row_y):
                if target == NOT_SCORED:
                    continue
                assert target == tokens[place]
                begun = max(i for i in range(place) if tokens[i] == end_of_text)
                ends = [i for i in range(place, len(tokens)) if tokens[i] == end_of_text]
                is_long = min(ends, default=len(tokens)) - begun > block_size
                assert row_x[: t + 1][-(place - begun) :] == tokens[begun:place] or (
                    is_long and t + 1 >= block_size - block_size // 2
                )
                place += 1
                n_scored += 1
    assert n_scored == len(tokens) - 1


def test_a_text_read_in_stripes_is_its_stripes(tmp_path: Path, monkeypatch: Any) -> None:
    """Of every third stripe each character once, in order, whatever the documents are."""
    monkeypatch.setattr(text_range, "STRIPE", 7)
    text = "".join(f"line {n}\n" * (n % 3 + 1) for n in range(60))
    path = tmp_path / "text.txt"
    path.write_text(text)
    for separator in (None, "\n"):
        whole = scan([path], separator)
        full = "".join(piece.text for piece in whole.parts())
        assert len(full) == whole.n_chars
        for start, stop in ((0, whole.stop), (5, whole.stop - 4)):
            part = replace(whole, start=start, stop=stop, stripe_interval=3)
            expected = [full[a : min(a + 7, stop)] for a in range(start, stop, 21)]
            pieces = list(part.parts())
            assert "".join(piece.text for piece in pieces) == "".join(expected)
            assert part.n_chars == sum(map(len, expected))
            assert sum(piece.is_first for piece in pieces) >= len(expected)  # each cut begins one


def test_of_a_long_text_a_part_is_read_from_all_over_it(tmp_path: Path, monkeypatch: Any) -> None:
    """About as much as asked for, under another name in the cache; a short text is read whole."""
    monkeypatch.setattr(text_range, "STRIPE", 100)
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n} is a number.\n" for n in range(4000)))
    source, cache = corpora.find([str(path)], tmp_path), tmp_path / "cache"
    tokenizer, train, val = prepare(source, None, "byte", 0, cache)
    _, part, part_val = prepare(source, tokenizer, "", 0, cache, max_chars=9000)
    assert 0.8 * 9000 < part.n_bytes + part_val.n_bytes < 1.2 * 9000
    assert part.path != train.path and part_val.path != val.path
    assert part.stripe_interval > 1 == train.stripe_interval
    numbers = [int(n) for n in re.findall(r"\n(\d+) is", text_of(part, tokenizer))]
    assert numbers == sorted(numbers) and numbers[0] < 200 and numbers[-1] > 3300
    assert prepare(source, tokenizer, "", 0, cache, max_chars=10**6)[1] == train


def text_of(tokens: TokenStream, tokenizer: Tokenizer) -> str:
    """Return the text of a stream, with | before each document."""
    ids = tokens.read(0, tokens.n_tokens)
    documents = np.split(ids, np.flatnonzero(ids == tokens.end_of_text))[1:]
    return "".join("|" + tokenizer.decode(document[1:].tolist()) for document in documents)
