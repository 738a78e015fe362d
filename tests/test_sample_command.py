"""sample.py and its flags, with real checkpoints; in a process of its own where that matters."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pytest
from models import varied_model

sys.path.insert(0, str(Path(__file__).parents[1]))

import sample
import train
from minigen.cli import parse
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.inference import engine, explain
from minigen.inference.engine import Piece
from minigen.inference.printing import Printer
from minigen.model import GPTConfig, KVCache
from minigen.sampling import Sampling, generate
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

SCRIPT = Path(sample.__file__)
TEXT = "the cat sat on the mat. 나는 밥을 먹는다.\n"
BLOCK = 32
DEFAULT = Sampling(temperature=0.8, min_p=0.1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two runs: "char", whose first checkpoint is better, and later "byte"."""
    folder = tmp_path_factory.mktemp("sampling") / "out"
    for kind, losses in (("char", (1.5, 1.75)), ("byte", (5.0,))):
        tokenizer = train_tokenizer(kind, [TEXT])
        for step, loss in enumerate(losses, start=1):
            config = GPTConfig.modern(tokenizer.n_vocab + 7, BLOCK, 1, 2, 16, head_dim=8)
            gpt = varied_model(config, seed=step - 1)  # its vocabulary is padded
            checkpoint.save(folder / kind, gpt, tokenizer, {}, {"step": step, "val_loss": loss})
    return folder


@pytest.fixture
def run(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[str, str]]]:
    """Return a function that runs sample.py in this process and returns (stdout, stderr)."""

    def call(*flags: str, stdin: bytes = b"", name: str = "char") -> tuple[str, str]:
        """Run sample.py with these flags and this standard input, on the run `name`."""
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        which = [] if "--checkpoint" in flags else ["--run", name]
        sample.main(["--out_dir", str(out), *which, *flags])
        return capsys.readouterr()

    yield call


def expected(
    path: Path, prompt: str, n: int, number: int = 0, seed: int = 1337, s: Sampling = DEFAULT
) -> str:
    """Return a sample's text as `generate` writes it from the model itself, without any end."""
    loaded = checkpoint.load(path)
    gpt, tokenizer = loaded.model(), loaded.tokenizer
    steps = generate(
        gpt,
        lambda rows: KVCache(gpt.config, rows, BLOCK),
        [[tokenizer.end_of_text, *tokenizer.encode(prompt)]],
        s,
        n_vocab=tokenizer.n_vocab,
        max_new_tokens=n,
        seed=seed,
        samples=[number],
    )
    return prompt + tokenizer.decode(token.id for [token] in steps if token is not None)


def until_end(text: str) -> str:
    """Return the text before the end-of-text token."""
    return text.split("<|endoftext|>")[0]


# --- the text ---


def test_the_text_is_the_prompt_and_the_tokens_of_generate(out: Path, run: Any) -> None:
    """By default the best checkpoint writes; a line on standard error names it."""
    text, notes = run("--prompt", "the cat", "--max_new_tokens", "20")
    assert text == until_end(expected(out / "char/step-000001", "the cat", 20)) + "\n"
    notes = re.sub(r"compiled cpu\.c in .*\n", "", notes)  # by whichever test is the first
    assert notes == f"{out / 'char/step-000001'}: step 1, validation loss 1.500 nats/token\n"


def test_the_last_checkpoint_writes_if_it_is_named(out: Path, run: Any) -> None:
    """`--checkpoint last` and the checkpoint's own path give the same text."""
    last = out / "char/step-000002"
    text, notes = run("--checkpoint", "last", "--run", "char", "--max-new-tokens=20", "--seed=5")
    assert text == until_end(expected(last, "", 20, seed=5)) + "\n"
    assert "step 2, validation loss 1.750" in notes
    assert run("--checkpoint", str(last), "--max-new-tokens=20", "--seed=5")[0] == text


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_seed_decides_the_text_also_in_fewer_bytes(run: Any, dtype: str) -> None:
    """bfloat16 and int8 write a text of full length, and the same text each time."""
    flags = ("--prompt", "the cat", "--max_new_tokens", "20", "--ignore_end_of_text")
    text, _ = run(*flags, "--dtype", dtype)
    assert len(text.replace(END_OF_TEXT, "E")) == len(run(*flags)[0].replace(END_OF_TEXT, "E"))
    assert run(*flags, "--dtype", dtype)[0] == text


