"""sample.py with a model of tales, pictures and tunes: it asks, judges, saves and shows."""

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
    """Return a folder with runs of a model that knows a picture, a tune and a tale by heart."""
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
    """Return run(name, flags...), which runs sample.py and returns its stdout and stderr."""

    def call(name: str, *flags: str) -> tuple[str, str]:
        """Run sample.py in this process."""
        sample.main(["--out_dir", str(out), "--run", name, "--temperature=0", *flags])
        return capsys.readouterr()

    return call


LINE = TUNE.partition("\n")[0]


@pytest.mark.parametrize(
    ("name", "words", "document"),
    [
        ("pictures", CAPTION.removeprefix("picture: ").upper(), PICTURE),
        ("all", CAPTION.removeprefix("picture: "), PICTURE),
        ("all", LINE.removeprefix("tune: "), TUNE),
        ("all", TALE[:60], TALE),
        ("files", CAPTION, PICTURE),
    ],
)
def test_words_become_a_first_line(run: Run, name: str, words: str, document: str) -> None:
    """The words of a first line are made into the first line of a task that the model knows."""
    text, notes = run(name, "--prompt", words)
    assert text == document + "\n" and "1 of 1 follow their prompt" in notes


def test_words_that_no_caption_has_are_refused(run: Run) -> None:
    """The error lists the words of captions."""
    with pytest.raises(UserError, match=r'the caption says "zebra".*Its words are form: a, two'):
        run("pictures", "--prompt", "a zebra")


def test_conditions_become_the_first_line(run: Run) -> None:
    """With a value for each field of a first line, --condition gives its document."""
    conditions = pictures.check(PICTURE).conditions
    pairs = ",".join(f"{field}={word}" for field, word in conditions.items())
    assert run("all", "--condition", pairs)[0] == PICTURE + "\n"


@pytest.mark.parametrize("name", ["all", "pictures"])
def test_fields_without_a_condition_are_drawn(run: Run, name: str) -> None:
    """The fields that --condition leaves out depend on the seed, and the others do not."""
    lines = set()
    for seed in ("0", "1"):
        flags = ["--condition", "shape=star, colour=RED", "--max_new_tokens=1", "--seed", seed]
        text, _ = run(name, *flags)
        conditions = task.get("pictures").check(text).conditions
        assert (conditions["shape"], conditions["colour"]) == ("star", "red")
        lines.add(text.partition("\n")[0])
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("all", ["--condition", "mood=dreamy"], "mood=dreamy may be a tune or a tale; add a"),
        ("all", ["--condition", "hat=red"], "a picture has no 'hat'.*a tune.*a tale has no 'hat'"),
        ("pictures", ["--condition", "shape"], "'shape' is no condition; give such as mood=sad"),
        ("files", ["--condition", "shape=star"], "the model was not trained on tales, pictures or"),
        ("files", ["--help_conditions"], "the model was not trained on tales, pictures or tunes"),
        ("all", ["--condition", "shape=star", "--prompt", "a"], "exclude each other"),
        ("pictures", ["--save", "x.wav"], "cannot save as x.wav; give a name that ends in .png, "),
        ("files", ["--save", "x.jpg"], "cannot save as x.jpg; .* ends in .abc, .png, .txt, .wav"),
        (
            "files",
            ["--save", "x.wav", "--prompt", "hero:"],
            "a tale cannot be saved as x.wav; save",
        ),
        ("all", ["--save", "no/x.png"], "there is no folder .*no for --save; make it first"),
        ("all", ["--save", "x.png", "--interactive"], "exclude each other"),
        ("all", ["--save", "x.png", "--prompt", "hero:"], "a tale cannot be saved as x.png; save"),
    ],
)
def test_conditions_and_files_that_are_impossible_are_refused(
    run: Run, name: str, flags: list[str], message: str
) -> None:
    """The error about --condition, --help_conditions or --save says how to mend it."""
    with pytest.raises(UserError, match=message):
        run(name, *flags)


