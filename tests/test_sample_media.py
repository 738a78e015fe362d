"""sample.py with a model of tales, pictures and tunes: prompts, conditions, checks and files."""

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
from minigen.corpora import first_line, genre, pictures, saving, tales, tunes
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
    """Return a folder with runs of a model that was trained to repeat the three TEXTS."""
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
    """Return run(name, flags...), which calls sample.py and returns its output and its errors."""

    def call(name: str, *flags: str) -> tuple[str, str]:
        sample.main(["--out_dir", str(out), "--run", name, "--temperature=0", *flags])
        return capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("name", "prompt", "text"),
    [
        ("pictures", CAPTION.removeprefix("picture: ").upper(), PICTURE),
        ("all", CAPTION.removeprefix("picture: "), PICTURE),
        ("all", TUNE.partition("\n")[0].removeprefix("tune: "), TUNE),
        ("all", TALE[:60], TALE),
        ("files", CAPTION, PICTURE),
    ],
    ids=["upper case", "picture", "tune", "tale", "other texts"],
)
def test_words_become_the_first_line_of_their_corpus(
    run: Run, name: str, prompt: str, text: str
) -> None:
    """The words of a caption or a first line are completed; the model writes the document."""
    output, _ = run(name, "--prompt", prompt)
    assert output == text + "\n"


def test_words_of_no_corpus_are_refused(run: Run) -> None:
    """A word that no caption has raises a `UserError` that lists the words of captions."""
    with pytest.raises(UserError, match=r'the caption says "zebra".*Its words are form: a, two'):
        run("pictures", "--prompt", "a zebra")


def test_conditions_become_the_first_line(run: Run) -> None:
    """With all conditions of a picture, the model writes that picture."""
    conditions = pictures.check(PICTURE).conditions
    pairs = ",".join(f"{field}={word}" for field, word in conditions.items())
    assert run("all", "--condition", pairs)[0] == PICTURE + "\n"


def test_the_seed_draws_the_other_conditions(run: Run) -> None:
    """A first line has the conditions of --condition, in any case; --seed draws the others."""
    flags = ["--condition", "shape=star, colour=RED", "--max_new_tokens=1"]
    lines = set()
    for name, seed in (("pictures", 0), ("all", 0), ("all", 1)):
        text, _ = run(name, *flags, f"--seed={seed}")
        conditions = genre.get("pictures").check(text).conditions
        assert (conditions["shape"], conditions["colour"]) == ("star", "red")
        lines.add(text.partition("\n")[0])
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("all", ["--condition", "mood=dreamy"], "mood=dreamy may be a tune or a tale; "),
        ("all", ["--condition", "hat=red"], "a picture has no 'hat'.*a tune.*a tale has no 'hat'"),
        ("pictures", ["--condition", "shape"], "'shape' is no condition; .* mood=sad"),
        ("files", ["--condition", "shape=star"], "model .*no.* tales, pictures or tunes"),
        ("files", ["--help_conditions"], "model .*no.* tales, pictures or tunes"),
        ("all", ["--condition", "shape=star", "--prompt", "a"], "exclude each other"),
        ("pictures", ["--save", "x.wav"], "cannot save as x.wav; .* ends in .png, "),
        ("files", ["--save", "x.jpg"], "cannot save as x.jpg; .* ends in .abc, .png, .txt, .wav"),
        ("files", ["--save", "x.wav", "--prompt", "hero:"], "a tale .* x.wav; .*x.txt"),
        ("all", ["--save", "no/x.png"], "there is no folder .*no .*--save; "),
        ("all", ["--save", "x.png", "--interactive"], "exclude each other"),
        ("all", ["--save", "x.png", "--prompt", "hero:"], "a tale .* x.png; .*x.txt"),
    ],
)
def test_impossible_requests_are_one_line_of_error(
    run: Run, name: str, flags: list[str], message: str
) -> None:
    """Flags that do not fit the model or each other raise a `UserError` that says why."""
    with pytest.raises(UserError, match=message):
        run(name, *flags)


