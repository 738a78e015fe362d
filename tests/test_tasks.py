"""Tasks: the checker works out each answer, no prompt is in two splits, and a model is scored."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest

from minigen import corpora
from minigen.corpora import command, tales, tasks
from minigen.corpora.tasks.check import QUESTIONS
from minigen.corpora.tasks.tables import STEPS, WORDS
from minigen.data import are_pairs, prepare_pairs
from minigen.errors import UserError
from minigen.evaluation.answers import AnswerMetrics, check, rows
from minigen.tokenizer import train_tokenizer


def drawn(n: int, split: str = "train", seed: int = 0) -> list[tasks.Example]:
    """Return the first `n` examples of a split."""
    return list(itertools.islice(tasks.documents(seed, split), n))


@pytest.fixture(scope="module")
def sample() -> list[tasks.Example]:
    """Return examples of all splits."""
    return [one for split in tasks.SPLITS for one in drawn(1500, split)]


# ---- the checker ----


def test_the_checker_finds_the_answer_that_was_written(sample: list[tasks.Example]) -> None:
    """It accepts each answer, knows its kind, and counts the right answers, all equally probable.

    The checker reads the prompt alone, and shares no code with the generator.
    """
    for one in sample:
        assert tasks.check_answer(one.prompt, one.completion) is None
        assert tasks.kind_of(one.prompt) == one.kind
        answers = tasks.right_answers(one.prompt)
        assert one.completion.removeprefix(" ") in answers
        assert one.bits == math.log2(len(answers))


def test_a_changed_answer_is_wrong(sample: list[tasks.Example]) -> None:
    """A word that is left out, added, replaced or spelt wrongly makes any answer wrong."""
    rng = random.Random(0)
    for one in sample[::3]:
        words = one.completion.split()
        place = rng.randrange(len(words))
        before, word, after = words[:place], words[place], words[place + 1 :]
        other = rng.choice([w for w in WORDS if w not in one.prompt])
        changed = [[*before, other, *after], [*words, other], [*before, f"{word}x", *after]]
        # The results of a single step have no part that is a right answer, too.
        if " " not in one.kind and one.kind not in ("hero", "friend", "place"):
            changed.append([*before, *after])
        for wrong in changed:
            reason = tasks.check_answer(one.prompt, " " + " ".join(wrong))
            assert reason is not None and "\n" not in reason, (one, wrong)


@pytest.mark.parametrize(
    ("prompt", "right", "wrong"),
    [
        ("Sir Fox and little Owl sang in the faraway swamp. Who is the hero?",
         ["Sir Fox", "Fox.", " sir  fox"], ["Lady Fox", "Owl", "little Owl", ""]),
        ("Sir Fox and little Owl sang in the faraway swamp. Where are they?",
         ["in the faraway swamp", "the faraway swamp", "Swamp"], ["in the faraway", "desert"]),
        ("Lady Pig has two nuts, and little Owl has five nuts. How many do they have?",
         ["seven", "7"], ["two five", "8", "seventy"]),
        ("nine two five. Sort them.", ["two five nine", "2, 5, 9", "Two, five, nine."],
         ["nine five two", "two five", "2 5 9 10"]),
        ("nine two five. Sort them. Then say the first.", ["two five nine: two", "2"],
         ["two five nine", "nine", "two nine five: two", "two five nine: nine"]),
        ("socks pies nuts. Say any.", ["socks", "pies", "nuts"], ["socks pies", "figs"]),
        ("Sir Fox creeps to the old well. Say it in the past.",
         ["Sir Fox crept to the old well"], ["Sir Fox creeped to the old well", "crept"]),
        ("socks pies. Say them backwards. Then say it as a pirate.",
         ["pies socks: Arr, pies socks, matey!", "Arr, pies socks, matey!"],
         ["pies socks", "pies socks: Arr, socks pies, matey!"]),
    ],
)  # fmt: skip
def test_all_forms_of_a_right_answer_are_right(
    prompt: str, right: list[str], wrong: list[str]
) -> None:
    """A number may be in digits, a name without its title; of two results the last is enough."""
    assert [tasks.check_answer(prompt, answer) for answer in right] == [None] * len(right)
    assert all(tasks.check_answer(prompt, answer) for answer in wrong)


@pytest.mark.parametrize(
    "prompt", ["", "Who?", "socks. Sort them.", "socks nuts. Who is the hero?"]
)
def test_another_prompt_is_refused(prompt: str) -> None:
    """A prompt that is no question of this corpus has no right answer, and is named."""
    with pytest.raises(UserError, match="is no question of the tasks"):
        tasks.check_answer(prompt, "socks")


def test_generator_and_checker_know_the_same_questions() -> None:
    """Each step has one question."""
    assert {question.lower(): step for step, question in STEPS.items()} == QUESTIONS


# ---- the corpus ----


def test_the_same_seed_gives_the_same_bytes() -> None:
    """The first examples of each split are those of VERSION 2, on every machine."""
    text = "\n".join(one.text for split in tasks.SPLITS for one in drawn(100, split))
    assert tasks.VERSION == 2
    digest = "a60b826b4aec8d4bb7a5742d14a20dd61951d176f4d2a400c7ab870d09df432c"
    assert hashlib.sha256(text.encode("ascii")).hexdigest() == digest


def test_no_prompt_is_in_two_splits() -> None:
    """No seed of validation or held-out text has a prompt of training."""
    prompts = {
        split: {one.prompt for seed in (0, 1) for one in drawn(2000, split, seed)}
        for split in tasks.SPLITS
    }
    assert len(prompts["train"]) > 3800
    assert not prompts["train"] & prompts["val"]
    assert not (prompts["train"] | prompts["val"]) & prompts["held_out"]


def test_held_out_kinds_join_known_steps() -> None:
    """Training has each step of a held-out kind at its place, and never both together."""
    kinds = [kind.partition(" ")[::2] for kind in tasks.TRAINED]
    for kind in tasks.HELD_OUT:
        assert kind not in tasks.TRAINED
        first, _, second = kind.partition(" ")
        assert (first, "") in kinds
        assert {one for one, then in kinds if then == second} - {first}
    for split, known in (("train", tasks.TRAINED), ("val", tasks.TRAINED)):
        assert {one.kind for one in drawn(1500, split)} == set(known)
    assert {one.kind for one in drawn(200, "held_out")} == set(tasks.HELD_OUT)


def test_a_tokenizer_of_the_tales_spells_all_questions(sample: list[tasks.Example]) -> None:
    """A model of the tales, even of single characters, can be taught the tasks."""
    texts = [tale.text for tale in itertools.islice(tales.documents(0), 500)]
    tokenizer = train_tokenizer("char", texts)
    for one in sample[:1000]:
        text = one.prompt + one.completion
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tasks_are_pairs_with_their_floor(tmp_path: Path) -> None:
    """`--data tasks` writes pairs, and their floor is the bits of the answers, by byte."""
    corpus = corpora.find(["tasks"], tmp_path)
    assert corpus.name == "tasks" and are_pairs((*corpus.train, *corpus.val))
    files = {path.name for path in (tmp_path / "tasks").iterdir()}
    assert files == {"train.jsonl", "val.jsonl", "held_out.jsonl", "facts.json"}
    rows = [json.loads(line) for line in corpus.val[0].read_text("ascii").splitlines()]
    bits = sum(math.log2(len(tasks.right_answers(row["prompt"]))) for row in rows)
    n_bytes = sum(len(row["completion"]) for row in rows)
    assert corpus.entropy == pytest.approx(bits / n_bytes, abs=1e-6)
    tokenizer = train_tokenizer("byte", [])
    _, _, val = prepare_pairs(corpus, tokenizer, "", 0, tmp_path / "cache", "answer")
    assert (val.n_examples, val.n_scored_bytes) == (len(rows), n_bytes)


@pytest.mark.parametrize(
    ("data", "val_data", "separator", "complaint"),
    [
        (["tasks", "tales"], (), None, "tales can be combined with"),
        (["tasks,shakespeare"], (), None, "tasks fit no other text"),
        (["tasks"], (), "#", "tasks fit no other text"),
        (["tasks"], ("tales",), None, "has validation text of its own"),
        ([__file__], ("tasks",), None, "--val_data tasks is a corpus to train on"),
    ],
)
def test_tasks_go_with_no_other_text(
    data: list[str], val_data: tuple[str, ...], separator: str | None, complaint: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Pairs and running text are not mixed, and the corpus has its own validation questions."""
    write = tasks.write
    monkeypatch.setattr(tasks, "write", lambda folder: write(folder, 20_000, 5_000, 5_000))
    with pytest.raises(UserError, match=complaint):
        corpora.find(data, tmp_path, separator, val_data=val_data)


