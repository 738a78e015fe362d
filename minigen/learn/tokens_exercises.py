"""The exercises on minigen/tokenizer.py and minigen/loss.py: from a text to the loss of a guess."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import regex
import torch
from torch import Tensor

from minigen.learn.exercise import AnyFunction, Exercise, Mistake, Theorem
from minigen.loss import NOT_SCORED
from minigen.tokenizer import BYTES, PATTERN, next_merge, single_bytes

Pair = tuple[int, int]

# ---- merges ----


def _trial_of_bpe(learn: AnyFunction) -> list[list[bytes]]:
    """Return the tokens of words with ties, of words of one letter, and of a few rare words."""
    many = {b"wider": 4, b"low": 5, b"lower": 2, b"newer": 2, b"old": 5, b"zz": 1, b"zzy": 1}
    return [learn(many, 261), learn({b"aaaa": 2, b"aaab": 1}, 300), learn({b"ab": 1, b"c": 3}, 300)]


def _counts(words: Mapping[bytes, int], spellings: Mapping[bytes, list[int]]) -> Counter[Pair]:
    counts = Counter[Pair]()
    for word, spelling in spellings.items():
        for pair in pairwise(spelling):
            counts[pair] += words[word]
    return counts


def _smallest(counts: Counter[Pair]) -> Pair:
    return min(counts, key=lambda pair: (-counts[pair], pair))


def _merge(spelling: list[int], pair: Pair, id: int) -> None:
    for i in range(len(spelling)):
        if tuple(spelling[i : i + 2]) == pair:
            spelling[i : i + 2] = [id]


def _learn(
    words: Mapping[bytes, int],
    n_tokens: int,
    best: Callable[[Counter[Pair]], Pair] = _smallest,
    merge: Callable[[list[int], Pair, int], None] = _merge,
    least: int = 2,
) -> list[bytes]:
    """Learn tokens as `naive_bpe` does, with one part that may be wrong."""
    tokens = list(BYTES)
    spellings = {word: list(word) for word in words}
    while len(tokens) < n_tokens and (counts := _counts(words, spellings)):
        pair = best(counts)
        if counts[pair] < least:
            break
        for spelling in spellings.values():
            merge(spelling, pair, len(tokens))
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
    return tokens


def _ties_to_the_largest(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    return _learn(words, n_tokens, lambda counts: max(counts, key=lambda p: (counts[p], p)))


def _ties_to_the_first_seen(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    return _learn(words, n_tokens, lambda counts: counts.most_common(1)[0][0])


def _each_word_once(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    return _learn(dict.fromkeys(words, 1), n_tokens)


def _across_words(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    return _learn({b"".join(word * n for word, n in words.items()): 1}, n_tokens)


def _single_pairs(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    return _learn(words, n_tokens, least=1)


def _overlapping(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    def merge(spelling: list[int], pair: Pair, id: int) -> None:
        starts = [i for i, neighbours in enumerate(pairwise(spelling)) if neighbours == pair]
        for i in reversed(starts):
            spelling[i : i + 2] = [id]

    return _learn(words, n_tokens, merge=merge)


def _counted_once(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    counts = _counts(words, {word: list(word) for word in words})
    pairs = sorted((pair for pair in counts if counts[pair] > 1), key=lambda p: (-counts[p], p))
    return [*BYTES, *map(bytes, pairs[: n_tokens - len(BYTES)])]


def _n_merges(words: Mapping[bytes, int], n_tokens: int) -> list[bytes]:
    return _learn(words, len(BYTES) + n_tokens)


MERGES = Exercise(
    name="merges",
    title="Byte-pair encoding: which pieces of words become tokens",
    target="minigen.tokenizer:naive_bpe",
    task="Start with the 256 bytes as tokens, and spell each word in bytes. Then, again and again, "
    "count the pairs of neighbours, make the most frequent pair the next token, and write the "
    "token into the words in place of the pair.",
    hints=(
        "Keep the spelling of each word as a list of ids: list(b'low') is [108, 111, 119], and the "
        "id of the next token is len(tokens). itertools.pairwise gives the pairs of neighbours.",
        "A word that occurs 5 times adds 5 to the count of each of its pairs. Take the best pair "
        "with min(counts, key=lambda pair: (-counts[pair], pair)): the largest count first, then "
        "the smallest ids. Stop if its count is below 2.",
        "Merge from left to right: for i in range(len(spelling)): if tuple(spelling[i : i + 2]) == "
        "best: spelling[i : i + 2] = [len(tokens)]. Then append tokens[best[0]] + tokens[best[1]] "
        "to the tokens, and count anew.",
    ),
    theorems=(
        Theorem(
            "tests/test_tokenizer.py::test_a_pair_counts_as_often_as_its_words_occur",
            "A pair counts as often as the words that contain it occur",
            "is the number of times that a word occurs added, or 1?",
        ),
        Theorem(
            "tests/test_tokenizer.py::test_no_merge_crosses_two_words",
            "No pair is made of the end of a word and the beginning of the next",
            "are pairs counted inside each word only?",
        ),
        Theorem(
            "tests/test_tokenizer.py"
            "::test_of_equally_frequent_pairs_the_smallest_ids_are_merged_first",
            "Of equally frequent pairs, the one with the smallest ids is merged first",
            "does the choice compare the ids, too, if the counts are equal?",
        ),
        Theorem(
            "tests/test_tokenizer.py::test_training_stops_when_no_pair_occurs_twice",
            "Learning stops when no pair occurs twice",
            "is the count of the best pair compared with 2 before the pair is merged?",
        ),
        Theorem(
            "tests/test_tokenizer.py::test_of_three_equal_letters_the_first_two_are_merged",
            "In 'aaa' the first two letters become a token, and the third stays",
            "does a merge use a letter that the merge before it has taken?",
        ),
        Theorem(
            "tests/test_tokenizer.py::test_incremental_training_is_naive_training",
            "The tokens are those that the fast `train_bpe` learns, for any words",
            "are the pairs counted anew after each merge, and does learning stop at n_tokens?",
        ),
    ),
    trial=_trial_of_bpe,
    mistakes=(
        Mistake(
            _ties_to_the_largest,
            "of equally frequent pairs, the one with the largest ids is merged: max over (count, "
            "pair) prefers large ids, so compare (-count, pair) with min",
        ),
        Mistake(
            _ties_to_the_first_seen,
            "of equally frequent pairs, the one that was counted first is merged, so the tokens "
            "depend on the order of the words: compare the ids if the counts are equal",
        ),
        Mistake(
            _each_word_once,
            "each word counts once: a pair in a word that occurs 100 times must count 100 times, "
            "so add words[word], not 1",
        ),
        Mistake(
            _across_words,
            "all words are joined, so the end of a word and the beginning of the next make a pair: "
            "count the pairs of each word by itself",
        ),
        Mistake(
            _single_pairs,
            "learning continues with pairs that occur once: such a token spells a single place of "
            "the text, so stop when the best count is below 2",
        ),
        Mistake(
            _overlapping,
            "overlapping pairs are both merged: in 'aaa' the second a belongs to two pairs, and a "
            "letter is lost; look for the next pair after each merge, from left to right",
        ),
        Mistake(
            _counted_once,
            "the pairs are counted only at the beginning, so every token has two bytes: count them "
            "again after each merge, since the new token has neighbours of its own",
        ),
        Mistake(
            _n_merges,
            "there are n_tokens merges: n_tokens is the number of all tokens, and the 256 bytes "
            "are among them",
        ),
    ),
)

# ---- encode ----


def _trial_of_encode(encode: AnyFunction) -> list[list[int]]:
    """Return the ids of words whose spelling depends on the order of the merges."""
    tokens = [*BYTES, b"we", b"er", b"lo", b"low", b"aa", b"r ", b"an", b"nd", b"and", b"ower"]
    return [encode(text, tokens) for text in ("lower", "aaa", "and lower and", "écu sower", "")]


def _spell(word: str, id_of: Mapping[bytes, int], rule: AnyFunction) -> list[int]:
    """Merge the pieces of a word as long as a rule finds the index of a pair; return the ids."""
    pieces = single_bytes(word)
    while (i := rule(pieces, id_of)) is not None:
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return [id_of[piece] for piece in pieces]


def _encode(words: Iterable[str], tokens: Sequence[bytes], rule: AnyFunction) -> list[int]:
    id_of = {token: id for id, token in enumerate(tokens)}
    return [id for word in words for id in _spell(word, id_of, rule)]


def _merges(pieces: Sequence[bytes], id_of: Mapping[bytes, int]) -> list[tuple[int, int]]:
    """Return (id of the token, index of its left piece) of each pair that is a token."""
    return [(id_of[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in id_of]


def _longest_match(text: str, tokens: Sequence[bytes]) -> list[int]:
    id_of, ids = {token: id for id, token in enumerate(tokens)}, []
    for word in regex.findall(PATTERN, text):
        rest = word.encode("utf-8")
        while rest:
            longest = max((rest[:n] for n in range(1, len(rest) + 1) if rest[:n] in id_of), key=len)
            ids.append(id_of[longest])
            rest = rest[len(longest) :]
    return ids


def _leftmost_pair(text: str, tokens: Sequence[bytes]) -> list[int]:
    def rule(pieces: Sequence[bytes], id_of: Mapping[bytes, int]) -> int | None:
        return min((i for _, i in _merges(pieces, id_of)), default=None)

    return _encode(regex.findall(PATTERN, text), tokens, rule)


def _latest_token(text: str, tokens: Sequence[bytes]) -> list[int]:
    def rule(pieces: Sequence[bytes], id_of: Mapping[bytes, int]) -> int | None:
        return max(_merges(pieces, id_of), default=(0, None))[1]

    return _encode(regex.findall(PATTERN, text), tokens, rule)


def _rightmost_of_equal_pairs(text: str, tokens: Sequence[bytes]) -> list[int]:
    def rule(pieces: Sequence[bytes], id_of: Mapping[bytes, int]) -> int | None:
        merges = [(id, -i) for id, i in _merges(pieces, id_of)]
        return -min(merges)[1] if merges else None

    return _encode(regex.findall(PATTERN, text), tokens, rule)


def _one_merge(text: str, tokens: Sequence[bytes]) -> list[int]:
    def rule(pieces: Sequence[bytes], id_of: Mapping[bytes, int]) -> int | None:
        is_merged = any(len(piece) > 1 for piece in pieces)
        return None if is_merged else next_merge(pieces, id_of)

    return _encode(regex.findall(PATTERN, text), tokens, rule)


def _index_0_taken_for_none(text: str, tokens: Sequence[bytes]) -> list[int]:
    def rule(pieces: Sequence[bytes], id_of: Mapping[bytes, int]) -> int | None:
        return next_merge(pieces, id_of) or None

    return _encode(regex.findall(PATTERN, text), tokens, rule)


def _not_split(text: str, tokens: Sequence[bytes]) -> list[int]:
    return _encode([text], tokens, next_merge)


def _split_at_blanks(text: str, tokens: Sequence[bytes]) -> list[int]:
    return _encode(text.split(), tokens, next_merge)


ENCODE = Exercise(
    name="encode",
    title="Encoding: from a text to token ids",
    target="minigen.tokenizer:naive_encode",
    task="Split the text into words, spell each word in single bytes, and merge two neighbours as "
    "long as any two of them together are a token: of all such pairs, the one whose token was "
    "learnt first.",
    hints=(
        "regex.findall(PATTERN, text) gives the words, each with the blank before it. The id of a "
        "token is its index in `tokens`: make a dict from each token to its id.",
        "The two functions below in the file help: `single_bytes` spells a word, and `next_merge` "
        "finds the pair to merge. Call `next_merge` again after each merge, until it gives None.",
        "For each word: pieces = single_bytes(word); while (i := next_merge(pieces, id_of)) is not "
        "None: pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]. Then add the id of each piece.",
    ),
    theorems=(
        Theorem(
            "tests/test_tokenizer.py::test_naive_encoding_merges_within_words_only",
            "The ids of a text are those of its words, and no byte is lost",
            "is the text split with PATTERN, which keeps the blanks?",
        ),
        Theorem(
            "tests/test_tokenizer.py"
            "::test_a_word_is_spelled_by_the_merges_of_training_in_their_order",
            "A word has the spelling that it had at the end of training",
            "is the pair merged whose token has the smallest id, and of equal pairs the leftmost?",
        ),
        Theorem(
            "tests/test_tokenizer.py::test_encoding_is_naive_encoding",
            "The ids are those of the fast `Tokenizer.encode`, for any text",
            "are the merges repeated until no two neighbours are a token?",
        ),
    ),
    trial=_trial_of_encode,
    mistakes=(
        Mistake(
            _longest_match,
            "the longest token that fits is taken, from left to right: training did not spell the "
            "words so, and the model has hardly met this spelling; merge in the order of the ids",
        ),
        Mistake(
            _leftmost_pair,
            "the leftmost pair that is a token is merged: of all pairs, the one whose token has "
            "the smallest id comes first, wherever it stands",
        ),
        Mistake(
            _latest_token,
            "the pair whose token was learnt last is merged first: training made its merges in the "
            "order of the ids, so take the smallest id",
        ),
        Mistake(
            _rightmost_of_equal_pairs,
            "of several pairs that make the same token, the rightmost is merged: training merged "
            "from left to right, so 'aaa' is 'aa' and 'a'",
        ),
        Mistake(
            _one_merge,
            "each word gets one merge only: tokens of three or more bytes need several, so repeat "
            "until no two neighbours are a token",
        ),
        Mistake(
            _index_0_taken_for_none,
            "a word is left when its first two pieces are to be merged: their index is 0, which "
            "`while i:` takes for False; compare it with None",
        ),
        Mistake(
            _not_split,
            "the text is not split into words: then a pair may cross two words, and training never "
            "made such a merge",
        ),
        Mistake(
            _split_at_blanks,
            "the text is split at its blanks, which are lost: decode(encode(text)) must be the "
            "text, so take the words of PATTERN, which keep their blanks",
        ),
    ),
)

# ---- loss ----


def _trial_of_loss(loss: AnyFunction) -> list[Tensor]:
    """Return the losses of usual logits, of logits in bfloat16, and of logits of thousands."""
    logits = 3 * torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([[0, 4, NOT_SCORED], [2, NOT_SCORED, 1]])
    return [loss(x, targets) for x in (logits, logits.bfloat16(), 1000 * logits)]


def _sum_at_targets(log_p: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of -log_p (B, T, V) at the targets (B, T) that are scored."""
    at_targets = log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -at_targets[targets != NOT_SCORED].sum()


