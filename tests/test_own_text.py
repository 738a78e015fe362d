"""A user's own text is read as the user means it, or a line says how it is read instead."""

from __future__ import annotations

import codecs
import json
import math
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_text import write_text

import sample
import train
from minigen import corpora, data
from minigen.corpora import AUTO, NONE, saving
from minigen.data import scan, text_range
from minigen.data import text as reading
from minigen.data.text import read_text, split_documents
from minigen.errors import UserError
from minigen.evaluation import command as evaluate
from minigen.evaluation.command import EvaluateConfig
from minigen.evaluation.verdict import verdict
from minigen.files import checkpoint
from minigen.inference.engine import load
from minigen.run.start import new_folder
from minigen.system import text_file
from minigen.system.shell import quoted
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

BYTE = train_tokenizer("byte", [])
TINY = ["--tokenizer", "byte", "--n_layer", "1", "--n_head", "1", "--n_embd", "8", "--device",
        "cpu", "--batch_size", "2", "--compile", "no", "--max_steps", "2", "--dropout", "0",
        "--eval_tokens", "50"]  # fmt: skip
LATIN = os.fsdecode(b"caf\xe9")
TALES = "".join(f"\nitem {n}, of cork.\n{END_OF_TEXT}" for n in range(60))  # as TinyStories has it

SMALL = (*TINY, "--block_size", "8")

Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None) -> Run:
    """run(flags..., name=...) is train.py in an empty folder, and the folder of its run."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def call(*flags: str, name: str = "run", small: Sequence[str] = SMALL) -> Path:
        assert train.main([*small, *flags, "--name", name]) == 0
        return Path("out") / name

    return call


def find(*given: str | Path, separator: str | None = AUTO) -> corpora.Corpus:
    return corpora.find([str(one) for one in given], Path("no such folder"), separator)


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def documents(file: data.TokenStream, tokenizer: Tokenizer = BYTE) -> list[str]:
    text = tokenizer.decode(file.read(0, file.n_tokens).tolist())
    return text.split(END_OF_TEXT)[1:]


# ---- <|endoftext|> in a file ----


@given(
    parts=st.lists(
        st.sampled_from([END_OF_TEXT, "<|endof", "text|>", "\n", "\r\n", "a", "é"]), max_size=20
    ),
    size=st.integers(1, 40),
    bom=st.booleans(),
)
@settings(
    max_examples=200, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_documents_are_counted_as_they_are_read(
    tmp_path: Path, parts: list[str], size: int, bom: bool
) -> None:
    """Wherever a read ends, also within the mark; two files are two documents at least."""
    files = [put(tmp_path / "a", codecs.BOM_UTF8 * bom + "".join(parts).encode())]
    files.append(put(tmp_path / "b", "b"))
    with mock.patch.object(text_file, "READ", size + 3), mock.patch.object(reading, "READ", size):
        pieces = [p for file in files for p in split_documents(read_text(file), END_OF_TEXT)]
        n_documents = sum(piece.begins for piece in pieces) if END_OF_TEXT in parts else 0
        joined = "".join(parts)
        if END_OF_TEXT in joined and END_OF_TEXT not in parts:  # of two halves
            n_documents = sum(piece.begins for piece in pieces)
        assert text_file.count_documents(files, END_OF_TEXT) == n_documents


def test_end_of_text_in_a_file_separates_documents(tmp_path: Path) -> None:
    """With the newlines around it dropped; in a file of a folder, too; and a line says so."""
    put(tmp_path / "in" / "a.txt", f"one\n{END_OF_TEXT}\ntwo{END_OF_TEXT}{END_OF_TEXT}\n\nthree\n")
    put(tmp_path / "in" / "b.txt", "\nfour\n")
    found = find(tmp_path / "in")
    assert found.separator == END_OF_TEXT and found.separator_bytes == 0
    (note,) = found.notes
    assert note.startswith(f"{END_OF_TEXT} in the text separates 4 documents; --separator none")
    tokens = data.write_tokens(scan(found.train, found.separator), BYTE, tmp_path / "c", "text")
    assert documents(tokens) == ["one", "two", "three", "four"]


def test_end_of_text_is_letters_where_that_is_said_or_in_a_table(tmp_path: Path) -> None:
    """Each time in one line, except where the user said so."""
    text = put(tmp_path / "a.txt", f"one{END_OF_TEXT}two")
    rows = put(tmp_path / "a.jsonl", f'{{"text": "one{END_OF_TEXT}two"}}\n')
    warning = f"warning: {END_OF_TEXT} in the text is read as letters"
    assert (find(text, separator=NONE).separator, find(text, separator=NONE).notes) == (None, ())
    assert find(text, separator=None) == corpora.Corpus("a", (text,))  # as runs of before did
    assert find(text, separator="--").separator == "--"
    assert find(text, separator="--").notes[0].startswith(warning)
    assert find(rows).separator is None
    assert find(rows).notes[-1].startswith(warning)
    assert find(text, rows).separator == END_OF_TEXT
    assert find(text, rows).notes[-1].startswith(f"warning: {END_OF_TEXT} cuts rows of {rows} too")
    plain = put(tmp_path / "b.txt", "one")
    assert len(find(text, put(tmp_path / "b.jsonl", "{}\n")).notes) == 1
    assert (find(plain).separator, find(plain).notes) == (None, ())
    assert find(text, separator=END_OF_TEXT).separator == END_OF_TEXT


def test_a_run_keeps_the_rule_that_it_began_with(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed, judged, sampled and fine-tuned; a run of before resumes with the same tokens."""
    put(tmp_path / "t.txt", TALES)
    made = run("--data", "t.txt")
    assert "separates 60 documents" in capsys.readouterr().err
    state = checkpoint.load_newest(made).state
    assert state["config"]["separator"] == END_OF_TEXT
    assert saving.separator_of(state) == f"\n{END_OF_TEXT}\n"
    run("--init_from", "resume", "--max_steps", "3", small=[])
    loaded = load(made)
    texts = evaluate.find_texts(EvaluateConfig(), loaded)
    assert texts.training is not None and texts.separator_bytes == 0
    assert documents(texts.training)[:2] == ["item 0, of cork.", "item 1, of cork."]
    put(tmp_path / "more" / "u.txt", TALES)
    for name in ("more", "more/*.txt", "more/u.txt"):
        judged = evaluate.find_texts(EvaluateConfig(file=name), loaded).held_out
        assert judged.n_documents == 60
    tuned = run("--init_from", "run", "--data", "more/u.txt", name="tuned", small=TINY[8:])
    assert checkpoint.load_newest(tuned).state["base_model"]["config"]["separator"] == END_OF_TEXT
    put(tmp_path / "book.txt", "It was a dark night. " * 50)
    run("--init_from", "run", "--data", "book.txt", name="book", small=TINY[8:])
    said = capsys.readouterr().err
    assert f"warning: the separator '{END_OF_TEXT}' occurs nowhere in the text, so each" in said

    letters = checkpoint.load_newest(run("--data", "t.txt", "--separator", "none", name="letters"))
    assert letters.state["content"] != state["content"]
    config = {**letters.state["config"], "separator": None}  # a run of before has it so
    before = {k: v for k, v in letters.state.items() if k != "links"} | {"config": config}
    old = Path("out/old")
    checkpoint.save(old, letters.model(), letters.tokenizer, letters.optimizer, before)
    run("--init_from", "resume", "--max_steps", "3", name="old", small=[])
    assert checkpoint.load_newest(old).state["content"] == letters.state["content"]


