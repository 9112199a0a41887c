"""The ranks of a run, and their communication besides gradients.

Ranks exchange gradients between GPUs (NCCL). Item counts, stop signals and decisions are a few
numbers in main memory, so ranks exchange them over gloo: this never waits for a GPU.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import AORecipeKwargs, GradientAccumulationPlugin, parse_flag_from_env
from torch import nn
from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from course_utils.base.errors import CourseError
from course_utils.training.config import Precision

T = TypeVar("T")

# The rendezvous method for `init_process_group`, in place of env://; see `_rendezvous_of_attempt`.
THIS_ATTEMPT = "attempt://"


def _rendezvous_of_attempt(url: str, **options: Any) -> Iterator[tuple[Store, int, int]]:
    """Rendezvous as env:// does, with separate keys for each attempt of the launcher.

    `accelerate launch --max_restarts` restarts failed processes. torch's static rendezvous keeps
    one store for all attempts, but env:// expects an empty store. A process could therefore read
    the address of a process that has died, and wait for it forever.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    # urllib may have rewritten the url to attempt:?rank=…
    for store, rank, count in rendezvous(url.replace("attempt:", "env:", 1), **options):
        yield PrefixStore(f"attempt_{attempt}", store), rank, count


register_rendezvous_handler("attempt", _rendezvous_of_attempt)


def start_accelerator(precision: Precision) -> Accelerator:
    """Create the `Accelerator` of one run, in the process group that `Processes.start` joined.

    accelerate's state is global. Resetting it, but not the process group, allows one notebook to
    train in different precisions one after another. The number of accumulation steps is 1 because
    `OptimizerStep` itself divides the loss by the global item count.
    """
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=_on_cpu() and not under_deepspeed(),  # cpu=True would disable DeepSpeed
        mixed_precision=precision,
        kwargs_handlers=[AORecipeKwargs()] if precision == "fp8" else None,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    if precision == "fp16" and accelerator.device.type == "cpu":
        # On a CPU, accelerate silently trains in fp32 instead of fp16. torch supports autocast and
        # gradient scaling there; accelerate uses them when these two attributes are set.
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu")
    return accelerator


def prepare(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Move the model to its device, wrap it for several ranks, and prepare the optimizer.

    accelerate's optimizer wrapper is used only where it is needed, for scaling fp16 gradients: it
    searches the disk for a package in every step, which slows down small models.
    """
    model, wrapped = accelerator.prepare(model, optimizer)
    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    needs_wrapper = accelerator.scaler is not None or accelerator.distributed_type not in plain
    return model, wrapped if needs_wrapper else optimizer


def release(accelerator: Accelerator, model: nn.Module) -> None:
    """Remove accelerate's autocast wrapper from the model's forward, and free its memory."""
    for leftover in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(leftover, None)
    if accelerator.device.type != "cpu":  # runs the garbage collector, which is slow
        accelerator.free_memory()


def describe(accelerator: Accelerator, strategy: str, precision: Precision) -> str:
    """The devices, the precision and the strategy in use, for a run's first line of output."""
    device = accelerator.device
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{device.type}, threads: {torch.get_num_threads()}"
    count = accelerator.num_processes
    plural = "process" if count == 1 else "processes"
    return f"{count} {plural} ({where}), precision {precision}{strategy and f', {strategy}'}"


@dataclass(frozen=True)
class Processes:
    """This rank and the run's process group; a method returns only if all ranks call it."""

    index: int
    count: int
    device: torch.device

    @classmethod
    def start(cls) -> "Processes":
        """Join the process group of `accelerate launch`; without a launcher, be the only rank.

        Raises:
            CourseError: when the process group is smaller than the number of launched processes:
                accelerate would then train a separate model in each process.
        """
        if under_deepspeed() and _on_cpu():
            _prepare_deepspeed_for_cpus()
            state = PartialState(cpu=False, backend="gloo", init_method=THIS_ATTEMPT)
        else:
            state = PartialState(cpu=_on_cpu(), init_method=THIS_ATTEMPT)
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if state.num_processes != launched:
            raise CourseError(
                f"{launched} processes were launched, but the process group has "
                f"{state.num_processes} ({state.distributed_type.value}): "
                "launch with a file from labs/accelerate/."
            )
        return cls(state.process_index, state.num_processes, state.device)

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each element over all ranks, in double precision (integers are exact below 2⁵³)."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=_control_group(dist.group.WORLD))
        return tensor.tolist()

    def gather(self, value: T) -> list[T]:
        """Gather every rank's value; the list is in the order of the ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=_control_group(dist.group.WORLD))
        return values

    def on_main(self, action: Callable[[], T]) -> T:
        """Run `action` on rank 0; all ranks return its result, or all raise its `CourseError`.

        If each rank decided by itself, ranks could disagree and then wait for each other forever.
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
        """Broadcast rank 0's buffers (running means of batch norm) to all ranks, as DDP does."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


def sum_over_processes(*values: float) -> list[float]:
    """Sum each value over all ranks, for a `Task.evaluate` that divides the work."""
    return Processes.start().sum(values)


def under_deepspeed() -> bool:
    """Whether the launch configuration asks for DeepSpeed."""
    return parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")


def under_fsdp() -> bool:
    """Whether the launch configuration asks for FSDP."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def _prepare_deepspeed_for_cpus() -> None:
    """Tell DeepSpeed to use the CPU, and not to compile its shared-memory operator.

    Compiling that operator, which only inference needs, takes half a minute and a compiler.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _on_cpu() -> bool:
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


@cache
def _control_group(world: Any) -> Any:
    # The argument is the cache's key: a new default process group gets a new gloo group.
    return world if dist.get_backend(world) == "gloo" else dist.new_group(backend="gloo")
