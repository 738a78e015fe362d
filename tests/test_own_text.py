"""A user's own text is read as the user means it, or a note says how it is read instead."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
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
    """Return a function that runs train.py in an empty folder, and returns the run's folder."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def call(*flags: str, name: str = "run", small: Sequence[str] = SMALL) -> Path:
        assert train.main([*small, *flags, "--name", name]) == 0
        return Path("out") / name

    return call


def find(*data: str | Path, separator: str | None = AUTO) -> corpora.Corpus:
    """Return the corpus of files, folders and patterns."""
    return corpora.find([str(one) for one in data], Path("no such folder"), separator)


def put(path: Path, content: str | bytes) -> Path:
    """Write a file, and the folders above it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def documents(tokens: data.TokenStream, tokenizer: Tokenizer = BYTE) -> list[str]:
    """Return the texts between the END_OF_TEXT of a stream."""
    text = tokenizer.decode(tokens.read(0, tokens.n_tokens).tolist())
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
    """`count_documents` counts the documents that are read; it is 0 without END_OF_TEXT."""
    files = [put(tmp_path / "a", codecs.BOM_UTF8 * bom + "".join(parts).encode())]
    files.append(put(tmp_path / "b", "b"))
    # READ is small, so a chunk often ends within END_OF_TEXT.
    sizes = mock.patch.object(text_file, "READ_SIZE", size + 3)
    with sizes, mock.patch.object(reading, "READ", size):
        read = [part for file in files for part in split_documents(read_text(file), END_OF_TEXT)]
        n_read = sum(part.is_first for part in read) if END_OF_TEXT in "".join(parts) else 0
        assert text_file.count_documents(files, END_OF_TEXT) == n_read


def test_end_of_text_in_a_file_separates_documents(tmp_path: Path) -> None:
    """END_OF_TEXT and the newlines around it separate documents, and a note counts them."""
    put(tmp_path / "in" / "a.txt", f"one\n{END_OF_TEXT}\ntwo{END_OF_TEXT}{END_OF_TEXT}\n\nthree\n")
    put(tmp_path / "in" / "b.txt", "\nfour\n")
    corpus = find(tmp_path / "in")
    assert corpus.separator == END_OF_TEXT and corpus.separator_bytes == 0
    (note,) = corpus.notes
    assert note.startswith(f"{END_OF_TEXT} in the text separates 4 documents; --separator none")
    tokens = data.write_tokens(scan(corpus.train, corpus.separator), BYTE, tmp_path / "c", "text")
    assert documents(tokens) == ["one", "two", "three", "four"]


WARNING = f"warning: {END_OF_TEXT} in the text is read as letters"


def test_the_separator_none_reads_end_of_text_as_letters(tmp_path: Path) -> None:
    """With --separator none, or in a run that began before that flag, a file is one document."""
    text = put(tmp_path / "a.txt", f"one{END_OF_TEXT}two")
    assert (find(text, separator=NONE).separator, find(text, separator=NONE).notes) == (None, ())
    assert find(text, separator=None) == corpora.Corpus("a", (text,))


def test_another_separator_reads_end_of_text_as_letters_with_a_warning(tmp_path: Path) -> None:
    """END_OF_TEXT in a text with another separator is letters; as the separator, it has no note."""
    text = put(tmp_path / "a.txt", f"one{END_OF_TEXT}two")
    assert find(text, separator="--").separator == "--"
    assert find(text, separator="--").notes[0].startswith(WARNING)
    assert find(text, separator=END_OF_TEXT).separator == END_OF_TEXT


def test_a_table_reads_end_of_text_as_letters_with_a_warning(tmp_path: Path) -> None:
    """END_OF_TEXT in rows is letters; beside a text that it separates, it cuts rows too."""
    rows = put(tmp_path / "a.csv", f'"text","one{END_OF_TEXT}two"\n')
    assert find(rows).separator is None and find(rows).notes[-1].startswith(WARNING)
    corpus = find(put(tmp_path / "a.txt", f"one{END_OF_TEXT}two"), rows)
    assert corpus.separator == END_OF_TEXT
    assert corpus.notes[-1].startswith(f"warning: {END_OF_TEXT} cuts rows of {rows} too")


def test_a_text_without_end_of_text_has_no_note_on_it(tmp_path: Path) -> None:
    """A text without END_OF_TEXT has no separator; a table without it has no warning."""
    plain = put(tmp_path / "b.txt", "one")
    assert (find(plain).separator, find(plain).notes) == (None, ())
    text = put(tmp_path / "a.txt", f"one{END_OF_TEXT}two")
    assert len(find(text, put(tmp_path / "b.jsonl", "{}\n")).notes) == 1


@pytest.fixture
def separated(run: Run, tmp_path: Path) -> Path:
    """Return the folder of a run on a text in which END_OF_TEXT separates 60 documents."""
    put(tmp_path / "t.txt", TALES)
    return run("--data", "t.txt")


def test_a_run_keeps_its_separator_when_it_resumes(run: Run, separated: Path) -> None:
    """A checkpoint knows that END_OF_TEXT is the separator, and so does the run that resumes."""
    run("--init_from", "resume", "--max_steps", "3", small=[])
    state = checkpoint.load_newest(separated).state
    assert state["config"]["separator"] == END_OF_TEXT
    assert saving.separator_of(state) == f"\n{END_OF_TEXT}\n"


def test_a_run_is_evaluated_with_its_separator(separated: Path, tmp_path: Path) -> None:
    """The training text, and files, folders and patterns to evaluate, have the run's documents."""
    loaded = load(separated)
    texts = evaluate.find_texts(EvaluateConfig(), loaded)
    assert texts.training is not None and texts.separator_bytes == 0
    assert documents(texts.training)[:2] == ["item 0, of cork.", "item 1, of cork."]
    put(tmp_path / "more" / "u.txt", TALES)
    for name in ("more", "more/*.txt", "more/u.txt"):
        held_out = evaluate.find_texts(EvaluateConfig(file=name), loaded).held_out
        assert held_out.n_documents == 60