def _softmax_over_positions(logits: Tensor, targets: Tensor) -> Tensor:
    return _sum_at_targets(logits.float().log_softmax(1), targets)


def _mean(logits: Tensor, targets: Tensor) -> Tensor:
    n_scored = (targets != NOT_SCORED).sum()
    return _sum_at_targets(logits.float().log_softmax(-1), targets) / n_scored


def _log_of_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    return _sum_at_targets(logits.float().softmax(-1).log(), targets)


def _exp_of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    powers = logits.float().exp()
    return _sum_at_targets((powers / powers.sum(-1, keepdim=True)).log(), targets)


def _all_scored(logits: Tensor, targets: Tensor) -> Tensor:
    last_if_not_scored = targets % logits.shape[-1]  # the id -1 counts from the end
    return _sum_at_targets(logits.float().log_softmax(-1), last_if_not_scored)


def _in_bits(logits: Tensor, targets: Tensor) -> Tensor:
    return _sum_at_targets(logits.float().log_softmax(-1), targets) / math.log(2)


def _without_minus(logits: Tensor, targets: Tensor) -> Tensor:
    return -_sum_at_targets(logits.float().log_softmax(-1), targets)


def _without_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    return _sum_at_targets(logits.float(), targets)


def _in_bfloat16(logits: Tensor, targets: Tensor) -> Tensor:
    return _sum_at_targets(logits.log_softmax(-1), targets)