def test_help_lists_every_field_and_its_example_works(run: Run) -> None:
    """--help_conditions lists the words of all fields, and its example of --condition works."""
    text, _ = run("all", "--help_conditions")
    for each in map(genre.get, genre.BEGINNINGS):
        for field, words in each.FIELDS.items():
            assert re.search(rf"^  {field} +{re.escape(', '.join(words))}$", text, re.MULTILINE)
    for pairs in re.findall(r"--condition (\S+);", text):
        assert run("all", "--condition", pairs, "--max_new_tokens=1")[0]


@pytest.fixture
def save(run: Run, tmp_path: Path) -> Callable[..., Path]:
    """Return save(name, prompt, flags...), which saves samples and returns the path of the file."""

    def call(name: str, prompt: str, *flags: str) -> Path:
        run("all", "--prompt", prompt, "--save", str(tmp_path / name), *flags)
        return tmp_path / name

    return call


def test_a_picture_is_saved_as_its_pixels(save: Callable[..., Path]) -> None:
    """--save one.png writes the image of the picture; four pictures become a larger sheet."""
    pixels = image.imread(save("one.png", CAPTION))[:, :, :3]
    assert (pixels * 255).round().tolist() == render.pixels(PICTURE).tolist()
    sheet = image.imread(save("sheet.png", CAPTION, "--num_samples=4"))
    assert sheet.shape[0] > 1.9 * pixels.shape[0] and sheet.shape[1] > 1.9 * pixels.shape[1]


