"""A matrix as the parts that a scheme stores, and back."""

from functools import cache

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional as F

from course_utils.models.quant.affine import quantize_asymmetric, quantize_symmetric
from course_utils.models.quant.normal_float import nearest_level, nf4_levels
from course_utils.models.quant.packing import pack_nibbles, unpack_nibbles
from course_utils.models.quant.scales import dequantize_scales, quantize_scales
from course_utils.models.quant.scheme import Scheme

Parts = dict[str, Tensor]

OFFSET = 8  # added to 4-bit integers with a sign: bits know no sign


@torch.no_grad()
def quantize_weight(weight: Float[Tensor, "out inputs"], scheme: Scheme) -> Parts:
    """The parts that stand for a matrix.

    Returns:
        "codes": 8-bit codes in the shape of the matrix, int8 or with a zero point uint8; 4-bit
            codes two to a byte.
        "scale": float32; a row of its groups' scales for each output, or just one row. With
            `double`, the parts of `quantize_scales` instead.
        "zero": uint8 like the scales, for schemes with a zero point.

    Raises:
        CourseError: when the inputs do not split into the scheme's groups, or into pairs.
    """
    rows = _into_rows(weight.float(), scheme)
    if scheme.zero:
        codes, scale, zero = quantize_asymmetric(rows, scheme.bits)
        parts = {"scale": scale.squeeze(-1), "zero": zero.squeeze(-1)}
    else:
        top = 1 if scheme.kind == "nf4" else 2 ** (scheme.bits - 1) - 1
        scale = rows.abs().amax(dim=-1) / top
        parts = quantize_scales(scale) if scheme.double else {"scale": scale}
        # The codes are chosen for the scales that they will be multiplied with.
        codes = _codes(rows, scales_of(parts)[..., None] * top, scheme)
    codes = codes.view(weight.shape)
    return {"codes": pack_nibbles(codes) if scheme.bits == 4 else codes, **parts}


def dequantize_weight(
    parts: Parts, scheme: Scheme, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "out inputs"]:
    """The matrix that the parts stand for, computed in `dtype`."""
    codes, scale = parts["codes"], scales_of(parts).to(dtype)
    values = codes.to(dtype) if scheme.bits == 8 else _decode_nibbles(codes, scheme, dtype)
    rows = values.view(*scale.shape, -1)  # a view: in place, nothing is needed a second time
    if scheme.zero:
        rows -= parts["zero"].to(dtype)[..., None]
    rows *= scale[..., None]
    return values


def scales_of(parts: Parts) -> Float[Tensor, "rows groups"]:
    """The scales, in float32, however they are stored."""
    return parts["scale"] if "scale" in parts else dequantize_scales(parts)


def _into_rows(
    weight: Float[Tensor, "out inputs"], scheme: Scheme
) -> Float[Tensor, "rows groups n"]:
    """The matrix cut up so that what shares a scale lies along the last axis."""
    inputs = weight.shape[1]
    scheme.check(inputs)
    if scheme.group == 0:
        return weight.reshape(1, 1, -1)
    return weight.unflatten(1, (-1, scheme.group or inputs))


def _codes(
    rows: Float[Tensor, "rows groups n"], limit: Float[Tensor, "rows groups 1"], scheme: Scheme
) -> Int8[Tensor, "rows groups n"] | UInt8[Tensor, "rows groups n"]:
    if scheme.kind == "nf4":
        return nearest_level(rows / torch.where(limit > 0, limit, 1.0), nf4_levels())
    codes = quantize_symmetric(rows, scheme.bits, limit)[0]
    return codes if scheme.bits == 8 else (codes + OFFSET).to(torch.uint8)


def _decode_nibbles(
    packed: UInt8[Tensor, "out half"], scheme: Scheme, dtype: torch.dtype
) -> Float[Tensor, "out inputs"]:
    """What the codes stand for: one look-up for every two bytes, four codes at once."""
    two_bytes = packed.view(torch.int16).int() & 0xFFFF
    return F.embedding(two_bytes, _table(scheme.kind, scheme.zero, dtype, packed.device)).flatten(1)


@cache
def _table(
    kind: str, zero: bool, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "65536 4"]:
    """What the four codes in any two bytes stand for; half a megabyte, or one in float32."""
    level = nf4_levels() if kind == "nf4" else torch.arange(16) - (0 if zero else OFFSET)
    codes = unpack_nibbles(torch.arange(2**16).to(torch.uint16).view(torch.uint8)).int()
    return level[codes].view(-1, 4).to(device, dtype)
