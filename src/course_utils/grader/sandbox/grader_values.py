"""A check's values as JSON, and the child's answers back from it, in the grader."""

import re
from collections.abc import Callable
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.grader.sandbox.check_classes import class_source
from course_utils.grader.sandbox.frames import WireError, carried
from course_utils.grader.sandbox.identity import Known
from course_utils.grader.sandbox.naming import name_of
from course_utils.grader.sandbox.objects import class_name, describe
from course_utils.grader.sandbox.remotes import METHOD, Remote, RemoteFunction, RemoteMethod
from course_utils.grader.sandbox.values import Reader, Writer

if TYPE_CHECKING:
    from course_utils.grader.sandbox.proxy import Talk

_ITERATORS: tuple[Any, ...] = (
    type(iter([])),
    type(iter(())),
    zip,
    map,
    enumerate,
    filter,
    reversed,
    GeneratorType,
)
_COURSE = "course_utils."
_EXERCISES = "course_exercises."


class GraderWriter(Writer):
    """What a check passes to the learner's code, as JSON."""

    def __init__(self, talk: "Talk") -> None:
        super().__init__()
        self.talk = talk
        self.defined: list[Known] = []
        self.new_objects: dict[int, Any] = {}
        self.code: list[list[str]] = []
        self.inside = 0

    def other(self, value: Any, depth: int) -> Any:
        talk = self.talk
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, Remote):
            return ["h", value._number]
        if isinstance(value, RemoteMethod):
            return self._callback(value)
        if type(value) is torch.Generator:
            return ["g", self._generator(value)]
        number = talk.object_numbers.get(id(value))
        if number is not None and talk.objects[number] is value:
            return ["r", number]
        if isinstance(value, type):
            return ["cl", self._class(value)]
        name = name_of(value)
        if name is not None:
            return ["fn", name]
        if type(value) is partial:
            return ["P", self.write(value.func, depth), self.each(value.args, depth),
                    self.pairs(value.keywords, depth)]  # fmt: skip
        if isinstance(value, _ITERATORS):
            return ["i", self.each(list(value), depth)]
        if isinstance(value, np.ndarray):
            return ["n", self.tensor(torch.from_numpy(np.ascontiguousarray(value)))]
        if isinstance(value, np.generic):
            return ["ns", value.dtype.name, value.item()]
        if _is_object(value):
            return self._object(value)
        if callable(value):
            return self._callback(value)
        return super().other(value, depth)

    def _tensor(self, value: Tensor) -> Any:
        known = self.talk.tensors.find(value)
        if known is None:
            if not carried(value.dtype) or value.layout is not torch.strided:
                raise WireError(f"a {value.dtype} tensor cannot cross")
            lasting = self.inside > 0 or isinstance(value, nn.Parameter)
            known = self.talk.tensors.add(value, lasting)
            self.defined.append(known)
        return ["T", known.number]

    def _object(self, value: Any) -> Any:
        talk = self.talk
        number = len(talk.objects)
        talk.objects[number] = value
        talk.object_numbers[id(value)] = number
        talk.described[number] = self.new_objects[number] = None
        if class_name(type(value)) != "tokenizers:Tokenizer":
            self._class(type(value))
        plain = description(value, self)
        talk.described[number] = self.new_objects[number] = plain
        return ["r", number]

    def _class(self, kind: type) -> str:
        name = class_name(kind)
        if kind.__module__.startswith(_EXERCISES) and name not in self.talk.sent_classes:
            self.talk.sent_classes.add(name)
            self.code.append([name, class_source(kind)])
        return name

    def _generator(self, value: torch.Generator) -> int:
        for number, known in enumerate(self.talk.generators):
            if known is value:
                return number
        self.talk.generators.append(value)
        self.talk.generator_states.append(None)
        return len(self.talk.generators) - 1

    def _callback(self, value: Callable[..., Any]) -> Any:
        known = [number for number, one in enumerate(self.talk.callbacks) if one is value]
        number = known[0] if known else len(self.talk.callbacks)
        if not known:
            self.talk.callbacks.append(value)
        return ["c", number, getattr(value, "__name__", type(value).__name__)]


def _is_object(value: Any) -> bool:
    if isinstance(value, nn.Module | torch.optim.Optimizer):
        return True
    module = type(value).__module__
    return module.startswith((_COURSE, _EXERCISES, "tokenizers"))


def description(value: Any, writer: GraderWriter) -> Any:
    if type(value).__module__ == "tokenizers":
        return ["tokenizer", value.to_str()]
    writer.inside += 1
    try:
        return describe(value, writer)
    finally:
        writer.inside -= 1


class GraderReader(Reader):
    """What the child sent: every kind is checked, and made here."""

    def __init__(self, talk: "Talk", tensors: list[Tensor]) -> None:
        super().__init__(tensors)
        self.talk = talk
        self.outputs: list[Tensor] = []
        self.used: set[int] = set()

    def once(self, index: Any) -> int:
        """The index of a tensor of this message, which may stand for one thing.

        The child sends each anew; otherwise two of the check's tensors could share their memory.
        """
        if type(index) is not int or not 0 <= index < len(self.tensors) or index in self.used:
            raise WireError("no such tensor in this message, or not any more")
        self.used.add(index)
        return index

    def tensor(self, index: Any) -> Tensor:
        return self.tensors[self.once(index)]

    def other(self, plain: list[Any], depth: int) -> Any:
        tag, talk = plain[0], self.talk
        if tag == "x":
            found = self.tensor(plain[1])
            if len(plain) > 2 and plain[2] is True and found.is_floating_point():
                found.requires_grad_()
            return found
        if tag == "T":
            return talk.tensors.by_number[plain[1]].tensor
        if tag == "B":
            return self.outputs[plain[1]]
        if tag == "r":
            return talk.objects[plain[1]]
        if tag == "h":
            return self._remote(*plain[1:4])
        if tag == "method":
            return METHOD
        if tag == "g":
            return talk.generators[plain[1]]
        if tag == "c":
            return talk.callbacks[plain[1]]
        if tag == "named":
            return _kind(plain[1], tuple)(self.each(plain[2], depth))
        return super().other(plain, depth)

    def _remote(self, number: Any, kind: Any, is_callable: Any) -> Remote:
        if type(number) is not int or type(kind) is not str:
            raise WireError("an object has a number and a type's name")
        known = self.talk.remotes.get(number)
        if known is None:
            base = RemoteFunction if is_callable is True else Remote
            known = self.talk.remotes[number] = _kind(kind, base)(self.talk, number, kind)
        return known


def _kind(name: Any, base: type) -> type:
    """A class of this name, for messages that say what something is."""
    if type(name) is not str or not re.fullmatch(r"\w{1,80}", name):
        name = "object"
    return type(name, (base,), {})
