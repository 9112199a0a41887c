"""Root-mean-square normalisation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scales every token's features to a root mean square of 1, then by a learned weight.

        y = x / √(mean(x²) + eps) · weight          the mean is over the last axis

    Paper: Zhang and Sennrich (2019), "Root Mean Square Layer Normalization".
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Normalise each token on its own.

        Squares overflow in float16 and lose most of their digits in bfloat16, so everything up to
        the division is computed in float32. Then the result gets the dtype of `x` back, and is
        multiplied by the weight last.
        """
        wide = x.float()
        mean_square = wide.pow(2).mean(-1, keepdim=True)
        return self.weight * (wide * torch.rsqrt(mean_square + self.eps)).type_as(x)
