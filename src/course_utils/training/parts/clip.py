"""Gradient clipping: a limit on the update from one bad batch."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Float[Tensor, ""]:
    """Shorten the whole gradient to length `max_norm` if it is longer; keep its direction.

    Let g be the vector of all gradients together. Its length ‖g‖ is the root of the sum of
    the squares of every element of every gradient. Each `.grad` is multiplied, in place, by the
    one factor

        min(1, max_norm / (‖g‖ + 1e-6))

    Args:
        parameters: tensors of any shapes, for example `model.parameters()`, which may
            be an iterator that can be read only once. Skip those whose `.grad` is None.
        max_norm: the largest length allowed.

    Returns:
        ‖g‖ as it was *before* clipping, a tensor with no axes (zero when there is no gradient).
        When it is not finite (a gradient holds inf or nan) no factor makes sense: the gradients
        stay as they are, and the caller can see this from the result and skip the step.

    Paper: Pascanu, Mikolov and Bengio (2013), "On the difficulty of training recurrent neural
    networks".
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    # The norm of the norms is the norm of the whole, without a copy of all gradients in one vector.
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    # Chosen by tensor arithmetic: an `if` would make the CPU wait for the GPU in every step.
    factor = torch.where(norm.isfinite(), factor, 1.0)
    for gradient in gradients:
        gradient.mul_(factor)
    return norm
