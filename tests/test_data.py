"""Text to tokens: files, documents, the part held out, shards, the cache, and memory."""

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
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from digests import digests
from hypothesis import given
from hypothesis import strategies as st
from text_streams import (
    BPE,
    BYTE,
    HARD,
    WORDS,
    Files,
    encoded,
    hard_text,
    ids,
    in_chunks,
    many,
    newlines,
    put,
    train_stream,
    with_folder,
)

from minigen import corpora
from minigen.corpora import Corpus
from minigen.data import (
    notes,
    notes_on_text,
    opening,
    prepare,
    scan,
    text_range,
    vocabulary,
    write_tokens,
)
from minigen.data import shards as sharding
from minigen.data.text import naive_documents, read_text, split_documents
from minigen.data.text_range import hold_out
from minigen.data.tokens import naive_tokens
from minigen.errors import UserError
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

# ---- files to text ----


@hard_text
@with_folder
def test_reading_in_chunks_is_reading_at_once(tmp_path: Path, text: str, chunk: int) -> None:
    """A text read in chunks is the same, also if they end within a character, CRLF or BOM."""
    path = put(tmp_path, "\ufeff" + text)
    with in_chunks(chunk):
        assert "".join(read_text(path)) == newlines(text)


def test_crlf_and_byte_order_mark_leave_no_trace(tmp_path: Path) -> None:
    """A file from Windows gives the tokens, and the cache, of the same text from Unix."""
    plain = train_stream(tmp_path, "a\nb\n\nc\n")
    windows = train_stream(tmp_path, "\ufeffa\r\nb\r\n\r\nc\r")
    assert windows == plain
    assert ids(plain) == [256, *b"a\nb\n\nc\n"]


@pytest.mark.parametrize("before", [0, 1, 5, 8, 1000])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xe6\xbc", b"\xed\xa0\x80"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_invalid_utf8_is_named_with_its_byte(
    tmp_path: Path, before: int, bad: bytes, mark: bytes
) -> None:
    """The error about a file that is not UTF-8 names the file and the first bad byte."""
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
    """A file with bytes that occur in no text is refused, and the error names it."""
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
def test_the_suggested_command_converts_the_file(
    tmp_path: Path, encoding: str, line: str, before: str, times: int
) -> None:
    """The error about another encoding guesses it, and its command makes UTF-8 of the file."""
    text = before + line * times
    path = put(tmp_path, text.encode(encoding), "my text.txt")
    with in_chunks(1001), pytest.raises(UserError) as caught:  # a chunk ends within a character
        list(read_text(path))
    message = str(caught.value)
    assert re.fullmatch(rf"{re.escape(str(path))} is not UTF-8: .*it may be.*", message)
    (command,) = re.findall(rf"iconv -f {encoding} -t UTF-8 .*txt'(?= makes)", message)
    if shutil.which("iconv") is None:
        pytest.skip("there is no iconv here")
    subprocess.run(command, shell=True, check=True)
    assert "".join(read_text(tmp_path / "my text-utf8.txt")) == text


@pytest.mark.parametrize(
    "content", ["né ".encode() + b"caf\xe9", "né\n".encode() * 999 + b"\xe9 ", b"\x81 \x81 "]
)
def test_no_encoding_is_named_without_evidence(tmp_path: Path, content: bytes) -> None:
    """A damaged UTF-8 text, or bytes that are letters in no encoding, get no guess."""
    path = put(tmp_path, content)
    with in_chunks(1000), pytest.raises(UserError) as caught:
        list(read_text(path))
    assert str(caught.value).endswith("; convert it to UTF-8, or leave it out")


def test_text_with_some_control_characters_is_text(tmp_path: Path) -> None:
    """Colours, form feeds, and a Ctrl-Z alone in the last chunk make no file binary."""
    text = "\x1b[31mred\x1b[0m\f\ttab\x1a"
    path = put(tmp_path, text)
    with in_chunks(len(text) - 1):
        assert "".join(read_text(path)) == text


