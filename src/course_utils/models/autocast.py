"""In which numbers a computation runs: autocast's, where it is on, and otherwise its input's."""

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a matrix product of `x` has."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def in_compute_dtype(x: Tensor) -> Tensor:
    """`x` in that dtype: rounded once for all products that read it."""
    return x.to(compute_dtype(x))
