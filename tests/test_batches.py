"""Tokens to batches: windows to train on, sliding windows to evaluate, documents in windows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_streams import ids, put, shard_paths, train_stream, with_folder

from minigen.corpora import Corpus
from minigen.data import (
    TokenStream,
    batches,
    prepare,
)
from minigen.data.batches import naive_sliding, naive_windows, place_windows
from minigen.errors import UserError
from minigen.loss import NOT_SCORED
from minigen.tokenizer import train_tokenizer


@pytest.fixture
def stream(tmp_path: Path) -> TokenStream:
    """Return a stream of 103 tokens, each with another id: END_OF_TEXT and 102 characters."""
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 102)))
    return train_stream(tmp_path, text, train_tokenizer("char", [text + "held out"]))


# ---- batches ----


@pytest.mark.parametrize("block_size", [1, 2, 10, 17, 51, 102])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_covers_each_window_once(stream: TokenStream, block_size: int, epoch: int) -> None:
    """In an epoch of a long document all but n_tokens % T tokens are an input, and once."""
    n = stream.n_windows(block_size)
    x, y = stream.windows(3, range(epoch * n, (epoch + 1) * n), block_size)
    assert n == 103 // block_size
    assert x.dtype == y.dtype == torch.int64
    assert x.shape == y.shape == (n, block_size)
    assert len(set(x.flatten().tolist())) == n * block_size
    # Every window ends where another begins, except where the tokens lie that are left out.
    ends_without_beginning = set(y[:, -1].tolist()) - set(x[:, 0].tolist())
    assert len(ends_without_beginning) == (1 if 103 % block_size else 0)


@pytest.mark.parametrize("block_size", [1, 2, 10, 17, 51, 102])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (3, 7)])
def test_windows_of_a_long_document_are_the_naive_ones(
    stream: TokenStream, block_size: int, seed: int, epoch: int
) -> None:
    """The windows of a document of more than T tokens are those of `naive_windows`."""
    n = stream.n_windows(block_size)
    naive = naive_windows(np.array(ids(stream)), seed, epoch, block_size)
    fast = stream.windows(seed, range(epoch * n, (epoch + 1) * n), block_size)
    assert torch.equal(naive[0], fast[0]) and torch.equal(naive[1], fast[1])


def test_windows_go_round_the_circle(stream: TokenStream) -> None:
    """A target is the token after its input, and the first token follows the last."""
    circle = ids(stream)
    follows = dict(pairwise([*circle, circle[0]]))
    x, y = stream.windows(0, range(200), 20)
    inputs, targets = x.flatten().tolist(), y.flatten().tolist()
    assert targets == [follows[id] for id in inputs]
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert circle[0] in targets and circle[-1] in targets


def test_a_batch_is_a_function_of_the_seed_and_its_numbers(stream: TokenStream) -> None:
    """A batch stays the same whatever was drawn before it, and whatever other generators do."""
    before = stream.windows(5, range(36, 40), 16)
    stream.windows(6, range(1000), 16)
    torch.manual_seed(1)
    np.random.seed(1)
    batches.shuffle.cache_clear()
    after = stream.windows(5, range(36, 40), 16)
    assert torch.equal(torch.stack(before), torch.stack(after))


def test_another_seed_or_number_is_another_batch(stream: TokenStream) -> None:
    """Batches of other seeds, of other numbers, and of the same number an epoch later differ."""
    x, _ = stream.windows(5, range(36, 40), 16)
    for seed, first in ((5, 0), (1, 36), (5, 40), (5, 36 + stream.n_windows(16))):
        assert not torch.equal(stream.windows(seed, range(first, first + 4), 16)[0], x)


def test_a_batch_belongs_to_its_caller(stream: TokenStream) -> None:
    """A batch that is overwritten leaves later batches as they are."""
    x, _ = stream.windows(5, range(4), 16)
    kept = x.clone()
    x.zero_()
    assert torch.equal(stream.windows(5, range(4), 16)[0], kept)


def test_the_order_of_an_epoch_never_changes() -> None:
    """A run that resumes with another version of NumPy continues with the same windows."""
    first, order = batches.shuffle(1337, 2, 1000, 8)
    assert (first, order.tolist()) == (714, [3, 4, 1, 6, 5, 0, 2, 7])


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    """Each epoch of each seed has an order of its own of all windows, and a first place."""
    orders = {(s, e): batches.shuffle(s, e, 10_000, 50) for s in range(5) for e in range(5)}
    assert len({tuple(order.tolist()) for _, order in orders.values()}) == 25
    assert len({first for first, _ in orders.values()}) > 20
    assert all(sorted(order.tolist()) == list(range(50)) for _, order in orders.values())


@pytest.mark.parametrize("step", range(6))  # 12 windows a step, and 10 an epoch
def test_micro_batches_of_all_ranks_are_the_batch(stream: TokenStream, step: int) -> None:
    """Two ranks with two micro-batches each see the batch that one process sees."""
    numbers = np.arange(step * 12, (step + 1) * 12)
    whole = torch.stack(stream.windows(0, numbers, 10))
    micro_batches = [
        torch.stack(stream.windows(0, numbers[rank::2][part], 10))
        for rank in (0, 1)
        for part in (slice(0, 3), slice(3, 6))
    ]
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    assert torch.equal(torch.cat(micro_batches, dim=1), whole[:, order])


def test_a_text_shorter_than_a_block_is_refused_with_its_length(stream: TokenStream) -> None:
    """A block of 102 tokens needs 103 tokens of text; a longer block is refused."""
    assert stream.n_windows(102) == 1
    for draw in (
        lambda: stream.n_windows(103),
        lambda: stream.windows(0, range(1), 103),
        lambda: next(stream.sliding(103, 1)),
    ):
        with pytest.raises(UserError, match=r"training text has only 103 tokens.* 104;.*smaller"):
            draw()


def test_a_removed_shard_stays_readable_while_it_is_open(stream: TokenStream) -> None:
    """A stream that is in use survives the removal of its shard; one opened later does not."""
    before = stream.windows(0, range(8), 16)
    shard_paths(stream)[0].unlink()
    after = stream.windows(0, range(8), 16)
    assert torch.equal(torch.stack(before), torch.stack(after))
    with pytest.raises(UserError, match="cannot read"):
        replace(stream).windows(0, range(8), 16)


@pytest.mark.parametrize("damage", ["cut short", "written over"])
def test_a_shard_that_is_cut_short_in_use_is_reported(stream: TokenStream, damage: str) -> None:
    """A damaged shard is an error of one line: no bus error, as of a memory map, or wrong ids."""
    stream.windows(0, range(8), 16)  # the shard is open now
    (shard,) = shard_paths(stream)
    content = shard.read_bytes()
    shard.write_bytes(content[:-4] if damage == "cut short" else b"\xff" * len(content))
    os.utime(shard, ns=(0, 0))  # the clock of a file system is coarse
    for read in (
        lambda: stream.windows(0, range(stream.n_windows(16)), 16),
        lambda: list(stream.sliding(16, 4)),
    ):
        with pytest.raises(UserError, match="cut short or written over"):
            read()


# ---- evaluation ----


def predictions(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
) -> list[tuple[list[int], int]]:
    """Return (context, target) of each target that batches score, in order."""
    return [
        (x[row, : t + 1].tolist(), int(target))
        for x, y in batches
        for row in range(len(x))
        for t, target in enumerate(y[row])
        if target != NOT_SCORED
    ]


shapes = given(block_size=st.integers(1, 102), batch_size=st.integers(1, 9), share=st.floats(0, 1))
sixty = settings(with_folder, max_examples=60)


@shapes
@sixty
def test_sliding_scores_each_token_once_with_context(
    stream: TokenStream, block_size: int, batch_size: int, share: float
) -> None:
    """Each token but the first is a target once, with at least T - stride tokens before it."""
    stride, tokens = max(1, round(share * block_size)), ids(stream)
    scored = predictions(stream.sliding(block_size, batch_size, stride))
    assert [target for _, target in scored] == tokens[1:]
    for place, (context, _) in enumerate(scored, start=1):
        assert context == tokens[place - len(context) : place]
        assert len(context) >= min(place, block_size - stride)


@shapes
@sixty
def test_batches_of_an_evaluation_are_full(
    stream: TokenStream, block_size: int, batch_size: int, share: float
) -> None:
    """Each batch has (B, T) inputs and targets; only the last may have fewer rows."""
    stride = max(1, round(share * block_size))
    *full, last = stream.sliding(block_size, batch_size, stride)
    for x, y in full:
        assert x.shape == y.shape == (batch_size, block_size)
    assert last[0].shape == last[1].shape == (len(last[0]), block_size)
    assert 1 <= len(last[0]) <= batch_size


@pytest.mark.parametrize("block_size", [1, 2, 10, 17, 51, 102])
def test_sliding_by_one_token_is_naive(stream: TokenStream, block_size: int) -> None:
    """With stride 1, each target has the context of `naive_sliding`: the T tokens before it."""
    naive = [(x.tolist(), y) for x, y in naive_sliding(np.array(ids(stream)), block_size)]
    assert predictions(stream.sliding(block_size, 4, stride=1)) == naive


@given(block_size=st.integers(1, 102), share=st.floats(0, 1), limit=st.integers(1, 150))
@sixty
def test_a_limit_scores_that_number_of_targets(
    stream: TokenStream, block_size: int, share: float, limit: int
) -> None:
    """The number of scored targets exceeds a limit by less than a stride, or is all of them."""
    stride = max(1, round(share * block_size))
    n_scored = len(predictions(stream.sliding(block_size, 4, stride, limit)))
    assert n_scored == 102 or (limit <= n_scored < limit + stride and n_scored % stride == 0)


@pytest.mark.parametrize("limit", [1, 8, 9, 40, 64])
def test_a_limit_spreads_the_targets_over_the_whole_text(stream: TokenStream, limit: int) -> None:
    """With a limit, windows are equally far from each other, and the last one from the end.

    The beginning alone would not do: it is more like the training text before it.
    """
    tokens = ids(stream)
    places = [tokens.index(target) for _, target in predictions(stream.sliding(16, 4, limit=limit))]
    begins = [*places[::8], 103]
    gaps = [end - begin for begin, end in pairwise(begins)]
    assert begins[0] == 1 and max(gaps) - min(gaps) <= 1


def test_the_default_stride_keeps_half_a_window(stream: TokenStream) -> None:
    """Without a stride, windows slide by T // 2, so that T / 2 tokens of context are left."""
    default = [y.tolist() for _, y in stream.sliding(16, 4)]
    assert default == [y.tolist() for _, y in stream.sliding(16, 4, stride=8)]
    contexts = [context for context, _ in predictions(stream.sliding(16, 4))]
    assert min(map(len, contexts[16:])) == 9


