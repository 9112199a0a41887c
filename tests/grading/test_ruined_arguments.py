"""No check is passed by code that ruins what it is given, and then answers for the ruins."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_exercises import MEAN

from course_utils.exercises.calls import Watched, answers
from course_utils.exercises.exercise import Exercise, all_exercises
from course_utils.exercises.judge import CHANGED, judge, run_check, score

Undo = Callable[[], Any]


def ruin(value: Any) -> list[Undo]:
    """What puts it back, as it may be a constant of the checks; nothing where there was nothing."""
    if isinstance(value, Tensor) and value.dtype is not torch.bool and value.count_nonzero():
        storage = value.untyped_storage()
        before = storage.clone()
        value.detach().untyped_storage().fill_(0)
        return [lambda: storage.copy_(before)]
    if isinstance(value, list | dict | set | bytearray) and value:
        contents = value.copy()
        value.clear()
        refill = value.extend if isinstance(value, list | bytearray) else value.update
        return [lambda: refill(contents)]
    return []


def ruining(function: Callable[..., Any], undo: list[Undo], first: int = 0) -> Callable[..., Any]:
    @functools.wraps(function)
    def vandal(*args: Any, **kwargs: Any) -> Any:
        for value in (*args[first:], *kwargs.values()):
            undo.extend(ruin(value))
        return function(*args, **kwargs)

    return vandal


def vandal_of(target: Any, undo: list[Undo]) -> Any:
    """The reference, which first ruins all arguments of the function, or of all its methods."""
    if not isinstance(target, type):
        return ruining(target, undo)
    methods = {
        name: ruining(method, undo, first=1)
        for name, method in vars(target).items()
        if inspect.isfunction(method) and (not name.startswith("_") or name == "__call__")
    }
    return type(target.__name__, (target,), methods)


@pytest.mark.parametrize(
    "exercise", [e for _, e in all_exercises()], ids=lambda exercise: exercise.id
)
def test_ruins_are_seen(exercise: Exercise) -> None:
    for check in exercise.checks:
        undo: list[Undo] = []
        outcome = run_check(exercise, check, vandal_of(exercise.target, undo), 5)
        assert not (outcome.passed and undo), check.__name__
        for put_back in reversed(undo):
            put_back()


def changed(function: Callable[..., Any], *args: Any) -> bool:
    watched = Watched(function)
    watched(*args)
    return bool(watched.changes_arguments)


def test_what_counts_as_changed() -> None:
    x = torch.tensor([1.0, float("nan")])
    assert not changed(lambda x: x + 1, x)
    assert not changed(lambda x: x, x)
    assert changed(lambda x: x.add_(1), x.clone())
    assert changed(lambda x: x.resize_(1), x.clone())
    assert changed(lambda items: items[0].zero_(), [torch.ones(2)])
    assert changed(lambda items: items.append(1), [])
    assert changed(lambda items: items.reverse(), [1, 2])
    assert not changed(sorted, [2, 1])
    assert changed(lambda table: table.update(a=2), {"a": 1})
    assert changed(lambda table: table["a"].append(1), {"a": []})
    assert not changed(lambda table: dict(table, b=1), {"a": (1, [2.0])})
    watched = Watched(lambda items: items.sort())
    answers(watched, [([1, 2],), ([3],)])
    assert not watched.changes_arguments
    answers(watched, [([1, 2],), ([3, 1],)])
    assert watched.changes_arguments


def test_a_function_that_changes_an_argument_is_told_so() -> None:
    def is_as_long(student: Any, rng: torch.Generator) -> None:
        """As many means as rows"""
        assert len(student(torch.ones(3, 4))) == 3

    def in_place(x: Tensor) -> Tensor:
        return x.mul_(2).mean(dim=1)

    exercise = replace(MEAN, checks=(is_as_long,))
    assert run_check(exercise, is_as_long, exercise.target, 0).passed
    outcome = run_check(exercise, is_as_long, in_place, 0)
    assert (outcome.status, outcome.message) == ("wrong", CHANGED)


def test_ruins_that_answer_for_themselves_earn_nothing() -> None:
    """Zeros in, zeros out: right for a convolution, if one asks afterwards."""
    exercise = next(e for _, e in all_exercises() if e.id == "cnn.conv2d")

    def zeros(
        x: Tensor, weight: Tensor, bias: Any = None, stride: int = 1, padding: int = 0
    ) -> Any:
        x.data.zero_(), weight.data.zero_()
        (n, _, height, width), (out, _, h, w) = x.shape, weight.shape
        rows, columns = (
            (size + 2 * padding - k) // stride + 1 for size, k in ((height, h), (width, w))
        )
        y = x.new_zeros(n, out, rows, columns)
        y = y if bias is None else y + bias[:, None, None]
        return y + 0 * x.sum() + 0 * weight.sum()

    assert score(exercise, judge(exercise, zeros)) == 0