def test_a_run_is_fine_tuned_with_its_separator(run: Run, separated: Path, tmp_path: Path) -> None:
    """A fine-tuned run keeps the separator of its base model."""
    put(tmp_path / "u.txt", TALES)
    tuned = run("--init_from", "run", "--data", "u.txt", name="tuned", small=TINY[8:])
    assert checkpoint.load_newest(tuned).state["base_model"]["config"]["separator"] == END_OF_TEXT


def test_fine_tuning_on_a_text_without_the_separator_warns(
    run: Run, separated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text in which the separator of the base model does not occur costs a warning."""
    put(tmp_path / "book.txt", "It was a dark night. " * 50)
    run("--init_from", "run", "--data", "book.txt", name="book", small=TINY[8:])
    warning = f"warning: the separator '{END_OF_TEXT}' occurs nowhere in the text, so each"
    assert warning in capsys.readouterr().err


def test_a_run_from_before_separators_resumes_with_its_tokens(run: Run, tmp_path: Path) -> None:
    """A run that was saved without a separator continues to read END_OF_TEXT as letters."""
    put(tmp_path / "t.txt", TALES)
    letters = checkpoint.load_newest(run("--data", "t.txt", "--separator", "none", name="letters"))
    state = {key: value for key, value in letters.state.items() if key != "links"}
    state["config"] = {**letters.state["config"], "separator": None}
    old = Path("out/old")
    checkpoint.save(old, letters.model(), letters.tokenizer, letters.optimizer, state)
    run("--init_from", "resume", "--max_steps", "3", name="old", small=[])
    assert checkpoint.load_newest(old).state["content"] == letters.state["content"]


def test_auto_and_none_are_no_separators() -> None:
    """AUTO and NONE stand for no text between documents; other values are typed as flags are."""
    for rule in (None, AUTO, NONE):
        assert corpora.separator_text(rule) is None
        assert saving.separator_of({"config": {"separator": rule}}) is None
    assert corpora.separator_text(r"\n--\n") == corpora.separator_text("\r\n--\r\n") == "\n--\n"


def test_a_separator_that_does_not_occur_is_noted(tmp_path: Path) -> None:
    """A separator that is in no file has a note; one at the end of a file has none."""
    a, b, c = (put(tmp_path / name, name) for name in ("a", "b", "c"))
    end = put(tmp_path / "end", "text@@@")
    for size in (2, 3, 5, 1 << 20):
        with mock.patch.object(reading, "READ", size):
            assert "occurs nowhere" in data.notes_on_text(find(a, b, c, separator="@@@"))[0]
            assert data.notes_on_text(find(a, b, c, end, separator="@@@")) == []


def test_a_text_that_is_read_in_part_has_a_note(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note says that a long text is read in part; separators, which are not read, have none."""
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
    """A folder to which several links lead is read once, and loops of links end."""
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


def test_a_folder_of_links_alone_is_empty_without_them(tmp_path: Path) -> None:
    """Without `links`, as in runs of older versions, links to folders are not followed."""
    put(tmp_path / "real" / "a.txt", "text")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "more").symlink_to("../real")
    assert len(find(tmp_path / "data").train) == 1
    with pytest.raises(UserError, match="holds no files"):
        corpora.find([str(tmp_path / "data")], tmp_path, None, links=False)


