"""The two calls a notebook makes: `check` looks at the learner's code, `verified` hands it on."""

import linecache
import os
import sqlite3
from dataclasses import replace
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.exercises.card import Result
from course_utils.exercises.exercise import Exercise, find_exercise
from course_utils.exercises.feedback import misconception
from course_utils.exercises.judge import judge, score, source_file
from course_utils.exercises.progress import Progress, Standing

# Failures of different versions before a hint is offered, and between one hint and the next.
FAILURES_PER_HINT = 2


# The last verdict on each exercise in this session: `verified` must not run the checks again.
_last: dict[str, tuple[Any, bool]] = {}


def check(exercise_id: str, student: Any) -> Result:
    """Check the learner's version of an exercise and say what held, what did not, and why.

    Args:
        exercise_id: as printed above the exercise, `"cnn.conv2d"`.
        student: the function or class itself, not what it returns.

    Raises:
        CourseError: for an unknown exercise, or when `student` is not a function or class.
    """
    exercise = find_exercise(exercise_id)
    if not callable(student):
        raise CourseError(
            f"check({exercise_id!r}, …) wants your {exercise.symbol} itself, not a result of it: "
            f"check({exercise_id!r}, {exercise.symbol})"
        )
    result, source = assess(exercise, student), source_of(student)
    _last[exercise_id] = (student, result.passed)
    if not result.attempted:
        return result
    if student is exercise.target:  # what `verified` gave in the place of theirs
        note = f"This is the library's {exercise.symbol}, not yours: run your own cell again first."
        return replace(result, note=note)
    hint, note = _remember(result, source)
    return replace(result, hint=hint, note=note)


def assess(exercise: Exercise, student: Any, seed: int | None = None) -> Result:
    """Run the checks and look for a known mistake; remembers nothing."""
    if seed is None:
        seed = int(os.environ.get("COURSE_CHECK_SEED", "0"))
    found = judge(exercise, student, seed)
    points = score(exercise, found)
    mistake = None if points == exercise.points else misconception(exercise, found, seed)
    return Result(exercise, found, points, seed, says=mistake.says if mistake else "")


def verified(exercise_id: str, student: Any) -> Any:
    """The learner's version if it passed, and the library's if it did not.

    So the rest of a lesson works either way, and runs on the learner's own code as soon as it can.
    """
    exercise = find_exercise(exercise_id)
    checked, passed = _last.get(exercise_id, (None, False))
    if checked is not student:
        passed = callable(student) and assess(exercise, student).passed
    if passed:
        return student
    print(f"Going on with the library's {exercise.symbol} until yours passes its check.")
    return exercise.target


def source_of(student: Any) -> str:
    """The source of the cell or file that defines `student` (empty when there is none)."""
    return "".join(linecache.getlines(source_file(student) or ""))


def _remember(result: Result, source: str) -> tuple[str, str]:
    """Record the attempt; returns the hint that is due and a note if nothing could be recorded."""
    exercise = result.exercise
    failed = [outcome.check for outcome in result.outcomes if not outcome.passed]
    try:
        progress = Progress()
        progress.record(exercise.id, result.score, exercise.points, result.seed, failed, source)
        return due_hint(exercise, progress.standing(exercise.id)), ""
    except (sqlite3.Error, OSError) as error:
        return "", f"This attempt could not be recorded ({error}); the verdict is not affected."


def due_hint(exercise: Exercise, standing: Standing) -> str:
    """The hint that this many failures, or hints asked for, have earned."""
    earned = max(standing.failures_in_a_row // FAILURES_PER_HINT, standing.hints_shown)
    if standing.failures_in_a_row == 0 or not earned:
        return ""
    return exercise.hints[min(earned, len(exercise.hints)) - 1]
