"""Exercises: stubs cut out of the library, checks, mutants, feedback, cards, progress.

Exercise files import what they need from here; names resolve on first use, because listing
exercises must not cost an import of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course_utils.exercises.asserts import CheckFailure, assert_close, assert_equal
    from course_utils.exercises.calls import answers
    from course_utils.exercises.exercise import Exercise, Mutant

_EXPORTS = {
    "CheckFailure": "course_utils.exercises.asserts",
    "Exercise": "course_utils.exercises.exercise",
    "Mutant": "course_utils.exercises.exercise",
    "answers": "course_utils.exercises.calls",
    "assert_close": "course_utils.exercises.asserts",
    "assert_equal": "course_utils.exercises.asserts",
}
__all__ = ["CheckFailure", "Exercise", "Mutant", "answers", "assert_close", "assert_equal"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'course_utils.exercises' has no attribute {name!r}")
