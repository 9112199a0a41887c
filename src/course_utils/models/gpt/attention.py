"""Attention: every token takes a weighted mean of the values of the tokens that its mask allows."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.models.gpt.cache import KVCache
from course_utils.models.gpt.config import GPTConfig
from course_utils.models.gpt.norm import RMSNorm
from course_utils.models.gpt.rope import rotate


def attend(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys value_dim"],
    mask: Bool[Tensor, "... queries keys"] | None = None,
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Scaled dot-product attention, written out.

        softmax(query · keyᵀ / √head_dim) · value

    The softmax goes over the keys: the weights of one query add up to 1.

    Args:
        query, key, value: one row per token and head. Values may be of another width.
        mask: the attention mask, True where the query (row) attends to the key (column); None
            means everywhere. A key that is masked out gets weight 0, and the others share the
            whole 1. Every query attends to at least one key.

    Paper: Vaswani et al. (2017), "Attention Is All You Need". In the model, PyTorch's fused
    version does the same without storing the queries × keys matrix of scores.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ value


def causal_mask(
    queries: int, keys: int, device: torch.device | str | None = None
) -> Bool[Tensor, "queries keys"]:
    """The causal attention mask: each query attends to the key of its own position and all earlier.

    The queries are the **last** `queries` of `keys` positions, so query i has the position
    keys − queries + i. In training and prefill, queries = keys. In a decode step the keys of the
    earlier tokens are in the KV cache, and only the new positions have queries.

    Returns:
        Booleans; [i, j] is True where query i attends to key j.
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class GroupedQueryAttention(nn.Module):
    """Causal self-attention in which groups of query heads share a key and a value head.

    Queries and keys are normalised per head (QK-norm: their dot products do not grow with the
    matrices that make them) and then rotated by position. Fewer key/value heads make the cache
    smaller, not the number of patterns to attend with.

    Papers: Ainslie et al. (2023), "GQA"; Henry et al. (2020), "Query-Key Normalization for
    Transformers"; the order of the steps is that of Qwen3 (2025).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.shared = config.group > 1
        queries, shared = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.query = nn.Linear(config.d_model, queries, bias=config.qkv_bias)
        self.key = nn.Linear(config.d_model, shared, bias=config.qkv_bias)
        self.value = nn.Linear(config.d_model, shared, bias=config.qkv_bias)
        self.output = nn.Linear(queries, config.d_model, bias=False)
        self.query_norm, self.key_norm = self._norm(config), self._norm(config)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        rotation: tuple[Float[Tensor, "... seq half"], Float[Tensor, "... seq half"]],
        mask: Bool[Tensor, "... queries keys"] | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Every token attends to itself and to the tokens before it.

        1. Make queries, keys and values from `x`, and split each of them into heads.
        2. Normalise queries and keys (`query_norm`, `key_norm`), then rotate them. Values are not.
        3. With a cache, `cache.write(layer, key, value)` stores the new keys and values, and
           returns all of this layer so far. Attend to those.
        4. Attend, concatenate the heads, and multiply by `output`.

        Args:
            x: the new tokens.
            rotation: cosine and sine of their positions' angles, for `rotate`.
            mask: the attention mask; None means causal. Without a mask, several tokens are the
                whole sequence, and a single token attends to all keys.
            cache: keys and values of earlier tokens (lesson 08), and which `layer` of it is ours.
        """
        query = self._heads(self.query(x))
        key, value = self._heads(self.key(x)), self._heads(self.value(x))
        query = rotate(self.query_norm(query), *rotation)
        key = rotate(self.key_norm(key), *rotation)
        if cache is not None:
            key, value = cache.write(layer, key, value)
        gathered = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            # A single new token attends to all keys. torch's `is_causal` would take its query for
            # the first position instead of the last.
            is_causal=mask is None and query.shape[2] > 1,
            enable_gqa=self.shared,
        )
        return self.output(gathered.transpose(1, 2).flatten(2))

    @staticmethod
    def _norm(config: GPTConfig) -> nn.Module:
        # Llama's shape has no QK-norm; with an Identity, `forward` needs no special case.
        return RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def _heads(
        self, x: Float[Tensor, "batch seq features"]
    ) -> Float[Tensor, "batch heads seq head_dim"]:
        """Cut each token's features into heads of `head_dim` neighbours, heads before positions."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
