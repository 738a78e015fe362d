"""The exercises in the order of the lesson: text to tokens, the model, training, writing."""

from __future__ import annotations

import difflib

from minigen.errors import UserError
from minigen.learn import (
    model_exercises,
    sampling_exercises,
    tokens_exercises,
    training_exercises,
)
from minigen.learn.exercise import Exercise

MODULES = (tokens_exercises, model_exercises, training_exercises, sampling_exercises)
ORDER = ("merges", "encode", "loss", "attention", "mask", "rope", "norm", "mlp", "block",
         "schedule", "adamw", "newton_schulz", "top_k", "top_p", "draw", "cache",
         "lora")  # fmt: skip

EXERCISES: tuple[Exercise, ...] = tuple(
    sorted(
        (exercise for module in MODULES for exercise in module.EXERCISES),
        key=lambda exercise: ORDER.index(exercise.name),
    )
)


def find(name: str) -> Exercise:
    """Return the exercise of that name. Raises `UserError` if there is none."""
    by_name = {exercise.name: exercise for exercise in EXERCISES}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1)
    mend = f"did you mean {near[0]}?" if near else f"the exercises are {', '.join(by_name)}"
    raise UserError(f"there is no exercise {name!r}; {mend}")
