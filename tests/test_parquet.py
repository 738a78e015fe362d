"""Documents in the tables of Parquet files."""

from __future__ import annotations

import random
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

import train
from minigen import corpora
from minigen.data import notes_on_text, scan
from minigen.data.parquet import read_parquet
from minigen.data.text import read_documents
from minigen.errors import UserError
from minigen.tokenizer import END_OF_TEXT

DOCUMENTS = ("One cat.\nIt sat.", "나는 고양이다. 🙂", f'A "quoted" {{brace}} {END_OF_TEXT[:4]}')


def put(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """Write a table; return the path of the file."""
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def texts(*files: Path) -> list[str]:
    """Return the documents of files."""
    parts = [*read_documents(files, None)]
    assert all(part.is_first for part in parts)
    return [part.text for part in parts]


def test_each_row_is_a_document(tmp_path: Path) -> None:
    """Of both names of the column, from any row groups, types of strings and compressions."""
    rows = [f"{text}\r\n" for text in DOCUMENTS]
    put(tmp_path / "a.parquet", {"id": [1, 2, 3], "text": rows})
    put(tmp_path / "b.parquet", {"content": rows}, row_group_size=1, compression="zstd")
    put(tmp_path / "c.PARQUET", {"text": pyarrow.array(rows).dictionary_encode(), "content": rows})
    put(tmp_path / "d.parquet", {"text": pyarrow.array([None, *rows, ""], pyarrow.large_string())})
    for name in ("a.parquet", "b.parquet", "c.PARQUET", "d.parquet"):
        assert texts(tmp_path / name) == ["One cat.\nIt sat.", *DOCUMENTS[1:]], name


def test_a_folder_has_tables_beside_texts(tmp_path: Path) -> None:
    """In the order of their names; none is taken for a binary file."""
    put(tmp_path / "a.parquet", {"text": DOCUMENTS})
    (tmp_path / "b.jsonl").write_text('{"text": "a line"}\n', "utf-8")
    (tmp_path / "c.txt").write_text(f"plain{END_OF_TEXT}text", "utf-8")
    (tmp_path / "d.png").write_bytes(b"\x89PNG\0\0" * 9)
    corpus = corpora.find([str(tmp_path)], tmp_path, "auto")
    parts = [part.text for part in read_documents(corpus.train, corpus.separator)]
    assert parts == [*DOCUMENTS, "a line", "plain", "text"]
    assert corpus.notes[0] == f"skipped 1 binary file {tmp_path / 'd.png'}"
    assert notes_on_text(corpus) == []
    stray = put(tmp_path / "stray.parquet", {"text": ["caf\ufffd"]})
    (note,) = notes_on_text(corpora.find([str(stray)], tmp_path))
    assert note.startswith("warning: the text has U+FFFD 1 time")


def test_a_large_row_group_is_read_in_little_memory(tmp_path: Path) -> None:
    """32 MB in a single row group are never in memory at once."""
    rows = [random.Random(n).randbytes(512).hex() for n in range(1 << 15)]
    path = put(tmp_path / "a.parquet", {"text": rows}, row_group_size=1 << 20)
    del rows
    pool, n_bytes = pyarrow.default_memory_pool(), 0
    before, most = pool.bytes_allocated(), 0
    tracemalloc.start()
    try:
        for text in read_parquet(path):
            n_bytes += len(text)
            most = max(most, pool.bytes_allocated() - before)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert n_bytes == 1 << 25 and most < 1 << 23


def test_a_small_table_of_large_rows_is_read_in_little_memory(tmp_path: Path) -> None:
    """A dictionary has one text of 4 MB for 50 rows, which are never in memory at once."""
    indices = pyarrow.array([0] * 50, pyarrow.int32())
    rows = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["a" * (1 << 22)]))
    path = put(tmp_path / "a.parquet", {"text": rows}, compression="zstd", store_schema=False)
    del rows
    assert path.stat().st_size < 10_000
    pool, most = pyarrow.default_memory_pool(), 0
    before = pool.bytes_allocated()
    for text in read_parquet(path):
        most = max(most, pool.bytes_allocated() - before)
        assert len(text) == 1 << 22
    assert most < 1 << 25


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"title": ["a"], "n": [1]}, "has no field text or content; its columns are 'title', 'n'"),
        ({"a\nb": ["a"]}, r"its columns are 'a\nb'"),
        ({"text": [1, 2]}, "has a column text of type 'int64', which is no text"),
        ({"text": [["a"]]}, "has a column text of type 'list"),
        ({"prompt": ["a"], "completion": ["b"]}, "has a prompt and an answer"),
        ({"messages": [["a"]]}, "has a prompt and an answer"),
        ({"text": ["", "\n", None]}, "no text in "),
    ],
)
def test_a_table_without_texts_is_refused(
    columns: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """By the name of the file and of its columns."""
    path = put(tmp_path / "a.parquet", columns)
    with pytest.raises(UserError) as caught:
        scan([path], None)
    assert reason in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    """Cut short at 100 places, or changed within a page of which it keeps a checksum."""
    rng, path = random.Random(0), tmp_path / "a.parquet"
    rows = ["".join(rng.choices("abc \n", k=300)) for _ in range(40)]
    put(path, {"text": rows}, write_page_checksum=True, use_dictionary=False, compression="none")
    data = path.read_bytes()
    place = data.index(rows[20][:20].encode())
    changed = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
    for bad in (changed, b"", b"text", *(data[: rng.randrange(len(data))] for _ in range(100))):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"a\.parquet is damaged: it is no Parquet; get it"):
            scan([path], None)


def test_without_pyarrow_a_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the place of a version that runs code in a file (CVE-2023-47248)."""
    path = put(tmp_path / "a.parquet", {"text": DOCUMENTS})
    line = r"to read .*a\.parquet, first: .*pip install .*parquet\]"
    monkeypatch.setattr(pyarrow, "__version__", "14.0.0")
    with pytest.raises(UserError, match=line):
        scan([path], None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=line):
        scan([path], None)


def test_a_run_trains_on_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights that the same documents in JSON Lines give; a separator is refused."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    put(Path("a.parquet"), {"text": DOCUMENTS * 60})
    flags = "--data a.parquet --n_layer 1 --n_head 1 --n_embd 8 --block_size 8 --batch_size 2"
    flags += " --device cpu --compile no --max_steps 2 --tokenizer byte"
    assert train.main(flags.split()) == 0
    with pytest.raises(UserError, match=r"a\.parquet parts its documents by itself"):
        train.main([*flags.split(), "--separator=--"])
