"""Classifying images that fit in memory: the data, the loss and the evaluation of the MNIST lab.

The whole set is one uint8 tensor. A batch is a handful of tensor operations on it, without worker
processes, decoding or a Python loop over images:

    rows of step s ──► shift each image by its own few pixels ──► this process's part ──► [-1, 1]
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from course_utils.base.errors import CourseError
from course_utils.data.images import ImageSet
from course_utils.training.engines.processes import Processes
from course_utils.training.parts.data_order import global_batch, part_of

Batch = tuple[UInt8[Tensor, "batch height width"], Int64[Tensor, "batch"]]

EVALUATION_BATCH = 1000


def random_shifts(
    step: int, batch_size: int, most: int, seed: int
) -> Int64[Tensor, "batch_size 2"]:
    """Where to cut each image of global batch `step` from its padded self: (down, right) offsets.

    Drawn for the whole global batch from (seed, step) alone, so that an image is shifted alike
    whichever process trains on it.

    Args:
        most: Largest shift in pixels; offsets are 0 … 2·most, and `most` leaves an image in place.
    """
    # `data_order` draws from the same generator with the same kind of key; the counter's top word
    # puts these numbers out of its reach.
    philox = np.random.Philox(key=[seed, step], counter=[0, 0, 0, 1])
    offsets = np.random.Generator(philox).integers(0, 2 * most + 1, size=(batch_size, 2))
    return torch.from_numpy(offsets)


def shift(
    images: UInt8[Tensor, "batch height width"], offsets: Int64[Tensor, "batch 2"], most: int
) -> UInt8[Tensor, "batch height width"]:
    """Move every image by its own whole number of pixels; what comes in from outside is black.

    Args:
        offsets: From `random_shifts`: where in the padded image the window of each image begins.
        most: The padding on each side.
    """
    _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    # All windows of the padded images, as a view: (batch, 2·most+1, 2·most+1, height, width).
    windows = padded.unfold(1, height, 1).unfold(2, width, 1)
    return windows[torch.arange(len(images)), offsets[:, 0], offsets[:, 1]]


@dataclass(eq=False)
class ImageTask:
    """A `Task`: classify images, evaluated on held-out images.

    Attributes:
        images, labels: The training set.
        held_out_images, held_out_labels: The validation set.
        batch_size: Images per optimizer step, over all processes.
        seed: Of the order of the images and of their shifts.
        shift: Largest random shift in pixels, up, down, left and right; 0 trains on the images as
            they are.
        label_smoothing: Share of the target that is spread over all classes (Szegedy et al. 2016,
            arXiv:1512.00567). It affects the training loss alone.

    Raises:
        CourseError: when images and labels differ in number, or a setting makes no sense.
    """

    images: UInt8[Tensor, "n height width"]
    labels: Int64[Tensor, "n"]
    held_out_images: UInt8[Tensor, "n_held_out height width"]
    held_out_labels: Int64[Tensor, "n_held_out"]
    batch_size: int
    seed: int = 0
    shift: int = 1
    label_smoothing: float = 0.1

    unit = "images"

    @classmethod
    def of(cls, data: ImageSet, *, hold_out: int = 0, **settings: Any) -> "ImageTask":
        """The task of a published set: train on its training images, measure on its test images.

        Args:
            hold_out: If not 0, measure on that many of the last training images instead, and do
                not train on them. Settings that were chosen by looking at the test set make its
                accuracy too good to be true.
            settings: The attributes above, from `batch_size` on.

        Raises:
            CourseError: when `hold_out` leaves nothing to train on.
        """
        n = len(data.train_images) - hold_out
        if hold_out < 0 or n <= 0:
            raise CourseError(
                f"hold_out must be from 0 to {len(data.train_images) - 1:,} of {data.name}'s "
                f"training images; found {hold_out:,}."
            )
        if hold_out:
            held_out = data.train_images[n:], data.train_labels[n:]
        else:
            held_out = data.test_images, data.test_labels
        return cls(data.train_images[:n], data.train_labels[:n], *held_out, **settings)

    def __post_init__(self) -> None:
        for images, labels in (
            (self.images, self.labels),
            (self.held_out_images, self.held_out_labels),
        ):
            if len(images) != len(labels) or len(labels) == 0:
                raise CourseError(
                    f"There are {len(images):,} images and {len(labels):,} labels: "
                    "each image needs its label, and there must be some."
                )
        if self.shift < 0:
            raise CourseError(f"shift must be 0 or more pixels; found {self.shift}.")
        if not 0 <= self.label_smoothing < 1:
            raise CourseError(
                f"label_smoothing must be at least 0 and below 1; found {self.label_smoothing}."
            )

    def batch(self, step: int, part: int, parts: int) -> Batch:
        """Images as bytes, to be scaled on the device: a quarter of the traffic of fp32."""
        rows = global_batch(step, self.batch_size, len(self.images), self.seed)
        mine = part_of(rows, part, parts)
        images, labels = self.images[mine], self.labels[mine]
        if self.shift:
            offsets = random_shifts(step, self.batch_size, self.shift, self.seed)
            images = shift(images, part_of(offsets, part, parts), self.shift)
        return images, labels

    def count(self, batch: Batch) -> int:
        return len(batch[1])

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy, summed over the batch."""
        images, labels = batch
        logits = model(self.to_input(images)).float()
        return F.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=self.label_smoothing
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mean cross-entropy (without smoothing) and accuracy (0 to 1) on the held-out images.

        The processes share the batches between them.
        """
        processes = Processes.start()
        device = next(model.parameters()).device
        loss, correct = 0.0, 0
        starts = range(0, len(self.held_out_labels), EVALUATION_BATCH)
        for start in starts[processes.index :: processes.count]:
            images = self.held_out_images[start : start + EVALUATION_BATCH].to(device)
            labels = self.held_out_labels[start : start + EVALUATION_BATCH].to(device)
            logits = model(self.to_input(images)).float()
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            correct += int((logits.argmax(dim=1) == labels).sum())
        totals = processes.sum([loss, correct])
        n = len(self.held_out_labels)
        return {"val_loss": totals[0] / n, "val_accuracy": totals[1] / n}

    @staticmethod
    def to_input(
        images: UInt8[Tensor, "batch height width"],
    ) -> Float[Tensor, "batch 1 height width"]:
        """Bytes as the model wants them: one channel, black −1, white 1."""
        return images.unsqueeze(1).float() / 127.5 - 1
