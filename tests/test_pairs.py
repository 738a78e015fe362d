"""Pairs of a prompt and its answer: how they are read, packed, scored and learnt."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digests import trained
from forks import Server
from models import random_model
from small_text import write_text
from steps import stopped_at
from torch.nn import functional as F

import minigen
import train
from minigen import corpora
from minigen.data import Pairs, are_pairs, prepare_pairs
from minigen.data.pair_lines import parts_of, scan_pairs
from minigen.data.pairs import (
    Packing,
    cut,
    encode_example,
    naive_batch,
    pack,
    packed_batch,
    scored,
    write_pairs,
)
from minigen.data.shards import shard_path
from minigen.data.template import ANSWERS, Part, render
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.inference.engine import load
from minigen.loss import NOT_SCORED, next_token_loss
from minigen.model import GPT, GPTConfig
from minigen.run.log import read_metrics, read_samples
from minigen.sampling import Sampling
from minigen.tokenizer import Tokenizer, train_tokenizer
from train import TrainConfig, accumulate_gradients, evaluate

pytestmark = pytest.mark.usefixtures("signals")
ROOT = Path(train.__file__).parent
BYTE = train_tokenizer("byte", [])
END = BYTE.end_of_text
WORDS = ["the", "sun", "and", "a", "moon", "rose", "over", "every", "hill", "while", "children"]
SMALL = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 32 --batch_size 4 --tokenizer byte"
SMALL += " --device cpu --dropout 0.1 --eval_tokens 200 --compile no --dtype float32"


def put(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSON Lines; a string is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def pair(prompt: str, completion: str) -> dict[str, str]:
    """Return a row with a prompt and its completion."""
    return {"prompt": prompt, "completion": completion}


def chat(*contents: str) -> dict[str, Any]:
    """Return a row of messages, of the user and the assistant in turn."""
    roles = ("user", ANSWERS)
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    return {"messages": messages}


def drawn_pairs(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of both forms; of some the prompt, the answer or both are long."""
    rng, rows = random.Random(seed), list[dict[str, Any]]()
    for _ in range(n):
        asked, answer = (" ".join(rng.choices(WORDS, k=rng.choice((1, 2, 2, 3, 9)))) for _ in "ab")
        if rng.random() < 0.7:
            rows.append(pair(asked, " " + answer))
        else:
            rows.append(chat(asked, answer, *(["more", answer[:4]] if rng.random() < 0.5 else [])))
    return rows


@dataclasses.dataclass(frozen=True)
class Files:
    """A corpus of these files."""

    train: tuple[Path, ...]
    val: tuple[Path, ...] = ()
    separator: str | None = None


def prepared(
    folder: Path, rows: list[Any], tokenizer: Tokenizer = BYTE, loss_on: str = "answer"
) -> tuple[Pairs, Pairs]:
    """Return the pairs of rows to train on, and those to validate on."""
    path = put(folder / "pairs.jsonl", rows)
    return prepare_pairs(Files((path,)), tokenizer, "", 0, folder / "cache", loss_on)[1:]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that trains on pairs in this process, and returns the run's folder."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "pairs.jsonl", drawn_pairs(60))

    def run(flags: str, name: str = "run", code: int = 0, small: str = SMALL) -> Path:
        words = f"--data pairs.jsonl --name {name} {small} {flags}"
        assert train.main(words.split()) == code
        return tmp_path / "out" / name

    return run


# ---- a line of a file ----


def test_a_prompt_and_its_completion_are_read_as_they_are() -> None:
    """Nothing is added, stripped or put between them; only line ends become one kind."""
    parts = parts_of({"prompt": " a\r\n", "completion": "\n b ", "id": 3})
    assert parts == [Part(" a\n", False), Part("\n b ", True)]


def test_messages_become_a_text_whose_answers_are_the_contents_of_the_assistant() -> None:
    """Each other message is a line with its role and its content."""
    row = chat("Hi", "Ho\n", "And?", "No")
    row["messages"].insert(0, {"role": "system", "content": "Be brief."})
    asked = "system:\nBe brief.\nuser:\nHi\nassistant:\n"
    again = "user:\nAnd?\nassistant:\n"
    expected = [Part(asked, False), Part("Ho\n", True), Part(again, False), Part("No", True)]
    assert parts_of(row) == expected == render(row["messages"])


