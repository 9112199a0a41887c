"""The one exception that is meant for people.

Anything a learner, instructor or operator can put right raises `CourseError` with one or two lines:
what was wrong, what was found, and what to do. The command line prints it without a traceback.
"""

from collections.abc import Iterable


class CourseError(Exception):
    """A problem the reader can solve, told in a sentence that says how."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with the nearest of the known names, or nothing when none is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
