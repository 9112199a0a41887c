"""The exercise engine: holes cut out of the library, checks, mutants, feedback, autograding.

Exercise files import what they need from here; names resolve on first use, because listing
exercises must not cost an import of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course_utils.grading.asserts import CheckFailure, assert_close, assert_equal
    from course_utils.grading.exercise import Exercise, Mutant
    from course_utils.grading.many import answers

_EXPORTS = {
    "CheckFailure": "course_utils.grading.asserts",
    "Exercise": "course_utils.grading.exercise",
    "Mutant": "course_utils.grading.exercise",
    "answers": "course_utils.grading.many",
    "assert_close": "course_utils.grading.asserts",
    "assert_equal": "course_utils.grading.asserts",
}
__all__ = ["CheckFailure", "Exercise", "Mutant", "answers", "assert_close", "assert_equal"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'course_utils.grading' has no attribute {name!r}")