def test_help_lists_every_field_and_its_example_works(run: Run) -> None:
    """--help_conditions lists the words of each field, and its examples are valid conditions."""
    text, _ = run("all", "--help_conditions")
    for each in map(task.get, task.BEGINNINGS):
        for field, words in each.FIELDS.items():
            assert re.search(rf"^  {field} +{re.escape(', '.join(words))}$", text, re.MULTILINE)
    examples = re.findall(r"--condition (\S+);", text)
    assert len(examples) == 3
    for pairs in examples:
        assert run("all", "--condition", pairs, "--max_new_tokens=1")[0]


def saved(run: Run, path: Path, prompt: str, *flags: str) -> Path:
    """Save what the model writes after a prompt; return the path."""
    run("all", "--prompt", prompt, "--save", str(path), *flags)
    return path


def test_a_picture_is_saved_as_an_image(run: Run, tmp_path: Path) -> None:
    """One picture is an image of its pixels, and four are a sheet of two rows and columns."""
    pixels = image.imread(saved(run, tmp_path / "one.png", CAPTION))[:, :, :3]
    assert (pixels * 255).round().tolist() == render.pixels(PICTURE).tolist()
    sheet = image.imread(saved(run, tmp_path / "sheet.png", CAPTION, "--num_samples=4"))
    assert sheet.shape[0] > 1.9 * pixels.shape[0] and sheet.shape[1] > 1.9 * pixels.shape[1]


def test_a_tune_is_saved_as_sound_and_notes(run: Run, tmp_path: Path) -> None:
    """A .wav file has more than five seconds of sound; several .abc files are numbered."""
    with wave.open(str(saved(run, tmp_path / "tune.wav", LINE))) as sound:
        assert sound.getnframes() > 5 * sound.getframerate()
    path = saved(run, tmp_path / "tune.abc", "tune:")
    assert path.read_text(encoding="utf-8") == tunes.abc(TUNE) + "\n"
    saved(run, tmp_path / "two.abc", "tune:", "--num_samples=2")
    assert {path.name for path in tmp_path.glob("two*")} == {"two-1.abc", "two-2.abc"}


def test_texts_are_saved_with_a_blank_line_between(run: Run, tmp_path: Path) -> None:
    """A .txt file has all samples of a synthetic corpus, as the files of that corpus have."""
    path = saved(run, tmp_path / "both.txt", "hero:", "--num_samples=2")
    assert path.read_text(encoding="utf-8") == f"{TALE}\n\n{TALE}\n"


OWN = TUNE.partition("\n")[2]  # a tune of the user: ABC notation without a first line


@pytest.mark.parametrize("ending", [".wav", ".png", ".abc"])
def test_a_tune_without_a_first_line_can_be_saved(tmp_path: Path, ending: str) -> None:
    """ABC notation of any text is a tune; a text that holds several tunes gives several files."""
    saving.save([OWN], tmp_path / f"x{ending}")
    assert (tmp_path / f"x{ending}").stat().st_size > 100
    saving.save([f"the end of one\n\n{OWN}\n\n{OWN}"], tmp_path / f"two{ending}")
    assert len(list(tmp_path.glob("two-[12].*"))) == 2


def test_the_notes_of_a_tune_without_a_first_line_are_kept(tmp_path: Path) -> None:
    """A .abc file has the text of the tune, and a .wav file more than five seconds of sound."""
    saving.save([OWN], tmp_path / "x.abc")
    assert (tmp_path / "x.abc").read_text(encoding="utf-8") == OWN + "\n"
    saving.save([OWN], tmp_path / "x.wav")
    with wave.open(str(tmp_path / "x.wav")) as sound:
        assert sound.getnframes() > 5 * sound.getframerate()


def test_a_text_that_is_no_tune_is_not_saved_as_sound(tmp_path: Path) -> None:
    """Prose is refused; among tunes it is an error after the tunes have been saved."""
    with pytest.raises(UserError, match=r"a text that is neither a picture nor a tune .*y\.txt"):
        saving.save(["some prose"], tmp_path / "y.wav")
    with pytest.raises(UserError, match=r"tune 2 cannot be read: no line begins with X:"):
        saving.save([OWN, "no tune"], tmp_path / "z.wav")
    assert [path.name for path in tmp_path.glob("z*")] == ["z-1.wav"]


