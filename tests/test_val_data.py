"""Validation text of one's own (--val_data), and a tokenizer that exists already (--tokenizer)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from digests import trained
from elsewhere import resume_elsewhere
from tokenizers import Tokenizer as TheirTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

import train
from minigen import corpora
from minigen.data import prepare
from minigen.data.text import read_documents
from minigen.errors import UserError
from minigen.evaluation import command as evaluate
from minigen.files import checkpoint
from minigen.inference.engine import load
from minigen.run.config import resolve
from minigen.run.log import read_metrics
from minigen.run.text import find_text
from minigen.tokenizer import END_OF_TEXT

SMALL = (
    "--n_layer 1 --n_head 1 --n_embd 8 --block_size 8 --batch_size 2 --device cpu --compile no "
    "--dropout 0 --eval_tokens 50"
)
TRAIN = "".join(f"The cat number {n} sat on mat {n * 7 % 13}.\n" for n in range(60))
VAL = "".join(f"A dog of {n} years stood by door {n * 5 % 11}.\n" for n in range(30))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None) -> Path:
    """Write both texts into an empty folder, and enter it."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(TRAIN, "utf-8")
    Path("v.txt").write_text(VAL, "utf-8")
    return tmp_path


def run(flags: str, name: str = "run", max_steps: int = 4) -> Path:
    """Run train.py; return the folder of the run."""
    words = f"{SMALL} --max_steps {max_steps} --name {name} {flags}"
    assert train.main(words.split()) == 0
    return Path("out", name)


def test_all_of_data_trains_and_val_data_validates() -> None:
    """No tenth of --data is held out, and the loss is that on all of --val_data."""
    run("--data a.txt --val_data v.txt --tokenizer byte")
    judged = evaluate.find_texts(evaluate.EvaluateConfig("run"), load("run"))
    assert judged.training is not None
    decoded = [
        load("run").tokenizer.decode(tokens.read(1, tokens.n_tokens - 1).tolist())
        for tokens in (judged.training, judged.held_out)
    ]
    assert decoded == [TRAIN, VAL]
    evaluate.main(["run"])
    found = json.loads(next(Path("out/run").glob("evaluation*.json")).read_text())
    logged = [line for line in read_metrics(Path("out/run")) if "final_val_loss" in line]
    bits = logged[-1]["final_val_bits_per_byte"]
    assert found["bits_per_byte"] == pytest.approx(bits, rel=1e-4)


def test_it_resumes_bit_for_bit_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both texts are found again where the run was started."""
    flags = "--data a.txt --val_data v.txt --tokenizer char --eval_interval 3"
    whole = folder / run(flags, "whole", max_steps=6)
    part = folder / run(flags, max_steps=6)
    words = resume_elsewhere(part, "step-000006", monkeypatch)
    assert trained(whole) == trained(part)
    (folder / "v.txt").write_text(VAL + "A door.", "utf-8")
    with pytest.raises(UserError, match="another text"):
        train.main([*words, "--max_steps", "8"])


def test_what_a_fine_tuned_model_forgets_is_measured_on_its_validation_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The old loss is that of the base model's --val_data, not of a tenth of its training text."""
    run("--data a.txt --val_data v.txt --tokenizer byte", "base")
    Path("new.txt").write_text("new text, " * 90, "utf-8")
    words = "--data new.txt --init_from base --max_steps 2 --name tuned --block_size 8 --device cpu"
    assert train.main(f"{words} --eval_tokens 50 --compile no".split()) == 0
    first = next(line for line in read_metrics(Path("out/tuned")) if "old_loss_before" in line)
    logged = [line for line in read_metrics(Path("out/base")) if "final_val_loss" in line]
    assert first["old_loss_before"] == pytest.approx(logged[-1]["final_val_loss"], rel=1e-3)


def test_a_long_training_text_is_read_in_stripes_beside_val_data(folder: Path) -> None:
    """`max_chars` holds with validation files, too, as it bounds the time before the first step."""
    long = folder / "long.txt"
    long.write_text(TRAIN * 2000, "utf-8")  # 3 MB, in stripes of 1 MB
    corpus = corpora.find([str(long)], folder, None, val_data=["v.txt"])
    _, training, _ = prepare(corpus, None, "byte", None, folder / "cache", max_chars=1_500_000)
    assert training.stripe_interval == 3 and training.n_bytes < len(TRAIN) * 2000 / 2


