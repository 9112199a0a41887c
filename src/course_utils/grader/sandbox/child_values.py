"""The learner's values as JSON, and the grader's back from it, in the child."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.grader.sandbox.frames import WireError, carried
from course_utils.grader.sandbox.identity import Known
from course_utils.grader.sandbox.naming import by_name
from course_utils.grader.sandbox.values import Reader, Writer

if TYPE_CHECKING:
    from course_utils.grader.sandbox.child import Child


class Method:
    """Stands for a bound method, which the grader calls by its name."""


class ChildWriter(Writer):
    """Values of the learner's to JSON.

    Args:
        lasting: whether tensors keep their number, as an object's attributes do.
        only_known: refuse what has no number yet, when looking for changes.
    """

    def __init__(self, child: "Child", lasting: bool, only_known: bool = False) -> None:
        super().__init__()
        self.child, self.lasting, self.only_known = child, lasting, only_known
        self.outputs: list[Tensor] = []
        self.defined: list[Known] = []

    def introduce(self, tensor: Tensor) -> Known:
        known = self.child.tensors.add(tensor, lasting=True)
        self.defined.append(known)
        return known

    def other(self, value: Any, depth: int) -> Any:
        kind, child = type(value), self.child
        if kind in (Tensor, nn.Parameter):
            return self._tensor(value)
        number = child.number_of.get(id(value))
        if number is not None and child.objects.get(number) is value:
            return ["r", number]
        if kind is Method:
            return ["method"]
        if kind is torch.Generator:
            for known, generator in child.generators.items():
                if generator is value:
                    return ["g", known]
        if isinstance(value, Callback):
            return ["c", value.number, value.__name__]
        sent = child.sent.get(id(value))
        if sent is not None and sent[0] is value:
            return sent[1]
        if kind is np.float64:  # a float, as for the local check
            return float(value)
        if self.only_known:
            raise WireError("new here")
        if isinstance(value, tuple):
            return ["named", kind.__name__[:80], self.each(value, depth)]
        return self._handle(value)

    def _tensor(self, value: Tensor) -> Any:
        known = self.child.tensors.find(value)
        if known is not None:
            return ["T", known.number]
        plain = value.layout is torch.strided and value.device.type == "cpu"
        if not plain or not carried(value.dtype):
            return self._handle(value)
        if self.only_known:
            raise WireError("new here")
        if value.grad_fn is not None and value.requires_grad:
            for index, output in enumerate(self.outputs):
                if output is value:
                    return ["B", index]
            self.outputs.append(value)
            return ["B", len(self.outputs) - 1]
        if type(value) is nn.Parameter or self.lasting:
            return ["T", self.introduce(value).number]
        return ["x", self.tensor(value), value.requires_grad]

    def _handle(self, value: Any) -> Any:
        child = self.child
        number = child.handle_of.get(id(value))
        if number is None or child.handles[number] is not value:
            number = len(child.handles)
            child.handles[number], child.handle_of[id(value)] = value, number
        return ["h", number, type(value).__name__[:80], callable(value)]


class ChildReader(Reader):
    """What the grader sent: trusted."""

    def __init__(self, child: "Child", tensors: list[Tensor]) -> None:
        super().__init__(tensors)
        self.child = child

    def other(self, plain: list[Any], depth: int) -> Any:
        tag, child = plain[0], self.child
        if tag == "x":
            return self.tensors[plain[1]]
        if tag == "T":
            return child.tensors.by_number[plain[1]].tensor
        if tag == "r":
            return child.objects[plain[1]]
        if tag == "h":
            return child.handles[plain[1]]
        if tag == "g":
            return child.generators[plain[1]]
        if tag == "c":
            return Callback(child, plain[1], plain[2])
        value = self._named(plain, depth)
        child.sent[id(value)] = value, plain
        return value

    def _named(self, plain: list[Any], depth: int) -> Any:
        tag = plain[0]
        if tag == "fn":
            return by_name(plain[1])
        if tag == "cl":
            return self.child.classes.get(plain[1]) or by_name(plain[1])
        if tag == "P":
            named = {key: self.read(value, depth) for key, value in plain[3]}
            return partial(self.read(plain[1]), *self.each(plain[2], depth), **named)
        if tag == "i":
            return iter(self.each(plain[1], depth))
        if tag == "n":
            return self.tensors[plain[1]].numpy()
        if tag == "ns":
            return np.dtype(plain[1]).type(plain[2])
        return super().other(plain, depth)


class Callback:
    """A function of the check's, which runs in the grader."""

    def __init__(self, child: "Child", number: int, name: str) -> None:
        self.child, self.number = child, number
        self.__name__ = self.__qualname__ = name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.child.call_back(self.number, *arguments, **named)
