"""The exercises on minigen/sampling.py and minigen/files/lora.py: use a model, and fine-tune it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.files.lora import pair
from minigen.learn.exercise import AnyFunction, Exercise, Mistake, Theorem

# ---- top-k ----


def _trial_of_top_k(top_k: AnyFunction) -> list[Tensor]:
    """Return the logits of a row with ties and of a row of smaller logits, for several k."""
    x = torch.tensor([[1.0, 5.0, 3.0, 3.0, 2.0], [-4.0, -1.0, -2.0, -3.0, -5.0]])
    return [top_k(x, k) for k in (1, 2, 4)]


def _kth(logits: Tensor, k: int) -> Tensor:
    """Return the k-th largest logit of each row, (B, 1)."""
    return logits.topk(k).values[..., -1:]


def _exactly_k(logits: Tensor, k: int) -> Tensor:
    best, ids = logits.topk(k)
    return torch.full_like(logits, -math.inf).scatter(-1, ids, best)


def _one_more(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < _kth(logits, min(k + 1, logits.shape[-1])), -math.inf)


def _one_less(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits <= _kth(logits, k), -math.inf)


def _smallest(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits > -_kth(-logits, k), -math.inf)


def _zeros(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < _kth(logits, k), 0)


def _of_whole_batch(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < _kth(logits.flatten(), k), -math.inf)


TOP_K = Exercise(
    name="top_k",
    title="Top-k: draw from the k most probable tokens only",
    target="minigen.sampling:top_k",
    task="Put -inf in the place of all logits of a row but its k largest. Logits that are equal to "
    "the smallest of these k stay, too.",
    hints=(
        "The logits are (B, V), and each row has its own k largest: logits.topk(k) finds them "
        "along the last axis.",
        "The last of logits.topk(k).values is the k-th largest logit. Take it as [..., -1:], so "
        "that its shape (B, 1) fits beside (B, V).",
        "A token is cut if its logit is smaller than that one: masked_fill(logits < kth, "
        "-math.inf). With < and not <=, the k-th itself and its ties stay.",
    ),
    theorems=(
        Theorem(
            "tests/test_sampling.py::test_top_k_leaves_the_k_most_probable_tokens_of_each_row",
            "Of different logits, the k largest of each row stay as they are",
            "are the logits of each row compared with the k-th largest of the same row?",
        ),
        Theorem(
            "tests/test_sampling.py::test_top_k_leaves_ties_with_the_last_of_the_k_tokens",
            "Tokens that are as probable as the k-th stay",
            "is a logit cut only if it is smaller than the k-th largest?",
        ),
        Theorem(
            "tests/test_sampling.py::test_a_token_that_is_cut_has_the_probability_0[k]",
            "A token that is cut has the probability 0",
            "is a logit that is cut -inf? exp(-inf) is 0, and exp(0) is 1.",
        ),
    ),
    trial=_trial_of_top_k,
    mistakes=(
        Mistake(
            _exactly_k,
            "exactly k tokens stay: of tokens that are equally probable, chance would decide which "
            "ones are cut; keep all that are not below the k-th largest",
        ),
        Mistake(
            _one_more,
            "k + 1 tokens stay: the index of the k-th largest is k - 1, since indices begin at 0",
        ),
        Mistake(
            _one_less,
            "the k-th largest logit is cut, too, and for k = 1 all tokens are: compare with <, not "
            "<=",
        ),
        Mistake(
            _smallest,
            "the k smallest logits stay, and the model writes its least probable tokens: topk "
            "finds the largest, and a sort begins with the smallest",
        ),
        Mistake(
            _zeros,
            "a token that is cut gets the logit 0, whose exp is 1, more than that of any logit "
            "below 0: give it -inf",
        ),
        Mistake(
            _of_whole_batch,
            "the k largest are those of the whole batch, so a row of small logits loses all its "
            "tokens: compare each row with its own k-th largest",
        ),
    ),
)

# ---- top-p ----


def _trial_of_top_p(top_p: AnyFunction) -> list[Tensor]:
    """Return the logits of rows in three orders, with ties, for a small, a usual and a large p."""
    chances = [[0.1, 0.4, 0.05, 0.3, 0.15], [0.05, 0.6, 0.1, 0.05, 0.2], [0.2, 0.2, 0.2, 0.2, 0.2]]
    return [top_p(torch.tensor(chances).log(), p) for p in (1e-9, 0.45, 0.77)]


def _cut(logits: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return for each token, the least probable first, whether top-p cuts it; and its id."""
    ordered, ids = logits.sort(dim=-1, stable=True)
    cut = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    cut[..., -1] = False
    return cut, ids


