"""Attention for training on a CPU in 16 bits: fewer, larger matrix products.

PyTorch's fused attention goes through the scores in small blocks and never stores them. On a CPU
the backward pass of that is slow in bfloat16. As long as the scores of a layer fit into memory
easily, plain products of whole matrices are two to five times as fast for short sequences.
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

LONGEST = 512  # beyond, fused attention is faster, and the scores grow with the square


class StoredScores(TorchFunctionMode):
    """While it is active, `F.scaled_dot_product_attention` stores the scores where that is faster.

    That is on CPUs, in bfloat16 (or under autocast to it), with gradients, up to LONGEST tokens.
    Everything else takes the way it always does.
    """

    _entered = 0  # how many of these are active, one inside the other

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
        if function is F.scaled_dot_product_attention and _pays(*args[:2]):
            return attend_storing_scores(*args, **kwargs)
        return function(*args, **kwargs)


def _pays(query: Tensor, key: Tensor) -> bool:
    if query.device.type != "cpu" or not torch.is_grad_enabled() or key.shape[-2] > LONGEST:
        return False
    return compute_dtype(query) == torch.bfloat16


def attend_storing_scores(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch kv_heads total head_dim"],
    value: Float[Tensor, "batch kv_heads total head_dim"],
    attn_mask: Bool[Tensor, "... seq total"] | None = None,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """What `F.scaled_dot_product_attention` computes, with the scores in memory.

    The queries of the heads that share a key head are put below each other: a few tall products
    instead of many small ones, and keys and values need not be repeated.
    """
    batch, heads, seq, head_dim = query.shape
    kv_heads, total = key.shape[1:3]
    if is_causal:
        attn_mask = causal_mask(seq, total)
    tall = (query / math.sqrt(head_dim)).reshape(batch, kv_heads, -1, head_dim)
    scores = (tall @ key.transpose(-2, -1)).view(batch, heads, seq, total)
    if attn_mask is not None:
        with torch.no_grad():  # a weight of 0 has no gradient: backward needs no mask
            scores.masked_fill_(~attn_mask, float("-inf"))
    weights = scores.softmax(dim=-1)
    gathered = weights.view(batch, kv_heads, -1, total) @ value
    return gathered.view(batch, heads, seq, head_dim)
