"""How checks call the learner's code: many times in one message, and watching its arguments.

Many checks compute what they expect from the same tensors that the function was given. A function
that overwrites them first, and then answers for the overwritten values, would be right.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Unchanged = Callable[[], bool]


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


class Watched(Many):
    """A function that can be asked afterwards whether it changed what it was given."""

    def __init__(self, function: Any) -> None:
        self.function, self.changes_arguments = function, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        unchanged = _remembered([*args, *kwargs.values()])
        result = self.function(*args, **kwargs)
        self.changes_arguments |= not unchanged()
        return result

    def answers(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        unchanged = _remembered([list(arguments) for arguments in calls])
        found = answers(self.function, calls)
        self.changes_arguments |= not unchanged()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


def _remembered(value: Any) -> Unchanged:
    """Remembers a tensor, or the tensors and values in lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return _tensor(value) if _readable(value) else lambda: True
    if isinstance(value, list | tuple):
        items, inside = list(value), [_remembered(item) for item in value if _may_change(item)]
        return lambda: _same_items(items, value) and all(one() for one in inside)
    if isinstance(value, dict):
        keys, of_values = list(value), _remembered(list(value.values()))
        values = list(value.values())
        return lambda: (
            _same_items(keys, list(value))
            and _same_items(values, list(value.values()))
            and of_values()
        )
    if isinstance(value, set | bytearray):
        copy = value.copy()
        return lambda: value == copy
    return lambda: True


def _tensor(value: Tensor) -> Unchanged:
    before = value.detach().clone()
    return lambda: (
        value.shape == before.shape and value.dtype == before.dtype and _same(value, before)
    )


def _same(now: Tensor, before: Tensor) -> bool:
    """Up to rounding, as whoever adds and takes away again leaves some."""
    now = now.detach()
    if before.is_floating_point():
        return torch.allclose(now.double(), before.double(), rtol=1e-3, atol=1e-6, equal_nan=True)
    return torch.equal(now, before)


def _readable(value: Tensor) -> bool:
    return value.layout is torch.strided and value.device.type != "meta"


def _may_change(value: Any) -> bool:
    return isinstance(value, Tensor | list | tuple | dict | set | bytearray)


def _same_items(before: list[Any], now: list[Any] | tuple[Any, ...]) -> bool:
    return len(before) == len(now) and all(map(_is, before, now))


def _is(before: Any, now: Any) -> bool:
    """The same object, or an equal plain value: those that crossed a process come back anew."""
    if before is now or type(before) is not type(now):
        return before is now
    return _same_items(list(before), now) if type(now) is tuple else _equal(before, now)


def _equal(before: Any, now: Any) -> bool:
    return type(now) in (int, float, str, bool, bytes) and bool(before == now)