def _last_one_lost(logits: Tensor, p: float) -> Tensor:
    ordered, ids = logits.sort(dim=-1, descending=True)
    cut = ordered.softmax(dim=-1).cumsum(dim=-1) > p
    return logits.masked_fill(cut.scatter(-1, ids, cut), -math.inf)


def _best_one_lost(logits: Tensor, p: float) -> Tensor:
    ordered, ids = logits.sort(dim=-1, stable=True)
    cut = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    return logits.masked_fill(cut.scatter(-1, ids, cut), -math.inf)


def _order_not_undone(logits: Tensor, p: float) -> Tensor:
    return logits.masked_fill(_cut(logits, p)[0], -math.inf)


def _least_probable(logits: Tensor, p: float) -> Tensor:
    ordered, ids = logits.sort(dim=-1, stable=True)
    chances = ordered.softmax(dim=-1)
    cut = chances.cumsum(dim=-1) - chances >= p
    return logits.masked_fill(cut.scatter(-1, ids, cut), -math.inf)


def _one_less_p(logits: Tensor, p: float) -> Tensor:
    cut, ids = _cut(logits, 1 - p)
    return logits.masked_fill(cut.scatter(-1, ids, cut), -math.inf)


def _not_added_up(logits: Tensor, p: float) -> Tensor:
    chances = logits.softmax(dim=-1)
    cut = (chances <= 1 - p) & (chances < chances.amax(dim=-1, keepdim=True))
    return logits.masked_fill(cut, -math.inf)


def _logits_added_up(logits: Tensor, p: float) -> Tensor:
    ordered, ids = logits.sort(dim=-1, stable=True)
    cut = ordered.cumsum(dim=-1) <= 1 - p
    cut[..., -1] = False
    return logits.masked_fill(cut.scatter(-1, ids, cut), -math.inf)


def _highest_ids_cut(logits: Tensor, p: float) -> Tensor:
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    chances = ordered.softmax(dim=-1)
    cut = chances.cumsum(dim=-1) - chances >= p
    return logits.masked_fill(cut.scatter(-1, ids, cut), -math.inf)


TOP_P = Exercise(
    name="top_p",
    title="Top-p: draw from the fewest tokens that reach a probability",
    target="minigen.sampling:top_p",
    task="Order the tokens of each row by their probability, and cut the least probable ones as "
    "long as their probabilities add up to at most 1 - p: put -inf in their place. The most "
    "probable token always stays.",
    hints=(
        "ordered, ids = logits.sort(dim=-1, stable=True) puts the least probable token first and, "
        "of equal ones, the lowest id. ordered.softmax(-1).cumsum(-1) adds the probabilities up.",
        "In that order, a token is cut if the sum up to and with it is at most 1 - p. For a tiny p "
        "rounding makes 1 - p equal to 1, so set cut[..., -1] = False for the last, the best one.",
        "The cuts are in the order of the sort: cut.scatter(-1, ids, cut) puts each at the id of "
        "its token. Then logits.masked_fill(that, -math.inf).",
    ),
    theorems=(
        Theorem(
            "tests/test_sampling.py::test_top_p_leaves_the_fewest_tokens_that_reach_p",
            "The tokens that stay reach p together, and with one less they would not",
            "do the probabilities of the least probable tokens add up to at most 1 - p, and is "
            "each cut at the id of its token?",
        ),
        Theorem(
            "tests/test_sampling.py::test_top_p_leaves_the_most_probable_token_for_the_smallest_p",
            "However small p is, the most probable token stays",
            "does the token stay that is the first to reach p, even if 1 - p is rounded to 1?",
        ),
        Theorem(
            "tests/test_sampling.py::test_top_p_cuts_the_lowest_ids_of_equal_tokens",
            "Of equally probable tokens, those with the lowest ids are cut",
            "is the sort stable, and does it begin with the least probable token?",
        ),
        Theorem(
            "tests/test_sampling.py::test_a_token_that_is_cut_has_the_probability_0[p]",
            "A token that is cut has the probability 0",
            "is a logit that is cut -inf?",
        ),
    ),
    trial=_trial_of_top_p,
    mistakes=(
        Mistake(
            _last_one_lost,
            "the token with which the sum passes p is cut: the tokens that stay must reach p, so "
            "it stays; else none is left where the most probable token alone has more than p",
        ),
        Mistake(
            _best_one_lost,
            "for a tiny p all tokens are cut: 1 - p is rounded to 1, and all probabilities add up "
            "to 1; never cut the most probable token",
        ),
        Mistake(
            _order_not_undone,
            "the order of the sort is not undone: the cuts belong to the sorted tokens, and hit "
            "other ids; scatter each to the id of its token",
        ),
        Mistake(
            _least_probable,
            "the least probable tokens stay: the sum runs from the wrong end, so add up from the "
            "most probable token to p, or from the least probable one to 1 - p",
        ),
        Mistake(
            _one_less_p,
            "p is the probability that stays, not the one that is cut: of the least probable "
            "tokens, at most 1 - p in all is cut",
        ),
        Mistake(
            _not_added_up,
            "each probability by itself is compared with 1 - p: many rare tokens may have most of "
            "the probability together, so compare their running sum, cumsum",
        ),
        Mistake(
            _logits_added_up,
            "the logits are added up: their sum says nothing; take the softmax first, whose "
            "numbers are probabilities",
        ),
        Mistake(
            _highest_ids_cut,
            "of equally probable tokens, the highest ids are cut: the docstring says the lowest; a "
            "stable sort from the least probable token does so",
        ),
    ),
)

