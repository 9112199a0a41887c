"""Asking for many answers at once."""

from collections.abc import Iterable
from typing import Any


def answers(student: Any, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """`[student(*arguments) for arguments in calls]`, in one message where messages are needed.

    In the sandbox a call crosses to another process and back, which takes longer than most of what
    is called. For checks with hundreds of calls that do not depend on each other's answers; what
    the learner's code does to a list or dictionary that it is given is not seen.
    """
    from course_utils.grading.sandbox.remotes import RemoteFunction
    from course_utils.grading.untouched import Watched

    if isinstance(student, RemoteFunction | Watched):
        return student.answers([tuple(arguments) for arguments in calls])
    return [student(*arguments) for arguments in calls]
