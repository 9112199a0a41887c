"""Recognising a mistake by what it computes.

A wrong answer is compared with the exercise's mutants: when every check ends the same way for
both, down to the numbers it compared, the learner has made that mistake however differently the
code is written, and the mutant's sentence is the best thing we can say.
"""

import math
from functools import lru_cache
from typing import Any

import torch

from course_utils.grading.exercise import Exercise, Mutant
from course_utils.grading.judge import Outcome, judge
from course_utils.grading.mutants import build


def misconception(exercise: Exercise, found: tuple[Outcome, ...], seed: int) -> Mutant | None:
    """The mutant that fails exactly as `found` does, or None."""
    if not any(o.status in ("wrong", "error") for o in found):
        return None  # a time-out or an empty cell looks the same whatever the reason
    for index, mutant in enumerate(exercise.mutants):
        if all(map(alike, found, _mutant_outcomes(exercise, index, seed))):
            return mutant
    return None


@lru_cache(maxsize=1024)
def _mutant_outcomes(exercise: Exercise, index: int, seed: int) -> tuple[Outcome, ...]:
    return judge(exercise, build(exercise, exercise.mutants[index]), seed)


def alike(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes of the same check agree in status, message and compared values."""
    return (
        one.status == other.status
        and one.message == other.message
        and _same_value(one.actual, other.actual)
    )


def _same_value(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-9) or one is other
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_same_value, one, other))
    return type(one) is type(other) and bool(one == other)