def test_every_setting_reaches_the_draw(out: Path, run: Any) -> None:
    """The flags of `Sampling` give the text that `generate` writes with the same settings."""
    s = Sampling(temperature=1.3, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=1.2)
    flags = [f"--{name}={value}" for name, value in vars(s).items()]
    text, _ = run(*flags, "--max_new_tokens=25", "--ignore_end_of_text", "--seed=8")
    assert text == expected(out / "char/step-000001", "", 25, seed=8, s=s) + "\n"
    assert text != run("--max_new_tokens=25", "--ignore_end_of_text", "--seed=8")[0]


def test_samples_written_together_are_the_samples_written_alone(out: Path, run: Any) -> None:
    """Texts of a batch are those written alone, also with early ends, and Korean in bytes."""
    path = out / "byte/step-000001"
    for flags in ([], ["--stop_strings", "\x00", "e", "9"]):
        text, _ = run("--num_samples=4", "--prompt=밥", "--max_new_tokens=40", *flags, name="byte")
        alone = []
        for number in range(4):
            full = until_end(expected(path, "밥", 40, number))[1:]
            ends = [full.find(stop) for stop in flags[1:] if stop in full]
            alone.append("밥" + full[: min(ends, default=len(full))])
        assert text == f"\n{sample.RULE}\n".join(alone) + "\n"
        assert len({len(text) for text in alone}) > 1