def test_a_rule_is_told_from_a_text() -> None:
    """What --separator stands for, in the text and between samples."""
    for rule in (None, AUTO, NONE):
        assert corpora.separates(rule) is None
        assert saving.separator_of({"config": {"separator": rule}}) is None
    assert corpora.separates(r"\n--\n") == corpora.separates("\r\n--\r\n") == "\n--\n"


def test_a_separator_that_is_nowhere_is_told_from_one_that_is(tmp_path: Path) -> None:
    """However few documents there are, at the text's end or between two chunks."""
    a, b, c = (put(tmp_path / name, name) for name in ("a", "b", "c"))
    end = put(tmp_path / "end", "text@@@")
    for size in (2, 3, 5, 1 << 20):
        with mock.patch.object(reading, "READ", size):
            assert "occurs nowhere" in data.notes_on_text(find(a, b, c, separator="@@@"))[0]
            assert data.notes_on_text(find(a, b, c, end, separator="@@@")) == []


def test_a_text_is_said_to_be_read_in_part_only_where_it_is(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands between short documents, more than half of a file, is no part that is missing."""
    put(tmp_path / "names.txt", END_OF_TEXT.join(f"Ada {n}" for n in range(2000)))
    steps = TINY.index("--max_steps")
    timed = (*TINY[:steps], *TINY[steps + 2 :], "--block_size", "8", "--minutes", "0.005")
    run("--data", "names.txt", small=timed)
    assert "MB are read" not in capsys.readouterr().err
    monkeypatch.setattr("minigen.run.text.CHARS_A_MINUTE", 1_000_000)
    monkeypatch.setattr(text_range, "STRIPE", 100)
    run("--data", "names.txt", small=timed)
    assert "MB are read, from all over it" in capsys.readouterr().err


# ---- files, folders, links, names ----


def test_a_linked_folder_is_read_once(tmp_path: Path) -> None:
    """Also one of links only, with two links to it, loops, and by a pattern."""
    put(tmp_path / "real" / "a.txt", "text")
    put(tmp_path / "real" / "deep" / "b.txt", "more")
    (tmp_path / "data").mkdir()
    for name in ("more", "again"):
        (tmp_path / "data" / name).symlink_to("../real")
    (tmp_path / "data" / "loop").symlink_to(".")
    (tmp_path / "real" / "up").symlink_to("../data")
    there = tmp_path / "data" / "again"
    assert find(tmp_path / "data").train == (there / "a.txt", there / "deep" / "b.txt")
    real = {file.resolve() for file in find(tmp_path / "data" / "*").train}
    assert len(find(tmp_path / "data" / "*").train) == len(real) == 2
    assert len(find(tmp_path / "data" / "*" / "a.txt").train) == 1
    with pytest.raises(UserError, match="holds no files"):  # as runs of before read it
        corpora.find([str(tmp_path / "data")], tmp_path, None, links=False)
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x").symlink_to("nothing")
    with pytest.raises(UserError, match=r"no files but broken links, such as .*only/x"):
        find(tmp_path / "only")


def test_a_file_that_two_paths_name_is_read_once_or_said_to_be_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a.txt", "text")
    assert find("a.txt", "./a.txt", tmp_path / "a.txt").train == (Path("a.txt"),)
    os.link("a.txt", "b.txt")
    found = find("a.txt", "b.txt")
    assert len(found.train) == 2
    assert found.notes == ("1 file b.txt, which is a.txt too, is read twice",)


def test_brackets_and_tildes_mean_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is called like a pattern is that folder, before a pattern."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("d[0-9]/t.txt", "d1/t.txt", "e[x]/f[y]/t.txt"):
        put(tmp_path / name, name)
    assert find("d[0-9]/*.txt").train == (Path("d[0-9]/t.txt"),)
    assert find("d[0-9]/t.txt").train == (Path("d[0-9]/t.txt"),)
    assert find("e[x]/f[y]/*").train == (Path("e[x]/f[y]/t.txt"),)
    assert find("d[1]/*.txt").train == (Path("d1/t.txt"),)
    assert find("~/d1/t.txt").train == find("~/d1").train == (tmp_path / "d1/t.txt",)


def test_names_that_are_not_utf8(run: Run, tmp_path: Path) -> None:
    """A file and --out_dir: JSON in UTF-8 has both, and a shell takes them from a printed line."""
    text = write_text(tmp_path, 60)
    os.rename(text, LATIN)
    made = Path(LATIN + " d") / "r"
    assert train.main([*TINY, "--data", LATIN, "--out_dir", str(made.parent), "--name", "r",
                       "--block_size", "8"]) == 0  # fmt: skip
    step = checkpoint.steps(made)[-1]
    state = json.loads((step / "state.json").read_bytes().decode("utf-8"))
    assert state["config"]["data"] == [LATIN] and state["config"]["out_dir"] == str(made.parent)
    further = ["--init_from", "resume", "--out_dir", str(made.parent), "--max_steps", "3"]
    assert train.main(further) == 0
    with pytest.raises(UserError, match="cannot be called"):
        run("--data", LATIN, name=LATIN)
    for word in (LATIN, f"{LATIN} d/it's \\n", "plain", "a b", "한글"):
        shown = quoted(word).encode()  # no surrogate is left
        told = subprocess.run(["bash", "-c", b"printf %s " + shown], capture_output=True)
        assert told.stdout == os.fsencode(word)


@pytest.mark.parametrize("name", ["exp/one", "a [b] *", "v1.2", "~x", "한글 이름", "a,b", "-x"])
def test_a_run_of_any_name_is_found_by_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, in the list of runs, and as the run that was saved last."""
    monkeypatch.chdir(tmp_path)
    folder = new_folder(Path("out"), name)
    put(folder / "step-000001" / "MANIFEST.json", "{}")
    assert checkpoint.find_run("out", name) == checkpoint.find_run("out") == folder
    assert checkpoint.runs(Path("out")) == [folder]
    with pytest.raises(UserError) as caught:
        checkpoint.find_run("out", name + "x")
    assert f"did you mean {name}?" in str(caught.value) or f"runs there: {name}" in str(
        caught.value
    )
    assert new_folder(Path("out"), name) == Path("out") / f"{name}-2"


@pytest.mark.parametrize("name", ["", "a/..", "step-1", "step-1/a", "a\nb", LATIN])
def test_a_name_that_no_run_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a run cannot be called"):
        new_folder(tmp_path, name)
    assert not any(tmp_path.iterdir())


# ---- flags that take text ----


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (r"a\nb", "a\nb"), (r"\t", "\t"), (r"\\n", r"\n"), (r"\\\n", "\\\n"), ("a\\", "a\\"),
        (r"\d\x", r"\d\x"), ("\n", "\n"), ("C:\\\\new", "C:\\new"),
    ],
)  # fmt: skip
def test_a_backslash_means_the_same_in_every_flag(given: str, meant: str) -> None:
    r"""`\n`, `\t` and `\\` are a newline, a tab and a backslash; others stand for themselves."""
    assert corpora.typed(given) == meant
    assert sample.read_prompt(sample.SampleConfig(prompt=given)) == meant
    assert corpora.separates(given) == meant


