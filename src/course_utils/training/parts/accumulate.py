"""Gradient accumulation: the gradient of a large batch with the memory of a micro-batch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def accumulate(
    model: nn.Module,
    micro_batches: Sequence[
        tuple[Float[Tensor, "micro_batch *features"], Int[Tensor, "micro_batch"]]
    ],
) -> Float[Tensor, ""]:
    """The gradient of one big batch, computed from its micro-batches one after another.

    The loss of the big batch is the mean of the cross-entropy over **all** its examples. When this
    function returns, the `.grad` of every parameter is the gradient of that loss, as if the
    micro-batches had been one batch; it replaces any earlier gradient. The parameters themselves do
    not change: only the optimizer changes them.

    Call `backward` after each micro-batch: then only one micro-batch's activations are in memory.

    Args:
        model: maps inputs to logits of shape (micro_batch, classes).
        micro_batches: pairs (inputs, labels). Their sizes may differ: an example counts as much in
            a small micro-batch as in a large one.

    Returns:
        The loss of the big batch, detached (without the graph behind it).

    Paper: the same arithmetic adds up the gradients of several machines in Goyal et al. (2017),
    "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour".
    """
    n_examples = sum(len(labels) for _, labels in micro_batches)
    model.zero_grad()
    total = torch.zeros(())
    for inputs, labels in micro_batches:
        loss = F.cross_entropy(model(inputs), labels, reduction="sum") / n_examples
        loss.backward()
        total = total + loss.detach()
    return total
