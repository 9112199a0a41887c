"""Engines: who holds the weights, adds up the gradients and makes the update.

                     weights    gradients   optimizer state     launched with
    one process, DDP  whole       whole          whole          cpu, multi_cpu, gpu, multi_gpu
    ZeRO-1            whole       whole          split          zero1
    ZeRO-2            whole       split          split          zero2
    ZeRO-3, FSDP      split       split          split          zero3, zero3_offload, fsdp

All take the same steps from the same global batches, and all write the same checkpoint: the whole
weights and the whole optimizer state, as one process would. So a run may go on under another engine
or with another number of processes.
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
    """The engine that the launch asked for, with model and optimizer prepared for it.

    Raises:
        CourseError: when the optimizer or the precision does not work with it.
    """
    if under_deepspeed():
        # accelerate goes on without DeepSpeed, silently, when it finds no process group for it.
        assert accelerator.distributed_type is DistributedType.DEEPSPEED
        from course_utils.training.engines.deepspeed import ZeroEngine  # its import takes seconds

        return ZeroEngine(accelerator, model, optimizer, config)
    if under_fsdp():
        from course_utils.training.engines.fsdp import FSDPEngine

        return FSDPEngine(accelerator, model, optimizer, config)
    return PlainEngine(accelerator, model, optimizer)
