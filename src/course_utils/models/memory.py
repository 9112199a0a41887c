"""How much memory does a model take?"""

from torch import nn


def parameter_bytes(model: nn.Module) -> int:
    """Bytes that the parameters of `model` occupy.

    A parameter takes (number of values) × (bytes per value), and the bytes per value depend on its
    dtype: 4 for float32, 2 for bfloat16. Frozen parameters take memory too and count. A parameter
    that is used in two places (tied weights) exists once and counts once. Buffers, such as the
    running averages of batch normalisation, are not parameters and do not count.
    """
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