def test_more_samples_than_rows_are_written_in_several_batches(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five samples in batches of two are the five samples of one batch."""
    flags = ("--num_samples=5", "--max_new_tokens=9")
    together, _ = run(*flags)
    rows = []
    batched = engine.generate

    def noting(model: Any, cache: Any, prompts: Any, *args: Any, **kwargs: Any) -> Any:
        """Note the size of the batch, then generate."""
        rows.append(len(prompts))
        return batched(model, cache, prompts, *args, **kwargs)

    monkeypatch.setattr(engine, "generate", noting)
    monkeypatch.setattr(sample, "ROWS", 2)
    assert run(*flags)[0] == together and rows == [2, 2, 1]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that grows by one entry at each step that is computed."""
    taken: list[Any] = []

    def noting(*args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield the steps of `generate`, and note each."""
        for step in generate(*args, **kwargs):
            taken.append(step)
            yield step

    monkeypatch.setattr(engine, "generate", noting)
    return taken


def test_text_is_printed_as_it_is_written(
    run: Any, steps: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After n tokens of a char model, n characters are printed and flushed."""
    lags = []

    class Terminal(io.StringIO):
        def flush(self) -> None:
            lags.append(len(steps) - len(self.getvalue()))

    monkeypatch.setattr(sys, "stdout", Terminal())
    run("--max_new_tokens=15")
    assert lags[:15] == [0] * 15 and len(steps) == 15


def test_text_and_computation_end_at_a_stop_string(run: Any, steps: list[Any]) -> None:
    """No token is computed after a stop string; text that only begins one is printed."""
    free, _ = run("--max_new_tokens=60", "--ignore_end_of_text")
    stop = free[20:24]  # of several tokens: each is a character, or the end of text
    assert stop not in free[:20]
    steps.clear()
    text, _ = run("--max_new_tokens=60", "--ignore_end_of_text", "--stop_strings", "@@", stop)
    assert text == free[:20] + "\n"
    assert len(steps) <= 24
    # The end of this text begins a stop string, and is printed.
    stop = free[-4:-1] + "!"
    assert run("--max_new_tokens=60", "--ignore_end_of_text", "--stop_strings", stop)[0] == free


def test_the_end_of_text_token_ends_the_text_unless_it_is_ignored(run: Any) -> None:
    """With --ignore_end_of_text the text continues, and shows the token."""
    flags = ["--max_new_tokens=300", "--temperature=1.5", "--min_p=0"]
    free, _ = run(*flags, "--ignore_end_of_text")
    assert "<|endoftext|>" in free
    assert run(*flags)[0] == until_end(free) + "\n"


def test_a_text_longer_than_the_context_continues_with_one_note(out: Path, run: Any) -> None:
    """A text beyond the context is that of `generate`, with one note; a text that fits has none."""
    note = f"note: the text is longer than the model's context of {BLOCK} tokens"
    for prompt in ("the cat", TEXT * 30):
        text, notes = run("--prompt", prompt, "--max_new_tokens=80", "--ignore_end_of_text")
        assert text == expected(out / "char/step-000001", prompt, 80) + "\n"
        assert notes.count(note) == 1
    assert note not in run("--prompt", "the cat", "--max_new_tokens=25", "--ignore_end_of_text")[1]


def test_a_prompt_file_begins_the_text(out: Path, run: Any, tmp_path: Path) -> None:
    """The file's text is the prompt, without a byte order mark and carriage returns."""
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"\xef\xbb\xbfthe cat\r\nsat on\n")  # as Windows may save it
    text, _ = run("--prompt_file", str(file), "--max_new_tokens=9")
    assert text == until_end(expected(out / "char/step-000001", "the cat\nsat on\n", 9)) + "\n"
    assert run("--prompt_file=-", "--max_new_tokens=9", stdin=file.read_bytes())[0] == text


@pytest.mark.parametrize(
    ("separator", "between"),
    [
        (None, f"\n{sample.RULE}\n"),
        ("\n", "\n"),
        (r"\n", "\n"),
        ("\n\n", "\n\n"),
        ("---", "\n---\n"),
        (r"\n%\n", "\n%\n"),
        ("<|endoftext|>", "\n<|endoftext|>\n"),
    ],
)
def test_texts_are_joined_as_the_training_text_was(
    out: Path, run: Any, tmp_path: Path, separator: str | None, between: str
) -> None:
    """The separator of the training text stands between samples, on the terminal and in a file."""
    saved = checkpoint.load(out / "char/step-000001")
    state = {"step": 1, "config": {"separator": separator}}
    folder = checkpoint.save(tmp_path / "out", saved.model(), saved.tokenizer, {}, state)
    flags = ["--prompt=the", "--max_new_tokens=9", "--num_samples=3", "--stop_strings=\n"]
    file = tmp_path / "texts.txt"
    text, _ = run(*flags, "--checkpoint", str(folder), "--save", str(file))
    alone = [until_end(expected(folder, "the", 9, n)).split("\n")[0] for n in range(3)]
    assert text == between.join(alone) + "\n"
    assert file.read_text() == (between if separator else "\n\n").join(alone) + "\n"


def test_without_a_prompt_a_text_continues_the_opening(out: Path, run: Any, tmp_path: Path) -> None:
    """The opening of the training text is read and not shown; a prompt replaces it."""
    saved = checkpoint.load(out / "char/step-000001")
    tokenizer = Tokenizer("char", saved.tokenizer.tokens, bare=True)
    state = {"step": 1, "opening": "\n"}
    folder = checkpoint.save(tmp_path / "out", saved.model(), tokenizer, {}, state)
    flags = ["--max_new_tokens=9", "--ignore_end_of_text", "--checkpoint", str(folder)]
    assert run("--prompt=\n", *flags)[0] == "\n" + run(*flags)[0]
    assert "after '\\n'\n" in run(*flags, "--show_probs")[0]
    assert run("--prompt=the", *flags)[0].startswith("the")


def test_a_conversation_continues_each_line(out: Path, run: Any) -> None:
    """Each turn has its own random numbers; a line with unknown characters ends nothing."""
    lines = "the cat\nthe cat\nsat 日 on\n밥\n\nmat\n".encode()
    text, notes = run("--interactive", "--max_new_tokens=20", stdin=lines)
    path, turns = out / "char/step-000001", ((0, "the cat"), (1, "the cat"), (3, "밥"))
    texts = [until_end(expected(path, line, 20, number)) + "\n" for number, line in turns]
    assert text == "".join(texts)
    assert texts[0] != texts[1]
    assert "error: not among" in notes and "'日'" in notes
    assert run("--interactive", stdin=b"")[0] == ""
    assert "error" in run("--interactive", stdin=b"caf\xe9\n", name="byte")[1]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("at_end", [False, True])
def test_texts_are_printed_in_order_whatever_the_order_in_which_they_end(
    order: tuple[int, ...], at_end: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first unfinished text is printed as it grows, or at its end; the others wait for it."""
    printer = Printer("p", 3, "--\n", at_end=at_end, block_size=8)
    for number in range(3):
        printer.push(number, Piece("a", None, False))
    printer.flush()
    assert capsys.readouterr().out == ("" if at_end else "pa")
    for number in order:
        printer.push(number, Piece("b", None, True), "table\n" if number == 1 else "")
        printer.flush()
    output = "pab\n--\ntable\npab\n--\npab\n" if at_end else "b\n--\npatable\nb\n--\npab\n"
    assert capsys.readouterr().out == output
    assert [text.text for text in printer.texts] == ["pab"] * 3
    assert all(text.ended and text.cut_off for text in printer.texts)


# --- the table ---


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--temperature=2", "--min_p=0"],
        ["--temperature=0"],
        ["--top_k=5", "--top_p=0.9", "--repetition_penalty=1.3"],
    ],
    ids=["default", "wild", "greedy", "filtered"],
)
@pytest.mark.parametrize("name", ["char", "byte"])
def test_the_table_shows_what_each_token_was_drawn_from(
    flags: list[str], name: str, run: Any
) -> None:
    """The shares add up to 100 %, and the arrow points at the part of the line of the drawn token.

    The text after the tables is the text without --show_probs.
    """
    common = [*flags, "--prompt=the 밥", "--max_new_tokens=12", "--ignore_end_of_text"]
    shown, _ = run(*common, "--show_probs", name=name)
    *tables, text = shown.split("\n\n", maxsplit=12)
    assert text == run(*common, name=name)[0]
    assert len(tables) == 12
    for table in tables:
        lines = table.splitlines()
        assert max(map(len, lines)) <= 100
        assert re.match("after ['\"]the 밥", lines[0])
        rows = [line for line in lines[2:] if re.match(r" [a-i.]  ", line)]
        drawn = [row for row in rows if row.endswith("<- drawn")]
        assert len(drawn) == 1 and "cut by" not in drawn[0]
        shares = [re.findall(r"([\d.]+)% ?█*(?: |$)", row) for row in rows]
        assert sum(float(s[0]) for s in shares) == pytest.approx(100, abs=0.6)
        assert sum(float(s[1]) for s in shares if len(s) > 1) == pytest.approx(100, abs=0.6)
        line, arrow = lines[-2], lines[-1]
        mark = line[arrow.index("^")]
        assert drawn[0][1] == mark and arrow.endswith(f"was drawn, so {mark}")
        for row, share in zip(rows, shares, strict=True):
            cells = 0.72 * float(share[1]) if len(share) > 1 else 0  # of 72
            assert abs(line.strip("01 |").count(row[1]) - cells) <= (2 if row[1] != "." else 9)
        u = float(arrow.split("^ ")[1].split()[0])
        assert abs((arrow.index("^") - line.index("|") - 1) / 72 - u) <= 1 / 72
    if flags == []:
        assert "cut by min_p" in shown
    if flags == ["--temperature=0"]:
        assert "100.0%" in shown and "cut by temperature" in shown


def test_columns_are_counted_as_terminals_show_them() -> None:
    """An East Asian character takes two columns."""
    assert explain.fit("'밥'", 6) == "'밥'  "
    assert explain.fit("밥밥밥", 5) == "밥밥 "


def test_half_a_character_is_spelled_as_bytes() -> None:
    """A token that is no text is shown as bytes, and the end-of-text token by its name."""
    tokenizer = train_tokenizer("byte", [])
    assert explain.spelled(0xE2, tokenizer) == r"b'\xe2'"
    assert explain.spelled(10, tokenizer) == r"'\n'"
    assert explain.spelled(tokenizer.end_of_text, tokenizer) == "(end of text)"


# --- errors ---


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "-1"], "temperature is -1.0; give 0"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--top_k", "0"], "top_k is 0; give 1 or more"),
        (["--top_k", "1000"], "top_k is 1000; give at most"),
        (["--num_samples", "0"], "num_samples is 0"),
        (["--max_new_tokens", "-5"], "max_new_tokens is -5"),
        (["--seed", "-1"], "seed is -1"),
        (["--stop_strings", "a", ""], "stop string is empty"),
        (["--prompt", "Łódź"], "'Ł' 'ź'"),
        (["--prompt", "caf\udce9"], "not UTF-8"),
        (["--prompt", "a", "--prompt_file", "b"], "exclude each other"),
        (["--prompt", "a", "--interactive"], "exclude each other"),
        (["--prompt_file", "nowhere.txt"], "cannot read --prompt_file nowhere.txt"),
        (["--run", "nowhere"], "no run 'nowhere'"),
        (["--out_dir", "nowhere", "--run", "char"], "no run 'char'"),
        (["--checkpoint", "nowhere"], "no run 'nowhere'"),
        (["--checkpoint", "nowhere", "--run", "char"], "exclude each other"),
        (["--device", "toaster"], "toaster is not a device"),
        (["--temprature", "1"], "unknown flag --temprature; did you mean --temperature?"),
    ],
)
def test_a_user_s_error_is_one_line(
    flags: list[str], message: str, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong value is one line that names the flag or the reason, and no text is written."""
    with pytest.raises(UserError) as error:
        run(*flags)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_a_damaged_checkpoint_is_refused(out: Path, run: Any, tmp_path: Path) -> None:
    """One changed byte of the weights is found by their hash."""
    for file in (out / "byte/step-000001").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="damaged"):
        run("--checkpoint", str(tmp_path))


def test_a_prompt_that_is_not_utf8_is_refused(run: Any) -> None:
    """Standard input in another encoding is an error, and not a prompt of other characters."""
    with pytest.raises(UserError, match="not UTF-8"):
        run("--prompt_file=-", stdin=b"caf\xe9")


@dataclass(frozen=True)
class Flags:
    """Flags for tests."""

    # --- a heading, which is no help text ---
    out_dir: Path = Path("out")  # where things are
    n_layer: int = 4
    rate: float | None = None  # how fast
    data: tuple[str, ...] = ("tales",)
    sizes: tuple[int, ...] = ()
    kind: Literal["bpe", "char"] = "bpe"
    compile: bool = True


def test_flags_become_the_fields_of_the_dataclass() -> None:
    """Each flag sets its field, in any spelling; the other fields keep their defaults."""
    assert parse(Flags, []) == Flags()
    given = ["--out-dir", "a b", "--n_layer=7", "--rate", "1e-3", "--no_compile", "--kind", "char"]
    assert parse(Flags, [*given, "--data", "x", "y", "--sizes", "1", "2"]) == Flags(
        Path("a b"), 7, 0.001, ("x", "y"), (1, 2), "char", False
    )
    assert parse(Flags, ["--rate", "-2"]).rate == -2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n-layers", "3"], "unknown flag --n-layers; did you mean --n_layer?"),
        (["--nlayer=3"], "unknown flag --nlayer=3; did you mean --n_layer?"),
        (["--xyz"], "unknown flag --xyz; --help lists all flags"),
        (["-k"], "unknown flag -k; "),
        (["\u2013n_layer=3"], "unknown flag \u2013n_layer=3; did you mean --n_layer?"),
        (["file.txt"], "'file.txt' belongs to no flag"),
        (["--compile=False"], "'False' belongs to no flag; a switch takes no value"),
        (["--n_layer", "3.5"], "--n_layer: '3.5' is not a whole number; --help"),
        (["--rate", "fast"], "--rate: 'fast' is not a number; --help"),
        (["--rate"], "--rate has no value; give one"),
        (["--kind", "word"], "--kind: 'word' is not one of bpe, char; --help"),
        (["--sizes", "1", "x"], "--sizes: "),
    ],
)
def test_a_wrong_flag_is_one_line_that_helps(flags: list[str], message: str) -> None:
    """The line names the flag, and the nearest flag that exists or the kind of value."""
    with pytest.raises(UserError) as error:
        parse(Flags, flags)
    assert str(error.value).startswith(message)
    assert not re.search(r"[\n│╭─]", str(error.value))


