"""Activation checkpointing: less memory for activations, at the price of a second forward pass.

The backward pass needs the activations of the forward pass, so autograd stores those of every
block. With activation checkpointing, autograd stores only each block's input, and runs the block's
forward pass again when the backward pass reaches the block:

    forward     block 1 ──► block 2 ──► block 3 ──►       stored: three inputs
    backward    block 1 ◄── block 2 ◄── block 3 ◄──       each block: forward again, then backward

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
    """Checkpoint the activations of the model's blocks while the context is active.

    The results stay bit-identical: the second forward pass uses the same dropout masks and the same
    autocast settings. Without gradients (evaluation, generation) nothing changes.

    Args:
        model: A model whose attribute `blocks` is an `nn.ModuleList` of its blocks.

    Raises:
        CourseError: when the model has no such attribute.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise CourseError(
            f"checkpoint_activations needs an nn.ModuleList named blocks; {type(model).__name__} "
            "has none. Name the model's list of layers blocks, or turn checkpoint_activations off."
        )
    try:
        for block in blocks:
            block.forward = _run_twice(block.forward)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)  # the class's own `forward` is visible again


def _run_twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # Both forward passes must use the same attention kernel. The second one happens after the
        # task's loss function, which entered StoredScores, has returned; so enter it again.
        chosen = StoredScores() if StoredScores.is_active() else contextlib.nullcontext()

        def again(*args: Any, **kwargs: Any) -> Any:
            with chosen:
                return forward(*args, **kwargs)

        return checkpoint(again, *args, use_reentrant=False, **kwargs)

    return run