@pytest.mark.parametrize("content", ["", "\ufeff", "x"])
def test_too_little_text_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    """An empty file, or one too short to hold out a part, is refused in one line with its name."""
    path = put(tmp_path, content)
    with pytest.raises(UserError, match=r"text\.txt") as caught:
        prepare(Files((path,)), BYTE, "byte", 0, tmp_path / "cache")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_a_text_without_a_window_is_refused_before_anything_is_written(
    tmp_path: Path, kind: str
) -> None:
    """A text with fewer than T + 1 tokens is refused, and leaves no cache; T + 1 are enough."""
    source, cache = Files((put(tmp_path, "the cat sat on the mat. " * 40),)), tmp_path / "cache"
    *_, val = prepare(source, None, kind, 270, tmp_path / "trial")
    with pytest.raises(UserError, match=f"has only {val.n_tokens} tokens, and --block_size"):
        prepare(source, None, kind, 270, cache, block_size=val.n_tokens)
    assert not cache.exists()
    assert prepare(source, None, kind, 270, cache, block_size=val.n_tokens - 1)[2].n_windows(1)


def test_an_unreadable_path_is_refused_in_one_line(tmp_path: Path) -> None:
    """A folder, a missing file and a loop of links are refused with the reason."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path, tmp_path / "missing", loop):
        with pytest.raises(UserError, match="cannot read"):
            list(read_text(path))


def test_a_cache_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    """A file in the place of the cache's folder is refused in one line."""
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
    """A text that is split in chunks has the documents of `naive_documents`."""
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    documents: list[str] = []
    for begins, piece in split_documents(chunks, separator):
        assert piece
        documents += [""] if begins else []
        documents[-1] += piece
    assert documents == naive_documents(text, separator)


def test_endless_newlines_do_not_wait_in_memory() -> None:
    """At most READ newlines wait to see whether text follows; all of them stay in the text."""
    n_fed, text = 0, ""

    def endless() -> Iterator[str]:
        nonlocal n_fed
        for chunk in ["x", *["\n\n\n"] * 100, "y"]:
            assert n_fed - len(text) <= 8 + len("---")
            n_fed += len(chunk)
            yield chunk

    with in_chunks(8):
        for _, piece in split_documents(endless(), "---"):
            text += piece
    assert text == "x" + "\n" * 300 + "y"


@pytest.mark.parametrize(
    ("separator", "text", "n_documents", "n_bytes"),
    [
        (None, b"|one\n\n\n\ntwo\n|\n\nthree\n\n", 2, 20),
        ("\n\n", b"|one|two|three", 3, 11),
    ],
)
def test_each_document_begins_with_end_of_text(
    tmp_path: Path, separator: str | None, text: bytes, n_documents: int, n_bytes: int
) -> None:
    """END_OF_TEXT, here |, stands before each document: a file, or a part between separators."""
    contents = {"a": "one\n\n\n\ntwo\n", "empty": "", "b": "\n\nthree\n\n"}
    files = tuple(put(tmp_path, content, name) for name, content in contents.items())
    source = Files(files, files[:1], separator)
    _, stream, _ = prepare(source, BYTE, "byte", 0, tmp_path / "cache")
    assert b"".join(b"|" if id == 256 else bytes([id]) for id in ids(stream)) == text
    assert (stream.n_documents, stream.n_bytes) == (n_documents, n_bytes)
    assert stream.n_tokens == len(text)


