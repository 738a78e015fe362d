"""Look inside a model: where its heads look, and what each block adds to its prediction.

Two things happen inside a `GPT`. Attention moves information between tokens: `attention_weights`
shows how much each token takes from each earlier one, and `head_scores` finds heads with a known
task. Every block adds to the residual stream: `residual_stream` returns the stream and what was
added, and `logit_lens` shows which token the stream would predict after each block.

All functions look at the real modules while these compute. They leave the model as it was, and
compute in evaluation mode, without gradients. Tests: tests/test_inspect.py.

Shapes, everywhere in this file:
    L  n_layer     H  n_head           T  tokens of the text
    C  n_embd      V  vocab_size       D  head_dim
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minigen.model import GPT, Attention, Block, naive_weights

# Called after a module has computed: (module, its arguments, its result).
Look = Callable[[nn.Module, tuple[Any, ...], Any], None]


@contextmanager
def looking(model: GPT) -> Iterator[Callable[[nn.Module, Look], None]]:
    """Yield a function that lets a `Look` see a module compute; undo everything at the end."""
    modes = [(module, module.training) for module in model.modules()]
    hooks: list[RemovableHandle] = []

    def look_at(module: nn.Module, look: Look) -> None:
        hooks.append(module.register_forward_hook(look))

    try:
        model.eval()
        with torch.no_grad():
            yield look_at
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training


def read(model: GPT, ids: Sequence[int]) -> None:
    """Let the model read a text of at least one token.

    Raises `ValueError` if the text is empty or longer than the model's block_size.
    """
    if not len(ids):
        raise ValueError("the text has no token")
    device = model.embedding.weight.device
    last = torch.tensor([len(ids) - 1], device=device)  # spare the logits of all other tokens
    model(torch.tensor([list(ids)], device=device), at=last)


def blocks(model: GPT) -> list[Block]:
    """Return the blocks of a model, by their type."""
    return [block for block in model.blocks if isinstance(block, Block)]


# ---- attention ----


def queries_keys_values(model: GPT, ids: Sequence[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the queries (H, T, D), keys and values (Hk, T, D) of each layer.

    They are as attention uses them: after the norms of queries and keys and after RoPE, if the
    model has these, and in the model's number format. Hk is n_kv_head.
    """
    found = list[tuple[Tensor, Tensor, Tensor]]()

    def look(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        assert isinstance(module, Attention)
        q, k, v = module.queries_keys_values(*args[:2])
        found.append((q[0], k[0], v[0]))

    with looking(model) as look_at:
        for block in blocks(model):
            look_at(block.attention, look)
        read(model, ids)
    return found


def layer_weights(model: GPT, ids: Sequence[int]) -> Iterator[Tensor]:
    """Yield the attention weights of each layer, (H, T, T) in float32, by the written formula.

    In row i of a head stand the shares that token i takes from the values of tokens 0 ... i. The
    weights of one layer exist at a time: those of GPT-2's 12 layers need 600 MB at 1024 tokens.
    """
    for q, k, _ in queries_keys_values(model, ids):
        # A key head serves several neighbouring query heads; give each a copy.
        q, k = q.float(), k.float()
        yield naive_weights(q, k.repeat_interleave(len(q) // len(k), dim=0))


def attention_weights(model: GPT, ids: Sequence[int]) -> Tensor:
    """Return the attention weights of all layers, (L, H, T, T); see `layer_weights`."""
    return torch.stack(list(layer_weights(model, ids)))


def without_sink(weights: Tensor) -> Tensor:
    """Set the weight of token 0 to zero, and scale the rest of each row to the sum 1.

    Weights must add up to 1, so a head that finds nothing gives its weight to some token. In many
    models this is the first one, the attention sink (Xiao et al. 2023, arXiv:2309.17453), beside
    which no other weight can be seen. A row without any other weight becomes zeros; that of token 0
    always does.
    """
    rest = weights.clone()
    rest[..., 0] = 0
    return rest / rest.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)


def previous_token_score(weights: Tensor) -> Tensor:
    """Return the mean weight of tokens 1, 2, ... on the token before each: (..., T, T) -> (...).

    A head with a score near 1 copies from the previous token (Elhage et al. 2021, A Mathematical
    Framework for Transformer Circuits). The score of a text of one token is 0.
    """
    return mean(weights.diagonal(offset=-1, dim1=-2, dim2=-1))


def first_token_score(weights: Tensor) -> Tensor:
    """Return the mean weight of tokens 1, 2, ... on token 0, the sink: (..., T, T) -> (...).

    The score of a text of one token is 0.
    """
    return mean(weights[..., 1:, 0])


def mean(x: Tensor) -> Tensor:
    """Return the mean over the last axis; 0 if that is empty."""
    return x.sum(dim=-1) / max(1, x.shape[-1])


def induction_scores(
    model: GPT, n_vocab: int | None = None, n_tokens: int = 64, seed: int = 0
) -> Tensor:
    """Return how strongly each head continues a repetition, (L, H).

    An induction head looks for an earlier occurrence of the present token, and looks at the token
    after it, so that the model can predict that token again (Olsson et al. 2022, arXiv:2209.11895).
    The model reads n random tokens twice. No token occurs twice in n and none is likely after
    another, so only repetition helps. The score is the mean weight from the second copy of a token
    onto the token after its first copy.

    Args:
        n_vocab: draw ids below this number; None: from the model's vocabulary.
        n_tokens: n; fewer if block_size or the vocabulary is smaller. Scores are 0 for n = 1.
    """
    c = model.config
    n_vocab = n_vocab or c.vocab_size
    n = min(n_tokens, c.block_size // 2, n_vocab)
    if n < 2:
        return torch.zeros(c.n_layer, c.n_head)
    ids = torch.randperm(n_vocab, generator=torch.Generator().manual_seed(seed))[:n].tolist()
    # Token i = n + j is the second copy of token j; token j + 1 = i - (n - 1) follows the first.
    diagonals = [
        weights[:, n:].diagonal(offset=1, dim1=-2, dim2=-1)
        for weights in layer_weights(model, [*ids, *ids])
    ]
    return torch.stack([mean(diagonal) for diagonal in diagonals])


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Three scores of each head, (L, H), from 0 to 1, by the functions of these names."""

    previous: Tensor
    first: Tensor
    induction: Tensor


def head_scores(model: GPT, ids: Sequence[int], seed: int = 0) -> HeadScores:
    """Return the scores of all heads: two on a text, induction on random tokens."""
    scores = [(previous_token_score(w), first_token_score(w)) for w in layer_weights(model, ids)]
    previous, first = map(torch.stack, zip(*scores, strict=True))
    return HeadScores(previous, first, induction_scores(model, seed=seed))


# ---- the residual stream ----


@dataclass(frozen=True, eq=False)
class Stream:
    """The residual stream of a text, in the model's number format.

    x: (L + 1, T, C), before the first block and after each block.
    attention, mlp: (L, T, C), the vectors that each block adds: x[l + 1] is
        x[l] + attention[l] + mlp[l].
    """

    x: Tensor
    attention: Tensor
    mlp: Tensor

    def norms(self) -> dict[str, Tensor]:
        """Return the length of each vector: x (L + 1, T), attention and mlp (L, T)."""
        return {name: vectors.float().norm(dim=-1) for name, vectors in vars(self).items()}


def residual_stream(model: GPT, ids: Sequence[int]) -> Stream:
    """Return the residual stream of a text, and the vectors that attention and MLP add to it."""
    x, attention, mlp = list[Tensor](), list[Tensor](), list[Tensor]()
    with looking(model) as look_at:
        look_at(blocks(model)[0], lambda module, args, result: x.append(args[0][0]))
        for block in blocks(model):
            look_at(block.attention, lambda module, args, result: attention.append(result[0]))
            look_at(block.mlp, lambda module, args, result: mlp.append(result[0]))
            look_at(block, lambda module, args, result: x.append(result[0]))
        read(model, ids)
    return Stream(torch.stack(x), torch.stack(attention), torch.stack(mlp))


def logit_lens(model: GPT, x: Tensor) -> Iterator[Tensor]:
    """Yield the logits (T, V) that the model would give if each layer were its last.

    The lens (nostalgebraist 2020, Interpreting GPT: the Logit Lens) sends the stream of each layer
    through the last norm and the head, which were trained for the last layer only. So it is an
    approximation; only its last logits are the model's. One layer is computed at a time: all
    logits of GPT-2 would need 2.7 GB at 1024 tokens.

    >>> stream = residual_stream(model, ids)                           # doctest: +SKIP
    >>> for logits in logit_lens(model, stream.x[:, -1:]):             # doctest: +SKIP
    ...     print(logits.argmax())  # the guess after the last token

    Args:
        x: of a `Stream`, all or some of its layers and tokens, (layers, tokens, C).
    """
    for layer in x:
        with looking(model):
            logits = model.head(layer).float()
        yield logits


# ---- shapes ----


def shapes(model: GPT, ids: Sequence[int]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the shapes of the input and of the result of each module, by the module's name.

    The model reads the text once; logits are those of the last token. The model itself is named
    GPT, and its modules are named as in a checkpoint, such as "blocks.0.attention.query".
    """
    seen = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]()
    with looking(model) as look_at:
        for name, module in model.named_modules():

            def look(_: nn.Module, args: tuple[Any, ...], y: Any, name: str = name) -> None:
                seen[name or "GPT"] = (tuple(args[0].shape), tuple(y.shape))

            look_at(module, look)
        read(model, ids)
    return seen