def test_words_are_kept_as_utf8_and_what_is_none_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was begun in a Latin-1 locale resumes in another; bytes that are in no text."""
    put(tmp_path / "t.txt", "\n구분\n".join(f"하늘 {n}" for n in range(60)))
    for flag in ("--separator", "--sample_prompt"):
        with pytest.raises(UserError, match="not UTF-8"):
            run("--data", "t.txt", flag, LATIN)
    with pytest.raises(UserError, match="not UTF-8"):
        sample.read_prompt(sample.SampleConfig(prompt=LATIN))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsencode", lambda word: word.encode("latin-1", "surrogateescape"))
        words = "구분".encode().decode("latin-1")
        made = run("--data", "t.txt", "--separator", rf"\n{words}\n", "--sample_prompt", words)
    kept = checkpoint.load_newest(made).state
    assert (kept["config"]["separator"], kept["config"]["sample_prompt"]) == (r"\n구분\n", "구분")
    assert saving.separator_of(kept) == "\n구분\n"


def test_a_typed_newline_stops_a_text_and_begins_a_sample(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path, 60)
    run("--data", "text.txt", "--sample_prompt", r"x\ny")
    assert r"It writes: 'x\ny" in capsys.readouterr().err
    flags = ["--run", "run", "--max_new_tokens", "40", "--ignore_end_of_text", "--temperature", "9"]
    wrote = []
    for stop in ("\n", r"\n", "e"):
        sample.main([*flags, "--stop_strings", stop])
        wrote.append(capsys.readouterr().out)
    assert wrote[0] == wrote[1]


# ---- bits per byte ----


class Composing(Tokenizer):
    """A tokenizer that, as others' do, normalises what it reads: here it drops each é."""

    def encode_array(self, text: str) -> Any:
        return super().encode_array(text.replace("é", ""))

    def encode_documents(self, documents: Any) -> Any:
        return super().encode_documents([text.replace("é", "") for text in documents])

    def copy(self) -> Composing:
        return Composing("byte", self.tokens)


