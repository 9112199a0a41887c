"""NF4: sixteen levels where a normal distribution has its numbers.

Weights of a trained network are roughly normal: most lie near zero. Levels at equal distances spend
half of themselves on numbers that hardly occur; levels at the quantiles lie closest where most
numbers are. They are used more evenly, not equally, for a group that was divided by its largest
magnitude is no longer normal; and they are good levels, not those of the smallest error.

Papers: Dettmers et al. (2023), "QLoRA: Efficient Finetuning of Quantized LLMs", section 3 and
appendix E; Yoshida (2023), "NF4 Isn't Information Theoretically Optimal (and that's Good)".
"""

from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def normal_float_levels(bits: int = 4) -> Float[Tensor, "levels"]:
    """The 2^bits levels of the NormalFloat data type: NF4 with 4 bits.

    They are quantiles of the standard normal distribution, and 0. Both sides get levels of their
    own, so that 0 is exact: one more above zero than below.

    - On the positive side, half = 2^(bits−1) levels: Q(p) for `half + 1` equally spaced p from
      `end` down to 0.5, of which the last, Q(0.5) = 0, is left out.
    - On the negative side, half − 1 levels: −Q(p) for `half` equally spaced p from `end` down to
      0.5, of which the last is left out again.
    - 0 itself.
    - Q(1) would be infinite, so p ends a little before 1. Half of 1/(2^bits − 1) and half of
      1/2^bits would both do; it is their mean: end = 1 − (1/(2·(2^bits − 1)) + 1/(2·2^bits)) / 2.
    - All are divided by the largest, so that they reach from −1 to 1.

    Q is the inverse of the normal distribution function, `torch.special.ndtri`. Compute in float64.

    Returns:
        The levels in ascending order, as float32.
    """
    half = 2 ** (bits - 1)
    end = 1 - (1 / (2 * (2**bits - 1)) + 1 / (2 * 2**bits)) / 2
    above, below = (
        torch.special.ndtri(torch.linspace(end, 0.5, count + 1, dtype=torch.float64)[:-1])
        for count in (half, half - 1)
    )
    levels = torch.cat((-below, torch.zeros(1, dtype=torch.float64), above.flip(0)))
    return (levels / levels.max()).float()


def nearest_level(
    x: Float[Tensor, "*shape"], levels: Float[Tensor, "levels"]
) -> UInt8[Tensor, "*shape"]:
    """The index of the level next to each number; `levels` ascend."""
    middles = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(x, middles.to(x)).to(torch.uint8)


@cache
def nf4_levels() -> Float[Tensor, "16"]:
    """The levels of NF4, computed once."""
    return normal_float_levels(4)
