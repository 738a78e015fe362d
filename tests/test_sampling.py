"""minigen.sampling: filters as in transformers, fair draws, and a cache that changes no token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models import architectures, varied_model
from torch import Tensor

from minigen.errors import UserError
from minigen.model import GPT, GPTConfig, KVCache
from minigen.sampling import (
    PLAIN,
    Sampling,
    Token,
    context_length,
    draw,
    filter_steps,
    filtered,
    generate,
    inverse_cdf,
    min_p,
    naive_generate,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
    uniform,
)

N_VOCAB, PADDED, BLOCK = 17, 20, 12


def make_gpt(kind: str) -> GPT:
    """Return a small random model of an architecture, whose vocabulary is padded."""
    return varied_model(architectures(PADDED, BLOCK, n_embd=16)[kind], seed=7)


@pytest.fixture(scope="module", params=["gpt2", "modern"])
def gpt(request: pytest.FixtureRequest) -> GPT:
    """Return a model of each of two architectures."""
    return make_gpt(request.param)


def caches(gpt: GPT) -> Callable[[int], KVCache]:
    """Return a function that makes an empty cache for a number of rows."""
    return lambda rows: KVCache(gpt.config, rows, gpt.config.block_size)


def write(
    gpt: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    n: int,
    seed: int = 3,
    samples: Sequence[int] | None = None,
    end_of_text: int | None = None,
) -> list[list[int]]:
    """Continue the prompts and return the new ids of each row."""
    steps = generate(
        gpt,
        caches(gpt),
        prompts,
        sampling,
        n_vocab=N_VOCAB,
        max_new_tokens=n,
        end_of_text=end_of_text,
        seed=seed,
        samples=samples,
    )
    rows: list[list[int]] = [[] for _ in prompts]
    for step in steps:
        for row, token in zip(rows, step, strict=True):
            if token is not None:
                row.append(token.id)
    return rows


SETTINGS = [
    Sampling(temperature=0),
    PLAIN,
    Sampling(temperature=0.7, top_k=9, top_p=0.95, min_p=0.02, repetition_penalty=1.3),
]

# --- generation ---


@pytest.mark.parametrize("s", SETTINGS, ids=["greedy", "plain", "filtered"])
def test_generate_is_naive_generate(gpt: GPT, s: Sampling) -> None:
    """`generate` draws the tokens of `naive_generate`, for prompts of unequal length in one batch.

    The texts grow to several times the context, so the cache is rebuilt again and again.
    """
    prompts = [[16], [16], [1, 2, 3, 4, 5], list(range(12)), [i * 5 % 17 for i in range(31)]]
    batch = write(gpt, prompts, s, n=32)
    limits = {"n_vocab": N_VOCAB, "block_size": BLOCK, "max_new_tokens": 32, "seed": 3}
    alone = [naive_generate(gpt, prompt, s, **limits, sample=b) for b, prompt in enumerate(prompts)]
    assert batch == alone
    assert (
        len({id for row in batch for id in row}) > 8
    )  # texts that vary, or the test would be too easy


def test_a_sample_is_the_same_in_any_batch(gpt: GPT) -> None:
    """A sample has the same ids alone and among others, which may have its prompt or end early."""
    s, prompt = Sampling(temperature=1.5, min_p=0), [16, 3, 5]
    together = write(gpt, [prompt] * 5, s, n=30, end_of_text=16)
    assert [
        write(gpt, [prompt], s, 30, samples=[i], end_of_text=16)[0] for i in range(5)
    ] == together
    assert len({tuple(row) for row in together}) == 5
    assert len({len(row) for row in together}) > 1, "no row has ended early"
    assert write(gpt, [[4], prompt], s, 30, samples=[9, 2], end_of_text=16)[1] == together[2]


def test_the_seed_decides_the_text(gpt: GPT) -> None:
    """Equal seeds give equal texts, and different seeds give different texts."""
    texts = [write(gpt, [[16]], PLAIN, 20, seed=seed) for seed in (0, 0, 1, 2**64 - 1)]
    assert texts[0] == texts[1]
    assert len({tuple(text[0]) for text in texts}) == 3


def test_a_row_ends_with_its_end_of_text(gpt: GPT) -> None:
    """A row is cut after its first end-of-text token; no other token changes."""
    free = write(gpt, [[16]] * 4, Sampling(temperature=1.5, min_p=0), 40)
    ended = write(gpt, [[16]] * 4, Sampling(temperature=1.5, min_p=0), 40, end_of_text=16)
    for long, short in zip(free, ended, strict=True):
        assert short == (long[: long.index(16) + 1] if 16 in long else long)


def test_a_row_that_has_ended_costs_nothing(gpt: GPT) -> None:
    """The model is called for unfinished rows only; equal prompts are read once."""
    sizes = []

    def model(ids: Tensor, cache: KVCache, at: Tensor) -> Tensor:
        sizes.append(len(ids))
        return gpt.forward(ids, cache, at)

    finished: set[int] = set()
    steps = generate(
        model, caches(gpt), [[1]] * 3, PLAIN, n_vocab=17, max_new_tokens=9, finished=finished
    )
    rows = []
    for n, step in enumerate(steps):
        rows.append([row for row, token in enumerate(step) if token is not None])
        finished.update({1: {1}, 3: {0, 2}}.get(n, set()))  # the caller ends rows, too
    assert rows == [[0, 1, 2]] * 2 + [[0, 2]] * 2
    assert sizes == [1, 3, 2, 2], "equal prompts are read once; ended rows are not computed"


def test_beyond_the_context_the_cache_is_rebuilt_once_in_half_a_block(gpt: GPT) -> None:
    """The model reads the prompt, then one token a step, and half a block after each cut."""
    fed = []

    def model(ids: Tensor, cache: KVCache, at: Tensor) -> Tensor:
        fed.append(ids.shape[1])
        return gpt.forward(ids, cache, at)

    n_truncated = [
        step[0].n_truncated
        for step in generate(model, caches(gpt), [[1, 2, 3]], PLAIN, n_vocab=17, max_new_tokens=18)
        if step[0] is not None
    ]
    assert fed == [3, *[1] * 9, 6, *[1] * 6, 6]
    assert n_truncated == [*[0] * 10, *[7] * 7, 14]


@settings(deadline=None)
@given(n=st.integers(1, 300), block_size=st.integers(1, 40))
def test_context_length_is_that_of_a_context_cut_in_half_when_full(n: int, block_size: int) -> None:
    """`context_length` is the length of a context that grows by tokens and is halved if full."""
    context = 0
    for _ in range(n):
        context = context + 1 if context < block_size else max(1, block_size // 2)
    assert context_length(n, block_size) == context


def test_a_block_of_one_token_works() -> None:
    """A model whose context is one token generates texts."""
    torch.manual_seed(0)
    gpt = GPT(GPTConfig.modern(vocab_size=17, block_size=1, n_layer=1, n_head=1, n_embd=8)).eval()
    assert len(write(gpt, [[1, 2], [3]], PLAIN, 5)[1]) == 5


def test_padding_of_the_vocabulary_is_never_drawn() -> None:
    """An id that only pads the vocabulary is never drawn, even if the model is sure of it."""

    def model(ids: Tensor, cache: KVCache, at: Tensor) -> Tensor:
        return torch.arange(PADDED).float().expand(len(ids), 1, PADDED) * 9

    gpt = make_gpt("modern")
    for s in SETTINGS:
        steps = generate(
            model, caches(gpt), [[0]] * 9, s, n_vocab=N_VOCAB, max_new_tokens=8, seed=1
        )
        tokens = [token for step in steps for token in step if token is not None]
        assert max(token.id for token in tokens) == N_VOCAB - 1
        assert all(len(token.logits) == N_VOCAB for token in tokens)


def test_generation_leaves_the_callers_gradients_alone(gpt: GPT) -> None:
    """Between two tokens the caller's gradients are as before, switched on or off."""
    for [token] in generate(gpt, caches(gpt), [[1]], PLAIN, n_vocab=17, max_new_tokens=3):
        assert token is not None and not token.logits.requires_grad
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert gpt(torch.tensor([[1, 2]])).requires_grad
    with torch.no_grad():
        for _ in generate(gpt, caches(gpt), [[1]], PLAIN, n_vocab=17, max_new_tokens=3):
            assert not torch.is_grad_enabled()


