"""Fewer bits for a weight: how to choose them, store them, and compute with them.

affine         integers and a scale, with or without a zero point, per row or group
normal_float   NF4, whose levels lie where a normal distribution has its numbers
packing        two 4-bit codes to a byte, and a product that reads them
calibrate      which range to use when it has to be fixed beforehand
scheme         "int8-channel", "int4-g32", "nf4-double": what these names mean
scales         quantizing the scales, too
weight         a matrix as the parts that a scheme stores, and back
linear         QuantizedLinear, and a model whose linear layers become such
static         8-bit inputs as well: products of integers
error          what it costs
"""

from course_utils.models.quant.linear import (
    QuantizedLinear,
    dequantize_linears,
    model_bytes,
    quantize_linears,
)
from course_utils.models.quant.scheme import Scheme

__all__ = ["QuantizedLinear", "Scheme", "dequantize_linears", "model_bytes", "quantize_linears"]
