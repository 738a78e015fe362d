"""How gradients become new weights: the learning-rate schedule, AdamW, and Muon for matrices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minigen.errors import UserError


def rate_at(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    """Return the share of the full learning rate at `step`: it rises, stays, and falls at the end.

    It rises because the first averages are of few, noisy gradients. It falls, over the last
    `cooldown` of the steps, because at a constant rate the weights end up circling around the best
    ones, and smaller steps let them settle.

    Steps count from 0. The first step already trains, and the last one is not wasted at zero:

    >>> [round(rate_at(s, max_steps=8, warmup_steps=2, cooldown=0.5), 2) for s in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]

    While the number of steps is not known yet (max_steps = 0), nothing falls.
    """
    up = (step + 1) / max(warmup_steps, 1)
    down = (max_steps - step) / max(cooldown * max_steps, 1) if max_steps else 1.0
    return min(up, 1.0, down)


@dataclass(frozen=True)
class Schedule:
    """The learning-rate schedule of a run, which may end earlier or later than was planned."""

    max_steps: int  # the run's last step; 0 while it is not known yet
    cooldown: float  # the share of the steps since `origin`, at the end, over which the rate falls
    warmup_steps: int
    origin: int = 0  # the step that warm-up begins at; above 0 where a run that had ended resumed

    def share(self, step: int) -> float:
        """Return the share of the full learning rate at `step`; see `rate_at`."""
        n_steps = self.max_steps - self.origin if self.max_steps else 0
        return rate_at(step - self.origin, n_steps, self.warmup_steps, self.cooldown)

    def ending_at(self, max_steps: int, step: int) -> Schedule:
        """Return the schedule of a run that has taken `step` steps and now ends at `max_steps`.

        If the rate has not fallen yet, the schedule is that of a run planned so from its beginning.
        If it has, it falls from where it is to the new end, without a jump.
        """
        taken, n_steps = step - self.origin, max_steps - self.origin
        share = replace(self, warmup_steps=0).share(step)
        falls = share < 1 or taken > (1 - self.cooldown) * n_steps
        if not self.cooldown or not falls or n_steps <= taken:
            return replace(self, max_steps=max_steps)
        return replace(self, max_steps=max_steps, cooldown=(n_steps - taken) / share / n_steps)

    def again(self, step: int, cooldown: float) -> Schedule:
        """Return the schedule of a run that has ended at `step` and is to be trained further.

        The rate has fallen to its end, and with it nothing more would be learnt: it rises once
        more, and falls at an end that is not known yet.
        """
        return Schedule(0, cooldown, self.warmup_steps, step)


def newton_schulz(m: Tensor, steps: int = 5) -> Tensor:
    """Return matrices (n, rows, columns) with the same singular vectors and values of about 1.

    A Newton-Schulz iteration pushes every singular value s through a s + b s^3 + c s^5 until it
    lies in about [0.7, 1.2]; the three numbers trade exactness for speed (Jordan et al. 2024,
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


class Optimizer:
    """One step of Muon for the matrices inside the blocks, and of AdamW for all the rest.

    AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) scales each weight's step by how noisy its
    own gradient is. Muon looks at a matrix as a whole: it moves along the momentum with all
    singular values set to one, so that rare directions learn as fast as common ones. Its step is
    scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982), which is why one learning
    rate serves both.

    Args:
        parameters: (name, parameter) pairs, as `model.named_parameters()` gives them.
        muon: False trains everything with AdamW.
        weight_decay: pull of matrices towards zero, per unit of learning rate.
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
        self.adamw: dict[str, nn.Parameter] = {}
        # By shape, so that matrices of one shape are one batched product.
        self.muon: dict[tuple[int, int], dict[str, nn.Parameter]] = defaultdict(dict)
        # By the names that optimizer.safetensors has: mean is exp_avg, square is exp_avg_sq.
        self.state: dict[str, Tensor] = {}
        for name, p in parameters:
            if muon and p.ndim == 2 and ".blocks." in f".{name}":
                self.muon[(p.shape[0], p.shape[1])][name] = p
                self.state[f"{name}.momentum"] = torch.zeros_like(p)
            else:
                self.adamw[name] = p
                self.state[f"{name}.mean"] = torch.zeros_like(p)
                self.state[f"{name}.square"] = torch.zeros_like(p)

    def load(self, state: Mapping[str, Tensor], step_count: int) -> None:
        """Continue from the `state` after `step_count` steps, for the same parameters.

        Raises `UserError` if `state` has other names or shapes.
        """
        shapes = {name: t.shape for name, t in self.state.items()}
        if shapes != {name: t.shape for name, t in state.items()}:
            raise UserError("the optimiser's state is not that of this model and --optimizer")
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
        self.step_count = step_count

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every parameter by its gradient, which is then dropped.

        A parameter without a gradient, because it is frozen or was not used, stays as it is.
        """
        self.step_count += 1
        for name, p in self.adamw.items():
            if p.grad is not None:
                self._adamw(name, p, p.grad, rate)
        for group in self.muon.values():
            if moving := {name: p for name, p in group.items() if p.grad is not None}:
                self._muon(moving, rate)
        for group in (self.adamw, *self.muon.values()):
            for p in group.values():
                p.grad = None

    def _adamw(self, name: str, p: nn.Parameter, gradient: Tensor, rate: float) -> None:
        beta1, beta2 = self.betas
        exp_avg, exp_avg_sq = self.state[f"{name}.mean"], self.state[f"{name}.square"]
        exp_avg.lerp_(gradient, 1 - beta1)
        exp_avg_sq.lerp_(gradient.square(), 1 - beta2)
        # Both averages start at zero; dividing by 1 - beta^t undoes that.
        noise = (exp_avg_sq / (1 - beta2**self.step_count)).sqrt_().add_(1e-8)
        if p.ndim == 2:  # a gain that is pulled towards zero would switch its channel off
            p.mul_(1 - rate * self.weight_decay)
        p.addcdiv_(exp_avg, noise, value=-rate / (1 - beta1**self.step_count))

    def _muon(self, group: dict[str, nn.Parameter], rate: float) -> None:
        directions = []
        for name, p in group.items():
            assert p.grad is not None
            momentum = self.state[f"{name}.momentum"]
            momentum.lerp_(p.grad, 1 - self.momentum)
            directions.append(p.grad.lerp(momentum, self.momentum))  # Nesterov: look one step ahead
        orthogonal = self.orthogonalise(torch.stack(directions))  # (n, rows, columns)
        # Such a matrix has entries of about 1 / sqrt(longer side); AdamW's steps are about 0.2.
        scale = 0.2 * max(orthogonal.shape[-2:]) ** 0.5
        for p, direction in zip(group.values(), orthogonal, strict=True):
            p.mul_(1 - rate * self.weight_decay)
            p.add_(direction, alpha=-rate * scale)