def test_a_token_has_the_numbers_that_led_to_it(gpt: GPT) -> None:
    """A token's filtered logits and its random number give its id; all tokens share one text."""
    s, tokens = SETTINGS[2], list[tuple[Token, list[int]]]()
    text = [16, 2]
    for step in generate(gpt, caches(gpt), [text], s, n_vocab=17, max_new_tokens=9, seed=4):
        token = step[0]
        assert isinstance(token, Token)
        assert token.text == text
        tokens.append((token, text))
        assert token.u == uniform(4, 0, len(text) - 2)
        last = filtered(token.logits[None], [token.text], s)
        assert token.id == inverse_cdf(last[0].softmax(-1), token.u)
        text = [*text, token.id]
    assert all(token.text == text for token, text in tokens), "as long as it is kept"
    assert len({id(token.ids) for token, _ in tokens}) == 1, "no token copies the text"


def test_impossible_requests_are_refused_by_name(gpt: GPT) -> None:
    """A top_k above the vocabulary, a bad seed, an empty prompt and dropout are refused."""
    with pytest.raises(UserError, match="top_k is 18; give at most 17"):
        write(gpt, [[1]], Sampling(top_k=18), 1)
    assert len(write(gpt, [[1]], Sampling(top_k=17), 1)[0]) == 1
    with pytest.raises(UserError, match="seed is -1"):
        write(gpt, [[1]], PLAIN, 1, seed=-1)
    with pytest.raises(ValueError, match="no token"):
        write(gpt, [[1], []], PLAIN, 1)
    with pytest.raises(ValueError, match=r"model\.eval"):
        write(GPT(gpt.config), [[1]], PLAIN, 1)


