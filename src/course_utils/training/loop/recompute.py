"""Activation checkpointing: memory for time.

The backward pass needs what the forward pass computed inside every block, so all of it is kept,
layer after layer. Instead, keep only each block's input, and run the block once more when the
backward pass gets there:

    forward     block 1 ──► block 2 ──► block 3 ──►       kept: three inputs
    backward    block 1 ◄── block 2 ◄── block 3 ◄──       each: forward again, then backward

Paper: Chen et al. (2016), "Training Deep Nets with Sublinear Memory Cost".
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from course_utils.base.errors import CourseError
from course_utils.training.loop.cpu_attention import StoredScores


@contextlib.contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """While it is active, the model's blocks are run again in the backward pass.

    The numbers stay the same to the last bit: dropout draws what it drew, and autocast is as it
    was. Without gradients (evaluation, generation) nothing changes.

    Args:
        model: its attribute `blocks` is the `nn.ModuleList` of the parts that are worth it.

    Raises:
        CourseError: when the model has none.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise CourseError(
            f"checkpoint_activations runs a model's blocks again, and {type(model).__name__} has "
            "no nn.ModuleList named blocks: give it one, or leave checkpoint_activations off."
        )
    try:
        for block in blocks:
            block.forward = _run_twice(block.forward)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)  # the class's own comes back


def _run_twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # The second run must take the same way through attention as the first, and happens when the
        # task's loss, which chose the way, has long returned.
        chosen = StoredScores() if StoredScores.is_active() else contextlib.nullcontext()

        def again(*args: Any, **kwargs: Any) -> Any:
            with chosen:
                return forward(*args, **kwargs)

        return checkpoint(again, *args, use_reentrant=False, **kwargs)

    return run
