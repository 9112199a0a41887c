"""Models, optimizers, caches and settings of the checks, described so that a copy can be made.

A description names the class and lists what the object holds; the tensors and objects inside are
numbers, so that what two objects share stays shared:

    ["module", "torch.nn.modules.linear:Linear", training, parameters, buffers, parts, others]
    ["optimizer", "torch.optim.sgd:SGD", groups, state, defaults]
    ["object", "course_utils.models.gpt.cache:KVCache", attributes]

The grader describes, the sandbox builds; both describe again after a call to see what changed.
"""

from collections import defaultdict
from typing import Any, Protocol

import torch
from torch import nn

from course_utils.grader.sandbox.frames import WireError

_MODULE_BASE = frozenset(vars(nn.Module()))


class Pen(Protocol):
    """Whoever turns values into JSON and keeps the numbers."""

    def write(self, value: Any, depth: int = 0) -> Any: ...


class Eye(Protocol):
    """Whoever turns JSON into values."""

    def read(self, plain: Any, depth: int = 0) -> Any: ...


def class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def describe(value: Any, pen: Pen, depth: int = 0) -> list[Any]:
    """What a copy of this object needs, in JSON."""
    name = class_name(type(value))

    def pairs(items: dict[str, Any]) -> list[Any]:
        return [[key, pen.write(item, depth)] for key, item in items.items()]

    if isinstance(value, nn.Module):
        others = {k: v for k, v in vars(value).items() if k not in _MODULE_BASE}
        buffers = [
            [key, pen.write(item, depth), key not in value._non_persistent_buffers_set]
            for key, item in value._buffers.items()
        ]
        parts = [pairs(value._parameters), buffers, pairs(value._modules), pairs(others)]
        return ["module", name, value.training, *parts]
    if isinstance(value, torch.optim.Optimizer):
        groups = [pairs(group) for group in value.param_groups]
        state = [[pen.write(p, depth), pairs(held)] for p, held in value.state.items()]
        return ["optimizer", name, groups, state, pairs(value.defaults)]
    return ["object", name, pairs(vars(value))]


def fill(value: Any, plain: list[Any], eye: Eye) -> None:
    """Give a bare instance (or a copy made before) everything that its description lists."""
    kind = plain[0]
    if kind == "module":
        if "_modules" not in vars(value):
            nn.Module.__init__(value)
        _, _, training, parameters, buffers, parts, others = plain
        value.training = bool(training)
        _same(value._parameters, {k: eye.read(v) for k, v in parameters})
        _same(value._buffers, {k: eye.read(v) for k, v, _ in buffers})
        value._non_persistent_buffers_set = {k for k, _, persistent in buffers if not persistent}
        _same(value._modules, {k: eye.read(v) for k, v in parts})
        vars(value).update({k: eye.read(v) for k, v in others})
    elif kind == "optimizer":
        _, _, groups, state, defaults = plain
        found: defaultdict[Any, dict] = defaultdict(dict)
        for parameter, held in state:
            found[eye.read(parameter)] = {k: eye.read(v) for k, v in held}
        settings = [{k: eye.read(v) for k, v in group} for group in groups]
        fresh = "param_groups" not in vars(value)
        if fresh:
            value.__setstate__({"defaults": {}, "state": found, "param_groups": settings})
        else:
            value.state = found
            for group, new in zip(value.param_groups, settings, strict=True):
                group.update(new)
        value.defaults = {k: eye.read(v) for k, v in defaults}
    elif kind == "object":
        vars(value).update({k: eye.read(v) for k, v in plain[2]})
    else:
        raise WireError("unknown kind of object")


def _same(held: dict[str, Any], wanted: dict[str, Any]) -> None:
    if not _identical(held, wanted):
        held.clear()
        held.update(wanted)


def _identical(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(one[key] is other[key] for key in one)


def take_over(value: Any, plain: list[Any], eye: Eye) -> None:
    """What a learner may have changed on one of the grader's objects, and nothing else.

    Modes, parameters, buffers, an optimizer's settings and state, and attributes of the course's
    own classes, as long as they keep their type. A layer's size, say, stays as it is: a number of
    the learner's choice there would decide how much memory the grader takes.
    """
    kind = plain[0]
    if isinstance(value, nn.Module) and kind == "module":
        _, _, training, parameters, buffers, _, others = plain
        value.training = training is True
        _take_tensors(value._parameters, {k: eye.read(v) for k, v in parameters})
        _take_tensors(value._buffers, {k: eye.read(v) for k, v, _ in buffers})
        if not type(value).__module__.startswith("torch."):
            _take_attributes(value, {k: eye.read(v) for k, v in others})
    elif isinstance(value, torch.optim.Optimizer) and kind == "optimizer":
        _, _, groups, state, _ = plain
        for group, new in zip(value.param_groups, groups, strict=False):
            for key, setting in new:
                read = eye.read(setting)
                if key != "params" and type(read) is type(group.get(key)):
                    group[key] = read
        known = {p for group in value.param_groups for p in group["params"]}
        for parameter, held in state:
            owner = eye.read(parameter)
            if isinstance(owner, torch.Tensor) and owner in known:
                value.state[owner] = {str(k): eye.read(v) for k, v in held}
    elif kind == "object":
        _take_attributes(value, {k: eye.read(v) for k, v in plain[2]})


def _take_tensors(held: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, tensor in wanted.items():
        if key in held and (tensor is None or isinstance(tensor, torch.Tensor)):
            held[key] = tensor


def _take_attributes(value: Any, wanted: dict[str, Any]) -> None:
    held = vars(value)
    for key, item in wanted.items():
        if key in held and type(item) is type(held[key]):
            held[key] = item
