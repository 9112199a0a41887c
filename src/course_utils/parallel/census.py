"""A rank's memory, counted tensor by tensor, and the process's peak memory."""

import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from course_utils.training.loop.callbacks import Callback


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of memory behind tensors; what several of them share counts once."""
    return sum(storage.nbytes() for storage in _storages(tensors).values())


def saved_bytes(model: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that a forward pass keeps for the backward pass, the parameters not counted."""
    own = _storages(model.parameters())
    kept: dict[StorageWeakRef, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        reference = StorageWeakRef(tensor.untyped_storage())
        if reference not in own:
            kept[reference] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
        total = storage_bytes(kept.values())
    del result
    return total


def peak_resident_bytes() -> int:
    """The most main memory that this process has ever had."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the program had that started this one
        lines = status.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, on macOS


class StateCensus(Callback):
    """Counts what this process keeps of the model while a trainer trains it, under any engine.

    Attributes:
        kept: bytes of "parameters", "gradients" and "optimizer", the most of each at any time, and
            of "buffers": where DeepSpeed puts gradients together before it sends them.
    """

    def __init__(self) -> None:
        self.kept = dict.fromkeys(("parameters", "gradients", "optimizer", "buffers"), 0)

    def on_start(self, trainer: Any, step: int) -> None:
        self._model, self._optimizer = trainer.model, trainer.optimizer
        # DeepSpeed wraps the optimizer and gives it parts of the parameters instead of them.
        self._zero = getattr(getattr(trainer, "_engine", None), "_zero", None)
        if self._zero is not None:
            self._optimizer = self._zero.optimizer
        for parameter in self._model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._count_gradients)

    def on_step(self, trainer: Any, step: int) -> None:
        parameters = _storages(self._parameters())
        groups = self._optimizer.param_groups
        optimizer = [p for group in groups for p in group["params"]]
        optimizer += tree_leaves(list(self._optimizer.state.values()))
        if self._zero is not None:
            optimizer += list(_tensors(self._zero, *_MASTER_WEIGHTS))
        own = _storages(optimizer).items()
        kept = sum(s.nbytes() for reference, s in own if reference not in parameters)
        self._note("parameters", sum(s.nbytes() for s in parameters.values()))
        self._note("optimizer", kept)

    def _parameters(self) -> Iterator[Tensor]:
        for parameter in self._model.parameters():
            yield parameter.data
            if hasattr(parameter, "ds_tensor"):  # stage 3: this process's part of it
                yield parameter.ds_tensor.data

    def _count_gradients(self, _parameter: Tensor) -> None:
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        buffers: dict[StorageWeakRef, torch.UntypedStorage] = {}
        if self._zero is not None:
            gradients += list(_tensors(self._zero, "averaged_gradients", *_GRADIENT_PARTS))
            buffers = _storages(
                tensor
                for bucket in self._zero.ipg_buckets.values()
                for tensor in tree_leaves(bucket.buffer)
            )
        own = _storages(gradients).items()
        self._note("gradients", sum(s.nbytes() for r, s in own if r not in buffers))
        self._note("buffers", sum(s.nbytes() for s in buffers.values()))

    def _note(self, what: str, found: int) -> None:
        self.kept[what] = max(self.kept[what], found)


# Where DeepSpeed (0.19) keeps its parts, in stages 1 and 2, and in stage 3.
_MASTER_WEIGHTS = ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat")
_GRADIENT_PARTS = ("grad_partitions_flat_buffer",)


def _tensors(holder: Any, *names: str) -> Iterator[Tensor]:
    for name in names:
        yield from (x for x in tree_leaves(getattr(holder, name, None)) if isinstance(x, Tensor))


def _storages(tensors: Iterable[Any]) -> dict[StorageWeakRef, torch.UntypedStorage]:
    found = (x.untyped_storage() for x in tensors if isinstance(x, Tensor))
    return {StorageWeakRef(storage): storage for storage in found}