def test_the_command_checks_what_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`corpus tasks` prints JSON Lines, and --check names the line with a wrong answer."""
    command.main(["tasks", "--seed", "9", "--count", "4"])
    printed = capsys.readouterr().out
    path = tmp_path / "some.jsonl"
    path.write_text(printed, "ascii")
    command.main(["tasks", "--check", str(path)])
    summary = "4 questions, {} well-formed, {} follow their prompt, {} valid\n"
    assert capsys.readouterr().out == summary.format(4, 4, 4)
    lines = printed.splitlines()
    row = json.loads(lines[1])
    path.write_text("\n".join([lines[0], json.dumps(row | {"completion": " zebra"}), "{}", "?"]))
    command.main(["tasks", "--check", str(path)])
    *complaints, last = capsys.readouterr().out.splitlines(keepends=True)
    assert complaints[0].startswith('question 2: the answer is "zebra", not ')
    assert complaints[1:] == [
        "question 3: the line has no prompt or no completion\n",
        "question 4: the line is not JSON\n",
    ]
    assert last == summary.format(2, 1, 1)


# ---- the score of a model ----


def test_an_answer_without_a_checker_must_be_exact() -> None:
    """The answer to another prompt is that of the file, but for white space around it."""
    assert check("Hi", " Ho ", "Ho\n") == ("exact", None)
    assert check("Hi", "Ha", " Ho") == ("exact", 'the answer is "Ha", not "Ho"')
    assert check("socks nuts. Say the first.", "Socks.", " socks") == ("first", None)


def test_rows_join_the_kinds_with_the_same_second_step() -> None:
    """A table has a row for each kind of one step, and one for each second step."""
    n_asked = Counter({"sort last": 2, "sort": 3, "hero last": 5})
    metrics = AnswerMetrics({"sort last": 1, "sort": 3, "hero last": 0}, dict(n_asked), {})
    assert metrics.share == 0.4
    assert rows(metrics, two_steps=False) == [("sort", 3, 3), ("any, then last", 1, 7)]
    each = [("sort", 3, 3), ("sort, then last", 1, 2), ("hero, then last", 0, 5)]
    assert rows(metrics, two_steps=True) == each
