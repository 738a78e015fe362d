"""What an experiment is: one change of a small training run, and the figure to expect.

Most changes are flags of train.py. Some are of the model's code: then `Replacement` puts another
function in the place of one of minigen's, in this process only. A checkpoint has no word for such a
change, and sample.py would read its weights as those of a usual model. So a changed model is never
saved (test_a_changed_model_leaves_no_weights).
"""

from __future__ import annotations

import contextlib
import inspect
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minigen.learn.exercise import AnyFunction, find
from minigen.learn.learner import replaced
from minigen.run.run import Run, Stopped

LOSS = "bits/byte"  # the figure of a run: the validation loss after its last step
VALID = "valid tales"  # the share of samples that the grammar of the tales could have written
DISTINCT = "distinct triples"  # the share of distinct ones among all triples of words

# A new run lies within this number of standard deviations of the mean of three runs, in 95 of 100
# cases: 4.30 of Student's distribution with two degrees of freedom, times sqrt(1 + 1/3), as the
# mean of three runs is uncertain, too (test_the_margin_is_that_of_student).
DEVIATIONS = 4.97


@dataclass(frozen=True)
class Replacement:
    """A function that stands in the place of one of minigen's while an experiment trains."""

    target: str  # "minigen.model:apply_rope", or "minigen.model:Block.forward"
    function: AnyFunction  # with the parameters of the right one

    @property
    def file(self) -> str:
        """The file of the target, as a path in the project."""
        return self.target.partition(":")[0].replace(".", "/") + ".py"

    def sources(self) -> tuple[str, str]:
        """Return the code of minigen's function, and the code of this one, without docstrings."""
        holder, name = find(self.target)
        return code_of(getattr(holder, name)), code_of(self.function)

    def installed(self) -> contextlib.AbstractContextManager[None]:
        """Let the function stand in the target's place; then put minigen's own one back."""
        holder, name = find(self.target)
        return replaced(holder, name, self.function)


@dataclass(frozen=True)
class Experiment:
    """A training run, and a question that its figure answers."""

    name: str  # a word of the command line: "no_residual"
    question: str
    think: str  # what to look at, once the figure is there
    answer: str  # what the figure shows, and why
    base: str | None = None  # the experiment to compare with; None: it stands for itself
    flags: Mapping[str, Any] = field(default_factory=dict)  # of train.py, without --
    replacements: tuple[Replacement, ...] = ()
    n_tales: int | None = None  # train on the first tales only; None: on the text in `flags`
    temperatures: tuple[float, ...] = ()  # at which the trained model writes tales


def code_of(function: AnyFunction) -> str:
    """Return the source of a function without its docstring, moved to the left."""
    code = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    doc = inspect.unwrap(function).__doc__
    if doc:
        head, _, rest = code.partition('"""')
        code = head.rstrip() + "\n" + rest.partition('"""')[2].lstrip("\n")
    return code.rstrip()


@contextlib.contextmanager
def changed(replacements: Sequence[Replacement]) -> Iterator[None]:
    """Train a changed model within this context: no run saves weights, or says how to sample it."""
    unsaved = (
        Replacement("minigen.run.run:Run.save", _save_nothing),
        Replacement("minigen.run.run:Run.finish", lambda run, evaluate: None),
    )
    with contextlib.ExitStack() as stack:
        for each in (*replacements, *unsaved) if replacements else ():
            stack.enter_context(each.installed())
        yield


def _save_nothing(run: Run, **losses: float) -> None:
    """Save nothing. After Ctrl-C, end the run before it says that it is saved."""
    if run.stopped_by:
        raise Stopped(128 + run.stopped_by)


def last_loss(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Return the validation loss of a run's last evaluation, in bits/byte.

    The loss of the best checkpoint would hide that a model overfits.

    Args:
        metrics: the lines of metrics.jsonl.
    """
    return float([line for line in metrics if "val_loss" in line][-1]["val_bits_per_byte"])


# ---- expected figures ----


@dataclass(frozen=True)
class Expected:
    """The figures of three runs, whose seeds are 0, 1 and 2."""

    figures: tuple[float, float, float]
    digits: int = 4  # after the point

    @property
    def mean(self) -> float:
        """The mean of the runs."""
        return statistics.fmean(self.figures)

    @property
    def margin(self) -> float:
        """The distance from the mean within which 95 of 100 runs with new seeds lie.

        It is at least three units of the last digit: three equal runs do not mean that all are.
        """
        return max(DEVIATIONS * statistics.stdev(self.figures), 3 * 0.1**self.digits)

    def covers(self, figure: float) -> bool:
        """Return whether a figure lies within the margin."""
        return abs(figure - self.mean) <= self.margin

    def shown(self, figure: float) -> str:
        """Return a figure with the digits that are shown."""
        return f"{figure:.{self.digits}f}"

    def __str__(self) -> str:
        mean, least, most = map(self.shown, (self.mean, min(self.figures), max(self.figures)))
        return f"{mean} ({least} to {most})"
