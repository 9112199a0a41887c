"""What the trainer needs to know about a problem: its data, its loss, its evaluation.

The trainer never sees an image or a token. MNIST, pretraining, LoRA and DPO differ in their `Task`
and share everything else.
"""

from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn


class Task(Protocol):
    """Data, loss and evaluation of one problem.

    Attributes:
        unit: What is counted, in the plural: "images" or "tokens". It names the columns of
            metrics.jsonl (`images`, `images_per_s`).
        batch_size: Examples in one global batch, that is, per optimiser step, over all processes.
            The trainer refuses a task whose batch size differs from `TrainConfig.batch_size`.

    A task whose `batch` lets the model write also has `writes = True`: engines that split the
    weights refuse it.
    """

    unit: str
    batch_size: int

    def batch(self, step: int, part: int, parts: int) -> Any:
        """Part `part` of the `parts` equal parts of global batch `step`.

        Must be a pure function of the task's seed and these three numbers, and the parts of a step
        together must be the same examples however many parts there are. Then step s trains on the
        same examples on one process or on eight, before or after a restart: the data position *is*
        the step. `data_order.global_batch` and `data_order.part_of` do the arithmetic.

        Args:
            step: Number of optimiser steps taken before this batch, from 0.
            part: 0 ≤ part < parts; one part is one micro-batch on one process.
            parts: processes × accumulation, a divisor of `batch_size`.

        Returns:
            Tensors, or tuples, lists or dicts of tensors, on any device; the trainer moves them to
            the model's. Anything random in here (augmentation) draws from a generator seeded by
            (seed, step, example), never from torch's global one.
        """
        ...

    def count(self, batch: Any) -> int:
        """How many items the loss of this batch sums over: images, or tokens that are not masked.

        Called before the batch is moved to the GPU, so that it costs no synchronisation.
        """
        ...

    def loss(self, model: nn.Module, batch: Any) -> Float[Tensor, ""]:
        """The **sum** of the loss over the items of `batch`, under autocast, in training mode.

        The trainer divides by the count of the whole global batch. A mean here would weigh a
        micro-batch with three unmasked tokens as much as one with three hundred.

        Args:
            model: The prepared model (wrapped for several processes); call it, and use nothing
                else of it: gradients are shared between processes only for what `model(...)` did.
        """
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure the model on held-out data; the result must contain "val_loss".

        Called on every process with the learner's own, unwrapped model, in evaluation mode, under
        `torch.no_grad()` and autocast. All processes hold equal weights and must return equal
        numbers: evaluate everything on each, or share the work and add up with
        `processes.sum_over_processes`. The random state is put back afterwards, so evaluating more
        often does not change the training. Keep it to seconds: a machine that is being taken away
        waits for it. Other keys are logged with a "val_" in front when they lack it.
        """
        ...