def test_a_folder_of_broken_links_is_refused(tmp_path: Path) -> None:
    """The error about a folder in which no link leads to a file names one of them."""
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x").symlink_to("nothing")
    with pytest.raises(UserError, match=r"no files but broken links, such as .*only/x"):
        find(tmp_path / "only")


def test_a_file_that_two_paths_name_is_read_once_or_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several spellings of a path are one file; a hard link is read twice, with a note."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a.txt", "text")
    assert find("a.txt", "./a.txt", tmp_path / "a.txt").train == (Path("a.txt"),)
    os.link("a.txt", "b.txt")
    corpus = find("a.txt", "b.txt")
    assert len(corpus.train) == 2
    assert corpus.notes == ("read twice: 1 file b.txt, which is the same file as a.txt",)


def test_a_folder_comes_before_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that exists is that path, also if it looks like a pattern; ~ is the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("d[0-9]/t.txt", "d1/t.txt", "e[x]/f[y]/t.txt"):
        put(tmp_path / name, name)
    assert find("d[0-9]/*.txt").train == (Path("d[0-9]/t.txt"),)
    assert find("d[0-9]/t.txt").train == (Path("d[0-9]/t.txt"),)
    assert find("e[x]/f[y]/*").train == (Path("e[x]/f[y]/t.txt"),)
    assert find("d[1]/*.txt").train == (Path("d1/t.txt"),)
    assert find("~/d1/t.txt").train == find("~/d1").train == (tmp_path / "d1/t.txt",)


def test_names_that_are_not_utf8_are_saved_and_found(run: Run, tmp_path: Path) -> None:
    """A run whose file and --out_dir have names that are not UTF-8 resumes; state.json is UTF-8."""
    text = write_text(tmp_path, 60)
    os.rename(text, LATIN)
    made = Path(LATIN + " d") / "r"
    assert train.main([*TINY, "--data", LATIN, "--out_dir", str(made.parent), "--name", "r",
                       "--block_size", "8"]) == 0  # fmt: skip
    step = checkpoint.steps(made)[-1]
    state = json.loads((step / "state.json").read_bytes().decode("utf-8"))
    assert state["config"]["data"] == [LATIN] and state["config"]["out_dir"] == str(made.parent)
    resumed = ["--init_from", "resume", "--out_dir", str(made.parent), "--max_steps", "3"]
    assert train.main(resumed) == 0


@pytest.mark.parametrize("word", [LATIN, f"{LATIN} d/it's \\n", "plain", "a b", "한글"])
def test_a_shell_reads_a_quoted_word_as_that_word(word: str) -> None:
    """A printed command is UTF-8, and names also files whose name is not UTF-8."""
    printed = quoted(word).encode()  # raises an error if a surrogate is left
    shell = subprocess.run(["bash", "-c", b"printf %s " + printed], capture_output=True)
    assert shell.stdout == os.fsencode(word)