@pytest.mark.parametrize("stride", [0, -1, 17])
def test_a_stride_that_skips_tokens_is_an_error(stream: TokenStream, stride: int) -> None:
    """A stride of 0 tokens, or of more than a window, is refused."""
    with pytest.raises(ValueError, match="stride"):
        next(stream.sliding(16, 4, stride))


# ---- documents ----


@pytest.fixture
def tales(tmp_path: Path) -> TokenStream:
    """Return a stream of nine documents of 5 to 29 characters. No character comes twice."""
    letters = iter(range(0x4E00, 0x9FFF))
    lengths = (5, 29, 12, 7, 20, 9, 11, 6, 18)
    documents = ["".join(chr(next(letters)) for _ in range(n)) for n in lengths]
    path = put(tmp_path, "\n\n".join(documents), "tales.txt")
    source = Corpus("tales", (path,), (path,), "\n\n")
    return prepare(source, None, "char", 0, tmp_path / "cache")[1]


def begin_of_document(tokens: list[int], place: int) -> int:
    """Return the place at which the document of a token begins."""
    return max(i for i in range(place + 1) if tokens[i] == tokens[0])


def is_short(tokens: list[int], place: int, block_size: int) -> bool:
    """Return whether the document of a token has at most T tokens."""
    begin = begin_of_document(tokens, place)
    end = next((i for i in range(place + 1, len(tokens)) if tokens[i] == tokens[0]), len(tokens))
    return end - begin <= block_size


