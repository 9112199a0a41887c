"""Engines: how ranks hold the weights, reduce the gradients and update the weights.

                      weights      gradients    optimizer state    launched with
    one process, DDP  replicated   replicated   replicated         cpu, multi_cpu, gpu, multi_gpu
    ZeRO-1            replicated   replicated   sharded            zero1
    ZeRO-2            replicated   sharded      sharded            zero2
    ZeRO-3, FSDP      sharded      sharded      sharded            zero3, zero3_offload, fsdp

All engines take the same steps from the same global batches. All write the same checkpoint, with
the full weights and the full optimizer state, as a single process does. So a run can resume under
another engine or with another world size.
"""

import torch
from accelerate import Accelerator, DistributedType
from torch import nn

from course_utils.training.config import TrainConfig
from course_utils.training.engines.base import Engine, Whole
from course_utils.training.engines.plain import PlainEngine
from course_utils.training.engines.processes import under_deepspeed, under_fsdp

__all__ = ["Engine", "Whole", "make_engine"]


def make_engine(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> Engine:
    """The engine of the launch configuration, with the model and the optimizer prepared for it.

    Raises:
        CourseError: when the engine does not support the optimizer or the precision.
    """
    if under_deepspeed():
        # Without a process group, accelerate would silently train without DeepSpeed.
        assert accelerator.distributed_type is DistributedType.DEEPSPEED
        from course_utils.training.engines.deepspeed import ZeroEngine  # the import takes seconds

        return ZeroEngine(accelerator, model, optimizer, config)
    if under_fsdp():
        from course_utils.training.engines.fsdp import FSDPEngine

        return FSDPEngine(accelerator, model, optimizer, config)
    return PlainEngine(accelerator, model, optimizer)
