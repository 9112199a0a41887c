"""One process, or several ranks that each hold a replica of everything (DDP)."""

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from course_utils.training.engines.base import Engine, Whole, to_main_memory
from course_utils.training.engines.processes import prepare, release
from course_utils.training.engines.weights import trained_weights


class PlainEngine(Engine):
    """The caller's optimizer, and DDP around the model if there are several ranks.

    DDP averages gradients in buckets, overlapped with the backward pass. Li et al. 2020, "PyTorch
    Distributed", arXiv:2006.15704.
    """

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self._accelerator, self._own = accelerator, model
        self._own_optimizer = optimizer
        self.model, self._optimizer = prepare(accelerator, model, optimizer)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        several = accelerator.num_processes > 1
        kind = accelerator.distributed_type.value
        self.strategy = f"{kind} over {dist.get_backend()}" if several else ""

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    def accumulating(self, last: bool) -> AbstractContextManager:
        # Ranks exchange the accumulated gradient once, in the last backward pass.
        return nullcontext() if last else self._accelerator.no_sync(self.model)

    def backward(self, loss: Float[Tensor, ""], last: bool) -> None:
        self._accelerator.backward(loss)

    def step(self, clip: float | None, want_norm: bool) -> Float[Tensor, ""] | float:
        norm: Float[Tensor, ""] | float = math.nan
        if clip is not None:
            norm = self._accelerator.clip_grad_norm_(self._parameters, clip)
        elif want_norm:
            self._accelerator.unscale_gradients()
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
        self._optimizer.step()  # a gradient scaler skips the step if a gradient is not finite
        return norm

    def clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def whole(self) -> Whole | None:
        if not self._accelerator.is_main_process:
            return None
        weights, aliases = trained_weights(self._own)
        return Whole(
            {name: to_main_memory(tensor) for name, tensor in weights.items()},
            aliases,
            _copy(self._own_optimizer.state_dict()),
        )

    def load(self, weights: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        self._own.load_state_dict(weights, strict=len(weights) == len(self._own.state_dict()))
        self._own_optimizer.load_state_dict(optimizer)
        # Fused optimizers need state tensors with the strides of their weights (channels_last); a
        # checkpoint from a sharding engine holds contiguous tensors.
        for parameter, state in self._own_optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def close(self) -> None:
        release(self._accelerator, self._own)

    def loss_scale(self) -> float | None:
        scaler = self._accelerator.scaler
        return scaler.get_scale() if scaler else None


def _copy(value: Any) -> Any:
    """A nested copy of an optimizer state, with all tensors in main memory."""
    if isinstance(value, Tensor):
        return to_main_memory(value)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return copy.copy(value)
