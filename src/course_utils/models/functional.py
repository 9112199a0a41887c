"""Functions on tensors that the lessons build by hand before they use PyTorch's.

Each is short enough to read aloud and is tested against PyTorch's own operator.
"""

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
