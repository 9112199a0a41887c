"""The interface of all engines, and what they share."""

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
    """The full, unsharded training state in main memory, as a single process would hold it.

    Attributes:
        weights: Tensors by name; a tensor with two names (tied weights) occurs once.
        aliases: Maps each further name of a tied tensor to its name in `weights`.
        optimizer: The `optimizer.state_dict()` of a single process.
    """

    weights: dict[str, Tensor]
    aliases: dict[str, str]
    optimizer: dict[str, Any]


class Engine(ABC):
    """Computes gradients, updates weights and collects the state of a model on one or more ranks.

    Attributes:
        model: The wrapped model that computes the loss.
        strategy: The distributed strategy in words, for the first line of a run's output.
        shards_state: Whether any part of the training state is sharded.
        shards_weights: Whether the weights are sharded. Then a forward pass is a collective
            operation: all ranks must run it together.
    """

    model: nn.Module
    strategy: str
    shards_state = False
    shards_weights = False

    @property
    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's current parameter groups; loading a state replaces them."""

    @abstractmethod
    def backward(self, loss: Float[Tensor, ""], last: bool) -> None:
        """Accumulate a micro-batch's gradient, averaged over ranks.

        Args:
            last: Whether this is the step's last micro-batch; then ranks exchange the gradients.
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
        """Return a copy of the full state on rank 0 and None elsewhere; every rank must call it."""

    @abstractmethod
    def load(self, weights: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        """Load a full state that every rank has read; the caller has compared the names."""

    def accumulating(self, last: bool) -> AbstractContextManager:
        """A context around the forward and backward pass of a micro-batch."""
        return nullcontext()

    @abstractmethod
    def close(self) -> None:
        """Restore the caller's model: unsharded, in its original precision, without hooks.

        If the engine shards any state, all ranks must call this method.
        """

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        # After an error, other ranks may be in another collective; waiting for them could hang.
        if error is None or not self.shards_state:
            self.close()

    def whole_model(self) -> AbstractContextManager:
        """A context in which the caller's model has all its weights on every rank.

        Each rank can then run the model independently, for evaluation and generation, where ranks
        do different amounts of work.
        """
        return nullcontext()

    def loss_scale(self) -> float | None:
        """The loss scale in fp16, or None."""
        return None


def refuse_whole_matrices(optimizer: torch.optim.Optimizer, engine: str) -> None:
    """Refuse an optimizer that needs whole matrices, which this engine shards.

    Raises:
        CourseError: for Muon.
    """
    if isinstance(optimizer, MuonAdamW):
        raise CourseError(
            f"Muon needs whole matrices, and {engine} shards them. "
            "Train with --optimizer adamw, or launch with multi_gpu.yaml or multi_cpu.yaml."
        )


def refuse_other_precisions(precision: Precision, engine: str) -> None:
    """Refuse a precision that the course does not support with a sharding engine.

    Raises:
        CourseError: for fp16, where the engine would use its own loss scale, and for fp8.
    """
    if precision in ("fp16", "fp8"):
        raise CourseError(
            f"--precision {precision} is not supported with {engine}: choose bf16 or no."
        )


def make_contiguous(model: nn.Module) -> None:
    """Make every weight contiguous: weights in channels_last format cannot be sharded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()


def unique_parameters(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """A model's parameters by their first name, and the further names of tied parameters."""
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
    """Copy a tensor to main memory, with its strides; later updates do not change the copy."""
    return tensor.detach().to("cpu", copy=True)


def numbered(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """An optimizer's parameters, in the order of the numbers in its state_dict."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
