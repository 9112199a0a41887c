"""Recognising a mistake by what it computes.

A wrong answer is compared with the exercise's mutants: when every check ends the same way for
both, down to the numbers it compared, the learner has made that mistake however differently the
code is written, and the mutant's sentence is the best thing we can say.
"""

import math
from functools import lru_cache
from typing import Any

import torch

from course_utils.exercises.exercise import Exercise, Mutant
from course_utils.exercises.judge import Outcome, judge
from course_utils.exercises.mutants import build


def misconception(exercise: Exercise, found: tuple[Outcome, ...], seed: int) -> Mutant | None:
    """The mutant that fails exactly as `found` does, or None.

    Somebody who made two mistakes fails like no single mutant; then the first check that was
    failed with a mutant's very numbers tells at least one of them. (A mutant that fails where the
    learner passed is not among them.)
    """
    if not any(outcome.status in ("wrong", "error") for outcome in found):
        return None  # a time-out or an empty cell looks the same whatever the reason
    known = [_mutant_outcomes(exercise, index, seed) for index in range(len(exercise.mutants))]
    for mutant, theirs in zip(exercise.mutants, known, strict=True):
        if all(map(alike, found, theirs)):
            return mutant
    for check, outcome in enumerate(found):
        if outcome.status != "wrong" or outcome.actual is None:
            continue
        for mutant, theirs in zip(exercise.mutants, known, strict=True):
            possible = all(t.passed or not f.passed for t, f in zip(theirs, found, strict=True))
            if possible and alike(outcome, theirs[check]):
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
        same = math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-9)
        return same or (math.isnan(one) and math.isnan(other))
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_same_value, one, other))
    return type(one) is type(other) and bool(one == other)
