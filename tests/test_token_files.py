"""Token ids that another program has written: train.bin of nanoGPT, and the .bin of llm.c."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from digests import trained
from elsewhere import resume_elsewhere

import sample
import train
from minigen import corpora
from minigen.data import prepare
from minigen.data.cache import find_tokens
from minigen.errors import UserError
from minigen.evaluation import command as evaluate
from minigen.files import export
from minigen.inference.engine import load
from minigen.run.log import read_metrics
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "--n_layer 1 --n_head 1 --n_embd 8 --block_size 8 --batch_size 2 --device cpu --compile no "
    "--dropout 0 --eval_tokens 50"
)
DOCUMENTS = [f"The cat number {n} sat on mat {n * 7 % 13}, 나 {n}." for n in range(60)]
BYTE = train_tokenizer("byte", [])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None) -> Path:
    """Enter an empty folder."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(flags: str, name: str = "run", max_steps: int = 4) -> Path:
    """Run train.py; return the folder of the run."""
    words = f"{SMALL} --max_steps {max_steps} --name {name} {flags}"
    assert train.main(words.split()) == 0
    return Path("out", name)


def save(path: str, ids: list[int], dtype: str = "<u2") -> None:
    """Write ids as nanoGPT does: without a header."""
    Path(path).parent.mkdir(exist_ok=True)
    np.array(ids, dtype).tofile(path)


def save_llm_c(path: str, ids: list[int], date: int = 20240520, version: int = 1) -> None:
    """Write ids as llm.c does: after a header of 256 numbers."""
    header = np.zeros(256, "<i4")
    header[:3] = date, version, len(ids)
    content = np.array(ids, "<u2" if version == 1 else "<u4").tobytes()
    Path(path).write_bytes(header.tobytes() + content)


def save_characters(folder: str) -> str:
    """Write a folder as nanoGPT's shakespeare_char/prepare.py does; return the text."""
    text = "\n".join(DOCUMENTS)
    characters = sorted(set(text))
    stoi = {character: id for id, character in enumerate(characters)}
    cut = int(0.9 * len(text))
    for name, part in (("train", text[:cut]), ("val", text[cut:])):
        save(f"{folder}/{name}.bin", [stoi[character] for character in part])
    meta = {"vocab_size": len(stoi), "itos": dict(enumerate(characters)), "stoi": stoi}
    Path(folder, "meta.pkl").write_bytes(pickle.dumps(meta))
    Path(folder, "input.txt").write_text(text, "utf-8")
    return text


def by_nanogpt(documents: list[str], tokenizer: Tokenizer) -> list[int]:
    """Return the ids of documents with END_OF_TEXT after each, as openwebtext/prepare.py does."""
    return [id for text in documents for id in (*tokenizer.encode(text), tokenizer.end_of_text)]


def by_llm_c(documents: list[str], tokenizer: Tokenizer) -> list[int]:
    """Return the ids of documents with END_OF_TEXT before each."""
    return [id for text in documents for id in (tokenizer.end_of_text, *tokenizer.encode(text))]


# ---- the ids are the text ----


def test_ids_train_the_model_that_their_text_trains() -> None:
    """From END_OF_TEXT before or after documents, the same stream, weights and bits per byte."""
    save("n/train.bin", by_nanogpt(DOCUMENTS[:50], BYTE))
    save("n/val.bin", by_nanogpt(DOCUMENTS[50:], BYTE))
    save_llm_c("t.bin", by_llm_c(DOCUMENTS[:50], BYTE))
    save_llm_c("v.bin", by_llm_c(DOCUMENTS[50:], BYTE))
    Path("t.txt").write_text(END_OF_TEXT.join(DOCUMENTS[:50]), "utf-8")
    Path("v.txt").write_text(END_OF_TEXT.join(DOCUMENTS[50:]), "utf-8")
    expected = run("--data t.txt --val_data v.txt --tokenizer byte", "text")
    for flags in (
        "--data n",
        "--data t.bin --val_data v.bin",
        "--data n/train.bin --val_data v.bin",
    ):
        made = run(f"{flags} --tokenizer byte", "ids")
        assert trained(made) == trained(expected)
        last, other = read_metrics(made)[-1], read_metrics(expected)[-1]
        assert last["final_val_bits_per_byte"] == other["final_val_bits_per_byte"]
        shutil.rmtree(made)


