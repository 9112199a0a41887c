"""Attention for training on a CPU in bfloat16: fewer, larger matrix products.

PyTorch's fused attention computes the scores in small blocks and never stores all of them. On a
CPU its backward pass is slow in bfloat16. When one layer's scores fit into memory, products of
whole matrices are two to five times as fast for short sequences.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from course_utils.models.autocast import compute_dtype
from course_utils.models.gpt.attention import causal_mask

# For longer sequences fused attention is faster: the stored scores grow with the square of the
# length.
LONGEST = 512


class StoredScores(TorchFunctionMode):
    """While it is active, `F.scaled_dot_product_attention` stores the scores where that is faster.

    This applies to CPU tensors in bfloat16 (or under autocast to bfloat16), with gradients enabled,
    for up to LONGEST keys. All other calls use PyTorch's own implementation.
    """

    _entered = 0  # nesting depth: how many of these contexts are active

    @classmethod
    def is_active(cls) -> bool:
        return cls._entered > 0

    def __enter__(self) -> "StoredScores":
        StoredScores._entered += 1
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        StoredScores._entered -= 1
        super().__exit__(*error)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention and _is_faster(*args[:2]):
            return attend_storing_scores(*args, **kwargs)
        return function(*args, **kwargs)


def _is_faster(query: Tensor, key: Tensor) -> bool:
    if query.device.type != "cpu" or not torch.is_grad_enabled() or key.shape[-2] > LONGEST:
        return False
    return compute_dtype(query) == torch.bfloat16


def attend_storing_scores(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch kv_heads keys head_dim"],
    value: Float[Tensor, "batch kv_heads keys head_dim"],
    attn_mask: Bool[Tensor, "... queries keys"] | None = None,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """Compute `F.scaled_dot_product_attention`, storing the scores in memory.

    The queries of all heads that share a key head are stacked along the query axis. This gives few
    large matrix products instead of many small ones, and keys and values are not repeated.
    """
    batch, heads, queries, head_dim = query.shape
    kv_heads, keys = key.shape[1:3]
    if is_causal:
        attn_mask = causal_mask(queries, keys)
    stacked = (query / math.sqrt(head_dim)).reshape(batch, kv_heads, -1, head_dim)
    scores = (stacked @ key.transpose(-2, -1)).view(batch, heads, queries, keys)
    if attn_mask is not None:
        with (
            torch.no_grad()
        ):  # a masked weight is 0 and has gradient 0: autograd need not see the mask
            scores.masked_fill_(~attn_mask, float("-inf"))
    weights = scores.softmax(dim=-1)
    outputs = weights.view(batch, kv_heads, -1, keys) @ value
    return outputs.view(batch, heads, queries, head_dim)
