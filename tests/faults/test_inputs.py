"""Each text, prompt or flag, however odd, gives a result or an error of one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs import Flags

from minigen import corpora
from minigen.data import prepare
from minigen.errors import UserError

slow = pytest.mark.slow
LINES = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")) | st.text("ab \n")
PARTS = st.one_of(
    LINES.map(str.encode),
    st.binary(max_size=60),
    st.sampled_from(
        [b"\xef\xbb\xbf", b"\r\n", b"\r", b"\0", b"\xff", b"\xed\xa0\x80", b"a" * 3000]
    ),
    st.sampled_from([" \n" * 700, "한국어 🙂🇰🇷 e\u0301", "<|endoftext|>", "\u2028\x85"]).map(
        str.encode
    ),
)


@pytest.mark.parametrize("n", [100, pytest.param(200, marks=slow)])
def test_any_text_is_tokenised_without_loss_or_refused(n: int, tmp_path: Path) -> None:
    """Random bytes are an error of one line, or decode(encode(text)) is the text."""
    results: list[bool] = []

    @settings(max_examples=n, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(PARTS, max_size=20), st.sampled_from(["char", "byte", "bpe"]))
    def draw(parts: list[bytes], kind: str) -> None:
        path = tmp_path / "text.txt"
        path.write_bytes(b"".join(parts))
        try:
            corpus = corpora.find([str(path)], tmp_path)
            tokenizer, train, val = prepare(corpus, None, kind, 270, tmp_path / "cache")
        except UserError as error:
            assert str(error).isprintable()
            results.append(False)
            return
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        assert tokenizer.decode(tokenizer.encode(text)) == text
        ids = [int(i) for t in (train, val) for i in t.read(0, t.n_tokens)]
        assert tokenizer.decode(i for i in ids if i != tokenizer.end_of_text) == text
        results.append(True)

    draw()
    assert len(results) >= n and len(results) / 9 < sum(results) < len(results)


def assert_refused(server: Server, argv: list[str]) -> None:
    """Assert that training with these flags ends with one line, after a note at most."""
    code, output = server.run("train", argv)
    lines = output.splitlines()
    assert code == 2 and lines[-1].startswith("error: ") and "Traceback" not in output, output
    assert len(lines) == 1 or "has only" in lines[-1], output


@pytest.mark.parametrize(
    "content",
    [b"", b"a", b"ab\n", b"\0" * 99, b"\xff\xfe" * 999, b"ok" * 99 + b"\x80", b"\r\n"],
    ids=["empty", "one character", "one line", "NULs", "UTF-16", "broken UTF-8", "a newline"],
)
def test_an_unusable_text_is_refused(
    content: bytes, server: Server, flags: Flags, text: Path
) -> None:
    """A text that is too short, binary or not UTF-8 is an error of one line before step 1."""
    text.write_bytes(content)
    assert_refused(server, flags("run"))


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, lambda p: p.symlink_to(p), lambda p: p.symlink_to("/dev/zero")],
    ids=["a pipe", "an empty folder", "a loop", "a device"],
)
def test_a_path_that_is_not_a_file_is_refused(
    make: Callable[[Path], None], server: Server, flags: Flags, text: Path
) -> None:
    """A path that would block, never end or hold nothing is an error of one line."""
    text.unlink()
    make(text)
    assert_refused(server, flags("run"))


def test_a_text_from_windows_trains(server: Server, flags: Flags, text: Path) -> None:
    """A byte-order mark and ends of lines with a carriage return are read as text."""
    text.write_bytes("\ufeffOne line.\r\nAnd another one.\r\n".encode() * 200)
    assert server.run("train", flags("run", "--max_steps 2"))[0] == 0


@slow
def test_a_line_of_100_mb_trains(server: Server, flags: Flags, text: Path) -> None:
    """A text of one line of 102 MB trains within four minutes."""
    text.write_bytes(b"a long line " * 8_500_000)
    trial = server.start("train", flags("run", "--max_steps 2"))
    assert trial.wait(240) == 0, trial.output()


NUMBERS = st.one_of(
    st.integers(-3, 300), st.integers(), st.floats(), st.floats(0, 2),
    st.sampled_from(["", "x", "1e999", "-0", "nan", "0x10", "٣", "1_0", " 1", "½"]),
).map(str)  # fmt: skip
PROMPTS = st.one_of(
    st.text(max_size=50),
    st.sampled_from(["", "한", "🇰🇷", "a\0b", "\udcff", "\ud800x", "x" * 3000, "\x1b[31m"]),
)
NUMERIC = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "num_samples")
ARGUMENTS = st.tuples(
    st.dictionaries(st.sampled_from(NUMERIC), NUMBERS, max_size=4),
    st.dictionaries(
        st.sampled_from(["prompt", "stop_strings", "checkpoint", "run"]), PROMPTS, max_size=2
    ),
    st.sampled_from(
        [[], ["--show_probs"], ["--ignore_end_of_text"], ["--dtype", "int8"], ["--nope"]]
    ),
)


@pytest.mark.parametrize("n", [100, pytest.param(500, marks=slow)])
def test_any_flags_of_sample_give_a_text_or_an_error(
    n: int, server: Server, flags: Flags, tmp_path: Path
) -> None:
    """Random flags and prompts give a text or an error of one line, and never a traceback."""
    assert server.run("train", flags("run", "--max_steps 3"))[0] == 0
    drawn: list[list[str]] = []

    @settings(max_examples=n, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(ARGUMENTS)
    def draw(arguments: tuple[dict[str, str], dict[str, str], list[str]]) -> None:
        numbers, words, switches = arguments
        if "num_samples" in numbers and len(numbers["num_samples"]) > 3:
            numbers["num_samples"] = "2"  # not a billion
        pairs = [f"--{name}={value}" for name, value in (numbers | words).items()]
        drawn.append(
            ["--out_dir", str(tmp_path / "out"), "--max_new_tokens", "4", *pairs, *switches]
        )

    draw()
    results = []
    for i in range(0, n, 50):
        trial = server.start("samples", [json.dumps(argv) for argv in drawn[i : i + 50]])
        assert trial.wait(120) == 0
        results += [
            json.loads(line) for line in trial.output().splitlines() if line[:9] == '{"text": '
        ]
    assert len(results) == n
    for argv, result in zip(drawn, results, strict=False):
        assert not result["bug"], (argv, result)
        assert "\n" not in result["user_error"], (argv, result)
        assert result["user_error"] or result["text"].endswith("\n"), (argv, result)
    assert n / 10 < sum(not result["user_error"] for result in results) < n


def test_any_prompt_is_continued_or_refused(server: Server, flags: Flags, tmp_path: Path) -> None:
    """With each tokenizer a prompt of any characters and length gives a text or one line."""
    prompts = [
        "",
        "the sun",
        "한국어",
        "🇰🇷🙂",
        "\ud83d",
        "\udcff",
        "a\0b",
        "word " * 200_000,
        "\r\n",
    ]
    for kind in ("char", "byte", "bpe"):
        assert server.run("train", flags(kind, f"--max_steps 3 --tokenizer {kind}"))[0] == 0
        where = ["--out_dir", str(tmp_path / "out"), "--run", kind, "--max_new_tokens", "8"]
        written = []
        for prompt in prompts:
            path = tmp_path / "prompt.txt"
            path.write_bytes(prompt.encode("utf-8", "surrogatepass"))
            flags_json = json.dumps([*where, "--prompt_file", str(path)])
            trial = server.start("samples", [flags_json])
            assert trial.wait(60) == 0
            (line,) = (ln for ln in trial.output().splitlines() if ln[:9] == '{"text": ')
            result = json.loads(line)
            assert not result["bug"] and "\n" not in result["user_error"], (
                kind,
                prompt[:9],
                result,
            )
            written.append(not result["user_error"])
        assert written[:2] == [True, True] and written[2] == (kind != "char")
