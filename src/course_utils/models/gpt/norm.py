"""Root-mean-square normalisation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scales every token's features to a root mean square of 1, then by a learned weight.

        y = x / √(mean(x²) + eps) · weight

    Paper: Zhang and Sennrich (2019), "Root Mean Square Layer Normalization".
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Normalise over the last axis; computes in float32, returns the dtype of `x`."""
        # Squares overflow float16 beyond 255 and lose most digits in bfloat16.
        wide = x.float()
        mean_square = wide.pow(2).mean(-1, keepdim=True)
        return self.weight * (wide * torch.rsqrt(mean_square + self.eps)).type_as(x)
