"""Rotary position embedding: a token's position as an angle.

Each head's features are taken in pairs, and each pair is turned by position × frequency. The dot
product of a turned query with a turned key then depends on their distance only.

    pair i of a head of d features:  (x[i], x[i + d/2]),   frequency  theta^(−2i/d)

Paper: Su et al. (2021), "RoFormer: Enhanced Transformer with Rotary Position Embedding".
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.models.gpt.config import YaRN


def rope_frequencies(
    head_dim: int, theta: float, yarn: YaRN | None = None
) -> Float[Tensor, "half"]:
    """Radians per position for each pair, from 1 down to about 1/theta.

    With YaRN, pairs that turn often within the original context keep their frequency (they tell
    neighbours apart), pairs that do not even turn once are slowed by `factor` (they tell where in
    the text we are, and the text got longer), and those between are blended linearly.

    Paper: Peng et al. (2023), "YaRN: Efficient Context Window Extension of Large Language Models".
    """
    frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if yarn is None:
        return frequency

    def pair_that_turns(times: float) -> float:
        """The (fractional) index of the pair that turns so often in the original context."""
        wavelength = yarn.original_context / times
        return head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_that_turns(yarn.fast)), 0)
    last = min(math.ceil(pair_that_turns(yarn.slow)), head_dim - 1)
    pair = torch.arange(head_dim // 2, dtype=torch.float32)
    slowed = ((pair - first) / max(last - first, 0.001)).clamp(0, 1)
    return frequency * (1 - slowed) + frequency / yarn.factor * slowed


def rotation_tables(
    positions: Int[Tensor, "*batch seq"],
    frequencies: Float[Tensor, "half"],
    yarn: YaRN | None = None,
) -> tuple[Float[Tensor, "*batch seq half"], Float[Tensor, "*batch seq half"]]:
    """Cosine and sine of every position's angles, in float32.

    With YaRN both are scaled up slightly, which sharpens the attention that a longer context
    flattens (section 3.4 of the paper).
    """
    angles = positions[..., None].float() * frequencies
    sharpen = 1.0 if yarn is None or yarn.factor <= 1 else 0.1 * math.log(yarn.factor) + 1.0
    return angles.cos() * sharpen, angles.sin() * sharpen


def rotate(
    x: Float[Tensor, "batch heads seq head_dim"],
    cos: Float[Tensor, "... seq half"],
    sin: Float[Tensor, "... seq half"],
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Turn each pair of features (x[i], x[i + head_dim/2]) by its angle, counter-clockwise.

        x[i]                cos·x[i] − sin·x[i + head_dim/2]
                       →
        x[i + head_dim/2]   cos·x[i + head_dim/2] + sin·x[i]

    Args:
        x: queries or keys. The first feature's partner is the first of the second half.
        cos, sin: of each position's angles, one for each of the head_dim/2 pairs, in float32.

    Returns:
        The turned features in the same places; computed in float32, returned in the dtype of `x`.
    """
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.type_as(x)
