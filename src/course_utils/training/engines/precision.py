"""The number formats that a device can train in.

The weights stay in fp32. Under autocast, matrix products run in 16 bits; operations that need more
range or precision (sums, norms, softmax, the loss) run in fp32. Micikevicius et al. 2018,
arXiv:1710.03740.

In fp8, the matrix products of the blocks' linear layers run in 8 bits, with one scale per matrix,
and everything else runs in bf16. This needs fp8 tensor cores and the package torchao. With torchao
every parameter stays the same fp32 tensor; transformer_engine and msamp, which accelerate also
supports, replace the parameters. The course has tested fp8 only with torchao's emulation on a CPU,
not on the hardware. Without `compile` it is slow.
Micikevicius et al. 2022, arXiv:2209.05433.
"""

import contextlib
from collections.abc import Iterator

import torch
from accelerate.utils import is_torchao_available
from torch import nn

from course_utils.base.errors import CourseError
from course_utils.training.config import Precision

COMPUTE_DTYPE = {
    "no": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,  # everything except the linear layers
}
FP8_CAPABILITY = (8, 9)  # Ada Lovelace (L4, RTX 40); Hopper (H100) is 9.0


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a number format that the device does not support.

    Raises:
        CourseError: for bf16 on a GPU that only emulates it (before Ampere), and for fp8 without a
            GPU that supports it or without torchao; the message says which is missing.
    """
    if (
        precision == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        name = torch.cuda.get_device_name(device)
        raise CourseError(f"{name} has no native bf16 arithmetic: choose --precision fp16 or no.")
    if precision == "fp8":
        _check_fp8(device)


def _check_fp8(device: torch.device) -> None:
    needs = (
        "--precision fp8 needs an NVIDIA GPU of compute capability 8.9 or more (L4, RTX 40, H100)"
    )
    if device.type != "cuda":
        raise CourseError(f"{needs}; this device is a {device.type.upper()}: choose bf16.")
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        found = ".".join(map(str, capability))
        raise CourseError(f"{needs}; this {name} has {found}: choose bf16.")
    if not is_torchao_available():
        raise CourseError(
            "--precision fp8 needs the package torchao (0.6.1 or newer): run "
            "`pip install torchao`, or choose bf16."
        )


@contextlib.contextmanager
def own_layers_afterwards(model: nn.Module) -> Iterator[None]:
    """Restore a model's own linear layers at the end, if torchao has replaced them (fp8).

    torchao's layers hold the same parameter tensors, so the trained weights are kept.
    """
    own = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    try:
        yield
    finally:
        for name, module in own.items():
            if model.get_submodule(name) is not module:
                model.set_submodule(name, module)