def test_a_model_that_predicts_nan_is_refused() -> None:
    """A model with a NaN among its weights draws no token."""
    broken = make_gpt("modern")
    with torch.no_grad():
        broken.embedding.weight[0] = math.nan
    with pytest.raises(UserError, match="NaN"):
        write(broken, [[1]], PLAIN, 1)


# --- filters ---


def logits_of(seed: int, ties: bool) -> Tensor:
    """Return (4, 50) float32: usual logits, equal ones, widely spread ones, huge ones."""
    rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(seed))
    rows = (rows * 2).round() if ties else rows
    return rows * torch.tensor([[2.0], [0.0], [40.0], [1e4]])


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", range(5))
def test_each_filter_is_transformers(seed: int, ties: bool) -> None:
    """Each filter gives the bits of transformers'; temperature gives equal probabilities.

    Temperature subtracts the largest logit first, which changes the logits only. Of equal tokens,
    top-p cuts the same number: the sort of transformers leaves open which of them come first.
    """
    from transformers.generation import logits_process as oracle  # here, because it takes a second

    x = logits_of(seed, ties)
    ids: Any = torch.randint(50, (4, 20), generator=torch.Generator().manual_seed(seed))
    for penalty in (0.5, 1.2, 5.0):
        theirs = oracle.RepetitionPenaltyLogitsProcessor(penalty)(ids, x)
        assert torch.equal(repetition_penalty(x, ids.tolist(), penalty), theirs)
    for value in (0.1, 0.8, 3.0):
        theirs = oracle.TemperatureLogitsWarper(value)(ids, x)
        torch.testing.assert_close(temperature(x, value).softmax(-1), theirs.softmax(-1))
    for k in (1, 2, 17, 50):
        assert torch.equal(top_k(x, k), oracle.TopKLogitsWarper(k)(ids, x))
    for p in (1e-6, 0.3, 0.5, 0.9, 0.9999):
        theirs = oracle.TopPLogitsWarper(p)(ids, x)
        assert torch.equal(top_p(x, p).sort(-1).values, theirs.sort(-1).values)
    for p in (1e-6, 0.1, 0.5, 1.0):
        assert torch.equal(min_p(x, p), oracle.MinPLogitsWarper(p)(ids, x))


@pytest.mark.parametrize("seed", range(5))
def test_all_filters_together_are_transformers_in_its_order(seed: int) -> None:
    """All filters together cut what they cut in transformers, in the same order."""
    from transformers.generation import logits_process as oracle  # here, because it takes a second

    x = logits_of(seed, ties=False).double()
    ids: Any = torch.randint(50, (4, 20), generator=torch.Generator().manual_seed(seed))
    names, ours = zip(
        *filter_steps(x, ids.tolist(), Sampling(1.7, 30, 0.8, 0.05, 1.5)), strict=True
    )
    assert names == ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
    theirs = x
    for processor in (
        oracle.RepetitionPenaltyLogitsProcessor(1.5),
        oracle.TemperatureLogitsWarper(1.7),
        oracle.TopKLogitsWarper(30),
        oracle.TopPLogitsWarper(0.8),
        oracle.MinPLogitsWarper(0.05),
    ):
        theirs = processor(ids, theirs)
    unequal = [0, 2, 3]  # in row 1 all logits are equal
    assert torch.equal(ours[-1].isinf()[unequal], theirs.isinf()[unequal])
    torch.testing.assert_close(ours[-1].softmax(-1)[unequal], theirs.softmax(-1)[unequal])
    assert ours[-1][1].isinf().sum() == theirs[1].isinf().sum()


