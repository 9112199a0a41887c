"""Loss scaling: training in fp16 without losing the small gradients.

fp16 ends at 6·10⁻⁸ below, and many gradients are smaller. Multiplying the loss by a factor
multiplies every gradient by it (the chain rule is linear), so they travel through fp16 enlarged and
are divided again afterwards, in fp32. How large may the factor be? As long as nothing overflows.
That is found by trying: grow it now and then, and when something became infinite, leave this step
out and halve it.

Paper: Micikevicius et al. (2018), "Mixed Precision Training".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.training.parts.clip import clip_grad_norm


class LossScaler:
    """A factor on the loss that follows what fp16 can hold; `torch.amp.GradScaler` in short.

        scaler = LossScaler()
        …
        scaler.scale(loss).backward()
        scaler.step(optimizer, max_norm=1.0)

    Args:
        factor: to begin with; a power of two, so that scaling changes no digits.
        growth: what the factor is multiplied by after `interval` good steps in a row.
        backoff: what it is multiplied by after a step whose gradients are not all finite.
        interval: good steps in a row that it takes to grow.

    Attributes:
        factor: the factor now.
        good_steps: good steps in a row since the factor last changed.
    """

    def __init__(
        self,
        factor: float = 2.0**16,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
    ) -> None:
        self.factor, self.growth, self.backoff, self.interval = factor, growth, backoff, interval
        self.good_steps = 0

    def scale(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The loss to go backward from."""
        return loss * self.factor

    def unscale(self, optimizer: torch.optim.Optimizer) -> bool:
        """Divide the gradients of the optimizer's parameters by the factor, in place.

        Parameters without a gradient are passed over. Returns whether every element of every
        gradient is finite, neither infinite nor NaN.
        """
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for gradient in gradients:
            gradient.div_(self.factor)
        return all(bool(gradient.isfinite().all()) for gradient in gradients)

    def step(self, optimizer: torch.optim.Optimizer, max_norm: float | None = None) -> bool:
        """Take the optimizer's step if its gradients are sound, and adapt the factor.

        1. Bring the gradients back to their true size (`unscale`, with the factor that the loss was
           scaled by).
        2. If all of them are finite: clip them to `max_norm`, unless that is None
           (`clip_grad_norm(parameters, max_norm)`; its limit is meant for gradients of true size),
           and let the optimizer step. That was a good step. When it makes `interval` good steps in
           a row, the factor grows, and counting begins again at 0.
        3. If not: the optimizer does not step, so neither weights nor momenta change. The factor
           shrinks, and counting begins again at 0.

        Returns:
            Whether the optimizer stepped.
        """
        if not self.unscale(optimizer):
            self.factor *= self.backoff
            self.good_steps = 0
            return False
        if max_norm is not None:
            clip_grad_norm(
                (p for group in optimizer.param_groups for p in group["params"]), max_norm
            )
        optimizer.step()
        self.good_steps += 1
        if self.good_steps == self.interval:
            self.factor *= self.growth
            self.good_steps = 0
        return True
