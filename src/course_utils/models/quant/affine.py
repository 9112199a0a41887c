"""Numbers as small integers and a scale: x ≈ scale · q, or scale · (q − zero).

Everything here works along the last axis: the numbers of a row share a scale. What a row is, is a
matter of reshaping: the whole matrix, an output channel, or a group of a few neighbours.

Paper: Jacob et al. (2018), "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference".
"""

import torch
from jaxtyping import Float, Int8, Integer, UInt8
from torch import Tensor

from course_utils.base.errors import CourseError


def quantize_symmetric(
    x: Float[Tensor, "*rows n"], bits: int = 8, limit: Float[Tensor, "*#rows 1"] | None = None
) -> tuple[Int8[Tensor, "*rows n"], Float[Tensor, "*#rows 1"]]:
    """Round every row to whole multiples of a scale of its own; zero stays zero.

        top = 2^(bits−1) − 1          127 for 8 bits, 7 for 4
        scale = limit / top           the limit becomes the integer top
        q = round(x / scale)          between −top and top; what lies beyond the limit is clipped

    Args:
        x: numbers; those along the last axis share a scale.
        bits: 2 to 8.
        limit: magnitude that becomes `top`, one for each row. By default the largest magnitude of
            the row, so that nothing is clipped.

    Returns:
        The integers as int8, in the shape of `x`, and the scales in its dtype, with a last axis of
        1, so that `q * scale` is about `x`. A row whose limit is 0 has the scale 1.
    """
    top = 2 ** (bits - 1) - 1
    if limit is None:
        limit = x.abs().amax(dim=-1, keepdim=True)
    # Dividing by a scale of 0 would give NaN, which no integer can hold.
    scale = torch.where(limit > 0, limit / top, 1.0)
    codes = (x / scale).round().clamp(-top, top)
    return codes.to(torch.int8), scale


def quantize_asymmetric(
    x: Float[Tensor, "*rows n"], bits: int = 8
) -> tuple[UInt8[Tensor, "*rows n"], Float[Tensor, "*rows 1"], UInt8[Tensor, "*rows 1"]]:
    """Spread all 2^bits integers over the range from each row's least to its greatest number.

        top = 2^bits − 1                            the integers are 0 … top
        scale = (greatest − least) / top
        zero = round(−least / scale)                the integer that stands for 0
        q = round(x / scale) + zero                 kept within 0 … top

    The range is widened to contain 0 first, so that 0 is one of the integers exactly: padding and
    ReLU produce many of them. A row of nothing but zeros has the scale 1.

    Args:
        x: numbers; those along the last axis share a scale and a zero.
        bits: 2 to 8.

    Returns:
        The integers as uint8, in the shape of `x`; the scales in its dtype and the zeros as uint8,
        both with a last axis of 1. `(q − zero) · scale` is about `x`.
    """
    top = 2**bits - 1
    least = x.amin(dim=-1, keepdim=True).clamp(max=0)
    greatest = x.amax(dim=-1, keepdim=True).clamp(min=0)
    span = greatest - least
    scale = torch.where(span > 0, span / top, 1.0)
    zero = (-least / scale).round()
    codes = ((x / scale).round() + zero).clamp(0, top)
    return codes.to(torch.uint8), scale, zero.to(torch.uint8)


def dequantize(
    codes: Integer[Tensor, "*rows n"],
    scale: Float[Tensor, "*#rows 1"],
    zero: Integer[Tensor, "*#rows 1"] | None = None,
) -> Float[Tensor, "*rows n"]:
    """The numbers that integers stand for, in the dtype of the scale."""
    # Not codes − zero as they are: below zero, unsigned integers start again at 255.
    wide = codes.to(scale.dtype)
    return (wide if zero is None else wide - zero) * scale


def quantize_groups(
    weight: Float[Tensor, "out inputs"], bits: int, group: int
) -> tuple[Int8[Tensor, "out inputs"], Float[Tensor, "out groups"]]:
    """Quantize a weight symmetrically, with a scale for every `group` neighbouring inputs.

    Each row of the matrix (an output) is cut into inputs/group pieces of `group` numbers that lie
    side by side, and each piece is quantized by itself, as `quantize_symmetric` does. With `group`
    = inputs, every output has one scale: that is called per channel.

    Args:
        weight: a linear layer's matrix.
        bits: 2 to 8.
        group: how many inputs share a scale; must divide the number of inputs.

    Returns:
        The integers in the shape of `weight`; and for each output the scales of its groups.

    Raises:
        CourseError: when the inputs do not split into groups of that size.
    """
    inputs = weight.shape[-1]
    if inputs % group:
        raise CourseError(f"{inputs} inputs do not split into groups of {group}.")
    pieces = weight.unflatten(-1, (inputs // group, group))
    codes, scale = quantize_symmetric(pieces, bits)
    return codes.flatten(-2), scale.squeeze(-1)
