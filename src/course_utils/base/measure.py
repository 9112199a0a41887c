"""How long does a call take, and how much memory does it need?"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def milliseconds(function: Callable[..., Any], *arguments: Any, repeats: int = 10) -> float:
    """The median time of a call, after one that warms up.

    A GPU works in the background; the clock waits until it is done.
    """
    times = []
    for _ in range(repeats + 1):
        _wait()
        began = time.perf_counter()
        function(*arguments)
        _wait()
        times.append(1000 * (time.perf_counter() - began))
    return median(times[1:])


def peak_megabytes(function: Callable[..., Any], *arguments: Any) -> float:
    """The most memory that a call needs at any one time, its result included, its arguments not.

    On a GPU the allocator counts. On a CPU, where nobody does, all tensors are added up that are
    alive after each operation; what an operation takes and gives back by itself does not show.
    """
    if torch.cuda.is_available():
        function(*arguments)  # what is allocated once and for all does not count
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(*arguments)
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with _LivingTensors(arguments) as counted:
        function(*arguments)
    return counted.peak / 1e6


class _LivingTensors(TorchDispatchMode):
    """Sees every operation, and adds up the memory of the results that are still in use."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.peak = 0
        self._given = {StorageWeakRef(storage) for storage in _storages(given)}
        self._living: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        for storage in _storages(result):
            reference = StorageWeakRef(storage)  # a view has the storage of what it views
            if reference not in self._given:
                self._living[reference] = storage.nbytes()
        self._living = {r: size for r, size in self._living.items() if not r.expired()}
        self.peak = max(self.peak, sum(self._living.values()))
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [x.untyped_storage() for x in tree_leaves(values) if isinstance(x, torch.Tensor)]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
