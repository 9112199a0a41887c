"""One optimizer step: compute the gradient of the global batch, then update the weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from jaxtyping import Float
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.training.config import TrainConfig
from course_utils.training.engines import Engine
from course_utils.training.loop.task import Task

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class StepResult:
    """The results of a step. Tensors stay on the device, because reading one waits for the GPU.

    Attributes:
        loss_sum: The sum of the loss over the items of this rank's micro-batches.
        items: The number of items in the global batch, over all ranks.
        grad_norm: The gradient's norm before clipping; nan when it was not requested.
        lr: The learning rate of the first parameter group.
        loss_scale: The loss scale of this step in fp16; None without loss scaling.
    """

    loss_sum: Float[Tensor, ""]
    items: int
    grad_norm: Float[Tensor, ""] | float
    lr: float
    loss_scale: float | None = None


class OptimizerStep:
    """Turns global batch `step` into one update of the weights.

        rank 0   micro-batch 0: forward, backward   1: forward, backward ─┐
                                                                          ├─ sum ─ update
        rank 1   micro-batch 2: forward, backward   3: forward, backward ─┘
                 └─── no communication ───┘

    Each micro-batch's loss is a sum over its items, divided by the number of items in the whole
    global batch. So the gradients of the micro-batches add up to exactly the gradient of the global
    batch. The engine decides how ranks add up gradients and which rank updates which weights.

    Args:
        schedule: Maps a step (from 0) to the factor on the base learning rates.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        engine: Engine,
        schedule: Schedule,
        task: Task,
        config: TrainConfig,
    ) -> None:
        self._accelerator, self._engine = accelerator, engine
        self._schedule, self._task, self._clip = schedule, task, config.clip
        self._base_lrs = [group["lr"] for group in engine.groups]
        self._parts = config.parts(accelerator.num_processes)
        first = accelerator.process_index * config.accumulation
        self._my_parts = range(first, first + config.accumulation)

    def batches(self, step: int) -> list[Any]:
        """Return this rank's micro-batches of a step."""
        return [self._task.batch(step, part, self._parts) for part in self._my_parts]

    def count(self, batches: Sequence[Any]) -> int:
        """Count the items that the loss of these micro-batches sums over."""
        return sum(self._task.count(batch) for batch in batches)

    def __call__(
        self, step: int, batches: Sequence[Any], items: int, want_norm: bool
    ) -> StepResult:
        """Update the weights from a step's micro-batches; `clear` frees the gradients afterwards.

        Args:
            step: The number of optimizer steps before this one.
            batches: The micro-batches that `batches(step)` returned.
            items: The number of items in the global batch, over all ranks.
            want_norm: Compute the gradient's norm even when the gradient is not clipped.

        Raises:
            CourseError: when everything in the global batch is masked.
        """
        if not items:
            raise CourseError(
                f"Step {step} has no {self._task.unit} to train on: the loss mask excludes its "
                "whole batch. Check the data, or use a larger batch."
            )
        loss_sum = self._gradients(batches, items)
        lr = self._set_learning_rates(self._schedule(step))
        loss_scale = self._engine.loss_scale() if want_norm else None  # waits for the GPU
        grad_norm = self._engine.step(self._clip, want_norm)
        return StepResult(loss_sum, items, grad_norm, lr, loss_scale)

    def clear(self) -> None:
        """Free the gradients, also those of parameters that the optimizer was not given."""
        self._engine.clear()

    def reset(self) -> None:
        """Free the gradients and restore the base learning rates, so that training can continue."""
        self._engine.clear()
        self._set_learning_rates(1.0)

    def _gradients(self, batches: Sequence[Any], items: int) -> Float[Tensor, ""]:
        """Accumulate the gradient of the mean loss into `p.grad`; return this rank's loss sum."""
        # Engines average gradients over ranks; this factor turns the average into a sum.
        scale = self._accelerator.num_processes / items
        loss_sum = torch.zeros((), device=self._accelerator.device)
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with self._engine.accumulating(last):
                batch = send_to_device(batch, self._accelerator.device, non_blocking=True)
                with self._accelerator.autocast():
                    loss = self._task.loss(self._engine.model, batch)
                if loss.ndim:
                    raise CourseError(
                        f"{type(self._task).__name__}.loss must return one number, the sum over "
                        f"the batch; it has shape {list(loss.shape)}."
                    )
                self._engine.backward(loss * scale, last)
            loss_sum += loss.detach()
        return loss_sum

    def _set_learning_rates(self, factor: float) -> float:
        for group, base in zip(self._engine.groups, self._base_lrs, strict=True):
            group["lr"] = base * factor
        return self._engine.groups[0]["lr"]


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's class and hyperparameters as plain values, to compare on resume."""
    # These select one of torch's implementations; they do not change the update rule.
    implementation = ("foreach", "fused", "capturable", "differentiable")
    groups = [
        {k: v for k, v in group.items() if _is_plain(v) and k not in implementation}
        | {"parameters": sum(p.numel() for p in group["params"])}
        for group in optimizer.param_groups
    ]
    return {"type": type(optimizer).__name__, "groups": groups}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value)) and len(value) > 0
    return isinstance(value, bool | int | float | str)