@pytest.mark.parametrize("kind", [Tokenizer, Composing])
@pytest.mark.parametrize(
    "content",
    [
        "a line é\n" * 50,
        "\ufeffa\r\né\r\n" * 50,
        TALES,
        TALES.replace("\n", "\r\n"),
        "é\n" * 9 + "a",
    ],
    ids=["plain", "BOM and CRLF", "documents", "documents, CRLF", "short"],
)
def test_bits_per_byte_counts_the_bytes_that_the_tokens_hold(
    kind: type[Tokenizer], content: str, tmp_path: Path
) -> None:
    """A model that finds all bytes equally likely, and knows where a text ends, has exactly 8."""
    found = find(put(tmp_path / "t.txt", content))
    tokenizer = kind("byte", BYTE.tokens)
    for every in (1, 2):
        with mock.patch.object(text_range, "STRIPE", 30):
            text = replace(scan(found.train, found.separator), every=every)
            tokens = data.write_tokens(text, tokenizer, tmp_path / f"{kind.__name__}", "text")
        ids = tokens.read(0, tokens.n_tokens)
        nats = math.log(256) * int((ids[1:] != tokens.end_of_text).sum())
        loss = nats / (tokens.n_tokens - 1)
        bits = loss * tokens.bits_per_byte(found.separator_bytes)
        assert bits == pytest.approx(8.0, rel=1e-12)


