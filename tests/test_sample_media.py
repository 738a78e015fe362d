"""sample.py with a model of tales, pictures and tunes: asking, checking, saving, showing."""

from __future__ import annotations

import os
import pty
import random
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib import image
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

import sample
from minigen.corpora import first_line, pictures, saving, tales, task, tunes
from minigen.corpora.pictures import render
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.model import GPT, GPTConfig
from minigen.tokenizer import train_tokenizer

Run = Callable[..., tuple[str, str]]
PICTURE = next(one.text for one in pictures.documents(0) if one.caption.form == "left of")
TUNE = next(one.text for one in tunes.documents(0) if one.conditions["form"] == "AA")
TALE = tales.tale(random.Random(0)).text
TEXTS = [PICTURE, TUNE, TALE]
CAPTION = PICTURE.partition("\n")[0]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a model that knows one picture, one tune and one tale by heart."""
    folder = tmp_path_factory.mktemp("media") / "out"
    tokenizer = train_tokenizer("bpe", TEXTS, 700)
    rows = [[tokenizer.end_of_text, *tokenizer.encode(text)] for text in TEXTS]
    length = max(map(len, rows))
    data = torch.tensor([row + [tokenizer.end_of_text] * (length + 1 - len(row)) for row in rows])
    torch.manual_seed(0)
    gpt = GPT(GPTConfig.modern(tokenizer.n_vocab, length, 2, 2, 32))
    optimizer = torch.optim.Adam(gpt.parameters(), lr=1e-2)
    for _ in range(120):
        loss = F.cross_entropy(gpt(data[:, :-1]).flatten(0, 1), data[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.05
    for name, corpora in (
        ("all", ("tales,pictures", "tunes")),
        ("pictures", ("pictures",)),
        ("files", ("my.txt",)),
    ):
        state = {"step": 1, "val_loss": 0.0, "config": {"data": corpora}}
        checkpoint.save(folder / name, gpt, tokenizer, {}, state)
    return folder


@pytest.fixture
def run(out: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """run(name, flags...) is sample.py in this process: what it prints, and what it notes."""

    def call(name: str, *flags: str) -> tuple[str, str]:
        sample.main(["--out_dir", str(out), "--run", name, "--temperature=0", *flags])
        return capsys.readouterr()

    return call


def test_words_become_the_first_line_of_what_the_model_has_read(run: Run) -> None:
    words = CAPTION.removeprefix("picture: ")
    text, notes = run("pictures", "--prompt", words.upper())
    assert text == PICTURE + "\n" and "1 of 1 obey their first line" in notes
    assert run("all", "--prompt", words)[0] == PICTURE + "\n"
    line = TUNE.partition("\n")[0].removeprefix("tune: ")
    assert run("all", "--prompt", line)[0] == TUNE + "\n"
    assert run("all", "--prompt", TALE[:60])[0] == TALE + "\n"
    assert run("files", "--prompt", CAPTION)[0] == PICTURE + "\n"
    with pytest.raises(UserError, match=r'the caption says "zebra".*Its words are form: a, two'):
        run("pictures", "--prompt", "a zebra")


def test_conditions_become_the_first_line(run: Run) -> None:
    given = pictures.check(PICTURE).conditions
    pairs = ",".join(f"{field}={word}" for field, word in given.items())
    assert run("all", "--condition", pairs)[0] == PICTURE + "\n"
    for name in ("all", "pictures"):
        text, _ = run(name, "--condition", "shape=star, colour=RED", "--max_new_tokens=1")
        conditions = task.get("pictures").check(text).conditions
        assert (conditions["shape"], conditions["colour"]) == ("star", "red")
    other, _ = run("all", "--condition", "shape=star,colour=red", "--max_new_tokens=1", "--seed=1")
    assert other.partition("\n")[0] != text.partition("\n")[0]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("all", ["--condition", "mood=dreamy"], "mood=dreamy may be a tune or a tale; say more"),
        ("all", ["--condition", "hat=red"], "a picture has no 'hat'.*a tune.*a tale has no 'hat'"),
        ("pictures", ["--condition", "shape"], "'shape' is no condition; it is such as mood=sad"),
        ("files", ["--condition", "shape=star"], "the model has read no tales, pictures or tunes"),
        ("files", ["--help_conditions"], "this model has read no tales, pictures or tunes"),
        ("all", ["--condition", "shape=star", "--prompt", "a"], "exclude each other"),
        ("pictures", ["--save", "x.wav"], "cannot save as x.wav; give a name that ends in .png, "),
        ("files", ["--save", "x.jpg"], "cannot save as x.jpg; .* ends in .abc, .png, .txt, .wav"),
        ("files", ["--save", "x.wav", "--prompt", "hero:"], "a tale is not saved as x.wav; take"),
        ("all", ["--save", "no/x.png"], "there is no folder .*no for --save; make it first"),
        ("all", ["--save", "x.png", "--interactive"], "exclude each other"),
        ("all", ["--save", "x.png", "--prompt", "hero:"], "a tale is not saved as x.png; take"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    run: Run, name: str, flags: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(name, *flags)


def test_help_lists_every_field_and_its_example_works(run: Run) -> None:
    text, _ = run("all", "--help_conditions")
    for one in map(task.get, task.BEGINNINGS):
        for field, words in one.FIELDS.items():
            assert re.search(rf"^  {field} +{re.escape(', '.join(words))}$", text, re.MULTILINE)
    for pairs in re.findall(r"--condition (\S+);", text):
        assert run("all", "--condition", pairs, "--max_new_tokens=1")[0]


def test_what_is_written_is_saved_as_its_name_says(run: Run, tmp_path: Path) -> None:
    def save(name: str, prompt: str, *flags: str) -> Path:
        run("all", "--prompt", prompt, "--save", str(tmp_path / name), *flags)
        return tmp_path / name

    pixels = image.imread(save("one.png", CAPTION))[:, :, :3]
    assert (pixels * 255).round().tolist() == render.pixels(PICTURE).tolist()
    sheet = image.imread(save("sheet.png", CAPTION, "--num_samples=4"))
    assert sheet.shape[0] > 1.9 * pixels.shape[0] and sheet.shape[1] > 1.9 * pixels.shape[1]
    with wave.open(str(save("tune.wav", TUNE.partition("\n")[0]))) as sound:
        assert sound.getnframes() > 5 * sound.getframerate()
    assert save("tune.abc", "tune:").read_text(encoding="utf-8") == tunes.abc(TUNE) + "\n"
    save("two.abc", "tune:", "--num_samples=2")
    assert {path.name for path in tmp_path.glob("two*")} == {"two-1.abc", "two-2.abc"}
    both = save("both.txt", "hero:", "--num_samples=2").read_text(encoding="utf-8")
    assert both == f"{TALE}\n\n{TALE}\n"


def test_own_tunes_are_heard_whatever_their_corpus_is_called(tmp_path: Path) -> None:
    """ABC notation without the built-in corpus's first line; one text may hold several tunes."""
    own = TUNE.partition("\n")[2]
    for ending in (".wav", ".png", ".abc"):
        saving.save([own], tmp_path / f"x{ending}")
        saving.save([f"the end of one\n\n{own}\n\n{own}"], tmp_path / f"two{ending}")
    assert (tmp_path / "x.abc").read_text(encoding="utf-8") == own + "\n"
    assert len(list(tmp_path.glob("two-[12].*"))) == 6
    with wave.open(str(tmp_path / "x.wav")) as sound:
        assert sound.getnframes() > 5 * sound.getframerate()
    with pytest.raises(UserError, match=r"a text that is no picture, and no tune .* take .*y\.txt"):
        saving.save(["some prose"], tmp_path / "y.wav")
    with pytest.raises(UserError, match=r"tune 2 cannot be read: no line begins with X:"):
        saving.save([own, "no tune"], tmp_path / "z.wav")
    assert [path.name for path in tmp_path.glob("z*")] == ["z-1.wav"]