def test_top_k_leaves_the_k_most_probable_tokens_of_each_row() -> None:
    """Of different logits, the k largest of each row stay as they are, and all others are cut."""
    x = logits_of(0, ties=False)[[0, 2, 3]]
    for k in (1, 2, 17, 50):
        for row, left in zip(x.tolist(), top_k(x, k).tolist(), strict=True):
            best = sorted(row, reverse=True)[:k]
            assert left == [logit if logit in best else -math.inf for logit in row]


def test_top_k_leaves_ties_with_the_last_of_the_k_tokens() -> None:
    """All tokens that are as probable as the last of the k most probable ones stay."""
    x = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0, 2.0]])
    for k, n_left in ((1, 1), (2, 4), (3, 4), (4, 4), (5, 5)):
        assert top_k(x, k).isfinite().sum() == n_left


def test_top_p_leaves_the_fewest_tokens_that_reach_p() -> None:
    """The tokens that stay have at least p together, and without the least probable one less."""
    x = logits_of(0, ties=False)[[0, 2]].double()
    for p in (0.05, 0.3, 0.5, 0.9, 0.9999):
        for row, left in zip(x, top_p(x, p), strict=True):
            chances, stays = row.softmax(-1), left.isfinite()
            assert torch.equal(left[stays], row[stays])
            assert chances[stays].min() > chances[~stays].max()
            assert chances[stays].sum() >= p > chances[stays].sum() - chances[stays].min()


def test_top_p_leaves_the_most_probable_token_for_the_smallest_p() -> None:
    """If p is so small that 1 - p is rounded to 1, the most probable token still stays."""
    x = logits_of(0, ties=False)[[0, 2]]
    assert torch.equal(top_p(x, 1e-9).argmax(-1), x.argmax(-1))
    assert (top_p(x, 1e-9).isfinite().sum(-1) == 1).all()


@pytest.mark.parametrize("cut", [lambda x: top_k(x, 2), lambda x: top_p(x, 0.5)], ids=["k", "p"])
def test_a_token_that_is_cut_has_the_probability_0(cut: Callable[[Tensor], Tensor]) -> None:
    """The softmax gives a token that top-k or top-p cuts 0, although other logits are below 0."""
    x = torch.tensor([[-1.0, -9.0, -2.0, -8.0]])
    assert cut(x).softmax(-1)[0, [1, 3]].tolist() == [0, 0]
    assert cut(x).softmax(-1).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("n_vocab", [4, 20, 100, 5000])
def test_top_p_cuts_the_lowest_ids_of_equal_tokens(n_vocab: int) -> None:
    """Of equally probable tokens, top-p cuts those with the lowest ids, on any machine."""
    left = top_p(torch.zeros(1, n_vocab, dtype=torch.float64), 0.5).isfinite()
    n_cut = n_vocab - int(left.sum())
    assert abs(n_cut - n_vocab / 2) <= 1 and not left[0, :n_cut].any()


def test_temperature_raises_probabilities_to_a_power() -> None:
    """At temperature T each probability p becomes p^(1/T), scaled to the sum 1."""
    x = logits_of(0, ties=False)[:1].double()
    for value in (0.5, 2.0, 0.8):
        powers = x.softmax(-1) ** (1 / value)
        torch.testing.assert_close(temperature(x, value).softmax(-1), powers / powers.sum())


def test_temperature_zero_takes_the_first_of_the_most_probable_tokens() -> None:
    """Temperature 0 leaves the first of the best tokens; the smallest one above 0 leaves all."""
    x = torch.tensor([[1.0, 5.0, 5.0], [-7.0, -8.0, -9.0]]).double()
    assert temperature(x, 0).softmax(-1).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert temperature(x, 5e-324).softmax(-1).tolist() == [[0, 0.5, 0.5], [1, 0, 0]]


numbers = st.floats() | st.floats(-1, 3) | st.sampled_from([0.0, 1.0, 5e-324, 1e308, -0.0])


@settings(max_examples=200, deadline=None)
@given(
    t=numbers, k=st.none() | st.integers(-2, 60), p=numbers, m=numbers, r=numbers, u=st.floats(0, 1)
)
@example(t=5e-324, k=50, p=5e-324, m=1.0, r=100.0, u=1.0)
def test_any_setting_gives_probabilities_or_one_line(
    t: float, k: int | None, p: float, m: float, r: float, u: float
) -> None:
    """Any numbers as settings give probabilities with the sum 1, or an error of one line."""
    try:
        s = Sampling(t, k, p, m, r)
    except UserError as error:
        assert "\n" not in str(error)
        return
    x = logits_of(0, ties=False).double()
    texts = [row.nonzero()[:, 0].tolist() for row in x > 0]
    last = filtered(x, texts, s if k is None or k <= 50 else Sampling(t, 50, p, m, r))
    for row in last.softmax(-1):
        assert row.sum().item() == pytest.approx(1)
        assert row[inverse_cdf(row, min(u, 1 - 2**-53))] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_named(wrong: dict[str, float]) -> None:
    """A setting outside its range is refused by name and value."""
    (name,) = wrong
    with pytest.raises(UserError, match=f"{name} is {wrong[name]}; give "):
        Sampling(**wrong)  # type: ignore[arg-type]


