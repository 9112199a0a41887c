"""Asking for many answers at once."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any


class Many(ABC):
    """A function that has a way of its own to answer many calls."""

    @abstractmethod
    def answers(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """One for each tuple of arguments."""


def answers(student: Any, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """`[student(*arguments) for arguments in calls]`, in one message where messages are needed.

    In the sandbox a call crosses to another process and back, which takes longer than most of what
    is called. For checks with hundreds of calls that do not depend on each other's answers; what
    the learner's code does to a list or dictionary that it is given is not seen.
    """
    if isinstance(student, Many):
        return student.answers([tuple(arguments) for arguments in calls])
    return [student(*arguments) for arguments in calls]
