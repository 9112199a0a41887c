"""Giving memory back when a training ends in an error."""

import contextlib
import traceback
from collections.abc import Iterator

import torch

from course_utils.base.errors import CourseError


@contextlib.contextmanager
def released_on_error(micro_batch: int, accumulation: int) -> Iterator[None]:
    """Let go of all tensors when the block is interrupted or runs out of memory.

    A notebook keeps the last traceback, the traceback keeps the frames, and the frames keep
    gigabytes of activations: the next try would run out of memory at once. Other errors keep
    theirs, for the debugger.

    Raises:
        CourseError: in place of the GPU's "out of memory", saying what helps.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        traceback.clear_frames(error.__traceback__)
        raise
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        raise CourseError(
            f"Out of GPU memory with micro-batches of {micro_batch}: "
            f"double accumulation (now {accumulation}) to halve them."
        ) from None