def test_a_wrong_flag_is_one_line_where_output_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame that tyro draws around an error, in other characters, is removed there too."""
    for encoding in ("ascii", "utf-8"):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
        with pytest.raises(UserError, match=r"^--n_layer: '3.5' is not a whole number; --help"):
            parse(Flags, ["--n_layer", "3.5"])
        with pytest.raises(UserError, match=r"^temperature is -1\.0; give 0 "):
            parse(sample.SampleConfig, ["--temperature=-1"])


def test_words_without_a_flag_are_one_field() -> None:
    """The words are the items of a tuple, or a text with one space between them."""
    assert parse(Flags, ["a b", "c", "--n_layer", "7"], words="data").data == ("a b", "c")
    assert parse(Flags, ["a", "--n_layer", "7", "c"], words="data") == Flags(
        data=("a", "c"), n_layer=7
    )
    assert parse(sample.SampleConfig, ["hello", "there"], words="prompt").prompt == "hello there"
    given = ["hello  there,", "--seed=1", "true", "\u2014 love"]
    config = parse(sample.SampleConfig, given, words="prompt")
    assert (config.prompt, config.seed) == ("hello  there, true \u2014 love", 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["x", "--data", "y"], "'x' has no flag, which means --data, but --data is given too"),
        (["x", "--data=y"], "'x' has no flag, which means --data, but --data is given too"),
        (["x", "--compile", "True"], "'True' belongs to no flag; a switch takes no value"),
        (["--no-compile=false"], "'false' belongs to no flag; a switch takes no value"),
        (["x", "--n-layers", "3"], "unknown flag --n-layers; did you mean --n_layer?"),
        (["-5 degrees"], "unknown flag -5 degrees; for a value that begins with -, give --data="),
        (["\u2014n_layer", "3"], "unknown flag \u2014n_layer; did you mean --n_layer?"),
    ],
)
def test_a_mistyped_flag_is_not_a_word(flags: list[str], message: str) -> None:
    """The value of a switch, and words beside the flag that they stand for, are errors too."""
    with pytest.raises(UserError) as error:
        parse(Flags, flags, words="data")
    assert str(error.value).startswith(message)


def test_words_without_a_flag_are_the_prompt(run: Any) -> None:
    """sample.py takes them for --prompt, once."""
    given = run("--prompt", "the cat", "--max_new_tokens", "5")
    assert run("the", "cat", "--max_new_tokens", "5") == given
    assert run("the cat", "--max_new_tokens", "5") == given
    with pytest.raises(UserError, match="exclude each other"):
        run("the cat", "--interactive")


def test_words_without_a_flag_are_the_data() -> None:
    """train.py takes them for --data; --help of both commands names the flag."""
    for main, flag in ((sample.main, "--prompt"), (train.main, "--data")):
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as output:
            main(["--help"])
        assert f"Words without a flag mean {flag}." in output.getvalue()
    for words in (["nowhere.txt"], ["--minutes", "2", "3"], ["--fsdp", "no.txt", "no.md"]):
        with pytest.raises(UserError, match="no such file or corpus"):
            train.main([*words, "--device", "cpu"])


def test_flags_of_a_dataclass_inside_have_no_prefix() -> None:
    """The settings of `Sampling` are flags of sample.py under their own names."""
    config = parse(sample.SampleConfig, ["--top_k", "5", "--min_p=0.2", "--seed=3"])
    assert config.sampling == Sampling(top_k=5, min_p=0.2) and config.seed == 3
    assert parse(sample.SampleConfig, []).sampling == Sampling() == DEFAULT
    with pytest.raises(UserError, match=r"^temperature is -1\.0; give 0 "):
        parse(sample.SampleConfig, ["--temperature=-1"])
    with pytest.raises(UserError, match=r"did you mean --repetition_penalty\?"):
        parse(sample.SampleConfig, ["--repetition_penalti=2"])


def test_help_shows_the_comments_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Each field's comment and default is its help; headings are left out."""
    with pytest.raises(SystemExit) as stop:
        parse(Flags, ["--help"])
    assert stop.value.code in (None, 0)
    text = capsys.readouterr().out
    assert "Flags for tests." in text
    assert re.search(r"--out_dir PATH +where things are \(default: out\)", text)
    assert re.search(r"--rate FLOAT +how fast \(default: none\)", text)
    assert "a heading, which is no help text:" in text
    assert "--version prints the version." in text and "Words" not in text


