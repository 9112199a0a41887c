"""How much quantization changes."""

import math

from jaxtyping import Float
from torch import Tensor


def decibels(x: Float[Tensor, "*shape"], restored: Float[Tensor, "*shape"]) -> float:
    """Signal to noise: how much larger the numbers are than their errors, in decibels.

        10 · log10( Σ x² / Σ (restored − x)² )

    10 dB more are a tenth of the squared error. One bit more halves the error: 6 dB.
    """
    noise = (restored.double() - x.double()).square().sum().item()
    return 10 * math.log10(x.double().square().sum().item() / noise) if noise else math.inf


def bits_per_weight(parts: dict[str, Tensor], n_weights: int) -> float:
    """What a stored matrix takes, its scales included."""
    return 8 * sum(part.nbytes for part in parts.values()) / n_weights
