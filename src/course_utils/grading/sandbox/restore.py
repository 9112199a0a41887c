"""Putting a reference back, once the exercise that asks for it is judged."""

import sys
from types import FunctionType
from typing import Any

from course_utils.grading.sandbox import refused


def restore(module_name: str, symbol: str, source: str, holes: list[str]) -> Any:
    """Define the library's own version, wherever the library has the empty one.

    Args:
        module_name, symbol: where it belongs.
        source: its text.
        holes: for a class, the methods that were empty.
    """
    module = sys.modules[module_name]
    namespace = vars(module)
    empty = namespace[symbol]
    exec(compile(source, f"<the library's {symbol}>", "exec"), namespace)
    whole = namespace[symbol]
    refused.show(symbol)
    if isinstance(empty, type):
        # The same class object, because others inherit from it and hold instances of it.
        namespace[symbol] = empty
        for hole in holes:
            method = vars(whole)[hole]
            setattr(empty, hole, method)
            _mean_itself(method, whole, empty)
        return empty
    for name, other in list(sys.modules.items()):
        if name.startswith("course_utils"):
            for key, value in list(vars(other).items()):
                if value is empty:
                    vars(other)[key] = whole
    return whole


def _mean_itself(method: Any, whole: type, empty: type) -> None:
    """`super()` in a method means the class it was compiled in."""
    function = getattr(method, "__wrapped__", method)
    if isinstance(function, FunctionType) and function.__closure__:
        for cell in function.__closure__:
            if cell.cell_contents is whole:
                cell.cell_contents = empty