def test_what_cannot_be_played_of_a_tune_is_named_and_the_rest_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'X:1\nK:Ddor\n~A2 !trill!B{c}d "Gsus4"(3efg ~a z0 |1 c,,,,, | "C" |]'
    saving.save([text], tmp_path / "x.wav")
    saving.save([text], tmp_path / "x.png")
    said = capsys.readouterr().err
    assert said.startswith("left out, as minigen cannot play it: '~' 2 x, 'K:Ddor' 1 x, ")
    assert said.count("\n") == 2 and (tmp_path / "x.wav").stat().st_size > 10_000
    with pytest.raises(UserError, match=r"^4 of 5 are no tunes: tune 2 cannot .*; train longer$"):
        saving.save([text, *["X:1\nK:C\n"] * 4], tmp_path / "y.wav")


def test_a_text_that_breaks_its_promise_is_told(run: Run) -> None:
    text, notes = run("all", "--prompt", CAPTION, "--max_new_tokens=30", "--num_samples=2")
    assert text.startswith(CAPTION)
    assert notes.endswith("0 of 2 obey their first line; 2 were cut off by --max_new_tokens\n")
    _, notes = run("all", "--prompt", CAPTION, "--stop_strings=\n", "--num_samples=2")
    assert "0 of 2 obey their first line\n  1: there are " in notes
    assert notes.endswith("\nmost of them are not well-formed: train longer\n")
    assert "obey" not in run("all", "--prompt", "Once", "--max_new_tokens=1")[1]


def test_to_be_well_formed_is_not_to_obey(capsys: pytest.CaptureFixture[str]) -> None:
    first_line.report([PICTURE, PICTURE.replace("left of", "right of", 1), "no medium"])
    said = capsys.readouterr().err
    assert re.fullmatch(r"1 of 2 obey their first line\n  2: the .* is not right of the .*\n", said)


def test_of_many_faulty_texts_ten_are_named_and_the_others_counted_by_kind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = PICTURE.replace("left of", "right of", 1)
    first_line.report([PICTURE, *[wrong] * 14, wrong[:60], wrong[:60]], {15, 16})
    first, *named, last = capsys.readouterr().err.splitlines()
    assert first == "1 of 17 obey their first line; 2 were cut off by --max_new_tokens"
    assert [line.split(":")[0].strip() for line in named] == [str(n) for n in range(2, 12)]
    assert re.fullmatch(r"  4 more: the \.\.\..* is not \.\.\. the .*", last)


def test_texts_of_two_kinds_are_not_one_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"these are not all of one kind; save them as .*x\.txt"):
        saving.save([PICTURE, TUNE], tmp_path / "x.png")
    assert not any(tmp_path.iterdir())


def test_a_terminal_shows_a_picture_in_colours(out: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, sample.__file__, "--out_dir", str(out), "--run", "pictures"]
    done = subprocess.run(
        [*command, "--temperature=0", "--prompt", CAPTION], stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    shown = b""
    while part := _read(ours):
        shown += part
    assert done.returncode == 0, done.stderr
    assert shown.decode().replace("\r\n", "\n") == render.terminal(PICTURE) + "\n"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so at the end
        return b""
