"""A minimal training loop: one step, overfitting one batch, and evaluation.

Lesson 02 implements these three functions. `loop.trainer.Trainer` adds precision, several ranks,
checkpoints and tracking.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer


def training_step(
    model: nn.Module,
    optimizer: Optimizer,
    images: Float[Tensor, "batch ..."],
    labels: Int[Tensor, " batch"],
) -> float:
    """Improve the model by one step on one batch; return the loss it had before the step.

    The model maps images to logits (batch, classes); the loss is their cross-entropy with the
    labels, averaged over the batch.

    - The model trains in training mode, whatever mode it arrives in, and is left in it.
    - Only this batch counts: gradients of earlier backward passes must not contribute.
    - The loss comes back as a plain float. A tensor would stay attached to this step's graph,
      and on a GPU it would stay there.
    """
    model.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def overfit_one_batch(
    model: nn.Module,
    optimizer: Optimizer,
    images: Float[Tensor, "batch ..."],
    labels: Int[Tensor, " batch"],
    threshold: float = 0.01,
    max_steps: int = 300,
) -> list[float]:
    """Train on one batch, over and over, until its loss is below `threshold`.

    This is the first test of a new model or a new loop. If training cannot overfit a few examples,
    it cannot learn sixty thousand: there is a bug.

    Every step is a `training_step` on the whole batch. Stop after the first step whose loss is
    below `threshold`, and at the latest after `max_steps` steps. Returns the loss of every step
    that was taken, in order, the last one included.
    """
    losses: list[float] = []
    while len(losses) < max_steps:
        losses.append(training_step(model, optimizer, images, labels))
        if losses[-1] < threshold:
            break
    return losses


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Float[Tensor, "batch ..."], Int[Tensor, " batch"]]]
) -> float:
    """The share of images that the model gets right, between 0 and 1.

    The model maps images to logits (batch, classes); its answer is the class with the largest one.
    `batches` yields (images, labels); it may be an iterator that can be read only once. The last
    batch may be smaller than the others, and every image counts the same, whichever batch it
    came in.

    - The model answers in evaluation mode, so that an image's answer depends on nothing but the
      image. Afterwards it is in the mode in which it came.
    - No graph is recorded: there is nothing to differentiate here.
    """
    was_training = model.training
    model.eval()
    correct = seen = 0
    with torch.no_grad():
        for images, labels in batches:
            answers = model(images).argmax(dim=1)
            correct += int((answers == labels).sum())
            seen += len(labels)
    model.train(was_training)
    return correct / seen
