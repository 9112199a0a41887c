"""Which number formats a device can train in.

The weights stay in fp32. Under autocast, matrix products run in 16 bits and what needs range or
digits (sums, norms, softmax, the loss) in 32. Micikevicius et al. 2018, arXiv:1710.03740.
"""

import torch

from course_utils.errors import CourseError
from course_utils.training.config import Precision

COMPUTE_DTYPE = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a format the device has no arithmetic for.

    Raises:
        CourseError: fp16 without a GPU, or bf16 on a GPU that only emulates it (before Ampere).
    """
    if precision == "fp16" and device.type == "cpu":
        raise CourseError(
            'precision "fp16" needs a GPU and this is a CPU: choose "bf16" (it needs no loss '
            'scaling and is fast on CPUs with AMX) or "no".'
        )
    if (
        precision == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        name = torch.cuda.get_device_name(device)
        raise CourseError(f'precision "bf16" is not native on this {name}: choose "fp16" or "no".')
