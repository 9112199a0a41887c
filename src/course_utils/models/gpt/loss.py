"""The loss of a language model, without keeping the logits it is made of.

The logits are a training step's largest tensor: 8 × 512 tokens with 6400 logits each are 105 MB in
float32, and cross-entropy keeps their softmax beside them. But its gradient (softmax minus one-hot)
is known as soon as the loss is. So both are computed for some rows at a time, while the logits are
still in the processor's cache, and what stays has the size of the features and of the weight.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from course_utils.base.ignored import IGNORED
from course_utils.models.autocast import compute_dtype

LOGITS_AT_A_TIME = 2**22  # 16 MB in float32
ROWS_AT_LEAST = 256  # with fewer, a large vocabulary's matrix is read too often


def next_token_loss(
    features: Float[Tensor, "*batch d_model"],
    weight: Float[Tensor, "vocab d_model"],
    targets: Int[Tensor, "*batch"],
) -> Float[Tensor, ""]:
    """Cross-entropy of softmax(features · weightᵀ) with the targets, summed over the positions.

    Args:
        features: what the output layer reads.
        weight: the output layer's.
        targets: the right token at each position, or IGNORED.

    Returns:
        The sum, in float32. Under autocast the products are computed in autocast's dtype; softmax
        and sums always in float32.

    Paper: Hsu et al. (2024), "Liger Kernel: Efficient Triton Kernels for LLM Training", fused
    linear cross-entropy.
    """
    if features.device.type == "cpu" and not torch.compiler.is_compiling():
        # Most of a chat is not learned. (Elsewhere, counting the rows would wait for the device.)
        counts = targets != IGNORED
        if not counts.all():
            features, targets = features[counts], targets[counts]
    wanted = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
    frozen = not weight.requires_grad  # as under LoRA: a large product less
    return _SummedCrossEntropy.apply(features, weight, targets, wanted, wanted and not frozen)


class _SummedCrossEntropy(torch.autograd.Function):
    """Computes the gradients together with the loss; `backward` only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        with_gradients: bool,
        weight_learns: bool,
    ) -> Tensor:
        dtype = compute_dtype(features)
        narrow = weight.to(dtype)
        loss = torch.zeros((), device=features.device)
        if with_gradients:
            to_features = torch.empty_like(features)
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if weight_learns else None
        rows = max(ROWS_AT_LEAST, LOGITS_AT_A_TIME // len(weight))
        for start in range(0, targets.numel(), rows):
            part = slice(start, start + rows)
            target = targets.flatten()[part, None]
            counts = target != IGNORED
            target = target.clamp(min=0)
            # With ignored rows set to zero, they add nothing to the weight's gradient.
            x = features.flatten(0, -2)[part].to(dtype) * counts
            log_probability = (x @ narrow.mT).float().log_softmax(dim=-1)
            loss -= (log_probability.gather(1, target) * counts).sum()
            if with_gradients:
                to_logits = log_probability.exp_()
                to_logits.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=torch.float))
                to_logits = to_logits.to(dtype)
                to_features.flatten(0, -2)[part] = (to_logits @ narrow) * counts
                if to_weight is not None:
                    to_weight += to_logits.mT @ x
        if with_gradients:
            kept = None if to_weight is None else to_weight.to(weight.dtype)
            ctx.save_for_backward(to_features, kept)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_loss: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        to_features, to_weight = ctx.saved_tensors
        scaled = None if to_weight is None else to_loss * to_weight
        return to_loss * to_features, scaled, None, None, None
