"""Functions on tensors that the lessons build by hand before they use PyTorch's.

Each is short enough to read aloud and is tested against PyTorch's own operator.
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def pairwise_distances(
    x: Float[Tensor, "n features"], y: Float[Tensor, "m features"]
) -> Float[Tensor, "n m"]:
    """Euclidean distance from every row of `x` to every row of `y`, without a Python loop.

    Entry [i, j] is ‖xᵢ − yⱼ‖. Subtracting every pair would need an array of n · m · features
    numbers. Expanding the square needs only n · m, and leaves the work to one matrix product:

        ‖xᵢ − yⱼ‖² = ‖xᵢ‖² + ‖yⱼ‖² − 2 xᵢ · yⱼ

    Where two points (nearly) coincide, rounding can make the right-hand side slightly negative;
    such a distance is 0, never nan. The inputs are left as they are, and the result has their
    dtype.
    """
    squared = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)[None, :] - 2 * x @ y.T
    return squared.clamp(min=0).sqrt()


def softmax(x: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Turn scores into probabilities along one axis: each in [0, 1], together 1.

        softmax(x)ᵢ = exp(xᵢ) / Σⱼ exp(xⱼ)        i and j run along axis `dim`

    exp(1000) is infinite in every float type, so the formula as it stands gives nan. Subtracting
    the same number from all scores of a slice changes nothing (numerator and denominator shrink
    alike), so each slice's own largest score may be taken off first. A score of −inf gets
    probability 0. Shape and dtype stay those of `x`, which is not modified.
    """
    # With the largest score at 0, no exp can overflow and no sum can be smaller than 1.
    exponentials = (x - x.amax(dim=dim, keepdim=True)).exp()
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def cross_entropy(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """How surprised a classifier is by the right answers: mean of −log p(label), in nats.

    The logits are raw scores; with p = softmax(logits), one example's loss is

        −log p(label) = log Σⱼ exp(logitⱼ) − logit(label)

    Use the right-hand side. The logarithm of a probability that was rounded to 0 is −inf, while
    `torch.logsumexp` shifts by the maximum and stays finite for logits of any size. The result is
    the mean over the batch, a scalar tensor of the logits' dtype, and gradients flow through it.
    """
    of_label = logits.gather(dim=1, index=labels[:, None]).squeeze(dim=1)
    return (logits.logsumexp(dim=1) - of_label).mean()


# --- Convolution and pooling (lesson 02) ----------------------------------------------------------


def conv2d(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels kernel_height kernel_width"],
    bias: Float[Tensor, " out_channels"] | None = None,
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "batch out_channels out_height out_width"]:
    """Slide every filter over every image: one linear layer, applied to each window.

        y[b, o, i, j] = bias[o] + Σ weight[o, c, u, v] · x̃[b, c, stride · i + u, stride · j + v]

    The sum runs over c, u and v: all input channels, and all rows and columns of the kernel. x̃ is
    `x` inside a frame of zeros, `padding` wide on all four sides. Only windows that lie wholly
    inside x̃ count, so

        out_height = (height + 2 · padding − kernel_height) // stride + 1

    and out_width likewise. The kernel is not flipped (strictly, this is cross-correlation). With
    `bias=None` nothing is added. The dtype is that of `x`; the arguments are not modified;
    gradients flow to `x`, `weight` and `bias`.

    Write it without a loop. Lay the windows out as the rows of a matrix ("im2col"), and a single
    matrix product does all the arithmetic: Chellapilla, Puri, Simard (2006), "High performance
    convolutional neural networks for document processing".
    """
    kernel_height, kernel_width = weight.shape[2:]
    framed = F.pad(x, (padding, padding, padding, padding))
    # A view of shape (batch, in_channels, out_height, out_width, kernel_height, kernel_width):
    # windows overlap in memory, and nothing is copied yet.
    windows = framed.unfold(2, kernel_height, stride).unfold(3, kernel_width, stride)
    # Now it is copied: one row per window, its numbers in the order in which a filter has them.
    columns = windows.permute(0, 2, 3, 1, 4, 5).flatten(start_dim=3)
    y = columns @ weight.flatten(start_dim=1).T
    if bias is not None:
        y = y + bias
    return y.movedim(-1, 1)


def max_pool2d(
    x: Float[Tensor, "batch channels height width"], kernel_size: int, stride: int | None = None
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Keep the largest value of every window, in each channel on its own.

        y[b, c, i, j] = max over 0 ≤ u, v < kernel_size of x[b, c, stride · i + u, stride · j + v]

    `stride=None` means windows side by side: stride = kernel_size. A window that would stick out
    at the right or at the bottom is left out, so

        out_height = (height − kernel_size) // stride + 1

    and out_width likewise. The gradient of an output goes to the value that won. Where several are
    equal (after a ReLU, whole windows are 0), the first one wins, reading row by row, and gets all
    of it. The dtype is that of `x`, which is not modified.

    Ranzato, Huang, Boureau, LeCun (2007), "Unsupervised learning of invariant feature hierarchies
    with applications to object recognition".
    """
    stride = kernel_size if stride is None else stride
    windows = x.unfold(2, kernel_size, stride).unfold(3, kernel_size, stride)
    # Not amax, which would share the gradient among equal values.
    return windows.flatten(start_dim=4).max(dim=-1).values
