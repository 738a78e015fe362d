"""Pairs to batches: examples of a prompt and its answer, of which only the answer is scored.

    example   <|endoftext|> who is it ? the fox <|endoftext|>     "who is it?", " the fox"
    input x   <|endoftext|> who is it ? the fox
    target y        -        -  -  - the fox <|endoftext|>        -: NOT_SCORED

Why is the prompt not scored? The user writes it, so the model need not learn to write it; if most
tokens were those of prompts, most of the gradient would be about them. The model still reads the
prompt: the loss of the answer teaches it which tokens of a prompt to attend to. Why is END_OF_TEXT
scored? It ends the answer, and a model that never learns to write it never stops.

`naive_batch` is the idea: an example in each row, and padding after it. Most examples are short, so
most of a row would be padding. `packed_batch` puts several into a row, and tells the model where
each begins, so that none sees another: the losses and gradients are those of `naive_batch`
(test_packed_rows_have_the_gradients_of_single_rows).

`Pairs` reads examples of any number from disk, as `TokenStream` reads a text, and a batch is again
a function of the seed and its numbers.

Shapes: B rows in a batch, T = block_size tokens in a row. Tests: tests/test_pairs.py.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from minigen.data.batches import Batch, Ids, shuffle
from minigen.data.notes import print_notes_on_tokens
from minigen.data.pair_lines import PairRange, hold_out_pairs, scan_pairs
from minigen.data.shards import (
    Shard,
    cache_key,
    find_shards,
    shard_path,
    token_lengths,
    write_index,
)
from minigen.data.template import Part, Template, render
from minigen.data.text_range import CorpusFiles, progress
from minigen.data.token_stream import TokenStream
from minigen.data.vocabulary import learn_tokenizer, vocabulary_size
from minigen.loss import NOT_SCORED
from minigen.system.disk import write_atomically
from minigen.system.places import writable
from minigen.tokenizer import Tokenizer

# ---- the idea ----


class Example(NamedTuple):
    """The tokens of a prompt and its answer, or of a conversation with several answers."""

    ids: Ids  # (L,)
    is_answer: npt.NDArray[np.bool_]  # (L,)


class Scored(NamedTuple):
    """An example as inputs and targets."""

    x: Ids  # (n,), n = L - 1 for an example of L tokens
    y: Ids  # (n,), NOT_SCORED where a token is not scored


def encode_example(parts: Sequence[Part], tokenizer: Tokenizer) -> Example:
    """Return the tokens of an example; each answer has its end, by default END_OF_TEXT.

    Each part is encoded by itself, so no token crosses from a prompt into its answer: the model is
    trained with the tokens with which it will be asked
    (test_a_model_is_asked_with_the_tokens_of_training).

    Args:
        parts: a prompt, its answer, perhaps a further prompt, and so on.
    """
    ids, lengths = list[int](), list[int]()
    for number, (text, is_answer, is_special) in enumerate(parts):
        if number == 0 and not is_special:
            more = tokenizer.encode_prompt(text, special=False)
        else:
            more = tokenizer.encode(text, is_special)
        if is_answer and not is_special:
            more.append(tokenizer.end_of_text)
        ids += more
        lengths.append(len(more))
    return Example(np.array(ids, np.int64), np.repeat([part.is_answer for part in parts], lengths))


def cut(example: Example, block_size: int) -> Example:
    """Return an example of at most T + 1 tokens, which are T inputs.

    Of a longer example the T + 1 tokens up to the end of the last answer are kept, because the end
    of a prompt is next to the answer, and the answer whole. An answer that has more than T tokens
    by itself loses its end.
    """
    length = len(example.ids)
    if length <= block_size + 1:
        return example
    # A chat template may write more after the last answer, such as a newline.
    stop = int(np.flatnonzero(example.is_answer)[-1]) + 1
    last_read = int(np.flatnonzero(~example.is_answer[:stop])[-1])  # the token before the answer
    start = max(0, min(stop - block_size - 1, last_read))
    kept = slice(start, start + block_size + 1)
    return Example(example.ids[kept], example.is_answer[kept])


def scored(example: Example, loss_on: str) -> Scored:
    """Return the inputs and targets of an example.

    Args:
        loss_on: "answer", or "all" to score the prompt, too.
    """
    is_scored = example.is_answer[1:] | (loss_on == "all")
    return Scored(example.ids[:-1], np.where(is_scored, example.ids[1:], NOT_SCORED))


def naive_batch(examples: Sequence[Scored], block_size: int, padding: int) -> Batch:
    """Return a batch with an example in each row: x and y, (N, T) each.

    Args:
        padding: any id. It comes after the example, which therefore does not see it.
    """
    x = torch.full((len(examples), block_size), padding)
    y = torch.full_like(x, NOT_SCORED)
    for row, (inputs, targets) in enumerate(examples):
        x[row, : len(inputs)], y[row, : len(inputs)] = map(torch.from_numpy, (inputs, targets))
    return Batch(x, y)


# ---- several examples in a row ----


def packed_batch(rows: Sequence[Sequence[Scored]], block_size: int, padding: int) -> Batch:
    """Return a batch with several examples in each row: x, y and begins, (B, T) each.

    begins[b, t] is the index at which the example of token t begins. The model keeps tokens from
    seeing those before it, and counts positions from it (`GPT.forward`). A token of padding is an
    example by itself.
    """
    x = torch.full((len(rows), block_size), padding)
    y = torch.full_like(x, NOT_SCORED)
    begins = torch.arange(block_size).repeat(len(rows), 1)
    for row, examples in enumerate(rows):
        stop = 0
        for inputs, targets in examples:
            start, stop = stop, stop + len(inputs)
            x[row, start:stop], y[row, start:stop] = map(torch.from_numpy, (inputs, targets))
            begins[row, start:stop] = start
    return Batch(x, y, begins)


def pack(lengths: Ids, block_size: int) -> Ids:
    """Return the row of each example, so that no row is longer than T: few rows, nearly full.

    Each example, the longest first, goes into the fullest row that has room for it ("best fit
    decreasing"; Johnson 1973: at most 11/9 of the fewest rows possible, and a few more).

    Args:
        lengths: (N,), from 1 to T, the longest first.

    >>> pack(np.array([5, 4, 3, 3, 1]), block_size=8).tolist()
    [0, 1, 0, 1, 1]
    """
    rows_by_room: list[list[int]] = [[] for _ in range(block_size + 1)]
    has_rows = 0  # bit r is set if there is a row with room for r tokens
    row_of, n_rows = np.empty(len(lengths), np.int64), 0
    for number, length in enumerate(lengths.tolist()):
        if fitting := has_rows >> length:
            room = length + (fitting & -fitting).bit_length() - 1  # the lowest bit that is set
            row = rows_by_room[room].pop()
            has_rows ^= (not rows_by_room[room]) << room
        else:
            room, row, n_rows = block_size, n_rows, n_rows + 1
        row_of[number] = row
        if room > length:
            rows_by_room[room - length].append(row)
            has_rows |= 1 << (room - length)
    return row_of


@dataclass(frozen=True, eq=False)
class Packing:
    """The rows of T tokens into which examples are packed, in each epoch anew.

    Packing looks at lengths only, so it is made once. In each epoch, examples of one length change
    places, and the rows come in another order.
    """

    n_inputs: Ids  # (N,), tokens of each example in a row, from 1 to T
    n_scored: Ids  # (N,), scored targets of each example
    row_of: Ids  # (N,), as `pack` returns it
    _epochs: dict[tuple[int, int], tuple[Ids, Ids, Ids]] = field(default_factory=dict)

    @functools.cached_property
    def n_rows(self) -> int:
        """The number of rows in an epoch."""
        return int(self.row_of.max()) + 1

    def examples(self, seed: int, number: int) -> Ids:
        """Return the numbers of the examples in row `number` of an endless order of rows."""
        epoch, place = divmod(int(number), self.n_rows)
        if (seed, epoch) not in self._epochs:
            while len(self._epochs) >= 2:  # a batch may span two epochs
                del self._epochs[next(iter(self._epochs))]
            self._epochs[seed, epoch] = self._epoch(seed, epoch)
        examples, bounds, rows = self._epochs[seed, epoch]
        return examples[bounds[rows[place]] : bounds[rows[place] + 1]]

    def _epoch(self, seed: int, epoch: int) -> tuple[Ids, Ids, Ids]:
        """Return the examples of an epoch by rows, where each row begins, and the rows' order."""
        n_examples = len(self.n_inputs)
        _, order = shuffle(seed, epoch, 1, n_examples + self.n_rows)
        examples, rows = order[order < n_examples], order[order >= n_examples] - n_examples
        longest_first = examples[np.argsort(-self.n_inputs[examples], kind="stable")]
        by_row = longest_first[np.argsort(self.row_of, kind="stable")]
        return by_row, np.append(0, np.bincount(self.row_of).cumsum()), rows


# ---- the same for examples on disk ----

# A stream holds the ids of all examples. Two bits of each number are no part of the id.
ANSWER, FIRST = 1 << 31, 1 << 30  # the token is one of an answer, or the first of an example
DTYPE = "<u4"
READ = 1 << 20  # tokens to read at once
N_SHORT = 20  # the shortest of the first examples, about, gives the prompt of samples
VERSION = 1  # to be raised with each change of the code that changes the tokens of an example


@dataclass(frozen=True, eq=False)
class Pairs:
    """Examples on disk, which are read as batches.

    In an epoch each example comes once (test_an_epoch_has_each_example_once).
    """

    stream: TokenStream
    loss_on: str  # "answer" or "all"
    starts: Ids  # (N + 1,), the place of each example's first token, and the end
    n_answer_tokens: Ids  # (N,), of each example
    n_scored_bytes: int  # bytes of text in all scored tokens
    _packings: dict[int, Packing] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The path of the index."""
        return self.stream.path

    @property
    def name(self) -> str:
        """The name for messages, such as "training pairs"."""
        return self.stream.name

    @property
    def n_examples(self) -> int:
        """The number of examples, N."""
        return len(self.starts) - 1

    @property
    def n_tokens(self) -> int:
        """The number of tokens in all examples."""
        return int(self.starts[-1])

    def bits_per_byte(self, separator_bytes: int = 0) -> float:
        """Return the bits per byte of a loss of 1 nat per scored token, for the scored text."""
        n_scored = self.n_tokens - self.n_examples  # the first token is no target
        if self.loss_on == "answer":
            n_scored = int(self.n_answer_tokens.sum())
        return n_scored / max(1, self.n_scored_bytes) / math.log(2)

    def example(self, number: int) -> Example:
        """Read an example as a whole. Raises UserError if the file was changed."""
        start, stop = self.starts[number : number + 2].tolist()
        marked = self.stream.read(start, stop - start)
        return Example(marked & (FIRST - 1), (marked & ANSWER) != 0)

    def scored(self, number: int, block_size: int) -> Scored:
        """Read an example as inputs and targets, at most T of them."""
        return scored(cut(self.example(number), block_size), self.loss_on)

    def batch(self, seed: int, numbers: Iterable[int], block_size: int) -> Batch:
        """Return the rows `numbers` of an endless random order of rows, to train on."""
        packing = self.packing(block_size)
        rows = [
            [
                self.scored(example, block_size)
                for example in packing.examples(seed, number).tolist()
            ]
            for number in numbers
        ]
        return packed_batch(rows, block_size, self.stream.end_of_text)

    def n_targets(self, seed: int, numbers: Iterable[int], block_size: int) -> int:
        """Return the number of scored targets in the rows `numbers`, without reading them."""
        packing = self.packing(block_size)
        examples = np.concatenate([packing.examples(seed, number) for number in numbers])
        return int(packing.n_scored[examples].sum())

    def validation_batches(
        self, block_size: int, batch_size: int, limit: int | None = None
    ) -> Iterator[Batch]:
        """Yield each example once, or rows with about `limit` tokens from all over the examples."""
        packing = self.packing(block_size)
        n_rows, tokens_per_row = packing.n_rows, packing.n_inputs.sum() / packing.n_rows
        n = n_rows if limit is None else min(n_rows, math.ceil(limit / tokens_per_row))
        numbers = iter([i * n_rows // n for i in range(n)])
        while some := list(itertools.islice(numbers, batch_size)):
            yield self.batch(0, some, block_size)

    def packing(self, block_size: int) -> Packing:
        """Return the rows of the examples for this T; they are made once."""
        if block_size not in self._packings:
            n_inputs = np.minimum(np.diff(self.starts) - 1, block_size)
            n_scored = n_inputs if self.loss_on == "all" else self.n_answer_tokens.copy()
            if self.loss_on == "answer":
                for number in np.flatnonzero(self._is_long(block_size)).tolist():
                    n_scored[number] = (self.scored(number, block_size).y != NOT_SCORED).sum()
            row_of = pack(-np.sort(-n_inputs), block_size)
            self._packings[block_size] = Packing(n_inputs, n_scored, row_of)
        return self._packings[block_size]

    def _is_long(self, block_size: int) -> npt.NDArray[np.bool_]:
        """Return whether each example must be cut, (N,)."""
        return np.diff(self.starts) > block_size + 1

    def description(self, block_size: int) -> str:
        """Return a line about the examples, and about those that are cut."""
        packing, is_long = self.packing(block_size), self._is_long(block_size)
        n_rows, n_inputs = packing.n_rows, int(packing.n_inputs.sum())
        line = (
            f"{self.name}: {self.n_examples:,}, of {self.n_tokens:,} tokens, of which "
            f"{int(packing.n_scored.sum()):,} are scored; {n_rows:,} rows of {block_size} tokens "
            f"are {n_inputs / n_rows / block_size:.0%} full"
        )
        if n_long := int(is_long.sum()):
            n_all = int(np.diff(self.starts)[is_long].sum())
            line += (
                f"; {n_long:,} are longer than --block_size, and lose "
                f"{n_all - n_long * (block_size + 1):,} of their {n_all:,} tokens: the beginning "
                "of the prompt, or the end of an answer that is too long by itself"
            )
        return line

    def short_prompt(self, tokenizer: Tokenizer) -> str:
        """Return the text before the first answer of a short example, which a line can show."""
        ids, is_answer = self.example(int(np.argmin(np.diff(self.starts[:N_SHORT]))))
        prompt = ids[: int(np.argmax(is_answer))].tolist()
        return tokenizer.decode(prompt[prompt[0] == tokenizer.end_of_text :])  # it is added again


def prepare_pairs(
    source: CorpusFiles,
    tokenizer: Tokenizer | None,
    kind: str,
    vocab_size: int | None,
    cache: Path,
    loss_on: str,
    val_fraction: float = 0.1,
    template: Template = render,
) -> tuple[Tokenizer, Pairs, Pairs]:
    """Tokenise files of pairs, as `prepare` does with text; the last tenth of them validates.

    Args:
        loss_on: the tokens that are scored, "answer" or "all".
        template: writes messages as text. The others are those of `prepare`.

    Returns the tokenizer, the pairs to train on and the pairs to validate on.
    Raises UserError if a line holds no pair.
    """
    train = scan_pairs(source.train, template)
    if source.val:
        val = scan_pairs(source.val, template)
    else:
        train, val = hold_out_pairs(train, val_fraction)
    if tokenizer is None:
        n_vocab = vocab_size or vocabulary_size(train.n_chars)
        tokenizer = learn_tokenizer(train, val, kind, n_vocab)
    train_pairs = write_pairs(train, tokenizer, cache, "training pairs", loss_on)
    return tokenizer, train_pairs, write_pairs(val, tokenizer, cache, "validation pairs", loss_on)


def write_pairs(
    pairs: PairRange, tokenizer: Tokenizer, cache: Path, name: str, loss_on: str
) -> Pairs:
    """Tokenise pairs, or return the result of an earlier call.

    Args:
        name: for messages, such as "training pairs".
    """
    inputs = (pairs.sha256, pairs.start, pairs.stop, tokenizer.fingerprint, int(tokenizer.bare))
    path = writable(cache) / f"{cache_key('pairs', VERSION, *inputs)}.pairs"
    shards = find_shards(path)
    if not shards:
        with write_atomically(shard_path(path, 0)) as temporary:
            shards = (_write_examples(pairs, tokenizer, temporary),)
            pairs.check_unchanged()
        write_index(path, shards, tokenizer, DTYPE)
    stream = TokenStream(path, name, DTYPE, tokenizer.end_of_text, shards)
    print_notes_on_tokens(stream, tokenizer)
    return open_pairs(stream, tokenizer, loss_on)


def _write_examples(pairs: PairRange, tokenizer: Tokenizer, path: Path) -> Shard:
    """Write the marked ids of all examples to a file, and return its entry for the index."""
    digest, n_examples, n_tokens, n_controls = hashlib.sha256(), 0, 0, 0
    with (
        path.open("wb") as file,
        progress("tokenising", pairs.stop - pairs.start, "pair") as bar,
    ):
        for parts in pairs.examples():
            ids, is_answer = encode_example(parts, tokenizer)
            marked = ids | is_answer * ANSWER
            marked[0] |= FIRST
            content = marked.astype(DTYPE).tobytes()
            file.write(content)
            digest.update(content)
            n_examples, n_tokens = n_examples + 1, n_tokens + len(ids)
            n_controls += tokenizer.count_controls(
                part.text for part in parts if not part.is_special
            )
            bar.update()
    return Shard(n_tokens, 0, pairs.n_chars, n_examples, digest.hexdigest(), n_controls)


def open_pairs(stream: TokenStream, tokenizer: Tokenizer, loss_on: str) -> Pairs:
    """Find where each example of a stream begins, and count its tokens to score."""
    lengths = token_lengths(tokenizer)
    starts, answers_before, n_bytes, n_answers = [], [], 0, 0
    for place in range(0, stream.n_tokens, READ):
        marked = stream.read(place, min(READ, stream.n_tokens - place))
        is_answer, firsts = (marked & ANSWER) != 0, np.flatnonzero(marked & FIRST)
        starts.append(place + firsts)
        answers_before.append(n_answers + np.append(0, is_answer.cumsum())[firsts])
        n_answers += int(is_answer.sum())
        ids = marked & (FIRST - 1)
        n_bytes += int(lengths[ids if loss_on == "all" else ids[is_answer]].sum())
    return Pairs(
        stream,
        loss_on,
        np.append(np.concatenate(starts), stream.n_tokens),
        np.diff(np.append(np.concatenate(answers_before), n_answers)),
        n_bytes,
    )
