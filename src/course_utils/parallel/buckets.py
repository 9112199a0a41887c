"""Gradient buckets: groups of gradients that ranks all-reduce in one message.

A bucket is large, because many small messages have a large overhead. It is much smaller than the
model, so that communication overlaps with computation: the backward pass computes the last layers'
gradients first, and a bucket is sent as soon as its last gradient is ready, while the backward pass
continues with the layers below.

Paper: Li et al. (2020), "PyTorch Distributed: Experiences on Accelerating Data Parallel Training".
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

MEBIBYTE = 2**20


def fill_buckets(
    sizes: Sequence[int], capacity: int = 25 * MEBIBYTE, first_capacity: int = MEBIBYTE
) -> list[list[int]]:
    """Assign gradients to buckets, in the order in which the gradients become ready.

    Parameters are taken from the last to the first. Each goes into the bucket that is open. A
    bucket is closed as soon as the bytes in it reach its capacity (so it can be fuller than that by
    a part of its last gradient). The first bucket is smaller than the others: the sooner it is
    full, the sooner the network has something to do. What is in the open bucket at the end is the
    last one.

    Args:
        sizes: bytes of each parameter's gradient, in the order of `model.parameters()`.
        capacity: bytes from which a bucket is closed.
        first_capacity: the same for the first bucket.

    Returns:
        For each bucket the indices into `sizes`, in the order in which they were put in. Each index
        occurs once, and no bucket is empty.
    """
    buckets: list[list[int]] = []
    bucket: list[int] = []
    filled = 0
    for index in reversed(range(len(sizes))):
        bucket.append(index)
        filled += sizes[index]
        if filled >= (capacity if buckets else first_capacity):
            buckets.append(bucket)
            bucket, filled = [], 0
    if bucket:
        buckets.append(bucket)
    return buckets


def flatten(tensors: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "total"]:
    """All values in one row: one long message instead of many short ones."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(
    row: Shaped[Tensor, "total"], like: Sequence[Shaped[Tensor, "..."]]
) -> list[Shaped[Tensor, "..."]]:
    """Cut a row into views with the shapes of `like`."""
    parts = row.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]
