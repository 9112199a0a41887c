"""A trained GPT made ready to write: the same function in fewer, larger operations.

A single token has so little arithmetic that starting an operation costs as much as doing it. Here
the matrices that read the same input are one matrix, queries and keys are normalised and rotated
together, and angles are looked up:

    query, key, value   three products, two norms, two rotations  ─►  one of each
    gate, up            two products                              ─►  one
"""

from copy import deepcopy
from typing import Protocol, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.models.gpt import GPT, Block, KVCache, RMSNorm, rotation_tables
from course_utils.models.gpt.model import attention_mask
from course_utils.models.gpt.moe import MoE


class Cache(Protocol):
    """Where a layer's keys and values go, and all that its queries may look at come from."""

    def write(
        self,
        layer: int,
        keys: Float[Tensor, "batch n_kv_heads seq head_dim"],
        values: Float[Tensor, "batch n_kv_heads seq head_dim"],
    ) -> tuple[Tensor, Tensor]: ...


class FusedBlock:
    """One block's weights, joined."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attention, mlp = block.attention, block.mlp
        joined = (attention.query.weight, attention.key.weight, attention.value.weight)
        self.query_key_value = torch.cat(joined).to(dtype)
        self.output = attention.output.weight.to(dtype).T
        self.experts = None
        if isinstance(mlp, MoE):
            self.experts = deepcopy(mlp).to(dtype).requires_grad_(False)
        else:
            self.gate_up = torch.cat((mlp.gate.weight, mlp.up.weight)).to(dtype)
            self.down = mlp.down.weight.to(dtype).T
        self.attention_norm = block.attention_norm.weight.to(dtype)
        self.mlp_norm = block.mlp_norm.weight.to(dtype)
        # A row for each head: those of the queries, then those of the keys.
        self.bias = None
        if attention.query.bias is not None:
            biases = (attention.query.bias, attention.key.bias, attention.value.bias)
            self.bias = torch.cat(biases).to(dtype)
        self.query_key_norm = None
        query_norm, key_norm = (
            norm.weight if isinstance(norm, RMSNorm) else None
            for norm in (attention.query_norm, attention.key_norm)
        )
        if query_norm is not None and key_norm is not None:
            heads = [len(part) // len(query_norm) for part in joined[:2]]
            rows = (query_norm.expand(heads[0], -1), key_norm.expand(heads[1], -1))
            self.query_key_norm = torch.cat(rows)[:, None].to(dtype)


class FusedGPT(nn.Module):
    """Computes what the given model computes, for generation only: it does not train.

    `generate`, `stream` and `speculate` take it in the model's place. It stays on the device where
    the model was. The joined weights are copies: train the model further, and make another one.

    Args:
        model: of class `GPT`, with the library's own parts.
        dtype: of the weights and of the arithmetic; the model's own by default. A token costs
            reading all weights once, so bfloat16 halves the time where memory is the limit.
    """

    cos: Float[Tensor, "context head_dim"]
    sin: Float[Tensor, "context head_dim"]

    @torch.no_grad()
    def __init__(self, model: GPT, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.config = model.config
        self.embedding = nn.Embedding.from_pretrained(
            model.embedding.weight.to(dtype or model.embedding.weight.dtype)
        )
        weight = self.embedding.weight
        vocab, d_model = weight.shape
        self.output = nn.Linear(d_model, vocab, bias=False, device="meta")
        tied = model.output.weight is model.embedding.weight
        self.output.weight = weight if tied else nn.Parameter(model.output.weight.to(weight.dtype))
        self.requires_grad_(False)
        self.blocks = [FusedBlock(cast(Block, block), weight.dtype) for block in model.blocks]
        self.norm = model.norm.weight.to(weight.dtype)
        positions = torch.arange(model.config.context, device=weight.device)
        cos, sin = rotation_tables(positions, model.frequencies, model.config.yarn)
        self.cos = torch.cat((cos, cos), dim=-1).to(weight.dtype)
        self.sin = torch.cat((-sin, sin), dim=-1).to(weight.dtype)

    def forward(
        self, tokens: Int[Tensor, "batch seq"], *, cache: KVCache | None = None
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the token after each position."""
        return self.output(self.features(tokens, cache=cache))

    def features(
        self,
        tokens: Int[Tensor, "batch seq"],
        *,
        first: Int[Tensor, "batch"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """As `GPT.features`."""
        seq = tokens.shape[1]
        start = cache.length if cache else 0
        cos, sin = self.cos[start : start + seq], self.sin[start : start + seq]
        mask = attention_mask(start, seq, tokens.device, first=first)
        features = self.through_blocks(tokens, cos, sin, mask, cache)
        if cache is not None:
            cache.advance(seq)
        return features

    def through_blocks(
        self,
        tokens: Int[Tensor, "batch seq"],
        cos: Float[Tensor, "... seq head_dim"],
        sin: Float[Tensor, "... seq head_dim"],
        mask: Bool[Tensor, "... queries keys"] | None,
        cache: Cache | None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Features of tokens that may stand anywhere: angles, mask and cache say where."""
        batch, seq = tokens.shape
        x = self.embedding(tokens).flatten(0, 1)
        for layer, block in enumerate(self.blocks):
            heads = F.linear(
                self._normalised(x, block.attention_norm), block.query_key_value, block.bias
            )
            gathered = self._attend(
                heads.view(batch, seq, -1, self.config.head_dim).transpose(1, 2),
                block, cos, sin, mask, cache, layer,
            )  # fmt: skip
            x = torch.addmm(x, gathered, block.output)
            normalised = self._normalised(x, block.mlp_norm)
            if block.experts is not None:
                x = x + block.experts(normalised[None])[0]
                continue
            gate, up = F.linear(normalised, block.gate_up).chunk(2, dim=-1)
            x = torch.addmm(x, F.silu(gate) * up, block.down)
        return self._normalised(x, self.norm).view(batch, seq, -1)

    def _normalised(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.config.norm_eps)

    def _attend(
        self,
        heads: Float[Tensor, "batch heads seq head_dim"],
        block: FusedBlock,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        cache: Cache | None,
        layer: int,
    ) -> Float[Tensor, "tokens features"]:
        """What each token gathers; `heads` are those of the queries, the keys and the values."""
        config, (batch, _, seq, head_dim) = self.config, heads.shape
        turning = config.n_heads + config.n_kv_heads
        x, value = heads[:, :turning], heads[:, turning:]
        if block.query_key_norm is not None:
            x = F.rms_norm(x, (head_dim,), None, config.norm_eps) * block.query_key_norm
        # Rolling by half a head puts each feature's partner into its place.
        x = torch.addcmul(x * cos, x.roll(head_dim // 2, dims=-1), sin)
        query, key = x[:, : config.n_heads], x[:, config.n_heads :]
        if cache is not None:
            key, value = cache.write(layer, key, value)
        if seq > 1:
            gathered = F.scaled_dot_product_attention(
                query, key, value, mask, is_causal=mask is None, enable_gqa=config.group > 1
            )
            return gathered.transpose(1, 2).reshape(batch * seq, -1)
        # The query heads that share a key head, as if they were positions: nothing is repeated.
        query = query.reshape(batch, config.n_kv_heads, config.group, head_dim)
        # Not a view: CUDA's kernels lay out their results in other ways.
        return F.scaled_dot_product_attention(query, key, value, mask).reshape(batch, -1)


Writer = GPT | FusedGPT
