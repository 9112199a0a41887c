"""A small convolutional network for 28 × 28 images, built to train in seconds on a CPU.

    28×28×1  ──5×5, stride 2──►  12×12×w  ──3×3, stride 2──►  6×6×2w  ──3×3──►  4×4×2w
             ──3×3──►  2×2×2w  ──flatten, linear──►  classes

Where the time goes decides the shape. A convolution costs height × width × channels_in ×
channels_out × kernel area: at 28 × 28 every channel is sixteen times as expensive as at 7 × 7. So
the first layer halves the sides with few channels, the second halves them again, and most of the
weights work on images of 6 × 6 and smaller. Strides replace pooling, which would first compute four
values to keep one; no padding in the late layers saves the products with zeros.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def conv_block(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """Convolution, normalisation, ReLU: (batch, in_channels, …) to (batch, out_channels, …).

    The normalisation is layer normalisation over the channels and pixels of one image (a
    `GroupNorm` with one group; Wu and He 2018, arXiv:1803.08494). Batch normalisation (Ioffe and
    Szegedy 2015) learns slightly faster here, but its statistics depend on which images share a
    process: two processes would train another model than one. An image normalised by itself comes
    out the same in any company, and in training as in use.
    """
    return nn.Sequential(
        # The normalisation subtracts the mean and adds its own shift: a bias would be lost in it.
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
        nn.GroupNorm(1, out_channels),
        nn.ReLU(),
    )


class SmallCNN(nn.Module):
    """Four convolutions and a linear layer.

    Args:
        n_classes: Classes to tell apart.
        width: Channels of the first layer; the others have twice as many. The cost of a step grows
            with its square.
    """

    def __init__(self, n_classes: int = 10, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_block(1, width, kernel_size=5, stride=2),
            conv_block(width, 2 * width, kernel_size=3, stride=2, padding=1),
            conv_block(2 * width, 2 * width, kernel_size=3),
            conv_block(2 * width, 2 * width, kernel_size=3),
        )
        self.classifier = nn.Linear(2 * width * 2 * 2, n_classes)
        # Channels last in memory (NHWC): the order that oneDNN's and cuDNN's convolutions work in.
        # In the usual order every layer would rearrange its input and output.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch n_classes"]:
        """Logits, one per class, from grey values around zero (see `ImageTask.to_input`)."""
        features = self.features(images)
        return self.classifier(features.flatten(start_dim=1))