GOOD = [pair("a", "b"), chat("a", "b")]


def drawn_bad_line(rng: random.Random) -> str:
    """Return a line that is no pair, because of one fault at a random place."""
    row = json.loads(json.dumps(rng.choice([pair("ask", "tell"), chat("ask", "tell", "on", "go")])))
    values: list[Any] = [None, 3, 0.5, True, [], {}, ["x"], {"text": "x"}, "\ud800", "a\0b"]
    names = [name for name in row if name != "messages"]
    fault = rng.randrange(7)
    if "messages" in row and fault < 6:
        messages, at = row["messages"], rng.randrange(4)
        name = rng.choice(["role", "content"])
        if fault == 0:
            del messages[at][name]
        elif fault == 1:
            messages[at][name] = rng.choice(values)
        elif fault == 2:
            row["messages"] = rng.choice([None, "hi", {}, [], [None], ["hi"], messages[:1], 5])
        elif fault == 3:
            messages[at]["role"] = rng.choice(["User", "bot", "human", "", "tool", "developer"])
        elif fault == 4:
            field = rng.choice(["tool_calls", "weight", "function_call"])
            messages[at][field] = rng.choice([0, [{"id": 1}], {"name": "f"}])
        else:
            messages[rng.choice([1, 3])]["content"] = ""
    elif fault < 3:
        del row[rng.choice(names)]
    elif fault < 6:
        row[rng.choice(names)] = rng.choice(values)
        row.setdefault("completion", "")
    else:
        line = json.dumps(row)
        place = rng.randrange(1, len(line))
        broken = [line[:place], line[:place] + "\x01" + line[place:], f"[{line}]", f"{line} x"]
        broken += ['{"text": "plain"}', "hello", "3", "null", json.dumps({**row, "text": "x"})]
        return rng.choice(broken)
    return json.dumps(row)