# ---- draw ----


def _trial_of_draw(draw: AnyFunction) -> list[int]:
    """Return the tokens at borders and between them, and where the sum is below 1."""
    chances = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    tenths = torch.tensor([0.1] * 10 + [0.0, 0.0], dtype=torch.float64)
    largest = 1 - 2**-53
    return [*(draw(chances, u) for u in (0.0, 0.4, 0.5, 0.7, 0.9)), draw(tenths, largest)]


def _ends(probabilities: Tensor) -> Tensor:
    return probabilities.cumsum(dim=0)


def _left_side(probabilities: Tensor, u: float) -> int:
    ends = _ends(probabilities)
    return int(torch.searchsorted(ends, u * ends[-1]))


def _sum_taken_for_1(probabilities: Tensor, u: float) -> int:
    return int(torch.searchsorted(_ends(probabilities), u, right=True))


def _impossible_last(probabilities: Tensor, u: float) -> int:
    return min(_sum_taken_for_1(probabilities, u), len(probabilities) - 1)


def _most_probable(probabilities: Tensor, u: float) -> int:
    return int(probabilities.argmax())


def _token_before(probabilities: Tensor, u: float) -> int:
    ends = _ends(probabilities)
    return int(torch.searchsorted(ends, u * ends[-1], right=True)) - 1


def _not_cumulative(probabilities: Tensor, u: float) -> int:
    return int((probabilities > u).int().argmax())


def _equally_often(probabilities: Tensor, u: float) -> int:
    return int(u * len(probabilities))


DRAW = Exercise(
    name="draw",
    title="The draw: from a random number to a token",
    target="minigen.sampling:inverse_cdf",
    task="Lay the tokens side by side on a line, each as wide as its probability, and return the "
    "id of the token in which the number u falls. A token owns its left border, not its right.",
    hints=(
        "probabilities.cumsum(0) gives the right border of each token. The token at u is the first "
        "whose right border is larger than u.",
        "torch.searchsorted(ends, u, right=True) finds it; without right=True, it finds the first "
        "border that is not smaller than u, and a token of probability 0 may be drawn.",
        "Rounding makes the last border 0.9999999 or 1.0000001, and u may be larger: multiply u by "
        "ends[-1]. So: int(torch.searchsorted(ends, u * ends[-1], right=True)).",
    ),
    theorems=(
        Theorem(
            "tests/test_sampling.py::test_the_border_of_two_tokens_belongs_to_the_second",
            "A number on the border of two tokens draws the second, and never one without width",
            "is the token the first whose right border is larger than u, not equal to it?",
        ),
        Theorem(
            "tests/test_sampling.py"
            "::test_inverse_cdf_next_to_1_finds_a_token_although_the_sum_is_below_1",
            "The largest number draws a possible token, even if the sum is below 1 by rounding",
            "is u scaled to the length of the line, ends[-1]?",
        ),
        Theorem(
            "tests/test_sampling.py::test_tokens_are_drawn_as_often_as_they_are_probable",
            "In 8,000 draws each token comes as often as it is probable",
            "does the result depend on u, and on the sums of the probabilities?",
        ),
    ),
    trial=_trial_of_draw,
    mistakes=(
        Mistake(
            _left_side,
            "a number on a border draws the token before it, which may have the probability 0: "
            "it is the first whose right border is larger than u, not equal to it (searchsorted: "
            "right=True)",
        ),
        Mistake(
            _sum_taken_for_1,
            "the sum is taken for 1: rounding may leave it at 0.9999999, and a u beyond it draws "
            "an id that does not exist; multiply u by the sum",
        ),
        Mistake(
            _impossible_last,
            "a u beyond the sum draws the last id, even if its probability is 0: multiply u by the "
            "sum, and no u lies beyond it",
        ),
        Mistake(
            _most_probable,
            "the most probable token is returned, whatever u is: this is temperature 0, and all "
            "samples are alike",
        ),
        Mistake(
            _token_before,
            "the result is one too small, -1 for the first token: searchsorted with right=True "
            "counts the borders that are at most u, and this number is the token's id",
        ),
        Mistake(
            _not_cumulative,
            "u is compared with each probability by itself: compare it with the right borders, "
            "the running sum of the probabilities",
        ),
        Mistake(
            _equally_often,
            "all tokens are drawn equally often: the parts of the line must be as wide as the "
            "probabilities",
        ),
    ),
)