@pytest.mark.parametrize("separator", ["\n", "\n\n", "--", "é"])
def test_bits_per_byte_counts_the_separators(tmp_path: Path, separator: str) -> None:
    """Bits per byte count all bytes of the file, separators included."""
    text = separator.join(["one", "two", "three", "fünf"])
    stream = train_stream(tmp_path, text, separator=separator)
    bits = (stream.n_tokens - 1) / math.log(2)  # all but the first token, at 1 nat each
    expected = pytest.approx(bits / len(text.encode()))
    assert stream.bits_per_byte(len(separator.encode())) == expected


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
def test_a_sample_of_a_book_starts_like_a_paragraph_or_line(
    tmp_path: Path, documents: list[str], start: str
) -> None:
    """A sample of a text without documents starts after a paragraph or line, else at once."""
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
    """A text of short lines gets a note with their number; a book or a program gets none."""
    path = put(tmp_path, text)
    for chunk in (100, 1 << 20):
        with in_chunks(chunk):
            notes = notes_on_text(Files((path,)))
            assert [note.split(" ")[0] for note in notes] == ([str(n_lines)] if n_lines else [])
    assert notes_on_text(Files((path,), (), "\n")) == []


def test_end_of_text_written_in_a_file_is_plain_text(tmp_path: Path) -> None:
    """Without a separator, a written END_OF_TEXT is encoded as letters, by any tokenizer."""
    for tokenizer in (BYTE, BPE, train_tokenizer("char", [END_OF_TEXT + "held out"])):
        stream = ids(train_stream(tmp_path, END_OF_TEXT, tokenizer))
        assert stream.count(tokenizer.end_of_text) == 1
        assert tokenizer.decode(stream[1:]) == END_OF_TEXT


def test_a_document_that_fills_its_chunk_ends_there(tmp_path: Path) -> None:
    """A document that fills a chunk exactly does not continue with the next document."""
    with in_chunks(4):
        stream = ids(train_stream(tmp_path, "abcd\n\nefgh\n\nij", separator="\n\n"))
    assert stream == [256, *b"abcd", 256, *b"efgh", 256, *b"ij"]


# ---- the part that is held out ----


@hard_text
@with_folder
def test_the_last_tenth_of_the_characters_is_held_out(
    tmp_path: Path, text: str, chunk: int
) -> None:
    """Of one file, text[: int(0.9 * n)] is to train on, and the rest to validate on."""
    text = newlines("x" + text + "yz")  # so that neither part is empty, nor a byte order mark first
    path = put(tmp_path, text)
    cut = int(0.9 * len(text))
    with in_chunks(chunk):
        parts = hold_out(scan([path], None), 0.1)
        for part, expected in zip(parts, (text[:cut], text[cut:]), strict=True):
            assert BYTE.decode(encoded(part, BYTE)) == END_OF_TEXT + expected


def test_held_out_text_of_several_files_begins_within_one(tmp_path: Path) -> None:
    """The cut may fall within a file; the rest of this file is the first document held out."""
    files = tuple(put(tmp_path, letter * 4, letter) for letter in "abcde")
    with in_chunks(2):
        _, held_out = hold_out(scan(files, None), 0.3)
        assert [*held_out.parts()] == [(True, "dd"), (True, "ee"), (False, "ee")]
    _, train, val = prepare(Files(files), BYTE, "byte", 0, tmp_path / "cache", val_fraction=0.3)
    assert ids(train) == [256, *b"aaaa", 256, *b"bbbb", 256, *b"cccc", 256, *b"dd"]
    assert ids(val) == [256, *b"dd", 256, *b"eeee"]


def test_a_corpus_with_validation_files_is_used_whole(tmp_path: Path) -> None:
    """Nothing is held out of the training files if there are validation files."""
    source = Files((put(tmp_path, "train", "t"),), (put(tmp_path, "validate", "v"),))
    _, train, val = prepare(source, BYTE, "byte", 0, tmp_path / "cache")
    assert (ids(train), ids(val)) == ([256, *b"train"], [256, *b"validate"])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_an_impossible_fraction_is_refused(tmp_path: Path, fraction: float) -> None:
    """A fraction to hold out that is not between 0 and 1 is refused."""
    with pytest.raises(UserError, match="val_fraction"):
        prepare(Files((put(tmp_path, "text"),)), BYTE, "byte", 0, tmp_path / "cache", fraction)