def test_200_drawn_lines_that_are_no_pairs_are_refused_by_their_number(
    start: Callable[..., Path], tmp_path: Path
) -> None:
    """Each is an error of one line that names the file and the line, and no run is begun."""
    rng, reasons = random.Random(7), set()
    for _ in range(200):
        rows = [*GOOD, drawn_bad_line(rng), *GOOD]
        path = put(tmp_path / "bad.jsonl", rows)
        with pytest.raises(UserError) as caught:
            train.main(f"--data {path} {SMALL} --max_steps 1".split())
        message = str(caught.value)
        assert message.startswith(f"{path}, line 3 ") and message.isprintable(), rows[2]
        reasons.add(message.partition("line 3 ")[2])
    assert len(reasons) > 20 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair("a", ""), "has an empty completion"),
        ({"prompt": "a", "response": "b"}, "has no field completion"),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": "b"}, "that is no string"),
        ({"messages": [{"role": "user", "content": "a"}]}, "has no message of the assistant"),
        (chat("a", "b", "c"), "ends with a message of the user, not of the assistant"),
        ({**chat("a", "b"), "completion": "b"}, "has messages and a completion"),
        ({**chat("a", "b"), "tools": [{"name": "f"}]}, "has a field tools, which minigen cannot"),
        ({**pair("a", "b"), "text": "c"}, "has a field text in a file of pairs"),
        ("nonsense", "is not JSON"),
    ],
)
def test_a_wrong_line_ends_the_command_with_one_line(
    row: Any, reason: str, server: Server, tmp_path: Path
) -> None:
    """The command line shows no traceback, and its exit code is 2."""
    put(tmp_path / "a.jsonl", [*GOOD, row])
    env = {**os.environ, "MINIGEN_DATA": str(tmp_path / "data")}
    done = server.python(ROOT / "train.py", "--data", "a.jsonl", cwd=tmp_path, env=env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: a.jsonl, line 3 ") and reason in done.stderr


def test_pairs_and_text_are_not_mixed(start: Callable[..., Path], tmp_path: Path) -> None:
    """Files of both kinds, and flags of the other kind, are refused by their names."""
    put(tmp_path / "text.jsonl", [{"text": "some text"}])
    write_text(tmp_path)
    with pytest.raises(UserError, match=r"pairs\.jsonl holds pairs .*, and text\.txt text; "):
        start("--max_steps 1 --data text.txt pairs.jsonl")
    with pytest.raises(UserError, match=r"pairs\.jsonl holds pairs .*, and text\.jsonl text; "):
        start("--max_steps 1 --val_data text.jsonl")
    with pytest.raises(UserError, match=r"--loss_on is for pairs"):
        start("--max_steps 1 --data text.txt --loss_on all")
    put(tmp_path / "both.jsonl", [{**chat("a", "b"), "text": "c"}])
    assert not are_pairs([tmp_path / "both.jsonl"])
    with pytest.raises(UserError, match="line 1 has a prompt and an answer, where a text is read"):
        start("--max_steps 1 --data both.jsonl")


# ---- tokens ----


def test_the_answer_and_its_end_are_scored_and_nothing_else() -> None:
    """The targets are the ids of each answer and END_OF_TEXT, at the place before each of them."""
    example = encode_example([Part("ab", False), Part("cd", True)], BYTE)
    assert scored(example, "answer").x.tolist() == [END, *b"abcd"]
    assert scored(example, "answer").y.tolist() == [-1, -1, *b"cd", END]
    assert scored(example, "all").y.tolist() == [*b"abcd", END]
    example = encode_example(render(chat("a", "b", "c", "d")["messages"]), BYTE)
    between = b"user:\nc\nassistant:\n"
    assert example.ids.tolist() == [
        END, *b"user:\na\nassistant:\nb", END, *between, *b"d", END
    ]  # fmt: skip
    answers = example.ids[example.is_answer].tolist()
    assert answers == [*b"b", END, *b"d", END]


@pytest.mark.parametrize("kind", ["byte", "char", "bpe", "bare"])
def test_a_model_is_asked_with_the_tokens_of_training(kind: str) -> None:
    """An example begins with the ids of its prompt alone, whatever the answer begins with."""
    prompts = ["", " ", "the su", "the sun ", "<|endoftext|>", "a\n"]
    answers = ["n", " moon", "\n\nrain", "s", "<|endoftext|>"]
    texts = [*WORDS * 9, *prompts, *answers]
    tokenizer = train_tokenizer("bpe" if kind == "bare" else kind, [" ".join(texts)], 300)
    tokenizer.bare = kind == "bare"
    for prompt in prompts:
        asked = tokenizer.encode_prompt(prompt, special=False)
        for answer in answers:
            ids, is_answer = encode_example([Part(prompt, False), Part(answer, True)], tokenizer)
            assert ids[: len(asked)].tolist() == asked and not is_answer[: len(asked)].any()
            written = [*tokenizer.encode(answer), tokenizer.end_of_text]
            assert ids[len(asked) :].tolist() == written and is_answer[len(asked) :].all()


def test_a_long_example_loses_the_beginning_of_its_prompt() -> None:
    """The answer stays whole if it fits; a longer one begins after one token, and loses its end."""
    for n_prompt in range(12):
        for n_answer in range(1, 12):
            prompt, answer = "abcdefghijkl"[:n_prompt], "ABCDEFGHIJKL"[:n_answer]
            whole = encode_example([Part(prompt, False), Part(answer, True)], BYTE)
            kept = cut(whole, block_size=6)
            assert kept.is_answer.any() and not kept.is_answer[0]
            if len(whole.ids) <= 7:
                assert kept is whole
            elif n_answer + 1 <= 6:
                assert kept.ids.tolist() == whole.ids[-7:].tolist()
            else:
                first = [END, *prompt.encode()][-1]
                assert kept.ids.tolist() == [first, *answer.encode(), END][:7]


def test_text_after_the_last_answer_takes_no_room_from_it() -> None:
    """A template that ends each answer with a newline keeps the same tokens of a long example."""
    for n_prompt in range(1, 12):
        for n_answer in range(1, 12):
            parts = [Part("abcdefghijkl"[:n_prompt], False), Part("ABCDEFGHIJKL"[:n_answer], True)]
            example = encode_example(parts, BYTE)
            kept = cut(encode_example([*parts, Part("\n\n", False)], BYTE), block_size=6)
            n = min(7, len(example.ids))
            assert kept.ids[:n].tolist() == cut(example, block_size=6).ids.tolist()
            assert len(kept.ids) == min(7, len(example.ids) + 2)


# ---- packing ----


def drawn_lengths(rng: random.Random) -> tuple[np.ndarray[Any, Any], int]:
    """Return the lengths of some examples, and a block size that none exceeds."""
    block_size = rng.choice([1, 2, 7, 16, 100])
    n = rng.choice([1, 2, 5, 40, 300])
    return np.array([rng.randint(1, block_size) for _ in range(n)]), block_size


def test_rows_are_no_longer_than_a_block_and_nearly_full() -> None:
    """No row has more than T tokens, and at most one row is at most half full."""
    rng = random.Random(0)
    for _ in range(200):
        lengths, block_size = drawn_lengths(rng)
        longest_first = -np.sort(-lengths)
        totals = np.bincount(pack(longest_first, block_size), weights=longest_first)
        assert totals.min() >= 1 and totals.max() <= block_size
        assert (2 * totals <= block_size).sum() <= 1


def test_an_epoch_has_each_example_once() -> None:
    """In each epoch of each seed; the rows of two epochs differ, and their number does not."""
    rng = random.Random(1)
    for _ in range(60):
        lengths, block_size = drawn_lengths(rng)
        packing = Packing(lengths, lengths, pack(-np.sort(-lengths), block_size))
        seen = set()
        for seed, epoch in ((0, 0), (0, 1), (5, 2)):
            numbers = range(epoch * packing.n_rows, (epoch + 1) * packing.n_rows)
            rows = [packing.examples(seed, number).tolist() for number in numbers]
            assert sorted(itertools.chain.from_iterable(rows)) == list(range(len(lengths)))
            assert all(lengths[row].sum() <= block_size for row in rows)
            seen.add(str(rows))
        assert len(seen) == 3 or len(lengths) <= 5


def test_the_rows_of_an_epoch_never_change() -> None:
    """A run that resumes with another version of NumPy continues with the same rows."""
    lengths = np.array([3, 1, 4, 1, 5, 2])
    packing = Packing(lengths, lengths, pack(-np.sort(-lengths), 6))
    rows = [packing.examples(1337, number).tolist() for number in range(3, 6)]
    assert rows == [[4, 1], [2, 5], [0, 3]]


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_packed_rows_have_the_gradients_of_single_rows(architecture: str, tmp_path: Path) -> None:
    """Losses and gradients are equal to 1e-6, with learned and with rotary positions."""
    pairs, _ = prepared(tmp_path, drawn_pairs(40))
    packing = pairs.packing(96)
    rows = [
        [pairs.scored(e, 96) for e in packing.examples(3, n).tolist()]
        for n in range(packing.n_rows)
    ]
    alone = naive_batch([one for row in rows for one in row], 96, END)
    packed = packed_batch(rows, 96, END)
    assert len(packed.x) < len(alone.x) / 2
    config = getattr(GPTConfig, architecture)(257, 96, 2, 2, 32)
    model, results = random_model(config, std=0.1).train(), []
    for batch in (alone, packed):
        model.zero_grad()
        n_targets = int((batch.y != NOT_SCORED).sum())
        loss = next_token_loss(model(batch.x, begins=batch.begins), batch.y) / n_targets
        loss.backward()  # type: ignore[no-untyped-call]
        results.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == 1 + len(list(model.parameters()))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[GPT, Pairs, Pairs, TrainConfig]:
    """Return a model, pairs to train on and to validate on, and a configuration."""
    training, validation = prepared(tmp_path, drawn_pairs(80))
    config = TrainConfig(block_size=64, batch_size=12, device="cpu", dtype="float32")
    model = random_model(GPTConfig.modern(257, 64, 1, 2, 16)).train()
    return model, training, validation, config


def mean_loss(model: GPT, rows: list[Any]) -> torch.Tensor:
    """Return the mean loss over all scored targets, one example at a time."""
    losses, n_targets = torch.zeros(()), 0
    for row in rows:
        x, y = torch.from_numpy(row.x)[None], torch.from_numpy(row.y)
        is_scored = y != NOT_SCORED
        losses = losses + F.cross_entropy(model(x)[0, is_scored], y[is_scored], reduction="sum")
        n_targets += int(is_scored.sum())
    return losses / n_targets


def test_micro_batches_of_pairs_add_up_to_the_mean_over_scored_targets(parts: Any) -> None:
    """Loss and gradients are those of the batch's examples, however many micro-batches it has."""
    model, pairs, _, config = parts
    packing, numbers = pairs.packing(64), range(24, 36)
    rows = [pairs.scored(e, 64) for n in numbers for e in packing.examples(config.seed, n).tolist()]
    expected = mean_loss(model, rows)
    expected.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad.clone() for p in model.parameters()]
    for n_micro_batches in (1, 3, 5, 12):
        model.zero_grad()
        loss = accumulate_gradients(model, pairs, config, 2, n_micro_batches)
        torch.testing.assert_close(loss, expected.detach())
        for grad, p in zip(grads, model.parameters(), strict=True):
            torch.testing.assert_close(p.grad, grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_the_number_of_targets_is_known_without_reading_them(tmp_path: Path, loss_on: str) -> None:
    """It is the number of targets of the batch, of cut examples, too."""
    for block_size in (8, 30, 200):
        pairs, _ = prepared(tmp_path, drawn_pairs(60), loss_on=loss_on)
        y = pairs.batch(1, range(9), block_size).y
        assert pairs.n_targets(1, range(9), block_size) == int((y != NOT_SCORED).sum())


def test_the_validation_loss_is_the_mean_over_scored_targets(parts: Any) -> None:
    """Each example to validate on counts once, whole rows or not."""
    model, _, pairs, config = parts
    with torch.no_grad():
        wanted = mean_loss(model, [pairs.scored(e, 64) for e in range(pairs.n_examples)])
    assert evaluate(model, pairs, config, 1) == pytest.approx(float(wanted), rel=1e-5)
    assert evaluate(model, pairs, config, 3) == pytest.approx(float(wanted), rel=1e-5)


def test_an_evaluation_of_all_tokens_reads_all_examples(tmp_path: Path) -> None:
    """A limit counts the tokens of examples, also if half of each row is padding."""
    pairs, _ = prepared(tmp_path, [pair("a" * 20, "b")] * 40)
    assert pairs.packing(32).n_rows == 36
    for limit, n_rows in ((None, 36), (pairs.n_tokens, 36), (1, 1), (22 * 18, 18)):
        batches = list(pairs.validation_batches(32, 5, limit))
        assert sum(len(batch.x) for batch in batches) == n_rows


# ---- on disk ----


def test_the_last_tenth_of_the_pairs_is_held_out(tmp_path: Path) -> None:
    """Pairs are never cut in two; one pair is too few."""
    for n, n_val in ((2, 1), (19, 1), (20, 2), (45, 4)):
        rows = drawn_pairs(n, seed=n)
        training, validation = prepared(tmp_path, rows)
        assert (training.n_examples, validation.n_examples) == (n - n_val, n_val)
        read = [training.example(i) for i in range(n - n_val)]
        read += [validation.example(i) for i in range(n_val)]
        for row, (ids, is_answer) in zip(rows, read, strict=True):
            wanted = encode_example(parts_of(row), BYTE)
            assert ids.tolist() == wanted.ids.tolist()
            assert is_answer.tolist() == wanted.is_answer.tolist()
    with pytest.raises(UserError, match="1 pair is too few"):
        prepared(tmp_path, drawn_pairs(1))


def test_tokens_of_pairs_are_kept_and_made_again_if_they_are_damaged(tmp_path: Path) -> None:
    """A second run reads the same file, and a file that was changed is written anew."""
    first, _ = prepared(tmp_path, drawn_pairs(30))
    file = shard_path(first.path, 0)
    stamp, content = file.stat().st_mtime_ns, file.read_bytes()
    prepared(tmp_path, drawn_pairs(30))
    assert file.stat().st_mtime_ns == stamp
    file.write_bytes(b"\1" + content[1:])
    again, _ = prepared(tmp_path, drawn_pairs(30))
    assert again.path == first.path and file.read_bytes() == content
    assert prepared(tmp_path, drawn_pairs(30, seed=1))[0].path != first.path


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """Tokens of another file than the one that was checked are not kept."""
    path = put(tmp_path / "a.jsonl", GOOD)
    scanned = scan_pairs([path])
    put(path, [*GOOD, *GOOD])
    with pytest.raises(UserError, match=r"a\.jsonl changed while it was read"):
        write_pairs(scanned, BYTE, tmp_path / "cache", "pairs", "answer")
    assert not list((tmp_path / "cache").glob("*.pairs"))


def test_bits_per_byte_are_those_of_the_answers(tmp_path: Path) -> None:
    """With bytes as tokens: a token for each byte of an answer, and one for its end."""
    rows = [pair("abc", "de"), pair("f", "ghij"), pair("", "k")]
    pairs, _ = prepared(tmp_path, [*rows, rows[0]])
    assert pairs.bits_per_byte() == pytest.approx((7 + 3) / 7 / np.log(2))
    pairs, _ = prepared(tmp_path, [*rows, rows[0]], loss_on="all")
    assert pairs.bits_per_byte() == pytest.approx((11 + 3) / 11 / np.log(2))


# ---- runs ----


def test_a_run_on_pairs_resumes_bit_for_bit(start: Callable[..., Path]) -> None:
    """23 steps and 17 after a stop give the bits of 40, with dropout and in several epochs."""
    whole = start("--max_steps 40", "whole")
    with stopped_at(22):
        start("--max_steps 40", "half", code=130)
    assert train.main(["--init_from", "resume", "--name", "half"]) == 0
    assert trained(Path("out/half")) == trained(whole)
    assert trained(start("--max_steps 40 --loss_on all", "all")) != trained(whole)
    with pytest.raises(UserError, match="--loss_on all, but this run was started with answer"):
        train.main(["--init_from", "resume", "--name", "half", "--loss_on", "all"])


def test_a_run_says_how_many_pairs_it_has_and_cuts(
    start: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The lines before the first step count pairs, tokens, scored tokens and those cut off."""
    put(tmp_path / "pairs.jsonl", [pair("abcd", "efg")] * 9 + [pair("a" * 50, "b" * 9)])
    start("--max_steps 2")
    err = capsys.readouterr().err
    assert "training pairs: 9, of 81 tokens, of which 36 are scored; 3 rows of 32 tokens" in err
    assert "validation pairs: 1, of 61 tokens, of which 10 are scored; 1 rows" in err
    assert "1 are longer than --block_size, and lose 28 of their 61 tokens" in err
    assert "bzip2" not in err


def test_a_model_of_a_text_learns_to_answer(
    start: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that continues text gives the answer of each prompt, stops, and shows one meanwhile.

    The table of fine-tuning has the losses on both texts, and the share of right answers, none
    before and all after; an adapter is trained alike.
    """
    write_text(tmp_path)
    base = "--n_layer 2 --n_embd 32 --max_steps 40 --data text.txt --dropout 0"
    start(base, "base")
    answers = {f"{a} {b}:": f" {b} {a}." for a in WORDS[:4] for b in WORDS[4:7]}
    rows = [pair(*item) for item in answers.items()]
    put(tmp_path / "pairs.jsonl", rows)
    put(tmp_path / "val.jsonl", rows[:5])
    flags = "--val_data val.jsonl --init_from out/base --dropout 0 --optimizer muon"
    small = "--device cpu --compile no --dtype float32 --batch_size 4 --eval_tokens 200"
    capsys.readouterr()
    learnt = start(f"{flags} --max_steps 150 --learning_rate 0.01", "learnt", small=small)
    err = capsys.readouterr().err
    engine = load(learnt)
    greedy = Sampling(temperature=0)
    said = {prompt: "".join(engine.stream(prompt, greedy, max_new_tokens=40)) for prompt in answers}
    assert said == answers
    shown = read_samples(learnt)[-1]["text"]  # cut off, as the samples of tests are brief
    [prompt] = [prompt for prompt in answers if shown.startswith(prompt)]
    assert len(shown) > len(prompt) and (prompt + answers[prompt]).startswith(shown)
    last = read_metrics(learnt)[-1]
    assert (last["right_answers_before"], last["right_answers_after"]) == (0, 1)
    logged = {key: line[key] for line in read_metrics(learnt) for key in line}
    losses = re.findall(r"^(?:new|old) text +([0-9.]+) +([0-9.]+)  nats/token", err, re.M)
    first = next(line["val_loss"] for line in read_metrics(learnt) if "val_loss" in line)
    new, old = [tuple(map(float, pair)) for pair in losses]
    assert new == pytest.approx((first, logged["final_val_loss"]), abs=1e-4)
    assert old == pytest.approx((last["old_loss_before"], last["old_loss_after"]), abs=1e-4)
    assert re.search(r"^right answers +0\.0% +100\.0%  of 5 questions$", err, re.M)
    adapter = start(f"{flags} --max_steps 3 --lora_rank 2", "adapter", small=small)
    assert read_metrics(adapter)[-1]["old_loss_before"] == pytest.approx(
        read_metrics(learnt)[-1]["old_loss_before"]
    )


def test_long_answers_are_not_compared_to_the_letter(
    start: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers that most often have more than 50 tokens have no share of right ones."""
    start("--max_steps 2", "base")
    put(tmp_path / "pairs.jsonl", [pair(f"{n}", "abc " * 13) for n in range(20)])
    tuned = start("--max_steps 2 --init_from out/base", small="--device cpu --compile no")
    assert "right_answers_after" not in read_metrics(tuned)[-1]
    assert "right answers" not in capsys.readouterr().err


def test_a_run_on_pairs_is_the_old_text_of_the_next(start: Callable[..., Path]) -> None:
    """A model that learnt pairs is measured on those pairs when it is fine-tuned."""
    start("--max_steps 4", "first")
    second = start("--max_steps 2 --init_from out/first", small="--device cpu --compile no")
    before = read_metrics(second)[-1]["old_loss_before"]
    best = checkpoint.load_best(Path("out/first"))
    corpus = corpora.find(["pairs.jsonl"], Path("data"))
    cache = Path("data/cache")
    _, _, val = prepare_pairs(corpus, best.tokenizer, "", 0, cache, "answer")
    config = TrainConfig(block_size=32, batch_size=8, device="cpu", dtype="float32")
    assert before == pytest.approx(evaluate(best.model(), val, config, 1), rel=1e-5)


def test_a_program_trains_on_pairs(start: Callable[..., Path]) -> None:
    """`minigen.train` gives the weights of the command."""
    wanted = trained(start("--max_steps 5", "command"))
    words = SMALL.replace("--", "").split()
    flags: dict[str, Any] = dict(zip(words[::2], words[1::2], strict=True))
    run = minigen.train("pairs.jsonl", name="program", max_steps=5, **flags)
    assert trained(run.folder) == wanted


def test_two_ranks_take_the_steps_of_one(start: Callable[..., Path], server: Server) -> None:
    """With torchrun, loss and gradient are means over the scored targets of both ranks."""
    flags = "--max_steps 3 --dropout 0 --gradient_accumulation_steps 2"
    alone = start(flags, "alone")
    words = f"--data pairs.jsonl --name ranks {SMALL} {flags}"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = server.python(*launcher, ROOT / "train.py", *words.split(), cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    steps = [
        [line[key] for line in read_metrics(run) if key in line]
        for run in (alone, Path("out/ranks"))
        for key in ("train_loss", "grad_norm")
    ]
    assert len(steps[0]) == 3
    assert steps[:2] == [pytest.approx(values, rel=1e-4) for values in steps[2:]]


@pytest.mark.parametrize(
    "content, way",
    [
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}', "rename it to"),
        ('[{"messages": []},\n {"messages": []}]', "write each item of its list in a line of a"),
    ],
)
def test_pairs_in_a_json_file_are_not_read_as_text(content: str, way: str, tmp_path: Path) -> None:
    """A .json file with pairs is refused by name; one with other things is a text, as before."""
    path = tmp_path / "pairs.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"pairs\.json holds pairs .*; {way} \.jsonl file$"):
        are_pairs([path])
    for other in ('{"name": 1}', "[1, 2]", "[", "", "[[]]", '"prompt"'):
        path.write_text(other)
        assert not are_pairs([path])


def test_a_field_that_a_line_has_twice_is_refused(tmp_path: Path) -> None:
    """Of two fields with one name, neither is taken for the one that is meant."""
    path = tmp_path / "twice.jsonl"
    path.write_text('{"prompt": "a", "prompt": "b", "completion": "c"}')
    with pytest.raises(UserError, match=r"twice\.jsonl, line 1 has a field twice"):
        scan_pairs([path])
