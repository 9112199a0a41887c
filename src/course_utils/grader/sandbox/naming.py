"""Functions and classes that both sides have, by name."""

from functools import cache
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any

_SEARCHED = ("torch", "torch.linalg", "torch.nn.functional", "torch.special", "torch.fft", "math",
             "operator", "builtins", "torch.distributions")  # fmt: skip
_OURS = ("torch.", "torch", "math", "operator", "collections", "functools", "itertools", "builtins",
         "numpy", "course_utils.")  # fmt: skip


def by_name(name: str) -> Any:
    """The object called `package.module:Qualified.name`."""
    module, _, path = name.partition(":")
    found: Any = vars(import_module(module)).get(path.partition(".")[0])
    for part in path.split(".")[1:]:
        found = getattr(found, part)
    return found


@cache
def _table() -> dict[int, str]:
    table: dict[int, str] = {}
    for module in _SEARCHED:
        for name, value in vars(import_module(module)).items():
            if not name.startswith("_") and callable(value):
                table.setdefault(id(value), f"{module}:{name}")
    return table


def name_of(value: Any) -> str | None:
    """The name under which the other side has the same function or class, if it has it."""
    known = _table().get(id(value))
    if known is not None:
        return known
    module = getattr(value, "__module__", None)
    qualified = getattr(value, "__qualname__", "")
    if not isinstance(value, FunctionType | BuiltinFunctionType | type):
        return None
    if not isinstance(module, str) or not module.startswith(_OURS) or "<" in qualified:
        return None
    name = f"{module}:{qualified}"
    try:
        return name if by_name(name) is value else None
    except (ImportError, AttributeError):
        return None