# --- in processes of their own ---


def start(out: Path, *flags: str) -> subprocess.Popen[bytes]:
    """Start sample.py in a process whose encoding is ASCII."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "--out_dir", str(out), *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_at_a_terminal_a_line_can_be_edited_and_called_back(out: Path) -> None:
    """A hint says how to end; Ctrl-A and the arrow keys work; an empty line ends the program."""
    pytest.importorskip("readline")
    import pty

    our_end, child_end = pty.openpty()
    flags = ["--run=char", "--interactive", "--max_new_tokens=3", "--seed=2"]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--out_dir", str(out), *flags],
        stdin=child_end, stdout=child_end, stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "vt100", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    os.close(child_end)
    try:
        assert process.stderr is not None
        read_up_to(process.stderr, b"an empty line ends all.\n")
        with os.fdopen(our_end, "r+b", buffering=0) as terminal:
            read_up_to(terminal, b"> ")
            terminal.write(b" cat\x01the\r")  # Ctrl-A: to the beginning of the line
            read_up_to(terminal, b"\nthe cat")
            read_up_to(terminal, b"> ")
            terminal.write(b"\x1b[A\r")  # arrow up: the line before
            read_up_to(terminal, b"\nthe cat")
            read_up_to(terminal, b"> ")
            terminal.write(b"\r")
            assert process.wait(timeout=100) == 0
    finally:
        process.kill()
        process.wait()


def read_up_to(stream: IO[bytes], end: bytes) -> None:
    """Read from the stream until these bytes have come."""
    data = b""
    while not data.endswith(end):
        byte = stream.read(1)
        assert byte, f"the stream ended after {data!r}"
        data += byte


needs_signals = pytest.mark.skipif(os.name != "posix", reason="signals")
ENDLESS = ["--run=byte", "--max_new_tokens=1000000", "--ignore_end_of_text"]


@pytest.fixture
def processes(out: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts sample.py; end the processes after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*flags: str) -> subprocess.Popen[bytes]:
        """Start sample.py with these flags."""
        started.append(start(out, *flags))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_the_output_is_utf8_whatever_the_terminal_s_encoding(out: Path, processes: Any) -> None:
    """Korean samples arrive in UTF-8, with one line on standard error and exit code 0."""
    process = processes("--run=byte", "--max_new_tokens=20", "--prompt=밥", "--num_samples=2")
    text, notes = process.communicate(timeout=100)
    path = out / "byte/step-000001"
    texts = [until_end(expected(path, "밥", 20, number)) for number in range(2)]
    assert text.decode("utf-8") == f"\n{sample.RULE}\n".join(texts) + "\n"
    lines = [line for line in notes.splitlines() if b"C compiler" not in line]
    assert len(lines) == 1 and process.returncode == 0


def test_an_error_of_the_command_is_one_line_and_exit_code_2(processes: Any) -> None:
    """The line of an error is on standard error, and standard output stays empty."""
    process = processes("--run=char", "--prompt=日")
    text, notes = process.communicate(timeout=100)
    assert (process.returncode, text) == (2, b"")
    assert notes.startswith(b"error: not among the ") and notes.count(b"\n") == 1


@needs_signals
def test_ctrl_c_ends_the_command_without_a_traceback(processes: Any) -> None:
    """After Ctrl-C the exit code is 130, as of any command that SIGINT has ended."""
    process = processes(*ENDLESS)
    assert len(process.stdout.read(100)) == 100
    process.send_signal(signal.SIGINT)
    _, notes = process.communicate(timeout=100)
    assert process.returncode == 130 and b"Traceback" not in notes


@needs_signals
def test_ctrl_c_ends_one_text_of_a_conversation_and_head_ends_it_all(processes: Any) -> None:
    """After each Ctrl-C the next line is continued; a closed pipe ends the command quietly."""
    process = processes(*ENDLESS, "--interactive")
    for line in (b"the first line", b"the second line"):
        process.stdin.write(line + b"\n")
        process.stdin.flush()
        read_up_to(process.stdout, line)
        assert len(process.stdout.read(50)) == 50
        process.send_signal(signal.SIGINT)
    process.stdin.write(b"the last line\n")
    process.stdin.flush()
    read_up_to(process.stdout, b"the last line")
    process.stdout.close()  # as head does
    assert process.wait(timeout=100) == -signal.SIGPIPE
    assert b"Traceback" not in process.stderr.read()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(out: Path) -> None:
    """A standard output on a full disk gives exit code 2 and no traceback."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, sample.__file__, "--out_dir", str(out), "--max_new_tokens=5"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: cannot write the output: ")
