"""One optimiser step: the gradient of the global batch, and the update. The heart of training."""

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
    """What a step knows afterwards; tensors stay on the device, as reading one waits for the GPU.

    Attributes:
        loss_sum: Over the items of this process's micro-batches.
        items: Of all processes.
        grad_norm: Before clipping; nan when nobody asked for it.
        lr: Of the first parameter group.
        loss_scale: That the gradients of this step were computed with; None where none is needed.
    """

    loss_sum: Float[Tensor, ""]
    items: int
    grad_norm: Float[Tensor, ""] | float
    lr: float
    loss_scale: float | None = None


class OptimizerStep:
    """Turns global batch `step` into one update of the weights.

        process 0   part 0: forward, backward   part 1: forward, backward ─┐
                                                                           ├─ sum ─ update
        process 1   part 2: forward, backward   part 3: forward, backward ─┘
                    └─── nothing is sent ────┘

    The parts of a step do not know each other, yet their gradients add up to exactly that of the
    whole batch, because each loss is a sum over items and is divided by the count of all of them.
    How they are added up, and who makes the update of what, is the engine's.

    Args:
        schedule: Step (from 0) to the factor on the base learning rates.
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
        """This process's micro-batches of a step."""
        return [self._task.batch(step, part, self._parts) for part in self._my_parts]

    def count(self, batches: Sequence[Any]) -> int:
        """Items that the loss of these micro-batches sums over."""
        return sum(self._task.count(batch) for batch in batches)

    def __call__(
        self, step: int, batches: Sequence[Any], items: int, want_norm: bool
    ) -> StepResult:
        """Learn from a step's micro-batches; the gradients stay in `p.grad` until `clear`.

        Args:
            step: Steps taken before this one.
            batches: What `batches(step)` returned.
            items: The count of all micro-batches of all processes.
            want_norm: Whether the gradient's norm is to be known even if nothing clips it.

        Raises:
            CourseError: when everything in the global batch is masked.
        """
        if not items:
            raise CourseError(
                f"Step {step} has no {self._task.unit} to learn from: all of its batch is masked."
            )
        loss_sum = self._gradients(batches, items)
        lr = self._set_learning_rates(self._schedule(step))
        loss_scale = self._engine.loss_scale() if want_norm else None  # waits for the GPU
        grad_norm = self._engine.step(self._clip, want_norm)
        return StepResult(loss_sum, items, grad_norm, lr, loss_scale)

    def clear(self) -> None:
        """Free the gradients, also those of parameters that the optimiser was not given."""
        self._engine.clear()

    def reset(self) -> None:
        """Free the gradients and set the base learning rates, for a training that follows."""
        self._engine.clear()
        self._set_learning_rates(1.0)

    def _gradients(self, batches: Sequence[Any], items: int) -> Float[Tensor, ""]:
        """Put the gradient of the loss per item into `p.grad`; returns this process's loss sum."""
        # Engines average gradients over processes. The factor turns that into the sum we want.
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
    """Kind and hyperparameters of an optimiser, as plain values: part of a run's identity."""
    how_not_what = ("foreach", "fused", "capturable", "differentiable")  # torch's implementations
    groups = [
        {k: v for k, v in group.items() if _is_plain(v) and k not in how_not_what}
        | {"parameters": sum(p.numel() for p in group["params"])}
        for group in optimizer.param_groups
    ]
    return {"type": type(optimizer).__name__, "groups": groups}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value)) and len(value) > 0
    return isinstance(value, bool | int | float | str)
