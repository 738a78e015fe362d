"""minigen.inference.engine: an engine writes the texts of the definition, and of sample.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from models import varied_model

sys.path.insert(0, str(Path(__file__).parents[1]))

import minigen
import sample
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.inference.engine import Engine
from minigen.model import GPT, GPTConfig
from minigen.sampling import PLAIN, Sampling, naive_generate
from minigen.tokenizer import Tokenizer, train_tokenizer

BLOCK = 24
TEXT = "the cat sat on the mat. 나는 밥을 먹는다.\n"


def make_gpt(tokenizer: Tokenizer, seed: int = 0) -> GPT:
    """Return a random model with a padded vocabulary, whose texts vary."""
    return varied_model(GPTConfig.modern(tokenizer.n_vocab + 7, BLOCK, 2, 2, 16), seed)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the run "bpe", of whose two checkpoints the first is the better one."""
    folder = tmp_path_factory.mktemp("engine") / "out"
    tokenizer = train_tokenizer("bpe", [TEXT * 9], vocab_size=280)
    for step in (1, 2):
        state = {"step": step, "val_loss": float(step)}
        checkpoint.save(folder / "bpe", make_gpt(tokenizer, step), tokenizer, {}, state)
    return folder


@pytest.mark.parametrize("sampling", [Sampling(), PLAIN, Sampling(temperature=0)], ids=str)
def test_an_engine_over_a_checkpoint_writes_what_naive_generate_writes(
    out: Path, sampling: Sampling
) -> None:
    """The tokens are equal, for several texts at once and far beyond the context."""
    found = checkpoint.load(out / "bpe/step-000001")
    tokenizer, prompts = found.tokenizer, [[1, 2, 3], [9], [1, 2, 3]]
    engine = minigen.load(out / "bpe", device="cpu")
    steps = engine.generate(prompts, sampling, max_new_tokens=60, end_of_text=(), seed=5)
    rows = [[token.id for token in row if token] for row in zip(*steps, strict=True)]
    facts = {"n_vocab": tokenizer.n_vocab, "block_size": BLOCK, "max_new_tokens": 60, "seed": 5}
    model = found.model()
    assert rows == [
        naive_generate(model, prompt, sampling, **facts, sample=n)
        for n, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("stop", [(), ("at", "밥")])
def test_a_stream_is_the_text_of_sample_py(
    out: Path, stop: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same seed and prompt, a stream is the printed text without the prompt."""
    engine, n_ended = minigen.load(out / "bpe", device="cpu"), 0
    for seed in range(6):
        flags = [f"--seed={seed}", "--max_new_tokens=40", "--prompt=the 밥"]
        flags += ["--stop_strings", *stop] if stop else []
        sample.main(["--out_dir", str(out), "--device=cpu", *flags])
        pieces = [
            *engine.stream("the 밥", max_new_tokens=40, stop_strings=stop, seed=seed),
        ]
        assert "the 밥" + "".join(pieces) + "\n" == capsys.readouterr().out
        assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        n_ended += pieces[-1].token is not None
    assert n_ended or not stop, "no text met a stop string"


def test_texts_streamed_together_are_the_texts_streamed_alone(out: Path) -> None:
    """Texts of a batch have the pieces of a text alone; a text that has ended has None."""
    engine = minigen.load(out / "bpe", device="cpu")
    facts = {"max_new_tokens": 30, "stop_strings": ["a", "\n"], "seed": 3}
    steps = list(engine.stream_many([engine.encode("the")] * 4, Sampling(), **facts))
    for n in range(4):
        together = [step[n] for step in steps if step[n] is not None]
        alone = list(engine.stream("the", Sampling(), **facts, sample=n))
        assert together == alone
        for a, b in zip(together, alone, strict=True):
            assert a is not None and (a.token and a.token.id) == (b.token and b.token.id)
    assert len({sum(step[n] is not None for step in steps) for n in range(4)}) > 1


def test_a_held_back_piece_is_shown_when_the_text_ends(out: Path) -> None:
    """A text that could begin a stop string is complete, whether a token or the limit ends it."""
    engine, ends = minigen.load(out / "bpe", device="cpu"), set[bool]()
    for seed in range(40):
        facts = {"max_new_tokens": 12, "seed": seed}
        *_, last = pieces = list(engine.stream("the", PLAIN, **facts))
        text = "".join(pieces)
        stop = [text[-1:] + "\0"]  # no text has this
        assert "".join(engine.stream("the", PLAIN, **facts, stop_strings=stop)) == text
        ends.add(last.token is None)
    assert ends == {True, False}


def test_a_piece_has_the_probabilities_that_it_was_drawn_from(out: Path) -> None:
    """The probabilities of a piece add up to 1, and its token has one above 0."""
    engine = minigen.load(out / "bpe", device="cpu")
    for piece in engine.stream("the", PLAIN, max_new_tokens=9, end_of_text=()):
        if piece.token:
            p = piece.token.logits.softmax(dim=-1)
            assert p.shape == (engine.n_vocab,) and p.sum().item() == pytest.approx(1)
            assert p[piece.token.id] > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_weights_keep_their_format_until_the_first_token(out: Path, dtype: str) -> None:
    """A loaded model has the weights of its file, to be trained; the first token changes them."""
    engine = minigen.load(out / "bpe", device="cpu", dtype=dtype)
    on_disk = checkpoint.load(out / "bpe/step-000001").model().state_dict()
    stream = engine.stream("the", max_new_tokens=2)
    state = engine.model.state_dict()
    assert engine.backend is None and state.keys() == on_disk.keys()
    assert all(torch.equal(tensor, on_disk[name]) for name, tensor in state.items())
    next(stream)
    assert engine.backend is not None


def test_an_engine_with_the_model_as_backend_writes_with_its_current_weights(out: Path) -> None:
    """A changed model writes another text, and the engine replaces none of its parameters."""
    found = checkpoint.load(out / "bpe/step-000001")
    model, tokenizer = found.model(), found.tokenizer
    engine = Engine(model, tokenizer, backend=model)
    before = list(model.parameters())
    texts = []
    for n in range(2):
        texts.append("".join(engine.stream("the", max_new_tokens=20)))
        expected = Engine(found.model() if n == 0 else make_gpt(tokenizer, 7), tokenizer)
        assert texts[-1] == "".join(expected.stream("the", max_new_tokens=20))
        model.load_state_dict(make_gpt(tokenizer, 7).state_dict())
    assert texts[0] != texts[1] and engine.backend is model
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))


def test_without_a_name_the_best_undamaged_checkpoint_of_the_last_run_is_loaded(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged best checkpoint is reported and passed over; a run that is named is refused."""
    assert minigen.load(out_dir=out).path == out / "bpe/step-000001"
    for step in (1, 2):
        found = checkpoint.load(out / f"bpe/step-{step:06d}")
        checkpoint.save(tmp_path / "run", found.model(), found.tokenizer, {}, found.state)
    weights = tmp_path / "run/step-000001/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert minigen.load(out_dir=tmp_path).path == tmp_path / "run/step-000002"
    assert "is damaged" in capsys.readouterr().err
    with pytest.raises(UserError, match="is damaged"):
        minigen.load(tmp_path / "run")


def test_an_unknown_device_is_refused_when_a_model_is_loaded(out: Path) -> None:
    """An unknown device is an error at the load, and not only at the first token."""
    with pytest.raises(UserError, match="toaster is not a device"):
        minigen.load(out / "bpe", device="toaster")
