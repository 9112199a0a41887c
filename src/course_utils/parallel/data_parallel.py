"""Data parallelism: a replica of the model on every rank, a part of the batch for each.

    rank 0   rows 0 … 7    forward, backward ─┐                       ┌─ the same update
                                              ├─ mean of the gradients ┤
    rank 1   rows 8 … 15   forward, backward ─┘                       └─ the same update

The copies begin equal and see equal gradients, so they stay equal, and no rank sends weights again.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from course_utils.parallel.buckets import MEBIBYTE, fill_buckets, flatten, unflatten
from course_utils.parallel.collectives import all_reduce, broadcast
from course_utils.parallel.link import Link
from course_utils.parallel.timeline import Timeline


@torch.no_grad()
def share_parameters(link: Link, model: nn.Module) -> None:
    """Give every rank the weights of rank 0: where the copies begin equal."""
    for parameter in model.parameters():
        parameter.copy_(broadcast(link, parameter))


@torch.no_grad()
def average_gradients(
    link: Link, parameters: Sequence[nn.Parameter], capacity: int = 25 * MEBIBYTE
) -> None:
    """Replace every `.grad` by its mean over the ranks, bucket by bucket, after the backward pass.

    When each rank's loss is the mean over its rows, and all have equally many, the result is the
    gradient of the mean over the whole batch.
    """
    sizes = [parameter.numel() * parameter.element_size() for parameter in parameters]
    for bucket in fill_buckets(sizes, capacity):
        gradients = [_gradient(parameters[index]) for index in bucket]
        mean = all_reduce(link, flatten(gradients)) / link.world_size
        for gradient, part in zip(gradients, unflatten(mean, gradients), strict=True):
            gradient.copy_(part)


class DataParallel(nn.Module):
    """A module whose gradients are averaged over all ranks while they are still being computed.

    Every parameter has a hook that runs when its gradient is complete. The hook of a bucket's last
    parameter starts the bucket's all-reduce (gloo's or NCCL's, in the background), and the backward
    pass continues. `finish` waits for what is still under way. All ranks start their buckets in the
    same order, which a collective needs.

    Args:
        module: wrapped; rank 0's weights are given to all.
        capacity, first_capacity: of the buckets, in bytes.
        timeline: where the all-reduces are noted, from start to end.
    """

    def __init__(
        self,
        module: nn.Module,
        capacity: int = 25 * MEBIBYTE,
        first_capacity: int = MEBIBYTE,
        timeline: Timeline | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self._timeline = timeline or Timeline()
        self._learning = [p for p in module.parameters() if p.requires_grad]
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, src=0)
        sizes = [p.numel() * p.element_size() for p in self._learning]
        self.buckets = fill_buckets(sizes, capacity, first_capacity)
        for number, bucket in enumerate(self.buckets):
            for index in bucket:
                hook = partial(self._ready, number)
                self._learning[index].register_post_accumulate_grad_hook(hook)
        self._start_over()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def finish(self) -> None:
        """Wait for all buckets, and put the means into `.grad`; call it after `backward`."""
        while len(self._started) < len(self.buckets):  # with parameters that the loss did not use
            self._start(len(self._started))
        for bucket, (row, work) in zip(self.buckets, self._started, strict=True):
            work.wait()
            gradients = [_gradient(self._learning[index]) for index in bucket]
            for gradient, part in zip(gradients, unflatten(row, gradients), strict=True):
                torch.div(part, dist.get_world_size(), out=gradient)
        self._start_over()

    def _start_over(self) -> None:
        self._missing = [len(bucket) for bucket in self.buckets]
        self._started: list[tuple[Tensor, Any]] = []

    def _ready(self, number: int, _parameter: Tensor) -> None:
        self._missing[number] -= 1
        while (following := len(self._started)) < len(self.buckets):
            if self._missing[following] > 0:
                break
            self._start(following)

    def _start(self, number: int) -> None:
        row = flatten([_gradient(self._learning[index]) for index in self.buckets[number]])
        start = time.perf_counter()
        work = dist.all_reduce(row, async_op=True)
        name = f"bucket {number}"
        work.get_future().then(lambda _: self._timeline.add(name, "communicate", start))
        self._started.append((row, work))


def _gradient(parameter: nn.Parameter) -> Tensor:
    """`.grad`, with zeros where the loss did not use the parameter: the ranks must agree."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
