"""The interface between the trainer and a problem: its data, its loss and its evaluation.

The trainer itself knows nothing about images or tokens. MNIST, pretraining, LoRA and DPO differ in
their `Task` and share everything else.
"""

from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn


class Task(Protocol):
    """Data, loss and evaluation of one problem.

    Attributes:
        unit: The counted items, in the plural: "images" or "tokens". It names the columns of
            metrics.jsonl (`images`, `images_per_s`).
        batch_size: Examples in one global batch, that is, per optimizer step, over all ranks.
            The trainer refuses a task whose batch size differs from `TrainConfig.batch_size`.

    A task whose `batch` generates text with the model also has `generates = True`. Engines that
    shard the weights refuse such a task.
    """

    unit: str
    batch_size: int

    def batch(self, step: int, part: int, parts: int) -> Any:
        """Return micro-batch number `part` of the `parts` micro-batches of global batch `step`.

        The result must depend only on the task's seed and these three numbers. The micro-batches of
        a step must together hold the same examples for every number of micro-batches. Then step s
        trains on the same examples on one rank or on eight, before or after a resume: the position
        in the data *is* the step. `parts.data_order.global_batch` and `part_of` compute it.

        Args:
            step: Number of optimizer steps before this batch, from 0.
            part: The number of the micro-batch, 0 ≤ part < parts.
            parts: Micro-batches per step, world size × accumulation; it divides `batch_size`.

        Returns:
            Tensors, or tuples, lists or dicts of tensors, on any device; the trainer moves them to
            the model's device. Random augmentation must draw from a generator that is seeded by
            (seed, step, example), never from torch's global generator.
        """
        ...

    def count(self, batch: Any) -> int:
        """Count the items that the loss sums over: images, or tokens that the loss mask includes.

        The trainer calls this before it moves the batch to the GPU: no GPU synchronization.
        """
        ...

    def loss(self, model: nn.Module, batch: Any) -> Float[Tensor, ""]:
        """The **sum** of the loss over the items of `batch`, under autocast, in training mode.

        The trainer divides by the item count of the global batch. If this method returned a mean, a
        micro-batch with three unmasked tokens would count as much as one with three hundred.

        Args:
            model: The prepared model (wrapped for several ranks). Only call it: ranks exchange
                gradients only for what `model(...)` computed.
        """
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Evaluate the model on held-out data; the result must contain "val_loss".

        Every rank calls this with the original, unwrapped model, in evaluation mode, under
        `torch.no_grad()` and autocast. All ranks hold equal weights and must return equal metrics:
        evaluate everything on each rank, or divide the work and add up the results with
        `engines.processes.sum_over_processes`. The trainer restores the random state afterwards, so
        evaluation does not change the training. Evaluation should take only seconds, because a run
        that receives SIGTERM stops only afterwards. Keys without the prefix "val_" get it.
        """
        ...
