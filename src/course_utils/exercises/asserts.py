"""The two assertions that checks are written with.

They are strict about type, shape and dtype, because "almost the right tensor" is the bug that
costs people days, and they carry what was expected and what was found, so that the card can show
both and the feedback can recognise a known mistake by its outputs.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

# By dtype: a few units in the last place of the arithmetic an exercise is likely to do.
_TOLERANCE = {
    torch.float64: (1e-7, 1e-9),
    torch.float32: (1e-4, 1e-5),
    torch.bfloat16: (2e-2, 1e-2),
    torch.float16: (2e-3, 1e-3),
}


class CheckFailure(AssertionError):
    """A check disagreed; `expected` and `actual` are what it compared (None when nothing was)."""

    def __init__(self, message: str, expected: Any = None, actual: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.actual = actual


def assert_close(
    actual: Any,
    expected: Any,
    message: str,
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """`actual` is `expected` up to rounding: type, shape and dtype the same, values close.

    Args:
        actual: what the learner's code returned (a tensor, a number, or a tuple/list of them).
        expected: what it should be; its type, shape and dtype are demanded too.
        message: what is wrong when it differs, in the learner's terms.
        rtol, atol: tolerances; by default a few rounding errors of `expected`'s dtype.

    Raises:
        CheckFailure: with both values attached.
    """
    if isinstance(expected, tuple | list):
        _same_length(actual, expected, message)
        for index, (got, want) in enumerate(zip(actual, expected, strict=True)):
            assert_close(got, want, f"{message} (item {index})", rtol=rtol, atol=atol)
        return
    if isinstance(expected, Tensor):
        _same_kind(actual, expected, message)
        default_rtol, default_atol = _TOLERANCE.get(expected.dtype, (0.0, 0.0))
        if not torch.allclose(
            actual.detach().cpu(),
            expected.detach().cpu(),
            rtol=default_rtol if rtol is None else rtol,
            atol=default_atol if atol is None else atol,
            equal_nan=True,
        ):
            raise CheckFailure(message, expected, actual)
        return
    actual = _number(actual)
    if type(actual) not in (int, float):
        raise CheckFailure(
            f"{message}: expected a number, got {_describe(actual)}", expected, actual
        )
    same = math.isclose(
        actual, expected, rel_tol=1e-6 if rtol is None else rtol, abs_tol=atol or 1e-9
    )
    if not same and not (math.isnan(actual) and math.isnan(expected)):
        raise CheckFailure(message, expected, actual)


def assert_equal(actual: Any, expected: Any, message: str) -> None:
    """`actual` is exactly `expected`: same type (tensors: shape and dtype too), same value.

    Raises:
        CheckFailure: with both values attached.
    """
    if isinstance(expected, Tensor):
        _same_kind(actual, expected, message)
        if not torch.equal(actual.detach().cpu(), expected.detach().cpu()):
            raise CheckFailure(message, expected, actual)
        return
    actual = _number(actual)
    if type(actual) is not type(expected):
        raise CheckFailure(
            f"{message}: expected {_describe(expected)}, got {_describe(actual)}", expected, actual
        )
    if isinstance(expected, tuple | list):
        _same_length(actual, expected, message)
        for index, (got, want) in enumerate(zip(actual, expected, strict=True)):
            assert_equal(got, want, f"{message} (item {index})")
    elif actual != expected:
        raise CheckFailure(message, expected, actual)


def _number(value: Any) -> Any:
    """NumPy's float64 is a float of Python's (a subclass), and counts as one."""
    return float(value) if type(value) is np.float64 else value


def _same_kind(actual: Any, expected: Tensor, message: str) -> None:
    # Exact types: a subclass could answer every comparison as it likes.
    if type(actual) not in (Tensor, torch.nn.Parameter):
        raise CheckFailure(f"{message}: expected a tensor, got {_describe(actual)}", expected)
    if actual.shape != expected.shape:
        raise CheckFailure(
            f"{message}: expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}",
            expected,
            actual,
        )
    if actual.dtype != expected.dtype:
        raise CheckFailure(
            f"{message}: expected {expected.dtype}, got {actual.dtype}", expected, actual
        )


def _same_length(actual: Any, expected: tuple | list, message: str) -> None:
    if type(actual) is not type(expected):
        raise CheckFailure(
            f"{message}: expected a {type(expected).__name__} of {len(expected)}, "
            f"got {_describe(actual)}",
            expected,
        )
    if len(actual) != len(expected):
        raise CheckFailure(
            f"{message}: expected {len(expected)} items, got {len(actual)}", expected, actual
        )


def _describe(value: Any) -> str:
    if type(value) in (Tensor, torch.nn.Parameter):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None:
        return "None (is a `return` missing?)"
    if type(value) in (bool, int, float, str):
        return f"{value!r:.40} ({type(value).__name__})"
    return f"an object of type {type(value).__name__}"
