"""How gradients become new weights: the learning-rate schedule, AdamW, and Muon for matrices.

Tests named in parentheses are in tests/test_optim.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from minigen.errors import UserError


def lr_factor(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    """Return the factor, above 0 and at most 1, of the highest learning rate at `step`.

    Warm-up: the factor rises over `warmup_steps`, because the optimiser's first averages are of
    few, noisy gradients, and full steps along them can spoil the weights for good.

    Cooldown: the factor falls over the last share `cooldown` (0 to 0.9) of the steps. At a constant
    learning rate the weights end up circling around the best ones, as each batch pulls them another
    way; smaller and smaller steps let them settle. Between the two the factor is 1.

    Steps count from 0. The factor is never 0, so that no step is wasted (test_lr_is_a_trapezoid):

    >>> [round(lr_factor(s, max_steps=8, warmup_steps=2, cooldown=0.5), 2) for s in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]

    If the number of steps is not known yet, max_steps is 0, and the factor does not fall.
    """
    up = (step + 1) / max(warmup_steps, 1)
    down = (max_steps - step) / max(cooldown * max_steps, 1) if max_steps else 1.0
    return min(up, 1.0, down)


def newton_schulz(m: Tensor, steps: int = 5) -> Tensor:
    """Set the singular values of matrices (n, rows, columns) to about 1; keep their directions.

    A matrix stretches space along perpendicular directions, as many as its shorter side is long;
    its singular values are the factors. Muon needs all of them to be about 1: `Optimizer` says why,
    and may be read first.

    Finding them exactly (SVD) is slow. A Newton-Schulz iteration needs matrix products only: each
    round replaces every singular value s by a s + b s^3 + c s^5. Divided by the matrix's norm, the
    root of the sum of its squares, they start between 0 and 1. After five rounds those that began
    above 0.003 lie in 0.68 to 1.21; those that began smaller, mostly noise, end below 0.68
    (test_newton_schulz_makes_singular_values_about_1). The three numbers are chosen to grow small
    values fast, not to end exactly at 1 (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = m.shape[-2] <= m.shape[-1]
    # Products below are rows x rows, so make rows the short side.
    x = m if wide else m.mT.contiguous()
    x = x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s2 = x @ x.mT  # (n, rows, rows)
        s4 = torch.baddbmm(s2, s2, s2, beta=b, alpha=c)  # b s2 + c s2 s2, in one go
        x = torch.baddbmm(x, s4, x, beta=a)  # a x + s4 x
    return x if wide else x.mT


EMBEDDING_RATE = 2.0  # of an untied embedding, as a multiple of the learning rate


class Optimizer:
    """Step with Muon for the matrices inside the blocks, and with AdamW for all other parameters.

    The gradient of one batch is noisy: another batch would give another gradient. Both methods
    therefore keep running averages, which show the slope of the whole text better than one batch.

    AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) averages the gradient of each weight
    (exp_avg) and its square (exp_avg_sq), both corrected for their start at zero:

        weight -= learning_rate * exp_avg / (sqrt(exp_avg_sq) + 1e-8)

    A weight whose gradients agree moves by about learning_rate, however small they are; a weight
    whose gradients change sign, as most do, moves less.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) treats a matrix as a whole.
    The update of a matrix has a few large singular values, for directions that every batch asks
    for, and many small ones. Muon sets all of them to about 1, so that rare directions learn as
    fast as common ones. The momentum is a running average of the gradient; the newest gradient
    is then mixed in once more (Nesterov):

        direction = newton_schulz(0.95 * momentum + 0.05 * gradient)
        matrix -= learning_rate * 0.2 * sqrt(longer side) * direction

    The factor makes the step about as large as AdamW's usual step, 0.2 learning rates for a weight
    (Liu et al. 2025, arXiv:2502.16982), so that one learning rate serves both
    (test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest).

    The embedding, GPT-2's table of positions and lm_head stay with AdamW. A row of a table belongs
    to one token or position. A batch has a gradient for the rows of its own tokens only, unless the
    table is lm_head, too, so each row is learnt by itself; that suits AdamW, which treats each
    number by itself. For lm_head, AdamW works better in practice (Jordan et al. 2024).

    An embedding that is not lm_head, too, starts ten times larger than lm_head, so a step of the
    same size would change it ten times less. With Muon it has a learning rate of its own, twice as
    high (`EMBEDDING_RATE`; test_an_untied_embedding_takes_steps_twice_as_long).

    Weight decay pulls all matrices, tables included, towards zero before the step, in AdamW and in
    Muon, so that only weights which the text keeps asking for stay large. Gains and biases do not
    decay (test_adamw_is_that_of_pytorch): a gain of zero would switch its number off, and biases
    are too few to overfit.

        matrix -= learning_rate * weight_decay * matrix

    A weight that never had a gradient does not decay: the embedding of a token that the training
    text never has. It would become a vector of zeros. No model has learnt to pass over that, and if
    a new text has such a token, the loss of the tokens after it rises
    (test_an_embedding_without_a_gradient_stays_as_it_is).

    Args:
        parameters: (name, parameter) pairs, as `model.named_parameters()` gives them.
        muon: False trains everything with AdamW.
        weight_decay: the pull of matrices towards zero.
        betas: the shares of the old exp_avg and the old exp_avg_sq that each step keeps.
        momentum: the share of Muon's old momentum that each step keeps.
        orthogonalise: replaces `newton_schulz`, for example to share the work among processes.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        muon: bool = True,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
        orthogonalise: Callable[[Tensor], Tensor] = newton_schulz,
    ) -> None:
        self.weight_decay, self.betas, self.momentum = weight_decay, betas, momentum
        self.orthogonalise = orthogonalise
        self.step_count = 0
        self.rates = dict[str, float]()  # of parameters with a rate of their own, as a multiple
        self.adamw: dict[str, nn.Parameter] = {}
        # By shape: matrices of one shape are multiplied as one batch, which is faster.
        self.muon: dict[tuple[int, int], dict[str, nn.Parameter]] = defaultdict(dict)
        # The names are those in optimizer.safetensors, and PyTorch's.
        self.state: dict[str, Tensor] = {}
        for name, p in parameters:
            if muon and p.ndim == 2 and ".blocks." in f".{name}":
                self.muon[(p.shape[0], p.shape[1])][name] = p
                self.state[f"{name}.momentum"] = torch.zeros_like(p)
            else:
                self.adamw[name] = p
                self.state[f"{name}.exp_avg"] = torch.zeros_like(p)
                self.state[f"{name}.exp_avg_sq"] = torch.zeros_like(p)
        if muon and "lm_head.weight" in self.adamw:
            self.rates["embedding.weight"] = EMBEDDING_RATE

    def load(self, state: Mapping[str, Tensor], step_count: int) -> None:
        """Continue from the `state` that the same parameters had after `step_count` steps.

        The steps that follow are those of a run that never stopped, bit for bit
        (test_state_moves_to_another_optimiser). Raises `UserError` if `state` has other names or
        shapes.
        """
        shapes = {name: t.shape for name, t in self.state.items()}
        if shapes != {name: t.shape for name, t in state.items()}:
            raise UserError("the optimiser's state is not that of this model and --optimizer")
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
        self.step_count = step_count

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update every parameter that has a gradient, then clear all gradients.

        A parameter without a gradient, because it is frozen or was not used, stays as it is.
        """
        self.step_count += 1
        for name, p in self.adamw.items():
            if p.grad is not None:
                self._adamw(name, p, p.grad, learning_rate)
        for group in self.muon.values():
            if moving := {name: p for name, p in group.items() if p.grad is not None}:
                self._muon(moving, learning_rate)
        for group in (self.adamw, *self.muon.values()):
            for p in group.values():
                p.grad = None

    def _adamw(self, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float) -> None:
        """Move a parameter and its two averages by one step of AdamW."""
        learning_rate = learning_rate * self.rates.get(name, 1.0)
        beta1, beta2 = self.betas
        exp_avg, exp_avg_sq = self.state[f"{name}.exp_avg"], self.state[f"{name}.exp_avg_sq"]
        exp_avg.lerp_(gradient, 1 - beta1)
        exp_avg_sq.lerp_(gradient.square(), 1 - beta2)
        # Both averages start at zero, so they are too small at first, by the factor 1 - beta^t.
        rms = (exp_avg_sq / (1 - beta2**self.step_count)).sqrt_().add_(1e-8)  # root mean square
        if p.ndim == 2:  # a matrix, not a gain or a bias
            had_gradient = exp_avg_sq > 0  # (rows, columns), true or false
            p.mul_(1 - learning_rate * self.weight_decay * had_gradient)
        p.addcdiv_(exp_avg, rms, value=-learning_rate / (1 - beta1**self.step_count))

    def _muon(self, group: dict[str, nn.Parameter], learning_rate: float) -> None:
        """Move the matrices of one shape and their momentums by one step of Muon."""
        directions = []
        for name, p in group.items():
            assert p.grad is not None
            momentum = self.state[f"{name}.momentum"]
            momentum.lerp_(p.grad, 1 - self.momentum)
            directions.append(p.grad.lerp(momentum, self.momentum))  # Nesterov
        orthogonal = self.orthogonalise(torch.stack(directions))  # (n, rows, columns)
        # With singular values of 1 its entries are of size 1 / sqrt(longer side). AdamW moves a
        # weight by about 0.2 learning rates, in the root mean square over a matrix: less than 1,
        # as the gradients of most weights change sign.
        scale = 0.2 * max(orthogonal.shape[-2:]) ** 0.5
        for number, p in enumerate(group.values()):
            direction = orthogonal[number]
            p.mul_(1 - learning_rate * self.weight_decay)
            p.add_(direction, alpha=-learning_rate * scale)
