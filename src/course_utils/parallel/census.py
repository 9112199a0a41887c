"""What a process really keeps, counted tensor by tensor, and what the system says to that."""

import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of memory behind tensors; what several of them share counts once."""
    storages = {StorageWeakRef(t.untyped_storage()): t.untyped_storage() for t in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def saved_bytes(model: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that a forward pass keeps for the backward pass, the parameters not counted."""
    own = {StorageWeakRef(p.untyped_storage()) for p in model.parameters()}
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