# ---- text to tokens ----


@hard_text
@with_folder
def test_the_text_comes_back_from_its_tokens(tmp_path: Path, text: str, chunk: int) -> None:
    """The tokens of a text decode to that text, wherever its chunks end."""
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
    """The tokens of a text that is encoded in chunks are those of the whole text.

    Among the longest blank (4 characters), the longest word (13) and the first character of the
    next blank there is always a place to cut, so 18 characters are enough.
    """
    text = "x" + "".join(word + blank for word, blank in pairs)
    with in_chunks(18 + extra):
        stream = encoded(scan([put(tmp_path, text)], None), BPE)
    assert stream == [BPE.end_of_text, *BPE.encode(text)]


def test_a_long_text_without_a_blank_is_tokenised(tmp_path: Path) -> None:
    """A text that has no place to cut is cut anywhere, and its tokens decode to the text."""
    text = "漢字" * 5000
    with in_chunks(1000):
        assert BPE.decode(ids(train_stream(tmp_path, text, BPE))[1:]) == text


@pytest.fixture
def threads() -> Iterator[None]:
    """Put back the number of threads that a test has changed."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


CATS = "".join(f"{i} the cat's\n{'漢字' * (i % 7)} sat\n\n" for i in range(300))
separators = pytest.mark.parametrize("separator", [None, "\n\n"])


@separators
def test_the_number_of_threads_changes_no_file(
    tmp_path: Path, threads: None, separator: str | None
) -> None:
    """One thread, two and three write the same files."""
    text = scan([put(tmp_path, CATS)], separator)
    files = []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        with in_chunks(100, 1000):
            assert len(write_tokens(text, BPE, tmp_path / f"{n_threads}", "text").shards) > 5
        files.append(digests(tmp_path / f"{n_threads}"))
    assert files[0] == files[1] == files[2]


@separators
@pytest.mark.parametrize(("shard", "n_shards"), [(1, 40), (1000, 5), (1 << 26, 1)])
def test_shards_of_any_size_hold_the_naive_tokens(
    tmp_path: Path, separator: str | None, shard: int, n_shards: int
) -> None:
    """All shards together hold the stream of `naive_tokens`, and the counts of the whole text."""
    with in_chunks(100, shard):
        text = scan([put(tmp_path, CATS)], separator)
        stream = write_tokens(text, BPE, tmp_path / "cache", "text")
    documents = naive_documents(CATS, separator) if separator else [CATS]
    naive = naive_tokens(documents, BPE)
    assert ids(stream) == naive and len(stream.shards) >= n_shards
    assert (stream.n_tokens, stream.n_documents) == (len(naive), len(documents))
    assert stream.n_bytes == len("".join(documents).encode())


@separators
@pytest.mark.parametrize("block_size", [16, 200, 5000])
def test_batches_do_not_depend_on_the_shards(
    tmp_path: Path, separator: str | None, block_size: int
) -> None:
    """Windows that lie in one shard, in two, or in hundreds are the same windows."""
    text, streams = scan([put(tmp_path, CATS)], separator), []
    for shard in (1, 1000, 1 << 26):
        with in_chunks(100, shard):
            streams.append(write_tokens(text, BPE, tmp_path / f"{shard}", "text"))
    *in_shards, whole = streams
    for stream in in_shards:
        batch, same = (one.windows(0, range(60, 80), block_size) for one in (stream, whole))
        assert torch.equal(torch.stack(batch), torch.stack(same))
        pairs = zip(stream.sliding(block_size, 8), whole.sliding(block_size, 8), strict=True)
        assert all(torch.equal(torch.stack(a), torch.stack(b)) for a, b in pairs)


# Tokenises a text in many small chunks and shards, so that a kill finds it in the midst of them.
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
    """A killed process leaves complete shards, which stay; the stream is as without the kill."""
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


LINES = "".join(f"the cat {i}\n" for i in range(500))


@pytest.fixture
def begun(tmp_path: Path) -> dict[str, tuple[int, str]]:
    """Tokenise LINES until an interruption, and return the files of the cache."""
    encode_documents = Tokenizer.encode_documents

    def interrupted(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray[Any, Any]:
        if "the cat 300\n" in documents[0]:
            raise KeyboardInterrupt
        return encode_documents(tokenizer, documents)

    with (
        in_chunks(100, 1000),
        mock.patch.object(Tokenizer, "encode_documents", interrupted),
        pytest.raises(KeyboardInterrupt),
    ):
        write_tokens(scan([put(tmp_path, LINES)], None), BYTE, tmp_path / "cache", "text")
    files = contents(tmp_path / "cache")
    assert len(files) == 4  # three shards and their index
    return files


@pytest.mark.parametrize("change", ["text", "tokenizer", "version"])
def test_shards_of_another_stream_are_never_continued(
    tmp_path: Path, begun: dict[str, tuple[int, str]], change: str, monkeypatch: Any
) -> None:
    """Another end of the text, tokenizer or format begins a stream of its own, beside the old."""
    text = LINES[:-2] + "?\n" if change == "text" else LINES
    tokenizer = BPE if change == "tokenizer" else BYTE
    if change == "version":
        monkeypatch.setattr(sharding, "FORMAT", sharding.FORMAT + 1)
    with in_chunks(100, 1000):
        scanned = scan([put(tmp_path, text)], None)
        stream = write_tokens(scanned, tokenizer, tmp_path / "cache", "text")
    assert tokenizer.decode(ids(stream)[1:]) == text
    assert contents(tmp_path / "cache").items() >= begun.items()


def test_ids_take_two_bytes_while_they_fit_and_four_beyond(tmp_path: Path) -> None:
    """Of 65,536 ids, each fits into two bytes; with one id more, each takes four."""
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
    """A char tokenizer has an id for each character of the held-out text, so all can be scored."""
    path = put(tmp_path, "a" * 998 + "b€")
    tokenizer, _, val = prepare(Files((path,)), None, "char", 0, tmp_path / "cache")
    assert tokenizer.n_vocab == 4
    assert tokenizer.decode(ids(val)[1:]) == "a" * 98 + "b€"


def test_bpe_does_not_see_the_validation_text(tmp_path: Path) -> None:
    """A bpe tokenizer is trained on the training text alone: the loss is to measure new text."""
    train, val = put(tmp_path, "abc abc abc", "t"), put(tmp_path, "xyz xyz xyz", "v")
    tokenizer, _, _ = prepare(Files((train,), (val,)), None, "bpe", 300, tmp_path / "cache")
    assert len(tokenizer.encode("abc")) == 1
    assert len(tokenizer.encode("xyz")) == 3


def test_bpe_is_trained_on_chunks_from_all_over_a_long_text(tmp_path: Path) -> None:
    """The sample has a fixed size, and characters from each tenth of the text."""
    lines = [f"{i:07d}\n" for i in range(200_000)]
    text = scan([put(tmp_path, "".join(lines))], None)
    with mock.patch.object(vocabulary, "BPE_SAMPLE", 800_000):
        sample = [*vocabulary.sample(text)]
    assert 800_000 <= sum(map(len, sample)) < 900_000
    tenths = Counter(int(line) // 20_000 for chunk in sample for line in chunk.split())
    assert min(tenths[tenth] for tenth in range(10)) > 5_000
    assert "".join(vocabulary.sample(text)) == "".join(lines)


def test_a_given_tokenizer_is_used(tmp_path: Path) -> None:
    """`prepare` trains no tokenizer if it is given one."""
    path = put(tmp_path, "the cat sat")
    tokenizer, train, _ = prepare(Files((path,)), BPE, "char", 0, tmp_path / "cache")
    assert tokenizer is BPE
    assert ids(train) == [BPE.end_of_text, *BPE.encode("the cat s")]


def test_a_given_char_tokenizer_names_unknown_characters(tmp_path: Path) -> None:
    """A text with a character that has no id is refused, and no partial file stays."""
    with pytest.raises(UserError, match="€"):
        train_stream(tmp_path, "a€a", train_tokenizer("char", ["a held out"]))
    assert not list((tmp_path / "cache").glob("*.part"))


# ---- the cache ----


def contents(cache: Path, pattern: str = "*") -> dict[str, tuple[int, str]]:
    """Return the inode and digest of each file; a file that is written again has a new inode."""
    files = digests(cache, pattern).items()
    return {name: ((cache / name).stat().st_ino, digest) for name, digest in files}


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_text_is_tokenised_once(tmp_path: Path, kind: str) -> None:
    """A second `prepare`, even of a copy of the text, trains, encodes and writes nothing."""
    cache = tmp_path / "cache"
    first = prepare(Files((put(tmp_path, "the cat " * 99),)), None, kind, 280, cache)
    before = contents(cache)
    assert len(before) == 5  # a tokenizer, and two streams with their indexes
    copy = put(tmp_path, "the cat " * 99, "copy.txt")
    with (
        mock.patch.object(Tokenizer, "encode_array", side_effect=AssertionError),
        mock.patch.object(vocabulary, "train_tokenizer", side_effect=AssertionError),
    ):
        again = prepare(Files((copy,)), None, kind, 280, cache)
    assert contents(cache) == before
    assert again[1:] == first[1:]
    assert again[0].fingerprint == first[0].fingerprint


def test_each_stream_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Another text, tokenizer, separator or split never gets the file of this stream."""
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
    """A damaged shard, index or tokenizer is made again, and then the cache is as before."""
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