# ---- LoRA ----


def _trial_of_lora(add_product: AnyFunction) -> list[Tensor]:
    """Return the outputs of a square matrix with an adapter of its own size, and of a new one.

    All matrices are square, so that factors in a wrong order have a product, too.
    """
    generator = torch.Generator().manual_seed(1)
    x, a, b, weight = torch.randn(4, 3, 3, generator=generator)
    outputs = []
    for lora_b in (b, torch.zeros_like(b)):
        matrix = nn.Linear(3, 3, bias=False)
        matrix.weight = nn.Parameter(weight)
        matrix.register_parameter("lora_a", nn.Parameter(a))
        matrix.register_parameter("lora_b", nn.Parameter(lora_b))
        outputs.append(add_product(matrix, (x,), F.linear(x, weight)).detach())
    return outputs


def _output_lost(matrix: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    a, b = pair(matrix)
    return F.linear(F.linear(inputs[0], a), b)


def _b_first(matrix: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    a, b = pair(matrix)
    return output + inputs[0] @ b.T @ a.T


def _not_transposed(matrix: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    a, b = pair(matrix)
    return output + inputs[0] @ a @ b


def _product_not_transposed(matrix: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    a, b = pair(matrix)
    return output + inputs[0] @ (b @ a)


def _of_the_output(matrix: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    a, b = pair(matrix)
    return output + F.linear(F.linear(output, a), b)


def _scaled_again(matrix: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    a, b = pair(matrix)
    return output + F.linear(F.linear(inputs[0], a), b) / len(a)


LORA = Exercise(
    name="lora",
    title="LoRA: an adapter beside a matrix that is frozen",
    target="minigen.files.lora:_add_product",
    task="Add B A x to the output W x of a matrix. The scale is 1, since minigen trains with alpha "
    "= rank. Multiply x by the thin matrix A first, then by B: the product B A would be as large "
    "as W.",
    hints=(
        "pair(matrix) gives A, (rank, in), and B, (out, rank). x is inputs[0], (..., in): its "
        "vectors lie in rows, so A x of all of them is x @ A.T, (..., rank).",
        "F.linear(x, A) is x @ A.T. Call it twice: (..., in) -> (..., rank) -> (..., out).",
        "a, b = pair(matrix); the result is output + F.linear(F.linear(inputs[0], a), b).",
    ),
    theorems=(
        Theorem(
            "tests/test_lora.py::test_a_new_adapter_changes_nothing",
            "A new adapter, whose B is 0, leaves the logits as they are",
            "is the product added to the output of the frozen matrix?",
        ),
        Theorem(
            "tests/test_lora.py::test_the_adapter_adds_b_a",
            "The logits are those of a model with B A added to W",
            "is x multiplied by the transposed A, then by the transposed B, and not scaled?",
        ),
    ),
    trial=_trial_of_lora,
    mistakes=(
        Mistake(
            _output_lost,
            "the output of the frozen matrix is lost: the adapter changes W x and does not replace "
            "it, so add the product to `output`",
        ),
        Mistake(
            _b_first,
            "x is multiplied by B before A: B A x means A first, since the matrix next to x acts "
            "first; the shapes fit only if W is square",
        ),
        Mistake(
            _not_transposed,
            "A and B are not transposed: PyTorch stores a matrix as (out, in) and vectors in rows, "
            "so A x is x @ A.T",
        ),
        Mistake(
            _product_not_transposed,
            "B A is not transposed: vectors lie in rows, so B A x is x @ (B @ A).T",
        ),
        Mistake(
            _of_the_output,
            "the adapter reads W x: it stands beside the matrix, not after it, so multiply the "
            "input x by A",
        ),
        Mistake(
            _scaled_again,
            "the product is divided by the rank: the scale is alpha / rank, and alpha is the rank, "
            "so it is 1 already",
        ),
    ),
)

EXERCISES = (TOP_K, TOP_P, DRAW, LORA)
