"""What every engine does."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_utils.base.errors import CourseError
from course_utils.training.config import Precision
from course_utils.training.parts.muon import MuonAdamW


@dataclass(frozen=True)
class Whole:
    """All that training changes, as one process would hold it, in main memory.

    Attributes:
        weights: By name; a tensor with two names (tied weights) once.
        aliases: The other names of such tensors, and the one in `weights`.
        optimizer: What `optimizer.state_dict()` would be in one process.
    """

    weights: dict[str, Tensor]
    aliases: dict[str, str]
    optimizer: dict[str, Any]


class Engine(ABC):
    """Gradients, updates and the whole state of a model that processes train together.

    Attributes:
        model: What the loss is computed with; its forward exchanges what the engine needs.
        together: How the processes work together, in words, for the first line of a run's output.
        splits_anything: Whether some of the state is on one process only.
        splits_weights: Whether no process holds all weights, so that a forward pass is something
            that all processes must do together.
    """

    model: nn.Module
    together: str
    splits_anything = False
    splits_weights = False

    @property
    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups, in whose `lr` it looks; loading makes new ones."""

    @abstractmethod
    def backward(self, loss: Float[Tensor, ""], last: bool) -> None:
        """Add a micro-batch's gradient to those before it, averaged over processes.

        Args:
            last: Whether it is the step's last micro-batch: then the processes exchange the sum.
        """

    @abstractmethod
    def step(self, clip: float | None, want_norm: bool) -> Float[Tensor, ""] | float:
        """Clip the gradient and update the weights.

        Returns:
            The gradient's norm before clipping; nan when it was not computed.
        """

    @abstractmethod
    def clear(self) -> None:
        """Free the gradients, also those of parameters that the optimizer was not given."""

    @abstractmethod
    def whole(self) -> Whole | None:
        """A copy of the whole state, on the main process; None on the others. All must call it."""

    @abstractmethod
    def load(self, weights: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        """Take over a whole state that every process has read; names were compared before."""

    def accumulating(self, last: bool) -> AbstractContextManager:
        """Around forward and backward of a micro-batch."""
        return nullcontext()

    @abstractmethod
    def close(self) -> None:
        """Give the model back to its owner: whole, in the precision it came in, without hooks.

        All processes must call it, if the engine splits anything.
        """

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        # After an error the other processes may be elsewhere, and would not be waited for in vain.
        if error is None or not self.splits_anything:
            self.close()

    def whole_model(self) -> AbstractContextManager:
        """Within it, the caller's model has all its weights on every process, and runs alone.

        For evaluation and writing, where processes do different amounts of work.
        """
        return nullcontext()

    def loss_scale(self) -> float | None:
        """What losses are multiplied with before the backward pass, or None."""
        return None


def refuse_whole_matrices(optimizer: torch.optim.Optimizer, engine: str) -> None:
    """Stop before an optimizer that needs whole matrices gets slices of them.

    Raises:
        CourseError: for Muon.
    """
    if isinstance(optimizer, MuonAdamW):
        raise CourseError(
            f"Muon needs whole matrices, and {engine} gives each process a slice: "
            "train with AdamW (--optimizer adamw), or launch with multi_gpu.yaml or multi_cpu.yaml."
        )


def refuse_other_precisions(precision: Precision, engine: str) -> None:
    """Stop before a precision that has not been made to work with an engine that splits.

    Raises:
        CourseError: for fp16, whose loss scale would be the engine's own, and fp8.
    """
    if precision in ("fp16", "fp8"):
        raise CourseError(
            f'precision "{precision}" is not supported under {engine} here: choose "bf16" or "no".'
        )


def make_contiguous(model: nn.Module) -> None:
    """Lay every weight out in rows: channels_last is in the way of cutting and sending."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()


def unique_parameters(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """A model's parameters by their first name, and the other names of tied ones."""
    first: dict[int, str] = {}
    parameters: dict[str, nn.Parameter] = {}
    aliases: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            aliases[name] = first[id(parameter)]
        else:
            first[id(parameter)] = name
            parameters[name] = parameter
    return parameters, aliases


def to_main_memory(tensor: Tensor) -> Tensor:
    """A copy that training no longer changes; its strides stay."""
    return tensor.detach().to("cpu", copy=True)


def numbered(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """An optimizer's parameters in the order in which its state_dict numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