def test_windows_of_short_documents_begin_with_them(tales: TokenStream) -> None:
    """No window begins inside a document that it could hold."""
    tokens = ids(tales)
    for first, *_ in tales.windows(0, range(400), 21)[0].tolist():
        assert first == tales.end_of_text or not is_short(tokens, tokens.index(first), 21)


def test_all_short_documents_begin_a_window(tales: TokenStream) -> None:
    """In some epochs, each document begins a window."""
    rows = tales.windows(0, range(400), 21)[0].tolist()
    begun = {second for first, second, *_ in rows if first == tales.end_of_text}
    assert begun == {after for id, after in pairwise(ids(tales)) if id == tales.end_of_text}


def targets_of_epoch(tokens: TokenStream, epoch: int, block_size: int) -> set[int]:
    """Return the places of the stream that are a target in an epoch; END_OF_TEXT is left aside."""
    n = tokens.n_windows(block_size)
    y = tokens.windows(0, range(epoch * n, (epoch + 1) * n), block_size)[1]
    return set(y.flatten().tolist()) - {tokens.end_of_text}


def test_an_epoch_of_short_documents_leaves_out_other_tokens_each_time(tales: TokenStream) -> None:
    """Short documents lose 3 to 18 % of their tokens in an epoch, and none in thirty epochs."""
    tokens = set(ids(tales)) - {tales.end_of_text}
    epochs = [targets_of_epoch(tales, epoch, 21) for epoch in range(30)]
    left_out = [len(tokens - targets) / len(tokens) for targets in epochs]
    assert min(left_out) > 0.03 and max(left_out) < 0.18
    assert set().union(*epochs) == tokens


@pytest.mark.parametrize("block_size", [8, 21, 31])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_sliding_predicts_from_the_beginning_of_a_document(
    tales: TokenStream, block_size: int, batch_size: int
) -> None:
    """Each token is a target once, with all of its document before it, or half a window."""
    tokens = ids(tales)
    scored = predictions(tales.sliding(block_size, batch_size))
    assert [target for _, target in scored] == tokens[1:]
    for place, (context, _) in enumerate(scored, start=1):
        assert context == tokens[place - len(context) : place]
        sees_its_beginning = len(context) >= place - begin_of_document(tokens, place - 1)
        sees_half_a_window = len(context) >= block_size - block_size // 2
        assert sees_its_beginning or (
            sees_half_a_window and not is_short(tokens, place - 1, block_size)
        )


@pytest.mark.parametrize("block_size", [8, 21, 31])
def test_a_sliding_window_begins_with_the_document_of_its_first_target(
    tales: TokenStream, block_size: int
) -> None:
    """No other document stands before the first target, but in the window that ends the stream."""
    tokens, last = ids(tales), len(ids(tales)) - 1
    for window in place_windows(tales, block_size, block_size // 2, [(0, last)]):
        assert (
            window.start >= begin_of_document(tokens, window.scored)
            or window.start == last - block_size
        )
