"""Two 4-bit numbers to a byte, and a product that reads them so."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def pack_nibbles(codes: UInt8[Tensor, "*rows n"]) -> UInt8[Tensor, "*rows half"]:
    """Neighbours 2i and 2i + 1 (each 0 … 15) into one byte: the first in its low four bits."""
    return codes[..., 0::2] | codes[..., 1::2] << 4


def unpack_nibbles(packed: UInt8[Tensor, "*rows half"]) -> UInt8[Tensor, "*rows n"]:
    """What `pack_nibbles` packed."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)


def packed_linear(
    x: Float[Tensor, "*batch inputs"],
    packed: UInt8[Tensor, "out half"],
    scale: Float[Tensor, "out groups"],
) -> Float[Tensor, "*batch out"]:
    """x · Wᵀ for a weight W that is stored in 4 bits: unpack, scale, multiply.

    A byte holds two neighbouring inputs of a row of W: the one with the even number in its low four
    bits, the next one in its high four bits. What is stored is q + 8, because bits know no sign: q
    lies between −7 and 7. Each row of W is cut into equal groups of neighbouring inputs, and
    `scale` has one number for each: W = q · (the scale of its group).

    Args:
        x: inputs, in the dtype to compute in.
        packed: half as many bytes as W has inputs.
        scale: of each output's groups; their number divides that of the inputs.

    Returns:
        The products, in the dtype of `x`.
    """
    stored = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
    # To floating point first: below 8, unsigned integers would start again at 255.
    codes = stored.to(x.dtype) - 8
    pieces = codes.unflatten(-1, (scale.shape[-1], -1))
    weight = (pieces * scale.to(x.dtype)[..., None]).flatten(-2)
    return x @ weight.T
