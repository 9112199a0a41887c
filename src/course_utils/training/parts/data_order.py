"""Which examples a step trains on: a stateless shuffle.

Every epoch visits the examples in a different order, and that order follows from the seed and the
epoch alone. So no checkpoint needs a sampler's position: the position is the step.

    step       0    1    2    3    4    5         batch_size 3, n = 10 examples
    epoch     |------0-----||------1-----|        10 // 3 = 3 steps an epoch; the example left over
    examples  [7 2 9][0 4 8]…                     is another one in the next epoch's order
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from course_utils.base.errors import CourseError


@lru_cache(maxsize=4)
def shuffled(seed: int, epoch: int, n: int) -> Int[Tensor, "n"]:
    """The order of the examples 0 … n−1 in an epoch. Shared between callers: do not write to it.

    Philox is a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as
    1, 2, 3"): seed and epoch together are its key, so that no two epochs share a stream.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return torch.from_numpy(generator.permutation(n))


def steps_per_epoch(batch_size: int, n: int) -> int:
    """Whole batches in one pass over n examples; the ragged end of an epoch is dropped.

    Raises:
        CourseError: when not even one batch fits.
    """
    if not 1 <= batch_size <= n:
        raise CourseError(
            f"A batch of {batch_size} does not fit in {n} examples: "
            f"choose a batch_size from 1 to {n}."
        )
    return n // batch_size


def global_batch(step: int, batch_size: int, n: int, seed: int) -> Int[Tensor, "batch_size"]:
    """The examples of optimizer step `step`, over all ranks.

    Epoch e visits the examples in the order `shuffled(seed, e, n)`, in consecutive batches of
    `batch_size`, in `steps_per_epoch(batch_size, n)` steps; it omits the examples left over.
    Steps are counted from 0 and continue through the epochs: the first step of epoch 1 comes after
    the last step of epoch 0.

    Args:
        n: how many examples there are.
        seed: of the shuffles.

    Returns:
        Numbers of examples, 0 to n − 1.
    """
    epoch, position = divmod(step, steps_per_epoch(batch_size, n))
    start = position * batch_size
    return shuffled(seed, epoch, n)[start : start + batch_size]


def part_of(batch: Int[Tensor, "batch"], part: int, parts: int) -> Int[Tensor, "micro_batch"]:
    """Part `part` of `parts` equal, consecutive parts of a global batch: one micro-batch.

    The parts have the same size and no example in common; concatenated in order, from part 0 on,
    they are the batch.

    Raises:
        CourseError: when the batch does not divide by `parts`.
    """
    if len(batch) % parts:
        raise CourseError(f"A batch of {len(batch)} does not divide into {parts} equal parts.")
    size = len(batch) // parts
    return batch[part * size : (part + 1) * size]