LOSS = Exercise(
    name="loss",
    title="The loss: how surprised the model is by the text",
    target="minigen.loss:next_token_loss",
    task="Turn the logits of each position into ln of probabilities, take the one of the target, "
    "and return the sum of -ln p(target) over all targets that are scored. minigen's body is one "
    "call of F.cross_entropy: write it out, in float32, and so that logits of 1000 give no "
    "infinity.",
    hints=(
        "ln of the softmax is x - ln(sum of exp(x)), over the last axis. exp(1000) is infinite, "
        "but ln(sum of exp(x)) = m + ln(sum of exp(x - m)) for any m: take the largest logit as m. "
        "logits.logsumexp(-1) and logits.log_softmax(-1) do so.",
        "log_p.gather(-1, targets[..., None])[..., 0] takes the number at each target, (B, T). It "
        "refuses an index below 0, so replace NOT_SCORED first: targets.clamp(min=0).",
        "log_p = logits.float().log_softmax(-1); then gather as above, and -torch.where(targets == "
        "NOT_SCORED, 0, the gathered numbers).sum().",
    ),
    theorems=(
        Theorem(
            "tests/test_loss.py::test_a_model_that_knows_nothing_has_a_loss_of_ln_v_a_token",
            "If all V tokens are equally probable, each target costs ln V nats",
            "is the softmax over the V tokens, the logarithm natural, and the sign minus?",
        ),
        Theorem(
            "tests/test_loss.py::test_the_loss_is_ln_of_one_over_the_probability_of_each_target",
            "Each target costs ln of (the sum of all e^logit, over e^logit of the target)",
            "is the number taken at the target, and the softmax over the last axis?",
        ),
        Theorem(
            "tests/test_loss.py::test_the_losses_of_parts_add_up_to_that_of_the_whole",
            "The losses of the rows of a batch add up to the loss of the batch",
            "is the result a sum, or a mean?",
        ),
        Theorem(
            "tests/test_loss.py::test_a_token_that_is_not_scored_costs_nothing",
            "A target of NOT_SCORED adds nothing",
            "is the last token of the vocabulary scored in place of NOT_SCORED, which is -1?",
        ),
        Theorem(
            "tests/test_loss.py::test_logits_of_thousands_give_a_finite_loss",
            "Logits of thousands give the true loss, neither inf nor NaN",
            "is exp taken of a large number, or the logarithm of 0?",
        ),
        Theorem(
            "tests/test_loss.py::test_logits_in_bfloat16_are_added_up_in_float32",
            "Logits in bfloat16 give the loss of these logits in float32",
            "are the logits turned into float32 first?",
        ),
        Theorem(
            "tests/test_loss.py::test_the_gradient_is_the_probability_less_1_at_the_target",
            "The gradient of a logit is the token's probability, less 1 for the target",
            "is the loss computed by functions of PyTorch only, from the softmax of the logits?",
        ),
    ),
    trial=_trial_of_loss,
    mistakes=(
        Mistake(
            _softmax_over_positions,
            "the softmax is over the positions, axis 1: the probabilities of the V tokens at each "
            "position must have the sum 1, so it is over the last axis",
        ),
        Mistake(
            _mean,
            "the result is the mean: the losses of micro-batches of unequal sizes then do not add "
            "up; return the sum, and the caller divides",
        ),
        Mistake(
            _log_of_softmax,
            "the logarithm is taken of the softmax: a probability below 1e-45 is 0 in float32, and "
            "its logarithm is infinite; log_softmax computes both in one",
        ),
        Mistake(
            _exp_of_logits,
            "for large logits the sum is NaN: exp(89) is infinite in float32, and inf / inf is "
            "NaN; or ln 0 is multiplied by a mask, and inf * 0 is NaN; subtract the largest logit "
            "first, and take the logarithm of the sum of exp, not of the softmax",
        ),
        Mistake(
            _all_scored,
            "NOT_SCORED is scored: it is -1, which as an index means the last token of the "
            "vocabulary; put 0 in the place of these losses",
        ),
        Mistake(
            _in_bits,
            "the logarithm has the base 2: the loss is in nats, so use the natural logarithm; a "
            "model that knows nothing has a loss of ln V a token",
        ),
        Mistake(
            _without_minus,
            "the minus is missing: ln of a probability is below 0, and training would make the "
            "targets less probable",
        ),
        Mistake(
            _without_softmax,
            "the softmax is missing: -logit falls without end if all logits grow; subtract ln(sum "
            "of exp) of the logits",
        ),
        Mistake(
            _in_bfloat16,
            "the logits stay in bfloat16, which has 3 digits: the losses of many tokens add up to "
            "a wrong sum; call logits.float() first",
        ),
    ),
)

EXERCISES = (MERGES, ENCODE, LOSS)
