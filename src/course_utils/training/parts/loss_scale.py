"""Loss scaling: training in fp16 without underflow of small gradients.

The smallest positive fp16 number is 6·10⁻⁸, and many gradients are smaller. Multiplying the loss by
a factor multiplies every gradient by it (the chain rule is linear). The gradients are then large
enough for fp16, and the scaler divides them again afterwards, in fp32. The factor may be as large
as possible without overflow. The scaler finds it by trial: it increases the factor now and then;
when a gradient overflows, it skips the step and halves the factor.

Paper: Micikevicius et al. (2018), "Mixed Precision Training".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.training.parts.clip import clip_grad_norm


class LossScaler:
    """A factor on the loss that adapts to fp16's range; a short `torch.amp.GradScaler`.

        scaler = LossScaler()
        …
        scaler.scale(loss).backward()
        scaler.step(optimizer, max_norm=1.0)

    Args:
        factor: the initial factor; a power of two, so that scaling does not round.
        growth: the factor is multiplied by this after `interval` good steps in a row.
        backoff: the factor is multiplied by this after a step with a gradient that is not finite.
        interval: the number of good steps in a row before the factor grows.

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
        """The scaled loss, to call `backward` on."""
        return loss * self.factor

    def unscale(self, optimizer: torch.optim.Optimizer) -> bool:
        """Divide the gradients of the optimizer's parameters by the factor, in place.

        Parameters without a gradient are skipped. Returns whether every element of every
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
        """Take the optimizer's step if its gradients are finite, and adapt the factor.

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
