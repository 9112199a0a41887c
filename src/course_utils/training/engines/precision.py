"""Which number formats a device can train in.

The weights stay in fp32. Under autocast, matrix products run in 16 bits and what needs range or
digits (sums, norms, softmax, the loss) in 32. Micikevicius et al. 2018, arXiv:1710.03740.

In fp8, the products of the blocks' linear layers run in 8 bits, each matrix with a scale of its
own, and what is around them in bf16. That needs tensor cores made for it, and torchao, which drives
them and leaves every parameter the fp32 tensor that it is (transformer_engine and msamp, which
accelerate also knows, put others in their place). Here this has been run only with torchao's
emulation of 8 bits, on a CPU; on the hardware itself not yet. Without `compile` it is slow.
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
    "fp8": torch.bfloat16,  # of everything around the linear layers
}
FP8_CAPABILITY = (8, 9)  # Ada Lovelace (L4, RTX 40); Hopper (H100) is 9.0


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a format the device has no arithmetic for.

    Raises:
        CourseError: bf16 on a GPU that only emulates it (before Ampere), or fp8 without a GPU for
            it or without torchao; it says which is missing.
    """
    if (
        precision == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        name = torch.cuda.get_device_name(device)
        raise CourseError(f'precision "bf16" is not native on this {name}: choose "fp16" or "no".')
    if precision == "fp8":
        _check_fp8(device)


def _check_fp8(device: torch.device) -> None:
    needs = (
        'precision "fp8" needs an NVIDIA GPU of compute capability 8.9 or more (L4, RTX 40, H100)'
    )
    if device.type != "cuda":
        raise CourseError(f'{needs}; this is a {device.type.upper()}: choose "bf16".')
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        found = ".".join(map(str, capability))
        raise CourseError(f'{needs}; this {name} has {found}: choose "bf16".')
    if not is_torchao_available():
        raise CourseError(
            'precision "fp8" needs the package torchao (0.6.1 or newer): `pip install torchao`, or '
            'choose "bf16".'
        )


@contextlib.contextmanager
def own_layers_afterwards(model: nn.Module) -> Iterator[None]:
    """Put a model's own linear layers back in the end, if others took their places (fp8).

    The layers that torchao puts there hold the very same parameters, so what was trained stays.
    """
    own = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    try:
        yield
    finally:
        for name, module in own.items():
            if model.get_submodule(name) is not module:
                model.set_submodule(name, module)
