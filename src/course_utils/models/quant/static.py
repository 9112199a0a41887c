"""Activations in 8 bits as well: the whole product is done on integers.

Weight-only quantization saves memory, and multiplies in floating point. Processors and graphics
cards multiply 8-bit integers faster than anything else. For that the inputs have to be integers,
too, with a scale that was fixed beforehand (static quantization).

    y = (q_x · q_Wᵀ) · scale_x · scale_W          the product is summed up in int32

Paper: Jacob et al. (2018), "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference".
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from course_utils.models.quant.affine import quantize_symmetric


class StaticInt8Linear(nn.Module):
    """A linear layer that multiplies 8-bit integers; for inference.

    Args:
        linear: the layer it stands for. Its weight gets a scale for each output.
        limit: the largest magnitude that inputs are expected to have; what is larger is clipped.
    """

    codes: Int8[Tensor, "inputs out"]
    scale: Float[Tensor, "out"]
    step: Float[Tensor, ""]
    bias: Float[Tensor, "out"] | None

    def __init__(self, linear: nn.Linear, limit: float) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        codes, scale = quantize_symmetric(linear.weight.detach().float())
        self.register_buffer("codes", codes.T.contiguous())
        self.register_buffer("scale", scale.flatten())
        self.register_buffer("step", torch.tensor(limit / 127))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch out"]:
        """The layer's output, in the dtype of `x`."""
        inputs = (x / self.step).round().clamp(-127, 127).to(torch.int8).flatten(0, -2)
        sums = torch._int_mm(inputs, self.codes)
        y = (sums * (self.step * self.scale)).to(x.dtype)
        y = y if self.bias is None else y + self.bias
        return y.unflatten(0, x.shape[:-1])


def quantize_static(model: nn.Module, limits: Mapping[str, float]) -> None:
    """Replace linear layers in place; `limits` has, by name, the largest inputs they will see."""
    for name, limit in limits.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear), name
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, StaticInt8Linear(linear, limit))