def test_symbols_that_cannot_be_played_are_named_and_the_rest_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A note counts each ABC symbol that minigen leaves out of the sound or of the image."""
    text = 'X:1\nK:Ddor\n~A2 !trill!B{c}d "Gsus4"(3efg ~a z0 |1 c,,,,, | "C" |]'
    saving.save([text], tmp_path / "x.wav")
    saving.save([text], tmp_path / "x.png")
    notes = capsys.readouterr().err
    assert notes.startswith("left out, as minigen cannot play it: '~' 2 x, 'K:Ddor' 1 x, ")
    assert notes.count("\n") == 2 and (tmp_path / "x.wav").stat().st_size > 10_000


def test_many_texts_that_are_no_tunes_are_one_error(tmp_path: Path) -> None:
    """The error counts the failures, names the first, and advises to train longer."""
    with pytest.raises(UserError, match=r"^4 of 5 are no tunes: tune 2 cannot .*; train longer$"):
        saving.save([OWN, *["X:1\nK:C\n"] * 4], tmp_path / "y.wav")


def test_a_sample_that_is_cut_off_is_counted_separately(run: Run) -> None:
    """--max_new_tokens ends it before it can fulfil its conditions, so no fault is named."""
    text, notes = run("all", "--prompt", CAPTION, "--max_new_tokens=30", "--num_samples=2")
    assert text.startswith(CAPTION)
    assert notes.endswith("0 of 2 follow their prompt; 2 were cut off by --max_new_tokens\n")


def test_a_sample_that_does_not_follow_its_prompt_is_reported(run: Run) -> None:
    """The report names the fault, and advises longer training if most are not well-formed."""
    _, notes = run("all", "--prompt", CAPTION, "--stop_strings=\n", "--num_samples=2")
    assert "0 of 2 follow their prompt\n  1: there are " in notes
    assert notes.endswith("\nmost texts are not well-formed: train longer\n")


def test_a_sample_without_a_first_line_is_not_judged(run: Run) -> None:
    """A text of no task has no conditions, so nothing is reported."""
    assert "follow" not in run("all", "--prompt", "Once", "--max_new_tokens=1")[1]


def test_a_well_formed_text_may_not_follow_its_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    """A picture under another caption has a fault, but no advice to train longer."""
    first_line.report([PICTURE, PICTURE.replace("left of", "right of", 1), "no task"])
    notes = capsys.readouterr().err
    fault = r"  2: the .* is not right of the .*\n"
    assert re.fullmatch(r"1 of 2 follow their prompt\n" + fault, notes)


def test_ten_faulty_texts_are_listed_and_the_faults_of_others_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Complaints that differ only in numbers and words of the caption are counted as one."""
    wrong = PICTURE.replace("left of", "right of", 1)
    first_line.report([PICTURE, *[wrong] * 14, wrong[:60], wrong[:60]], {15, 16})
    summary, *listed, last = capsys.readouterr().err.splitlines()
    assert summary == "1 of 17 follow their prompt; 2 were cut off by --max_new_tokens"
    assert [line.split(":")[0].strip() for line in listed] == [str(n) for n in range(2, 12)]
    assert re.fullmatch(r"  4 more: the \.\.\..* is not \.\.\. the .*", last)


def test_texts_of_two_tasks_are_not_one_file(tmp_path: Path) -> None:
    """A picture and a tune cannot be saved together, and nothing is written."""
    with pytest.raises(UserError, match=r"these are not all of one kind; save them as .*x\.txt"):
        saving.save([PICTURE, TUNE], tmp_path / "x.png")
    assert not any(tmp_path.iterdir())


def test_a_terminal_shows_a_picture_in_colours(out: Path) -> None:
    """If stdout is a terminal, sample.py prints the coloured cells of a picture."""
    ours, of_process = pty.openpty()
    command = [sys.executable, sample.__file__, "--out_dir", str(out), "--run", "pictures"]
    done = subprocess.run(
        [*command, "--temperature=0", "--prompt", CAPTION],
        stdout=of_process,
        stderr=subprocess.PIPE,
    )
    os.close(of_process)
    output = b""
    while part := _read(ours):
        output += part
    assert done.returncode == 0, done.stderr
    assert output.decode().replace("\r\n", "\n") == render.terminal(PICTURE) + "\n"


def _read(terminal: int) -> bytes:
    """Return the next bytes of a terminal; none at its end."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # the end on Linux
        return b""
