"""Judging a model: each fault is told from the others, and the figures are what they say."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import Server
from hypothesis import given
from hypothesis import strategies as st

from minigen.corpora import pictures, tales, task, tunes
from minigen.data import TokenFile, scan, write_tokens
from minigen.errors import UserError
from minigen.evaluation import evaluate
from minigen.evaluation.continuations import (
    Excerpt,
    copying_run,
    entropy,
    excerpts,
    fidelity,
    figures,
)
from minigen.evaluation.evaluate import (
    EvaluateConfig,
    binned,
    judge,
    read,
    single_token_loss,
    verdict,
)
from minigen.evaluation.repetition import (
    LongText,
    distinct,
    drawn_twins,
    loops,
    self_repetition,
    twins,
)
from minigen.inference.engine import Engine, load
from minigen.model import GPT, GPTConfig
from minigen.run.log import Report, memorising
from minigen.tokenizer import train_tokenizer

ROOT = Path(evaluate.__file__).parents[2]


class Narrow(random.Random):
    """Draws from the first quarter of each of the grammar's lists: tales that are soon learnt."""

    def random(self) -> float:
        return super().random() / 4


def documents(n: int, rng: random.Random) -> list[str]:
    return [tales.tale(rng).text for _ in range(n)]


def looped(text: str) -> str:
    """A tale that says its first sentence again and again."""
    line = task.first_lines(text)
    sentence = text.removeprefix(line).split(". ")[0] + ". "
    return line + (6 * sentence)[:600]


def shuffled(texts: list[str]) -> list[str]:
    """Each tale with the first line of another."""
    lines = [task.first_lines(text) for text in texts]
    bodies = [text.removeprefix(line) for text, line in zip(texts, lines, strict=True)]
    random.Random(0).shuffle(lines)
    return [line + body for line, body in zip(lines, bodies, strict=True)]