def test_characters_of_nanogpt_train_as_their_text_does(capsys: pytest.CaptureFixture[str]) -> None:
    """The command in the error makes a vocabulary of meta.pkl, which minigen never opens."""
    save_characters("sc")
    with pytest.raises(UserError, match=r"sc/meta\.pkl lists, a pickle") as caught:
        run("--data sc")
    command = str(caught.value).partition("command writes: ")[2]
    words = command.partition(" ")[2]  # after the name of Python here
    subprocess.run(f"{shlex.quote(sys.executable)} {words}", shell=True, check=True)
    capsys.readouterr()
    made = run("--data sc --tokenizer sc/vocabulary.json", "ids")
    assert "of sc the token ids are read, and not input.txt" in capsys.readouterr().err
    assert trained(made) == trained(run("--data sc/input.txt --tokenizer char", "text"))
    assert trained(made) == trained(
        run("--data sc/input.txt --tokenizer sc/vocabulary.json", "both")
    )


@pytest.mark.usefixtures("gpt2_cache")
def test_ids_of_gpt2_are_read_with_its_vocabulary() -> None:
    """nanoGPT writes the ids of GPT-2, whose last one is END_OF_TEXT."""
    gpt2 = train_tokenizer("gpt2", [])
    save("n/train.bin", by_nanogpt(DOCUMENTS, gpt2))
    Path("a.txt").write_text(END_OF_TEXT.join(DOCUMENTS), "utf-8")
    streams = [
        prepare(corpora.find([name], Path(), "auto"), None, "gpt2", None, Path("cache"))[1:]
        for name in ("n", "a.txt")
    ]
    whole = [
        [id for tokens in pair for id in tokens.read(0, tokens.n_tokens).tolist()]
        for pair in streams
    ]
    assert [gpt2.decode(ids).replace(END_OF_TEXT, "") for ids in whole] == ["".join(DOCUMENTS)] * 2
    save("n/train.bin", [*range(40), 50257])
    with pytest.raises(UserError, match=r"n/train\.bin has the id 50257 at byte 80, .* 0 to 50256"):
        run("--data n --tokenizer gpt2")


def test_the_last_tenth_is_held_out_without_val_bin() -> None:
    """Of the tokens; and files that are given together are one stream."""
    ids = by_llm_c(DOCUMENTS, BYTE)
    save("a.bin", ids[:700])
    save("b.bin", ids[700:])
    corpus = corpora.find(["a.bin", "b.bin"], Path())
    _, training, validation = prepare(corpus, BYTE, "", None, Path("cache"))
    cut = int(0.9 * len(ids))
    assert ids[cut - 1] == 256 != ids[cut]  # so this END_OF_TEXT goes to the second part
    assert training.read(0, training.n_tokens).tolist() == ids[: cut - 1]
    held_out = validation.read(0, validation.n_tokens).tolist()
    assert held_out == ids[cut - 1 :]
    found = find_tokens(validation.path.stem, BYTE, Path("cache"), "text")
    assert found is not None and found.read(0, found.n_tokens).tolist() == held_out


def test_any_tokenizer_that_exists_reads_its_ids() -> None:
    """Here that of a run; in four bytes, if the vocabulary has no room in two."""
    base = run_on_text("--tokenizer bpe --vocab_size 280")
    tokenizer = load("base").tokenizer
    save("a.bin", tokenizer.encode("\n".join(DOCUMENTS)))
    assert load(run("--data a.bin --tokenizer base", "ids")).tokenizer.tokens == tokenizer.tokens
    assert base.is_dir()
    save("ascii.bin", [*b"The cat sat on the mat."])
    _, tokens, _ = prepare(corpora.find(["ascii.bin"], Path()), BYTE, "", None, Path("cache"))
    assert BYTE.decode(tokens.read(1, 7).tolist()) == "The cat"
    characters = [chr(0x10000 + n) for n in range(66000)]
    Path("many.json").write_text(json.dumps(characters), "utf-8")
    save("wide.bin", [*range(65500, 66000)], "<u4")
    save_llm_c("llama.bin", [*range(65500, 66000)], 20240801, 7)
    many = Tokenizer("char", [*(c.encode() for c in characters), END_OF_TEXT.encode()])
    for name in ("wide.bin", "llama.bin"):
        tokens = prepare(corpora.find([name], Path()), many, "", None, Path("cache"))[1]
        assert tokens.read(1, 3).tolist() == [65500, 65501, 65502]