@pytest.mark.parametrize("name", ["exp/one", "a [b] *", "v1.2", "~x", "한글 이름", "a,b", "-x"])
def test_a_run_of_any_name_is_found_by_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is found by its name, in the list of runs, and as the run that was saved last."""
    monkeypatch.chdir(tmp_path)
    folder = new_folder(Path("out"), name)
    put(folder / "step-000001" / "MANIFEST.json", "{}")
    assert checkpoint.find_run("out", name) == checkpoint.find_run("out") == folder
    assert checkpoint.runs(Path("out")) == [folder]
    nearest = re.escape(name)
    with pytest.raises(UserError, match=rf"did you mean {nearest}\?|runs there: {nearest}"):
        checkpoint.find_run("out", name + "x")
    assert new_folder(Path("out"), name) == Path("out") / f"{name}-2"


@pytest.mark.parametrize("name", ["", "a/..", "step-1", "step-1/a", "a\nb", LATIN])
def test_a_name_that_no_run_can_have_is_refused(name: str, tmp_path: Path) -> None:
    """A run cannot have an empty name, the name of a checkpoint, or one that is not UTF-8."""
    with pytest.raises(UserError, match="a run cannot be called"):
        new_folder(tmp_path, name)
    assert not any(tmp_path.iterdir())


# ---- flags that take text ----


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"a\nb", "a\nb"), (r"\t", "\t"), (r"\\n", r"\n"), (r"\\\n", "\\\n"), ("a\\", "a\\"),
        (r"\d\x", r"\d\x"), ("\n", "\n"), ("C:\\\\new", "C:\\new"),
    ],
)  # fmt: skip
def test_a_backslash_means_the_same_in_every_flag(typed: str, meant: str) -> None:
    r"""`\n`, `\t` and `\\` are a newline, a tab and a backslash; others stand for themselves."""
    assert corpora.unescape(typed) == meant
    assert sample.read_prompt(sample.SampleConfig(prompt=typed)) == meant
    assert corpora.separator_text(typed) == meant


def test_a_flag_that_is_not_utf8_is_refused(run: Run, tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused as a separator and as a prompt."""
    write_text(tmp_path, 60)
    for flag in ("--separator", "--sample_prompt"):
        with pytest.raises(UserError, match="not UTF-8"):
            run("--data", "text.txt", flag, LATIN)
    with pytest.raises(UserError, match="not UTF-8"):
        sample.read_prompt(sample.SampleConfig(prompt=LATIN))


def test_a_flag_from_a_latin1_locale_is_saved_as_utf8(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was begun in a Latin-1 locale can resume in any other."""
    put(tmp_path / "t.txt", "\n구분\n".join(f"하늘 {n}" for n in range(60)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsencode", lambda word: word.encode("latin-1", "surrogateescape"))
        words = "구분".encode().decode("latin-1")
        made = run("--data", "t.txt", "--separator", rf"\n{words}\n", "--sample_prompt", words)
    state = checkpoint.load_newest(made).state
    assert state["config"]["separator"] == r"\n구분\n"
    assert state["config"]["sample_prompt"] == "구분"
    assert saving.separator_of(state) == "\n구분\n"


def test_a_typed_newline_stops_a_text_and_begins_a_sample(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    r"""The two characters `\n` in a flag stop a text, and begin a sample, as a newline does."""
    write_text(tmp_path, 60)
    run("--data", "text.txt", "--sample_prompt", r"x\ny")
    assert r"Sample: 'x\ny" in capsys.readouterr().err
    flags = ["--run", "run", "--max_new_tokens", "40", "--ignore_end_of_text", "--temperature", "9"]
    written = []
    for stop in ("\n", r"\n"):
        sample.main([*flags, "--stop_strings", stop])
        written.append(capsys.readouterr().out)
    assert written[0] == written[1]


# ---- bits per byte ----


class Composing(Tokenizer):
    """A tokenizer that normalises text, as some from Hugging Face do: it drops each é."""

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
    """A model to which all bytes are equally likely has 8 bits per byte of its tokens' text."""
    corpus = find(put(tmp_path / "t.txt", content))
    tokenizer = kind("byte", BYTE.tokens)
    for interval in (1, 2):
        with mock.patch.object(text_range, "STRIPE", 30):
            text = replace(scan(corpus.train, corpus.separator), stripe_interval=interval)
            tokens = data.write_tokens(text, tokenizer, tmp_path / f"{kind.__name__}", "text")
        ids = tokens.read(0, tokens.n_tokens)
        nats = math.log(256) * int((ids[1:] != tokens.end_of_text).sum())  # END_OF_TEXT is certain
        loss = nats / (tokens.n_tokens - 1)
        bits = loss * tokens.bits_per_byte(corpus.separator_bytes)
        assert bits == pytest.approx(8.0, rel=1e-12)


# ---- very little text ----


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_a_tiny_context_trains_writes_and_is_evaluated(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], block_size: int
) -> None:
    """A context of 1 to 3 tokens is enough to train, to sample, and to evaluate any text."""
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


