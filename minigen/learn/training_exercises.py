"""The exercises on minigen/optim.py: how gradients become new weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minigen.learn.exercise import AnyFunction, Exercise, Mistake, Theorem
from minigen.optim import Optimizer

# ---- schedule ----


def _trial_of_factor(factor: AnyFunction) -> list[list[float]]:
    """Return the factors of a usual run, of one without a plateau, and of one without an end."""
    runs = ((12, 3, 0.25), (12, 9, 0.75), (0, 4, 0.6))  # max_steps, warmup_steps, cooldown
    return [[factor(step, *run) for step in range(12)] for run in runs]


def _from_zero(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    up = step / max(warmup_steps, 1)
    down = (max_steps - step) / max(cooldown * max_steps, 1) if max_steps else 1.0
    return min(up, 1.0, down)


def _to_zero(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    up = (step + 1) / max(warmup_steps, 1)
    down = (max_steps - 1 - step) / max(cooldown * max_steps, 1) if max_steps else 1.0
    return min(up, 1.0, down)


def _falls_from_the_start(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    up = (step + 1) / max(warmup_steps, 1)
    down = (max_steps - step) / max_steps if max_steps else 1.0
    return min(up, 1.0, down)


def _other_share(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    up = (step + 1) / max(warmup_steps, 1)
    down = (max_steps - step) / max((1 - cooldown) * max_steps, 1) if max_steps else 1.0
    return min(up, 1.0, down)


def _product(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    up = (step + 1) / max(warmup_steps, 1)
    down = (max_steps - step) / max(cooldown * max_steps, 1) if max_steps else 1.0
    return min(up, 1.0) * min(down, 1.0)


def _without_top(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    up = (step + 1) / max(warmup_steps, 1)
    down = (max_steps - step) / max(cooldown * max_steps, 1) if max_steps else up
    return min(up, down)


def _falls_at_once(step: int, max_steps: int, warmup_steps: int, cooldown: float) -> float:
    up = (step + 1) / max(warmup_steps, 1)
    down = (max_steps - step) / max(cooldown * max_steps, 1)
    return min(up, 1.0, down)


SCHEDULE = Exercise(
    name="schedule",
    title="The schedule: warm up, stay, cool down",
    target="minigen.optim:lr_factor",
    task="Return the factor of the highest learning rate at a step. It rises by equal amounts to 1 "
    "over the first warmup_steps steps, stays at 1, and falls by equal amounts over the last share "
    "`cooldown` of max_steps. Where warm-up and cooldown overlap, the lower of the two counts. The "
    "factor is above 0 at every step; if max_steps is 0, it never falls.",
    hints=(
        "Draw three lines over the steps: one that rises, one at 1, one that falls. The factor is "
        "the lowest of the three.",
        "Step 0 is the first of warmup_steps equal parts, so the rising line is (step + 1) / "
        "warmup_steps; warmup_steps may be 0, so divide by max(warmup_steps, 1). The last step is "
        "max_steps - 1.",
        "The falling line is (max_steps - step) / (cooldown * max_steps), with a divisor of at "
        "least 1; if max_steps is 0, take 1.0 in its place. Return min(up, 1.0, down).",
    ),
    theorems=(
        Theorem(
            "tests/test_optim.py::test_lr_is_a_trapezoid",
            "The factor rises, stays at 1 and falls, each for as many steps as it should",
            "at which step does each of the three parts begin, and with which value?",
        ),
        Theorem(
            "tests/test_optim.py::test_lr_before_the_number_of_steps_is_known",
            "The factor does not fall while the number of steps is not known",
            "what does the function return if max_steps is 0?",
        ),
        Theorem(
            "tests/test_optim.py::test_lr_where_warm_up_meets_cooldown",
            "Where warm-up and cooldown overlap, the lower of the two lines counts",
            "is the factor a minimum?",
        ),
        Theorem(
            "tests/test_optim.py::test_lr_of_the_shortest_runs",
            "Every step of a run has a factor above 0, even in a run of one step",
            "are both divisors at least 1, and is the last factor above 0?",
        ),
    ),
    trial=_trial_of_factor,
    mistakes=(
        Mistake(
            _from_zero,
            "the warm-up begins at 0: step 0 reads a batch and changes nothing, so it is wasted; "
            "begin with 1 / warmup_steps",
        ),
        Mistake(
            _to_zero,
            "the factor of the last step is 0: steps count from 0, so the last is max_steps - 1, "
            "and the falling line is to reach 0 one step after it",
        ),
        Mistake(
            _falls_from_the_start,
            "the factor falls from the first step on, as `cooldown` is not used: the falling line "
            "has to be at 1 where the last share of the steps begins",
        ),
        Mistake(
            _other_share,
            "the shares are exchanged: `cooldown` is the share of the steps in which the factor "
            "falls, and not the share before that",
        ),
        Mistake(
            _product,
            "the two lines are multiplied: where they overlap, the factor is lower than each of "
            "them; take the minimum",
        ),
        Mistake(
            _without_top,
            "nothing keeps the factor at 1 between warm-up and cooldown: the rising line "
            "continues above 1, to learning rates at which the run diverges",
        ),
        Mistake(
            _falls_at_once,
            "max_steps = 0 is taken for a run of no steps: it says that the number is not known "
            "yet, so the factor must stay at 1 after the warm-up",
        ),
    ),
)


# ---- adamw ----


def _trial_of_adamw(adamw: AnyFunction) -> list[Tensor]:
    """Return three parameters and their averages after four steps.

    The embedding has a rate of its own, lm_head has none, and the gain has gradients of 1e-6.
    """
    generator = torch.Generator().manual_seed(1)
    sizes = {"embedding.weight": 1.0, "lm_head.weight": 1.0, "norm.weight": 1e-6}  # of gradients
    parameters = {
        name: nn.Parameter(torch.randn((3, 2) if size == 1.0 else (2,), generator=generator))
        for name, size in sizes.items()
    }
    optimizer = Optimizer(parameters.items())
    with torch.no_grad():
        for step in range(1, 5):
            optimizer.step_count = step
            for name, p in parameters.items():
                gradient = sizes[name] * torch.randn(p.shape, generator=generator)
                adamw(optimizer, name, p, gradient, 0.1)
    return [*parameters.values(), *optimizer.state.values()]


def _averages(self: Optimizer, name: str, gradient: Tensor) -> tuple[Tensor, Tensor]:
    beta1, beta2 = self.betas
    exp_avg, exp_avg_sq = self.state[f"{name}.exp_avg"], self.state[f"{name}.exp_avg_sq"]
    exp_avg.lerp_(gradient, 1 - beta1)
    exp_avg_sq.lerp_(gradient.square(), 1 - beta2)
    return exp_avg, exp_avg_sq


def _corrected(self: Optimizer, name: str, gradient: Tensor) -> tuple[Tensor, Tensor]:
    averages, t = _averages(self, name, gradient), self.step_count
    exp_avg, exp_avg_sq = (x / (1 - b**t) for x, b in zip(averages, self.betas, strict=True))
    return exp_avg, exp_avg_sq


def _decay(self: Optimizer, p: nn.Parameter, rate: float) -> None:
    if p.ndim == 2:
        p.mul_(1 - rate * self.weight_decay)


def _without_correction(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    exp_avg, exp_avg_sq = _averages(self, name, gradient)
    _decay(self, p, rate)
    p.sub_(rate * exp_avg / (exp_avg_sq.sqrt() + 1e-8))


def _constant_correction(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    exp_avg, exp_avg_sq = _averages(self, name, gradient)
    beta1, beta2 = self.betas
    _decay(self, p, rate)
    p.sub_(rate * exp_avg / (1 - beta1) / ((exp_avg_sq / (1 - beta2)).sqrt() + 1e-8))


def _eps_inside(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    exp_avg, exp_avg_sq = _corrected(self, name, gradient)
    _decay(self, p, rate)
    p.sub_(rate * exp_avg / (exp_avg_sq + 1e-8).sqrt())


def _without_root(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    exp_avg, exp_avg_sq = _corrected(self, name, gradient)
    _decay(self, p, rate)
    p.sub_(rate * exp_avg / (exp_avg_sq + 1e-8))


def _decay_in_gradient(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    if p.ndim == 2:
        gradient = gradient + self.weight_decay * p
    exp_avg, exp_avg_sq = _corrected(self, name, gradient)
    p.sub_(rate * exp_avg / (exp_avg_sq.sqrt() + 1e-8))


def _without_decay(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    exp_avg, exp_avg_sq = _corrected(self, name, gradient)
    p.sub_(rate * exp_avg / (exp_avg_sq.sqrt() + 1e-8))


def _decays_all(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    exp_avg, exp_avg_sq = _corrected(self, name, gradient)
    p.mul_(1 - rate * self.weight_decay)
    p.sub_(rate * exp_avg / (exp_avg_sq.sqrt() + 1e-8))


def _decay_without_rate(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    exp_avg, exp_avg_sq = _corrected(self, name, gradient)
    _decay(self, p, 1.0)
    p.sub_(rate * exp_avg / (exp_avg_sq.sqrt() + 1e-8))


def _square_of_mean(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    beta1, beta2 = self.betas
    exp_avg, exp_avg_sq = self.state[f"{name}.exp_avg"], self.state[f"{name}.exp_avg_sq"]
    exp_avg.lerp_(gradient, 1 - beta1)
    exp_avg_sq.lerp_(exp_avg.square(), 1 - beta2)
    rms = (exp_avg_sq / (1 - beta2**self.step_count)).sqrt() + 1e-8
    _decay(self, p, rate)
    p.sub_(rate * exp_avg / (1 - beta1**self.step_count) / rms)


def _kept_for_new(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    beta1, beta2 = self.betas
    exp_avg, exp_avg_sq = self.state[f"{name}.exp_avg"], self.state[f"{name}.exp_avg_sq"]
    exp_avg.lerp_(gradient, beta1)
    exp_avg_sq.lerp_(gradient.square(), beta2)
    rms = (exp_avg_sq / (1 - beta2**self.step_count)).sqrt() + 1e-8
    _decay(self, p, rate)
    p.sub_(rate * exp_avg / (1 - beta1**self.step_count) / rms)


def _newest_gradient(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    rate = learning_rate * self.rates.get(name, 1.0)
    _, exp_avg_sq = _corrected(self, name, gradient)
    _decay(self, p, rate)
    p.sub_(rate * gradient / (exp_avg_sq.sqrt() + 1e-8))


def _without_own_rate(
    self: Optimizer, name: str, p: nn.Parameter, gradient: Tensor, learning_rate: float
) -> None:
    exp_avg, exp_avg_sq = _corrected(self, name, gradient)
    _decay(self, p, learning_rate)
    p.sub_(learning_rate * exp_avg / (exp_avg_sq.sqrt() + 1e-8))


ADAMW = Exercise(
    name="adamw",
    title="AdamW: a step of the same length for every weight",
    target="minigen.optim:Optimizer._adamw",
    task="Update the two running averages in self.state, name.exp_avg and name.exp_avg_sq, in "
    "place, with the shares self.betas of the old ones. Correct both for their start at zero, with "
    "self.step_count, which is 1 in the first step. Shrink p by the weight decay if it is a "
    "matrix, then move it by the formula in the class's docstring. The learning rate is multiplied "
    "by self.rates[name] where there is one.",
    hints=(
        "A running average keeps the share beta and takes the share 1 - beta of the new: "
        "exp_avg.lerp_(gradient, 1 - beta1). The other average is of gradient.square().",
        "After t equal gradients g, exp_avg is (1 - beta1**t) g, so divide by 1 - beta1**t: but "
        "only for this step, the state keeps the uncorrected averages. The same for exp_avg_sq.",
        "rate = learning_rate * self.rates.get(name, 1.0); if p.ndim == 2: p.mul_(1 - rate * "
        "self.weight_decay); then p.sub_(rate * corrected exp_avg / (sqrt of corrected exp_avg_sq "
        "+ 1e-8)).",
    ),
    theorems=(
        Theorem(
            "tests/test_optim.py::test_adamw_is_that_of_pytorch",
            "AdamW gives the weights of torch.optim.AdamW; only matrices decay",
            "are both averages right, corrected, and decay no part of the gradient?",
        ),
        Theorem(
            "tests/test_optim.py::test_adamw_takes_as_long_steps_for_small_gradients",
            "A weight whose gradients agree moves by one learning rate, however small they are",
            "where is 1e-8 added, and are the averages corrected?",
        ),
        Theorem(
            "tests/test_optim.py::test_an_untied_embedding_takes_steps_twice_as_long",
            "The embedding takes steps twice as long",
            "is the learning rate multiplied by self.rates[name]?",
        ),
    ),
    trial=_trial_of_adamw,
    mistakes=(
        Mistake(
            _without_correction,
            "the averages are not corrected for their start at zero: the square's is the slower, "
            "and so the first step is (1 - 0.9) / sqrt(1 - 0.95) = 0.45 learning rates long, not 1",
        ),
        Mistake(
            _constant_correction,
            "the averages are divided by 1 - beta, not by 1 - beta**t: that is right in step 1 "
            "only, since later the averages hardly remember their start",
        ),
        Mistake(
            _eps_inside,
            "the 1e-8 is added under the root, where it counts as 1e-4: weights with gradients "
            "smaller than that nearly stand still; add it to the root",
        ),
        Mistake(
            _without_root,
            "the step is divided by the mean square, not by its root: weights with small gradients "
            "then take giant steps, and those with large gradients none",
        ),
        Mistake(
            _decay_in_gradient,
            "weight decay is a part of the gradient (L2 regularisation, as in Adam): the division "
            "then changes its strength from weight to weight; AdamW shrinks p itself",
        ),
        Mistake(
            _without_decay,
            "weight decay is missing: matrices are pulled towards zero before the step",
        ),
        Mistake(
            _decays_all,
            "gains and biases decay, too: a gain of zero would switch its number off; test p.ndim",
        ),
        Mistake(
            _decay_without_rate,
            "the decay is not multiplied by the learning rate: with 0.1, p loses a tenth of its "
            "size in every step",
        ),
        Mistake(
            _square_of_mean,
            "exp_avg_sq averages the square of exp_avg: it shall average the square of the "
            "gradient, which stays large where gradients change sign, and so makes those steps "
            "short",
        ),
        Mistake(
            _kept_for_new,
            "the shares are exchanged: beta is the share of the old average that stays, so the new "
            "gradient gets 1 - beta",
        ),
        Mistake(
            _newest_gradient,
            "p moves along the newest gradient, not along exp_avg: one batch is noisy, and the "
            "average of several shows the slope of the whole text better",
        ),
        Mistake(
            _without_own_rate,
            "self.rates is ignored: the embedding has a learning rate of its own, a multiple of "
            "the common one",
        ),
    ),
)


# ---- newton_schulz ----


def _trial_of_newton_schulz(iterate: AnyFunction) -> list[Tensor]:
    """Return the results for two wide matrices of unequal size, a tall one and a square one."""
    generator = torch.Generator().manual_seed(1)
    # float64: an iteration that multiplies in another order still gives the same numbers.
    shapes = ((2, 3, 5), (1, 5, 3), (1, 3, 3))
    wide, tall, square = (torch.randn(s, generator=generator).double() for s in shapes)
    return [iterate(m) for m in (wide * torch.tensor([[[100.0]], [[0.1]]]), tall, square)]


A, B, C = 3.4445, -4.7750, 2.0315


def _unit(m: Tensor) -> Tensor:
    return m / (m.square().sum((-2, -1), keepdim=True).sqrt() + 1e-7)


def _round(x: Tensor, a: float = A, b: float = B, c: float = C) -> Tensor:
    s2 = x @ x.mT
    return a * x + (b * s2 + c * s2 @ s2) @ x


def _without_norm(m: Tensor, steps: int = 5) -> Tensor:
    for _ in range(steps):
        m = _round(m)
    return m


def _norm_of_all(m: Tensor, steps: int = 5) -> Tensor:
    m = m / (m.square().sum().sqrt() + 1e-7)
    for _ in range(steps):
        m = _round(m)
    return m


def _norm_of_rows(m: Tensor, steps: int = 5) -> Tensor:
    m = m / (m.square().sum(-1, keepdim=True).sqrt() + 1e-7)
    for _ in range(steps):
        m = _round(m)
    return m


def _left_transposed(m: Tensor, steps: int = 5) -> Tensor:
    x = _unit(m if m.shape[-2] <= m.shape[-1] else m.mT)
    for _ in range(steps):
        x = _round(x)
    return x


def _one_round(m: Tensor, steps: int = 5) -> Tensor:
    return _round(_unit(m))


def _round_too_few(m: Tensor, steps: int = 5) -> Tensor:
    x = _unit(m)
    for _ in range(1, steps):
        x = _round(x)
    return x


def _cubic(m: Tensor, steps: int = 5) -> Tensor:
    x = _unit(m)
    for _ in range(steps):
        x = _round(x, 1.5, -0.5, 0.0)
    return x


def _without_first_power(m: Tensor, steps: int = 5) -> Tensor:
    x = _unit(m)
    for _ in range(steps):
        x = _round(x, a=0.0)
    return x


def _exchanged(m: Tensor, steps: int = 5) -> Tensor:
    x = _unit(m)
    for _ in range(steps):
        x = _round(x, b=C, c=B)
    return x


def _number_by_number(m: Tensor, steps: int = 5) -> Tensor:
    x = _unit(m)
    for _ in range(steps):
        x = A * x + B * x**3 + C * x**5
    return x


NEWTON_SCHULZ = Exercise(
    name="newton_schulz",
    title="Newton-Schulz: all singular values to about 1, by products alone",
    target="minigen.optim:newton_schulz",
    task="Divide each matrix by its norm, the root of the sum of its squares, so that its singular "
    "values lie between 0 and 1. Then, in each of `steps` rounds, replace every singular value s "
    "by a s + b s^3 + c s^5, with a, b, c = 3.4445, -4.7750, 2.0315. That needs matrix products "
    "only. The result has the shape of m.",
    hints=(
        "The matrix X = U S V^T has the singular values S. X X^T X = U S^3 V^T: so one product "
        "with X X^T adds two to the power, and changes no direction.",
        "With s2 = X X^T, the new X is a X + (b s2 + c s2 s2) X. The products s2 are (rows, rows), "
        "so turn a tall matrix on its side first, and turn the result back.",
        "x = m / (torch.linalg.vector_norm(m, dim=(-2, -1), keepdim=True) + 1e-7); in each round: "
        "s2 = x @ x.mT; x = a * x + (b * s2 + c * s2 @ s2) @ x.",
    ),
    theorems=(
        Theorem(
            "tests/test_optim.py::test_newton_schulz_makes_singular_values_about_1",
            "Singular values come into 0.68 to 1.21, and the directions stay, in wide and tall "
            "matrices",
            "are there as many rounds as `steps`, with products of matrices, from norm 1?",
        ),
        Theorem(
            "tests/test_optim.py::test_newton_schulz_takes_each_matrix_by_itself",
            "The result for a batch of matrices is the result for each matrix alone",
            "does each matrix have a norm of its own?",
        ),
    ),
    trial=_trial_of_newton_schulz,
    mistakes=(
        Mistake(
            _without_norm,
            "the matrices are not divided by their norm: the fifth power of a singular value above "
            "1 explodes, to infinity and NaN",
        ),
        Mistake(
            _norm_of_all,
            "one norm is computed for the whole batch: a matrix among larger ones starts too small "
            "and does not reach 1; take the norm over the last two axes",
        ),
        Mistake(
            _norm_of_rows,
            "each row is divided by a norm of its own: that changes the directions; the norm is "
            "that of the whole matrix",
        ),
        Mistake(
            _left_transposed,
            "a tall matrix was turned on its side and never turned back: the result has rows and "
            "columns exchanged",
        ),
        Mistake(
            _one_round,
            "there is a single round: it makes singular values 3.4 times larger at most, but those "
            "of 0.003 have to become about 300 times larger",
        ),
        Mistake(
            _round_too_few,
            "one round is missing: the smallest singular values do not reach 0.68; is it "
            "range(steps)?",
        ),
        Mistake(
            _cubic,
            "the iteration is the cubic one, 1.5 s - 0.5 s^3: it ends exactly at 1, but small "
            "values grow by 1.5 a round, so five rounds are too few",
        ),
        Mistake(
            _without_first_power,
            "the part a X is missing: the third power of a small number is nearly 0, so small "
            "singular values vanish and do not grow",
        ),
        Mistake(
            _exchanged,
            "b and c have changed places: b, the negative one, belongs to s^3, and keeps large "
            "values from growing",
        ),
        Mistake(
            _number_by_number,
            "powers are taken number by number: the singular values are no entries of the matrix, "
            "so use products of matrices, x @ x.mT",
        ),
    ),
)

EXERCISES = (SCHEDULE, ADAMW, NEWTON_SCHULZ)
