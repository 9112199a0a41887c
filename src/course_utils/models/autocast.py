"""In which numbers a computation runs: autocast's, where it is on, and otherwise its input's."""

from typing import Literal

import torch
from torch import Tensor

from course_utils.base.machine import read_cpu


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a matrix product of `x` has."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def in_compute_dtype(x: Tensor) -> Tensor:
    """`x` in that dtype: rounded once for all products that read it."""
    return x.to(compute_dtype(x))


def native_precision(device: torch.device) -> Literal["bf16", "fp16", "no"]:
    """The 16-bit format that the device computes in fastest; elsewhere it is imitated, slowly.

    bf16 on GPUs since Ampere and on CPUs with AMX or AVX-512 BF16, fp16 on older GPUs, else "no".
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and read_cpu().bf16 else "no"
