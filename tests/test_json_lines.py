"""Documents in JSON Lines, and texts that gzip has packed."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from pathlib import Path

import pytest

import train
from minigen import corpora
from minigen.data import scan
from minigen.data.json_lines import MAX_LINE, _lines
from minigen.data.text import read_documents
from minigen.errors import UserError
from minigen.tokenizer import END_OF_TEXT

DOCUMENTS = (
    "One cat.\nIt sat.",
    "나는 고양이다. 🙂",
    f'A "quoted" {{brace}} \\ and {END_OF_TEXT[:4]}',
)
JSON_LINES = "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(DOCUMENTS))


def sha256(path: Path, separator: str | None = None) -> str:
    """Return the digest of the documents of a file, which depends on where documents begin."""
    return scan([path], separator).sha256


def put(path: Path, text: str) -> Path:
    """Write a file, packed if its name ends in .gz; return its path."""
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_the_same_documents_are_read_from_each_kind_of_file(tmp_path: Path) -> None:
    """From a text with separators, from JSON Lines, with either field, and from packed ones."""
    whole = END_OF_TEXT.join(DOCUMENTS)
    expected = sha256(put(tmp_path / "a.txt", whole), END_OF_TEXT)
    assert sha256(put(tmp_path / "a.txt.gz", whole), END_OF_TEXT) == expected
    others = {"a.jsonl": JSON_LINES, "A.JSONL.gz": JSON_LINES, "b.ndjson": JSON_LINES}
    others["c.jsonl"] = JSON_LINES.replace('"text"', '"content"').replace("\n", "\r\n\r\n")
    for name, content in others.items():
        assert sha256(put(tmp_path / name, content)) == expected, name


def test_a_folder_of_packed_and_plain_files_is_one_text(tmp_path: Path) -> None:
    """All are found, in the order of their names, and a packed picture is left out as a binary."""
    put(tmp_path / "a.jsonl.gz", JSON_LINES)
    put(tmp_path / "b.txt", "plain")
    put(tmp_path / "c.txt.gz", "packed")
    (tmp_path / "d.gz").write_bytes(gzip.compress(b"\x89PNG\0\0" * 9))
    corpus = corpora.find([str(tmp_path)], tmp_path, "auto")
    parts = [part.text for part in read_documents(corpus.train, corpus.separator)]
    assert parts == [*DOCUMENTS, "plain", "packed"]
    assert corpus.notes == (f"skipped 1 binary file {tmp_path / 'd.gz'}",)


def test_a_packed_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    """At 200 places: by the name of the file, in one line, and never read as a shorter text."""
    rng = random.Random(0)
    data = gzip.compress("".join(rng.choices("abc \n", k=9000)).encode())
    path = tmp_path / "a.txt.gz"
    for place in rng.sample(range(len(data)), 200):
        path.write_bytes(data[:place])
        with pytest.raises(UserError) as caught:
            scan(corpora.find([str(path)], tmp_path).train, None)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_packed_file_with_other_bytes_in_the_middle_is_refused(tmp_path: Path) -> None:
    """gzip keeps a checksum of the text, so a changed byte is noticed, wherever it is."""
    rng = random.Random(1)
    text = "".join(rng.choices("abc \n", k=9000)).encode()
    data, path = gzip.compress(text), tmp_path / "a.txt.gz"
    for place in rng.sample(range(10, len(data)), 100):  # the first ten are a time and the like
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with pytest.raises(UserError, match=r"a\.txt\.gz is "):
            scan([path], None)


def test_a_small_file_with_a_large_text_is_read_in_little_memory(tmp_path: Path) -> None:
    """64 MB of one letter are 64 KB when packed, and never in memory at once."""
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"a" * (1 << 26)))
    tracemalloc.start()
    try:
        assert scan([path], None).n_chars == 1 << 26
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_line_without_an_end_stops_before_it_fills_the_memory() -> None:
    """Of endless chunks without a newline, a little more than the longest line is taken."""
    n_taken = 0

    def chunks() -> object:
        nonlocal n_taken
        while True:
            n_taken += 1
            yield "x" * (1 << 24)

    assert len(next(_lines(chunks()))) > MAX_LINE  # type: ignore[arg-type]
    assert n_taken == MAX_LINE // (1 << 24) + 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("text", "is not JSON"),
        ("[" * 9999, "is not JSON"),
        ('{"text": ' + "9" * 5000 + "}", "is not JSON"),
        ('["a"]', "is not a JSON object"),
        ('{"title": "a"}', "has no field text or content"),
        ('{"text": 3}', "has a field text that is no string"),
        ('{"text": "\\ud800"}', "has half of a surrogate pair"),
        ('{"prompt": "a", "completion": "b"}', "has a prompt and an answer"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "has a prompt and an answer"),
    ],
)
def test_a_line_without_a_text_is_refused_by_its_number(
    line: str, reason: str, tmp_path: Path
) -> None:
    """It is never read as text, whose braces a model would learn."""
    path = put(tmp_path / "a.jsonl", JSON_LINES + line + "\n" + JSON_LINES)
    with pytest.raises(UserError) as caught:
        scan([path], None)
    assert str(caught.value) == f"{path}, line 4 {caught_reason(caught.value)}; mend or remove it"
    assert caught_reason(caught.value).startswith(reason)


def caught_reason(error: UserError) -> str:
    """Return the part of the message between the line's number and the advice."""
    return str(error).partition("line 4 ")[2].partition(";")[0]


def test_a_run_trains_on_json_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line is a document, without a note on rows; a separator for them is refused."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a.jsonl.gz", JSON_LINES * 60)
    flags = "--data a.jsonl.gz --n_layer 1 --n_head 1 --n_embd 8 --block_size 8 --batch_size 2"
    flags += " --device cpu --compile no --max_steps 2 --tokenizer byte"
    assert train.main(flags.split()) == 0
    assert "separator" not in capsys.readouterr().err
    with pytest.raises(UserError, match=r"a\.jsonl\.gz parts its documents by itself"):
        train.main([*flags.split(), "--separator=--"])
