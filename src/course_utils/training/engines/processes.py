"""The processes of a run, and what they tell each other besides gradients.

Gradients travel between GPUs (NCCL). Counts, stop signals and decisions are a few numbers in main
memory, so they go over gloo: an all-reduce of CPU integers never waits for a GPU.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import AORecipeKwargs, GradientAccumulationPlugin, parse_flag_from_env
from torch import nn

from course_utils.base.errors import CourseError
from course_utils.training.config import Precision
from course_utils.training.engines.rendezvous import THIS_ATTEMPT

T = TypeVar("T")


def start_accelerator(precision: Precision) -> Accelerator:
    """The `Accelerator` of one run, among the processes that `Processes.start` joined.

    Its state is global; resetting the part above the process group lets the trainers of a notebook
    follow each other in different precisions. It accumulates nothing itself: `OptimizerStep`
    divides by the global count, which a division by the number of micro-batches would ignore.
    """
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=_on_cpu() and not under_deepspeed(),  # with cpu=True accelerate leaves DeepSpeed out
        mixed_precision=precision,
        kwargs_handlers=[AORecipeKwargs()] if precision == "fp8" else None,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    if precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate takes fp16 for impossible on a CPU, and goes on in fp32 without a word. torch
        # has both autocast and scaler for it; with these two set, the rest of accelerate follows.
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu")
    return accelerator


def prepare(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Move the model to its device, wrap it for several processes, and fit the optimizer to it.

    accelerate's own optimizer is passed on only where it does something, which is scaling fp16
    gradients: in every step it looks on the disk for a package, and a small model notices.
    """
    model, wrapped = accelerator.prepare(model, optimizer)
    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    needs_wrapper = accelerator.scaler is not None or accelerator.distributed_type not in plain
    return model, wrapped if needs_wrapper else optimizer


def release(accelerator: Accelerator, model: nn.Module) -> None:
    """Give the model back without autocast around its forward, and free the rest."""
    for leftover in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(leftover, None)
    if accelerator.device.type != "cpu":  # it runs the garbage collector, which takes its time
        accelerator.free_memory()


def describe(accelerator: Accelerator, together: str, precision: Precision) -> str:
    """What is really used, for the first line of a run's output."""
    device = accelerator.device
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{device.type}, threads: {torch.get_num_threads()}"
    count = accelerator.num_processes
    plural = "process" if count == 1 else "processes"
    return f"{count} {plural} ({where}), precision {precision}{together and f', {together}'}"


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; all of them must call a method for it to return."""

    index: int
    count: int
    device: torch.device

    @classmethod
    def start(cls) -> "Processes":
        """Join the processes that `accelerate launch` started; without it, be the only one.

        Raises:
            CourseError: when fewer work together than were launched: accelerate would train a
                copy of the model in each.
        """
        if under_deepspeed() and _on_cpu():
            _prepare_deepspeed_for_cpus()
            state = PartialState(cpu=False, backend="gloo", init_method=THIS_ATTEMPT)
        else:
            state = PartialState(cpu=_on_cpu(), init_method=THIS_ATTEMPT)
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if state.num_processes != launched:
            raise CourseError(
                f"{launched} processes were launched but {state.num_processes} work together "
                f"({state.distributed_type.value}): launch with a file of labs/accelerate/."
            )
        return cls(state.process_index, state.num_processes, state.device)

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element by element over all processes, in double precision (exact below 2⁵³)."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=_control_group(dist.group.WORLD))
        return tensor.tolist()

    def gather(self, value: T) -> list[T]:
        """Every process's value, by index."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=_control_group(dist.group.WORLD))
        return values

    def on_main(self, action: Callable[[], T]) -> T:
        """Let the main process act; all return its result, or all raise its `CourseError`.

        Processes that decided alone could go separate ways and wait for each other for ever.
        """
        if self.count == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = action()
            except CourseError as error:
                outcome[1] = str(error)
        dist.broadcast_object_list(outcome, src=0, group=_control_group(dist.group.WORLD))
        if outcome[1] is not None:
            raise CourseError(outcome[1])
        return outcome[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Give all the main process's buffers (running means of batch norm), as DDP does."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


def sum_over_processes(*values: float) -> list[float]:
    """Add up numbers over all processes; for a `Task.evaluate` that shares the work."""
    return Processes.start().sum(values)


def under_deepspeed() -> bool:
    """Whether the launch configuration asks for DeepSpeed."""
    return parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")


def under_fsdp() -> bool:
    """Whether the launch configuration asks for FSDP."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def _prepare_deepspeed_for_cpus() -> None:
    """Tell DeepSpeed that there is no GPU to look for, and nothing to compile.

    It would build an operator for inference at its start, which takes half a minute and a compiler.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _on_cpu() -> bool:
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


@cache
def _control_group(world: Any) -> Any:
    # The argument is the key: a new process group (a second notebook_launcher) gets a new one.
    return world if dist.get_backend(world) == "gloo" else dist.new_group(backend="gloo")
