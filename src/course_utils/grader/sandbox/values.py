"""Values as JSON: a closed list of plain kinds, and numbers for whatever else there is.

A number, a text, True, False and None stand for themselves. Everything else is a list that begins
with a tag:

    ["l", [1, 2]]   ["t", [1, 2]]   ["d", [["key", 1]]]   ["b", "bytes as Latin-1"]   …   by value
    ["x", 0, …]     the message's tensor 0
    ["r", 7]        an object that both sides know as number 7

Exact types only. A subclass of a plain kind could answer every comparison as it likes, so it does
not cross as that kind; the side that reads makes every object itself and runs no code of the
other's.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from course_utils.grader.sandbox.frames import WireError

MAX_DEPTH, MAX_ITEMS = 40, 1_000_000
_SCALARS = frozenset((type(None), bool, float, str))
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}


class Writer:
    """Values to JSON, collecting the tensors on the way. Made anew for each message."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []

    def write(self, value: Any, depth: int = 0) -> Any:
        """
        Raises:
            WireError: for what cannot cross.
        """
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is int:
            return value if value.bit_length() < 4096 else ["hex", hex(value)]
        if depth > MAX_DEPTH:
            raise WireError(f"more than {MAX_DEPTH} levels of nesting")
        plain = _PLAIN.get(kind)
        if plain is not None:
            return plain(self, value, depth + 1)
        return self.other(value, depth + 1)

    def each(self, values: Any, depth: int) -> list[Any]:
        return [self.write(value, depth) for value in values]

    def pairs(self, values: Any, depth: int) -> list[Any]:
        return [[self.write(k, depth), self.write(v, depth)] for k, v in values.items()]

    def tensor(self, value: torch.Tensor) -> int:
        self.tensors.append(value)
        return len(self.tensors) - 1

    def other(self, value: Any, depth: int) -> Any:
        raise WireError(f"an object of type {type(value).__name__} cannot cross")


_PLAIN: dict[type, Callable[[Writer, Any, int], Any]] = {
    list: lambda w, v, d: ["l", w.each(v, d)],
    tuple: lambda w, v, d: ["t", w.each(v, d)],
    dict: lambda w, v, d: ["d", w.pairs(v, d)],
    Counter: lambda w, v, d: ["C", w.pairs(v, d)],
    OrderedDict: lambda w, v, d: ["O", w.pairs(v, d)],
    set: lambda w, v, d: ["s", w.each(v, d)],
    frozenset: lambda w, v, d: ["f", w.each(v, d)],
    bytes: lambda w, v, d: ["b", v.decode("latin-1")],
    bytearray: lambda w, v, d: ["a", v.decode("latin-1")],
    complex: lambda w, v, d: ["j", v.real, v.imag],
    range: lambda w, v, d: ["R", v.start, v.stop, v.step],
    slice: lambda w, v, d: ["S", w.each((v.start, v.stop, v.step), d)],
    type(...): lambda w, v, d: ["…"],
    torch.Size: lambda w, v, d: ["z", list(v)],
    torch.dtype: lambda w, v, d: ["dt", str(v).removeprefix("torch.")],
    torch.device: lambda w, v, d: ["dv", str(v)],
}


class Reader:
    """JSON to values, once for each message; trusts nothing about the document."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self.tensors = tensors
        self.items = 0

    def read(self, plain: Any, depth: int = 0) -> Any:
        """
        Raises:
            WireError: when it is not the JSON of a value.
        """
        if type(plain) is not list:
            if type(plain) is dict:
                raise WireError("a bare JSON object is no value")
            return plain
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise WireError("too deep, or too many values")
        try:
            known = _READ.get(plain[0])
            if known is not None:
                return known(self, plain, depth + 1)
            return self.other(plain, depth + 1)
        except (IndexError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise WireError(f"malformed value: {type(error).__name__}") from error

    def each(self, plain: list[Any], depth: int) -> list[Any]:
        return [self.read(value, depth) for value in plain]

    def pairs(self, plain: list[Any], depth: int) -> list[tuple[Any, Any]]:
        return [(self.read(key, depth), self.read(value, depth)) for key, value in plain]

    def tensor(self, index: Any) -> torch.Tensor:
        if type(index) is not int or not 0 <= index < len(self.tensors):
            raise WireError("no such tensor in this message")
        return self.tensors[index]

    def other(self, plain: list[Any], depth: int) -> Any:
        raise WireError(f"unknown kind of value: {plain[0]!r:.20}")


def _range(start: Any, stop: Any, step: Any) -> range:
    found = range(int(start), int(stop), int(step))
    if found[MAX_ITEMS:]:
        raise WireError("a check may make a list of it, and that would be too long")
    return found


_READ: dict[Any, Callable[[Reader, list[Any], int], Any]] = {
    "l": lambda r, p, d: r.each(p[1], d),
    "t": lambda r, p, d: tuple(r.each(p[1], d)),
    "d": lambda r, p, d: dict(r.pairs(p[1], d)),
    "C": lambda r, p, d: Counter(dict(r.pairs(p[1], d))),
    "O": lambda r, p, d: OrderedDict(r.pairs(p[1], d)),
    "s": lambda r, p, d: set(r.each(p[1], d)),
    "f": lambda r, p, d: frozenset(r.each(p[1], d)),
    "b": lambda r, p, d: p[1].encode("latin-1"),
    "a": lambda r, p, d: bytearray(p[1].encode("latin-1")),
    "j": lambda r, p, d: complex(float(p[1]), float(p[2])),
    "R": lambda r, p, d: _range(p[1], p[2], p[3]),
    "S": lambda r, p, d: slice(*r.each(p[1], d)),
    "…": lambda r, p, d: ...,
    "z": lambda r, p, d: torch.Size(p[1]),
    "dt": lambda r, p, d: _DTYPES[p[1]],
    "dv": lambda r, p, d: torch.device(p[1]),
    "hex": lambda r, p, d: int(p[1][:100_000], 16),
}