def test_a_tune_is_saved_as_sound_or_abc_notation(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    """--save writes the sound or the ABC notation of a tune; of two tunes, each has its file."""
    with wave.open(str(save("tune.wav", TUNE.partition("\n")[0]))) as sound:
        assert sound.getnframes() > 5 * sound.getframerate()
    assert save("tune.abc", "tune:").read_text(encoding="utf-8") == tunes.to_abc(TUNE) + "\n"
    save("two.abc", "tune:", "--num_samples=2")
    assert {path.name for path in tmp_path.glob("two*")} == {"two-1.abc", "two-2.abc"}


def test_tales_are_saved_as_one_text(save: Callable[..., Path]) -> None:
    """--save both.txt writes two tales with a blank line between them."""
    both = save("both.txt", "hero:", "--num_samples=2").read_text(encoding="utf-8")
    assert both == f"{TALE}\n\n{TALE}\n"


def test_abc_notation_without_a_first_line_is_a_tune(tmp_path: Path) -> None:
    """ABC notation of any corpus can be saved as sound, piano roll and ABC notation."""
    own = TUNE.partition("\n")[2]
    for ending in (".wav", ".png", ".abc"):
        saving.save([own], tmp_path / f"x{ending}")
    assert (tmp_path / "x.abc").read_text(encoding="utf-8") == own + "\n"
    with wave.open(str(tmp_path / "x.wav")) as sound:
        assert sound.getnframes() > 5 * sound.getframerate()


def test_a_text_can_have_several_tunes(tmp_path: Path) -> None:
    """A text with two tunes in ABC notation becomes two files of each format."""
    own = TUNE.partition("\n")[2]
    for ending in (".wav", ".png", ".abc"):
        saving.save([f"the end of one\n\n{own}\n\n{own}"], tmp_path / f"two{ending}")
    assert len(list(tmp_path.glob("two-[12].*"))) == 6


def test_prose_is_no_tune(tmp_path: Path) -> None:
    """Prose cannot be saved as sound. Tunes beside it are saved, and an error names the prose."""
    own = TUNE.partition("\n")[2]
    with pytest.raises(UserError, match=r"a text that is .*picture.* tune .*y\.txt"):
        saving.save(["some prose"], tmp_path / "y.wav")
    with pytest.raises(UserError, match=r"tune 2 cannot be read: no line begins with X:"):
        saving.save([own, "no tune"], tmp_path / "z.wav")
    assert [path.name for path in tmp_path.glob("z*")] == ["z-1.wav"]


def test_signs_that_cannot_be_played_are_left_out_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tune is saved without the signs that cannot be played, and one line counts these signs."""
    text = 'X:1\nK:Ddor\n~A2 !trill!B{c}d "Gsus4"(3efg ~a z0 |1 c,,,,, | "C" |]'
    saving.save([text], tmp_path / "x.wav")
    saving.save([text], tmp_path / "x.png")
    notes = capsys.readouterr().err
    assert notes.startswith("left out, as minigen cannot play it: '~' 2 x, 'K:Ddor' 1 x, ")
    assert notes.count("\n") == 2 and (tmp_path / "x.wav").stat().st_size > 10_000
    with pytest.raises(UserError, match=r"^4 of 5 are no tunes: tune 2 cannot .*; train longer$"):
        saving.save([text, *["X:1\nK:C\n"] * 4], tmp_path / "y.wav")


def test_the_number_of_texts_that_follow_their_prompt_is_reported(run: Run) -> None:
    """A note counts the texts that follow their prompt, and the texts that were cut off."""
    _, notes = run("pictures", "--prompt", CAPTION)
    assert notes.splitlines()[-1].startswith("1 of 1 ")
    text, notes = run("all", "--prompt", CAPTION, "--max_new_tokens=30", "--num_samples=2")
    assert text.startswith(CAPTION)
    assert notes.splitlines()[-1].startswith("0 of 2 ") and notes.endswith("--max_new_tokens\n")


def test_if_most_texts_are_not_well_formed_the_notes_advise_training(run: Run) -> None:
    """If most texts are not well-formed, the notes name the faults, and advise longer training."""
    _, notes = run("all", "--prompt", CAPTION, "--stop_strings=\n", "--num_samples=2")
    assert re.search(r"^0 of 2 .*\n  1: there are ", notes, re.MULTILINE)
    assert re.search(r"not well-formed.* train longer\n$", notes)


def test_a_text_without_a_first_line_is_not_counted(run: Run) -> None:
    """If no text has a first line, there is no note on prompts."""
    assert " of 1 " not in run("all", "--prompt", "Once", "--max_new_tokens=1")[1]


def test_a_well_formed_text_may_not_follow_its_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    """A picture under another caption does not follow its prompt, but is not called malformed."""
    first_line.report([PICTURE, PICTURE.replace("left of", "right of", 1), "no corpus"])
    notes = capsys.readouterr().err
    assert re.fullmatch(r"1 of 2 .*\n  2: the .* is not right of the .*\n", notes)


def test_ten_faulty_texts_are_named_and_the_others_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 14 faulty texts, the faults of 10 are named, and the others are counted by pattern."""
    wrong = PICTURE.replace("left of", "right of", 1)
    first_line.report([PICTURE, *[wrong] * 14, wrong[:60], wrong[:60]], {15, 16})
    first, *named, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"1 of 17 .*; 2 were cut off by --max_new_tokens", first)
    assert [line.split(":")[0].strip() for line in named] == [str(n) for n in range(2, 12)]
    assert re.fullmatch(r"  4 more: the \.\.\..* is not \.\.\. the .*", last)


def test_a_picture_and_a_tune_are_not_one_file(tmp_path: Path) -> None:
    """A picture and a tune cannot be saved as a PNG, and no file is written."""
    with pytest.raises(UserError, match=r"not all of one kind; .*x\.txt"):
        saving.save([PICTURE, TUNE], tmp_path / "x.png")
    assert not any(tmp_path.iterdir())


def test_a_terminal_shows_a_picture_in_colours(out: Path) -> None:
    """sample.py writes the colours of `render.terminal` if its output is a terminal."""
    reader, writer = pty.openpty()
    command = [sys.executable, sample.__file__, "--out_dir", str(out), "--run", "pictures"]
    done = subprocess.run(
        [*command, "--temperature=0", "--prompt", CAPTION], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    output = b""
    while part := _read(reader):
        output += part
    assert done.returncode == 0, done.stderr
    assert output.decode().replace("\r\n", "\n") == render.terminal(PICTURE) + "\n"


def _read(terminal: int) -> bytes:
    """Read some bytes from a terminal; none at its end, where Linux raises an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