# --- the draw ---


def test_random_numbers_are_even_and_independent() -> None:
    """In 20,000 random numbers each pair of tenths in neighbours comes as often as it should."""
    rows = [[uniform(5, sample, n) for n in range(200)] for sample in range(100)]
    u = torch.tensor(rows, dtype=torch.float64)
    assert u.min() >= 0 and u.max() < 1
    assert len(set(u.flatten().tolist())) == u.numel()
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):  # next tokens, next samples
        cells = torch.bincount(((a * 10).long() * 10 + (b * 10).long()).flatten(), minlength=100)
        expected = a.numel() / 100
        # chi-squared with 99 degrees of freedom lies above 150 once in 1400 times
        assert ((cells - expected) ** 2 / expected).sum() < 150


def test_a_random_number_depends_on_all_its_arguments_and_never_changes() -> None:
    """Seed, sample and token each change the number, and a new version keeps the old numbers."""
    assert uniform(1337, 0, 0) == uniform(1337, 0, 0)
    assert len({uniform(s, i, n) for s in range(4) for i in range(4) for n in range(4)}) == 64
    assert uniform(0, 0, 0) == 0.011546754286331562


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    """In 8,000 draws each token comes as often as its probability says (chi-squared)."""
    fair = torch.tensor([0.5, 0.0, 0.2, 0.05, 0.25], dtype=torch.float64)
    picks = torch.tensor([inverse_cdf(fair, uniform(2, 0, n)) for n in range(8_000)])
    counts = torch.bincount(picks, minlength=5).double()
    expected = fair * 8_000
    assert counts[1] == 0
    # chi-squared with 3 degrees of freedom lies above 16.3 once in 1000 times
    assert ((counts - expected) ** 2 / expected.clamp(min=1)).sum() < 16.3


def test_the_border_of_two_tokens_belongs_to_the_second() -> None:
    """Token i owns the numbers from the sum before it, included, to its own end, excluded."""
    halves = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0], dtype=torch.float64)
    assert [inverse_cdf(halves, u) for u in (0.0, 0.25, 0.5, 0.75)] == [1, 1, 3, 3]


@settings(deadline=None)
@given(
    weights=st.lists(st.floats(0, 1) | st.just(0.0) | st.just(1e-300), min_size=1, max_size=40),
    u=st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 1 - 2**-53, 5e-324]),
)
def test_inverse_cdf_returns_the_token_at_u(weights: list[float], u: float) -> None:
    """The cumulative probabilities before and after the token enclose u; the token is possible.

    This holds also where rounding makes the probabilities add up to less or more than 1.
    """
    p = torch.tensor([*weights, 1.0, 0.0], dtype=torch.float64)
    p = p / p.sum()
    id = inverse_cdf(p, u)
    assert p[id] > 0
    below, upto = float(p[:id].sum()), float(p[: id + 1].sum())
    assert below - 1e-12 <= u <= upto + 1e-12


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    numbers=st.lists(
        st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 1 - 2**-53, 5e-324]),
        min_size=1, max_size=6,
    ),
)  # fmt: skip
def test_draw_is_inverse_cdf_of_each_row(seed: int, numbers: list[float]) -> None:
    """Each of several rows gets the token that `inverse_cdf` finds at the row's own number."""
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(numbers), 50, dtype=torch.float64, generator=random)
    texts = [[0]] * len(numbers)
    rows = filtered(logits, texts, Sampling()).softmax(dim=-1)
    expected = [inverse_cdf(row, u) for row, u in zip(rows, numbers, strict=True)]
    assert draw(logits, texts, Sampling(), numbers) == expected


def test_inverse_cdf_next_to_1_finds_a_token_although_the_sum_is_below_1() -> None:
    """The largest random number finds the last possible token, even if rounding lowers the sum."""
    tenths = torch.tensor([0.1] * 10 + [0.0], dtype=torch.float64)
    assert tenths.cumsum(0)[-1] < 1
    assert inverse_cdf(tenths, 1 - 2**-53) == 9
