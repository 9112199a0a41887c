"""Quantizing the scales, too.

With a float32 scale for every 64 weights, the scales cost half a bit per weight. They are much
alike, so 8 bits each, and one pair of float32 numbers for every 256 of them, do as well.

Paper: Dettmers et al. (2023), "QLoRA", section 3, "Double Quantization". There the second
quantization is to 8-bit floating point; here it is to the integers of `affine`.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from course_utils.models.quant.affine import dequantize, quantize_symmetric

BLOCK = 256


def quantize_scales(scale: Float[Tensor, "*shape"]) -> dict[str, Tensor]:
    """Scales as 8-bit integers around the mean of each block of 256.

    Returns:
        "scale_codes" int8 in the shape of `scale`, and "scale_step" and "scale_mean", one for each
        block.
    """
    flat = scale.flatten().float()
    # The last block is filled up with copies, which change neither its mean much nor its range.
    missing = -len(flat) % BLOCK
    blocks = F.pad(flat[None], (0, missing), mode="replicate")[0].view(-1, BLOCK)
    mean = blocks.mean(dim=-1, keepdim=True)
    codes, step = quantize_symmetric(blocks - mean)
    return {
        "scale_codes": codes.flatten()[: len(flat)].view(scale.shape),
        "scale_step": step.squeeze(-1),
        "scale_mean": mean.squeeze(-1),
    }


def dequantize_scales(parts: dict[str, Tensor]) -> Float[Tensor, "*shape"]:
    """The scales again; never below zero."""
    codes = parts["scale_codes"]
    flat = F.pad(codes.flatten(), (0, -codes.numel() % BLOCK)).view(-1, BLOCK)
    scale = dequantize(flat, parts["scale_step"][:, None]) + parts["scale_mean"][:, None]
    return scale.clamp(min=0).flatten()[: codes.numel()].view(codes.shape)