def run_on_text(flags: str) -> Path:
    """Train a run `base` on the documents as text."""
    Path("base.txt").write_text("\n".join(DOCUMENTS), "utf-8")
    return run(f"--data base.txt {flags}", "base")


# ---- a run on ids does all that a run on text does ----


def test_a_run_on_ids_resumes_samples_is_judged_exported_and_tuned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It resumes bit for bit from another folder, and not after its files have changed."""
    save("n/train.bin", by_nanogpt(DOCUMENTS[:50], BYTE))
    save("n/val.bin", by_nanogpt(DOCUMENTS[50:], BYTE))
    flags = "--data n --tokenizer byte --eval_interval 3"
    whole = folder / run(flags, "whole", max_steps=6)
    part = folder / run(flags, max_steps=6)
    words = resume_elsewhere(part, "step-000006", monkeypatch)
    assert trained(whole) == trained(part)
    monkeypatch.chdir(folder)

    judged = evaluate.judge(evaluate.EvaluateConfig("run", count=2, max_new_tokens=4), load("run"))
    logged = [line for line in read_metrics(part) if "final_val_loss" in line]
    assert judged.bits_per_byte == pytest.approx(logged[-1]["final_val_bits_per_byte"], rel=1e-4)
    of_file = evaluate.EvaluateConfig("run", file="n/val.bin", count=0)
    assert evaluate.judge(of_file, load("run")).bits_per_byte == judged.bits_per_byte
    capsys.readouterr()
    sample.main(["--run", "run", "--max_new_tokens", "5", "--prompt", "The"])
    assert capsys.readouterr().out.startswith("The")
    export.main(["run", "exported"])
    assert load(Path("exported")).tokenizer.tokens == BYTE.tokens
    Path("new.txt").write_text("\n".join(DOCUMENTS), "utf-8")
    words = "--data new.txt --init_from run --max_steps 2 --name tuned --block_size 8 --device cpu"
    assert train.main(f"{words} --eval_tokens 50 --compile no".split()) == 0
    first = next(line for line in read_metrics(Path("out/tuned")) if "old_loss_before" in line)
    assert first["old_loss_before"] == pytest.approx(logged[-1]["final_val_loss"], rel=1e-3)

    save("n/train.bin", by_nanogpt(DOCUMENTS[:49], BYTE))
    with pytest.raises(UserError, match="another text"):
        train.main(["--init_from", "resume", "--name", "run", "--max_steps", "8"])


def test_a_file_that_changes_under_a_run_is_noticed() -> None:
    """Ids that were never checked could be outside the vocabulary."""
    save("a.bin", by_llm_c(DOCUMENTS, BYTE))
    _, training, validation = prepare(
        corpora.find(["a.bin"], Path()), BYTE, "", None, Path("cache")
    )
    save("a.bin", [9] * 5000)
    for tokens in (training, validation):
        with pytest.raises(UserError, match=r"a\.bin was cut short or written over; start again$"):
            tokens.read(3, 2)


def test_ids_are_read_in_little_memory() -> None:
    """Of 32 MB, only a part is ever in memory."""
    np.tile(np.arange(256, dtype="<u2"), 1 << 16).tofile("a.bin")
    corpus = corpora.find(["a.bin"], Path())
    tracemalloc.start()
    try:
        prepare(corpus, BYTE, "", None, Path("cache"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


# ---- wrong use ----


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--data a.bin", "a.bin holds token ids, and only their tokenizer tells"),
        ("--data a.bin --tokenizer char", "give it: --tokenizer gpt2, a tokenizer.json, or"),
        ("--data a.bin --tokenizer byte --separator x", "a.bin parts its documents by itself"),
        ("--data odd.bin --tokenizer byte", "odd.bin has 2,401 bytes, and an id has 2"),
        ("--data empty.bin --tokenizer byte", "empty.bin is empty"),
        ("--data high.bin --tokenizer byte", "high.bin has the id 300 at byte 80, and the"),
        ("--data ends.bin --tokenizer byte", "no text in the training text of ends.bin"),
        ("--data two.bin --tokenizer byte", "has only 3 tokens, and --block_size 8 needs 9"),
        ("--data text.bin --tokenizer byte", "text.bin is text, and .bin stands for token ids"),
        ("--data zip.bin --tokenizer byte", "zip.bin is an archive"),
        ("--data wide.bin --tokenizer byte", "every other id of wide.bin is 0, as if an id had 4"),
        ("--data cut.bin --tokenizer byte", "are not the 1,200 tokens of its header"),
        ("--data head.bin --tokenizer byte", "are not the 1,200 tokens of its header"),
        ("--data eval.bin --tokenizer byte", "a file of llm.c of kind 20240522, version 1"),
        ("--data llama.bin --tokenizer byte", "ids of 4 bytes, and the tokenizer needs 2"),
        ("--data a.bin --tokenizer byte --val_data a.bin", "in --data and in --val_data"),
        ("--data a.bin --tokenizer byte --val_data copy.bin", "letter by letter"),
        ("--data a.bin --tokenizer byte --val_data t.txt", "one holds token ids, and the other"),
        ("--data t.txt --tokenizer byte --val_data a.bin", "one holds token ids, and the other"),
        ("--data n --tokenizer byte --val_data a.bin", "has validation text of its own"),
        ("--data a.bin --tokenizer byte --val_data n", "--val_data n has text to train on, too"),
        ("--data n t.txt --tokenizer byte", "n/train.bin holds token ids, and other --data text"),
        ("--data m --tokenizer byte", "m holds token ids without a train.bin; name its files"),
        ("--data sc --tokenizer byte", "sc/meta.pkl lists, a pickle, which minigen never reads"),
        ("--data a.bin --tokenizer twice.json", "twice.json is no list of different characters"),
        ("--data a.bin --tokenizer words.json", "words.json is no list of different characters"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_leaves_nothing(flags: str, complaint: str) -> None:
    """The line names the file and the reason; no run is left."""
    ids = [n % 256 for n in range(1200)]
    for name in ("a.bin", "n/train.bin", "m/some.bin"):
        save(name, ids)
    save("copy.bin", ids)
    save("n/val.bin", ids[::-1])
    Path("odd.bin").write_bytes(Path("a.bin").read_bytes() + b"\1")
    Path("empty.bin").touch()
    save("high.bin", [*range(40), 300, *range(40)])
    save("ends.bin", [256] * 50)
    save("two.bin", [1, 2, 3])
    save("wide.bin", ids, "<u4")
    save_llm_c("cut.bin", ids)
    content = Path("cut.bin").read_bytes()
    Path("cut.bin").write_bytes(content[:-2])
    Path("head.bin").write_bytes(content[:600])
    save_llm_c("eval.bin", ids, 20240522)
    save_llm_c("llama.bin", ids, 20240801, 7)
    Path("text.bin").write_text("\n".join(DOCUMENTS), "utf-8")
    Path("zip.bin").write_bytes(b"PK\x03\x04" + bytes(ids[:200]))
    Path("t.txt").write_text("\n".join(DOCUMENTS), "utf-8")
    Path("twice.json").write_text('["a", "b", "a"]', "utf-8")
    Path("words.json").write_text('["a", "bc"]', "utf-8")
    save_characters("sc")
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        run(flags)
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_a_program_ends_with_exit_code_2_and_one_line() -> None:
    """And without a traceback, where the ids have no tokenizer."""
    save("a.bin", [*range(90)])
    command = [sys.executable, str(ROOT / "train.py"), "--data", "a.bin"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: a.bin holds token ids") and done.stderr.count("\n") == 1


def test_a_bin_file_among_texts_is_left_out_as_any_binary_file() -> None:
    """The weights of a model, for example, in a folder of texts."""
    save("d/model.bin", [*range(90)])
    Path("d/a.txt").write_text("text", "utf-8")
    corpus = corpora.find(["d"], Path())
    assert corpus.train == (Path("d/a.txt"),)
    assert corpus.notes == ("skipped 1 binary file d/model.bin",)