# ---- other formats, and stray characters ----


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"%PDF-1.4 " + b"only letters " * 9, "is a PDF, not text; pdftotext"),
        (b"PK\x03\x04" + b"word/document.xml " * 9, "is an archive, as .zip, .docx"),
        (b"BZh91AY" + b"letters " * 9, "is compressed by bzip2, not text; unpack it with bunzip2"),
        ("Łódź and more".encode("utf-16-le"), "is not UTF-8: every other byte is zero"),
        ("hero: a fox\n".encode("utf-16-be") * 9, "iconv -f UTF-16BE"),
    ],
)
def test_a_file_of_another_format_is_refused_by_its_name(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    """A PDF, an archive or UTF-16 alone is refused by its name; a binary among texts is skipped."""
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
def test_markup_has_a_note_that_it_is_read_as_text(
    tmp_path: Path, name: str, content: str, note: str
) -> None:
    """The note about a file of markup names the file, and the commands that are read as text."""
    (actual,) = find(put(tmp_path / name, content)).notes
    assert actual.endswith(note) and name in actual


def test_stray_characters_are_counted(tmp_path: Path) -> None:
    """A byte order mark within a text, and signs for lost letters, have a note with a count."""
    path = put(tmp_path / "a.txt", "\ufeffone\n\ufefftwo\n" + "caf\ufffd " * 3)
    notes = data.notes_on_text(find(path))
    assert [note.split(",")[0] for note in notes] == [
        "warning: the text has U+FEFF 1 time",
        "warning: the text has U+FFFD 3 times",
    ]
    assert data.notes_on_text(find(put(tmp_path / "b.txt", "\ufeffcafé\r\n"))) == []


def test_rows_are_noticed_whatever_the_case_of_their_ending(tmp_path: Path) -> None:
    """A table has a note with the number of its rows, as .csv and as .CSV."""
    rows = "1,a name,and a value of many letters that makes a long line, " * 3 + "\n"
    for name in ("a.csv", "A.CSV"):
        (note,) = data.notes_on_text(find(put(tmp_path / name, rows * 60)))
        assert note.startswith("60 rows; ")


def test_evaluating_on_the_training_text_warns(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning says that a model was trained on the file, whichever path names the file."""
    write_text(tmp_path, 60)
    loaded = load(run("--data", "text.txt"))
    put(tmp_path / "new.txt", "a new text")
    for name, warned in (("./text.txt", True), ("*.txt", True), ("new.txt", False)):
        capsys.readouterr()
        evaluate.find_texts(EvaluateConfig(file=name), loaded)
        assert ("warning: the model was trained on " in capsys.readouterr().err) == warned


def test_a_file_to_evaluate_has_the_separator_of_the_run() -> None:
    r"""A file has the separator of the run, also `\n`; a corpus with a name has its own."""
    state: dict[str, Any] = {"data": ["x.txt"], "separator": r"\\n"}
    same = EvaluateConfig(file="x.txt")
    assert corpora.separator_text(evaluate.separator_for(same, state)) == r"\n"
    assert evaluate.separator_for(same, {"data": ["tales"], "separator": AUTO}) == "\n\n"
    assert evaluate.separator_for(same, None) == AUTO
    assert evaluate.separator_for(EvaluateConfig(file="tales"), state) is None
    assert evaluate.separator_for(replace(same, separator="--"), state) == "--"