@pytest.fixture(scope="module")
def project(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, where the real train.py has trained one model of each kind."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "minigen", folder / "minigen")
    shutil.copy(ROOT / "train.py", folder)
    told = documents(1500, Narrow(0))
    kinds = {
        "healthy": (told, 280),
        "collapsed": (list(map(looped, told)), 90),
        "memorising": (documents(8, random.Random(0)) * 5, 140),
        "ignoring": (shuffled(told[:800]), 110),
    }
    files = {name: texts for name, (texts, _) in kinds.items()}
    files |= {"new": documents(60, Narrow(1)), "any": documents(60, random.Random(1))}
    for name, texts in files.items():
        (folder / f"{name}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    flags = ["--size", "tiny", "--vocab_size", "512", "--compile", "no", "--device", "cpu"]
    running = [
        server.start_python(
            "train.py", "--data", f"{name}.txt", "--separator", r"\n\n", *flags,
            "--max_steps", str(steps), "--eval_interval", str(steps), cwd=folder,
        )
        for name, (_, steps) in kinds.items()
    ]  # fmt: skip
    for process in running:
        assert process.wait(240) == 0, process.said()
    return folder


Judge = Callable[..., dict[str, Any]]


@pytest.fixture
def judged(project: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Judge one of the four models by tales that none of them was trained on."""
    monkeypatch.setenv("MINIGEN_DATA", str(project / "data"))
    monkeypatch.chdir(project)

    def of(run: str, **flags: Any) -> dict[str, Any]:
        given = {"file": "new.txt", "count": 40, **flags}
        config = EvaluateConfig(run=run, device="cpu", **given)
        return judge(config, load(run, device="cpu"))

    return of


# ---- the four models ----


def test_a_healthy_model_is_healthy(judged: Judge) -> None:
    found = judged("healthy", file=None)
    assert found["verdict"] == ["healthy"]
    ours, real = found["samples"], found["real"]
    assert ours["obeys"] > 0.7 and real["obeys"] == 1 and ours["obeys_by_chance"] < 0.1
    assert abs(ours["entropy"] - real["entropy"]) < 0.1
    assert found["text"]["loss"] < 1.2 * found["train_loss"]
    assert found["text"]["calibration_error"] < 0.05


def test_a_collapsed_model_is_told_by_its_loops(judged: Judge) -> None:
    found = judged("collapsed")
    assert any(line.startswith("collapsed: ") for line in found["verdict"])
    assert found["samples"]["stuck"] > 0.3 and found["real"]["stuck"] == 0
    assert found["samples"]["self_repetition"] > 0.3 > 0.1 > found["real"]["self_repetition"]


def test_a_memorising_model_is_told_by_what_it_copies(judged: Judge) -> None:
    """Although the text that it holds out for itself, which is in its training text, says no."""
    found = judged("memorising", file="any.txt", count=20)
    assert any(line.startswith("memorising: ") for line in found["verdict"])
    assert found["samples"]["copied_run"] > 0.5 and found["real"]["copied_run"] <= 0.05
    assert found["samples"]["longest_run"] > 4 * found["real"]["longest_run"]


def test_a_model_that_ignores_its_prompt_obeys_it_as_often_as_any_other(judged: Judge) -> None:
    found = judged("ignoring")
    assert len(found["verdict"]) == 1 and found["verdict"][0].startswith("ignores its prompt: ")
    assert found["samples"]["well_formed"] > 0.7 and found["samples"]["obeys"] < 0.15


def test_the_command_tells_people_and_programs(project: Path, server: Server) -> None:
    """A table on stdout, JSON and a PNG in the run's folder, and the loss that training told."""
    command = ("-m", "minigen.evaluation.evaluate", "healthy", "--count", "4", "--seed", "1")
    done = server.python(*command, cwd=project)
    assert done.returncode == 0, done.stderr
    out = done.stdout
    run = project / "out" / "healthy"
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert f"{found['text']['loss']:.4f} nats/token" in out and "real text" in out
    assert out.endswith("\n".join(found["verdict"]) + "\n")
    assert (run / "evaluation.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["final_val_loss"] == pytest.approx(found["text"]["loss"], rel=0.02)


def test_what_cannot_be_judged_is_one_line(
    judged: Judge, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"no run of train.py.*--file FILE"):
        other = load(project / "out" / "healthy")
        judge(EvaluateConfig(count=0), Engine(other.model, other.tokenizer, tmp_path))
    with pytest.raises(UserError, match=r"has no held_out\.txt"):
        judged("healthy", file=None, split="held_out")
    with pytest.raises(UserError, match="exclude each other"):
        judged("healthy", split="held_out")
    with pytest.raises(UserError, match="--count is -1; give 0 or more"):
        evaluate.main(["--count", "-1"])
    shutil.copytree(project / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)  # where its text is not, but the run knows where it was
    assert judged("healthy", file=None, eval_tokens=300, count=2)["train_loss"] is not None
    text = (project / "healthy.txt").rename(project / "away.txt")
    with pytest.raises(UserError, match=r"'healthy.txt'.*give a text to judge on: --file FILE"):
        judged("healthy", file=None)
    text.rename(project / "healthy.txt")
    (tmp_path / "healthy.txt").write_text("another text " * 50, encoding="utf-8")
    with pytest.raises(UserError, match="no longer the text that it was trained on"):
        judged("healthy", file=None)
    found = judged("healthy", file=str(project / "new.txt"), separator=r"\n\n")
    assert "copied_run" not in found["samples"] and found["verdict"] == ["healthy"]


def test_a_picture_of_no_known_kind_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.doc: give a name that ends in .png, .pdf or .svg$"):
        evaluate.main(["--out_dir", str(tmp_path / "none"), "--plot", "x.doc"])


# ---- on a text ----


def test_calibration_compares_what_was_said_with_what_came() -> None:
    """Two predictions of 0.72, 0.28 and 0.0; the first token came once and the last once."""
    p = torch.tensor([[0.72, 0.28, 0.0]] * 2)
    expected, observed, number = binned(p, torch.tensor([0, 2])).tolist()
    assert expected[14] == pytest.approx(1.44) and expected[5] == pytest.approx(0.56)
    assert observed[14] == 1 and observed[5] == 0 and observed[0] == 1
    assert number[14] == number[5] == number[0] == 2 and sum(number) == 6


@given(st.integers(2, 60), st.integers(0, 2**32))
def test_no_probability_is_lost_between_the_bins(n_vocab: int, seed: int) -> None:
    """The same sums as when each probability is put into its bin by itself."""
    g = torch.Generator().manual_seed(seed)
    p = (4 * torch.randn(5, n_vocab, generator=g).double()).softmax(dim=-1)
    targets = torch.randint(n_vocab, (5,), generator=g)
    found = binned(p, targets)
    assert found.sum(dim=1).tolist() == pytest.approx([5, 5, 5 * n_vocab])
    for i in range(evaluate.BINS):
        inside = ((p * evaluate.BINS).long().clamp(max=evaluate.BINS - 1) == i).nonzero().tolist()
        came = sum(int(targets[row]) == id for row, id in inside)
        assert found[:, i].tolist() == pytest.approx(
            [sum(float(p[row, id]) for row, id in inside), came, len(inside)], abs=1e-9
        )


def small(tmp_path: Path, text: str) -> tuple[GPT, TokenFile]:
    """A model of uniform predictions, and a text as bytes."""
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    tokenizer = train_tokenizer("byte", [])
    tokens = write_tokens(scan([tmp_path / "text.txt"], "\n\n"), tokenizer, tmp_path, "text")
    model = GPT(GPTConfig.modern(tokenizer.n_vocab, 32, 1, 2, 16)).eval()
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    return model, tokens


def test_a_model_that_knows_nothing_has_the_loss_ln_v_everywhere(tmp_path: Path) -> None:
    """It is calibrated all the same, and the text's own frequencies are as they are counted."""
    model, tokens = small(tmp_path, "ab" * 100)
    n_vocab = model.config.vocab_size
    found = read(model, tokens, n_vocab)
    assert found.n_tokens == 200 and found.loss == pytest.approx(math.log(n_vocab))
    assert [loss for _, loss in found.by_position] == pytest.approx([math.log(n_vocab)] * 16)
    assert [place for place, _ in found.by_position] == list(range(2, 33, 2))
    assert single_token_loss(tokens, tokens, n_vocab) > math.log(2)  # END_OF_TEXT, too
    assert found.calibration_error == pytest.approx(0, abs=1e-9)
    assert found.calibration == [(pytest.approx(1 / n_vocab), 1 / n_vocab, 200 * n_vocab)]


def test_entropy() -> None:
    assert entropy(torch.zeros(3, 7)).tolist() == pytest.approx([math.log(7)] * 3)
    assert float(entropy(torch.tensor([1e4, 0.0]))) == 0


# ---- excerpts ----


def test_a_document_is_cut_behind_its_first_line_or_tokens(tmp_path: Path) -> None:
    told = documents(3, random.Random(5))
    tokenizer = train_tokenizer("byte", [])
    model, tokens = small(tmp_path, "\n\n".join(["a remnant of a tale.", *told]))
    found = excerpts(tokens, tokenizer, model.config.block_size, 20)
    assert [one.line + one.body for one in found] == told
    for one in found:
        assert one.line.startswith("hero: ") and one.line.endswith("\n")
        assert tokenizer.decode([*one.prompt[1:], *one.rest[:-1]]) == one.line + one.body
        assert one.prompt[0] == one.rest[-1] == tokens.end_of_text

    (tmp_path / "tunes").mkdir()
    tune = next(tunes.tunes(0)).text
    _, tokens = small(tmp_path / "tunes", f"{tune}\n\n{tune}")
    one, _ = excerpts(tokens, tokenizer, 256, 20, n_lines=8)
    assert one.line + one.body == tune and one.line.count("\n") == 8
    assert tokenizer.decode(one.prompt[1:]) == one.line and one.line.endswith("|\n")

    (tmp_path / "more").mkdir()
    model, tokens = small(tmp_path / "more", "short\n\n" + "a longer text " * 9)
    short, *long = excerpts(tokens, tokenizer, block=64, n_new=24)
    assert tokenizer.decode(short.prompt[1:]) + short.body == "short"
    assert {(len(one.prompt), len(one.rest)) for one in long} == {(16, 24)}
    assert all(one.line == "" for one in [short, *long])


def test_chance_is_the_first_line_of_another_document() -> None:
    """A body that fits one line does not fit another; one that fits all obeys all."""
    told = [tales.tale(random.Random(i)).text for i in range(6)]
    texts = [
        Excerpt([0], [0], (line := task.first_lines(text)), text.removeprefix(line))
        for text in told
    ]
    right = {"well_formed": 1, "obeys": 1, "valid": 1, "obeys_by_chance": 0}
    assert fidelity(texts) == fidelity([texts[0], *texts]) == right  # the same line is no other
    turned = [
        Excerpt([0], [0], line.line, body.body)
        for line, body in zip(texts, [*texts[-1:], *texts[:-1]], strict=True)
    ]
    found = fidelity(turned)
    assert found["obeys"] == 0 and found["well_formed"] == 1


def test_a_long_run_is_what_real_text_does_not_share() -> None:
    content = "".join(map(chr, range(33, 127))) * 3
    real = [Excerpt([0], [0], "", content[i : i + 70] + "\n") for i in range(10)]
    assert copying_run(LongText(content.encode()), real) == 120
    assert copying_run(LongText(b"nothing"), real) == 60


# ---- what texts repeat ----


def test_distinct_and_repeated_ngrams() -> None:
    assert distinct(["the cat and the dog", "the cat"], 1) == 4 / 7
    assert distinct(["the cat and the dog", "the cat"], 2) == 4 / 5
    assert distinct(["one", ""], 2) is None and self_repetition(["a b c"]) is None
    assert distinct(["天地天地。"], 1) == 3 / 5 and self_repetition(["天地玄黄天地玄黄"]) == 1 / 5
    assert self_repetition(["a b c d e", "a b c d"]) == 0
    assert self_repetition(["a b c d a b c d", "x"]) == 1 / 5
    assert twins(["a", "b", "a", ""]) == [True, False, True, False]


@given(st.text("ab c", min_size=1, max_size=30), st.integers(1, 60), st.text("abc", max_size=40))
def test_a_text_loops_if_its_end_is_one_piece_again_and_again(
    piece: str, times: int, before: str
) -> None:
    text = before + "!" + piece * times
    tails = [text[-n:] for n in range(48, len(text) + 1)]
    smallest = [next(p for p in range(1, len(t) + 1) if t[p:] == t[:-p]) for t in tails]
    expected = any(len(t) >= 4 * p for t, p in zip(tails, smallest, strict=True))
    assert loops(text) == expected
    if times >= 4 and len(piece) * times >= 48:
        assert expected


def test_a_phrase_of_a_tune_may_come_three_times() -> None:
    phrase = "once upon a time ago"
    assert [loops("well, " + phrase * n) for n in range(2, 6)] == [False, False, True, True]
    assert [loops("x" * n) for n in (47, 48)] == [False, True]


@pytest.mark.parametrize("stream", [tales.tales, pictures.pictures, tunes.tunes])
def test_no_real_document_loops(stream: Callable[[int], Any]) -> None:
    """Not even where it is cut, as a tune in the middle of a phrase that comes again."""
    rng = random.Random(0)
    for _, one in zip(range(300), stream(7), strict=False):
        assert not loops(one.text)
        assert not loops(one.text[: rng.randrange(len(one.text))])


BYTES = st.text("ab", max_size=60).map(str.encode)


@given(BYTES, st.lists(BYTES, max_size=4), st.integers(1, 12))
def test_runs_in_common_are_those_that_a_search_finds(
    content: bytes, texts: list[bytes], length: int
) -> None:
    def has(text: bytes, n: int) -> bool:
        return any(text[i : i + n] in content for i in range(len(text) - n + 1))

    long = LongText(content)
    assert long.has_run(length, texts) == [has(text, length) for text in texts]
    longest = [n for n in range(1, 61) if any(has(text, n) for text in texts)]
    assert long.longest_run(texts) == max(longest, default=0)


def test_a_run_is_found_wherever_it_lies() -> None:
    """Across the borders of the blocks, too."""
    rng = random.Random(0)
    content = rng.randbytes(3 << 18)
    long = LongText(content)
    for place in (0, 1, (1 << 18) - 50, (2 << 18) - 1, len(content) - 100):
        text = rng.randbytes(30) + content[place : place + 100] + rng.randbytes(30)
        assert long.has_run(100, [text]) == [True]
        assert 100 <= long.longest_run([text]) <= 102
    assert long.has_run(20, [rng.randbytes(500)]) == [False]


# ---- warnings in time ----


def test_a_loop_is_said_late_in_training_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path, 0, 10, n_vocab=50, bits_per_byte=0.5, floor=None)
    report.evaluation(2, 3.0, "and so " * 20)
    report.evaluation(8, 2.9, "and so on, as ever, to the end.")
    assert "loop" not in capsys.readouterr().err
    report.evaluation(10, 2.8, "and so " * 20)
    assert "warning: what it writes goes round in a loop" in capsys.readouterr().err


def test_memorising_is_said_when_the_losses_fall_apart() -> None:
    def lines(train: float, val: float) -> list[dict[str, Any]]:
        return [{"step": 1, "train_loss": train}, {"step": 1, "val_loss": val}]

    assert memorising(lines(2.0, 2.9)) is None
    advice = memorising(lines(2.0, 3.0))
    assert advice is not None and "3.000, but 2.000 in training" in advice[1]


# ---- the verdict ----


def test_each_verdict_is_against_real_text() -> None:
    """The same figures are no fault where real text has them, too."""
    text = {"loss": 1.0, "single_tokens": 3.0, "n_tokens": 1000}
    figures = {"stuck": 0.5, "copied_run": 0.5, "well_formed": 0.3, "obeys": 0.2,
               "obeys_by_chance": 0.1}  # fmt: skip
    sound = {"stuck": 0.0, "copied_run": 0.0, "well_formed": 1.0, "obeys": 1.0,
             "obeys_by_chance": 0.0}  # fmt: skip

    def said(samples: dict[str, float], real: dict[str, float], **more: Any) -> list[str]:
        given = {"text": text, "train_loss": 1.0, "run_length": 60, "n_samples": 40,
                 "short": False} | more  # fmt: skip
        return [v.split(":")[0] for v in verdict({**given, "samples": samples, "real": real})]

    assert said(figures, figures) == said(sound, sound) == ["healthy"]
    assert said(figures, sound) == ["collapsed", "memorising"]
    assert said(sound | {"well_formed": 0.3}, sound) == ["undertrained"]
    assert said(sound | {"obeys_by_chance": 0.9}, sound) == ["ignores its prompt"]
    assert said(sound, sound, train_loss=0.6) == ["memorising"]
    little = {**text, "loss": 2.9}
    assert said(sound, sound, text=little, train_loss=2.9) == ["undertrained"]
    assert said(sound | {"well_formed": 0.3}, sound, text=little, train_loss=1.9) == ["memorising"]
    assert said(sound, sound, text=little, train_loss=2.3) == ["memorising"]
    assert said(sound, sound, text={**text, "loss": 2.6}, train_loss=2.1) == ["healthy"]


def test_a_short_document_of_training_is_a_copy_if_new_ones_are_less_probable() -> None:
    """A name that the training list has, too, is no fault where both lists are as probable."""

    def said(**more: Any) -> list[str]:
        text = {"loss": 2.0, "single_tokens": 3.0, "n_tokens": 1000}
        figures = {"stuck": 0.0, "copied_run": None, "loops": None}
        given = {"text": text, "train_loss": 1.9, "run_length": 60, "n_samples": 40, "short": True,
                 "samples": {**figures, "copied_whole": 0.4},
                 "real": {**figures, "copied_whole": 0.0}} | more  # fmt: skip
        return [v.split(":")[0] for v in verdict(given)]

    assert said() == said(short=False, train_loss=1.7) == ["healthy"]
    assert said(train_loss=1.7) == said(train_loss=None) == ["memorising"]
    assert said(train_loss=1.7, n_samples=9) == [
        "no fault in its losses; 9 samples are too few to judge"
    ]


def test_short_documents_are_judged_as_a_whole(tmp_path: Path) -> None:
    """Each is prompted by nothing, a copy is a whole one, and what cannot be counted is None."""
    model, tokens = small(tmp_path, "Ann\n\nBartholomew\n\nAnnika")
    tokenizer = train_tokenizer("byte", [])
    texts = excerpts(tokens, tokenizer, model.config.block_size, 20)
    assert [one.body for one in texts] == ["Ann", "Bartholomew", "Annika"]
    assert all(one.is_document and one.prompt == [tokens.end_of_text] for one in texts)
    training = evaluate.training_text(tokens, tokenizer)
    assert training.content == b"\xffAnn\xffBartholomew\xffAnnika\xff"
    nearly = [replace(texts[0], body="Annik"), texts[1], replace(texts[0], body="Ann", rest=[1])]
    found = figures(nearly, training, 60)
    assert found["copied_whole"] == 1 / 3 and found["identical"] == 0
    for key in ("loops", "self_repetition", "distinct_2", "copied_run"):
        assert found[key] is None
    assert figures(texts[:1], training, 60)["identical"] is None


def test_draws_from_a_list_repeat_as_often_as_chance_says() -> None:
    rng = random.Random(0)
    names = ["a"] * 5 + ["b"] * 3 + list("cdefgh")
    drawn = [rng.choices(names, k=6) for _ in range(4000)]
    counted = sum(sum(twins(texts)) for texts in drawn) / (6 * len(drawn))
    assert drawn_twins([5, 3, 1, 1, 1, 1, 1, 1], 6) == pytest.approx(counted, abs=0.02)


def test_very_little_text_gets_a_loss_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the perplexity is beyond all numbers."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path))
    (tmp_path / "little.txt").write_text("a", encoding="utf-8")
    model, _ = small(tmp_path, "ab")
    loaded = Engine(model, train_tokenizer("byte", []), tmp_path, device="cpu")
    config = EvaluateConfig(file=str(tmp_path / "little.txt"), device="cpu")
    found = judge(config, loaded)
    assert found["verdict"] == ["no verdict: 1 tokens are too few; --file FILE judges on more text"]
    assert "n/a" in evaluate.table(found) and " 0.0%" not in evaluate.table(found)
    evaluate.plot(found, tmp_path / "x.png")
    figures = read(model, small(tmp_path, "ab")[1], model.config.vocab_size)
    monkeypatch.setattr(evaluate, "read", lambda *_: replace(figures, loss=1000.0))
    assert "perplexity inf" in evaluate.table(judge(config, loaded))