@pytest.mark.parametrize(
    ("separator", "between"), [("auto", END_OF_TEXT), (r"\\n", r"\n"), (r"\n", "\n")]
)
def test_both_texts_are_parted_by_the_same_separator(
    separator: str, between: str, folder: Path
) -> None:
    """A backslash and an n, or a newline, as the flag means; lines of JSON part themselves."""
    for name, documents in (("a.txt", ("one", "two")), ("v.txt", ("three", "four"))):
        Path(name).write_text(between.join(documents), "utf-8")
    Path("v.jsonl").write_text('{"text": "three"}\n{"text": "four"}\n', "utf-8")
    for name in ("v.txt", "v.jsonl") if separator == "auto" else ("v.txt",):
        corpus = corpora.find(["a.txt"], folder, separator, val_data=[name])
        for files, expected in ((corpus.train, ["one", "two"]), (corpus.val, ["three", "four"])):
            parts = read_documents(files, corpus.separator)  # \0 before each document
            assert "".join("\0" * part.is_first + part.text for part in parts) == (
                "".join(f"\0{document}" for document in expected)
            )


def test_a_text_of_a_grammar_is_read_as_a_whole(folder: Path) -> None:
    """However short the run is, as the entropy beside its loss is that of the whole text."""
    flags = resolve(train.TrainConfig(data=("tales",), minutes=0.01, device="cpu"))
    text, _ = find_text(flags, None, None, None, {})
    assert text.entropy is not None
    assert text.max_chars < text.train_tokens.n_bytes
    assert text.train_tokens.stripe_interval == text.val_tokens.stripe_interval == 1


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--val_data a.txt", "a.txt is in --data and in --val_data"),
        ("--val_data link.txt", "link.txt is in --data and in --val_data"),
        ("--val_data copy.txt", "letter by letter"),
        ("--val_data empty.txt", "no text in"),
        ("--val_data tales", "--val_data tales is a corpus to train on"),
        ("--val_data nowhere.txt", "no such file or corpus"),
        ("--val_data parted.txt", f"{END_OF_TEXT} is in --val_data and not in --data"),
        ("--val_data short.txt", "has only"),
        ("--data tales --val_data v.txt", "tales has validation text of its own"),
        ("--tokenizer bpee", "--tokenizer: no run 'bpee' in out"),
        ("--tokenizer a.txt", "--tokenizer: a.txt is a file"),
        ("--tokenizer other.json", "--tokenizer: other.json is a WordPiece"),
        ("--tokenizer missing.json", "cannot read missing.json as a tokenizer"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(flags: str, complaint: str) -> None:
    """The line names the file or the flag; no run is left."""
    shutil.copy("a.txt", "copy.txt")
    Path("link.txt").symlink_to("a.txt")
    Path("empty.txt").touch()
    Path("short.txt").write_text("No.", "utf-8")
    Path("parted.txt").write_text(f"{VAL}{END_OF_TEXT}{VAL}", "utf-8")
    Path("other.json").write_text('{"model": {"type": "WordPiece"}}', "utf-8")
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        run(f"--data a.txt {flags}")
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["base", "out/base/best", "out/base/best/tokenizer.json"])
def test_the_tokenizer_of_a_run_is_taken_as_it_is(name: str) -> None:
    """A new model on other text has the same tokens, in the same order."""
    base = run("--data a.txt --tokenizer bpe --vocab_size 280", "base")
    other = run(f"--data v.txt --tokenizer {name}", "other")
    tokens = [checkpoint.load_newest(place).tokenizer.tokens for place in (base, other)]
    assert tokens[0] == tokens[1] and len(tokens[0]) == 280


def test_whether_a_text_begins_bare_follows_the_new_text() -> None:
    """A tokenizer from a model of many documents serves for one of a single book, too."""
    Path("many.txt").write_text(END_OF_TEXT.join(TRAIN.splitlines()), "utf-8")
    run("--data many.txt --tokenizer byte", "many")
    run("--data a.txt --tokenizer many", "book")
    bare = [load(name).tokenizer.bare for name in ("many", "book")]
    assert bare == [False, True]


def test_a_tokenizer_of_the_tokenizers_library_gives_its_own_ids() -> None:
    """A new model reads the text as that library does, and so does the model when loaded again."""
    theirs = TheirTokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        [TRAIN],
        trainers.BpeTrainer(
            vocab_size=300, initial_alphabet=alphabet, special_tokens=[END_OF_TEXT]
        ),
    )
    theirs.save("theirs.json")
    run("--data a.txt --tokenizer theirs.json")
    engine = load("run")
    assert engine.tokenizer.encode(VAL) == theirs.encode(VAL).ids
    assert engine.model.config.vocab_size >= theirs.get_vocab_size()


def test_a_character_that_the_tokenizer_lacks_is_named() -> None:
    """A char tokenizer has the characters of its own text alone."""
    run("--data a.txt --tokenizer char", "base")
    Path("hangul.txt").write_text("나는 밥을 먹는다. " * 40, "utf-8")
    with pytest.raises(UserError, match="'나'"):
        run("--data hangul.txt --tokenizer base")