# ---- very little text ----


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_a_tiny_context_trains_writes_and_is_judged(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], block_size: int
) -> None:
    """And on a text of one token, which is refused or judged, in one line."""
    write_text(tmp_path, 60)
    made = run("--data", "text.txt", small=[*TINY, "--block_size", str(block_size)])
    sample.main(["--run", "run", "--max_new_tokens", "5", "--prompt", "ab"])
    assert capsys.readouterr().out.startswith("ab")
    loaded = load(made)
    for content in (None, "x", "the goat", "a\n\nb\n\nc\n\n"):
        file = put(tmp_path / "x.txt", content) if content else None
        for separator in ("same", r"\n\n"):
            config = EvaluateConfig(
                file=file and str(file), count=2, max_new_tokens=4, device="cpu",
                separator=separator,
            )  # fmt: skip
            judged = evaluate.judge(config, loaded)
            assert math.isfinite(judged.bits_per_byte) and verdict(judged)


# ---- what is no plain text, and what a text holds ----


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"%PDF-1.4 " + b"only letters " * 9, "is a PDF, not text; pdftotext"),
        (b"PK\x03\x04" + b"word/document.xml " * 9, "is an archive, as .zip, .docx"),
        (b"\x1f\x8b" + b"letters " * 9, "is compressed by gzip, not text; unpack it with gunzip"),
        ("Łódź and more".encode("utf-16-le"), "is not UTF-8: every other byte is zero"),
        ("hero: a fox\n".encode("utf-16-be") * 9, "iconv -f UTF-16BE"),
    ],
)
def test_what_holds_a_text_and_is_none_is_refused_by_its_name(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    """Alone; and among texts it is skipped and counted, if no command makes a text of it."""
    path = put(tmp_path / "in" / "a.txt", content)
    with pytest.raises(UserError, match=complaint):
        scan(find(path).train, None)
    put(tmp_path / "in" / "b.txt", "text")
    if "UTF-" in complaint:
        with pytest.raises(UserError, match=complaint):
            scan(find(tmp_path / "in").train, None)
    else:
        assert find(tmp_path / "in").notes == (f"skipped 1 binary file {path}",)


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("a.rtf", r"{\rtf1\ansi text}", "its tags and commands too"),
        ("a.html", "\n<!DOCTYPE html><p>text", "its tags and commands too"),
        ("a.xml", "\ufeff<?xml version='1.0'?><p>text</p>", "its tags and commands too"),
        ("a.ipynb", '{"cells": []}', "its quotes and commas too"),
    ],
)
def test_markup_is_said_to_be_read_as_text(
    tmp_path: Path, name: str, content: str, note: str
) -> None:
    (said,) = find(put(tmp_path / name, content)).notes
    assert said.endswith(note) and name in said


def test_signs_that_nobody_reads_are_counted(tmp_path: Path) -> None:
    """A byte order mark within a text, where files were joined, and letters that were lost."""
    path = put(tmp_path / "a.txt", "\ufeffone\n\ufefftwo\n" + "caf\ufffd " * 3)
    notes = data.notes_on_text(find(path))
    assert [note.split(",")[0] for note in notes] == [
        "warning: the text holds U+FEFF 1 time",
        "warning: the text holds U+FFFD 3 times",
    ]
    assert data.notes_on_text(find(put(tmp_path / "b.txt", "\ufeffcafé\r\n"))) == []


def test_rows_are_noticed_whatever_the_case_of_their_ending(tmp_path: Path) -> None:
    rows = "1,a name,and a value of many letters that makes a long line, " * 3 + "\n"
    for name in ("a.csv", "A.CSV"):
        (note,) = data.notes_on_text(find(put(tmp_path / name, rows * 60)))
        assert note.startswith("60 rows; ")


def test_a_text_that_was_trained_on_is_no_judge(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning names it, by whatever path it was given."""
    write_text(tmp_path, 60)
    loaded = load(run("--data", "text.txt"))
    put(tmp_path / "new.txt", "a new text")
    for name, warned in (("./text.txt", True), ("*.txt", True), ("new.txt", False)):
        capsys.readouterr()
        evaluate.find_texts(EvaluateConfig(file=name), loaded)
        assert ("warning: the model was trained on " in capsys.readouterr().err) == warned


def test_a_separator_for_a_file_to_judge(run: Run, tmp_path: Path) -> None:
    r"""The run's own, also a backslash and an n; a corpus with a name keeps its own."""
    state: dict[str, Any] = {"data": ["x.txt"], "separator": r"\\n"}
    same = EvaluateConfig(file="x.txt")
    assert corpora.separates(evaluate.separator_for(same, state)) == r"\n"
    assert evaluate.separator_for(same, {"data": ["tales"], "separator": AUTO}) == "\n\n"
    assert evaluate.separator_for(same, None) == AUTO
    assert evaluate.separator_for(EvaluateConfig(file="tales"), state) is None
    assert evaluate.separator_for(replace(same, separator="--"), state) == "--"