def test_a_cached_tokenizer_has_the_number_of_tokens_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the rule for the number of tokens changes, a text gets a tokenizer with the new number."""
    source = Files((put(tmp_path, " ".join(map(str, range(3000)))),))
    for n_vocab in (270, 280):
        monkeypatch.setattr("minigen.data.cache.vocabulary_size", lambda _, n=n_vocab: n)
        tokenizer, *_ = prepare(source, None, "bpe", 0, tmp_path / "cache")
        assert tokenizer.n_vocab == n_vocab
    monkeypatch.setattr("minigen.data.cache.learn_tokenizer", None)
    assert prepare(source, None, "bpe", 270, tmp_path / "cache")[0].n_vocab == 270  # from the cache


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    """A stream that cannot be written leaves nothing that could be taken for a stream."""
    with (
        mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")),
        pytest.raises(UserError, match="No space left on device"),
    ):
        train_stream(tmp_path, "text")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("content", ["a text", "", "a long tale"])
def test_a_text_that_changes_while_it_is_read_is_not_kept(tmp_path: Path, content: str) -> None:
    """A file that was changed after the scan is refused, and the cache gets no file."""
    path = put(tmp_path, "a long text")
    text = scan([path], None)
    put(tmp_path, content)
    os.utime(path, ns=(0, 0))  # the clock of a file system is coarse
    with pytest.raises(UserError, match="changed"):
        write_tokens(text, BYTE, tmp_path / "cache", "text")
    with pytest.raises(UserError, match="changed"):
        vocabulary.learn_tokenizer(text, text, "char", 0)
    assert not list((tmp_path / "cache").glob("*"))


def test_two_processes_at_once_make_the_same_cache(tmp_path: Path) -> None:
    """Two processes that prepare one text at once succeed, with the same result."""
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


# Prepares the files given, draws batches, and prints after each file its peak of memory in KiB. Why
# not getrusage? Its peak includes that of the parent process, from which this one was forked.
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
    """Return the peak of memory in KiB after each text, in a new process."""
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
    """A text several times as long takes at most 30 MB more at the peak."""
    texts = []
    for size in megabytes:
        text = unit.encode() * (int(size * 2**20) // len(unit.encode()))
        texts.append(put(tmp_path, text, f"{size}.txt"))
    short, long = peaks(kind, separator, tmp_path / "cache", *texts)
    assert long - short < 30 << 10


@linux
@pytest.mark.slow
def test_a_text_of_a_gigabyte_takes_600_mb(tmp_path: Path) -> None:
    """All threads together need 600 MB for a text of a gigabyte."""
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
    """The documents of any bytes decode from their tokens, or one line names the file."""
    path = put(tmp_path, content)
    try:
        with in_chunks(*sizes), tempfile.TemporaryDirectory() as cache:
            tokenizer, *streams = prepare(
                Files((path,), (), separator), None, kind, 260, Path(cache)
            )
            stream = [id for part in streams for id in ids(part) if id != tokenizer.end_of_text]
            for part in streams:
                x, y = part.windows(0, range(2), 4)
                assert torch.equal(x[:, 1:], y[:, :-1])
    except UserError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error) or "smaller --block_size" in str(error)
        return
    text = newlines(content.decode("utf-8-sig"))
    documents = naive_documents(text, separator) if separator else [text]
    if text.count("\n") <= sizes[0]:  # no document ends with more newlines than can wait
        assert tokenizer.decode(stream) == "".join(documents)


# ---- a part of a long text ----


@pytest.mark.parametrize("separator", [None, "\n"])
@pytest.mark.parametrize(("begin", "end"), [(0, 0), (5, 4)])
def test_a_text_read_in_stripes_is_its_stripes(
    tmp_path: Path, monkeypatch: Any, separator: str | None, begin: int, end: int
) -> None:
    """Each character of every third stripe is read once, in order, whatever the documents are."""
    monkeypatch.setattr(text_range, "STRIPE", 7)
    path = put(tmp_path, "".join(f"line {n}\n" * (n % 3 + 1) for n in range(60)))
    whole = scan([path], separator)
    full = "".join(part.text for part in whole.parts())
    stop = len(full) - end
    striped = replace(whole, start=begin, stop=stop, stripe_interval=3)
    stripes = [full[start : min(start + 7, stop)] for start in range(begin, stop, 21)]
    parts = list(striped.parts())
    assert "".join(part.text for part in parts) == "".join(stripes)
    assert striped.n_chars == sum(map(len, stripes))
    assert sum(part.is_first for part in parts) >= len(stripes)  # a stripe begins a document


@pytest.fixture
def numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Return a corpus of 4,000 numbered lines, of which stripes have 100 characters."""
    monkeypatch.setattr(text_range, "STRIPE", 100)
    path = put(tmp_path, "".join(f"{n} is a number.\n" for n in range(4000)))
    return corpora.find([str(path)], tmp_path)


def test_about_max_chars_of_a_long_text_are_read(numbers: Corpus, tmp_path: Path) -> None:
    """Of a text that is longer than `max_chars`, about that number is read, from all over it."""
    tokenizer, train, val = prepare(numbers, None, "byte", 0, tmp_path / "cache", max_chars=9000)
    assert 0.8 * 9000 < train.n_bytes + val.n_bytes < 1.2 * 9000
    assert train.stripe_interval > 1
    lines = [int(n) for n in re.findall(r"\n(\d+) is", tokenizer.decode(ids(train)))]
    assert lines == sorted(lines) and lines[0] < 200 and lines[-1] > 3300


def test_a_text_in_part_has_its_own_place_in_the_cache(numbers: Corpus, tmp_path: Path) -> None:
    """A text that is read in part is never taken for the whole; a short text is read whole."""
    tokenizer, *whole = prepare(numbers, None, "byte", 0, tmp_path / "cache")
    for max_chars, is_whole in ((9000, False), (10**6, True)):
        _, *streams = prepare(numbers, tokenizer, "", 0, tmp_path / "cache", max_chars=max_chars)
        for stream, whole_stream in zip(streams, whole, strict=True):
            assert (stream.path == whole_stream.path) == is_whole
